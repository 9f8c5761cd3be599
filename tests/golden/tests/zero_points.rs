//! Zero points at the edge of their range: GPTQModel's arithmetic, and every dialect of v1.

#![allow(clippy::expect_used, clippy::panic, reason = "what fails here fails the test")]

use gptq_core::Error;
use gptq_core::checkpoint::{Checkpoint, OpenOptions, SettledBy, ZeroVersion};
use gptq_core::format::{Bits, Packing, ZeroDialect, ZeroEncoding, ZeroPoints};
use gptq_core::tensor::DType;
use gptq_tests_golden::files::{CheckpointDir, Tensor, by, quantize_config};
use gptq_tests_golden::golden::Golden;
use gptq_tests_golden::layer::{LayerValues, StoredZeros};
use gptq_tests_golden::run::{bits, finalize, open, open_with};
use serde_json::Value;

const FIELD: ZeroEncoding = ZeroEncoding::V1(ZeroDialect::FieldWrap);
const WORD: ZeroEncoding = ZeroEncoding::V1(ZeroDialect::WordBorrow);

const NAME: &str = "layers.0.proj";

// ---- GPTQModel's arithmetic ----------------------------------------------------------------------------------

fn zeros(golden: &Golden, tensor: &str, bits: usize, encoding: ZeroEncoding) -> ZeroPoints {
    let words = golden.words(tensor).unwrap_or_else(|| panic!("`{tensor}` is missing"));
    let [groups, width] = words.shape[..] else { panic!("{tensor}: {:?}", words.shape) };
    let width_of_code = Bits::new(bits as u64).expect("2 to 8");
    ZeroPoints::new(
        words.data.into(),
        groups,
        width * 32 / bits,
        width_of_code,
        Packing::Continuous,
        encoding,
    )
    .unwrap_or_else(|| panic!("{tensor} are no zero points"))
}

fn words(golden: &Golden, tensor: &str) -> Vec<u32> {
    golden.words(tensor).unwrap_or_else(|| panic!("`{tensor}` is missing")).data
}

/// The zero points of the only group.
fn unpacked(zeros: &ZeroPoints) -> Vec<u8> {
    let mut row = vec![0; zeros.columns()];
    zeros.unpack_group(0, 0..zeros.columns(), &mut row);
    row
}

#[test]
fn word_borrow_is_the_arithmetic_of_gptqmodel_bit_for_bit() {
    let golden = Golden::open("v1_v2_overflow");
    for bits in [2, 3, 4, 8] {
        let tensor = |part: &str| format!("b{bits}.{part}");
        let stored = zeros(&golden, &tensor("qzeros_v1"), bits, WORD);
        let decoded: Vec<u32> = unpacked(&stored).into_iter().map(u32::from).collect();
        assert_eq!(
            decoded,
            words(&golden, &tensor("decoded_v2_peer")),
            "b{bits}: zero points of a v1 file, read in place"
        );

        let mut converted = stored.clone();
        converted.convert(ZeroEncoding::V2);
        assert_eq!(converted.words(), words(&golden, &tensor("qzeros_v2_peer")), "b{bits}: v1 to v2");
        converted.convert(WORD);
        assert_eq!(converted.words(), stored.words(), "b{bits}: v1 to v2 and back");

        let mut exported = zeros(&golden, &tensor("rt_v2"), bits, ZeroEncoding::V2);
        exported.convert(WORD);
        assert_eq!(exported.words(), words(&golden, &tensor("rt_v1_peer")), "b{bits}: v2 to v1");
        exported.convert(ZeroEncoding::V2);
        assert_eq!(exported.words(), words(&golden, &tensor("rt_v2_peer")), "b{bits}: v2 to v1 and back");
    }
}

#[test]
fn field_wrap_reads_other_zero_points_where_words_are_whole_fields() {
    let golden = Golden::open("v1_v2_overflow");
    for bits in [2, 3, 4, 8] {
        let by_word = zeros(&golden, &format!("b{bits}.qzeros_v1"), bits, WORD);
        let by_field = zeros(&golden, &format!("b{bits}.qzeros_v1"), bits, FIELD);
        assert_eq!(unpacked(&by_word) == unpacked(&by_field), bits == 3, "b{bits}");
    }
}

#[test]
fn the_word_that_borrowed_in_a_real_model_comes_back() {
    let golden = Golden::open("v1_v2_underflow_real");
    let tensor = |version| format!("model.layers.3.self_attn.q_proj.qzeros.{version}");
    let mut converted = zeros(&golden, &tensor("v1"), 2, WORD);
    assert_eq!(converted.zero(1, 17), 0, "the zero point of 0");
    assert_eq!([converted.zero(1, 18), converted.zero(1, 19)], [1, 2], "those that it borrowed from");
    converted.convert(ZeroEncoding::V2);
    assert_eq!(converted.words(), words(&golden, &tensor("v2")), "v1 to v2");
    converted.convert(WORD);
    assert_eq!(converted.words(), words(&golden, &tensor("v1")), "and back");
}

/// A checkpoint of the overflow golden's tensors, with scales of 1.
fn overflow_checkpoint(golden: &Golden, bits: usize, quantizer: Option<&str>) -> CheckpointDir {
    let part = |from: &str, to: &str| {
        let tensor =
            golden.words(&format!("b{bits}.{from}")).unwrap_or_else(|| panic!("`b{bits}.{from}` is missing"));
        Tensor::words(format!("{NAME}.{to}"), &tensor.shape, &tensor.data)
    };
    let scales = Tensor::floats(format!("{NAME}.scales"), &[1, 32], &[1.0; 32], DType::F16);
    let tensors = [part("qweight", "qweight"), part("qzeros_v1", "qzeros"), scales];
    CheckpointDir::new(&config(bits, quantizer), &tensors)
}

/// Asymmetric, stored as v1.
fn config(bits: usize, quantizer: Option<&str>) -> Value {
    let config = quantize_config(bits, -1, false, "gptq");
    match quantizer {
        Some(quantizer) => by(config, quantizer),
        None => config,
    }
}

fn dialect(dialect: ZeroDialect) -> OpenOptions {
    OpenOptions { zeros_dialect: Some(dialect), ..OpenOptions::default() }
}

#[test]
fn saturated_zeros_of_gptqmodel_dequantize_as_gptqmodel_does() {
    let golden = Golden::open("v1_v2_overflow");
    for width in [2, 3, 4, 8] {
        let expected = golden.f32(&format!("b{width}.w_peer")).expect("a dense matrix").data;
        let dir = overflow_checkpoint(&golden, width, Some("gptqmodel:7.7.0"));
        let dense = open(dir.path()).layer(NAME).expect("the layer").dequantize();
        assert!(bits(&dense) == bits(&expected), "b{width}: as it is opened");
        let dense = finalize(open(dir.path())).dequantize(NAME).expect("the layer");
        assert!(bits(&dense) == bits(&expected), "b{width}: finalized");
    }
}

#[test]
fn saturated_zeros_of_an_unknown_writer_are_refused_until_the_dialect_is_said() {
    let golden = Golden::open("v1_v2_overflow");
    for width in [2, 4, 8] {
        let expected = golden.f32(&format!("b{width}.w_peer")).expect("a dense matrix").data;
        for quantizer in [None, Some("auto_gptq:0.7.1"), Some("gptqmodel:0.8.9"), Some("unheard-of:1.0")] {
            let dir = overflow_checkpoint(&golden, width, quantizer);
            match Checkpoint::open(dir.path()) {
                Err(Error::ZeroDialectUnknown { layer, words, row: 0, column: 0, .. }) => {
                    assert_eq!((layer.as_str(), words), (NAME, 2), "b{width}, {quantizer:?}");
                }
                other => {
                    panic!("b{width}, {quantizer:?}: expected to be asked for the dialect, got {other:?}")
                }
            }
            let by_word = open_with(dir.path(), &dialect(ZeroDialect::WordBorrow));
            let dense = by_word.layer(NAME).expect("the layer").dequantize();
            assert!(bits(&dense) == bits(&expected), "b{width}, {quantizer:?}: read per word");
            let by_field = open_with(dir.path(), &dialect(ZeroDialect::FieldWrap));
            let zeros = by_field.layer(NAME).expect("the layer").zeros().clone();
            let symmetric = 1 << (width - 1);
            assert_eq!(
                [zeros.zero(0, 0), zeros.zero(0, 1)],
                [0, symmetric],
                "b{width}, {quantizer:?}: per field"
            );
        }
    }
}

#[test]
fn readable_dialects_agree_at_three_bits_and_nobody_is_asked() {
    let golden = Golden::open("v1_v2_overflow");
    let expected = golden.f32("b3.w_peer").expect("a dense matrix").data;
    let dir = overflow_checkpoint(&golden, 3, None);
    let dense = open(dir.path()).layer(NAME).expect("the layer").dequantize();
    assert!(bits(&dense) == bits(&expected), "b3");
}

/// The tensors of a 3-bit layer as GPTQModel before version 7 stored them: a constant taken from each word of v2, whose
/// ones are not in the fields.
fn tensors_before_version_7(layer: &LayerValues) -> Vec<Tensor> {
    let mut tensors = layer.tensors(StoredZeros::V2);
    let qzeros = tensors.iter_mut().find(|tensor| tensor.name.ends_with(".qzeros")).expect("a layer has it");
    assert!(qzeros.shape[1].is_multiple_of(3), "whole blocks: {:?}", qzeros.shape);
    let constants = [0x2492_4924_u32, 0x9249_2492, 0x4924_9249];
    for (word, constant) in qzeros.bytes.chunks_exact_mut(4).zip(constants.into_iter().cycle()) {
        let stored = u32::from_le_bytes(word.try_into().expect("4 bytes")).wrapping_sub(constant);
        word.copy_from_slice(&stored.to_le_bytes());
    }
    tensors
}

#[test]
fn three_bits_of_an_old_gptqmodel_are_restored_whatever_dialect_is_said() {
    let symmetric = LayerValues::random(NAME, 3, [64, 96], 32, 7).symmetric();
    let asymmetric = LayerValues::random(NAME, 3, [64, 96], 32, 8);
    for (layer, sym, quantizer) in [
        (&symmetric, true, None),
        (&symmetric, true, Some("gptqmodel:5.8.0")),
        (&asymmetric, false, Some("gptqmodel:5.8.0")),
    ] {
        let mut config = config(3, quantizer);
        config["group_size"] = layer.group_rows.into();
        config["sym"] = sym.into();
        let dir = CheckpointDir::new(&config, &tensors_before_version_7(layer));
        for said in [None, Some(ZeroDialect::FieldWrap), Some(ZeroDialect::WordBorrow)] {
            let case = format!("sym {sym}, by {quantizer:?}, {said:?} said");
            let options = OpenOptions { zeros_dialect: said, ..OpenOptions::default() };
            let checkpoint = open_with(dir.path(), &options);
            assert_reads_as(layer, &checkpoint, &case);
            let evidence = checkpoint.zero_evidence().expect("it was read from files");
            assert_eq!(evidence.restored_three_bits, 1, "{case}: {evidence:?}");
        }
    }
}

// ---- every dialect, by logical values ------------------------------------------------------------------------

/// A layer with a zero point of 0 in every position of a word, and neighbours of all sorts.
fn with_zeros_of_0(bits: usize) -> LayerValues {
    let mut layer = LayerValues::random(NAME, bits, [64, 96], 32, 3);
    for (column, zero) in layer.zeros.iter_mut().enumerate() {
        if column % 9 == 0 {
            *zero = 0;
        }
    }
    layer
}

fn stored(layer: &LayerValues, zeros: StoredZeros, quantizer: Option<&str>) -> CheckpointDir {
    let mut config = config(layer.bits, quantizer);
    config["group_size"] = layer.group_rows.into();
    CheckpointDir::new(&config, &layer.tensors(zeros))
}

fn assert_reads_as(layer: &LayerValues, checkpoint: &Checkpoint, case: &str) {
    let dense = checkpoint.layer(NAME).unwrap_or_else(|error| panic!("{case}: {error}")).dequantize();
    assert!(bits(&dense) == bits(&layer.dense()), "{case}: as it is opened");
    let dense =
        finalize(checkpoint.clone()).dequantize(NAME).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(bits(&dense) == bits(&layer.dense()), "{case}: finalized");
}

#[test]
fn each_dialect_gives_the_logical_values_back() {
    for width in [2, 3, 4, 8] {
        let layer = with_zeros_of_0(width);
        let case = |dialect: &str| format!("{dialect} at {width} bits");

        let dir = stored(&layer, StoredZeros::WordBorrow, Some("gptqmodel:7.7.0"));
        assert_reads_as(&layer, &open(dir.path()), &case("per word, by gptqmodel"));
        let dir = stored(&layer, StoredZeros::WordBorrow, None);
        assert_reads_as(
            &layer,
            &open_with(dir.path(), &dialect(ZeroDialect::WordBorrow)),
            &case("per word, as said"),
        );
        let dir = stored(&layer, StoredZeros::FieldWrap, None);
        assert_reads_as(
            &layer,
            &open_with(dir.path(), &dialect(ZeroDialect::FieldWrap)),
            &case("per field, as said"),
        );
    }
}

#[test]
fn a_lone_zero_of_0_at_the_top_of_a_word_needs_no_dialect() {
    let mut layer = LayerValues::random(NAME, 4, [64, 32], 32, 5);
    layer.zeros[7] = 0;
    for how in [StoredZeros::FieldWrap, StoredZeros::WordBorrow, StoredZeros::Flooded] {
        let dir = stored(&layer, how, None);
        assert_reads_as(&layer, &open(dir.path()), &format!("{how:?}"));
    }
}

#[test]
fn zeros_that_autogptq_destroyed_are_refused_until_the_loss_is_accepted() {
    for width in [2, 4, 8] {
        let layer = with_zeros_of_0(width);
        for quantizer in [None, Some("auto_gptq:0.7.1")] {
            let dir = stored(&layer, StoredZeros::Flooded, quantizer);
            match Checkpoint::open(dir.path()) {
                Err(error @ Error::ZerosDestroyed { .. }) => {
                    let text = error.to_string();
                    assert!(text.contains(NAME) && text.contains("--zeros-dialect"), "{width} bits: {text}");
                }
                other => panic!("{width} bits, {quantizer:?}: expected a refusal, got {other:?}"),
            }
            let accepted = open_with(dir.path(), &dialect(ZeroDialect::FieldWrap));
            assert_eq!(
                accepted.layer(NAME).expect("the layer").zeros().zero(0, 0),
                0,
                "{width} bits: the first is right"
            );
        }
    }
}

// ---- v1 or v2 ------------------------------------------------------------------------------------------------

/// Two symmetric layers, and x for the first.
fn symmetric_layers() -> [LayerValues; 2] {
    [
        LayerValues::random(NAME, 4, [64, 64], 32, 11).symmetric(),
        LayerValues::random("layers.1.proj", 4, [64, 32], 32, 12).symmetric(),
    ]
}

fn tensors(layers: &[LayerValues], stored: StoredZeros) -> Vec<Tensor> {
    layers.iter().flat_map(|layer| layer.tensors(stored)).collect()
}

#[test]
fn two_configurations_that_disagree_are_settled_by_symmetric_data_with_a_warning() {
    let layers = symmetric_layers();
    for (how, version) in [(StoredZeros::FieldWrap, ZeroVersion::V1), (StoredZeros::V2, ZeroVersion::V2)] {
        let dir = CheckpointDir::new(&quantize_config(4, 32, true, "gptq"), &tensors(&layers, how));
        // What optimum 2.3.0 writes for a symmetric model.
        let config = serde_json::json!({"quantization_config": quantize_config(4, 32, true, "gptq_v2")});
        dir.json("config.json", &config);
        let checkpoint = open(dir.path());
        let evidence = checkpoint.zero_evidence().expect("it was read from files");
        assert_eq!(evidence.read_as, version, "{how:?}: {evidence:?}");
        assert_eq!(evidence.settled_by, SettledBy::Data, "{how:?}: {evidence:?}");
        let findings: Vec<_> = checkpoint.findings().iter().map(ToString::to_string).collect();
        let names_both = |text: &&String| {
            text.starts_with("warning")
                && text.contains("quantize_config.json")
                && text.contains(" config.json")
        };
        assert!(findings.iter().any(|text| names_both(&text)), "{how:?}: {findings:?}");
        assert_reads_as(&layers[0], &checkpoint, &format!("{how:?}"));
    }
}

#[test]
fn two_configurations_that_disagree_over_asymmetric_data_are_an_error() {
    let layer = LayerValues::random(NAME, 4, [64, 64], 32, 13);
    let dir = CheckpointDir::new(&quantize_config(4, 32, false, "gptq"), &layer.tensors(StoredZeros::V2));
    dir.json(
        "config.json",
        &serde_json::json!({"quantization_config": quantize_config(4, 32, false, "gptq_v2")}),
    );
    let result = Checkpoint::open(dir.path());
    assert!(matches!(result, Err(Error::ZeroEncodingUnsettled { .. })), "got {result:?}");
    let options = OpenOptions { assume_format: Some(ZeroVersion::V2), ..OpenOptions::default() };
    assert_reads_as(&layer, &open_with(dir.path(), &options), "as said");
}

#[test]
fn data_that_contradicts_every_configuration_is_an_error_with_the_evidence() {
    let layers = symmetric_layers();
    for (format, how, said, seen) in [
        ("gptq", StoredZeros::V2, ZeroVersion::V2, "2 store 2^(bits-1) throughout"),
        ("gptq_v2", StoredZeros::FieldWrap, ZeroVersion::V1, "2 layers store 2^(bits-1)-1 throughout"),
    ] {
        let dir = CheckpointDir::new(&quantize_config(4, 32, true, format), &tensors(&layers, how));
        match Checkpoint::open(dir.path()) {
            Err(error @ Error::ZeroEncodingContradiction { .. }) => {
                let text = error.to_string();
                assert!(text.contains(seen) && text.contains("--assume-format"), "{format}: {text}");
            }
            other => panic!("{format} with {how:?}: expected a contradiction, got {other:?}"),
        }
        let options = OpenOptions { assume_format: Some(said), ..OpenOptions::default() };
        assert_reads_as(
            &layers[0],
            &open_with(dir.path(), &options),
            &format!("{format} with {how:?}, as said"),
        );
    }
}

// ---- sym -----------------------------------------------------------------------------------------------------

/// What is said of symmetry when a layer is opened under `sym: true`.
fn said_of_symmetry(layer: &LayerValues, tensors: &[Tensor]) -> Vec<String> {
    let mut config = quantize_config(layer.bits, -1, true, "gptq");
    config["group_size"] = layer.group_rows.into();
    let dir = CheckpointDir::new(&config, tensors);
    let checkpoint = open(dir.path());
    assert_reads_as(layer, &checkpoint, "under sym: true");
    let findings = checkpoint.findings().iter().map(ToString::to_string);
    findings.filter(|text| text.contains("sym is true")).collect()
}

#[test]
fn a_layer_that_is_not_as_symmetric_as_the_configuration_says_is_told() {
    let mut six = LayerValues::random(NAME, 4, [64, 64], 32, 21);
    six.zeros.fill(6);
    let said = said_of_symmetry(&six, &six.tensors(StoredZeros::FieldWrap));
    assert!(
        matches!(&said[..], [text] if text.contains(NAME) && text.contains("all 6 and not 8")),
        "{said:?}"
    );

    let mixed = LayerValues::random(NAME, 4, [64, 64], 32, 22);
    let said = said_of_symmetry(&mixed, &mixed.tensors(StoredZeros::FieldWrap));
    assert!(matches!(&said[..], [text] if text.contains(NAME) && text.contains("not all equal")), "{said:?}");
}

#[test]
fn of_symmetric_layers_nothing_is_said_also_where_they_had_to_be_restored() {
    let four = LayerValues::random(NAME, 4, [64, 64], 32, 23).symmetric();
    assert_eq!(said_of_symmetry(&four, &four.tensors(StoredZeros::FieldWrap)), [""; 0]);
    let three = LayerValues::random(NAME, 3, [64, 96], 32, 24).symmetric();
    assert_eq!(said_of_symmetry(&three, &tensors_before_version_7(&three)), [""; 0]);
}
