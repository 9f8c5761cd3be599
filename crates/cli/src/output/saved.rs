//! What a save did, as text.

use std::path::Path;

use gptq_core::checkpoint::SaveReport;
use gptq_core::checkpoint::save::SavedFile;

use super::{Bytes, Column, Page, Seconds, count};

/// Writes the files, the proof, and what a person should know.
pub(crate) fn write(report: &SaveReport, page: &mut Page) {
    let rows: Vec<Vec<String>> = report.files.iter().map(row).collect();
    page.table(&[Column::Left("file"), Column::Right("bytes"), Column::Left("what")], &rows);
    page.line(format_args!(
        "{}, {}, in {}",
        count(report.files.len(), "file"),
        size(report.bytes),
        Seconds(report.seconds)
    ));
    if report.proved {
        let layers = count(report.layers, "layer");
        page.line(format_args!(
            "proof passed: read back, and {layers} dequantize to the same weights, bit for bit; plain tensors and zero \
             points are the same"
        ));
    }
    for skipped in &report.skipped {
        page.line(format_args!("left behind: {} ({})", skipped.name.display(), skipped.why));
    }
    for link in &report.followed {
        let (name, target) = (link.name.display(), link.target.display());
        page.line(format_args!("{name} is a link: the contents of {target} were copied"));
    }
    for dir in &report.leftovers {
        page.line(format_args!("{}: left from another save; remove it if none is under way", dir.display()));
    }
    for note in &report.notes {
        page.line(format_args!("note: {note}"));
    }
}

fn row(file: &SavedFile) -> Vec<String> {
    vec![file.name.display().to_string(), size(file.bytes), role(&file.name).to_owned()]
}

/// What a file is there for.
fn role(name: &Path) -> &'static str {
    let text = name.to_string_lossy();
    match &*text {
        "config.json" | "quantize_config.json" | "quant_config.json" => "configuration, rewritten",
        text if text.ends_with(".safetensors") => "weights",
        text if text.ends_with(".safetensors.index.json") => "index of the weights",
        _ => "carried along",
    }
}

fn size(bytes: u64) -> String {
    Bytes(usize::try_from(bytes).unwrap_or(usize::MAX)).to_string()
}
