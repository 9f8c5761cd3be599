//! The bytes of one safetensors file, beside a configuration that is good.
#![no_main]

use std::sync::LazyLock;

use gptq_core::checkpoint::Reading;
use gptq_tests_hostile::{Place, Rng, exercise, valid};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let mut image = valid::plain();
    image.remove(valid::WEIGHTS);
    let place = Place::new();
    image.write(place.path()).expect("a directory to write into");
    place
});

fuzz_target!(|bytes: &[u8]| {
    let dir = PLACE.path();
    std::fs::write(dir.join(valid::WEIGHTS), bytes).expect("a file to write");
    // Read into memory, where the address sanitizer sees its ends.
    exercise(dir, Reading::Copy, &mut Rng::new(bytes.len() as u64));
});

// Most changes of length leave the first eight bytes, the header's length, wrong, and are refused at once. Half of
// the mutations mend it.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed.is_multiple_of(2) {
        mend_length(&mut data[..size]);
    }
    size
});

/// Writes the length of the JSON text that begins at byte 8 into the first eight bytes.
fn mend_length(file: &mut [u8]) {
    let Some((length, text)) = file.split_first_chunk_mut::<8>() else { return };
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    *length = (at as u64 + 1).to_le_bytes();
                    return;
                }
            }
            _ => {}
        }
    }
}
