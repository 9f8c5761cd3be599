//! Kernels that each lack one thing are stopped, and told apart.
#![cfg(emulated)]
#![expect(clippy::panic, reason = "a helper of tests fails as a test does")]

use gptq_emulator::{Buffer, Disagreement, Fault, Kernel, Launch, Thread, What, in_orders};

const SEEDS: std::ops::Range<u64> = 0..4;

#[derive(Clone, Copy)]
#[repr(C)]
struct Reverse {
    from: *const [u32; 4],
    to: *mut [u32; 4],
    count: u32,
    padding: u32,
}

/// Runs a copy of the kernel that reverses pieces of 64 vectors, over 100 of them.
fn reverse(name: &str, seed: u64) -> Result<Vec<[u32; 4]>, Fault> {
    let values: Vec<[u32; 4]> = (0..100).map(|i| [i, i + 1000, i + 2000, i + 3000]).collect();
    let (from, to) = (Buffer::input("from", &values), Buffer::output("to", 100));
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_test_reverse_{name}"))?,
        grid: [2, 1, 1],
        block: [64, 1, 1],
        shared_bytes: 0,
        params: Reverse { from: from.address(), to: to.address_mut(), count: 100, padding: 0 },
    };
    launch.run(seed)?;
    assert_eq!(to.unwritten_bytes(), 0);
    Ok(to.to_vec())
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Neighbours {
    from: *const u32,
    to: *mut u32,
}

fn neighbours(name: &str, seed: u64) -> Result<Vec<u32>, Fault> {
    let values: Vec<u32> = (7..39).collect();
    let (from, to) = (Buffer::input("from", &values), Buffer::output("to", 32));
    let launch = Launch {
        kernel: Kernel::named(&format!("gptq_test_neighbours_{name}"))?,
        grid: [1, 1, 1],
        block: [32, 1, 1],
        shared_bytes: 0,
        params: Neighbours { from: from.address(), to: to.address_mut() },
    };
    launch.run(seed)?;
    Ok(to.to_vec())
}

/// The fault that every order of the threads ends with, told with a line of the kernel.
fn fault<T>(run: impl Fn(u64) -> Result<T, Fault>, what: &What) -> Fault {
    let fault_of = |seed| match run(seed) {
        Ok(_) => panic!("seed {seed}: nothing was found, {what:?} was expected"),
        Err(fault) => {
            assert_eq!(fault.what, *what, "seed {seed}: {fault}");
            assert!(
                fault.places.iter().any(|place| place.file == "broken.cu" && place.line > 0),
                "seed {seed}: no line of the kernel in: {fault}"
            );
            fault
        }
    };
    SEEDS.map(fault_of).fold(fault_of(SEEDS.start), |_, fault| fault)
}

#[test]
fn the_kernel_that_lacks_nothing_runs_in_every_order() {
    let result = in_orders(SEEDS, |seed| reverse("nothing", seed)).unwrap().unwrap();
    assert_eq!(result[0], [63, 1063, 2063, 3063]);
    assert_eq!(result[64], [99, 1099, 2099, 3099]);
    let result = in_orders(SEEDS, |seed| neighbours("nothing", seed)).unwrap().unwrap();
    assert_eq!((result[0], result[31]), (8008, 7007));
}

#[test]
fn a_missing_barrier_is_a_race_or_a_read_of_what_is_not_there() {
    for seed in SEEDS {
        // Which of the two threads comes first is the order's choice.
        let fault = reverse("barrier", seed).unwrap_err();
        assert!(matches!(fault.what, What::Race | What::UninitialisedRead), "{fault}");
        assert!(fault.places.iter().any(|place| place.file == "broken.cu"), "{fault}");
    }
    let fault = neighbours("barrier", 0).unwrap_err();
    assert!(matches!(fault.what, What::Race | What::UninitialisedRead), "{fault}");
}

#[test]
fn a_missing_wait_for_a_copy_is_found() {
    let fault = fault(|seed| reverse("wait", seed), &What::ReadBeforeWait);
    assert_eq!(
        fault.region.as_ref().map(|region| region.name.as_str()),
        Some("static shared memory"),
        "{fault}"
    );
}

#[test]
fn an_index_past_the_end_is_found_with_its_buffer() {
    let fault = fault(|seed| reverse("edge", seed), &What::OutOfBoundsRead);
    let region = fault.region.as_ref().unwrap_or_else(|| panic!("no region: {fault}"));
    assert_eq!((region.name.as_str(), region.bytes), ("from", 1600), "{fault}");
    assert!(region.offset >= 1600, "{fault}");
    assert!(matches!(fault.thread, Some(Thread::At { block: [1, 0, 0], .. })), "{fault}");
}

#[test]
fn an_index_past_the_end_of_a_shared_array_is_found() {
    fault(|seed| reverse("shared_edge", seed), &What::OutOfBoundsRead);
}

#[test]
fn a_barrier_that_some_threads_pass_by_is_found() {
    fault(|seed| reverse("divergent", seed), &What::DivergentBarrier);
}

#[test]
fn a_vector_that_is_not_aligned_is_found() {
    fault(|seed| reverse("alignment", seed), &What::Misaligned);
}

#[test]
fn two_blocks_that_write_to_one_place_race() {
    let fault = fault(|seed| reverse("output_overlap", seed), &What::Race);
    assert!(matches!(fault.other, Some((Thread::OfAnotherBlock, _))), "{fault}");
}

#[test]
fn a_shuffle_that_a_lane_does_not_reach_or_takes_no_part_in_is_found() {
    fault(|seed| neighbours("divergent", seed), &What::DivergentWarp);
    fault(|seed| neighbours("lane", seed), &What::UndefinedLane);
}

#[test]
fn a_sum_in_the_order_of_arrival_differs_between_orders() {
    match in_orders(0..20, |seed| neighbours("order", seed)) {
        Err(Disagreement::Results { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_launch_that_no_gpu_takes_is_refused_with_the_reason() {
    let refused = |fault: Fault, words: &str| {
        assert!(matches!(fault.what, What::Refused(_)) && fault.to_string().contains(words), "{fault}");
    };
    refused(Kernel::named("gptq_test_none").unwrap_err(), "no such kernel");
    let kernel = Kernel::named("gptq_test_reverse_nothing").unwrap();
    let launch = Launch { kernel, grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 0, params: 0u64 };
    refused(launch.run(0).unwrap_err(), "24 bytes of parameters");
    let params = Reverse { from: std::ptr::null(), to: std::ptr::null_mut(), count: 1, padding: 0 };
    let launch = Launch { kernel, grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 0, params };
    refused(Launch { block: [65, 1, 1], ..launch }.run(0).unwrap_err(), "1 to 64 threads");
    refused(Launch { grid: [1, 70000, 1], ..launch }.run(0).unwrap_err(), "grid");
    refused(Launch { shared_bytes: 1 << 20, ..launch }.run(0).unwrap_err(), "shared memory");
    // An address of nothing, at the end of which nobody is hurt.
    assert_eq!(launch.run(0).unwrap_err().what, What::OutOfBoundsRead);
}
