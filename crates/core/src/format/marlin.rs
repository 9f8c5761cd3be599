//! The order in which files of Marlin's format hold codes and scales.
//!
//! Such a file was written for one kernel: codes of W `[K, N]` stand in `B [K / 16, N · bits / 2]` as tensor cores take
//! them, in tiles of 16 rows and 64 columns, and scales `[G, N]` in the order in which its threads read them. Nothing is
//! lost: this module says where everything stands, and moves it from there to the order of GPTQ files and back. Zero
//! points are not stored; all are `2^(bits − 1)`. The order is that of IST's Marlin, which the repacking of GPTQModel and
//! vLLM makes too.
//!
//! For 4 and 8 bits; K is a multiple of [`ROWS`], N of [`COLUMNS`].

use std::num::NonZeroUsize;
use std::thread;

use bytemuck::Pod;

use super::{Bits, Packing, packing};

/// Rows of W that a row of `B` holds.
pub const ROWS: usize = 16;
/// Columns of W after which the order of a row of `B` begins again.
pub const COLUMNS: usize = 64;

/// Whether the format holds codes of this width.
pub const fn allows(bits: Bits) -> bool {
    matches!(bits.get(), 4 | 8)
}

/// Words of a row of `B`: `N · bits / 2`.
pub const fn words_of_row(bits: Bits, n: usize) -> usize {
    ROWS * n / 32 * bits.get()
}

/// The row, 0 to 15, and the column of W whose code is the field `field` (lowest first) of word `word` of a row of `B`.
pub const fn place(bits: Bits, word: usize, field: usize) -> [usize; 2] {
    // A thread of a tensor core's operand has two neighbouring rows of a column, and the same 8 rows on.
    const ROWS_OF_FIELDS: [[usize; 8]; 2] = [[0, 8, 0, 8, 1, 9, 1, 9], [0, 8, 1, 9, 0, 8, 1, 9]];
    const COLUMNS_OF_FIELDS: [usize; 8] = [0, 0, 8, 8, 0, 0, 8, 8];
    let words = words_of_row(bits, COLUMNS);
    let (run, word) = (word / words, word % words);
    let (thread, block, row, column) = if bits.get() == 4 {
        (word / 4, word % 4, ROWS_OF_FIELDS[0][field % 8], COLUMNS_OF_FIELDS[field % 8])
    } else {
        (word / 8, word / 2 % 4, ROWS_OF_FIELDS[1][field % 4], word % 2 * 8)
    };
    [2 * (thread % 4) + row, run * COLUMNS + 16 * block + thread / 4 + column]
}

/// A field of a word of `B`, and where its code stands in the same 16 rows of `qweight`.
#[derive(Clone, Copy)]
struct Move {
    word: u16,
    shift: u8,
    to_shift: u8,
    to_row: u8,
    to_column: u8,
}

/// All fields of one run of [`COLUMNS`] columns.
fn moves(bits: Bits) -> Vec<Move> {
    let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    let (words, fields) = (words_of_row(bits, COLUMNS), 32 / bits.get());
    let all = (0..words).flat_map(|word| (0..fields).map(move |field| (word, field)));
    let moves = all.map(|(word, field)| {
        let [row, column] = place(bits, word, field);
        Move {
            word: u16::try_from(word).unwrap_or(u16::MAX),
            shift: byte(field * bits.get()),
            to_shift: byte(row % fields * bits.get()),
            to_row: byte(row / fields),
            to_column: byte(column),
        }
    });
    moves.collect()
}

/// `qweight [K · bits / 32, N]`, as GPTQ files hold it, from `b [K / 16, N · bits / 2]`.
///
/// # Panics
/// If `bits` or `n` are none that the format has, or `b` has no whole number of rows.
pub fn to_qweight(b: &[u32], n: usize, bits: Bits) -> Vec<u32> {
    let moves = moves(bits);
    by_rows(b, n, bits, |from, to| {
        for (run, words) in from.chunks_exact(words_of_row(bits, COLUMNS)).enumerate() {
            for step in &moves {
                let code = words[usize::from(step.word)] >> step.shift & bits.max_code();
                let at = usize::from(step.to_row) * n + run * COLUMNS + usize::from(step.to_column);
                to[at] |= code << step.to_shift;
            }
        }
    })
}

/// `B [K / 16, N · bits / 2]` from `qweight [K · bits / 32, N]`, as GPTQ files hold it: the inverse of [`to_qweight`].
///
/// # Panics
/// As [`to_qweight`].
pub fn from_qweight(qweight: &[u32], n: usize, bits: Bits) -> Vec<u32> {
    let moves = moves(bits);
    by_rows(qweight, n, bits, |from, to| {
        for (run, words) in to.chunks_exact_mut(words_of_row(bits, COLUMNS)).enumerate() {
            for step in &moves {
                let at = usize::from(step.to_row) * n + run * COLUMNS + usize::from(step.to_column);
                let code = from[at] >> step.to_shift & bits.max_code();
                words[usize::from(step.word)] |= code << step.shift;
            }
        }
    })
}

/// Makes the words of 16 rows of W from those of the same rows in the other order, which are as many. On as many threads as
/// there are processors.
fn by_rows(from: &[u32], n: usize, bits: Bits, one: impl Fn(&[u32], &mut [u32]) + Sync) -> Vec<u32> {
    /// Rows that are worth a thread.
    const LEAST_WORDS: usize = 1 << 18;
    let words = words_of_row(bits, n);
    assert!(allows(bits), "the format has no codes of {bits} bits");
    assert!(n.is_multiple_of(COLUMNS) && n > 0, "N is {n}, and the format has multiples of {COLUMNS}");
    assert!(from.len().is_multiple_of(words), "{} words are no whole number of rows", from.len());
    let mut to = vec![0; from.len()];
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let share = (from.len() / words).div_ceil(threads).max(LEAST_WORDS.div_ceil(words)) * words;
    let run = |(from, to): (&[u32], &mut [u32])| {
        for (from, to) in from.chunks_exact(words).zip(to.chunks_exact_mut(words)) {
            one(from, to);
        }
    };
    thread::scope(|scope| {
        let mut shares = from.chunks(share).zip(to.chunks_mut(share));
        let own = shares.next();
        for other in shares {
            scope.spawn(move || run(other));
        }
        own.map(run);
    });
    to
}

/// For each place of a run of scales, which column stands there. With one group the runs are shorter, and otherwise
/// ordered.
fn scale_order(groups: usize) -> &'static [usize] {
    const fn of_groups() -> [usize; 64] {
        let mut order = [0; 64];
        let mut at = 0;
        while at < 64 {
            order[at] = at / 8 + at % 8 * 8;
            at += 1;
        }
        order
    }
    const fn of_columns() -> [usize; 32] {
        const OF_EIGHT: [usize; 8] = [0, 1, 8, 9, 16, 17, 24, 25];
        let mut order = [0; 32];
        let mut at = 0;
        while at < 32 {
            order[at] = at / 8 * 2 + OF_EIGHT[at % 8];
            at += 1;
        }
        order
    }
    const OF_GROUPS: [usize; 64] = of_groups();
    const OF_COLUMNS: [usize; 32] = of_columns();
    if groups == 1 { &OF_COLUMNS } else { &OF_GROUPS }
}

/// Scales `[G, N]`, as GPTQ files hold them, from those of a file of Marlin's format.
pub fn to_scales<T: Pod>(s: &[T], groups: usize) -> Vec<T> {
    let order = scale_order(groups);
    let mut scales = s.to_vec();
    for (run, from) in scales.chunks_mut(order.len()).zip(s.chunks(order.len())) {
        for (&column, &scale) in order.iter().zip(from) {
            if let Some(to) = run.get_mut(column) {
                *to = scale;
            }
        }
    }
    scales
}

/// Scales in the order of Marlin's format from `[G, N]`, as GPTQ files hold them: the inverse of [`to_scales`].
pub fn from_scales<T: Pod>(scales: &[T], groups: usize) -> Vec<T> {
    let order = scale_order(groups);
    scales
        .chunks(order.len())
        .flat_map(|run| order.iter().filter_map(|&column| run.get(column).copied()))
        .collect()
}

/// The zero points that no such file stores, `[G, N · bits / 32]` packed and direct: all are `2^(bits − 1)`.
pub fn zeros(groups: usize, n: usize, bits: Bits) -> Vec<u32> {
    let one = u8::try_from(bits.symmetric_zero()).unwrap_or(u8::MAX);
    packing::pack(&vec![one; n], bits, Packing::Continuous).repeat(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [Bits; 2] = [Bits::FOUR, Bits::EIGHT];

    #[test]
    fn every_code_of_a_run_has_a_field_of_its_own() {
        for bits in WIDTHS {
            let mut seen = [[false; COLUMNS]; ROWS];
            for word in 0..words_of_row(bits, COLUMNS) {
                for field in 0..32 / bits.get() {
                    let [row, column] = place(bits, word, field);
                    assert!(!seen[row][column], "{bits} bits: row {row}, column {column} twice");
                    seen[row][column] = true;
                }
            }
            assert!(seen.iter().flatten().all(|&seen| seen), "{bits} bits: codes without a field");
        }
    }

    /// The example of docs/formats.md.
    #[test]
    fn words_of_a_small_matrix_are_those_of_the_specification() {
        let (k, n) = (16, 64);
        let b = |code: fn(usize, usize) -> u8| {
            let codes: Vec<u8> = (0..k * n).map(|at| code(at / n, at % n)).collect();
            let qweight = packing::pack_matrix(&codes, k, n, Bits::FOUR, Packing::Continuous);
            from_qweight(&qweight, n, Bits::FOUR)[..8].to_vec()
        };
        assert_eq!(b(|k, _| u8::try_from(k).unwrap()), [[0x9191_8080; 4], [0xB3B3_A2A2; 4]].concat());
        assert_eq!(b(|_, n| u8::try_from(n % 16).unwrap()), [0x8800_8800; 8]);
    }

    #[test]
    fn what_goes_there_and_back_is_the_same() {
        for bits in WIDTHS {
            for (k, n) in [(16, 64), (48, 192), (4096, 1024)] {
                let words = k * bits.get() / 32 * n;
                let qweight: Vec<u32> =
                    (0u32..).map(|i| i.wrapping_mul(0x9E37_79B9) ^ i).take(words).collect();
                let b = from_qweight(&qweight, n, bits);
                assert!(b != qweight, "{bits} bits, {k} x {n}: nothing moved");
                assert!(to_qweight(&b, n, bits) == qweight, "{bits} bits, {k} x {n}: words differ");
            }
        }
        for (groups, n) in [(1, 64), (3, 128), (1, 192)] {
            let scales: Vec<u16> = (0u16..).take(groups * n).collect();
            let s = from_scales(&scales, groups);
            assert_ne!(s, scales, "{groups} groups, N = {n}: nothing moved");
            assert_eq!(to_scales(&s, groups), scales, "{groups} groups, N = {n}");
        }
    }

    #[test]
    fn zero_points_are_those_of_symmetric_layers() {
        assert_eq!(zeros(2, 64, Bits::FOUR), [0x8888_8888; 16]);
        assert_eq!(zeros(1, 64, Bits::EIGHT), [0x8080_8080; 16]);
    }
}
