//! Calls by turns, and how long they took.

use std::time::Instant;

/// Something that is called again and again.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'static str,
    call: Box<dyn FnMut(usize) + 'a>,
    calls: usize,
    seconds: Vec<f64>,
    worked: f64,
}

/// Seconds of a call.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) median: f64,
    /// That each processor worked.
    pub(crate) worked: f64,
}

impl<'a> Subject<'a> {
    /// `call` is given how many calls there were before, and makes one.
    pub(crate) fn new(name: &'static str, mut call: impl FnMut(usize) + 'a) -> Self {
        // The first call meets cold code and fresh pages.
        call(0);
        Self { name, call: Box::new(call), calls: 0, seconds: Vec::new(), worked: 0.0 }
    }

    /// Calls for about so many seconds, and at least twice.
    pub(crate) fn turn(&mut self, seconds: f64) {
        let (started, before) = (Instant::now(), worked_seconds());
        for call in 0.. {
            if call >= 2 && started.elapsed().as_secs_f64() > seconds {
                break;
            }
            let started = Instant::now();
            (self.call)(self.calls);
            self.seconds.push(started.elapsed().as_secs_f64());
            self.calls += 1;
        }
        self.worked += worked_seconds() - before;
    }

    pub(crate) fn times(&mut self) -> Times {
        self.seconds.sort_by(f64::total_cmp);
        Times { median: self.seconds[self.seconds.len() / 2], worked: self.worked / self.calls as f64 }
    }
}

/// Seconds that all threads of this process worked, divided by the number of processors in use. On Linux; else 0.
pub(crate) fn worked_seconds() -> f64 {
    let nanoseconds = || {
        let mut sum = 0.0;
        for task in std::fs::read_dir("/proc/self/task").ok()? {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            sum += text.split_whitespace().next()?.parse::<f64>().ok()?;
        }
        Some(sum)
    };
    nanoseconds().unwrap_or(0.0) * 1e-9 / rayon::current_num_threads() as f64
}
