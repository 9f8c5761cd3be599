//! `gptq convert`: a checkpoint in another file format.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use gptq_core::QuantLinear;
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, SaveReport, ZeroEvidence, ZeroVersion};
use gptq_core::format::Bits;
use serde::Serialize;

use crate::args::{OpenArgs, SaveFormatArg, ShardArgs};
use crate::failure::Result;
use crate::output::findings::{GroupedFinding, grouped};
use crate::output::{Bar, Bytes, Console, Page, Report, Seconds, count, saved};

const LONG: &str = "\
Write a checkpoint in another file format, and prove that it is the same model.

Zero points are stored minus one in the format gptq and direct in gptq_v2; they are rewritten, and so is every \
configuration file, to tell the same truth. All other tensors and files are carried along byte for byte. What was \
written is read back before it gets its name: every layer has to dequantize to the same weights, bit for bit.

OUT appears complete or not at all: it must not exist or be empty, and is written under another name beside it.

A checkpoint in Marlin's format is read too, and not written.

Format gptq has no sure place for a zero point of 0, on which its writers disagree: a layer that has one is refused, \
with the reason, unless the files name a GPTQModel that readers know how to follow. gptq_v2 has room for all.";

const HELP: &str = "\
Examples:
  gptq convert path/to/model path/to/out --to gptq_v2
  gptq convert path/to/model path/to/out --to gptq --max-shard-size 2GB";

/// Write a checkpoint in another file format, and prove that its weights are the same.
#[derive(Args, Debug)]
#[command(long_about = LONG, after_help = HELP)]
pub(crate) struct Convert {
    #[command(flatten)]
    open: OpenArgs,
    /// The directory to write: absent, or empty.
    out: PathBuf,
    /// The file format to write.
    #[arg(long, value_name = "FORMAT", help_heading = "Saving")]
    to: SaveFormatArg,
    #[command(flatten)]
    shards: ShardArgs,
}

/// What was written.
#[derive(Serialize)]
struct Converted<'a> {
    directory: String,
    output: String,
    /// The format that the source's configuration names.
    from: CheckpointFormat,
    /// How the source's zero points were read.
    read_as: Option<ZeroVersion>,
    layers: usize,
    packed_bytes: usize,
    plain_tensors: usize,
    /// Layers of 3 bits whose codes went from continuous to planar packing, or back.
    layers_repacked: usize,
    open_seconds: f64,
    total_seconds: f64,
    saved: SaveReport,
    findings: Vec<GroupedFinding<'a>>,
}

impl Convert {
    pub(crate) fn run(&self, console: &Console) -> Result<()> {
        let started = Instant::now();
        let checkpoint = self.open.open()?;
        let open_seconds = started.elapsed().as_secs_f64();

        let bar = Bar::new(console);
        let hear = |progress| bar.hear_save(progress);
        let saved = checkpoint.save(&self.out, &self.shards.options(Some(self.to), &hear))?;
        drop(bar);

        console.print(&Converted {
            directory: self.open.dir.display().to_string(),
            output: self.out.display().to_string(),
            from: checkpoint.config().format,
            read_as: checkpoint.zero_evidence().map(|evidence: &ZeroEvidence| evidence.read_as),
            layers: checkpoint.layers().len(),
            packed_bytes: checkpoint.layers().iter().map(|layer| layer.info().packed_bytes).sum(),
            plain_tensors: checkpoint.tensors().len(),
            layers_repacked: repacked(&checkpoint, saved.format),
            open_seconds,
            total_seconds: started.elapsed().as_secs_f64(),
            saved,
            findings: grouped(checkpoint.findings()),
        })
    }
}

/// How many layers have other code words in `format`: the two packings differ in 3 bits alone, among those that exist
/// in both.
fn repacked(checkpoint: &Checkpoint, format: CheckpointFormat) -> usize {
    let infos = checkpoint.layers().iter().map(QuantLinear::info);
    infos.filter(|info| info.bits == Bits::THREE && Some(info.packing) != format.packing()).count()
}

impl Report for Converted<'_> {
    fn write_text(&self, page: &mut Page) {
        page.heading(format_args!(
            "{} to {}    {}",
            self.from,
            self.saved.format,
            Seconds(self.total_seconds)
        ));
        let stored = match self.read_as {
            Some(ZeroVersion::V1) => ", zero points stored minus one",
            Some(ZeroVersion::V2) => ", zero points stored direct",
            _ => "",
        };
        page.fields(&[
            ("from", format!("{}{stored}", self.directory)),
            ("to", self.output.clone()),
            (
                "holds",
                format!(
                    "{}, {} packed; {}",
                    count(self.layers, "quantized layer"),
                    Bytes(self.packed_bytes),
                    count(self.plain_tensors, "plain tensor")
                ),
            ),
            ("rewritten", self.rewritten()),
        ]);
        page.heading("files");
        saved::write(&self.saved, page);
    }
}

impl Converted<'_> {
    fn rewritten(&self) -> String {
        if self.from == CheckpointFormat::Marlin {
            return "codes and scales, in the order of GPTQ; qzeros and g_idx are new, and all other tensors the same bytes"
                .into();
        }
        let mut parts = Vec::new();
        if self.saved.zeros_converted > 0 {
            parts.push(count(self.saved.zeros_converted, "zero point"));
        }
        if self.layers_repacked > 0 {
            parts.push(format!("the code words of {} of 3 bits", count(self.layers_repacked, "layer")));
        }
        match parts.is_empty() {
            true => "no tensor: all are stored as this format stores them".into(),
            false => format!("{}; all other tensors are the same bytes", parts.join(", ")),
        }
    }
}
