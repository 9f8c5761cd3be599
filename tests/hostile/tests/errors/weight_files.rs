//! Weight files that are missing, too many, in the wrong place, or no files; and what an index says of them.

use std::fs;
use std::io::Seek;
use std::process::Command;

use gptq_tests_hostile::valid::{self, CONFIG, INDEX, SHARDS, WEIGHTS};
use gptq_tests_hostile::{Entry, Image};
use serde_json::{Value, json};

use crate::case::{Case, case, case_of};
use crate::configs::{forbid, link};

const QWEIGHT: &str = "model.layers.0.mlp.up_proj.qweight";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = files();
    cases.extend(no_files());
    cases.extend(malformed_indices());
    cases.extend(lying_indices());
    cases
}

fn files() -> Vec<Case> {
    vec![
        case(
            "no weights",
            "WeightsMissing",
            &["no weights found", "looked for model.safetensors", "gptq_model-4bit-32g.safetensors"],
            |image| {
                _ = image.remove(WEIGHTS);
            },
        ),
        case(
            "only a pickle",
            "Pickle",
            &["pytorch_model.bin", "pickle", "can run code", "convert them to safetensors"],
            |image| {
                _ = image.remove(WEIGHTS);
                image.set_raw("pytorch_model.bin", "PK");
            },
        ),
        case(
            "several weight files and no index",
            "WeightsAmbiguous",
            &["no index", "a.safetensors, b.safetensors", "model.safetensors.index.json"],
            |image| {
                let weights = image.remove(WEIGHTS);
                image.entries.insert("a.safetensors".into(), weights.clone());
                image.entries.insert("b.safetensors".into(), weights);
            },
        ),
        case(
            "another format under the name of weights",
            "Header",
            &["model.safetensors", "expected at most 100000000"],
            |image| {
                image.set_raw(WEIGHTS, *b"PK\x03\x04\x14\x00\x00\x00\x08\x08archive/data.pkl");
            },
        ),
        case(
            "a pointer where the weights were not downloaded",
            "Header",
            &["model.safetensors", "git-lfs", "git lfs pull"],
            |image| {
                image.set_raw(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
            },
        ),
    ]
}

fn no_files() -> Vec<Case> {
    vec![
        case(
            "a directory in place of the weights",
            "Io",
            &["model.safetensors", "cannot open", "directory"],
            |image| {
                image.entries.insert(WEIGHTS.into(), Entry::Directory);
            },
        ),
        case(
            "a pipe in place of the weights",
            "Io",
            &["model.safetensors", "cannot open", "expected a regular file"],
            |image| {
                _ = image.remove(WEIGHTS);
            },
        )
        .on_disk(|dir| match Command::new("mkfifo").arg(dir.join(WEIGHTS)).status()?.success() {
            true => Ok(()),
            false => Err(std::io::Error::other("no pipe can be made")),
        }),
        case(
            "weights that are a link to a device",
            "Io",
            &["model.safetensors", "expected a regular file"],
            |image| {
                _ = image.remove(WEIGHTS);
            },
        )
        .on_disk(|dir| link("/dev/zero", &dir.join(WEIGHTS))),
        case("weights that are a link to nothing", "Io", &["model.safetensors", "cannot open"], |image| {
            _ = image.remove(WEIGHTS);
        })
        .on_disk(|dir| link("../blobs/gone", &dir.join(WEIGHTS))),
        case("weights that nobody may read", "Io", &["model.safetensors", "cannot open"], |_| {})
            .on_disk(|dir| forbid(&dir.join(WEIGHTS))),
        case("a file in place of the directory", "Io", &["cannot"], |_| {}).on_disk(|dir| {
            fs::remove_dir_all(dir)?;
            fs::write(dir, "no directory")
        }),
        // Another process that shortens a file holds it open. Cut before it is opened here, it is a short file; cut
        // afterwards, a copy has all its bytes or fewer, and fewer are found when the header is read. Only a mapping
        // can lose bytes that it had.
        case(
            "weights that another handle has cut short",
            "Header",
            &["model.safetensors", "cut short", "it holds"],
            |_| {},
        )
        .on_disk(|dir| {
            let mut other = fs::OpenOptions::new().write(true).open(dir.join(WEIGHTS))?;
            let length = other.seek(std::io::SeekFrom::End(0))?;
            other.set_len(length - 100)?;
            std::mem::forget(other);
            Ok(())
        }),
    ]
}

fn index(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case_of(valid::sharded(), name, "Index", says, change)
}

/// Says of the first layer's qweight that it lies in `file`.
fn place(image: &mut Image, file: &str) {
    image.json(INDEX)["weight_map"][QWEIGHT] = json!(file);
}

fn malformed_indices() -> Vec<Case> {
    vec![
        index("an index that is no JSON", &[INDEX, "not an index", "expected value"], |image| {
            image.set_raw(INDEX, "shards");
        }),
        index("an index without a map", &[INDEX, "missing field `weight_map`"], |image| {
            image.entries.insert(INDEX.into(), Entry::Json(json!({"metadata": {}})));
        }),
        index("an index whose map is a list", &[INDEX, "invalid type: sequence", "a map"], |image| {
            image.json(INDEX)["weight_map"] = json!([]);
        }),
        index("an index that names no tensor", &[INDEX, "names no tensor"], |image| {
            image.json(INDEX)["weight_map"] = json!({});
        }),
        index("an index whose files are numbers", &[INDEX, "integer `1`", "a string"], |image| {
            image.json(INDEX)["weight_map"][QWEIGHT] = json!(1);
        }),
        case_of(
            valid::sharded(),
            "a directory in place of the index",
            "Io",
            &[INDEX, "cannot read"],
            |image| {
                image.entries.insert(INDEX.into(), Entry::Directory);
            },
        ),
    ]
}

fn lying_indices() -> Vec<Case> {
    vec![
        index(
            "an index that leads out of the directory",
            &[INDEX, QWEIGHT, "`../model.safetensors`", "leaves"],
            |image| {
                place(image, "../model.safetensors");
            },
        ),
        index(
            "an index that leads out and in again",
            &[INDEX, "`a/../../b.safetensors`", "leaves"],
            |image| {
                place(image, "a/../../b.safetensors");
            },
        ),
        index("an index with an absolute path", &[INDEX, "`/etc/passwd`", "leaves"], |image| {
            place(image, "/etc/passwd");
        }),
        index("an index with an empty name", &[INDEX, "``", "leaves"], |image| place(image, "")),
        index("an index that names the directory itself", &[INDEX, "`.`", "leaves"], |image| {
            place(image, ".");
        }),
        index(
            "an index that names a tensor that is not there",
            &[INDEX, "`ghost.qweight`", "and does not"],
            |image| {
                image.json(INDEX)["weight_map"]["ghost.qweight"] = json!(SHARDS[0]);
            },
        ),
        index(
            "an index that names the wrong shard",
            &[INDEX, QWEIGHT, "said to lie in `model-00002", "and lies in", "model-00001"],
            |image| {
                place(image, SHARDS[1]);
            },
        ),
        case_of(
            valid::sharded(),
            "an index that names a file that is not there",
            "Io",
            &["model-00001-of-00002.safetensors", "cannot open"],
            |image| {
                _ = image.remove(SHARDS[0]);
            },
        ),
        case_of(
            valid::sharded(),
            "an index that names a file that holds no tensors",
            "Header",
            &[CONFIG, "not a valid safetensors file"],
            |image| {
                place(image, CONFIG);
            },
        ),
        case_of(
            valid::sharded(),
            "an index with a name that no file can have",
            "Io",
            &["cannot open"],
            |image| place(image, "a\u{0}b"),
        ),
        case_of(
            valid::sharded(),
            "a tensor in two shards",
            "DuplicateTensor",
            &[
                "`model.layers.0.mlp.up_proj.scales` is in both",
                "model-00001-of-00002",
                "model-00002-of-00002",
                "remove the file",
            ],
            |image| {
                let twin = image.weights(SHARDS[0]).tensor("model.layers.0.mlp.up_proj.scales").clone();
                image.weights(SHARDS[1]).tensors.push(twin);
            },
        ),
        index("an index of another model", &[INDEX, "said to lie in"], |image| {
            let Value::Object(map) = image.json(INDEX)["weight_map"].take() else { return };
            let renamed = map.into_iter().map(|(name, file)| (name.replace("layers", "blocks"), file));
            image.json(INDEX)["weight_map"] = Value::Object(renamed.collect());
        }),
    ]
}
