//! The directory that is saved to: where it may be, how it is divided, and that nothing half-done is ever there.

use std::fs;
use std::path::Path;

use gptq_core::Error;
use gptq_core::checkpoint::config::{ConfigSource, QuantizeConfig};
use gptq_core::checkpoint::save::{SaveProgress, SaveStep};
use gptq_core::checkpoint::{Checkpoint, CheckpointFormat, SaveOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::formats::{save, to};
use crate::source::*;

fn source() -> Source {
    let layers: Vec<_> = (0..12)
        .map(|i| Layer {
            bias: true,
            ..Layer::new(&format!("model.layers.{i}.proj"), 4, ZeroKind::Asymmetric)
        })
        .collect();
    Source::new(CheckpointFormat::Gptq, &layers, json!({}))
}

fn refused(checkpoint: &Checkpoint, out: &Path) -> String {
    match checkpoint.save(out, &SaveOptions::default()) {
        Err(Error::Output { path, problem }) => {
            assert_eq!(path, out);
            problem
        }
        other => panic!("{}: {other:?}", out.display()),
    }
}

// ---- shards ----------------------------------------------------------------------------------------------------

#[test]
fn weights_are_divided_by_size_and_indexed() {
    let source = source();
    let outs = TempDir::new().unwrap();
    let out = outs.path().join("out");
    let options = SaveOptions { max_shard_bytes: 10_000, ..to(CheckpointFormat::Gptq) };
    save(&source.open(), &out, &options);
    assert_eq!(tensors_in(&out), source.tensors);

    let shards: Vec<_> = names_in(&out).into_iter().filter(|name| name.ends_with(".safetensors")).collect();
    let count = shards.len();
    assert!(count > 3, "{shards:?}");
    let index: Value = serde_json::from_str(&text_of(out.join("model.safetensors.index.json"))).unwrap();
    let total: usize = source.tensors.values().map(|(_, _, bytes)| bytes.len()).sum();
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), source.tensors.len());
    let mut order = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        assert_eq!(*shard, format!("model-{:05}-of-{count:05}.safetensors", i + 1));
        let bytes = fs::read(out.join(shard)).unwrap();
        let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert!(metadata.data_len() <= 10_000, "{shard} holds {} bytes", metadata.data_len());
        assert_eq!(header % 8, 0, "tensors are aligned");
        for (name, info) in metadata.tensors() {
            assert_eq!(index["weight_map"][&name], **shard, "{name}");
            let size = info.dtype.bitsize() / 8;
            assert!(info.data_offsets.0.is_multiple_of(size.max(1)), "{name} is not aligned");
            order.push((name, i));
        }
    }
    let shard_of = |name: &str| order.iter().find(|(n, _)| n == name).unwrap().1;
    assert!(
        shard_of("model.layers.2.proj.qweight") < shard_of("model.layers.10.proj.qweight"),
        "numbers count"
    );
    assert_eq!(open(&out).files().len(), count);
}

#[test]
fn a_tensor_larger_than_a_shard_gets_one_of_its_own() {
    let source = source();
    let outs = TempDir::new().unwrap();
    let options = SaveOptions { max_shard_bytes: 0, ..to(CheckpointFormat::Gptq) };
    save(&source.open(), &outs.path().join("out"), &options);
    assert_eq!(tensors_in(&outs.path().join("out")), source.tensors);
    let again = save(&open(&outs.path().join("out")), &outs.path().join("one"), &to(CheckpointFormat::Gptq));
    assert_eq!(names_in(&outs.path().join("one")), ["model.safetensors", "quantize_config.json"]);
    assert_eq!(again.files.len(), 2, "the index of the shards is not carried along");
}

#[test]
fn saving_twice_writes_the_same_bytes() {
    let source = source();
    let outs = TempDir::new().unwrap();
    let options = SaveOptions { max_shard_bytes: 20_000, ..SaveOptions::default() };
    save(&source.open(), &outs.path().join("one"), &options);
    save(&source.open(), &outs.path().join("two"), &SaveOptions { prove: false, ..options });
    assert_eq!(files_in(&outs.path().join("one")), files_in(&outs.path().join("two")));
}

#[test]
fn progress_ends_where_the_bytes_do() {
    let heard = std::sync::Mutex::new(Vec::new());
    let listen = |progress: SaveProgress| heard.lock().unwrap().push(progress);
    let outs = TempDir::new().unwrap();
    let options = SaveOptions { progress: Some(&listen), ..SaveOptions::default() };
    let source = source();
    save(&source.open(), &outs.path().join("out"), &options);
    let heard = heard.into_inner().unwrap();
    for step in [SaveStep::Write, SaveStep::Prove] {
        let of_step = || heard.iter().filter(|progress| progress.step == step);
        let most = of_step().map(|progress| progress.bytes).max();
        assert_eq!(most, of_step().next().map(|progress| progress.bytes_total), "{step:?}");
    }
}

// ---- where it may be -------------------------------------------------------------------------------------------

#[test]
fn an_empty_directory_is_taken_and_one_with_anything_in_it_is_not() {
    let source = source();
    let outs = TempDir::new().unwrap();
    let empty = outs.path().join("empty");
    fs::create_dir(&empty).unwrap();
    save(&source.open(), &empty, &SaveOptions::default());
    open(&empty);

    let full = outs.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join(".hidden"), "x").unwrap();
    assert!(refused(&source.open(), &full).contains("with a file in it"));
    assert_eq!(text_of(full.join(".hidden")), "x");
    assert!(refused(&source.open(), &empty).contains("files in it"), "it was saved to already");
    let file = outs.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(refused(&source.open(), &file).contains("it is a file"));
    assert!(refused(&source.open(), Path::new("/")).contains("no name"));
    assert!(refused(&source.open(), &empty.join("..")).contains("no name"));
    assert_eq!(names_in(outs.path()).iter().filter(|name| name.contains("partial")).count(), 0);
}

#[cfg(unix)]
#[test]
fn a_link_is_not_written_through() {
    let source = source();
    let outs = TempDir::new().unwrap();
    fs::create_dir(outs.path().join("empty")).unwrap();
    for (name, target) in [("to_empty", "empty"), ("to_nothing", "nothing")] {
        std::os::unix::fs::symlink(target, outs.path().join(name)).unwrap();
        assert!(refused(&source.open(), &outs.path().join(name)).contains("symbolic link"));
    }
    assert!(!outs.path().join("nothing").exists());
}

#[test]
fn a_checkpoint_is_not_saved_into_itself_or_around_itself() {
    let outs = TempDir::new().unwrap();
    let source = source();
    let dir = outs.path().join("model");
    fs::rename(source.path(), &dir).unwrap();
    let checkpoint = open(&dir);
    let before = files_in(outs.path());
    assert!(refused(&checkpoint, &dir).contains("is the directory of the checkpoint"));
    assert!(refused(&checkpoint, &dir.join("v2")).contains("lies in the directory of the checkpoint"));
    assert!(
        refused(&checkpoint, &dir.join("../model/v2")).contains("lies in the directory of the checkpoint")
    );
    assert!(refused(&checkpoint, outs.path()).contains("lies in it"));
    #[cfg(unix)]
    {
        let link = TempDir::new().unwrap();
        std::os::unix::fs::symlink(&dir, link.path().join("model")).unwrap();
        let problem = refused(&open(&link.path().join("model")), &dir.join("v2"));
        assert!(problem.contains("lies in the directory"), "through a link: {problem}");
    }
    assert_eq!(files_in(outs.path()), before);
}

#[test]
fn a_parent_that_cannot_hold_it_is_an_error_with_its_path() {
    let source = source();
    let outs = TempDir::new().unwrap();
    let io = |out: &Path| match source.open().save(out, &SaveOptions::default()) {
        Err(Error::Io { path, .. }) => path,
        other => panic!("{}: {other:?}", out.display()),
    };
    assert_eq!(io(&outs.path().join("no/such/out")), outs.path().join("no/such"));
    fs::write(outs.path().join("file"), "x").unwrap();
    assert!(io(&outs.path().join("file/out")).starts_with(outs.path()));
    // Where even root cannot make a directory.
    if cfg!(target_os = "linux") {
        assert_eq!(io(Path::new("/proc/out")), Path::new("/proc"));
    }
    assert_eq!(names_in(outs.path()), ["file"]);
}

/// Names in a directory are made to last by opening it, which it may forbid while it can be written to.
#[cfg(unix)]
#[test]
fn a_parent_that_cannot_be_opened_is_an_error_before_anything_is_there() {
    use std::os::unix::fs::PermissionsExt;

    let source = source();
    let outs = TempDir::new().unwrap();
    let parent = outs.path().join("parent");
    fs::create_dir(&parent).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o333)).unwrap();
    // Root may open it all the same; then it is saved.
    let may = fs::File::open(&parent).is_ok();
    let saved = source.open().save(parent.join("out"), &SaveOptions::default());
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o755)).unwrap();
    match saved {
        Ok(_) => assert!(may && parent.join("out").is_dir()),
        Err(Error::Io { path, .. }) => {
            assert!(!may && path == parent, "{}", path.display());
            assert_eq!(names_in(&parent), [""; 0], "nothing is left");
        }
        Err(error) => panic!("{}", error.report()),
    }
}

#[test]
fn what_a_killed_save_left_is_told_and_left_alone() {
    let outs = TempDir::new().unwrap();
    for name in
        [".out.partial-7-0", ".out.partial-7", ".out.partial-x", ".out2.partial-7-0", "out.partial-7-0"]
    {
        fs::create_dir(outs.path().join(name)).unwrap();
    }
    // This process's own first choice.
    let own = format!(".out.partial-{}-0", std::process::id());
    fs::create_dir(outs.path().join(&own)).unwrap();
    let source = source();
    let report = save(&source.open(), &outs.path().join("out"), &SaveOptions::default());
    let mut expected = vec![".out.partial-7".to_owned(), ".out.partial-7-0".to_owned(), own];
    expected.sort();
    let told = report.leftovers.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(fs::read_dir(outs.path()).unwrap().count(), 7, "nothing was removed");
}

#[test]
fn many_threads_save_one_checkpoint_to_names_of_their_own() {
    let source = source();
    let checkpoint = source.open();
    let outs = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let (checkpoint, out) = (&checkpoint, outs.path().join(format!("out{i}")));
            scope.spawn(move || save(checkpoint, &out, &SaveOptions::default()));
        }
    });
    assert_eq!(fs::read_dir(outs.path()).unwrap().count(), 4);
}

#[test]
fn threads_that_save_to_one_name_leave_one_checkpoint() {
    let source = source();
    let checkpoint = source.open();
    let outs = TempDir::new().unwrap();
    let out = outs.path().join("out");
    let saved = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| checkpoint.save(&out, &SaveOptions::default()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(saved.iter().filter(|result| result.is_ok()).count(), 1, "{saved:?}");
    for error in saved.into_iter().filter_map(Result::err) {
        assert!(matches!(error, Error::Output { .. }), "{error}");
    }
    assert_eq!(open(&out).layers().len(), 12);
    assert_eq!(fs::read_dir(outs.path()).unwrap().count(), 1);
}

// ---- that fails ------------------------------------------------------------------------------------------------

#[test]
fn what_does_not_read_back_is_removed_again() {
    let config = json!({"bits": 4, "group_size": 32});
    let config = QuantizeConfig::from_json(&config, ConfigSource::file("(memory)")).unwrap();
    // A checkpoint without layers does not open.
    let nothing = Checkpoint::from_layers(config, Vec::new());
    let outs = TempDir::new().unwrap();
    let error = nothing.save(outs.path().join("out"), &SaveOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Error::SavedDiffers { path, .. } if *path == outs.path().join("out")),
        "{error}"
    );
    assert_eq!(names_in(outs.path()), [""; 0]);
}

/// The variable that tells the child of the next test where to save.
#[cfg(unix)]
const FULL_DISK: &str = "GPTQ_TEST_SAVE_WITH_A_LIMIT";

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_with_the_file_and_leaves_nothing() {
    if let Some(dir) = std::env::var_os(FULL_DISK) {
        let dir = Path::new(&dir);
        match open(&dir.join("model")).save(dir.join("out"), &SaveOptions::default()) {
            Err(Error::Io { path, action: "write", .. }) => assert!(path.ends_with("model.safetensors")),
            other => panic!("{other:?}"),
        }
        return;
    }
    let outs = TempDir::new().unwrap();
    let source = source();
    fs::rename(source.path(), outs.path().join("model")).unwrap();
    // A process whose files may hold some kilobytes, and which is told so instead of killed.
    let child = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "output::a_full_disk_is_an_error_with_the_file_and_leaves_nothing", "--nocapture"])
        .env(FULL_DISK, outs.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
    assert_eq!(fs::read_dir(outs.path()).unwrap().count(), 1, "only the model is there");
}
