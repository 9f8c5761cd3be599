//! Work in order, on a thread of its own.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use gptq_core::device::{Device, Stream};
use gptq_core::{Error, Result};

use super::device::{Cells, Claim, FakeBuffer, FakeDevice};

/// What a job does to a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing else to do to a buffer")]
pub enum Access {
    /// Reads it. Other streams may read it meanwhile.
    Read,
    /// Writes it, or reads what it writes. No other stream may use it before this one is synchronised.
    Write,
    /// Writes it, and waits for the jobs of other streams that do so: a buffer with an order of its own.
    Ordered,
}

/// A buffer, and what a job does to it.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a literal at every call")]
pub struct Use<'a> {
    /// The buffer.
    pub buffer: &'a FakeBuffer,
    /// What is done to it.
    pub access: Access,
}

type Job = Box<dyn FnOnce() -> std::result::Result<(), String> + Send>;

enum Message {
    Run(Job),
    Reached(Sender<()>),
}

/// A queue of jobs, and the thread that runs them in order. Dropping it waits for them.
pub struct FakeStream {
    device: &'static FakeDevice,
    id: u64,
    queue: Option<Sender<Message>>,
    worker: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<String>>>,
    used: Mutex<Vec<Arc<Cells>>>,
}

impl FakeStream {
    /// A stream of a device.
    ///
    /// # Errors
    /// [`Error::Device`] where the system gives no thread.
    pub fn new(device: &'static FakeDevice) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        let failure = Arc::new(Mutex::new(None));
        let (queue, jobs) = channel();
        let noted = Arc::clone(&failure);
        let run = move || {
            for message in jobs {
                match message {
                    Message::Run(job) => {
                        if let Err(problem) = job() {
                            lock(&noted).get_or_insert(problem);
                        }
                    }
                    // Whoever waited may be gone.
                    Message::Reached(waiting) => drop(waiting.send(())),
                }
            }
        };
        let worker = std::thread::Builder::new().name(format!("fake stream {id}")).spawn(run);
        let worker = worker.map_err(|problem| Error::Device {
            device: device.device(),
            operation: "making a stream".into(),
            message: problem.to_string(),
        })?;
        Ok(Self { device, id, queue: Some(queue), worker: Some(worker), failure, used: Mutex::default() })
    }

    /// The fake stream behind the trait.
    ///
    /// # Errors
    /// [`Error::Device`] where it is a stream of another kind of device.
    pub fn of(stream: &dyn Stream) -> Result<&Self> {
        stream.as_any().downcast_ref().ok_or_else(|| Error::Device {
            device: stream.device(),
            operation: "a launch".into(),
            message: "the stream is not one of the fake device".into(),
        })
    }

    /// Queues a job that uses these buffers and no others, and returns. What goes wrong in it, and a race with another
    /// stream's work, is told by the next [`Stream::synchronize`]; a job that races is not run.
    ///
    /// # Errors
    /// [`Error::Device`] where the stream's thread is gone, because a job panicked.
    pub fn launch(
        &self,
        name: &str,
        uses: &[Use<'_>],
        job: impl FnOnce() -> std::result::Result<(), String> + Send + 'static,
    ) -> Result<()> {
        let mut job: Job = Box::new(job);
        for Use { buffer, access } in uses {
            let cells = buffer.cells();
            if cells.claim(Claim { stream: self.id, access: *access }) {
                let problem = format!(
                    "{name}: {cells:?} are in use by another stream that was not synchronised; this job would race \
                     with its work"
                );
                job = Box::new(|| Err(problem));
            }
            lock(&self.used).push(cells);
        }
        self.send(Message::Run(job))
    }

    fn send(&self, message: Message) -> Result<()> {
        let sent = self.queue.as_ref().map(|queue| queue.send(message).is_ok());
        if sent == Some(true) { Ok(()) } else { Err(self.error("its thread is gone: a job panicked".into())) }
    }

    fn error(&self, message: String) -> Error {
        Error::Device { device: self.device.device(), operation: "work on a stream".into(), message }
    }

    fn release(&self) {
        for cells in lock(&self.used).drain(..) {
            cells.release(self.id);
        }
    }
}

impl Stream for FakeStream {
    fn device(&self) -> Device {
        self.device.device()
    }

    fn synchronize(&self) -> Result<()> {
        let (reached, wait) = channel();
        self.send(Message::Reached(reached))?;
        wait.recv().map_err(|_| self.error("its thread is gone: a job panicked".into()))?;
        self.release();
        match lock(&self.failure).take() {
            None => Ok(()),
            Some(problem) => Err(self.error(problem)),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        // Without a sender the thread's queue ends.
        drop(self.queue.take());
        if let Some(worker) = self.worker.take() {
            // A job that panicked was told to whoever used the stream since.
            let _ = worker.join();
        }
        self.release();
    }
}

impl fmt::Debug for FakeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of {}", self.id, self.device.device())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
