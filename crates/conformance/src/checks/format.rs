//! What a layer means, however it is stored; and that it stays as it was stored.

use gptq_core::QuantLinear;
use gptq_core::backend::ZeroOperand;
use gptq_core::format::{Bits, GroupIndex, GroupSize, Packing, ZeroDialect, ZeroEncoding};
use gptq_core::tensor::DType;

use crate::case::{Built, Case, GIdx};
use crate::oracle::stored_zero;
use crate::rig::{Rig, layer_name};
use crate::target::{Summary, Target};

const ENCODINGS: [ZeroEncoding; 3] =
    [ZeroEncoding::V2, ZeroEncoding::V1(ZeroDialect::FieldWrap), ZeroEncoding::V1(ZeroDialect::WordBorrow)];
/// M of the calls: a fused kernel's and a matrix kernel's.
const ROWS: [usize; 3] = [1, 7, 51];

/// Runs several cases that have to be one and the same layer, in one model, and compares their bits.
fn all_the_same(target: &Target, cases: &[Case], dtype: DType) -> Result<usize, String> {
    let rig = Rig::open(target, cases, dtype, None)?;
    let mut context = rig.context()?;
    for rows in ROWS {
        let x = rig.x(0, rows, dtype, 21);
        let first = rig.forward_right(0, &x, &mut context)?;
        for index in 1..cases.len() {
            let output = rig.forward_right(index, &x, &mut context)?;
            if let Some(element) = first.first_difference(&output) {
                return Err(format!(
                    "{}: expected the same bits as of the same layer stored as `{}`; element {element} is {}, \
                     expected {}",
                    rig.describe(index, &x),
                    cases[0],
                    output.values()[element],
                    first.values()[element],
                ));
            }
        }
    }
    Ok(cases.len() * ROWS.len())
}

/// Zero points mean the same in every encoding: direct, less one per field, less one per word; with 0, 1 and the
/// largest code side by side.
pub fn zero_encodings(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for sym in [false, true] {
        for bits in Bits::ALL {
            let found = target.find(|plain| Case {
                bits,
                sym,
                // Files of the continuous format alone have encodings to choose from.
                packing: Packing::Continuous,
                seed: 22,
                ..plain
            });
            let Some((case, dtype)) = found else {
                summary.declined += 1;
                continue;
            };
            let cases = ENCODINGS.map(|zero_encoding| Case { zero_encoding, ..case });
            summary.ran += all_the_same(target, &cases, dtype)?;
        }
    }
    Ok(summary)
}

/// An index that is absent, trivial, or all zeros means consecutive groups; one of a single group means nothing.
pub fn g_idx_without_order(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for (single, kinds) in [
        (false, &[GIdx::Absent, GIdx::Trivial, GIdx::AllZero][..]),
        (true, &[GIdx::Absent, GIdx::SingleGroup]),
    ] {
        let found = target.find_where(
            |plain| Case {
                group_size: if single { GroupSize::PerColumn } else { plain.group_size },
                seed: 23,
                ..plain
            },
            |case| (case.groups() == 1) == single,
        );
        let Some((case, dtype)) = found else {
            summary.declined += 1;
            continue;
        };
        let cases: Vec<Case> = kinds.iter().map(|&g_idx| Case { g_idx, ..case }).collect();
        summary.ran += all_the_same(target, &cases, dtype)?;
    }
    Ok(summary)
}

/// Converting is idempotent: a layer that was converted is not converted again, neither by a second call nor by a
/// second `post_init`; and the zero points stay what they are.
pub fn converting_twice(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let operand = target.capabilities().map_err(|rejection| rejection.to_string())?.zeros;
    for zero_encoding in ENCODINGS {
        for sym in [false, true] {
            let shape = |plain| Case { zero_encoding, sym, seed: 24, ..plain };
            let Some((case, dtype)) = target.find(shape) else {
                summary.declined += 1;
                continue;
            };
            let built = case.build(&layer_name(0)).map_err(|error| format!("{case}: {error}"))?;
            convert_twice(target, &built, operand)?;

            let rig = Rig::of(target, std::slice::from_ref(&built), dtype, None)?;
            let x = rig.x(0, 7, dtype, 25);
            let once = rig.forward_right(0, &x, &mut rig.context()?)?;
            let converted: Vec<QuantLinear> =
                rig.model.layers().iter().map(|layer| layer.packed().clone()).collect();
            let words = converted[0].zeros().words().to_vec();

            let again = Rig::of_layers(target, std::slice::from_ref(&built), converted, dtype, None)?;
            let rewritten = again.model.report().convert.zeros_converted();
            if rewritten != 0 {
                return Err(format!(
                    "{case}: post_init of a converted layer converted {rewritten} zero points again"
                ));
            }
            if again.model.layers()[0].packed().zeros().words() != words {
                return Err(format!("{case}: post_init of a converted layer changed the words of qzeros"));
            }
            let twice = again
                .forward_right(0, &x, &mut again.context()?)
                .map_err(|problem| format!("after a second post_init of the converted layer: {problem}"))?;
            if once.first_difference(&twice).is_some() {
                return Err(format!("{case}: a second post_init of the converted layer gave other bits"));
            }
            summary.ran += 1;
        }
    }
    Ok(summary)
}

fn convert_twice(target: &Target, built: &Built, operand: ZeroOperand) -> Result<(), String> {
    let case = built.case;
    let open = target.registration().open;
    let mut backend = open(target.device(), target.options())
        .map_err(|error| format!("open failed: {}", error.report()))?;
    let mut layer = built.layer.clone();
    let mut convert = |layer: &mut QuantLinear| {
        backend
            .convert_format(layer)
            .map_err(|error| format!("{case}: convert_format failed: {}", error.report()))
    };
    convert(&mut layer)?;
    let (words, encoding) = (layer.zeros().words().to_vec(), layer.zeros().encoding());
    same_zeros(built, &layer, "convert_format")?;
    let as_declared = match operand {
        ZeroOperand::V2 => encoding == ZeroEncoding::V2,
        ZeroOperand::V1 => matches!(encoding, ZeroEncoding::V1(_)),
        _ => true,
    };
    if !as_declared {
        return Err(format!(
            "{case}: the capabilities say that the kernels read zeros as {operand:?}, and convert_format left them \
             in {encoding}"
        ));
    }
    convert(&mut layer)?;
    if layer.zeros().words() != words || layer.zeros().encoding() != encoding {
        return Err(format!("{case}: a second convert_format changed the zero points"));
    }
    Ok(())
}

/// The zero points of `layer`, in whichever encoding, are those that were packed.
fn same_zeros(built: &Built, layer: &QuantLinear, after: &str) -> Result<(), String> {
    let n = built.case.out_features;
    for (index, &expected) in built.values.zeros.iter().enumerate() {
        let found = stored_zero(layer, index / n, index % n);
        if found != expected {
            return Err(format!(
                "{}: after {after}, the zero point of group {}, column {} is {found}, expected {expected}",
                built.case,
                index / n,
                index % n
            ));
        }
    }
    Ok(())
}

/// The packed layers come out as they went in, zero points aside, which mean the same: so that a finalized model can
/// be saved, dequantized and verified.
pub fn packed_layers_stay(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for g_idx in [GIdx::Absent, GIdx::ActOrder] {
        for bias in [false, true] {
            let Some((case, dtype)) = target.find(|plain| Case { g_idx, bias, seed: 26, ..plain }) else {
                summary.declined += 1;
                continue;
            };
            let built = case.build(&layer_name(0)).map_err(|error| format!("{case}: {error}"))?;
            let rig = Rig::of(target, std::slice::from_ref(&built), dtype, Some(16))?;
            rig.forward_right(0, &rig.x(0, 9, dtype, 27), &mut rig.context()?)?;

            let (before, after) = (&built.layer, rig.model.layers()[0].packed());
            let bytes_of_bias = |layer: &QuantLinear| layer.bias().map(|bias| bias.as_bytes().to_vec());
            let rows_of = |layer: &QuantLinear| match layer.group_index() {
                GroupIndex::Sequential => None,
                GroupIndex::ActOrder(order) => Some(order.groups_of_rows().to_vec()),
            };
            for (tensor, same) in [
                ("qweight", before.qweight()[..] == after.qweight()[..]),
                ("scales", before.scales().as_bytes() == after.scales().as_bytes()),
                ("bias", bytes_of_bias(before) == bytes_of_bias(after)),
                ("g_idx", rows_of(before) == rows_of(after)),
            ] {
                if !same {
                    return Err(format!("{case}: post_init changed {tensor} of the packed layer"));
                }
            }
            same_zeros(&built, after, "post_init")?;
            summary.ran += 1;
        }
    }
    Ok(summary)
}
