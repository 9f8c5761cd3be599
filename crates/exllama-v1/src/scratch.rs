//! How the scratch of a context is divided: `temp_state` first, then what a product works in. Pure: no GPU is asked.

use gptq_cuda::Matmul;
use gptq_cuda::place::ALIGNMENT;

/// Columns of a panel come in multiples of these, the first that leaves any: what tiles of cuBLASLt have, and the least
/// that the kernel writes.
const COLUMN_UNITS: [usize; 3] = [256, 128, 8];

/// Bytes of `rows` rows of x in `temp_state`. `None`: more than there are addresses for.
pub(crate) fn state_bytes(rows: usize, in_features: usize) -> Option<usize> {
    rows.checked_mul(in_features)?.checked_mul(2)?.checked_next_multiple_of(ALIGNMENT)
}

/// The scratch of a call that gathers x.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Division {
    /// Rows that `temp_state` holds.
    pub(crate) rows: usize,
    /// Where it ends.
    pub(crate) work_at: usize,
}

/// Divides `total` bytes for a layer of `in_features`, where products of the model work in `work` bytes if they can.
///
/// # Errors
/// The bytes that one row needs, where there are less.
pub(crate) fn divide(total: usize, work: usize, in_features: usize) -> Result<Division, usize> {
    let one_row = state_bytes(1, in_features).unwrap_or(usize::MAX);
    if total < one_row {
        return Err(one_row);
    }
    let state = (total.saturating_sub(work) / ALIGNMENT * ALIGNMENT).max(one_row);
    Ok(Division { rows: state / (in_features * 2), work_at: state })
}

/// Columns of the panels in which a dense matrix of f16 is rebuilt in `room` bytes: as few panels as fit, and of equal
/// width. `None` where not even eight columns fit.
pub(crate) fn panel_columns(room: usize, [k, n]: [usize; 2]) -> Option<usize> {
    let most = room / (k * 2).max(1);
    if most >= n {
        return Some(n);
    }
    let unit = COLUMN_UNITS.into_iter().find(|unit| *unit <= most)?;
    let most = most / unit * unit;
    Some(n.div_ceil(n.div_ceil(most)).next_multiple_of(unit))
}

/// Bytes of a panel.
pub(crate) fn panel_bytes(columns: usize, in_features: usize) -> usize {
    (columns * in_features * 2).next_multiple_of(ALIGNMENT)
}

/// What `temp_dq` may take of `work` bytes: all but cuBLASLt's workspace, or half where there is little.
pub(crate) fn dense_room(work: usize) -> usize {
    work.saturating_sub(Matmul::WORKSPACE_BYTES).max(work / 2 / ALIGNMENT * ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_that_was_made_for_a_length_holds_as_many_rows() {
        for (rows, k) in [(2048, 8192), (1, 96), (64, 40), (3, 28672)] {
            let division = divide(state_bytes(rows, k).unwrap() + 1_000_000, 1_000_000, k);
            let division = division.expect("there is room");
            assert!(division.rows >= rows, "{division:?} for {rows} rows");
            assert!(division.rows * k * 2 <= division.work_at, "{division:?}");
        }
    }

    #[test]
    fn a_length_that_no_memory_holds_has_no_size() {
        // 2^52 rows of 4096 are 2^65 bytes.
        for (rows, k) in
            [(1 << 52, 4096), (usize::MAX, 2), (usize::MAX, 1), (1 << 62, 2), (usize::MAX / 4, 2)]
        {
            assert_eq!(state_bytes(rows, k), None, "{rows} rows of {k}");
        }
        assert_eq!(state_bytes(3, 100), Some(768));
    }

    #[test]
    fn little_scratch_goes_to_the_state_and_less_than_a_row_is_told() {
        assert_eq!(divide(1000, 1_000_000, 100), Ok(Division { rows: 1, work_at: 256 }));
        assert_eq!(divide(255, 0, 100), Err(256));
        assert_eq!(divide(0, 0, 8192), Err(16384));
    }

    #[test]
    fn panels_fit_a_budget_and_are_of_equal_width() {
        assert_eq!(panel_columns(64 << 20, [8192, 28672]), Some(4096), "448 MiB in 64");
        assert_eq!(panel_columns(448 << 20, [8192, 28672]), Some(28672), "and whole");
        assert_eq!(panel_columns(0, [8192, 28672]), None);
        for room in [1 << 20, 5 << 20, 64 << 20, 100 << 20] {
            for [k, n] in [[8192, 28672], [28672, 8192], [4096, 11008], [96, 136], [40, 8]] {
                let columns = panel_columns(room, [k, n]).expect("there is room");
                assert!(
                    columns * k * 2 <= room && columns.is_multiple_of(8) && columns <= n,
                    "{columns} of {k} x {n}"
                );
            }
        }
    }
}
