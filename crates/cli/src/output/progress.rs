//! The bar that shows a person how far post-initialisation is.

use gptq_core::post_init::{Progress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Console;

const TEMPLATE: &str =
    "{prefix:<22} [{bar:32}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";

/// A bar for the step under way. Gone when it is dropped, and hidden where the console hides bars.
pub(crate) struct Bar {
    place: MultiProgress,
    shown: Option<(Step, ProgressBar)>,
}

impl Bar {
    /// A place for bars on `console`.
    pub(crate) fn new(console: &Console) -> Self {
        Self { place: console.bars().clone(), shown: None }
    }

    /// Moves the bar; a new step has a bar of its own.
    pub(crate) fn hear(&mut self, progress: Progress) {
        let (bytes, total) = (progress.bytes as u64, progress.bytes_total as u64);
        match &self.shown {
            Some((step, bar)) if *step == progress.step => bar.set_position(bytes),
            _ => {
                self.clear();
                let style = ProgressStyle::with_template(TEMPLATE);
                let bar = ProgressBar::new(total)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
                    .with_prefix(match progress.step {
                        Step::ConvertFormat => "1 convert zero points",
                        Step::InitBuffers => "2 initialise buffers",
                        _ => "3 set input length",
                    })
                    .with_position(bytes);
                self.shown = Some((progress.step, self.place.add(bar)));
            }
        }
    }

    fn clear(&mut self) {
        if let Some((_, bar)) = self.shown.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
