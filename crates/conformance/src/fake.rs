//! A device made of host memory and threads, that finds what real devices let pass.
//!
//! It stands behind core's traits [`Memory`](gptq_core::device::Memory),
//! [`DeviceBuffer`](gptq_core::device::DeviceBuffer) and [`Stream`](gptq_core::device::Stream) and behaves as a GPU
//! does, where a GPU would only sometimes fail:
//!
//! - **Work is queued.** A [`FakeStream`] is a thread that runs jobs in order; whoever queues one does not wait.
//! - **A missing synchronisation is seen, every time.** What a job writes cannot be downloaded until its stream was
//!   synchronised: until then a download gives [poison](POISON). Uploading to a buffer that queued work uses is an
//!   error.
//! - **A race between streams is seen, every time.** Each job says which buffers it reads and writes. Two streams that
//!   use one buffer with no synchronisation between, one of them writing, are an error at the next `synchronize`:
//!   scratch in two hands is found even where the jobs happened not to overlap.
//! - **Memory is counted.** A device has a capacity, and running out of it is
//!   [`Error::OutOfMemory`](gptq_core::Error::OutOfMemory). What is dropped is free again once no job uses it.
//!
//! Two backends run on it, [`FULL`] and [`NARROW`], which together make mixed models.
//!
//! The sixteen fake devices of a process, `fake:0` to `fake:15`, are shared by all that runs in it, as real devices
//! are.

mod backend;
mod device;
mod layer;
mod stream;

pub use backend::{FULL, NARROW};
pub use device::{
    Cells, DEVICES, FakeBuffer, FakeDevice, FakeMemory, KIND, POISON, Reading, Writing, device,
};
pub use stream::{Access, FakeStream, Use};
