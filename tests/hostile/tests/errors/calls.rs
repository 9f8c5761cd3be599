//! Calls that are wrong: of the dispatcher, of post-initialisation, of a finalized model, of saving.

use std::any::Any;

use gptq_core::backend::{BACKEND, BackendId, Capabilities, PlanRequest, Registration, Registry};
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, SaveOptions};
use gptq_core::device::{Context, Device, DeviceBuffer};
use gptq_core::format::{Bits, GroupSize, Packing, ZeroEncoding};
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Part, QuantLinear, QuantLinearParts, Result};
use gptq_tests_hostile::valid::{self, LAYERS};
use gptq_tests_hostile::{Image, Place};
use gptq_torch_fallback::REGISTRATION as TORCH;

use crate::case::complaints;

/// A wrong call.
pub(crate) struct Call {
    name: &'static str,
    /// The error that it has to cause.
    pub(crate) kind: &'static str,
    says: &'static [&'static str],
    run: fn() -> Result<()>,
}

impl Call {
    /// What the call shows to be wrong with the library.
    pub(crate) fn problems(&self) -> Vec<String> {
        match (self.run)() {
            Ok(()) => vec![format!("  {}: nothing was wrong", self.name)],
            Err(error) => complaints(self.name, &error, self.kind, self.says),
        }
    }
}

/// A backend that runs 4 bits.
const NARROW: Registration = Registration {
    ..Registration::new(
        BackendId::new("narrow"),
        |_| Ok(Capabilities { bits: &[Bits::FOUR], ..Capabilities::ANY }),
        TORCH.open,
    )
};

fn open(image: &Image) -> Checkpoint {
    let place = Place::new();
    image.write(place.path()).expect("a directory to write into");
    Checkpoint::open(place.path()).expect("a good checkpoint")
}

fn plan(image: &Image, backend: BACKEND, device: Device, registry: &[Registration]) -> Result<()> {
    let mut request = PlanRequest::new(backend, device);
    request.registry = registry.iter().fold(Registry::empty(), |all, one| all.with(*one));
    request.plan(&open(image)).map(drop)
}

fn finalized(options: PostInitOptions<'_>) -> Result<FinalizedModel> {
    let mut request = PlanRequest::new(BACKEND::Torch, Device::Cpu);
    request.registry = Registry::empty().with(TORCH);
    let checkpoint = open(&valid::plain());
    let plan = request.plan(&checkpoint)?;
    post_init(checkpoint, plan, options)
}

fn model() -> FinalizedModel {
    finalized(PostInitOptions::default()).expect("a good model")
}

/// A buffer on a device that there is not.
struct Elsewhere;

impl DeviceBuffer for Elsewhere {
    fn device(&self) -> Device {
        Device::Other("moon".into(), 1)
    }
    fn len_bytes(&self) -> usize {
        1 << 20
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Runs the first layer with x of `x` columns and an output of `out` rows and columns.
fn forward(x: usize, out: [usize; 2]) -> Result<()> {
    let model = model();
    let (input, mut output) = (vec![0.0f32; x], vec![0.0f32; out[0] * out[1]]);
    let x = TensorRef::host(&input, [1, x])?;
    model.forward(LAYERS[0], &x, &mut TensorMut::host(&mut output, out)?, &mut model.context()?)
}

pub(crate) fn all() -> Vec<Call> {
    let mut calls = of_the_dispatcher();
    calls.extend(of_a_model());
    calls.extend(of_saving());
    calls.push(Call {
        name: "a layer of a shape that no memory holds",
        kind: "TensorShape",
        says: &["`huge.qweight`", "[1099511627776, 1099511627776]", "(memory)"],
        run: huge_layer,
    });
    calls.push(Call {
        name: "codes that are fewer than their shape says",
        kind: "TensorShape",
        says: &["`small.qweight`", "[1, 8]", "holds 7 elements, its shape needs 8"],
        run: || small_layer(7, 1, 8),
    });
    calls.push(Call {
        name: "zero points that are fewer than their shape says",
        kind: "TensorShape",
        says: &["`small.qzeros`", "[1, 1]", "holds 0 elements, its shape needs 1"],
        run: || small_layer(8, 0, 8),
    });
    calls.push(Call {
        name: "scales that are more than their shape says",
        kind: "TensorShape",
        says: &["`small.scales`", "[1, 8]", "holds 9 elements, its shape needs 8"],
        run: || small_layer(8, 1, 9),
    });
    calls
}

/// Eight rows and columns in 4 bits, of so many elements each.
fn small_layer(qweight: usize, qzeros: usize, scales: usize) -> Result<()> {
    let words = |shape: [usize; 2], elements| Part::in_memory(shape.to_vec(), vec![0u32; elements].into());
    QuantLinear::new(QuantLinearParts {
        name: "small".into(),
        bits: Bits::FOUR,
        packing: Packing::Continuous,
        group_size: GroupSize::PerColumn,
        zero_encoding: ZeroEncoding::V2,
        qweight: words([1, 8], qweight),
        qzeros: words([1, 1], qzeros),
        scales: Part::in_memory(vec![1, 8], vec![1.0f32; scales].into()),
        g_idx: None,
        bias: None,
    })
    .map(drop)
}

fn huge_layer() -> Result<()> {
    const HUGE: usize = 1 << 40;
    let words = |shape: [usize; 2]| Part::in_memory(shape.to_vec(), Vec::<u32>::new().into());
    QuantLinear::new(QuantLinearParts {
        name: "huge".into(),
        bits: Bits::FOUR,
        packing: Packing::Continuous,
        group_size: GroupSize::PerColumn,
        zero_encoding: ZeroEncoding::V2,
        qweight: words([HUGE, HUGE]),
        qzeros: words([1, HUGE / 8]),
        scales: Part::in_memory(vec![1, HUGE], Vec::<f32>::new().into()),
        g_idx: None,
        bias: None,
    })
    .map(drop)
}

fn of_the_dispatcher() -> Vec<Call> {
    vec![
        Call {
            name: "a program without backends",
            kind: "EmptyRegistry",
            says: &["no backend is linked", "use gptq_torch_fallback as _;", "Registry::with"],
            run: || plan(&valid::plain(), BACKEND::Auto, Device::Cpu, &[]),
        },
        Call {
            name: "a backend that the program does not have",
            kind: "BackendNotLinked",
            says: &["`marlin`", "linked: torch", "use its_crate as _;"],
            run: || plan(&valid::plain(), BACKEND::Marlin, Device::Cpu, &[TORCH]),
        },
        Call {
            name: "two backends of one name",
            kind: "DuplicateBackend",
            says: &["both called `torch`", "rename it"],
            run: || plan(&valid::plain(), BACKEND::Torch, Device::Cpu, &[TORCH, TORCH]),
        },
        Call {
            name: "a backend that cannot run a layer",
            kind: "Rejected",
            says: &["backend `narrow`", "layer `model.layers.0.mlp.up_proj`", "has 8 bits, it runs 4"],
            run: || plan(&valid::dynamic(), BACKEND::Other("narrow".into()), Device::Cpu, &[NARROW]),
        },
        Call {
            name: "a device that the backend does not run on",
            kind: "Rejected",
            says: &["backend `torch`", "cuda:99"],
            run: || plan(&valid::plain(), BACKEND::Torch, Device::Cuda(99), &[TORCH]),
        },
        Call {
            name: "no backend for a layer",
            kind: "NoBackend",
            says: &["layer `model.layers.0.mlp.up_proj`", "on cpu", "narrow", "has 8 bits, it runs 4"],
            run: || plan(&valid::dynamic(), BACKEND::Auto, Device::Cpu, &[NARROW]),
        },
        Call {
            name: "a plan of another checkpoint",
            kind: "PlanMismatch",
            says: &["has 1 layers, the plan 2", "from the same checkpoint"],
            run: || {
                let mut request = PlanRequest::new(BACKEND::Torch, Device::Cpu);
                request.registry = Registry::empty().with(TORCH);
                let plan = request.plan(&open(&valid::plain()))?;
                post_init(open(&valid::scalars()), plan, PostInitOptions::default()).map(drop)
            },
        },
        Call {
            name: "an option that no backend has",
            kind: "Option",
            says: &["`torch.speed`", "torch.isa"],
            run: || {
                let mut options = PostInitOptions::default();
                options.backend_options.set("torch", "speed", "high");
                finalized(options).map(drop)
            },
        },
    ]
}

/// Saves `image` in `format` to the directory that holds `out`.
fn save(image: &Image, format: Option<CheckpointFormat>, out: &Image) -> Result<()> {
    let (from, to) = (Place::new(), Place::new());
    image.write(from.path()).expect("a directory to write into");
    out.write(to.path()).expect("a directory to write into");
    let checkpoint = Checkpoint::open(from.path())?;
    checkpoint.save(to.path(), &SaveOptions { format, ..SaveOptions::default() }).map(drop)
}

fn of_saving() -> Vec<Call> {
    vec![
        Call {
            name: "saving over another checkpoint",
            kind: "Output",
            says: &["/checkpoint", "give a directory that does not exist yet"],
            run: || save(&valid::plain(), None, &valid::plain()),
        },
        Call {
            name: "saving in a format that has no room for a width",
            kind: "NotStorable",
            says: &["layer `model.layers.0.mlp.up_proj`", "as gptq", "5 bits"],
            run: || save(&valid::planar(5), Some(CheckpointFormat::Gptq), &Image::default()),
        },
        Call {
            name: "saving what does not open again",
            kind: "SavedDiffers",
            says: &["/checkpoint", "nothing was left there"],
            run: || {
                let config = open(&valid::plain()).config().clone();
                let place = Place::new();
                Checkpoint::from_layers(config, Vec::new())
                    .save(place.path(), &SaveOptions::default())
                    .map(drop)
            },
        },
    ]
}

fn of_a_model() -> Vec<Call> {
    vec![
        Call {
            name: "a layer that is misspelt",
            kind: "NoSuchLayer",
            says: &["`model.layers.0.mlp.upproj`", "the nearest is `model.layers.0.mlp.up_proj`"],
            run: || model().layer("model.layers.0.mlp.upproj").map(drop),
        },
        Call {
            name: "x of another length",
            kind: "Shape",
            says: &["x of layer `model.layers.0.mlp.up_proj`", "[1, 63]", "[M, 64]"],
            run: || forward(63, [1, 32]),
        },
        Call {
            name: "an output of another length",
            kind: "Shape",
            says: &["out of layer `model.layers.0.mlp.up_proj`", "[1, 31]", "[1, 32]"],
            run: || forward(64, [1, 31]),
        },
        Call {
            name: "an output of more rows",
            kind: "Shape",
            says: &["out of layer `model.layers.0.mlp.up_proj`", "[2, 32]", "[1, 32]"],
            run: || forward(64, [2, 32]),
        },
        Call {
            name: "an output of another type",
            kind: "DtypeMismatch",
            says: &["out of layer `model.layers.0.mlp.up_proj`", "f16", "f32, as x"],
            run: || {
                let model = model();
                let (x, mut out) = ([0.0f32; 64], [0u16; 32].map(half::f16::from_bits));
                let (x, mut out) = (TensorRef::host(&x, [1, 64])?, TensorMut::host(&mut out, [1, 32])?);
                model.forward(LAYERS[0], &x, &mut out, &mut model.context()?)
            },
        },
        Call {
            name: "x on another device",
            kind: "DeviceMismatch",
            says: &["x of layer `model.layers.0.mlp.up_proj`", "on moon:1", "expected cpu", "copy it there"],
            run: || {
                let model = model();
                let x = TensorRef::on_device(DType::F32, [1, 64], &Elsewhere, 0)?;
                let mut out = [0.0f32; 32];
                let mut out = TensorMut::host(&mut out, [1, 32])?;
                model.forward(LAYERS[0], &x, &mut out, &mut model.context()?)
            },
        },
        Call {
            name: "a context without scratch",
            kind: "ScratchTooSmall",
            says: &["0 bytes of scratch", "layer `model.layers.0.mlp.up_proj`", "FinalizedModel::context"],
            run: || {
                let (x, mut out) = ([0.0f32; 64], [0.0f32; 32]);
                let (x, mut out) = (TensorRef::host(&x, [1, 64])?, TensorMut::host(&mut out, [1, 32])?);
                model().forward(LAYERS[0], &x, &mut out, &mut Context::host(0))
            },
        },
        Call {
            name: "fewer bytes than the shape needs",
            kind: "TensorBytes",
            says: &["host tensor", "252 bytes", "[1, 64] of f32"],
            run: || TensorRef::host(&[0.0f32; 63], [1, 64]).map(drop),
        },
        Call {
            name: "a device buffer that ends too early",
            kind: "TensorBytes",
            says: &["tensor on moon:1", "[1024, 1024] of f32", "1048576 bytes"],
            run: || TensorRef::on_device(DType::F32, [1024, 1024], &Elsewhere, 0).map(drop),
        },
    ]
}
