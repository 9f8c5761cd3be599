//! Every width, encoding and packing, there and back.

use std::path::Path;

use gptq_core::checkpoint::config::{ConfigSource, QuantizeConfig};
use gptq_core::checkpoint::{
    Checkpoint, CheckpointFormat, OpenOptions, SaveOptions, SaveReport, ZeroVersion,
};
use gptq_core::format::{Packing, ZeroDialect, ZeroEncoding, packing};
use gptq_core::{Error, StoredDtype as Dtype};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::source::*;

pub(crate) fn to(format: CheckpointFormat) -> SaveOptions<'static> {
    SaveOptions { format: Some(format), ..SaveOptions::default() }
}

pub(crate) fn save(checkpoint: &Checkpoint, out: &Path, options: &SaveOptions<'_>) -> SaveReport {
    checkpoint.save(out, options).unwrap_or_else(|error| panic!("{}", error.report()))
}

/// Symmetric and asymmetric layers of these widths, with every kind of `g_idx`, with bias and without, in every
/// dtype of scales.
fn every_kind(widths: &[u64]) -> Vec<Layer> {
    let kinds = [Groups::Absent, Groups::Empty, Groups::Trivial, Groups::Zeros, Groups::Shuffled];
    let mut layers = Vec::new();
    for &bits in widths {
        for (i, groups) in kinds.into_iter().enumerate() {
            for zeros in [ZeroKind::Symmetric, ZeroKind::Asymmetric] {
                let name = format!("model.layers.{}.{zeros:?}_{bits}", layers.len());
                layers.push(Layer {
                    groups,
                    bias: i % 2 == 0,
                    scales: [Dtype::F16, Dtype::BF16, Dtype::F32][i % 3],
                    ..Layer::new(&name, bits, zeros)
                });
            }
        }
        // One group, and a last group that is short.
        let (one, short) = (format!("one_{bits}"), format!("short_{bits}"));
        layers.push(Layer { group_size: 96, ..Layer::new(&one, bits, ZeroKind::Asymmetric) });
        layers.push(Layer { group_size: 64, ..Layer::new(&short, bits, ZeroKind::Asymmetric) });
    }
    layers
}

#[test]
fn every_width_and_kind_goes_to_v2_and_back_without_losing_a_bit() {
    let layers = every_kind(&[2, 3, 4, 8]);
    let v1 = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    let expected_v2 = tensors(CheckpointFormat::GptqV2, &layers);
    let outs = TempDir::new().unwrap();
    let (there, back) = (outs.path().join("v2"), outs.path().join("v1"));

    let report = save(&v1.open(), &there, &to(CheckpointFormat::GptqV2));
    assert_eq!(tensors_in(&there), expected_v2, "only zero points differ, and by one");
    let zeros: usize = layers.iter().map(|layer| layer.k.div_ceil(layer.group_size) * layer.n).sum();
    assert_eq!((report.layers, report.zeros_converted), (layers.len(), zeros));
    assert!(report.proved && report.notes.is_empty(), "{report:?}");
    let on_disk: u64 = files_in(&there).values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(report.bytes, on_disk);
    let names: Vec<_> = report.files.iter().map(|file| file.name.to_str().unwrap()).collect();
    assert_eq!(names, ["quantize_config.json", "model.safetensors"]);

    let report = save(&open(&there), &back, &to(CheckpointFormat::Gptq));
    assert_eq!((report.format, report.zeros_converted), (CheckpointFormat::Gptq, zeros));
    assert!(report.notes.iter().any(|note| note.contains("28 of 48 layers are asymmetric")), "{report:?}");
    assert_eq!(tensors_in(&back), v1.tensors);
    assert_eq!(files_in(&back)["quantize_config.json"], files_in(v1.path())["quantize_config.json"]);
}

#[test]
fn columns_that_fill_no_word_keep_their_padding() {
    let layers = [2, 3, 4, 8].map(|bits| Layer {
        k: 40,
        n: 13,
        group_size: 24,
        ..Layer::new(&format!("l{bits}"), bits, ZeroKind::Asymmetric)
    });
    let mut v1 = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    for (name, (_, _, bytes)) in &mut v1.tensors {
        // The last word of each row, whose upper bits belong to no column: 13 columns leave 6 of 2 bits.
        if name == "l2.qzeros" {
            bytes.chunks_mut(4).for_each(|word| word[3] |= 0xA0);
        }
    }
    v1.write_weights();
    let outs = TempDir::new().unwrap();
    let (there, back) = (outs.path().join("v2"), outs.path().join("v1"));
    save(&v1.open(), &there, &to(CheckpointFormat::GptqV2));
    save(&open(&there), &back, &to(CheckpointFormat::Gptq));
    assert_eq!(tensors_in(&back), v1.tensors);
}

#[test]
fn what_is_in_the_format_already_keeps_every_byte_and_counts_no_conversion() {
    for format in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2, CheckpointFormat::GptqP] {
        let layers = every_kind(&[2, 3, 4, 8]);
        let source = Source::new(format, &layers, json!({}));
        let outs = TempDir::new().unwrap();
        let report = save(&source.open(), &outs.path().join("same"), &to(format));
        assert_eq!(report.zeros_converted, 0, "{format}");
        assert_eq!(tensors_in(&outs.path().join("same")), source.tensors, "{format}");
    }
}

#[test]
fn unsigned_words_stay_unsigned() {
    let layer = Layer { words: Dtype::U32, ..Layer::new("a", 4, ZeroKind::Asymmetric) };
    let source = Source::new(CheckpointFormat::Gptq, std::slice::from_ref(&layer), json!({}));
    let outs = TempDir::new().unwrap();
    save(&source.open(), &outs.path().join("v2"), &to(CheckpointFormat::GptqV2));
    assert_eq!(tensors_in(&outs.path().join("v2")), tensors(CheckpointFormat::GptqV2, &[layer]));
}

#[test]
fn unless_told_otherwise_symmetric_models_are_saved_as_gptq_and_others_as_gptq_v2() {
    let symmetric = Layer::new("a", 4, ZeroKind::Symmetric);
    let other = Layer::new("b", 4, ZeroKind::Asymmetric);
    let wide = Layer::new("c", 5, ZeroKind::Symmetric);
    use CheckpointFormat::{Gptq, GptqP, GptqV2};
    for (layers, from, expected) in [
        (vec![symmetric.clone()], Gptq, Gptq),
        (vec![symmetric.clone()], GptqV2, Gptq),
        (vec![symmetric.clone(), other.clone()], Gptq, GptqV2),
        (vec![other.clone()], GptqV2, GptqV2),
        (vec![other], GptqP, GptqP),
        (vec![symmetric, wide], GptqP, GptqP),
    ] {
        let source = Source::new(from, &layers, json!({}));
        let outs = TempDir::new().unwrap();
        let report = save(&source.open(), &outs.path().join("out"), &SaveOptions::default());
        assert_eq!(report.format, expected, "{layers:?} in {from}");
        assert_eq!(tensors_in(&outs.path().join("out")), tensors(expected, &layers));
    }
}

#[test]
fn planes_of_3_bits_are_packed_anew_and_of_2_4_and_8_kept() {
    let layers = every_kind(&[2, 3, 4, 8]);
    let outs = TempDir::new().unwrap();
    for (from, target) in [
        (CheckpointFormat::GptqP, CheckpointFormat::GptqV2),
        (CheckpointFormat::GptqP, CheckpointFormat::Gptq),
        (CheckpointFormat::Gptq, CheckpointFormat::GptqP),
        (CheckpointFormat::GptqV2, CheckpointFormat::GptqP),
    ] {
        let source = Source::new(from, &layers, json!({}));
        let out = outs.path().join(format!("{from}-{target}"));
        save(&source.open(), &out, &to(target));
        assert_eq!(tensors_in(&out), tensors(target, &layers), "{from} to {target}");
        assert_eq!(open(&out).config().format, target);
    }
}

#[test]
fn codes_of_5_6_and_7_bits_exist_only_in_planes() {
    let outs = TempDir::new().unwrap();
    for bits in 5..=7 {
        let layers =
            [Layer::new("a", 4, ZeroKind::Symmetric), Layer::new("wide", bits, ZeroKind::Asymmetric)];
        let source = Source::new(CheckpointFormat::GptqP, &layers, json!({}));
        for format in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2, CheckpointFormat::Marlin] {
            let error = source.open().save(outs.path().join("out"), &to(format)).unwrap_err();
            let names_layer = matches!(&error, Error::NotStorable { layer, format: f, .. }
                if (layer == "wide" || format == CheckpointFormat::Marlin) && *f == format);
            assert!(names_layer, "{bits} bits as {format}: {error}");
        }
        save(&source.open(), &outs.path().join(format!("{bits}")), &to(CheckpointFormat::GptqP));
        assert_eq!(tensors_in(&outs.path().join(format!("{bits}"))), source.tensors);
    }
    assert!(!outs.path().join("out").exists());
}

#[test]
fn planes_come_in_whole_blocks() {
    let layer = Layer { k: 40, group_size: 40, ..Layer::new("a", 4, ZeroKind::Symmetric) };
    let source = Source::new(CheckpointFormat::Gptq, &[layer], json!({}));
    let outs = TempDir::new().unwrap();
    let error = source.open().save(outs.path().join("out"), &to(CheckpointFormat::GptqP)).unwrap_err();
    assert!(matches!(error, Error::NotStorable { .. }), "{error}");
}

// ---- zero points of 0 ------------------------------------------------------------------------------------------

fn meta(quantizer: &str) -> Value {
    json!({"sym": false, "meta": {"quantizer": [quantizer]}})
}

#[test]
fn a_zero_point_of_0_is_refused_in_v1_and_kept_in_v2() {
    let outs = TempDir::new().unwrap();
    for bits in [2, 3, 4, 8] {
        let layers =
            [Layer::new("good", bits, ZeroKind::Symmetric), Layer::new("bad", bits, ZeroKind::WithZero)];
        for config in [json!({}), meta("gptqmodel:0.8.7"), meta("auto_gptq:0.7.1"), meta("optimum:2.3.0")] {
            let source = Source::new(CheckpointFormat::GptqV2, &layers, config);
            let error = source.open().save(outs.path().join("out"), &to(CheckpointFormat::Gptq)).unwrap_err();
            let text = error.to_string();
            for part in ["`bad`", "zero points are 0", "first in group 0, column 1,", "gptq_v2"] {
                assert!(text.contains(part), "{bits} bits: `{part}` is missing from {text}");
            }
            assert_eq!(names_in(outs.path()), [""; 0], "{bits} bits: something was left");
            let report = save(&source.open(), &outs.path().join("v2"), &to(CheckpointFormat::GptqV2));
            assert_eq!(report.zeros_converted, 0);
            std::fs::remove_dir_all(outs.path().join("v2")).unwrap();
        }
    }
}

#[test]
fn a_zero_point_of_0_is_stored_in_the_dialect_that_the_files_own_writer_has() {
    let outs = TempDir::new().unwrap();
    let layers = [2, 3, 4, 8].map(|bits| Layer::new(&format!("l{bits}"), bits, ZeroKind::WithZero));
    let source = Source::new(CheckpointFormat::GptqV2, &layers, meta("gptqmodel:7.7.0"));
    let (there, back) = (outs.path().join("v1"), outs.path().join("v2"));
    save(&source.open(), &there, &to(CheckpointFormat::Gptq));

    let (v1, v2) = (tensors_in(&there), &source.tensors);
    for (bits, ones) in [(2, 0x5555_5555u32), (4, 0x1111_1111), (8, 0x0101_0101)] {
        let name = format!("l{bits}.qzeros");
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&v2[&name].2);
        let borrowed: Vec<u32> = words.iter().map(|word| word.wrapping_sub(ones)).collect();
        assert_eq!(
            v1[&name].2,
            bytemuck::cast_slice::<u32, u8>(&borrowed),
            "{bits} bits: whole words are stepped"
        );
    }
    assert_eq!(v1["l3.qzeros"], tensors(CheckpointFormat::Gptq, &layers)["l3.qzeros"], "3 bits: fields are");
    let saved = open(&there);
    assert!(saved.zero_evidence().unwrap().dialect.is_some());

    save(&saved, &back, &to(CheckpointFormat::GptqV2));
    assert_eq!(tensors_in(&back), *v2);
}

#[test]
fn a_dialect_that_only_the_user_knows_does_not_go_into_a_file() {
    let source = Source::new(CheckpointFormat::Gptq, &[Layer::new("a", 4, ZeroKind::WithZero)], json!({}));
    let field = OpenOptions { zeros_dialect: Some(ZeroDialect::FieldWrap), ..OpenOptions::default() };
    let checkpoint = Checkpoint::open_with(source.path(), &field).unwrap();
    let outs = TempDir::new().unwrap();
    let error = checkpoint.save(outs.path().join("v1"), &to(CheckpointFormat::Gptq)).unwrap_err();
    assert!(matches!(error, Error::NotStorable { .. }), "{error}");
    save(&checkpoint, &outs.path().join("v2"), &to(CheckpointFormat::GptqV2));
    let expected = tensors(CheckpointFormat::GptqV2, &[Layer::new("a", 4, ZeroKind::WithZero)]);
    assert_eq!(tensors_in(&outs.path().join("v2")), expected);
}

#[test]
fn asymmetric_3_bits_under_an_old_gptqmodel_are_saved_as_v2_alone() {
    let layers = [Layer::new("a", 3, ZeroKind::Asymmetric), Layer::new("s", 3, ZeroKind::Symmetric)];
    let outs = TempDir::new().unwrap();
    let old = Source::new(CheckpointFormat::GptqV2, &layers, meta("gptqmodel:5.8.0"));
    let error = old.open().save(outs.path().join("v1"), &to(CheckpointFormat::Gptq)).unwrap_err();
    assert!(matches!(&error, Error::NotStorable { layer, .. } if layer == "a"), "{error}");
    save(&old.open(), &outs.path().join("v2"), &to(CheckpointFormat::GptqV2));

    let symmetric = Source::new(CheckpointFormat::GptqV2, &layers[1..], meta("gptqmodel:5.8.0"));
    save(&symmetric.open(), &outs.path().join("sym"), &to(CheckpointFormat::Gptq));
    let new = Source::new(CheckpointFormat::GptqV2, &layers, meta("gptqmodel:7.0.0"));
    save(&new.open(), &outs.path().join("new"), &to(CheckpointFormat::Gptq));
    assert_eq!(tensors_in(&outs.path().join("new")), tensors(CheckpointFormat::Gptq, &layers));
}

#[test]
fn the_3_bits_of_an_old_gptqmodel_become_ordinary_ones() {
    let layers = [Layer::new("s", 3, ZeroKind::Symmetric)];
    let mut source = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    let restored = source.tensors.clone();
    let misplaced = [0x0000_0000u32, 0xB6DB_6DB7, 0x4924_9249];
    let (_, shape, bytes) = source.tensors.get_mut("s.qzeros").unwrap();
    *bytes = bytemuck::cast_slice(&misplaced.repeat(shape[0] * shape[1] / 3)).to_vec();
    source.write_weights();
    let outs = TempDir::new().unwrap();
    let report = save(&source.open(), &outs.path().join("v1"), &SaveOptions::default());
    assert_eq!((report.format, report.zeros_converted), (CheckpointFormat::Gptq, 3 * 64));
    assert_eq!(tensors_in(&outs.path().join("v1")), restored);
}

#[test]
fn zero_points_that_look_like_the_other_format_are_refused_in_v1_and_noted_in_v2() {
    let outs = TempDir::new().unwrap();
    let nine =
        Source::new(CheckpointFormat::GptqV2, &[Layer::new("nine", 4, ZeroKind::Uniform(9))], json!({}));
    let error = nine.open().save(outs.path().join("out"), &to(CheckpointFormat::Gptq)).unwrap_err();
    assert!(matches!(&error, Error::NotStorable { layer, .. } if layer == "nine"), "{error}");

    let seven = Layer::new("seven", 4, ZeroKind::Uniform(7));
    let v1 = Source::new(CheckpointFormat::Gptq, std::slice::from_ref(&seven), json!({}));
    let report = save(&v1.open(), &outs.path().join("seven"), &to(CheckpointFormat::GptqV2));
    assert!(report.notes.iter().any(|note| note.contains("--assume-format")), "{report:?}");
    assert_eq!(tensors_in(&outs.path().join("seven")), tensors(CheckpointFormat::GptqV2, &[seven]));
}

#[test]
fn a_configuration_that_lied_tells_the_truth_when_it_is_saved() {
    let layers = [Layer::new("a", 4, ZeroKind::Symmetric)];
    let source = Source::new(CheckpointFormat::GptqV2, &layers, json!({}));
    let lie = config_of(CheckpointFormat::Gptq, &layers, json!({}));
    source.write("quantize_config.json", &lie.to_string());
    assert!(Checkpoint::open(source.path()).is_err());
    let assumed = OpenOptions { assume_format: Some(ZeroVersion::V2), ..OpenOptions::default() };
    let checkpoint = Checkpoint::open_with(source.path(), &assumed).unwrap();
    let outs = TempDir::new().unwrap();
    for format in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2] {
        let out = outs.path().join(format.name());
        save(&checkpoint, &out, &to(format));
        assert_eq!(tensors_in(&out), tensors(format, &layers));
    }
}

// ---- layers that came from no file -----------------------------------------------------------------------------

fn in_memory(source: &Source, config: &Value) -> Checkpoint {
    let config = QuantizeConfig::from_json(config, ConfigSource::file("(memory)")).unwrap();
    Checkpoint::from_layers(config, source.open().layers().to_vec())
}

#[test]
fn layers_that_an_engine_made_are_saved_with_a_configuration_of_their_own() {
    let kinds = [Groups::Absent, Groups::Trivial, Groups::Zeros, Groups::Shuffled];
    let layers: Vec<_> = kinds
        .into_iter()
        .map(|groups| Layer { groups, ..Layer::new(&format!("{groups:?}"), 4, ZeroKind::Asymmetric) })
        .collect();
    let source = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    let config = json!({"bits": 4, "group_size": 32, "sym": false});
    let outs = TempDir::new().unwrap();
    let report = save(&in_memory(&source, &config), &outs.path().join("out"), &SaveOptions::default());
    assert_eq!((report.layers, report.zeros_converted), (4, 4 * 3 * 64));
    let mut expected = tensors(CheckpointFormat::GptqV2, &layers);
    expected.retain(|name, _| layers.iter().any(|layer| name.starts_with(&format!("{}.", layer.name))));
    assert_eq!(tensors_in(&outs.path().join("out")), expected);
    assert_eq!(
        text_of(outs.path().join("out/quantize_config.json")),
        "{\n  \"bits\": 4,\n  \"group_size\": 32,\n  \"sym\": false,\n  \"format\": \"gptq_v2\",\n  \
         \"checkpoint_format\": \"gptq_v2\"\n}"
    );
}

#[test]
fn a_configuration_that_does_not_fit_a_layer_is_refused() {
    let layers = [Layer::new("a", 4, ZeroKind::Symmetric), Layer::new("b", 8, ZeroKind::Symmetric)];
    let source = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    let outs = TempDir::new().unwrap();
    for (config, layer) in [
        (json!({"bits": 4, "group_size": 32}), "b"),
        (json!({"bits": 4, "group_size": 64, "dynamic": {"b": {"bits": 8}}}), "a"),
    ] {
        let error = in_memory(&source, &config).save(outs.path().join("out"), &SaveOptions::default());
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::NotStorable { layer: l, .. } if l == layer), "{error}");
        assert!(error.to_string().contains("dynamic"), "{error}");
    }
    let twice = [source.open().layers().to_vec(), source.open().layers().to_vec()].concat();
    let config = config_of(CheckpointFormat::Gptq, &layers, json!({}));
    let config = QuantizeConfig::from_json(&config, ConfigSource::file("(memory)")).unwrap();
    let error = Checkpoint::from_layers(config, twice).save(outs.path().join("out"), &SaveOptions::default());
    assert!(matches!(error, Err(Error::NotStorable { .. })), "two layers of one name: {error:?}");
    assert_eq!(names_in(outs.path()), [""; 0]);
}

#[test]
fn zero_points_are_saved_from_whatever_encoding_they_are_in() {
    let layers = [Layer::new("a", 4, ZeroKind::Asymmetric), Layer::new("b", 3, ZeroKind::Asymmetric)];
    let source = Source::new(CheckpointFormat::Gptq, &layers, json!({}));
    let config = config_of(CheckpointFormat::Gptq, &layers, json!({}));
    let config = QuantizeConfig::from_json(&config, ConfigSource::file("(memory)")).unwrap();
    let outs = TempDir::new().unwrap();
    for (i, encoding) in [
        ZeroEncoding::V2,
        ZeroEncoding::V1(ZeroDialect::FieldWrap),
        ZeroEncoding::V1(ZeroDialect::WordBorrow),
    ]
    .into_iter()
    .enumerate()
    {
        let mut packed = source.open().layers().to_vec();
        packed.iter_mut().for_each(|layer| _ = layer.convert_zeros(encoding));
        let checkpoint = Checkpoint::from_layers(config.clone(), packed);
        for format in [CheckpointFormat::Gptq, CheckpointFormat::GptqV2] {
            let out = outs.path().join(format!("{i}-{format}"));
            save(&checkpoint, &out, &to(format));
            let qzeros = |tensors: &std::collections::BTreeMap<String, Raw>| {
                [tensors["a.qzeros"].clone(), tensors["b.qzeros"].clone()]
            };
            assert_eq!(
                qzeros(&tensors_in(&out)),
                qzeros(&tensors(format, &layers)),
                "{encoding} to {format}"
            );
        }
    }
}

#[test]
fn the_packer_of_these_tests_agrees_with_the_specification() {
    let codes: Vec<u8> = (0..32).map(|i| i % 8).collect();
    let three = gptq_core::format::Bits::THREE;
    assert_eq!(packing::pack(&codes, three, Packing::Continuous), [0x88FA_C688, 0xC688_FAC6, 0xFAC6_88FA]);
    assert_eq!(packing::pack(&codes, three, Packing::Planar), [0xE4E4_E4E4, 0xE4E4_E4E4, 0xF0F0_F0F0]);
}
