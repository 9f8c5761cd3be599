//! The bar that shows a person how far the work is.

use std::sync::{Mutex, PoisonError};

use gptq_core::checkpoint::save::{SaveProgress, SaveStep};
use gptq_core::post_init::{Progress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Console;

const TEMPLATE: &str =
    "{prefix:<22} [{bar:32}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";

/// A bar for the step under way. Gone when it is dropped, and hidden where the console hides bars. Threads share it.
pub(crate) struct Bar {
    place: MultiProgress,
    shown: Mutex<Option<(&'static str, ProgressBar)>>,
}

impl Bar {
    /// A place for bars on `console`.
    pub(crate) fn new(console: &Console) -> Self {
        Self { place: console.bars().clone(), shown: Mutex::default() }
    }

    /// Moves the bar of `step` to `bytes` of `total`; a new step has a bar of its own.
    pub(crate) fn show(&self, step: &'static str, bytes: usize, total: usize) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shown {
            Some((name, bar)) if *name == step => bar.set_position(bytes as u64),
            _ => {
                clear(&mut shown);
                let style = ProgressStyle::with_template(TEMPLATE);
                let bar = ProgressBar::new(total as u64)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
                    .with_prefix(step)
                    .with_position(bytes as u64);
                *shown = Some((step, self.place.add(bar)));
            }
        }
    }

    /// Shows how far post-initialisation is.
    pub(crate) fn hear(&self, progress: Progress) {
        let step = match progress.step {
            Step::ConvertFormat => "1 convert zero points",
            Step::InitBuffers => "2 initialise buffers",
            _ => "3 set input length",
        };
        self.show(step, progress.bytes, progress.bytes_total);
    }

    /// Shows how far a save is.
    pub(crate) fn hear_save(&self, progress: SaveProgress) {
        let step = match progress.step {
            SaveStep::Write => "write",
            _ => "read back and compare",
        };
        self.show(step, progress.bytes, progress.bytes_total);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        clear(self.shown.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}

fn clear(shown: &mut Option<(&'static str, ProgressBar)>) {
    if let Some((_, bar)) = shown.take() {
        bar.finish_and_clear();
    }
}
