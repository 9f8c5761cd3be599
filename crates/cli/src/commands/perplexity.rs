//! `gptq perplexity`: how well a model expects a text.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::D;
use clap::Args;
use gptq_core::Error;
use serde::Serialize;

use crate::commands::text_model::{Memory, ModelArgs, Ran, TextModel};
use crate::failure::{Failure, Result};
use crate::output::{Console, Page, Report, Seconds, count};

const LONG: &str = "\
Measure how well a model expects a text: a check of a quantization, and of everything that runs it.

The text is cut into windows of --window tokens. In each window the model sees nothing of the others, and every token \
but the first is predicted from those before it. The mean of the negative logarithms of the probabilities that it gave \
them is the loss, and e to its power the perplexity: as unsure as if it chose among that many tokens. Both depend on the \
window and on the text; compare only what was measured alike.";

const HELP: &str = "\
Example:
  gptq perplexity path/to/model --text held-out.txt --window 512";

/// Measure how well a model expects a text.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct Perplexity {
    #[command(flatten)]
    model: ModelArgs,
    /// The file with the text, in UTF-8.
    #[arg(long, value_name = "FILE", help_heading = "Measuring")]
    text: PathBuf,
    /// Tokens in a window; at most the model's context.
    #[arg(long, value_name = "N", default_value = "512", help_heading = "Measuring")]
    window: NonZeroUsize,
    /// Stop after this many windows.
    #[arg(long, value_name = "N", help_heading = "Measuring")]
    max_windows: Option<NonZeroUsize>,
}

/// How well the text was expected.
#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    ran: Ran,
    text: String,
    window: usize,
    windows: usize,
    /// Tokens that were predicted.
    predicted: usize,
    /// The mean negative log likelihood of a token, in nats.
    loss: f64,
    perplexity: f64,
    seconds: f64,
    tokens_per_second: f64,
    memory: Option<Memory>,
}

impl Perplexity {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let io = |source| Error::Io { path: self.text.clone(), action: "read", source };
        let text = std::fs::read_to_string(&self.text).map_err(io)?;
        let model = self.model.load(console)?;
        let tokens = model.encode(&self.model.open.dir, &text, true)?;
        if tokens.len() < 2 {
            return Err(Failure::TooFewTokens {
                what: self.text.display().to_string(),
                found: count(tokens.len(), "token"),
                expected: 2,
                remedy: "the first is predicted from nothing, so that there is nothing to measure",
            });
        }
        console.print(&self.measure(&model, &tokens)?)
    }

    fn measure(&self, model: &TextModel, tokens: &[u32]) -> Result<Measured> {
        let decoder = &model.decoder;
        let window = self.window.get().min(decoder.config().max_tokens()).max(2);
        let mut cache = decoder.cache(window)?;
        let windows = tokens.chunks(window).filter(|window| window.len() > 1);
        let (mut total, mut predicted, mut done, mut seen) = (0.0, 0, 0, 0);
        let started = Instant::now();
        for window in windows.take(self.max_windows.map_or(usize::MAX, NonZeroUsize::get)) {
            let Some((_, targets)) = window.split_first() else { continue };
            let (inputs, _) = window.split_at(targets.len());
            cache.truncate(0);
            total -= log_likelihood(model, inputs, targets, &mut cache)?;
            predicted += targets.len();
            seen += inputs.len();
            done += 1;
        }
        let seconds = started.elapsed().as_secs_f64();
        let loss = total / predicted as f64;
        if !loss.is_finite() {
            return Err(gptq_candle::Error::NotFinite.into());
        }
        Ok(Measured {
            ran: self.model.ran(model),
            text: self.text.display().to_string(),
            window,
            windows: done,
            predicted,
            loss,
            perplexity: loss.exp(),
            seconds,
            tokens_per_second: seen as f64 / seconds,
            memory: Memory::now(cache.bytes()),
        })
    }
}

/// The sum of the logarithms of the probabilities of `targets`, each after the inputs up to its place.
fn log_likelihood(
    model: &TextModel,
    inputs: &[u32],
    targets: &[u32],
    cache: &mut gptq_candle::Cache,
) -> Result<f64> {
    let logits = model.decoder.forward(inputs, cache)?;
    let sum = || -> candle_core::Result<f64> {
        let targets = candle_core::Tensor::new(targets, logits.device())?.unsqueeze(1)?;
        let chosen = logits.gather(&targets, 1)?.squeeze(1)?;
        let likelihoods = (chosen - logits.log_sum_exp(D::Minus1)?)?;
        Ok(likelihoods.to_vec1::<f32>()?.into_iter().map(f64::from).sum())
    };
    Ok(sum().map_err(gptq_candle::Error::from)?)
}

impl Report for Measured {
    fn write_text(&self, page: &mut Page) {
        page.heading(format_args!("perplexity {:.4}", self.perplexity));
        let mut fields = vec![
            ("loss", format!("{:.4} nats a token", self.loss)),
            (
                "text",
                format!(
                    "{}: {} predicted in {} of {}",
                    self.text,
                    count(self.predicted, "token"),
                    count(self.windows, "window"),
                    count(self.window, "token")
                ),
            ),
            (
                "ran on",
                format!(
                    "{}, in {}, {:.1} tokens/s",
                    self.ran.text(),
                    Seconds(self.seconds),
                    self.tokens_per_second
                ),
            ),
        ];
        fields.extend(self.memory.as_ref().map(|memory| ("memory", memory.text())));
        page.fields(&fields);
    }
}
