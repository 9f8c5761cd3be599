//! `gptq generate`: text from a checkpoint.

mod chat;

use std::io::Write;
use std::time::Instant;

use clap::Args;
use gptq_candle::Sampler;
use serde::Serialize;

use crate::commands::text_model::{Memory, ModelArgs, Ran, TextModel, tokenizer_failure};
use crate::failure::{Failure, Result};
use crate::output::{Console, Page, Report, Seconds, count};

use chat::ChatTemplate;

const LONG: &str = "\
Go on with a text, token by token.

The checkpoint is planned and finalized as by `gptq finalize`, and its layers make up the model that config.json \
describes: Llama, Mistral, Qwen2 or Qwen3. The text goes to standard output as it comes, and what it cost to standard \
error; with --json both are one document at the end.

Without --temperature each token is the likeliest one, so that two runs, and two backends that are right, say the same.";

const HELP: &str = "\
Examples:
  gptq generate path/to/model --prompt 'The capital of France is'
  gptq generate path/to/model --chat --prompt 'Why is the sky blue?' --temperature 0.7 --top-p 0.9";

/// Go on with a text, token by token.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to go on with; with --chat, what a user says.
    #[arg(long, value_name = "TEXT", help_heading = "Generating")]
    prompt: String,
    /// Write the prompt as the model's chat template does, and stop where the answer ends.
    #[arg(long, help_heading = "Generating")]
    chat: bool,
    /// With --chat, what is said to the model before the prompt.
    #[arg(long, value_name = "TEXT", requires = "chat", help_heading = "Generating")]
    system: Option<String>,
    /// With --chat, the name of the template, where the model has several.
    #[arg(long, value_name = "NAME", requires = "chat", help_heading = "Generating")]
    template: Option<String>,
    /// Stop after this many tokens.
    #[arg(long, value_name = "N", default_value = "128", help_heading = "Generating")]
    max_new_tokens: std::num::NonZeroUsize,
    /// Draw tokens, from a distribution that is the flatter the higher this is. 0 takes the likeliest.
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = at_least_zero, help_heading = "Generating")]
    temperature: f64,
    /// Draw only among the likeliest tokens whose probabilities add up to this.
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = at_least_zero, help_heading = "Generating")]
    top_p: f64,
    /// The seed of the drawing. The same seed draws the same tokens.
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Generating")]
    seed: u64,
    /// Go on where the model would end its text.
    #[arg(long, help_heading = "Generating")]
    ignore_eos: bool,
}

fn at_least_zero(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number >= 0.0 => Ok(number),
        _ => Err("write a number from 0 on".to_owned()),
    }
}

/// The text, and what it cost.
#[derive(Serialize)]
struct Generated {
    #[serde(flatten)]
    ran: Ran,
    /// As the model got it: with --chat, rendered.
    prompt: String,
    text: String,
    tokens: Vec<u32>,
    stopped: Stopped,
    prefill: Cost,
    decode: Cost,
    memory: Option<Memory>,
}

/// Why there is no more text.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Stopped {
    /// The model ended it.
    EndOfText,
    MaxNewTokens,
    /// The model's context is full.
    Context,
}

#[derive(Serialize)]
struct Cost {
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
}

impl Cost {
    fn new(tokens: usize, seconds: f64) -> Self {
        Self { tokens, seconds, tokens_per_second: if tokens == 0 { 0.0 } else { tokens as f64 / seconds } }
    }
}

impl Generate {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let dir = &self.model.open.dir;
        let model = self.model.load(console)?;
        let prompt = match self.chat {
            true => ChatTemplate::find(dir, self.template.as_deref())?
                .render(self.system.as_deref(), &self.prompt)?,
            false => self.prompt.clone(),
        };
        // A template writes the special tokens itself.
        let tokens = model.encode(dir, &prompt, !self.chat)?;
        if tokens.is_empty() {
            return Err(Failure::TooFewTokens {
                what: "the prompt".into(),
                found: count(0, "token"),
                expected: 1,
                remedy: "this model's texts begin with no token of their own: give it some text",
            });
        }
        let generated = self.generate(&model, prompt, &tokens, console)?;
        if console.is_json() {
            return console.print(&generated);
        }
        let mut page = Page::new(console.stderr_is_styled());
        generated.write_text(&mut page);
        // Nobody who cannot read standard error needs to be told there.
        _ = std::io::stderr().write_all(page.into_text().as_bytes());
        Ok(())
    }

    fn generate(
        &self,
        model: &TextModel,
        prompt: String,
        tokens: &[u32],
        console: &Console,
    ) -> Result<Generated> {
        let decoder = &model.decoder;
        let most = decoder.config().max_tokens();
        let room = tokens.len().saturating_add(self.max_new_tokens.get()).min(most).max(tokens.len() + 1);
        let mut cache = decoder.cache(room)?;
        let mut sampler = Sampler::new(self.temperature, self.top_p, self.seed);
        let mut pieces = model.tokenizer.decode_stream(true);
        let (mut text, mut new) = (String::new(), Vec::new());

        let started = Instant::now();
        let mut token = sampler.sample(&decoder.next(tokens, &mut cache)?)?;
        let prefill = Cost::new(tokens.len(), started.elapsed().as_secs_f64());

        let started = Instant::now();
        let stopped = loop {
            if !self.ignore_eos && decoder.config().eos_token_ids.contains(&token) {
                break Stopped::EndOfText;
            }
            new.push(token);
            let piece = pieces.step(token);
            let piece = piece
                .map_err(|error| tokenizer_failure(self.model.open.dir.join("tokenizer.json"), &error))?;
            if let Some(piece) = piece {
                stream(&piece, console)?;
                text.push_str(&piece);
            }
            if new.len() == self.max_new_tokens.get() {
                break Stopped::MaxNewTokens;
            }
            if cache.len() == cache.capacity() {
                break Stopped::Context;
            }
            token = sampler.sample(&decoder.next(&[token], &mut cache)?)?;
        };
        let decode = Cost::new(cache.len() - tokens.len(), started.elapsed().as_secs_f64());
        stream("\n", console)?;
        let (ran, memory) = (self.model.ran(model), Memory::now(cache.bytes()));
        Ok(Generated { ran, prompt, text, tokens: new, stopped, prefill, decode, memory })
    }
}

/// Shows a piece of text at once.
fn stream(piece: &str, console: &Console) -> Result<()> {
    if console.is_json() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(piece.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}

impl Report for Generated {
    fn write_text(&self, page: &mut Page) {
        let stopped = match self.stopped {
            Stopped::EndOfText => "the model ended the text",
            Stopped::MaxNewTokens => "--max-new-tokens",
            Stopped::Context => "the model's context is full",
        };
        let memory = self.memory.as_ref().map_or_else(|| "unknown".to_owned(), Memory::text);
        page.heading(format_args!("{}, {stopped}", count(self.tokens.len(), "new token")));
        page.fields(&[
            ("ran on", self.ran.text()),
            ("prefill", self.prefill.text()),
            ("decode", self.decode.text()),
            ("memory", memory),
        ]);
    }
}

impl Cost {
    fn text(&self) -> String {
        let tokens = count(self.tokens, "token");
        format!("{tokens} in {}, {:.1} tokens/s", Seconds(self.seconds), self.tokens_per_second)
    }
}
