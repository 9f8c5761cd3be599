//! What the kernels of kernels/decoder take, and how attention is divided: arithmetic without a GPU.

use gptq_core::tensor::DType;

use super::params::GPTQ_DECODER_MOST_WIDTH;

/// What a piece has: the widest access of a thread.
pub(crate) const PIECE_BYTES: usize = 16;
/// Keys for which another block is worth its launch.
const KEYS_OF_A_BLOCK: usize = 256;
/// Blocks that share the keys of one head, at most.
const MOST_SPLITS: usize = 16;

/// Heads, and the cache that they look into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "kernels are told, and no test asks"))]
    pub(crate) groups: usize,
    pub(crate) width: usize,
    pub(crate) capacity: usize,
}

impl Heads {
    /// How many blocks share the keys of a head, on a GPU with so many multiprocessors.
    pub(crate) fn splits(self, multiprocessors: usize) -> usize {
        let worth = self.capacity.div_ceil(KEYS_OF_A_BLOCK);
        let room = (2 * multiprocessors).div_ceil(self.heads.max(1));
        worth.min(room).clamp(1, MOST_SPLITS)
    }

    /// Bytes of the cells at which blocks arrive.
    pub(crate) fn cells_bytes(self) -> usize {
        (self.heads * size_of::<u64>()).next_multiple_of(PIECE_BYTES)
    }

    /// Bytes that attention works in: those cells, then parts of heads.
    pub(crate) fn work_bytes(self, multiprocessors: usize) -> usize {
        self.cells_bytes() + self.heads * self.splits(multiprocessors) * (self.width + 2) * size_of::<f32>()
    }
}

/// Why no kernel of this family takes a model of these sizes, if none does.
pub(crate) fn refusal(dtype: DType, widths: &[usize], heads: Heads) -> Option<String> {
    let piece = PIECE_BYTES / dtype.size_bytes();
    if let Some(width) = widths.iter().find(|width| **width % piece != 0) {
        return Some(format!("a width of {width} is not a multiple of the {piece} {dtype} in 16 bytes"));
    }
    let lanes = heads.width / piece;
    let fits = heads.width.is_multiple_of(piece) && lanes.is_power_of_two() && lanes <= 32;
    if !fits || heads.width > GPTQ_DECODER_MOST_WIDTH as usize {
        return Some(format!(
            "heads are {} wide, and they may be {piece} times 1, 2, 4, 8, 16 or 32 in {dtype}, up to \
             {GPTQ_DECODER_MOST_WIDTH}",
            heads.width
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_the_field_are_taken_and_others_are_told_why_not() {
        let heads = |width| Heads { heads: 8, groups: 4, width, capacity: 100 };
        for width in [64, 128, 256] {
            assert_eq!(refusal(DType::F16, &[4096, 11008], heads(width)), None, "{width}");
        }
        assert_eq!(refusal(DType::F32, &[576], heads(64)), None);
        let says = |refusal: Option<String>, what: &str| refusal.is_some_and(|reason| reason.contains(what));
        assert!(says(refusal(DType::F16, &[4096, 100], heads(64)), "a width of 100"));
        assert!(says(refusal(DType::BF16, &[64], heads(96)), "heads are 96 wide"));
        assert!(says(refusal(DType::F32, &[64], heads(256)), "heads are 256 wide"));
    }

    #[test]
    fn blocks_share_long_contexts_until_the_gpu_is_full() {
        let heads = |heads, capacity| Heads { heads, groups: 8, width: 128, capacity };
        assert_eq!(heads(32, 145).splits(132), 1, "one block is done as soon");
        assert_eq!(heads(32, 1024).splits(132), 4);
        assert_eq!(heads(32, 100_000).splits(132), 9, "two blocks to a multiprocessor");
        assert_eq!(heads(8, 100_000).splits(132), MOST_SPLITS);
        let work = heads(32, 1024).work_bytes(132);
        assert_eq!(work, 32 * 8 + 32 * 4 * 130 * 4, "a cell for each head, and parts");
    }
}
