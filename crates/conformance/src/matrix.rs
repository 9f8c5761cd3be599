//! The case matrix: not every combination of factors, but every pair of them, and the triples that matter here.
//!
//! Most faults need one factor or two, few need three (Kuhn, Wallace and Gallo, "Software fault interactions and
//! implications for software testing", IEEE TSE 30(6), 2004). The set is made greedily, from a fixed seed, and is the
//! same in every run.

use std::collections::HashSet;
use std::fmt;

use gptq_core::format::{Bits, GroupSize, Packing, ZeroDialect, ZeroEncoding};
use gptq_core::tensor::DType;

use crate::case::{Case, GIdx};
use crate::random::SplitMix64;

/// A layer, and x for it.
#[derive(Clone, Copy, PartialEq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "these are the factors of the matrix")]
pub struct Entry {
    /// The layer.
    pub case: Case,
    /// M.
    pub rows: usize,
    /// The type of x.
    pub x_dtype: DType,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; x {} [{}, {}]", self.case, self.x_dtype, self.rows, self.case.in_features)
    }
}

/// One word and one word and a bit; multiples of 32 and not; of tiles of 64 and 128 and not.
const IN_FEATURES: [usize; 8] = [32, 41, 64, 80, 128, 160, 264, 512];
const OUT_FEATURES: [usize; 8] = [32, 33, 64, 136, 160, 256, 264, 512];
/// Around the sizes where kernels change: 8, 16, and the 50 of ExLlama v2.
const ROWS: [usize; 9] = [0, 1, 2, 7, 8, 15, 16, 50, 51];
/// −1 is per column, 0 stands for K.
const GROUP_SIZES: [i64; 7] = [-1, 0, 16, 32, 48, 64, 128];
const ENCODINGS: [ZeroEncoding; 3] =
    [ZeroEncoding::V2, ZeroEncoding::V1(ZeroDialect::FieldWrap), ZeroEncoding::V1(ZeroDialect::WordBorrow)];
/// Bits and packing, as `Bits::ALL` counts: every pair that formats have.
const FORMATS: [(usize, Packing); 11] = [
    (0, Packing::Continuous),
    (1, Packing::Continuous),
    (2, Packing::Continuous),
    (6, Packing::Continuous),
    (0, Packing::Planar),
    (1, Packing::Planar),
    (2, Packing::Planar),
    (3, Packing::Planar),
    (4, Packing::Planar),
    (5, Packing::Planar),
    (6, Packing::Planar),
];

/// How many levels each factor has, in the order of [`Levels`].
const LEVELS: [usize; FACTORS] = [
    FORMATS.len(),
    GROUP_SIZES.len(),
    2,
    ENCODINGS.len(),
    GIdx::ALL.len(),
    IN_FEATURES.len(),
    OUT_FEATURES.len(),
    2,
    DType::ALL.len(),
    DType::ALL.len(),
    ROWS.len(),
];
const FACTORS: usize = 11;

/// A level for each factor: format, group size, sym, encoding, g_idx, K, N, bias, scales, x, M.
type Levels = [usize; FACTORS];

/// Factors whose every combination of levels occurs, beside every pair: what decides which rows a scale belongs to,
/// and what decides how a zero point is read.
const TRIPLES: [[usize; 3]; 2] = [[0, 1, 4], [0, 2, 3]];

/// Factors, and a level of each.
type Combination = Vec<(usize, usize)>;

/// Candidates that are compared for each combination that is still missing.
const CANDIDATES: usize = 6;
/// Draws after which a combination is taken to be impossible.
const DRAWS: usize = 120;
/// Draws for the first entry of a backend that accepts little.
const FIRST_DRAWS: usize = 20_000;

/// Legal entries such that every pair of factors that legal entries can have occurs, and some triples.
pub fn entries() -> Vec<Entry> {
    covering(&[], &mut |_| true).iter().map(entry).collect()
}

/// [`entries`] without those that `accepts` refuses, and then as many more as cover every combination that it accepts.
/// The number of those refused comes with them.
pub fn accepted_entries(mut accepts: impl FnMut(&Entry) -> bool) -> (Vec<Entry>, usize) {
    let all = covering(&[], &mut |_| true);
    let kept: Vec<Levels> = all.iter().copied().filter(|levels| accepts(&entry(levels))).collect();
    let declined = all.len() - kept.len();
    let chosen = if declined == 0 { kept } else { covering(&kept, &mut accepts) };
    (chosen.iter().map(entry).collect(), declined)
}

/// Few of `entries`, so that what picks a kernel still occurs together: the format with M, with `g_idx` and with the type
/// of x; every level of the other factors occurs once. Entries without rows, which start no kernel, are left out.
pub fn sample(entries: &[Entry]) -> Vec<Entry> {
    let mut rest: Vec<(Entry, Vec<String>)> = entries
        .iter()
        .filter(|entry| entry.rows > 0)
        .map(|entry| {
            let Case { bits, packing, group_size, sym, g_idx, in_features: k, out_features: n, .. } =
                entry.case;
            let features = vec![
                format!("{bits} {packing}, M = {}", entry.rows),
                format!("{bits} {packing}, g_idx {g_idx}"),
                format!("{bits} {packing}, x {}", entry.x_dtype),
                format!("group size {group_size}, sym {sym}, short {}", entry.case.short_last_group()),
                format!("K = {k}"),
                format!("N = {n}"),
                format!("scales {}, bias {}, x {}", entry.case.scale_dtype, entry.case.bias, entry.x_dtype),
            ];
            (*entry, features)
        })
        .collect();
    let mut chosen = Vec::new();
    let mut covered: HashSet<String> = HashSet::new();
    loop {
        let gain = |features: &[String]| features.iter().filter(|one| !covered.contains(*one)).count();
        let best = rest.iter().enumerate().max_by_key(|(_, (_, features))| gain(features));
        match best {
            Some((at, (_, features))) if gain(features) > 0 => {
                let (entry, features) = rest.swap_remove(at);
                chosen.push(entry);
                covered.extend(features);
            }
            _ => return chosen,
        }
    }
}

/// Adds to `start` until every combination that `accepts` allows is there.
fn covering(start: &[Levels], accepts: &mut dyn FnMut(&Entry) -> bool) -> Vec<Levels> {
    let mut random = SplitMix64::new(0, "matrix");
    let mut possible = |levels: &Levels| {
        let entry = entry(levels);
        entry.case.is_legal() && accepts(&entry)
    };
    let mut chosen = start.to_vec();
    if chosen.is_empty() {
        let draws = std::iter::repeat_with(|| LEVELS.map(|count| random.below(count)));
        chosen.extend(draws.take(FIRST_DRAWS).find(&mut possible));
    }
    let mut covered: HashSet<Combination> = chosen.iter().flat_map(combinations).collect();
    for wanted in all_combinations() {
        if chosen.is_empty() || covered.contains(&wanted) {
            continue;
        }
        let mut candidates = Vec::new();
        for draw in 0..DRAWS {
            let mut levels = LEVELS.map(|count| random.below(count));
            if draw % 2 == 1 {
                // Most of what a narrow backend accepts looks like something that it accepted before.
                let like = chosen[random.below(chosen.len())];
                for (level, like) in levels.iter_mut().zip(like) {
                    *level = if random.below(3) == 0 { *level } else { like };
                }
            }
            for &(factor, level) in &wanted {
                levels[factor] = level;
            }
            if possible(&levels) {
                candidates.push(levels);
            }
            if candidates.len() == CANDIDATES {
                break;
            }
        }
        let gain = |levels: &Levels| combinations(levels).filter(|one| !covered.contains(one)).count();
        if let Some(best) = candidates.into_iter().max_by_key(gain) {
            covered.extend(combinations(&best));
            chosen.push(best);
        }
    }
    chosen
}

/// Everything that has to occur, where it can.
fn all_combinations() -> Vec<Combination> {
    let mut all = Vec::new();
    for [a, b, c] in TRIPLES {
        for i in 0..LEVELS[a] {
            for j in 0..LEVELS[b] {
                all.extend((0..LEVELS[c]).map(|k| vec![(a, i), (b, j), (c, k)]));
            }
        }
    }
    for (b, &of_b) in LEVELS.iter().enumerate() {
        for (a, &of_a) in LEVELS.iter().enumerate().take(b) {
            for i in 0..of_a {
                all.extend((0..of_b).map(|j| vec![(a, i), (b, j)]));
            }
        }
    }
    all
}

/// The combinations that an entry covers. Whether its last group is short counts as one factor more: candidates with a
/// short group are preferred until it has met everything.
fn combinations(levels: &Levels) -> impl Iterator<Item = Combination> {
    let levels = *levels;
    let short = usize::from(entry(&levels).case.short_last_group());
    let factors: Vec<(usize, usize)> = levels.into_iter().chain([short]).enumerate().collect();
    let triples = TRIPLES.map(|triple| triple.map(|factor| (factor, levels[factor])).to_vec());
    let pairs = (0..factors.len()).flat_map(move |b| {
        let factors = factors.clone();
        (0..b).map(move |a| vec![factors[a], factors[b]])
    });
    pairs.chain(triples)
}

fn entry(levels: &Levels) -> Entry {
    let [format, group_size, sym, encoding, g_idx, k, n, bias, scales, x, rows] = *levels;
    let (bits, packing) = FORMATS[format];
    let in_features = IN_FEATURES[k];
    let group_size = match GROUP_SIZES[group_size] {
        0 => GroupSize::from_config(in_features.try_into().unwrap_or(-1)),
        size => GroupSize::from_config(size),
    };
    Entry {
        case: Case {
            bits: Bits::ALL[bits],
            packing,
            group_size: group_size.unwrap_or(GroupSize::PerColumn),
            sym: sym == 1,
            g_idx: GIdx::ALL[g_idx],
            in_features,
            out_features: OUT_FEATURES[n],
            bias: bias == 1,
            scale_dtype: DType::ALL[scales],
            zero_encoding: ENCODINGS[encoding],
            seed: levels.iter().fold(0, |seed, &level| seed * 16 + level as u64),
        },
        rows: ROWS[rows],
        x_dtype: DType::ALL[x],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_that_files_can_have_is_in_the_matrix() {
        let entries = entries();
        let has = |test: &dyn Fn(&Entry) -> bool| entries.iter().any(test);
        for (bits, packing) in FORMATS {
            let format = |e: &Entry| e.case.bits == Bits::ALL[bits] && e.case.packing == packing;
            for g_idx in GIdx::ALL {
                assert!(
                    has(&|e| format(e) && e.case.g_idx == g_idx),
                    "{} {packing} {g_idx}",
                    Bits::ALL[bits]
                );
            }
            for dtype in DType::ALL {
                assert!(has(&|e| format(e) && e.x_dtype == dtype && !e.case.sym), "{packing} {dtype}");
            }
            for rows in ROWS {
                assert!(has(&|e| format(e) && e.rows == rows), "{packing} {rows} rows");
            }
        }
        for g_idx in [GIdx::Absent, GIdx::Trivial, GIdx::AllZero, GIdx::ActOrder, GIdx::RaggedActOrder] {
            assert!(
                has(&|e| e.case.g_idx == g_idx && e.case.short_last_group()),
                "{g_idx}, short last group"
            );
        }
        assert!(has(&|e| e.case.in_features == 41 && e.case.out_features == 33), "the oddest shape");
    }

    #[test]
    fn the_matrix_is_legal_the_same_every_time_and_small() {
        let first = entries();
        assert!(first.iter().all(|entry| entry.case.is_legal()));
        assert!(first == entries());
        assert!((200..700).contains(&first.len()), "{} entries", first.len());
    }

    #[test]
    fn a_sample_is_small_and_has_every_format_with_every_number_of_rows() {
        let all = entries();
        let few = sample(&all);
        assert!(few.len() < all.len() / 3, "{} of {}", few.len(), all.len());
        for (bits, packing) in FORMATS {
            for rows in ROWS.into_iter().filter(|&rows| rows > 0) {
                let has = few
                    .iter()
                    .any(|e| (e.case.bits, e.case.packing, e.rows) == (Bits::ALL[bits], packing, rows));
                assert!(has, "{} {packing}, {rows} rows", Bits::ALL[bits]);
            }
        }
        assert!(sample(&[]).is_empty());
    }

    #[test]
    fn a_narrow_backend_gets_pairs_of_its_own() {
        let narrow = |e: &Entry| {
            let Case { bits, sym, in_features: k, out_features: n, scale_dtype, .. } = e.case;
            let tiles = k.is_multiple_of(64) && n.is_multiple_of(64);
            bits == Bits::FOUR && sym && tiles && scale_dtype == DType::F16 && e.x_dtype != DType::F32
        };
        let (entries, declined) = accepted_entries(narrow);
        assert!(entries.iter().all(narrow) && declined > 100);
        for g_idx in GIdx::ALL {
            for rows in ROWS {
                let has = entries.iter().any(|e| e.case.g_idx == g_idx && e.rows == rows);
                assert!(has, "{rows} rows, g_idx {g_idx}");
            }
        }
    }
}
