//! From how many rows of x a backend is faster with the dense matrix: the two ways by turns, at several numbers of rows.

use std::sync::Arc;

use gptq_core::backend::BackendId;
use gptq_core::device::Device;
use gptq_core::post_init::FinalizedModel;
use gptq_cuda::timing::{LayerCalls, Replay};
use serde::Serialize;

use super::super::call::{self, too_many};
use super::super::job::{Contestant, Job};
use super::super::layer::{self, LayerSpec, Memory, Shape};
use super::super::report::Launches;
use super::{Bench, OfType, Runner, What};
use crate::failure::Result;

/// The option that is measured.
pub(crate) const OPTION: &str = "dense_rows";
/// Rows at which both ways are timed first, about evenly on a scale of ratios. Fewer are never better with a dense matrix.
pub(crate) const ROWS: [usize; 12] = [17, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024];
/// Between two of them more are timed, until two are as near as one part in this.
const NEAR: usize = 16;

/// Where a layer's dense way begins to be faster.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Crossing {
    pub(crate) backend: Option<BackendId>,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// `None` where it is not, up to the last number of rows.
    pub(crate) rows: Option<usize>,
    /// The last number of rows, by ascending order, at which the other way is faster, and both times there.
    pub(crate) last_fused: Option<Times>,
    /// Both times at `rows`.
    pub(crate) first_dense: Option<Times>,
}

/// Both ways at a number of rows.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) rows: usize,
    pub(crate) fused_seconds: f64,
    pub(crate) dense_seconds: f64,
}

impl Times {
    fn dense_is_faster(self) -> bool {
        self.dense_seconds < self.fused_seconds
    }
}

/// Measures every backend of the job with every layer. Returns the GPU's name too.
pub(crate) fn measure(job: &Job<'_>, device: &Device, ordinal: usize) -> Result<(String, Vec<Crossing>)> {
    let bench = Bench::open(job, device, ordinal)?;
    let mut crossings = Vec::new();
    let steps = job.contestants.len() * job.specs.len();
    for contestant in &job.contestants {
        for spec in &job.specs {
            job.bar.show_count("tune", crossings.len(), steps);
            crossings.push(bench.crossing(contestant, *spec)?);
        }
    }
    Ok((bench.machine(), crossings))
}

impl Bench<'_> {
    fn crossing(&self, contestant: &Contestant, spec: LayerSpec) -> Result<Crossing> {
        let Shape { k, n } = spec.shape;
        let layer = spec.build()?;
        let copies = layer::copies(&layer, self.copies(layer.info().packed_bytes), Memory::Shared)?;
        let name = contestant.request.backend.to_string();
        let model = |rows: &str| {
            let mut options = self.job.options.clone();
            options.set(&name, OPTION, rows);
            call::model_with(&copies, contestant, self.job, options)
        };
        // Never, and from the first row on.
        let models = [model("0")?, model("1")?];
        let of = self.types.iter().find(|of| of.dtype == contestant.dtype);
        let of = of.ok_or_else(|| too_many(0, [k, n]))?;
        let found = find_crossing(&ROWS, |rows| self.both(&models, of, spec, rows))?;
        Ok(Crossing {
            backend: models.first().and_then(|model| call::backend(model)),
            in_features: k,
            out_features: n,
            rows: found.1.map(|times| times.rows),
            last_fused: found.0,
            first_dense: found.1,
        })
    }

    /// Both ways by turns.
    fn both(
        &self,
        models: &[Arc<FinalizedModel>; 2],
        of: &OfType,
        LayerSpec { shape: Shape { k, n }, .. }: LayerSpec,
        rows: usize,
    ) -> Result<Times> {
        let operations = 2.0 * rows as f64 * k as f64 * n as f64;
        let calls = self.calls(k * n / 2, operations, of.dtype);
        let mut runners = Vec::new();
        for (number, model) in models.iter().enumerate() {
            let how = LayerCalls { dtype: of.dtype, rows, calls, overlap: true };
            let replay = Replay::of_layers(Arc::clone(model), &of.operands, how)?;
            runners.push(Runner::new(What::Layers(number, Launches::Overlapping), rows, replay));
        }
        self.rounds_of(&mut runners, || Ok(()))?;
        let mut medians = runners.into_iter().map(|runner| runner.finish(self).1.median_seconds);
        let mut next = || medians.next().unwrap_or(f64::NAN);
        Ok(Times { rows, fused_seconds: next(), dense_seconds: next() })
    }
}

/// The last number of rows at which the dense way is slower, and the first from which on it is faster. One that is faster at a
/// number of rows and slower at a larger one does not count: the way in pieces has steps.
fn find_crossing(
    rows: &[usize],
    mut time: impl FnMut(usize) -> Result<Times>,
) -> Result<(Option<Times>, Option<Times>)> {
    let (mut last_fused, mut first_dense) = (None, None);
    for &rows in rows.iter().rev() {
        let times = time(rows)?;
        if !times.dense_is_faster() {
            last_fused = Some(times);
            break;
        }
        first_dense = Some(times);
    }
    while let (Some(fused), Some(dense)) = (last_fused, first_dense) {
        let (low, high): (Times, Times) = (fused, dense);
        if high.rows - low.rows <= (low.rows / NEAR).max(1) {
            break;
        }
        let times = time((low.rows + high.rows).div_ceil(2))?;
        if times.dense_is_faster() {
            first_dense = Some(times);
        } else {
            last_fused = Some(times);
        }
    }
    Ok((last_fused, first_dense))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backend whose dense way takes 100, and whose other way takes so much.
    fn found(fused: fn(usize) -> f64) -> (Option<usize>, Option<usize>) {
        let time = |rows| Ok(Times { rows, fused_seconds: fused(rows), dense_seconds: 100.0 });
        let (last, first) = find_crossing(&ROWS, time).expect("times");
        (last.map(|times| times.rows), first.map(|times| times.rows))
    }

    #[test]
    fn the_crossing_is_found_as_near_as_one_part_in_sixteen() {
        let (last, first) = found(|rows| rows as f64);
        let (last, first) = (last.expect("slower"), first.expect("faster"));
        assert!(last <= 100 && first > 100 && first - last <= 6, "{last} to {first}");
    }

    #[test]
    fn pieces_make_steps_and_only_the_last_of_them_counts() {
        let (last, first) = found(|rows| if rows > 200 || (40..60).contains(&rows) { 150.0 } else { 50.0 });
        let (last, first) = (last.expect("slower"), first.expect("faster"));
        assert!(last >= 190 && first > 200, "{last} to {first}");
    }

    #[test]
    fn a_way_that_is_always_slower_or_faster_has_no_crossing() {
        assert_eq!(found(|_| 50.0), (Some(1024), None));
        assert_eq!(found(|_| 150.0), (None, Some(17)));
    }
}
