//! Backends on the fake device with one fault each, of the kinds that only devices have.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a backend that exists to be wrong, inside a test")]

use std::sync::{Arc, OnceLock};

use gptq_conformance::fake::{self, Access, FakeBuffer, FakeStream, Use};
use gptq_conformance::{Target, checks};
use gptq_core::backend::{Backend, BackendId, LayerId, LayerSource, Linear, Options, Outcome, Registration};
use gptq_core::device::{Context, Device, Memory};
use gptq_core::tensor::{DataMut, DataRef, TensorMut, TensorRef};
use gptq_core::{Error, QuantLinear, Result};

/// What is wrong with a backend on the fake device; the rest of it is `fake::FULL`.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    WritesBeyondOut,
    WritesBeforeOut,
    WritesToX,
    SharesScratch,
    Leaks,
    FailsLate,
    SharesScratchWithAllModels,
    KeepsWhatItGotBeforeItFailed,
    SaysSomethingElse,
}

const FAULTS: [Fault; 9] = [
    Fault::WritesBeyondOut,
    Fault::WritesBeforeOut,
    Fault::WritesToX,
    Fault::SharesScratch,
    Fault::Leaks,
    Fault::FailsLate,
    Fault::SharesScratchWithAllModels,
    Fault::KeepsWhatItGotBeforeItFailed,
    Fault::SaysSomethingElse,
];

/// A buffer that all models of the process write to.
static SHARED: OnceLock<Arc<FakeBuffer>> = OnceLock::new();

struct Wrapped<const FAULT: usize> {
    inner: Box<dyn Backend>,
}

struct WrappedLinear {
    fault: Fault,
    inner: Arc<dyn Linear>,
    scratch: Arc<FakeBuffer>,
}

fn open_wrapped<const FAULT: usize>(device: &Device, options: &Options) -> Result<Box<dyn Backend>> {
    Ok(Box::new(Wrapped::<FAULT> { inner: (fake::FULL.open)(device, options)? }))
}

fn wrapped<const FAULT: usize>() -> Target {
    let registration =
        Registration::new(BackendId::new("mutant"), fake::FULL.capabilities, open_wrapped::<FAULT>);
    // A device for each, so that what one leaks is no other's loss.
    Target::new(registration, &format!("fake:{FAULT}")).unwrap()
}

impl<const FAULT: usize> Backend for Wrapped<FAULT> {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        self.inner.convert_format(layer)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let fault = FAULTS[FAULT];
        let memory = fake::FakeMemory::new(fake::device(FAULT).unwrap());
        let scratch = Arc::new(memory.buffer(64)?);
        let scratch = match fault {
            Fault::SharesScratchWithAllModels => Arc::clone(SHARED.get_or_init(|| scratch)),
            _ => scratch,
        };
        let kept = match fault {
            Fault::KeepsWhatItGotBeforeItFailed => Some(memory.buffer(3 << 20)?),
            _ => None,
        };
        let ready = match (fault, self.inner.init_buffers(layers)) {
            (Fault::KeepsWhatItGotBeforeItFailed, Err(error)) => {
                std::mem::forget(kept);
                return Err(error);
            }
            (Fault::SaysSomethingElse, Err(error)) => {
                let message = error.to_string();
                return Err(Error::Backend { backend: BackendId::new("mutant"), message, source: None });
            }
            (_, ready) => ready?,
        };
        let wrap = |(id, inner): (LayerId, Box<dyn Linear>)| {
            let inner: Arc<dyn Linear> = Arc::from(inner);
            if fault == Fault::Leaks {
                std::mem::forget(Arc::clone(&inner));
            }
            let linear: Box<dyn Linear> =
                Box::new(WrappedLinear { fault, inner, scratch: Arc::clone(&scratch) });
            (id, linear)
        };
        Ok(ready.into_iter().map(wrap).collect())
    }

    fn set_max_input_length(&mut self, rows: usize) -> Result<Outcome> {
        self.inner.set_max_input_length(rows)
    }

    fn scratch_bytes(&self) -> usize {
        self.inner.scratch_bytes()
    }

    fn memory(&self) -> Option<Arc<dyn Memory>> {
        self.inner.memory()
    }
}

impl Linear for WrappedLinear {
    fn forward(&self, x: &TensorRef<'_>, out: &mut TensorMut<'_>, context: &mut Context) -> Result<()> {
        self.inner.forward(x, out, context)?;
        let ([rows, n], size) = (out.shape(), out.dtype().size_bytes());
        let (stream, _) = context.on_device().unwrap();
        let stream = FakeStream::of(stream)?;
        let write = |buffer: &FakeBuffer, at: usize| {
            let cells = buffer.cells();
            stream.launch("mutant", &[Use { buffer, access: Access::Write }], move || {
                cells.write().bytes_mut()[at] ^= 1;
                Ok(())
            })
        };
        let DataMut::Device(out, offset) = out.data() else { panic!("out is on the device") };
        let out = FakeBuffer::of(out, "mutant")?;
        match self.fault {
            Fault::WritesBeyondOut => write(out, offset + rows * n * size),
            Fault::WritesBeforeOut => write(out, offset - 1),
            Fault::WritesToX => match x.data() {
                DataRef::Device(x, offset) => write(FakeBuffer::of(x, "mutant")?, offset),
                DataRef::Host(_) => panic!("x is on the device"),
            },
            Fault::SharesScratch | Fault::SharesScratchWithAllModels => write(&self.scratch, 0),
            Fault::FailsLate => stream.launch("mutant", &[], || Err("no luck".into())),
            Fault::Leaks | Fault::KeepsWhatItGotBeforeItFailed | Fault::SaysSomethingElse => Ok(()),
        }
    }

    fn resident_bytes(&self) -> usize {
        self.inner.resident_bytes()
    }
}

#[test]
fn faults_that_only_a_device_can_have_are_caught() {
    macro_rules! caught_on_device {
        ($($fault:ident by $check:ident;)*) => {
            $({
                const FAULT: usize = Fault::$fault as usize;
                assert!(FAULTS[FAULT] == Fault::$fault);
                let result = checks::$check(&wrapped::<FAULT>());
                assert!(result.is_err(), "{} lets {} pass", stringify!($check), stringify!($fault));
            })*
        };
    }
    caught_on_device! {
        WritesBeyondOut by out_is_written_whole;
        WritesBeforeOut by out_is_written_whole;
        WritesToX by out_is_written_whole;
        SharesScratch by threads_share_a_model;
        SharesScratch by queued_by_threads;
        SharesScratchWithAllModels by queued_by_turns;
        Leaks by dropping_frees;
        FailsLate by any_number_of_rows;
        FailsLate by queued_by_turns;
        KeepsWhatItGotBeforeItFailed by memory_runs_out;
        SaysSomethingElse by memory_runs_out;
    }
}
