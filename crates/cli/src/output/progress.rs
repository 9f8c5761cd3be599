//! The bar that shows a person how far the work is.

use std::sync::{Mutex, PoisonError};

use gptq_core::checkpoint::save::{SaveProgress, SaveStep};
use gptq_core::post_init::{Progress, Step};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Console;

const BYTES: &str = "{prefix:<22} [{bar:32}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
const COUNT: &str = "{prefix:<22} [{bar:32}] {pos} of {len}";

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
        self.move_to(BYTES, step, bytes, total);
    }

    /// Moves the bar of `step` to the `done`-th of `total` pieces of work.
    pub(crate) fn show_count(&self, step: &'static str, done: usize, total: usize) {
        self.move_to(COUNT, step, done, total);
    }

    fn move_to(&self, template: &str, step: &'static str, position: usize, total: usize) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shown {
            Some((name, bar)) if *name == step => bar.set_position(position as u64),
            _ => {
                clear(&mut shown);
                let style = ProgressStyle::with_template(template);
                let bar = ProgressBar::new(total as u64)
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "))
                    .with_prefix(step)
                    .with_position(position as u64);
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

#[cfg(test)]
mod tests {
    use std::io::Result;
    use std::sync::Arc;

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    /// A terminal that remembers all it was given.
    #[derive(Clone, Default, Debug)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            120
        }

        fn move_cursor_up(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> Result<()> {
            Ok(())
        }

        fn flush(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_are_shown_as_bytes_and_layers_as_a_number_of_them() {
        let shown = |show: fn(&Bar)| {
            let screen = Screen::default();
            let target = ProgressDrawTarget::term_like(Box::new(screen.clone()));
            let bar = Bar { place: MultiProgress::with_draw_target(target), shown: Mutex::default() };
            show(&bar);
            if let Some((_, bar)) = &*bar.shown.lock().unwrap() {
                bar.force_draw();
            }
            screen.text()
        };
        let bytes = shown(|bar| bar.show("write", 1 << 20, 3 << 20));
        assert!(bytes.contains("write ") && bytes.contains("1.00 MiB of 3.00 MiB, "), "{bytes}");
        let count = shown(|bar| bar.show_count("bench", 1, 3));
        assert!(count.contains("bench ") && count.contains("] 1 of 3") && !count.contains('B'), "{count}");
    }
}
