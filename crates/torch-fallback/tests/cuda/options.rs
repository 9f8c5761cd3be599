//! The option `dense_rows`: which calls write the dense matrix.

use gptq_conformance::Target;
use gptq_conformance::case::Case;
use gptq_conformance::rig::Rig;
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::DType;

use crate::support::{four_bits, gpu, in_act_order, target};

fn with(option: &str) -> Target {
    target().with_options(&[option]).unwrap()
}

/// Never, always, and from a number of rows that lies in the middle of a fused product.
#[test]
fn any_number_of_rows_is_right_whatever_writes_a_dense_matrix() {
    let Some(_gpu) = gpu("dense_rows") else { return };
    let four = Case { bias: true, ..four_bits(512, 800) };
    let cases = [
        four,
        in_act_order(four),
        Case { bits: Bits::THREE, packing: Packing::Planar, ..four },
        Case { in_features: 504, out_features: 777, ..four },
        Case { in_features: 504, out_features: 777, bias: false, ..four },
        Case { in_features: 1000, out_features: 1034, ..four },
    ];
    for option in ["torch.dense_rows=0", "torch.dense_rows=1", "torch.dense_rows=7"] {
        let target = with(option);
        let rig = Rig::of_noise(&target, &cases, DType::F16, None).unwrap();
        let mut context = rig.context().unwrap();
        for index in 0..cases.len() {
            for (dtype, rows) in [DType::F16, DType::BF16, DType::F32]
                .into_iter()
                .zip([[1, 6, 9], [2, 7, 133], [4, 8, 65]])
                .flat_map(|(dtype, rows)| rows.map(|rows| (dtype, rows)))
            {
                let x = rig.x(index, rows, dtype, rows as u64);
                rig.forward_right(index, &x, &mut context)
                    .map(drop)
                    .unwrap_or_else(|problem| panic!("{option}: {problem}"));
            }
        }
    }
}

#[test]
fn a_model_that_never_writes_a_dense_matrix_has_no_scratch_for_one() {
    let Some(_gpu) = gpu("scratch without a dense matrix") else { return };
    let scratch = |option: &str| {
        let target = with(option);
        let rig = Rig::of_noise(&target, &[four_bits(4096, 4096)], DType::F16, None).unwrap();
        rig.model().scratch_bytes()
    };
    let (never, from_nine) = (scratch("torch.dense_rows=0"), scratch("torch.dense_rows=9"));
    assert!(never < 1 << 20, "{never} bytes, of which sums of a divided K are the most");
    assert!(from_nine >= 4096 * 4096 * 2, "{from_nine} bytes do not hold the matrix in f16");
}
