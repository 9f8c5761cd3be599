//! Small checkpoints that open and run: every width, both packings, and every shape in which files come.

use gptq_core::format::{Bits, Packing, marlin, packing};
use half::{bf16, f16};
use serde_json::{Value, json};

use crate::image::Image;
use crate::rng::Rng;
use crate::weights::{Tensor, Weights};

/// The name of the weight file, where there is one.
pub const WEIGHTS: &str = "model.safetensors";
/// The name of the configuration.
pub const CONFIG: &str = "quantize_config.json";
/// The name of the index, where there are shards.
pub const INDEX: &str = "model.safetensors.index.json";
/// The names of the two shards.
pub const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
/// The names of the layers.
pub const LAYERS: [&str; 2] = ["model.layers.0.mlp.up_proj", "model.layers.0.self_attn.q_proj"];

/// A quantized layer to be made.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// K.
    pub in_features: usize,
    /// N.
    pub out_features: usize,
    /// The width of a code.
    pub bits: u64,
    /// Rows that share a scale; −1 is all.
    pub group_size: i64,
    /// How codes and zero points are packed.
    pub packing: Packing,
    /// Whether zero points are stored minus one.
    pub v1: bool,
    /// Whether every zero point is `2^(bits − 1)`. Otherwise none is 0, of which v1 dialects disagree.
    pub symmetric: bool,
    /// Whether there is a `g_idx`, and whether it is a permutation.
    pub g_idx: Option<bool>,
    /// Whether there is a bias.
    pub bias: bool,
    /// The type of scales and bias: `F16`, `BF16` or `F32`.
    pub float: &'static str,
}

impl Layer {
    /// 64 rows, 32 columns, groups of 32 rows, symmetric, with a trivial `g_idx`; v1.
    pub fn plain(bits: u64) -> Self {
        Self {
            in_features: 64,
            out_features: 32,
            bits,
            group_size: 32,
            packing: Packing::Continuous,
            v1: true,
            symmetric: true,
            g_idx: Some(false),
            bias: false,
            float: "F16",
        }
    }

    /// The same in the planar layout, with zero points of their own; v2.
    pub fn planar(bits: u64) -> Self {
        Self { packing: Packing::Planar, v1: false, symmetric: false, ..Self::plain(bits) }
    }

    /// Its tensors, named as those of the module `name`.
    pub fn tensors(&self, name: &str, rng: &mut Rng) -> Vec<Tensor> {
        let (k, n) = (self.in_features, self.out_features);
        let bits = Bits::new(self.bits).expect("2 to 8 bits");
        let group_rows = usize::try_from(self.group_size).unwrap_or(k);
        let groups = k.div_ceil(group_rows);
        let widest = u8::try_from(bits.max_code()).expect("8 bits at most");
        let codes: Vec<u8> = (0..k * n).map(|_| rng.byte() & widest).collect();
        let qweight = packing::pack_matrix(&codes, k, n, bits, self.packing);

        let mut qzeros = Vec::new();
        for _ in 0..groups {
            let zeros: Vec<u8> = (0..n)
                .map(|_| match self.symmetric {
                    true => (widest >> 1) + 1,
                    false => (rng.byte() & widest).max(1),
                })
                .map(|zero| zero - u8::from(self.v1))
                .collect();
            qzeros.extend(packing::pack(&zeros, bits, self.packing));
        }
        let float = |count: usize, rng: &mut Rng| -> Vec<f32> {
            (0..count).map(|_| (f32::from(rng.byte()) + 1.0) / 4096.0).collect()
        };
        let scales = float(groups * n, rng);
        let mut tensors = vec![
            Tensor::words(format!("{name}.qweight"), &[packing::words_for(bits, k), n], &qweight),
            Tensor::words(format!("{name}.qzeros"), &[groups, packing::words_for(bits, n)], &qzeros),
            floats(format!("{name}.scales"), &[groups, n], self.float, &scales),
        ];
        if let Some(permuted) = self.g_idx {
            // 37 has no factor in common with any K here, so that every row is named once.
            let place = |row: usize| if permuted { row * 37 % k } else { row };
            let index: Vec<u32> =
                (0..k).map(|row| u32::try_from(place(row) / group_rows).expect("few groups")).collect();
            tensors.push(Tensor::words(format!("{name}.g_idx"), &[k], &index));
        }
        if self.bias {
            tensors.push(floats(format!("{name}.bias"), &[n], self.float, &float(n, rng)));
        }
        tensors
    }
}

/// A tensor of floats of type `dtype`.
pub fn floats(name: String, shape: &[usize], dtype: &'static str, values: &[f32]) -> Tensor {
    let data = match dtype {
        "F32" => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        "BF16" => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
    };
    Tensor { name, dtype, shape: shape.to_vec(), data }
}

/// A tensor that belongs to no quantized layer.
fn embedding(rng: &mut Rng) -> Tensor {
    let values: Vec<f32> = (0..8 * 4).map(|_| f32::from(rng.byte())).collect();
    floats("model.embed_tokens.weight".into(), &[8, 4], "F16", &values)
}

fn config(bits: u64, format: &str) -> Value {
    json!({"bits": bits, "group_size": 32, "desc_act": false, "sym": true, "quant_method": "gptq", "format": format})
}

/// A checkpoint of two layers of one kind, in one file.
fn of_two(layer: Layer, config: Value) -> Image {
    let mut rng = Rng::new(layer.bits);
    let mut tensors = vec![embedding(&mut rng)];
    for name in LAYERS {
        tensors.extend(layer.tensors(name, &mut rng));
    }
    Image::default().with_json(CONFIG, config).with_weights(WEIGHTS, Weights::new(tensors))
}

/// Two symmetric 4-bit layers, in one file, stored as v1: the checkpoint that most are.
pub fn plain() -> Image {
    of_two(Layer::plain(4), config(4, "gptq"))
}

/// Two asymmetric layers of `bits` bits, stored as v2.
pub fn asymmetric(bits: u64) -> Image {
    let mut config = config(bits, "gptq_v2");
    config["sym"] = json!(false);
    of_two(Layer { v1: false, symmetric: false, ..Layer::plain(bits) }, config)
}

/// Two layers of `bits` bits in the planar layout.
pub fn planar(bits: u64) -> Image {
    let mut config = config(bits, "gptq_p");
    config["sym"] = json!(false);
    of_two(Layer::planar(bits), config)
}

/// Two act-order layers of 4 bits.
pub fn act_order() -> Image {
    let mut config = config(4, "gptq");
    config["desc_act"] = json!(true);
    of_two(
        Layer { group_size: 16, g_idx: Some(true), ..Layer::plain(4) },
        with(config, "group_size", json!(16)),
    )
}

/// [`plain`], in two shards with an index.
pub fn sharded() -> Image {
    let mut image = plain();
    let first = std::mem::take(&mut image.weights(WEIGHTS).tensors);
    image.remove(WEIGHTS);
    let (first, second): (Vec<_>, Vec<_>) =
        first.into_iter().partition(|tensor| !tensor.name.contains("q_proj"));
    let mut map = serde_json::Map::new();
    for (tensors, shard) in [(&first, SHARDS[0]), (&second, SHARDS[1])] {
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), json!(shard))));
    }
    image
        .with_weights(SHARDS[0], Weights::new(first))
        .with_weights(SHARDS[1], Weights::new(second))
        .with_json(INDEX, json!({"metadata": {"total_size": 1}, "weight_map": map}))
}

/// A layer of 8 bits with a bias beside one of 4 bits, by a rule of `dynamic`; two configurations that agree.
pub fn dynamic() -> Image {
    let rules = json!({r"+:.*\.up_proj$": {"bits": 8, "group_size": -1}, r"-:.*\.k_proj": {}});
    let config = with(config(4, "gptq"), "dynamic", rules);
    let mut rng = Rng::new(40);
    let eight = Layer { bits: 8, group_size: -1, bias: true, float: "BF16", g_idx: None, ..Layer::plain(8) };
    let mut tensors = eight.tensors(LAYERS[0], &mut rng);
    tensors.extend(Layer::plain(4).tensors(LAYERS[1], &mut rng));
    tensors.push(floats("model.layers.0.self_attn.k_proj.weight".into(), &[2, 4], "F32", &[0.5; 8]));
    Image::default()
        .with_json(CONFIG, config.clone())
        .with_json("config.json", json!({"model_type": "llama", "quantization_config": config}))
        .with_weights(WEIGHTS, Weights::new(tensors))
}

/// The configuration as tensors of one number, as text-generation-inference keeps it; AutoGPTQ's file name.
pub fn scalars() -> Image {
    let mut rng = Rng::new(50);
    let layer = Layer { symmetric: false, ..Layer::plain(4) };
    let mut tensors = layer.tensors(LAYERS[0], &mut rng);
    for (name, value) in [("gptq_bits", 4u32), ("gptq_groupsize", 32)] {
        tensors.push(Tensor::words(name, &[1], &[value]));
    }
    Image::default().with_weights("gptq_model-4bit-32g.safetensors", Weights::new(tensors))
}

/// 3 bits, K and N that are no multiples of 32, a short last group, scales in f32.
pub fn ragged() -> Image {
    let layer = Layer {
        in_features: 100,
        out_features: 20,
        v1: false,
        symmetric: false,
        bias: true,
        float: "F32",
        ..Layer::plain(3)
    };
    of_two(layer, config(3, "gptq_v2"))
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

/// Two layers in Marlin's format, `B [4, 128]` and `s [2, 64]` each, one of them with a bias.
pub fn marlin() -> Image {
    let mut rng = Rng::new(60);
    let (k, n, bits) = (64, 64, Bits::FOUR);
    let mut tensors = vec![embedding(&mut rng)];
    for (name, bias) in LAYERS.into_iter().zip([false, true]) {
        let words: Vec<u32> = (0..marlin::words_of_row(bits, n) * k / 16)
            .map(|_| u32::from(rng.byte()) * 0x0101_0101)
            .collect();
        tensors.push(Tensor::words(format!("{name}.B"), &[k / 16, marlin::words_of_row(bits, n)], &words));
        let scales: Vec<f32> = (0..2 * n).map(|_| (f32::from(rng.byte()) + 1.0) / 4096.0).collect();
        tensors.push(floats(format!("{name}.s"), &[2, n], "F16", &scales));
        if bias {
            tensors.push(floats(format!("{name}.bias"), &[n], "F16", &vec![0.5; n]));
        }
    }
    let config = with(config(4, "marlin"), "is_marlin_format", json!(true));
    Image::default().with_json(CONFIG, config).with_weights(WEIGHTS, Weights::new(tensors))
}

/// All of them.
pub fn all() -> Vec<Image> {
    let mut images: Vec<Image> = [2, 3, 4, 8].into_iter().map(asymmetric).collect();
    images.extend([2, 3, 8].map(|bits| of_two(Layer::plain(bits), config(bits, "gptq"))));
    images.extend((2..=8).map(planar));
    images.extend([plain(), act_order(), sharded(), dynamic(), scalars(), ragged(), marlin()]);
    images
}
