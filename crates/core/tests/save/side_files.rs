//! What is carried along, what is left behind, and what is told about it.

use std::fs;

use gptq_core::checkpoint::{CheckpointFormat, SaveOptions};
use serde_json::json;
use tempfile::TempDir;

use crate::formats::save;
use crate::source::*;

fn source() -> Source {
    Source::new(CheckpointFormat::Gptq, &[Layer::new("a", 4, ZeroKind::Symmetric)], json!({}))
}

#[test]
fn everything_but_weights_is_carried_byte_for_byte() {
    let source = source();
    let kept = [
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
        "generation_config.json",
        "chat_template.jinja",
        "modeling_own.py",
        "README.md",
        "LICENSE",
        ".gitattributes",
        "quant_log.csv",
        "additional_chat_templates/tool_use.jinja",
        "1_Pooling/config.json",
    ];
    for name in kept {
        source.write(name, &format!("{name}: é\r\n\0"));
    }
    fs::create_dir(source.path().join("empty")).unwrap();
    let skipped = [
        (".cache/huggingface/x.lock", ".cache"),
        (".git/HEAD", ".git"),
        ("adapter_model.safetensors", "adapter_model.safetensors"),
        ("model.gguf", "model.gguf"),
        ("original/consolidated.00.pth", "original/consolidated.00.pth"),
        ("pytorch_model-00001-of-00002.bin", "pytorch_model-00001-of-00002.bin"),
        ("training_args.BIN", "training_args.BIN"),
    ];
    for (name, _) in skipped {
        source.write(name, "weights");
    }
    source.write("search.index.json", "not one of weights");
    let kept = [&kept[..], &["search.index.json"]].concat();
    source.write("pytorch_model.bin.index.json", "{}");

    let outs = TempDir::new().unwrap();
    let out = outs.path().join("out");
    let report = save(&source.open(), &out, &SaveOptions::default());
    let (before, after) = (files_in(source.path()), files_in(&out));
    for name in &kept {
        assert_eq!(after.get(*name), before.get(*name), "{name}");
    }
    assert_eq!(after.len(), kept.len() + 2, "{:?}", after.keys());
    assert!(out.join("empty").is_dir());
    let told: Vec<_> = report.skipped.iter().map(|skipped| skipped.name.to_str().unwrap()).collect();
    assert_eq!(told, skipped.map(|(_, told)| told));
    assert_eq!(report.files.len(), after.len());
}

#[cfg(unix)]
#[test]
fn links_are_copied_by_content_and_those_that_lead_out_are_told() {
    use std::os::unix::fs::symlink;
    let source = source();
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("secret"), "elsewhere").unwrap();
    source.write("real.json", "inside");
    symlink("real.json", source.path().join("linked.json")).unwrap();
    symlink(elsewhere.path().join("secret"), source.path().join("tokenizer.json")).unwrap();
    symlink(elsewhere.path(), source.path().join("more")).unwrap();

    let outs = TempDir::new().unwrap();
    let out = outs.path().join("out");
    let report = save(&source.open(), &out, &SaveOptions::default());
    assert_eq!(text_of(out.join("linked.json")), "inside");
    assert_eq!(text_of(out.join("tokenizer.json")), "elsewhere");
    assert!(!out.join("tokenizer.json").is_symlink());
    let [followed] = &report.followed[..] else { panic!("{:?}", report.followed) };
    assert_eq!(followed.name.to_str(), Some("tokenizer.json"));
    assert_eq!(followed.target, elsewhere.path().canonicalize().unwrap().join("secret"));
    assert_eq!(report.skipped.len(), 1, "a link to a directory: {:?}", report.skipped);
}

#[cfg(unix)]
#[test]
fn a_snapshot_of_the_hubs_cache_is_saved_as_files_and_nothing_is_told() {
    use std::os::unix::fs::symlink;
    let cache = TempDir::new().unwrap();
    let (blobs, snapshot) = (cache.path().join("blobs"), cache.path().join("snapshots/abc"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(&snapshot).unwrap();
    let source = source();
    source.write("tokenizer.json", "{}");
    for (i, name) in names_in(source.path()).into_iter().enumerate() {
        fs::copy(source.path().join(&name), blobs.join(i.to_string())).unwrap();
        symlink(format!("../../blobs/{i}"), snapshot.join(name)).unwrap();
    }
    let outs = TempDir::new().unwrap();
    let report = save(&open(&snapshot), &outs.path().join("out"), &SaveOptions::default());
    assert_eq!(tensors_in(&outs.path().join("out")), source.tensors);
    assert_eq!(names_in(&outs.path().join("out")), names_in(source.path()));
    assert!(report.followed.is_empty() && report.skipped.is_empty(), "{report:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_no_text_is_kept() {
    use std::os::unix::ffi::OsStrExt;
    let source = source();
    let name = std::ffi::OsStr::from_bytes(b"caf\xE9.txt");
    fs::write(source.path().join(name), "x").unwrap();
    let outs = TempDir::new().unwrap();
    let report = save(&source.open(), &outs.path().join("out"), &SaveOptions::default());
    assert_eq!(text_of(outs.path().join("out").join(name)), "x");
    let json = serde_json::to_value(&report).expect("a report of any name");
    assert_eq!(json["files"][1]["name"], "caf\u{FFFD}.txt");
    assert_eq!((&json["format"], &json["proved"]), (&json!("gptq"), &json!(true)));
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_read() {
    let source = source();
    // Opening a pipe that nobody writes to would wait for ever.
    let made = std::process::Command::new("mkfifo").arg(source.path().join("pipe")).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no mkfifo here");
        return;
    }
    let outs = TempDir::new().unwrap();
    let report = save(&source.open(), &outs.path().join("out"), &SaveOptions::default());
    assert_eq!(report.skipped.len(), 1, "{report:?}");
}
