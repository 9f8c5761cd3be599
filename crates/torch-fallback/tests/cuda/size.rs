//! Layers of real size: panels, splits of K, addresses past 2^31.

use gptq_conformance::Activations;
use gptq_core::format::Bits;
use gptq_core::tensor::DType;

use crate::support::{Kind, forward, gpu, judge, layer, open};

fn check(test: &str, kinds: &[Kind], calls: &[(DType, usize)]) {
    let Some(_gpu) = gpu(test) else { return };
    for (number, kind) in kinds.iter().enumerate() {
        let packed = layer(&format!("layer {number}: {kind:?}"), *kind);
        let model = open(vec![packed.clone()]).unwrap();
        let mut context = model.context().unwrap();
        for &(dtype, rows) in calls {
            let x = Activations::normal([rows, kind.k], dtype, rows as u64);
            let out = forward(&model, packed.name(), &x, &mut context);
            let of_bound = judge(&packed, &x, &out);
            eprintln!("{}: x {dtype} [{rows}, K], {of_bound:.2} of the bound", packed.name());
        }
    }
}

const CALLS: [(DType, usize); 10] = [
    (DType::F16, 1),
    (DType::F16, 3),
    (DType::F16, 5),
    (DType::F16, 64),
    (DType::F16, 300),
    (DType::BF16, 1),
    (DType::BF16, 40),
    (DType::F32, 1),
    (DType::F32, 9),
    (DType::F32, 65),
];

#[test]
fn layers_of_real_size_answer_as_the_oracle_does() {
    let kinds = [Kind::four_bits(8192, 28672), Kind::four_bits(28672, 8192), Kind::four_bits(4096, 11008)];
    check("layers of real size", &kinds, &CALLS);
}

#[test]
fn act_order_other_widths_and_biases_are_right_at_real_size() {
    let four = Kind::four_bits(4096, 4096);
    let kinds = [
        Kind { act_order: true, bias: true, ..Kind::four_bits(11008, 4096) },
        Kind { bits: Bits::EIGHT, bias: true, ..four },
        Kind { bits: Bits::THREE, ..four },
        Kind { bits: Bits::ALL[3], group_size: -1, bias: true, ..four },
        Kind { bits: Bits::TWO, group_size: 32, ..four },
    ];
    check("other kinds at real size", &kinds, &CALLS);
}

#[test]
fn a_head_of_many_columns_and_many_rows_of_x_are_cut_into_panels() {
    let kinds = [Kind { group_size: -1, ..Kind::four_bits(2048, 151_936) }];
    check("a large head", &kinds, &[(DType::F16, 1), (DType::F16, 33), (DType::BF16, 200)]);
    let kinds = [Kind::four_bits(256, 512)];
    check("more rows than a piece has", &kinds, &[(DType::F16, 70_000), (DType::F32, 66_000)]);
}
