//! The fake device: its two backends keep the contract, alone and together, and it finds what it is there to find.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use gptq_conformance::case::{Built, Case, GIdx};
use gptq_conformance::fake::{self, Access, FakeMemory, FakeStream, Use};
use gptq_conformance::oracle::Dense;
use gptq_conformance::{Accuracy, Activations, Company, Target, WeightRounding, checks, run};
use gptq_core::Error;
use gptq_core::backend::{BACKEND, BackendId, PlanRequest, Registration, Registry, Rejection};
use gptq_core::checkpoint::{Checkpoint, QuantizeConfig};
use gptq_core::device::{Context, Device, Memory, Stream};
use gptq_core::format::{Bits, GroupSize, ZeroDialect, ZeroEncoding};
use gptq_core::post_init::{FinalizedModel, PostInitOptions, post_init};
use gptq_core::tensor::{DType, TensorMut, TensorRef};

mod full {
    gptq_conformance::suite!(gptq_conformance::fake::FULL, device = "fake:0");
}

mod narrow {
    gptq_conformance::suite!(gptq_conformance::fake::NARROW, device = "fake:1");
}

#[test]
fn a_device_that_is_not_there_skips_a_check_or_fails_it_where_it_is_required() {
    let target = Target::new(fake::FULL, "fake:99").unwrap();
    let result = run(&target, "bias", Company::Others, checks::bias);
    if std::env::var_os("GPTQ_REQUIRE_DEVICE").is_some() {
        assert!(result.unwrap_err().contains("there is no fake:99"));
    } else {
        let skipped = result.unwrap().skipped.unwrap();
        assert!(skipped.contains("there is no fake:99"), "{skipped}");
    }
}

#[test]
fn a_device_that_no_machine_could_bring_fails_a_check() {
    let of_no_cpu = Registration::new(
        BackendId::new("choosy"),
        |_| Err(Rejection::other("no processor is good enough", "build a better one")),
        fake::FULL.open,
    );
    for (target, why) in [
        (Target::new(fake::FULL, "cuda:0").unwrap(), "it runs on fake:0 to fake:15, not on cuda:0"),
        (Target::new(fake::FULL, "cpu").unwrap(), "not on cpu"),
        (Target::new(of_no_cpu, "cpu").unwrap(), "no processor is good enough"),
    ] {
        let problem = run(&target, "bias", Company::Others, checks::bias).unwrap_err();
        assert!(problem.contains(why), "{problem}");
    }
}

/// 4 bits symmetric and asymmetric and in act-order, and 8 bits.
fn mixed_layers() -> Vec<Built> {
    let four = Case {
        bits: Bits::FOUR,
        group_size: GroupSize::from_config(32).unwrap(),
        in_features: 128,
        out_features: 72,
        zero_encoding: ZeroEncoding::V1(ZeroDialect::WordBorrow),
        ..Case::PLAIN
    };
    let cases = [
        four,
        Case { sym: false, in_features: 64, ..four },
        Case { g_idx: GIdx::ActOrder, sym: false, ..four },
        Case { bits: Bits::EIGHT, ..four },
        Case { in_features: 256, out_features: 40, bias: true, ..four },
    ];
    let built = cases.iter().enumerate();
    built
        .map(|(seed, case)| Case { seed: seed as u64, ..*case }.build(&format!("layers.{seed}")).unwrap())
        .collect()
}

fn open(ordinal: usize, built: &[Built]) -> gptq_core::Result<FinalizedModel> {
    let config = QuantizeConfig::from_scalars(4, 128, None, "(memory)".as_ref())?;
    let checkpoint = Checkpoint::from_layers(config, built.iter().map(|built| built.layer.clone()).collect());
    let mut request = PlanRequest::new(BACKEND::Auto, Device::Other("fake".into(), ordinal));
    request.registry = Registry::empty().with(fake::FULL).with(fake::NARROW);
    request.x_dtype = Some(DType::F16);
    let plan = request.plan(&checkpoint)?;
    post_init(checkpoint, plan, PostInitOptions { max_input_length: Some(8), ..PostInitOptions::default() })
}

/// Queues one call; what it has to give, and where it will stand.
fn forward(model: &FinalizedModel, built: &Built, rows: usize, seed: u64, context: &mut Context) -> Accuracy {
    let (case, memory) = (built.case, model.memory().unwrap());
    let x = Activations::normal([rows, case.in_features], DType::F16, seed);
    let mut x_buffer = memory.allocate(x.to_bytes().len()).unwrap();
    memory.upload(&x.to_bytes(), &mut *x_buffer, 0).unwrap();
    let mut out_buffer = memory.allocate(rows * case.out_features * 2).unwrap();
    {
        let x = TensorRef::on_device(DType::F16, x.shape(), &*x_buffer, 0).unwrap();
        let shape = [rows, case.out_features];
        let mut out = TensorMut::on_device(DType::F16, shape, &mut *out_buffer, 0).unwrap();
        model.forward(built.layer.name(), &x, &mut out, context).unwrap();
    }
    context.synchronize().unwrap();
    let mut bytes = vec![0; out_buffer.len_bytes()];
    memory.download(&*out_buffer, 0, &mut bytes).unwrap();
    let values: Vec<f64> =
        bytes.chunks_exact(2).map(|two| half::f16::from_ne_bytes([two[0], two[1]]).to_f64()).collect();
    Accuracy::of(&Dense::of_values(&built.values), &x, WeightRounding::Exact, &values)
}

#[test]
fn a_mixed_model_runs_through_both_backends_from_several_threads_while_its_length_changes() {
    let built = mixed_layers();
    let model = open(2, &built).unwrap();
    let backends: Vec<&str> = model.layers().iter().map(|layer| layer.backend().as_str()).collect();
    assert_eq!(backends, ["fake_narrow", "fake_full", "fake_full", "fake_full", "fake_narrow"]);

    let running = std::sync::atomic::AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (model, built, running) = (&model, &built, &running);
            scope.spawn(move || {
                let done = OnDrop(running);
                let mut context = model.context().unwrap();
                for call in 0..40 {
                    let layer = &built[(call + thread) % built.len()];
                    let rows = [1, 9, 30, 5, 17][call % 5];
                    let judged = forward(model, layer, rows, (thread * 100 + call) as u64, &mut context);
                    assert!(judged.holds(), "thread {thread}, {rows} rows: {}: {judged:?}", layer.case);
                }
                drop(done);
            });
        }
        for length in [64, 1, 7, 200, 3].into_iter().cycle() {
            if running.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                break;
            }
            model.set_max_input_length(length).unwrap();
            std::thread::yield_now();
        }
    });
}

/// Counts down also where a test fails, so that nobody waits for it for ever.
struct OnDrop<'a>(&'a std::sync::atomic::AtomicUsize);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn the_length_changes_what_temp_state_holds_and_too_much_leaves_the_old_one() {
    let built = mixed_layers();
    let device = fake::device(3).unwrap();
    let model = open(3, &built).unwrap();
    let temp_state = || model.memory_report().buffers.iter().map(|buffer| buffer.bytes).sum::<usize>();
    assert_eq!(temp_state(), 8 * 256 * 8, "8 rows of the widest narrow layer");
    model.set_max_input_length(100).unwrap();
    assert_eq!(temp_state(), 100 * 256 * 8);
    let before = device.allocated_bytes();
    model.set_max_input_length(2).unwrap();
    assert!(device.allocated_bytes() < before - 97 * 256 * 8, "shrinking gives memory back");

    device.set_capacity_bytes(device.allocated_bytes() + 100_000);
    assert!(matches!(model.set_max_input_length(1000), Err(Error::OutOfMemory { .. })));
    assert_eq!(temp_state(), 2 * 256 * 8);
    let mut context = model.context().unwrap();
    assert!(forward(&model, &built[0], 9, 1, &mut context).holds(), "the old room still serves");
}

#[test]
fn running_out_of_memory_while_buffers_are_made_leaves_nothing_allocated() {
    let built = mixed_layers();
    let device = fake::device(4).unwrap();
    drop(open(4, &built).unwrap());
    assert_eq!(device.allocated_bytes(), 0, "a dropped model is gone");

    let mut refused = 0;
    for capacity in (0..80_000).step_by(3_000) {
        device.set_capacity_bytes(capacity);
        match open(4, &built) {
            Ok(_) => {}
            Err(Error::OutOfMemory { .. }) => refused += 1,
            Err(other) => panic!("with {capacity} bytes: {}", other.report()),
        }
        assert_eq!(device.allocated_bytes(), 0, "with {capacity} bytes");
    }
    assert!(refused > 5, "capacities below what the model needs were tried");
    device.set_capacity_bytes(1 << 30);
    let model = open(4, &built).unwrap();
    let held = device.allocated_bytes();
    assert_eq!(held, {
        let report = model.memory_report();
        report.layer_bytes + report.buffers.iter().map(|buffer| buffer.bytes).sum::<usize>()
    });
    let context = model.context().unwrap();
    assert_eq!(device.allocated_bytes(), held + model.scratch_bytes());
    drop((model, context));
    assert_eq!(device.allocated_bytes(), 0);
}

#[test]
fn what_was_not_waited_for_cannot_be_downloaded() {
    let built = mixed_layers();
    let model = open(5, &built).unwrap();
    let memory = model.memory().unwrap();
    let mut context = model.context().unwrap();
    let (k, n) = (built[0].case.in_features, built[0].case.out_features);
    let mut x_buffer = memory.allocate(k * 2).unwrap();
    memory.upload(&vec![0; k * 2], &mut *x_buffer, 0).unwrap();
    let mut out_buffer = memory.allocate(n * 2).unwrap();
    memory.upload(&vec![1; n * 2], &mut *out_buffer, 0).unwrap();
    let x = TensorRef::on_device(DType::F16, [1, k], &*x_buffer, 0).unwrap();
    let mut out = TensorMut::on_device(DType::F16, [1, n], &mut *out_buffer, 0).unwrap();
    model.forward(built[0].layer.name(), &x, &mut out, &mut context).unwrap();

    let download = || {
        let mut bytes = vec![0; n * 2];
        memory.download(&*out_buffer, 0, &mut bytes).unwrap();
        bytes
    };
    // However long one waits: time is no synchronisation.
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(download(), vec![fake::POISON; n * 2], "before synchronize");
    context.synchronize().unwrap();
    assert_eq!(download(), vec![0; n * 2], "x of zeros, without bias, after synchronize");
    assert!(memory.upload(&vec![0; k * 2], &mut *x_buffer, 0).is_ok());
}

#[test]
fn a_buffer_that_queued_work_uses_cannot_be_uploaded_to() {
    let device = fake::device(6).unwrap();
    let memory = FakeMemory::new(device);
    let stream = FakeStream::new(device).unwrap();
    let mut buffer = memory.buffer(16).unwrap();
    stream.launch("reads", &[Use { buffer: &buffer, access: Access::Read }], || Ok(())).unwrap();
    assert!(matches!(memory.upload(&[0], &mut buffer, 0), Err(Error::Device { .. })));
    stream.synchronize().unwrap();
    memory.upload(&[0], &mut buffer, 0).unwrap();
    assert!(memory.upload(&[0; 17], &mut buffer, 0).is_err(), "past the end");
    assert!(memory.download(&buffer, 16, &mut [0]).is_err(), "past the end");
}

#[test]
fn scratch_in_two_streams_hands_is_an_error_at_synchronize() {
    let device = fake::device(7).unwrap();
    let memory = FakeMemory::new(device);
    let streams = [FakeStream::new(device).unwrap(), FakeStream::new(device).unwrap()];
    let scratch = memory.buffer(16).unwrap();
    let launch = |stream: &FakeStream, access| {
        stream.launch("uses scratch", &[Use { buffer: &scratch, access }], || Ok(())).unwrap();
    };
    launch(&streams[0], Access::Write);
    launch(&streams[0], Access::Write);
    streams[0].synchronize().unwrap();
    launch(&streams[1], Access::Write);
    streams[1].synchronize().expect("one after the other is fine");

    launch(&streams[0], Access::Write);
    launch(&streams[1], Access::Write);
    let error = streams[1].synchronize().unwrap_err().to_string();
    assert!(error.contains("uses scratch") && error.contains("race"), "{error}");
    streams[0].synchronize().expect("the one that came first did nothing wrong");
    streams[1].synchronize().expect("an error is told once");

    for access in [Access::Read, Access::Ordered] {
        launch(&streams[0], access);
        launch(&streams[1], access);
        streams[0].synchronize().unwrap();
        streams[1].synchronize().unwrap();
    }
}

#[test]
fn a_job_that_fails_or_panics_is_told_at_synchronize() {
    let stream = FakeStream::new(fake::device(8).unwrap()).unwrap();
    stream.launch("fails", &[], || Err("out of luck".into())).unwrap();
    assert!(stream.synchronize().unwrap_err().to_string().contains("out of luck"));
    stream.launch("panics", &[], || panic!("on purpose")).unwrap();
    assert!(stream.synchronize().is_err());
}

#[test]
fn a_buffer_lives_as_long_as_the_jobs_that_use_it() {
    let device = fake::device(9).unwrap();
    let stream = FakeStream::new(device).unwrap();
    let buffer = FakeMemory::new(device).buffer(100).unwrap();
    let cells = buffer.cells();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let uses = [Use { buffer: &buffer, access: Access::Write }];
    stream
        .launch("waits", &uses, move || {
            wait.recv().map_err(|error| error.to_string())?;
            cells.write().bytes_mut().fill(0);
            Ok(())
        })
        .unwrap();
    drop(buffer);
    assert_eq!(device.allocated_bytes(), 100, "the job still needs it");
    go.send(()).unwrap();
    stream.synchronize().unwrap();
    assert_eq!(device.allocated_bytes(), 0);
}
