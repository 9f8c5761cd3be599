//! Models of every architecture, made small and at random, against the plainest implementation in f64 that there is.
//!
//! It follows the papers: pre-normed blocks (Xiong et al., 2020), root mean square norms (Zhang and Sennrich, 2019),
//! grouped heads (Ainslie et al., 2023), rotary positions (Su et al., 2021), gated networks (Shazeer, 2020).

use std::collections::HashMap;

use candle_core::DType;
use gptq_candle::Decoder;
use gptq_core::tensor::DType as Stored;
use gptq_tests_golden::files::{CheckpointDir, Tensor, quantize_config};
use gptq_tests_golden::layer::{LayerValues, StoredZeros};
use serde_json::{Value, json};

use crate::support::{decoder, values};

/// The error of logits relative to the largest: what sums in f32 do.
const TOLERANCE: f64 = 2e-5;
const VOCAB: usize = 48;
const HIDDEN: usize = 64;
const INNER: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const GROUPS: usize = 2;
const EPS: f64 = 1e-5;

/// What distinguishes a model.
#[derive(Clone, Copy)]
struct Kind {
    architecture: &'static str,
    head_dim: usize,
    /// Keys of `config.json` beside those that all have.
    more: fn() -> Value,
    /// The window of each layer.
    windows: [Option<usize>; LAYERS],
    biases: bool,
    head_norms: bool,
    /// Positions are divided by it.
    stretch: f64,
    tied: bool,
    /// One layer is left unquantized.
    plain: bool,
}

const LLAMA: Kind = Kind {
    architecture: "LlamaForCausalLM",
    head_dim: HIDDEN / HEADS,
    more: || json!({"rope_theta": 10000.0}),
    windows: [None; LAYERS],
    biases: false,
    head_norms: false,
    stretch: 1.0,
    tied: false,
    plain: true,
};

const KINDS: [Kind; 4] = [
    LLAMA,
    Kind {
        architecture: "MistralForCausalLM",
        more: || json!({"sliding_window": 7, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        windows: [Some(7); LAYERS],
        stretch: 2.0,
        tied: true,
        ..LLAMA
    },
    Kind {
        architecture: "Qwen2ForCausalLM",
        more: || json!({"use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1}),
        windows: [None, Some(5)],
        biases: true,
        ..LLAMA
    },
    Kind {
        architecture: "Qwen3ForCausalLM",
        head_dim: 32,
        more: || json!({"head_dim": 32, "rope_scaling": null}),
        head_norms: true,
        tied: true,
        plain: false,
        ..LLAMA
    },
];

/// A model by its values.
struct Model {
    kind: Kind,
    dir: CheckpointDir,
    /// `[K, N]` and a bias.
    linears: HashMap<String, (Vec<f64>, Vec<f64>)>,
    /// Everything else, row-major.
    plain: HashMap<String, Vec<f64>>,
}

impl Model {
    fn new(kind: Kind) -> Self {
        let mut model =
            Self { kind, dir: CheckpointDir::empty(), linears: HashMap::new(), plain: HashMap::new() };
        let mut tensors = Vec::new();
        let mut random = Random(11);
        let (queries, keys) = (HEADS * kind.head_dim, GROUPS * kind.head_dim);
        model.add_plain(
            &mut tensors,
            "model.embed_tokens.weight",
            &[VOCAB, HIDDEN],
            random.values(VOCAB * HIDDEN),
        );
        model.add_plain(&mut tensors, "model.norm.weight", &[HIDDEN], random.norm(HIDDEN));
        if !kind.tied {
            let head = random.values(VOCAB * HIDDEN);
            model.add_dense(&mut tensors, "lm_head", [HIDDEN, VOCAB], &head);
        }
        for layer in 0..LAYERS {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            for part in ["input_layernorm", "post_attention_layernorm"] {
                model.add_plain(
                    &mut tensors,
                    &name(&format!("{part}.weight")),
                    &[HIDDEN],
                    random.norm(HIDDEN),
                );
            }
            if kind.head_norms {
                for part in ["self_attn.q_norm.weight", "self_attn.k_norm.weight"] {
                    model.add_plain(&mut tensors, &name(part), &[kind.head_dim], random.norm(kind.head_dim));
                }
            }
            for (part, k, n) in [
                ("self_attn.q_proj", HIDDEN, queries),
                ("self_attn.k_proj", HIDDEN, keys),
                ("self_attn.v_proj", HIDDEN, keys),
                ("self_attn.o_proj", queries, HIDDEN),
                ("mlp.gate_proj", HIDDEN, INNER),
                ("mlp.up_proj", HIDDEN, INNER),
                ("mlp.down_proj", INNER, HIDDEN),
            ] {
                if kind.plain && part == "self_attn.k_proj" && layer == 1 {
                    let weight: Vec<f64> = random.values(k * n).iter().map(|w| w * 0.25).collect();
                    model.add_dense(&mut tensors, &name(part), [k, n], &weight);
                    if kind.biases {
                        let bias = random.values(n);
                        model.linears.get_mut(&name(part)).expect("it was added").1 = bias.clone();
                        tensors.push(floats(&name("self_attn.k_proj.bias"), &[n], &bias));
                    }
                    continue;
                }
                let mut values = LayerValues::random(&name(part), 4, [k, n], 32, random.next());
                values.scales.iter_mut().for_each(|scale| *scale /= 4.0);
                if kind.biases && ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].contains(&part)
                {
                    values = values.with_bias();
                }
                tensors.extend(values.tensors(StoredZeros::V2));
                let bias = values.bias.clone().unwrap_or_else(|| vec![0.0; n]);
                let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
                model.linears.insert(name(part), (wide(values.dense()), wide(bias)));
            }
        }
        model.dir.json("quantize_config.json", &quantize_config(4, 32, false, "gptq_v2"));
        model.dir.json("config.json", &config(kind));
        model.dir.weights("model.safetensors", &tensors);
        model
    }

    fn add_plain(&mut self, tensors: &mut Vec<Tensor>, name: &str, shape: &[usize], values: Vec<f64>) {
        tensors.push(floats(name, shape, &values));
        self.plain.insert(name.to_owned(), values);
    }

    /// Stored as `[N, K]`, as plain layers are.
    fn add_dense(&mut self, tensors: &mut Vec<Tensor>, name: &str, [k, n]: [usize; 2], weight: &[f64]) {
        tensors.push(floats(&format!("{name}.weight"), &[n, k], weight));
        let transposed = (0..k * n).map(|i| weight[i % n * k + i / n]).collect();
        self.linears.insert(name.to_owned(), (transposed, vec![0.0; n]));
    }

    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weight, bias) = &self.linears[name];
        let n = bias.len();
        let column = |j: usize| x.iter().enumerate().map(|(i, x)| x * weight[i * n + j]).sum::<f64>();
        (0..n).map(|j| column(j) + bias[j]).collect()
    }

    /// Logits after each token.
    fn logits(&self, tokens: &[u32]) -> Vec<Vec<f64>> {
        let embeddings = &self.plain["model.embed_tokens.weight"];
        let row = |token: &u32| embeddings[*token as usize * HIDDEN..][..HIDDEN].to_vec();
        let mut states: Vec<Vec<f64>> = tokens.iter().map(row).collect();
        for layer in 0..LAYERS {
            self.block(layer, &mut states);
        }
        let head = |state: Vec<f64>| {
            let state = norm(&state, &self.plain["model.norm.weight"]);
            match self.kind.tied {
                false => self.linear("lm_head", &state),
                true => embeddings.chunks(HIDDEN).map(|row| dot(row, &state)).collect(),
            }
        };
        states.into_iter().map(head).collect()
    }

    fn block(&self, layer: usize, states: &mut [Vec<f64>]) {
        let Kind { head_dim, windows, .. } = self.kind;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let heads = |part: &str, normed: &[f64], position: usize| {
            let projected = self.linear(&name(&format!("self_attn.{part}_proj")), normed);
            let turned = projected.chunks(head_dim).map(|head| {
                let head = match self.plain.get(&name(&format!("self_attn.{part}_norm.weight"))) {
                    Some(weight) => norm(head, weight),
                    None => head.to_vec(),
                };
                if part == "v" { head } else { turn(&head, position as f64 / self.kind.stretch) }
            });
            turned.collect::<Vec<_>>()
        };
        let (mut cache, mut attended) = (Vec::new(), Vec::new());
        for (position, state) in states.iter().enumerate() {
            let normed = norm(state, &self.plain[&name("input_layernorm.weight")]);
            let [q, k, v] = ["q", "k", "v"].map(|part| heads(part, &normed, position));
            cache.push((k, v));
            let first = windows[layer].map_or(0, |window| (position + 1).saturating_sub(window));
            let mut out = Vec::new();
            for (head, q) in q.iter().enumerate() {
                let group = head / (HEADS / GROUPS);
                let scale = (head_dim as f64).sqrt();
                let weights: Vec<f64> =
                    cache[first..].iter().map(|(k, _)| (dot(q, &k[group]) / scale).exp()).collect();
                let total: f64 = weights.iter().sum();
                out.extend((0..head_dim).map(|i| {
                    let mixed =
                        cache[first..].iter().zip(&weights).map(|((_, v), weight)| v[group][i] * weight);
                    mixed.sum::<f64>() / total
                }));
            }
            attended.push(self.linear(&name("self_attn.o_proj"), &out));
        }
        for (state, attended) in states.iter_mut().zip(attended) {
            add(state, &attended);
            let normed = norm(state, &self.plain[&name("post_attention_layernorm.weight")]);
            let gate = self.linear(&name("mlp.gate_proj"), &normed);
            let up = self.linear(&name("mlp.up_proj"), &normed);
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            add(state, &self.linear(&name("mlp.down_proj"), &inner));
        }
    }
}

fn config(kind: Kind) -> Value {
    let mut config = json!({
        "architectures": [kind.architecture], "hidden_size": HIDDEN, "intermediate_size": INNER, "vocab_size": VOCAB,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS,
        "max_position_embeddings": 1024, "rms_norm_eps": EPS, "tie_word_embeddings": kind.tied, "hidden_act": "silu",
        "eos_token_id": [1, 2],
    });
    let more = (kind.more)();
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

fn floats(name: &str, shape: &[usize], values: &[f64]) -> Tensor {
    let values: Vec<f32> = values.iter().map(|&value| narrow(value)).collect();
    Tensor::floats(name.to_owned(), shape, &values, Stored::F16)
}

#[expect(clippy::cast_possible_truncation, reason = "every value here is exact in f16")]
fn narrow(value: f64) -> f32 {
    value as f32
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

fn norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let scale = (dot(x, x) / x.len() as f64 + EPS).sqrt();
    x.iter().zip(weight).map(|(x, weight)| x / scale * weight).collect()
}

fn turn(head: &[f64], position: f64) -> Vec<f64> {
    let half = head.len() / 2;
    let angle = |i: usize| position * 10000f64.powf(-(2.0 * i as f64) / head.len() as f64);
    let low = (0..half).map(|i| head[i] * angle(i).cos() - head[i + half] * angle(i).sin());
    let high = (0..half).map(|i| head[i + half] * angle(i).cos() + head[i] * angle(i).sin());
    low.chain(high).collect()
}

/// Values with few bits, so that every dtype holds them exactly.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From -1 to 1.
    fn values(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| (self.next() % 65) as f64 / 32.0 - 1.0).collect()
    }

    /// From 0.5 to 1.5.
    fn norm(&mut self, count: usize) -> Vec<f64> {
        (0..count).map(|_| (self.next() % 33) as f64 / 32.0 + 0.5).collect()
    }
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + 3 * i + 5) % 48).collect()
}

/// The largest error of any logit, relative to the largest logit.
fn error(found: &[f32], expected: &[Vec<f64>]) -> f64 {
    let expected = expected.concat();
    assert_eq!(found.len(), expected.len(), "logits for each token");
    let off = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    // What is no number is not within any tolerance.
    if found.iter().any(|logit| logit.is_nan()) { f64::NAN } else { off / largest(&expected) }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// Logits of `tokens` fed in these portions.
fn in_portions(model: &Decoder, tokens: &[u32], portions: &[usize]) -> Vec<f32> {
    let mut cache = model.cache(tokens.len()).expect("a cache");
    let mut logits = Vec::new();
    let mut rest = tokens;
    for portion in portions {
        let (now, later) = rest.split_at(*portion);
        logits.extend(values(&model.forward(now, &mut cache).expect("logits")));
        rest = later;
    }
    assert!(rest.is_empty(), "all tokens are fed");
    assert_eq!(cache.len(), tokens.len());
    logits
}

#[test]
fn every_architecture_computes_what_plain_arithmetic_does_however_tokens_are_fed() {
    let tokens = tokens(40);
    for kind in KINDS {
        let model = Model::new(kind);
        let expected = model.logits(&tokens);
        let decoder = decoder(model.dir.path(), DType::F32);
        for portions in [vec![40], vec![1; 40], vec![3, 1, 30, 4, 2]] {
            let error = error(&in_portions(&decoder, &tokens, &portions), &expected);
            assert!(error <= TOLERANCE, "{}: {portions:?}: off by {error:.1e}", kind.architecture);
        }
    }
}

#[test]
fn a_long_prompt_in_pieces_is_one_text() {
    let tokens = tokens(700);
    let model = Model::new(KINDS[1]);
    let expected = model.logits(&tokens);
    let decoder = decoder(model.dir.path(), DType::F32);
    let error = error(&in_portions(&decoder, &tokens, &[700]), &expected);
    assert!(error <= TOLERANCE, "off by {error:.1e}");
    let mut cache = decoder.cache(700).expect("a cache");
    let last = values(&decoder.next(&tokens, &mut cache).expect("logits"));
    let error = self::error(&last, &expected[699..]);
    assert!(error <= TOLERANCE, "the last is off by {error:.1e}");
}

#[test]
fn half_precision_rounds_and_does_nothing_else() {
    let tokens = tokens(40);
    for kind in KINDS {
        let model = Model::new(kind);
        let expected = model.logits(&tokens);
        for (dtype, tolerance) in [(DType::F16, 8e-3), (DType::BF16, 6e-2)] {
            let decoder = decoder(model.dir.path(), dtype);
            for portions in [vec![40], vec![1; 40]] {
                let error = error(&in_portions(&decoder, &tokens, &portions), &expected);
                assert!(error <= tolerance, "{}: {dtype:?}: off by {error:.1e}", kind.architecture);
            }
        }
    }
}
