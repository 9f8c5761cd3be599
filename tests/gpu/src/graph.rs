//! `forward` in a CUDA graph.
#![expect(unsafe_code, reason = "launches graphs")]

use gptq_conformance::case::{Case, GIdx};
use gptq_conformance::rig::{Output, Rig};
use gptq_conformance::{Activations, Summary, Target};
use gptq_core::tensor::DType;
use gptq_cuda::Graph;

/// Numbers of rows on both sides of where kernels change, and more rows than one piece has.
const ROWS: [usize; 7] = [1, 4, 5, 16, 17, 64, 300];

/// Calls of several sizes, recorded in one graph, give the bits that plain calls give: at every replay, and for an x that
/// was put in the place of the first after the recording.
///
/// # Errors
/// As every check of `gptq_conformance`.
pub fn replays_give_the_bits_of_plain_calls(target: &Target) -> Result<Summary, String> {
    let mut summary = Summary::default();
    for g_idx in [GIdx::Absent, GIdx::ActOrder] {
        let Some((plain, _)) = target.find(|plain| Case { g_idx, bias: true, seed: 81, ..plain }) else {
            summary.declined += 1;
            continue;
        };
        let wide =
            Case { in_features: 16 * plain.in_features, out_features: 8 * plain.out_features, ..plain };
        for dtype in DType::ALL {
            match [wide, plain].into_iter().find(|case| target.accepts(case, dtype).is_ok()) {
                Some(case) => summary.ran += replay(target, case, dtype)?,
                None => summary.declined += 1,
            }
        }
    }
    Ok(summary)
}

fn replay(target: &Target, case: Case, dtype: DType) -> Result<usize, String> {
    let told = |error: gptq_core::Error| format!("{case}; x {dtype}: {}", error.report());
    let rig = Rig::of_noise(target, &[case], dtype, Some(64))?;
    let mut context = rig.context()?;
    let xs = |seed: u64| ROWS.map(|rows| rig.x(0, rows, dtype, seed + rows as u64));
    let (first, second) = (xs(1000), xs(2000));
    let mut plain = |xs: &[Activations; 7]| -> Result<Vec<Output>, String> {
        xs.iter().map(|x| rig.forward_right(0, x, &mut context)).collect()
    };
    // Before the recording, so that what is loaded or chosen at a first call is there.
    let expected = [plain(&first)?, plain(&second)?];

    let mut calls = first.iter().map(|x| rig.call(0, x)).collect::<Result<Vec<_>, _>>()?;
    let recorded =
        Graph::capture(context, |context| calls.iter_mut().try_for_each(|call| call.queue(context)));
    let mut graph = recorded.map_err(told)?;
    let mut replays = 0;
    for (xs, expected) in [(&first, &expected[0]), (&second, &expected[1]), (&first, &expected[0])] {
        for (call, x) in calls.iter_mut().zip(xs) {
            call.replace_x(x).map_err(told)?;
        }
        // SAFETY: the calls, with their x and out, and the rig, with its model, live until the end of this function.
        unsafe { graph.launch() }.map_err(told)?;
        graph.synchronize().map_err(told)?;
        for ((call, x), expected) in calls.iter_mut().zip(xs).zip(expected) {
            if let Some(element) = call.output()?.first_difference(expected) {
                return Err(format!(
                    "{}: replay {replays} of the graph gives other bits than a plain call, first at element {element}",
                    rig.describe(0, x)
                ));
            }
        }
        replays += 1;
    }
    Ok(replays * ROWS.len())
}
