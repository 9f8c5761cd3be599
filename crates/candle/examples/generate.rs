//! The likeliest text after a prompt: `cargo run --release -p gptq-candle --example generate -- DIR "Once upon a time"`.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Device};
use gptq_candle::{Decoder, Sampler, Weights};
use gptq_core::backend::{BACKEND, dispatch};
use gptq_core::checkpoint::Checkpoint;
use gptq_core::post_init::{PostInitOptions, post_init};
// The backends of this program. One that only Cargo.toml names is not linked.
use gptq_torch_fallback as _;
use tokenizers::Tokenizer;

const NEW_TOKENS: usize = 64;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, prompt] = arguments.as_slice() else { return Err("usage: generate DIR PROMPT".into()) };

    // From the files to layers that run, and from layers to a model.
    let checkpoint = Checkpoint::open(dir)?;
    let plan = dispatch::plan(&checkpoint, BACKEND::Auto, gptq_core::device::Device::Cpu)?;
    let model = post_init(checkpoint, plan, PostInitOptions::default())?;
    let decoder = Decoder::load(Weights::new(model, DType::F32, &Device::Cpu)?)?;

    // From a prompt to tokens, one by one.
    let tokenizer = Tokenizer::from_file(Path::new(dir).join("tokenizer.json"))?;
    let mut next = tokenizer.encode(prompt.as_str(), true)?.get_ids().to_vec();
    let mut cache = decoder.cache(next.len() + NEW_TOKENS)?;
    let (mut sampler, mut text) = (Sampler::greedy(), tokenizer.decode_stream(true));
    for _ in 0..NEW_TOKENS {
        let token = sampler.sample(&decoder.next(&next, &mut cache)?)?;
        if decoder.config().eos_token_ids.contains(&token) {
            break;
        }
        if let Some(piece) = text.step(token)? {
            print!("{piece}");
            std::io::stdout().flush()?;
        }
        next = vec![token];
    }
    println!();
    Ok(())
}
