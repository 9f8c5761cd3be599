//! Right answers, whole answers, the same answers.

use gptq_core::Error;
use gptq_core::tensor::DType;

use crate::accuracy::Activations;
use crate::case::{Case, GIdx};
use crate::matrix::{Entry, accepted_entries, sample};
use crate::rig::{Offsets, Rig};
use crate::target::{Summary, Target};

/// The case matrix: every pair of factors that the backend accepts is within the bound of the oracle, and what it does
/// not accept is refused by the plan, by name.
pub fn every_pair_of_factors(target: &Target) -> Result<Summary, String> {
    let (entries, declined) = accepted_entries(|entry| target.accepts(&entry.case, entry.x_dtype).is_ok());
    let mut worst = 0.0f64;
    for entry in &entries {
        let rig = Rig::open(target, &[entry.case], entry.x_dtype, None)?;
        let x = rig.x(0, entry.rows, entry.x_dtype, entry.case.seed);
        let output = rig.forward(0, &x, &mut rig.context()?)?;
        worst = worst.max(rig.judge(0, &x, &output)?);
    }
    for entry in crate::matrix::entries() {
        if target.accepts(&entry.case, entry.x_dtype).is_ok() {
            continue;
        }
        let outline = entry.case.outline().map_err(|error| format!("{entry}: {error}"))?;
        match target.open(vec![outline], Some(entry.x_dtype), None) {
            Err(Error::Rejected { .. }) => {}
            Err(error) => return Err(format!("{entry}: expected a rejection, found: {}", error.report())),
            Ok(_) => return Err(format!("{entry}: the backend declines it, and the plan took it")),
        }
    }
    match entries.len() {
        0 => Err(format!("the backend accepts none of {declined} cases: it cannot be tested")),
        ran => Ok(Summary { declined, worst: Some(worst), ..Summary::ran(ran) }),
    }
}

/// A [sample] of the case matrix: what picks a kernel, in few small calls. For tools that slow a device down a hundred
/// times; [`every_pair_of_factors`] has all of it, so that it is not in [`CONTRACT`](super::CONTRACT).
///
/// One model for each type of x holds all layers, since tools look at a kernel anew whenever a model loads it.
pub fn few_of_every_kind(target: &Target) -> Result<Summary, String> {
    let (entries, declined) = accepted_entries(|entry| target.accepts(&entry.case, entry.x_dtype).is_ok());
    let mut summary = Summary { declined, ..Summary::default() };
    let mut worst = 0.0f64;
    for dtype in DType::ALL {
        let few: Vec<Entry> = sample(&entries).into_iter().filter(|entry| entry.x_dtype == dtype).collect();
        if few.is_empty() {
            continue;
        }
        let cases: Vec<Case> = few.iter().map(|entry| entry.case).collect();
        let rig = Rig::open(target, &cases, dtype, None)?;
        let mut context = rig.context()?;
        for (index, entry) in few.iter().enumerate() {
            let x = rig.x(index, entry.rows, dtype, entry.case.seed);
            let output = rig.forward(index, &x, &mut context)?;
            worst = worst.max(rig.judge(index, &x, &output)?);
            summary.ran += 1;
        }
    }
    Ok(Summary { worst: Some(worst), ..summary })
}

/// M from 0 to 2049: no row, one row, both sides of every size at which kernels change, more rows than any tile; and
/// the same for rows in act-order.
pub fn any_number_of_rows(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for g_idx in [GIdx::Absent, GIdx::ActOrder] {
        let Some((case, dtype)) = target.find(|plain| Case { g_idx, seed: 11, ..plain }) else {
            summary.declined += 1;
            continue;
        };
        let rig = Rig::open(target, &[case], dtype, None)?;
        let mut context = rig.context()?;
        for rows in [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50, 51, 64, 65, 127, 129, 2048, 2049]
        {
            let x = rig.x(0, rows, dtype, rows as u64);
            rig.forward_right(0, &x, &mut context)?;
            summary.ran += 1;
        }
    }
    Ok(summary)
}

/// Rows are independent: one that is NaN gives NaN in its own row of out, and the other rows are right.
pub fn a_row_of_nan_spoils_no_other(target: &Target) -> Result<Summary, String> {
    let Some((case, dtype)) = target.find(|plain| Case { seed: 12, ..plain }) else {
        return Ok(Summary::declined(1));
    };
    let rig = Rig::open(target, &[case], dtype, None)?;
    let mut context = rig.context()?;
    let (k, n) = (case.in_features, case.out_features);
    let sizes = [2, 8, 17, 51];
    for rows in sizes {
        let bad = rows / 2;
        let clean = rig.x(0, rows, dtype, 5);
        let mut spoiled = clean.exact().to_vec();
        spoiled[bad * k..][..k].fill(f64::NAN);
        let x = Activations::new([rows, k], dtype, spoiled);
        let output = rig.forward(0, &x, &mut context)?;
        let mut values = output.values();
        if let Some(column) = values[bad * n..][..n].iter().position(|value| !value.is_nan()) {
            return Err(format!(
                "{}: row {bad} of x is NaN, and out [{bad}, {column}] is {}",
                rig.describe(0, &x),
                values[bad * n + column]
            ));
        }
        // With the bad row taken out of both, the rest has to be right.
        values.drain(bad * n..(bad + 1) * n);
        let mut rest = clean.exact().to_vec();
        rest.drain(bad * k..(bad + 1) * k);
        rig.judge_values(0, &Activations::new([rows - 1, k], dtype, rest), &values)
            .map_err(|problem| format!("with row {bad} of {rows} NaN, the other rows: {problem}"))?;
    }
    Ok(Summary::ran(sizes.len()))
}

/// The bias is added, once, to every row, in every type of x.
pub fn bias(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let Some((case, _)) = target.find(|plain| Case { bias: true, seed: 13, ..plain }) else {
        return Ok(Summary::declined(1));
    };
    for dtype in DType::ALL {
        if target.accepts(&case, dtype).is_err() {
            summary.declined += 1;
            continue;
        }
        let rig = Rig::open(target, &[case], dtype, None)?;
        let mut context = rig.context()?;
        for rows in [1, 3, 16, 51] {
            rig.forward_right(0, &rig.x(0, rows, dtype, 6), &mut context)?;
            // x of zeros leaves nothing but the bias.
            let zeros = Activations::new([rows, case.in_features], dtype, Vec::new());
            rig.forward_right(0, &zeros, &mut context)?;
            summary.ran += 2;
        }
    }
    Ok(summary)
}

/// `g_idx` in act-order is followed, where all groups are full and where they are not, with a short last group and
/// without.
pub fn act_order(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for g_idx in [GIdx::ActOrder, GIdx::RaggedActOrder] {
        for short in [false, true] {
            let found = target.find_where(
                |plain| {
                    let extra = if short { plain.group_size.rows(plain.in_features) / 2 } else { 0 };
                    Case { g_idx, in_features: plain.in_features + extra, seed: 14, ..plain }
                },
                |case| case.short_last_group() == short,
            );
            let Some((case, dtype)) = found else {
                summary.declined += 1;
                continue;
            };
            let rig = Rig::open(target, &[case], dtype, None)?;
            let mut context = rig.context()?;
            for rows in [1, 2, 7, 8, 17, 51] {
                rig.forward_right(0, &rig.x(0, rows, dtype, 7), &mut context)?;
                summary.ran += 1;
            }
        }
    }
    Ok(summary)
}

/// All of out is written and nothing beside it.
pub fn out_is_written_whole(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for g_idx in [GIdx::Absent, GIdx::ActOrder] {
        let Some((case, dtype)) = target.find(|plain| Case { g_idx, seed: 15, ..plain }) else {
            summary.declined += 1;
            continue;
        };
        let rig = Rig::open(target, &[case], dtype, None)?;
        let mut context = rig.context()?;
        for rows in [1, 2, 8, 17, 51] {
            let x = rig.x(0, rows, dtype, 8);
            // With much before out, and with little.
            for start in [Offsets::ALIGNED.out, 8] {
                let output = rig.forward_at(0, &x, &mut context, Offsets { x: start, out: start })?;
                rig.judge(0, &x, &output)?;
                summary.ran += 1;
            }
        }
    }
    Ok(summary)
}

/// x and out may start at any element of their memory: an element's own alignment is all that a tensor promises, so that
/// an engine can lend a slice of what it has.
pub fn any_alignment(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for x_dtype in DType::ALL {
        for g_idx in [GIdx::Absent, GIdx::ActOrder] {
            let shape = |plain| Case { g_idx, seed: 17, ..plain };
            let Some((case, _)) = target.find_with(&[x_dtype], shape, |_| true) else {
                summary.declined += 1;
                continue;
            };
            let rig = Rig::open(target, &[case], x_dtype, None)?;
            let mut context = rig.context()?;
            for rows in [1, 3, 17, 51] {
                let x = rig.x(0, rows, x_dtype, 9);
                for (x_elements, out_elements) in [(1, 0), (0, 1), (1, 1), (2, 2), (4, 4), (3, 5)] {
                    let offsets = Offsets {
                        x: Offsets::ALIGNED.x + x_elements,
                        out: Offsets::ALIGNED.out + out_elements,
                    };
                    let size = x_dtype.size_bytes();
                    let output = rig.forward_at(0, &x, &mut context, offsets);
                    output.and_then(|output| rig.judge(0, &x, &output)).map_err(|problem| {
                        format!(
                            "x starts {} bytes after a multiple of 16, out {}: {problem}",
                            x_elements * size % 16,
                            out_elements * size % 16
                        )
                    })?;
                    summary.ran += 1;
                }
            }
        }
    }
    Ok(summary)
}

/// The same input gives the same bits: twice in one context, in another context, and in another model.
pub fn same_bits_every_time(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for g_idx in [GIdx::Absent, GIdx::ActOrder] {
        let Some((case, dtype)) = target.find(|plain| Case { g_idx, seed: 16, ..plain }) else {
            summary.declined += 1;
            continue;
        };
        let rigs = [Rig::open(target, &[case], dtype, None)?, Rig::open(target, &[case], dtype, None)?];
        let [rig, again] = &rigs;
        let mut contexts = [rig.context()?, rig.context()?];
        for rows in [1, 2, 8, 17, 51, 130] {
            let x = rig.x(0, rows, dtype, 9);
            let first = rig.forward_right(0, &x, &mut contexts[0])?;
            for (what, output) in [
                ("a second call", rig.forward(0, &x, &mut contexts[0])?),
                ("another context", rig.forward(0, &x, &mut contexts[1])?),
                ("another model of the same layer", again.forward(0, &x, &mut again.context()?)?),
            ] {
                if let Some(element) = first.first_difference(&output) {
                    let n = case.out_features;
                    return Err(format!(
                        "{}: {what} gave other bits, first at [{}, {}]: {} and then {}",
                        rig.describe(0, &x),
                        element / n,
                        element % n,
                        first.values()[element],
                        output.values()[element],
                    ));
                }
            }
            summary.ran += 1;
        }
    }
    Ok(summary)
}
