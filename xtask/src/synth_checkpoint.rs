//! `synth-checkpoint`: a checkpoint of a given shape, filled with noise, for work on loading and speed.
//!
//! Its layers are those of a Llama: q, k, v and o of hidden × hidden, gate and up of hidden × intermediate, down of
//! intermediate × hidden. Codes are noise from a fixed seed, scales small, zero points symmetric and stored as v1. A whole
//! model has embeddings, norms and a head beside them, in f16, and a config.json from which a decoder is built.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use safetensors::{Dtype, View};
use serde_json::json;

use crate::{Result, at};

/// The shape of the checkpoint; Llama-2-7B where nothing is said.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The directory to write. Must not exist.
    out: PathBuf,
    /// Transformer layers.
    #[arg(long, default_value_t = 32)]
    layers: usize,
    /// in_features of all but the down projection.
    #[arg(long, default_value_t = 4096)]
    hidden: usize,
    /// out_features of the gate and up projections.
    #[arg(long, default_value_t = 11008)]
    intermediate: usize,
    /// Bits of a code: 2, 4 or 8.
    #[arg(long, default_value_t = 4, value_parser = parse_bits)]
    bits: usize,
    /// Rows that share a scale. Must divide both sizes.
    #[arg(long, default_value_t = 128)]
    group_size: u32,
    /// Give rows to groups in a shuffled order.
    #[arg(long)]
    act_order: bool,
    /// Write a whole model: what it has beside its quantized layers, too. Heads are 128 wide; hidden is a multiple of it.
    #[arg(long)]
    whole: bool,
}

/// Width of a head of a whole model, and how many tokens it knows.
const HEAD_DIM: usize = 128;
const VOCABULARY: usize = 32000;

/// Transformer layers in one file.
const LAYERS_PER_SHARD: usize = 8;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { out, layers, hidden, intermediate, bits, group_size, act_order, whole } = arguments;
    let (layers, hidden, intermediate, bits) = (*layers, *hidden, *intermediate, *bits);
    for size in [hidden, intermediate] {
        if *group_size == 0 || size % *group_size as usize != 0 || size % 32 != 0 {
            return Err(format!(
                "a size of {size} is not a multiple of 32 and of the group size {group_size}"
            )
            .into());
        }
    }
    if *whole && hidden % HEAD_DIM != 0 {
        return Err(format!(
            "a hidden size of {hidden} is not a multiple of {HEAD_DIM}, the width of a head"
        )
        .into());
    }
    fs::create_dir(out).map_err(at(out))?;

    let modules = [
        ("self_attn.q_proj", hidden, hidden),
        ("self_attn.k_proj", hidden, hidden),
        ("self_attn.v_proj", hidden, hidden),
        ("self_attn.o_proj", hidden, hidden),
        ("mlp.gate_proj", hidden, intermediate),
        ("mlp.up_proj", hidden, intermediate),
        ("mlp.down_proj", intermediate, hidden),
    ];
    let shards = layers.div_ceil(LAYERS_PER_SHARD);
    let mut weight_map = BTreeMap::new();
    let mut total_size = 0;
    for shard in 0..shards {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let mut tensors = Vec::new();
        let mut add = |name: String, tensor: Synthetic| {
            total_size += tensor.data_len();
            weight_map.insert(name.clone(), file.clone());
            tensors.push((name, tensor));
        };
        for layer in shard * LAYERS_PER_SHARD..layers.min((shard + 1) * LAYERS_PER_SHARD) {
            for (module, k, n) in modules {
                let name = format!("model.layers.{layer}.{module}");
                for (part, tensor) in Synthetic::layer(k, n, bits, *group_size, *act_order, &name) {
                    add(format!("{name}.{part}"), tensor);
                }
            }
            for norm in if *whole { &["input_layernorm", "post_attention_layernorm"][..] } else { &[] } {
                add(format!("model.layers.{layer}.{norm}.weight"), Synthetic::norm(hidden));
            }
        }
        if *whole && shard + 1 == shards {
            for (seed, name) in [(1, "model.embed_tokens.weight"), (2, "lm_head.weight")] {
                add(name.into(), Synthetic::matrix([VOCABULARY, hidden], seed));
            }
            add("model.norm.weight".into(), Synthetic::norm(hidden));
        }
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        let path = out.join(&file);
        safetensors::serialize_to_file(tensors, Some(metadata), &path).map_err(at(&path))?;
    }

    let quantization = json!({
        "bits": bits, "group_size": group_size, "desc_act": act_order, "sym": true, "lm_head": false,
        "quant_method": "gptq", "checkpoint_format": "gptq", "pack_dtype": "int32",
    });
    let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "quantization_config": &quantization,
    });
    if *whole {
        config["num_attention_heads"] = (hidden / HEAD_DIM).into();
        config["max_position_embeddings"] = 4096.into();
        config["rms_norm_eps"] = 1e-5.into();
        config["torch_dtype"] = "float16".into();
        config["vocab_size"] = VOCABULARY.into();
    }
    let files = [
        ("quantize_config.json", quantization),
        ("model.safetensors.index.json", index),
        ("config.json", config),
    ];
    for (name, value) in files {
        let path = out.join(name);
        fs::write(&path, serde_json::to_string_pretty(&value)?).map_err(at(&path))?;
    }
    println!("{}: {total_size} bytes of tensors in {shards} files", out.display());
    Ok(())
}

/// A tensor whose bytes are made when they are written, so that no more than one lies in memory.
struct Synthetic {
    dtype: Dtype,
    shape: Vec<usize>,
    content: Content,
}

enum Content {
    /// The same four bytes throughout.
    Word([u8; 4]),
    /// Noise from a seed.
    Noise(u64),
    /// Scales between 0.004 and 0.008, as f16, from a seed.
    Scales(u64),
    /// Weights of both signs between 0.016 and 0.031, as f16, from a seed.
    Weights(u64),
    /// Ones, as f16.
    Ones,
    /// The group of each row: in order, or shuffled by a seed.
    Groups { group_size: u32, shuffled: Option<u64> },
}

impl Synthetic {
    fn norm(width: usize) -> Self {
        Self { dtype: Dtype::F16, shape: vec![width], content: Content::Ones }
    }

    fn matrix(shape: [usize; 2], seed: u64) -> Self {
        Self { dtype: Dtype::F16, shape: shape.to_vec(), content: Content::Weights(seed) }
    }

    fn layer(
        k: usize,
        n: usize,
        bits: usize,
        group_size: u32,
        act_order: bool,
        name: &str,
    ) -> [(&'static str, Self); 4] {
        // The zero point 2^(bits-1), minus one, in every field.
        let zeros: u32 = match bits {
            2 => 0x5555_5555,
            8 => 0x7F7F_7F7F,
            _ => 0x7777_7777,
        };
        let seed = name.bytes().fold(bits as u64, |seed, byte| noise(seed ^ u64::from(byte)));
        let tensor = |dtype, shape: &[usize], content| Self { dtype, shape: shape.to_vec(), content };
        let groups = k / group_size as usize;
        [
            ("qweight", tensor(Dtype::I32, &[k * bits / 32, n], Content::Noise(seed))),
            ("qzeros", tensor(Dtype::I32, &[groups, n * bits / 32], Content::Word(zeros.to_le_bytes()))),
            ("scales", tensor(Dtype::F16, &[groups, n], Content::Scales(seed))),
            (
                "g_idx",
                tensor(Dtype::I32, &[k], Content::Groups { group_size, shuffled: act_order.then_some(seed) }),
            ),
        ]
    }
}

impl View for Synthetic {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let elements: usize = self.shape.iter().product();
        let bytes: Vec<u8> = match self.content {
            Content::Word(word) => word.repeat(elements),
            Content::Noise(seed) => stream(seed).flat_map(u64::to_le_bytes).take(elements * 4).collect(),
            // f16: sign 0, exponent of 2^-8, ten bits of noise.
            Content::Scales(seed) => halves(seed, elements, |bits| 0x1C00 | (bits & 0x3FF)),
            // f16: exponent of 2^-6, sign and ten bits of noise.
            Content::Weights(seed) => halves(seed, elements, |bits| 0x2400 | (bits & 0x83FF)),
            Content::Ones => 0x3C00u16.to_le_bytes().repeat(elements),
            Content::Groups { group_size, shuffled } => {
                let mut groups: Vec<u32> = (0u32..).take(elements).map(|row| row / group_size).collect();
                if let Some(seed) = shuffled {
                    // Fisher and Yates.
                    for (i, bits) in (1..elements).rev().zip(stream(seed)) {
                        let below = usize::try_from(bits >> 32).unwrap_or(0) % (i + 1);
                        groups.swap(i, below);
                    }
                }
                groups.into_iter().flat_map(u32::to_le_bytes).collect()
            }
        };
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// SplitMix64: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.
fn noise(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `count` numbers of 16 bits, each made of 16 bits of noise.
fn halves(seed: u64, count: usize, of: impl Fn(u16) -> u16) -> Vec<u8> {
    let noise = stream(seed).flat_map(|bits| [bits, bits >> 16, bits >> 32, bits >> 48]);
    noise.take(count).flat_map(|bits| of((bits & 0xFFFF) as u16).to_le_bytes()).collect()
}

fn stream(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |i: u64| noise(seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
}

fn parse_bits(text: &str) -> std::result::Result<usize, String> {
    match text {
        "2" => Ok(2),
        "4" => Ok(4),
        "8" => Ok(8),
        _ => Err("the widths that divide a word evenly are 2, 4 and 8".into()),
    }
}
