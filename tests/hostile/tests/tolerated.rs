//! Odd files that are no lies: they open, and answer what the same file without the oddity answers.

#![allow(clippy::expect_used, clippy::panic, reason = "a test reports so")]

use std::fs;

use gptq_core::checkpoint::{Checkpoint, OpenOptions, Reading};
use gptq_core::format::GroupIndexKind;
use gptq_tests_hostile::valid::{self, CONFIG, LAYERS, WEIGHTS};
use gptq_tests_hostile::{Entry, Image, Outcome, Place, Rng, Tensor, assemble, exercise};
use half::f16;

/// The dense matrices of all layers.
fn dense(checkpoint: &Checkpoint) -> Vec<Vec<f32>> {
    checkpoint.layers().iter().map(gptq_core::QuantLinear::dequantize).collect()
}

fn open(place: &Place, image: &Image, reading: Reading) -> Checkpoint {
    image.write(place.path()).expect("a directory to write into");
    let options = OpenOptions { reading, ..OpenOptions::default() };
    Checkpoint::open_with(place.path(), &options).unwrap_or_else(|error| panic!("{}", error.report()))
}

/// What every layer of `image` is, read either way. It runs, too.
fn read(image: &Image) -> Vec<Vec<f32>> {
    let place = Place::new();
    let [mapped, copied] = [Reading::Map, Reading::Copy].map(|reading| dense(&open(&place, image, reading)));
    assert!(mapped == copied, "a mapped file and its copy are one file");
    assert_eq!(exercise(place.path(), Reading::Map, &mut Rng::new(1)), Outcome::Ran);
    mapped
}

#[test]
fn tensors_that_stand_at_odd_bytes_are_read_as_if_they_did_not() {
    for bytes in [1, 2, 3, 5] {
        let (plain, mut odd) = (valid::dynamic(), valid::dynamic());
        let first = Tensor { name: "odd".into(), dtype: "U8", shape: vec![bytes], data: vec![9; bytes] };
        odd.weights(WEIGHTS).tensors.insert(0, first);
        assert!(read(&odd) == read(&plain), "{bytes} bytes before the first tensor change no weight");
    }
}

#[test]
fn a_header_of_odd_length_is_read_as_if_it_were_padded() {
    let mut odd = valid::plain();
    let (header, data) = odd.lie(WEIGHTS);
    let mut text = format!("  \n{header}\t ");
    if text.len().is_multiple_of(2) {
        text.push(' ');
    }
    let bytes = assemble(text.as_bytes(), data);
    odd.set_raw(WEIGHTS, bytes);
    assert!(read(&odd) == read(&valid::plain()));
}

#[test]
fn words_without_a_sign_are_the_words_with_one() {
    let mut unsigned = valid::act_order();
    for tensor in &mut unsigned.weights(WEIGHTS).tensors {
        if tensor.dtype == "I32" {
            tensor.dtype = "U32";
        }
    }
    assert!(read(&unsigned) == read(&valid::act_order()));
}

#[test]
fn a_g_idx_without_an_element_is_none() {
    let mut image = valid::plain();
    image.weights(WEIGHTS).tensor(&format!("{}.g_idx", LAYERS[0])).resize(0, 0);
    let checkpoint = open(&Place::new(), &image, Reading::Map);
    assert_eq!(checkpoint.layers()[0].info().g_idx, GroupIndexKind::Absent);
    assert!(read(&image) == read(&valid::plain()));
}

/// Seven rows of 4 bits take a word as eight do, and nothing else in the file tells how many rows there are.
#[test]
fn a_g_idx_that_is_short_by_less_than_a_word_is_believed() {
    let mut image = valid::plain();
    image.weights(WEIGHTS).tensor(&format!("{}.g_idx", LAYERS[0])).resize(0, 63);
    assert_eq!(open(&Place::new(), &image, Reading::Map).layers()[0].in_features(), 63);
}

#[test]
fn scales_that_are_no_numbers_are_told_and_stay_in_their_column() {
    let mut image = valid::plain();
    let scales = image.weights(WEIGHTS).tensor(&format!("{}.scales", LAYERS[0]));
    for (column, scale) in [(3, f16::NAN), (7, f16::INFINITY), (8, f16::NEG_INFINITY)] {
        scales.data[column * 2..][..2].copy_from_slice(&scale.to_le_bytes());
    }
    let checkpoint = open(&Place::new(), &image, Reading::Map);
    let told = checkpoint.findings().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains(&format!("{}: 3 of 64 scales are infinite or not a number", LAYERS[0])), "{told}");
    for (broken, sound) in read_columns(&image).zip(read_columns(&valid::plain())) {
        let ((column, broken), (_, sound)) = (broken, sound);
        match column {
            3 | 7 | 8 => assert!(broken.iter().any(|weight| !weight.is_finite())),
            _ => assert!(broken == sound, "column {column}"),
        }
    }
}

/// The columns of the first layer.
fn read_columns(image: &Image) -> impl Iterator<Item = (usize, Vec<f32>)> {
    let checkpoint = open(&Place::new(), image, Reading::Map);
    let layer = &checkpoint.layers()[0];
    let (n, dense) = (layer.out_features(), layer.dequantize());
    (0..n).map(move |column| (column, dense.iter().skip(column).step_by(n).copied().collect()))
}

#[test]
fn pieces_of_a_layer_without_codes_are_told() {
    let mut image = valid::plain();
    image.weights(WEIGHTS).remove(&format!("{}.qweight", LAYERS[0]));
    let checkpoint = open(&Place::new(), &image, Reading::Map);
    let told = checkpoint.findings().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(told.contains(&format!("{}: it has qzeros and no qweight", LAYERS[0])), "{told}");
}

#[test]
fn what_was_copied_stays_what_it_was_when_the_files_are_cut_and_removed() {
    let place = Place::new();
    let checkpoint = open(&place, &valid::plain(), Reading::Copy);
    let before = dense(&checkpoint);
    let file = fs::File::options().write(true).open(place.path().join(WEIGHTS)).expect("the file");
    file.set_len(10).expect("to cut it short");
    assert!(dense(&checkpoint) == before);
    Image::default().write(place.path()).expect("to remove all files");
    assert!(dense(&checkpoint) == before);
}

#[cfg(unix)]
#[test]
fn what_was_mapped_stays_what_it_was_when_the_files_are_removed_and_replaced() {
    let place = Place::new();
    let checkpoint = open(&place, &valid::plain(), Reading::Map);
    let before = dense(&checkpoint);
    let mut other = valid::plain();
    other.entries.insert(WEIGHTS.into(), Entry::Raw(vec![0; 10]));
    other.remove(CONFIG);
    other.write(place.path()).expect("a directory to write into");
    assert!(dense(&checkpoint) == before, "the mapping holds the old file, not the name");
}
