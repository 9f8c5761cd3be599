//! `generate`: the likeliest text after a prompt.

use std::io::Write;
use std::time::Instant;

use gptq_candle::Sampler;
use tokenizers::Tokenizer;

use crate::Result;
use crate::model::{Model, device};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: Model,
    /// The text to go on with.
    prompt: String,
    /// The most new tokens.
    #[arg(long, default_value_t = 64)]
    new: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { model, prompt, new } = arguments;
    let decoder = model.load(&device()?)?;
    let tokenizer = Tokenizer::from_file(model.dir.join("tokenizer.json"))?;
    let mut next = tokenizer.encode(prompt.as_str(), true)?.get_ids().to_vec();
    let mut cache = decoder.cache(next.len() + new)?;
    let (mut sampler, mut text) = (Sampler::greedy(), tokenizer.decode_stream(true));
    let mut started = Instant::now();
    for _ in 0..*new {
        let token = sampler.sample(&decoder.next(&next, &mut cache)?)?;
        if next.len() > 1 {
            eprintln!("{} tokens of prompt in {:.1?}", next.len(), started.elapsed());
            started = Instant::now();
        }
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
    eprintln!("{} tokens in the cache, new ones in {:.1?}", cache.len(), started.elapsed());
    Ok(())
}
