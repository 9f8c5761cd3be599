//! `forward` in CUDA graphs, and on several streams.
#![allow(unsafe_code, reason = "launches graphs")]

use gptq_conformance::case::Case;
use gptq_conformance::rig::Rig;
use gptq_core::tensor::DType;
use gptq_cuda::Graph;

use crate::support::{four_bits, gpu, in_act_order, target};

/// Records a call of each size in a graph of its own, and compares what the graph gives with a plain call. Sizes are new
/// to the model when they are recorded: nothing was called before that loads or chooses anything for them.
#[test]
fn a_graph_gives_the_bits_that_a_call_gives_also_for_sizes_that_never_ran() {
    let Some(_gpu) = gpu("graphs") else { return };
    let target = target();
    let four = four_bits(4096, 11008);
    for case in [four, Case { bias: true, ..four }, in_act_order(four)] {
        let rig = Rig::of_noise(&target, &[case], DType::F16, None).unwrap();
        for (dtype, rows) in [
            (DType::F16, 1),
            (DType::F16, 4),
            (DType::F16, 23),
            (DType::F16, 777),
            (DType::BF16, 9),
            (DType::BF16, 130),
            (DType::F32, 21),
        ] {
            let x = rig.x(0, rows, dtype, 5);
            let mut call = rig.call(0, &x).unwrap();
            let mut graph = Graph::capture(rig.context().unwrap(), |context| call.queue(context))
                .unwrap_or_else(|error| panic!("{}: {error}", rig.describe(0, &x)));
            for replay in 0..3 {
                // Forgets the output of the replay before.
                call.replace_x(&x).unwrap();
                // SAFETY: x, out and the model are where they were.
                unsafe { graph.launch() }.unwrap();
                graph.synchronize().unwrap();
                let output = call.output().unwrap();
                let plain = rig.forward(0, &x, &mut rig.context().unwrap()).unwrap();
                let differs = output.first_difference(&plain);
                assert_eq!(differs, None, "{}: replay {replay} gives other bits", rig.describe(0, &x));
                rig.judge(0, &x, &output).unwrap();
            }
        }
    }
}

#[test]
fn threads_on_streams_of_their_own_run_two_models_at_once() {
    let Some(_gpu) = gpu("threads and streams") else { return };
    let target = target();
    let rigs = [four_bits(4096, 11008), in_act_order(four_bits(8192, 4096))]
        .map(|case| Rig::of_noise(&target, &[case], DType::F16, None).unwrap());
    std::thread::scope(|scope| {
        for (thread, rig) in rigs.iter().cycle().take(4).enumerate() {
            scope.spawn(move || {
                let mut context = rig.context().unwrap();
                for round in 0..12 {
                    let rows = [1, 64, 300, 3][round % 4];
                    let x = rig.x(0, rows, DType::F16, (thread * 100 + round) as u64);
                    let output = rig.forward(0, &x, &mut context).unwrap();
                    if round < 4 {
                        rig.judge(0, &x, &output).unwrap();
                    }
                }
            });
        }
    });
}
