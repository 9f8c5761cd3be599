//! Two backends, each in a private module of its own, that say they can run everything and run nothing.

mod one;
mod two;

use gptq_core::backend::{Backend, Capabilities, Options, Rejection};
use gptq_core::device::Device;
use gptq_core::{Error, Result};

pub use one::PLUG_ONE;
pub use two::PLUG_TWO;

fn anything(_: &Device) -> Result<Capabilities, Rejection> {
    Ok(Capabilities::ANY)
}

fn nothing(_: &Device, _: &Options) -> Result<Box<dyn Backend>> {
    Err(Error::EmptyRegistry)
}
