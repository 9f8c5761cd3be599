//! Layers of real size: panels, splits of K, addresses past 2^31.

use gptq_conformance::case::Case;
use gptq_conformance::rig::Rig;
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::DType;

use crate::support::{four_bits, gpu, groups_of, in_act_order, target};

fn check(test: &str, cases: &[Case], calls: &[(DType, usize)]) {
    let Some(_gpu) = gpu(test) else { return };
    let target = target();
    for case in cases {
        let rig = Rig::of_noise(&target, &[*case], DType::F16, None).unwrap();
        let mut context = rig.context().unwrap();
        for &(dtype, rows) in calls {
            let x = rig.x(0, rows, dtype, rows as u64);
            let output = rig.forward(0, &x, &mut context).unwrap();
            let of_bound = rig.judge(0, &x, &output).unwrap();
            eprintln!("{}: {of_bound:.2} of the bound", rig.describe(0, &x));
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
    let cases = [four_bits(8192, 28672), four_bits(28672, 8192), four_bits(4096, 11008)];
    check("layers of real size", &cases, &CALLS);
}

#[test]
fn act_order_other_widths_and_biases_are_right_at_real_size() {
    let four = four_bits(4096, 4096);
    let planar = Case { packing: Packing::Planar, ..four };
    let cases = [
        Case { bias: true, ..in_act_order(four_bits(11008, 4096)) },
        Case { bits: Bits::EIGHT, bias: true, ..four },
        Case { bits: Bits::THREE, ..planar },
        Case { bits: Bits::ALL[3], group_size: groups_of(-1), bias: true, ..planar },
        Case { bits: Bits::TWO, group_size: groups_of(32), ..four },
    ];
    check("other kinds at real size", &cases, &CALLS);
}

#[test]
fn a_head_of_many_columns_and_many_rows_of_x_are_cut_into_panels() {
    let cases = [Case { group_size: groups_of(-1), ..four_bits(2048, 151_936) }];
    check("a large head", &cases, &[(DType::F16, 1), (DType::F16, 33), (DType::BF16, 200)]);
    let cases = [four_bits(256, 512)];
    check("more rows than a piece has", &cases, &[(DType::F16, 70_000), (DType::F32, 66_000)]);
}
