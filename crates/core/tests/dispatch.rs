//! Who is asked, who is chosen, and what is said of the others.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unreachable,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use gptq_core::backend::*;
use gptq_core::checkpoint::Checkpoint;
use gptq_core::checkpoint::config::{ConfigSource, QuantizeConfig};
use gptq_core::device::{Context, Device};
use gptq_core::format::{Bits, GroupSize, Packing, ZeroDialect, ZeroEncoding, packing};
use gptq_core::post_init::{PostInitOptions, post_init};
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_core::{Error, Part, QuantLinear, QuantLinearParts, Result};

// ---- backends that do nothing but answer -----------------------------------------------------------------------

struct Stub {
    loses_layers: bool,
}

struct StubLinear;

impl Linear for StubLinear {
    fn forward(&self, _: &TensorRef<'_>, out: &mut TensorMut<'_>, _: &mut Context) -> Result<()> {
        if let Some(out) = out.as_host::<f32>() {
            out.fill(1.0);
        }
        Ok(())
    }

    fn resident_bytes(&self) -> usize {
        7
    }
}

impl Backend for Stub {
    fn convert_format(&mut self, layer: &mut QuantLinear) -> Result<Outcome> {
        layer.convert_zeros(ZeroEncoding::V2);
        Ok(Outcome::Done)
    }

    fn init_buffers(&mut self, layers: &mut LayerSource<'_>) -> Result<Vec<(LayerId, Box<dyn Linear>)>> {
        let mut ready: Vec<(LayerId, Box<dyn Linear>)> = Vec::new();
        while let Some((id, _)) = layers.next_layer() {
            ready.push((id, Box::new(StubLinear)));
        }
        if self.loses_layers {
            ready.pop();
        }
        Ok(ready)
    }

    fn set_max_input_length(&mut self, _: usize) -> Result<Outcome> {
        Ok(Outcome::NotNeeded("stubs have no buffers".into()))
    }

    fn scratch_bytes(&self) -> usize {
        100
    }
}

fn open(_: &Device, options: &Options) -> Result<Box<dyn Backend>> {
    Ok(Box::new(Stub { loses_layers: options.read(SLOW.id, "lose")?.unwrap_or(false) }))
}

/// Runs everything, slowly.
const SLOW: Registration = Registration {
    priority: 10,
    options: &[OptionSpec { name: "lose", help: "whether the last layer is lost" }],
    ..Registration::new(
        BackendId::new("slow"),
        |_| Ok(Capabilities { speed: Speed::Fallback, ..Capabilities::ANY }),
        open,
    )
};

/// Runs symmetric 4-bit layers, fast.
const FAST: Registration = Registration {
    priority: 90,
    ..Registration::new(
        BackendId::new("fast"),
        |_| {
            Ok(Capabilities {
                bits: &[Bits::FOUR],
                asymmetric: false,
                x_dtypes: &[DType::F16, DType::F32],
                ..Capabilities::ANY
            })
        },
        open,
    )
};

/// Its driver is not there.
const ABSENT: Registration = Registration {
    priority: 100,
    ..Registration::new(
        BackendId::new("absent"),
        |_| Err(Rejection::Driver { found: "no driver".into(), remedy: "install one".into() }),
        open,
    )
};

// ---- layers ----------------------------------------------------------------------------------------------------

const K: usize = 64;
const N: usize = 32;

fn layer(name: &str, bits: u64, zero: u8) -> QuantLinear {
    let bits = Bits::new(bits).unwrap();
    let codes: Vec<u8> = (0..K * N).map(|i| (i % (bits.max_code() as usize + 1)) as u8).collect();
    QuantLinear::new(QuantLinearParts {
        name: name.into(),
        bits,
        packing: Packing::Continuous,
        group_size: GroupSize::PerColumn,
        zero_encoding: ZeroEncoding::V2,
        qweight: Part::in_memory(
            vec![packing::words_for(bits, K), N],
            packing::pack_matrix(&codes, K, N, bits, Packing::Continuous).into(),
        ),
        qzeros: Part::in_memory(
            vec![1, packing::words_for(bits, N)],
            packing::pack(&[zero; N], bits, Packing::Continuous).into(),
        ),
        scales: Part::in_memory(vec![1, N], vec![1.0f32; N].into()),
        g_idx: None,
        bias: None,
    })
    .unwrap()
}

fn checkpoint(layers: Vec<QuantLinear>) -> Checkpoint {
    let json = serde_json::json!({"bits": 4, "group_size": -1, "quant_method": "gptq"});
    Checkpoint::from_layers(
        QuantizeConfig::from_json(&json, ConfigSource::file("test.json")).unwrap(),
        layers,
    )
}

/// Two symmetric 4-bit layers, one asymmetric, one of 8 bits.
fn mixed() -> Checkpoint {
    checkpoint(vec![
        layer("a.sym", 4, 8),
        layer("b.asym", 4, 3),
        layer("c.sym", 4, 8),
        layer("d.eight", 8, 128),
    ])
}

fn request(backend: BACKEND, registrations: &[Registration]) -> PlanRequest {
    let mut request = PlanRequest::new(backend, Device::Cpu);
    request.registry = registrations.iter().fold(Registry::empty(), |registry, entry| registry.with(*entry));
    request
}

fn other(name: &str) -> BACKEND {
    BACKEND::Other(name.into())
}

// ---- who is chosen ---------------------------------------------------------------------------------------------

#[test]
fn auto_gives_each_layer_to_the_best_backend_that_accepts_it() {
    let plan = request(BACKEND::Auto, &[SLOW, ABSENT, FAST]).plan(&mixed()).unwrap();
    let chosen: Vec<_> =
        plan.report().assignments.iter().map(|a| (&*a.layer, a.backend.map(BackendId::as_str))).collect();
    assert_eq!(
        chosen,
        [
            ("a.sym", Some("fast")),
            ("b.asym", Some("slow")),
            ("c.sym", Some("fast")),
            ("d.eight", Some("slow"))
        ]
    );
}

#[test]
fn the_report_of_a_success_tells_who_refused_what_and_why() {
    let plan = request(BACKEND::Auto, &[SLOW, ABSENT, FAST]).plan(&mixed()).unwrap();
    let report = plan.report();
    let text = report.to_string();
    for part in ["absent", "no driver", "install one", "fast", "runs 2 of 4", "b.asym", "d.eight", "8 bits"] {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
    let warnings = report.warnings.join("\n");
    assert!(warnings.contains("2 layers run on `slow`") && warnings.contains("no driver"), "{warnings}");
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["asked"][0]["unavailable"]["kind"], "driver", "reasons are data: {json}");
}

#[test]
fn a_fallback_that_is_the_best_there_is_warns_nobody() {
    let plan = request(BACKEND::Auto, &[SLOW]).plan(&mixed()).unwrap();
    assert!(plan.report().warnings.is_empty(), "{:?}", plan.report().warnings);
}

#[test]
fn a_floor_on_speed_turns_the_warning_into_a_refusal() {
    let mut request = request(BACKEND::Auto, &[SLOW, FAST]);
    request.min_speed = Speed::Native;
    let error = request.plan(&mixed()).unwrap_err();
    assert!(matches!(&error, Error::NoBackend { layer, .. } if layer == "b.asym"), "{error}");
}

#[test]
fn a_type_of_x_that_would_be_narrowed_is_refused() {
    let mut request = request(BACKEND::Auto, &[SLOW, FAST]);
    request.x_dtype = Some(DType::BF16);
    let plan = request.plan(&mixed()).unwrap();
    assert_eq!(plan.backends().collect::<Vec<_>>(), [(SLOW.id, 4)]);
    assert!(plan.report().to_string().contains("x is bf16"), "{}", plan.report());
}

#[test]
fn a_backend_asked_for_by_name_is_asked_alone_and_its_no_is_an_error() {
    let error = request(other("fast"), &[SLOW, FAST]).plan(&mixed()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Rejected { backend, .. } if backend == FAST.id), "{text}");
    assert!(text.contains("b.asym") && text.contains("zero points"), "{text}");

    let error = request(other("absent"), &[SLOW, ABSENT]).plan(&mixed()).unwrap_err().to_string();
    assert!(error.contains("on cpu") && error.contains("install one"), "{error}");
}

#[test]
fn nobody_for_a_layer_is_an_error_with_everyones_reason() {
    let error = request(BACKEND::Auto, &[ABSENT, FAST]).plan(&mixed()).unwrap_err();
    assert!(matches!(&error, Error::NoBackend { layer, .. } if layer == "b.asym"));
    let text = error.to_string();
    assert!(text.contains("no driver") && text.contains("zero point"), "{text}");
}

// ---- registries ------------------------------------------------------------------------------------------------

#[test]
fn an_empty_registry_says_which_line_to_add() {
    let error = request(BACKEND::Auto, &[]).plan(&mixed()).unwrap_err();
    assert!(matches!(error, Error::EmptyRegistry));
    assert!(error.to_string().contains("as _;"), "{error}");
}

#[test]
fn an_unknown_name_is_answered_with_the_names_there_are() {
    let error = request(BACKEND::Marlin, &[SLOW, FAST]).plan(&mixed()).unwrap_err();
    assert!(
        matches!(&error, Error::BackendNotLinked { asked, linked } if asked == "marlin" && linked == &["fast", "slow"])
    );
}

#[test]
fn two_backends_of_one_name_are_refused() {
    let error = request(BACKEND::Auto, &[SLOW, SLOW]).plan(&mixed()).unwrap_err();
    assert!(matches!(error, Error::DuplicateBackend { id } if id == SLOW.id));
}

#[test]
fn a_backend_of_another_api_version_is_refused_and_never_called() {
    let stranger = Registration {
        api: API_VERSION + 1,
        ..Registration::new(
            BackendId::new("stranger"),
            |_| unreachable!("asked"),
            |_, _| unreachable!("opened"),
        )
    };
    let error = request(other("stranger"), &[stranger]).plan(&mixed()).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("rebuild"), "{error}");
}

#[test]
fn equal_priorities_are_ordered_by_name() {
    let twin = Registration { id: BackendId::new("a_twin"), ..SLOW };
    let registry = Registry::empty().with(SLOW).with(twin);
    assert_eq!(registry.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["a_twin", "slow"]);
}

// ---- post_init -------------------------------------------------------------------------------------------------

#[test]
fn the_three_steps_run_in_order_and_are_reported() {
    let mut layers = vec![layer("a.sym", 4, 8), layer("b.asym", 4, 3)];
    layers[1].convert_zeros(ZeroEncoding::V1(ZeroDialect::FieldWrap));
    let checkpoint = checkpoint(layers);
    let plan = request(BACKEND::Auto, &[SLOW, FAST]).plan(&checkpoint).unwrap();
    let mut heard = Vec::new();
    let mut progress = |progress: gptq_core::post_init::Progress| heard.push(progress);
    let options = PostInitOptions {
        max_input_length: Some(4096),
        progress: Some(&mut progress),
        ..PostInitOptions::default()
    };
    let model = post_init(checkpoint, plan, options).unwrap();

    let report = model.report();
    assert!(report.convert.converted());
    assert_eq!(report.convert.zeros_converted(), N, "only b.asym was in v1");
    assert_eq!(report.init.backends.iter().map(|entry| entry.layers).sum::<usize>(), 2);
    let length = report.length.as_ref().unwrap();
    assert_eq!(length.rows, 4096);
    assert!(length.backends.iter().all(|entry| matches!(entry.outcome, Outcome::NotNeeded(_))));

    let last = heard.last().unwrap();
    assert_eq!((last.layers, last.bytes), (2, last.bytes_total), "{last:?}");
    assert!(heard.is_sorted_by_key(|progress| (progress.step as u8, progress.layers)), "{heard:?}");
    assert_eq!(model.memory_report().layer_bytes, 14);
    assert!(model.context().unwrap().scratch_bytes() >= 100);
}

#[test]
fn a_plan_of_another_checkpoint_is_refused() {
    let plan = request(BACKEND::Auto, &[SLOW]).plan(&mixed()).unwrap();
    let error =
        post_init(checkpoint(vec![layer("a.sym", 4, 8)]), plan, PostInitOptions::default()).unwrap_err();
    assert!(matches!(error, Error::PlanMismatch { .. }), "{error}");
}

#[test]
fn a_backend_that_loses_a_layer_is_found_out() {
    let checkpoint = mixed();
    let plan = request(BACKEND::Auto, &[SLOW]).plan(&checkpoint).unwrap();
    let mut options = PostInitOptions::default();
    options.backend_options.set("slow", "lose", "true");
    let error = post_init(checkpoint, plan, options).unwrap_err().to_string();
    assert!(error.contains("slow") && error.contains("d.eight"), "{error}");
}

#[test]
fn an_option_that_no_backend_of_the_plan_understands_is_refused() {
    let checkpoint = mixed();
    let plan = request(BACKEND::Auto, &[SLOW]).plan(&checkpoint).unwrap();
    let mut options = PostInitOptions::default();
    options.backend_options.set("slow", "loose", "true");
    let error = post_init(checkpoint, plan, options).unwrap_err();
    assert!(
        matches!(&error, Error::Option { key, problem } if key == "slow.loose" && problem.contains("slow.lose"))
    );
}

#[test]
fn forward_refuses_what_does_not_fit_before_the_backend_is_called() {
    let checkpoint = mixed();
    let plan = request(BACKEND::Auto, &[SLOW, FAST]).plan(&checkpoint).unwrap();
    let model = post_init(checkpoint, plan, PostInitOptions::default()).unwrap();
    let mut context = model.context().unwrap();
    let mut forward = |name: &str, k: usize, n: usize, dtype: DType| {
        let (x, mut out) = (vec![0u32; 2 * k], vec![0u32; 2 * n]);
        let bytes = dtype.size_bytes();
        let x = &bytemuck::cast_slice(&x)[..2 * k * bytes];
        let out = &mut bytemuck::cast_slice_mut(&mut out)[..2 * n * bytes];
        let x = TensorRef::from_bytes(dtype, [2, k], x).unwrap();
        model.forward(name, &x, &mut TensorMut::from_bytes(dtype, [2, n], out).unwrap(), &mut context)
    };
    forward("a.sym", K, N, DType::F32).unwrap();
    assert!(matches!(forward("a.sym", K + 1, N, DType::F32), Err(Error::Shape { .. })));
    assert!(matches!(forward("a.sym", K, N + 1, DType::F32), Err(Error::Shape { .. })));
    assert!(
        matches!(forward("a.sym", K, N, DType::BF16), Err(Error::DtypeMismatch { .. })),
        "fast has no bf16"
    );
    let error = forward("a.sim", K, N, DType::F32).unwrap_err();
    assert!(matches!(&error, Error::NoSuchLayer { similar: Some(near), .. } if near == "a.sym"), "{error}");
}
