//! `forward` in CUDA graphs, and on several streams.
#![allow(unsafe_code, reason = "launches graphs")]

use gptq_conformance::Activations;
use gptq_core::tensor::{DType, TensorMut, TensorRef};
use gptq_cuda::Graph;

use crate::support::{Kind, forward, gpu, judge, layer, open, uploaded};

/// Records a call of each size in a graph of its own, and compares what the graph gives with a plain call. Sizes are new
/// to the model when they are recorded: nothing was called before that loads or chooses anything for them.
#[test]
fn a_graph_gives_the_bits_that_a_call_gives_also_for_sizes_that_never_ran() {
    let Some(_gpu) = gpu("graphs") else { return };
    let four = Kind::four_bits(4096, 11008);
    for kind in [four, Kind { bias: true, ..four }, Kind { act_order: true, ..four }] {
        let packed = layer("layer", kind);
        let model = open(vec![packed.clone()]).unwrap();
        let memory = model.memory().unwrap();
        for (dtype, rows) in [
            (DType::F16, 1),
            (DType::F16, 4),
            (DType::F16, 23),
            (DType::F16, 777),
            (DType::BF16, 9),
            (DType::BF16, 130),
            (DType::F32, 21),
        ] {
            let x = Activations::normal([rows, kind.k], dtype, 5);
            let x_buffer = uploaded(&**memory, &x.to_bytes());
            let mut bytes = vec![0xff; rows * kind.n * dtype.size_bytes()];
            let mut out_buffer = uploaded(&**memory, &bytes);
            let mut graph = Graph::capture(model.context().unwrap(), |context| {
                let x = TensorRef::on_device(dtype, [rows, kind.k], &*x_buffer, 0)?;
                let mut out = TensorMut::on_device(dtype, [rows, kind.n], &mut *out_buffer, 0)?;
                model.forward("layer", &x, &mut out, context)
            })
            .unwrap_or_else(|error| panic!("{kind:?}, x {dtype} [{rows}, K]: {error}"));
            for replay in 0..3 {
                memory.upload(&vec![0xff; bytes.len()], &mut *out_buffer, 0).unwrap();
                // SAFETY: x, out and the model are where they were.
                unsafe { graph.launch() }.unwrap();
                graph.synchronize().unwrap();
                memory.download(&*out_buffer, 0, &mut bytes).unwrap();
                let plain = forward(&model, "layer", &x, &mut model.context().unwrap());
                assert!(bytes == plain, "{kind:?}, x {dtype} [{rows}, K]: replay {replay} gives other bits");
            }
            judge(&packed, &x, &bytes);
        }
    }
}

#[test]
fn threads_on_streams_of_their_own_run_two_models_at_once() {
    let Some(_gpu) = gpu("threads and streams") else { return };
    let kinds = [Kind::four_bits(4096, 11008), Kind { act_order: true, ..Kind::four_bits(8192, 4096) }];
    let packed = kinds.map(|kind| layer("layer", kind));
    let models = packed.clone().map(|layer| open(vec![layer]).unwrap());
    std::thread::scope(|scope| {
        for (thread, (model, packed)) in models.iter().zip(&packed).cycle().take(4).enumerate() {
            scope.spawn(move || {
                let mut context = model.context().unwrap();
                for round in 0..12 {
                    let rows = [1, 64, 300, 3][round % 4];
                    let x = Activations::normal(
                        [rows, packed.in_features()],
                        DType::F16,
                        (thread * 100 + round) as u64,
                    );
                    let out = forward(model, "layer", &x, &mut context);
                    if round < 4 {
                        judge(packed, &x, &out);
                    }
                }
            });
        }
    });
}
