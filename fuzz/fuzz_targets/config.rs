//! The bytes of quantize_config.json, beside weights that are good.
#![no_main]

use std::sync::LazyLock;

use gptq_core::checkpoint::Reading;
use gptq_tests_hostile::{Place, Rng, exercise, valid};
use libfuzzer_sys::fuzz_target;

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let mut image = valid::plain();
    image.remove(valid::CONFIG);
    let place = Place::new();
    image.write(place.path()).expect("a directory to write into");
    place
});

fuzz_target!(|bytes: &[u8]| {
    let dir = PLACE.path();
    std::fs::write(dir.join(valid::CONFIG), bytes).expect("a file to write");
    exercise(dir, Reading::Copy, &mut Rng::new(bytes.len() as u64));
});
