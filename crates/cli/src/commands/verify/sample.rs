//! Which columns of a layer are compared.

/// Weights (K · N) up to which every column of a layer is compared unless told otherwise.
const SMALL: usize = 1 << 20;
/// Columns of a larger layer that are compared unless told otherwise.
const SAMPLED: usize = 256;

/// How many columns of a layer `[in_features, out_features]` are compared, where `asked` is what the user says.
pub(super) fn how_many(in_features: usize, out_features: usize, asked: Option<usize>) -> usize {
    let wanted = match asked {
        Some(columns) => columns,
        None if in_features.saturating_mul(out_features) <= SMALL => out_features,
        None => SAMPLED,
    };
    wanted.min(out_features)
}

/// `wanted` of the columns from 0 to `columns` − 1 in ascending order: one from each of as many stretches of equal
/// length, so that no part of a layer goes unseen. The same for the same seed, on every machine.
pub(super) fn columns(columns: usize, wanted: usize, seed: u64) -> Vec<usize> {
    let wanted = wanted.min(columns);
    let bound = |i: usize| scale(columns, i, wanted);
    (0..wanted)
        .map(|i| {
            let (start, end) = (bound(i), bound(i + 1));
            let length = end.saturating_sub(start).max(1);
            let offset = mix(seed.wrapping_add(i as u64)) % length as u64;
            start + usize::try_from(offset).unwrap_or(0)
        })
        .collect()
}

/// `number · i / of`, in a type that holds the product.
fn scale(number: usize, i: usize, of: usize) -> usize {
    let product = number as u128 * i as u128 / of.max(1) as u128;
    usize::try_from(product).unwrap_or(number)
}

/// Spreads a counter over 64 bits: the mixing function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(super) fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_columns_of_a_small_layer_are_compared_and_a_sample_of_a_large_one() {
        assert_eq!(how_many(576, 1536, None), 1536);
        assert_eq!(how_many(4096, 11008, None), SAMPLED);
        assert_eq!(how_many(4096, 11008, Some(20_000)), 11008);
        assert_eq!(how_many(64, 64, Some(3)), 3);
        assert_eq!(how_many(usize::MAX, 9, None), 9);
    }

    #[test]
    fn a_sample_has_a_column_in_every_stretch_and_depends_on_the_seed_alone() {
        for (n, wanted) in [(11008, 256), (1000, 999), (257, 256), (7, 7), (5, 1), (3, 9)] {
            let sample = columns(n, wanted, 4);
            assert_eq!(sample.len(), wanted.min(n));
            assert!(sample.windows(2).all(|pair| pair[0] < pair[1]), "ascending, none twice: {n} {wanted}");
            assert!(sample.iter().all(|&column| column < n), "{n} {wanted}");
            assert_eq!(sample, columns(n, wanted, 4));
            let widest = sample.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            assert!(widest <= 2 * n.div_ceil(wanted), "no part unseen: {n} {wanted}");
        }
        assert_eq!(columns(7, 7, 1), [0, 1, 2, 3, 4, 5, 6]);
        assert_ne!(columns(11008, 256, 1), columns(11008, 256, 2));
    }
}
