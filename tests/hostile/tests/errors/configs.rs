//! Configurations that are missing, unreadable, or ask for what no checkpoint has.

use std::path::Path;
use std::{fs, io};

use gptq_tests_hostile::valid::{self, CONFIG};
use gptq_tests_hostile::{Entry, Image};
use serde_json::{Value, json};

use crate::case::{Case, case, case_of};

fn set(image: &mut Image, key: &str, value: Value) {
    image.json(CONFIG)[key] = value;
}

fn value(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case(name, "ConfigValue", says, change)
}

fn unsupported(name: &'static str, says: &'static [&'static str], change: fn(&mut Image)) -> Case {
    case(name, "Unsupported", says, change)
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = files();
    cases.extend(values());
    cases.extend(rules());
    cases.extend(other_kinds());
    cases
}

fn files() -> Vec<Case> {
    vec![
        case(
            "no configuration",
            "ConfigMissing",
            &["looked for quantize_config.json, quant_config.json", "config.json"],
            |image| {
                _ = image.remove(CONFIG);
            },
        ),
        case(
            "a model's configuration that says nothing of quantization",
            "ConfigMissing",
            &["`quantization_config` in config.json"],
            |image| {
                _ = image.remove(CONFIG);
                image.entries.insert("config.json".into(), Entry::Json(json!({"model_type": "llama"})));
            },
        ),
        case("a directory that is not there", "Io", &["cannot open"], |_| {})
            .on_disk(|dir| fs::remove_dir_all(dir)),
        case(
            "a directory in place of the configuration",
            "Io",
            &["quantize_config.json", "cannot read", "directory"],
            |image| {
                image.entries.insert(CONFIG.into(), Entry::Directory);
            },
        ),
        case(
            "a configuration that is a link to nothing",
            "Io",
            &["quantize_config.json", "cannot read"],
            |_| {},
        )
        .on_disk(|dir| {
            fs::remove_file(dir.join(CONFIG))?;
            link("gone.json", &dir.join(CONFIG))
        }),
        case(
            "a configuration that is a link to a device",
            "Io",
            &["quantize_config.json", "expected a regular file"],
            |_| {},
        )
        .on_disk(|dir| {
            fs::remove_file(dir.join(CONFIG))?;
            link("/dev/zero", &dir.join(CONFIG))
        }),
        case("a configuration that nobody may read", "Io", &["quantize_config.json", "cannot read"], |_| {})
            .on_disk(|dir| forbid(&dir.join(CONFIG))),
        case(
            "a configuration longer than any",
            "Io",
            &["quantize_config.json", "longer than 100000000 bytes"],
            |_| {},
        )
        .on_disk(|dir| fs::File::create(dir.join(CONFIG))?.set_len(100_000_001)),
        case(
            "a configuration without a byte",
            "ConfigSyntax",
            &["quantize_config.json", "not valid JSON", "EOF"],
            |image| {
                image.set_raw(CONFIG, "");
            },
        ),
        case(
            "a configuration that is cut short",
            "ConfigSyntax",
            &["quantize_config.json", "not valid JSON", "EOF"],
            |image| {
                image.set_raw(CONFIG, "{\"bits\": 4, \"gro");
            },
        ),
        case(
            "a configuration that is a web page",
            "ConfigSyntax",
            &["quantize_config.json", "expected value", "line 1"],
            |image| {
                image.set_raw(CONFIG, "<!DOCTYPE html>");
            },
        ),
        case(
            "a configuration that is no UTF-8",
            "ConfigSyntax",
            &["quantize_config.json", "not valid JSON"],
            |image| {
                image.set_raw(CONFIG, *b"{\"bits\": 4, \"\xFF\": 1}");
            },
        ),
        case(
            "a configuration nested without end",
            "ConfigSyntax",
            &["quantize_config.json", "recursion limit"],
            |image| {
                image.set_raw(CONFIG, "[".repeat(100_000));
            },
        ),
        case(
            "a second configuration that is no JSON",
            "ConfigSyntax",
            &["quant_config.json", "not valid JSON"],
            |image| {
                image.set_raw("quant_config.json", "bits: 4");
            },
        ),
    ]
}

/// A link at `at` to `to`, where the system has such things.
pub(crate) fn link(to: &str, at: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(to, at);
    #[cfg(not(unix))]
    return Err(io::Error::other(format!("no link from {} to {to}", at.display())));
}

/// Takes the right to read away; an error where that does not stop this process, which the superuser runs.
pub(crate) fn forbid(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file, fs::Permissions::from_mode(0o0))?;
    }
    match fs::read(file) {
        Err(_) => Ok(()),
        Ok(_) => Err(io::Error::other("this user may read everything")),
    }
}

fn values() -> Vec<Case> {
    vec![
        value(
            "a configuration that is a list",
            &["quantize_config.json", "(top level)", "an array of 1", "a JSON object"],
            |image| {
                image.entries.insert(CONFIG.into(), Entry::Json(json!([4])));
            },
        ),
        value("no width", &["quantize_config.json", "`bits` is missing", "from 2 to 8"], |image| {
            image.entries.insert(CONFIG.into(), Entry::Json(json!({"group_size": 32})));
        }),
        value("a width of 9 bits", &["quantize_config.json", "`bits` is 9", "from 2 to 8"], |image| {
            set(image, "bits", json!(9));
        }),
        value("a width of 1 bit", &["quantize_config.json", "`bits` is 1", "from 2 to 8"], |image| {
            set(image, "bits", json!(1));
        }),
        value("a width of no bits", &["quantize_config.json", "`bits` is 0", "from 2 to 8"], |image| {
            set(image, "bits", json!(0));
        }),
        value("a negative width", &["quantize_config.json", "`bits` is -4"], |image| {
            set(image, "bits", json!(-4));
        }),
        value("a width with a fraction", &["quantize_config.json", "`bits` is 4.5"], |image| {
            set(image, "bits", json!(4.5));
        }),
        value("a width past every integer", &["quantize_config.json", "`bits` is 1e+300"], |image| {
            set(image, "bits", json!(1e300));
        }),
        value("a width in quotes", &["quantize_config.json", "`bits` is \"4\"", "whole number"], |image| {
            set(image, "bits", json!("4"));
        }),
        value(
            "two widths that contradict each other",
            &["quantize_config.json", "`w_bit` is 8", "the same as `bits`, which is 4"],
            |image| {
                set(image, "w_bit", json!(8));
            },
        ),
        value(
            "groups of no rows",
            &["quantize_config.json", "`group_size` is 0", "-1 or a positive number"],
            |image| {
                set(image, "group_size", json!(0));
            },
        ),
        value(
            "groups of -7 rows",
            &["quantize_config.json", "`group_size` is -7", "-1 or a positive number"],
            |image| {
                set(image, "group_size", json!(-7));
            },
        ),
        value(
            "groups of more rows than can be counted",
            &["quantize_config.json", "`group_size` is 18446744073709551615"],
            |image| {
                set(image, "group_size", json!(u64::MAX));
            },
        ),
        value(
            "a symmetry that is a word",
            &["quantize_config.json", "`sym` is \"yes\"", "true or false"],
            |image| {
                set(image, "sym", json!("yes"));
            },
        ),
        value(
            "an act-order that is a number",
            &["quantize_config.json", "`desc_act` is 2", "true or false"],
            |image| {
                set(image, "desc_act", json!(2));
            },
        ),
        value("a format that is no name", &["quantize_config.json", "`format` is 2", "a name"], |image| {
            set(image, "format", json!(2));
        }),
        value(
            "words that there are not",
            &["quantize_config.json", "`pack_dtype` is \"uint4\"", "int32"],
            |image| {
                set(image, "pack_dtype", json!("uint4"));
            },
        ),
        value(
            "a good configuration beside a bad one",
            &["config.json", "`quantization_config.bits` is 9"],
            |image| {
                let config = json!({"quantization_config": {"bits": 9}});
                image.entries.insert("config.json".into(), Entry::Json(config));
            },
        ),
    ]
}

fn rules() -> Vec<Case> {
    vec![
        case(
            "a rule that is no pattern",
            "DynamicRule",
            &["quantize_config.json", "`+:(unclosed` is not a valid pattern", "parenthesis"],
            |image| set(image, "dynamic", json!({"+:(unclosed": {"bits": 8}})),
        ),
        case(
            "a rule that backtracks without end",
            "DynamicRule",
            &["quantize_config.json", r"`(.|.)*\1x` does not terminate on `model.layers.0.mlp.up_proj`"],
            |image| set(image, "dynamic", json!({r"(.|.)*\1x": {"bits": 8}})),
        ),
        case(
            "a rule that takes more room than any needs",
            "DynamicRule",
            &["quantize_config.json", "is not a valid pattern", "longer than any rule needs"],
            |image| set(image, "dynamic", json!({r"(((a{1000}){1000}){1000}){1000}": {}})),
        ),
        case(
            "more rules than any model needs",
            "DynamicRule",
            &["quantize_config.json", r"`.*\.4096\..*(q|k)`", "more than 4096 automata", "remove the rule"],
            |image| {
                let rules = (0..5000).map(|number| (format!(r".*\.{number}\..*(q|k)"), json!({})));
                set(image, "dynamic", Value::Object(rules.collect()));
            },
        ),
        value(
            "rules that are a list",
            &["quantize_config.json", "`dynamic` is an array of 0", "a JSON object"],
            |image| {
                set(image, "dynamic", json!([]));
            },
        ),
        value(
            "a rule that says false",
            &["quantize_config.json", "`dynamic.lm_head` is false", "begin the pattern with `-:`"],
            |image| {
                set(image, "dynamic", json!({"lm_head": false}));
            },
        ),
        value(
            "a rule of 9 bits",
            &["quantize_config.json", "`dynamic.lm_head.bits` is 9", "from 2 to 8"],
            |image| {
                set(image, "dynamic", json!({"lm_head": {"bits": 9}}));
            },
        ),
    ]
}

fn other_kinds() -> Vec<Case> {
    vec![
        unsupported(
            "a checkpoint of AWQ",
            &[
                "quantize_config.json",
                "`quant_method: \"awq\"`",
                "only GPTQ is read",
                "program for that method",
            ],
            |image| {
                set(image, "quant_method", json!("awq"));
            },
        ),
        unsupported(
            "a checkpoint of a method that nobody knows",
            &["quantize_config.json", "`quant_method: \"guesswork\"`", "only GPTQ"],
            |image| {
                set(image, "quant_method", json!("guesswork"));
            },
        ),
        unsupported(
            "a checkpoint of BitBLAS",
            &["quantize_config.json", "BitBLAS", "save the model again as gptq"],
            |image| {
                set(image, "quant_method", json!("bitblas"));
            },
        ),
        unsupported("a format of AWQ", &["quantize_config.json", "`format: \"gemm\"`", "AWQ"], |image| {
            set(image, "format", json!("gemm"));
        }),
        unsupported(
            "a format that nobody knows",
            &["quantize_config.json", "`format: \"gptq_v9\"`", "gptq, gptq_v2 or gptq_p"],
            |image| {
                set(image, "format", json!("gptq_v9"));
            },
        ),
        unsupported(
            "codes in 16-bit words",
            &["quantize_config.json", "`pack_dtype: \"int16\"`", "32-bit words"],
            |image| {
                set(image, "pack_dtype", json!("int16"));
            },
        ),
        unsupported(
            "a rotated model",
            &["quantize_config.json", "`rotation: \"hadamard\"`", "Hadamard", "without rotation"],
            |image| {
                set(image, "rotation", json!("hadamard"));
            },
        ),
        unsupported(
            "an adapter",
            &["quantize_config.json", "`adapter: an object with 1 keys`", "adapter"],
            |image| {
                set(image, "adapter", json!({"name": "lora"}));
            },
        ),
        unsupported(
            "5 bits in a format that has none",
            &["quantize_config.json", "5 bits in format `gptq`", "gptq_p"],
            |image| {
                set(image, "bits", json!(5));
            },
        ),
        case_of(
            valid::planar(3),
            "3 bits under configurations that pack them differently",
            "Unsupported",
            &[
                "quantize_config.json says gptq_p",
                "quant_config.json says gptq_v2",
                "up_proj",
                "same shapes in both",
            ],
            |image| {
                let mut other = image.json(CONFIG).clone();
                other["format"] = json!("gptq_v2");
                image.entries.insert("quant_config.json".into(), Entry::Json(other));
            },
        ),
    ]
}
