//! Which group a row of the weight belongs to.
//!
//! Without act-order, rows stand in the order of their groups: row `k` is in group `k / group_size`. With act-order
//! (`desc_act`), rows were quantized in order of importance and `g_idx [K]` names the group of each. The tensor
//! decides which it is, not the configuration: real files say `desc_act` and hold a trivial index, or an index of
//! zeros that means none.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::GroupSize;

/// What a checkpoint holds as `g_idx`. Only [`Permutation`](Self::Permutation) is act-order.
///
/// There is no sixth kind, so that the enum is exhaustive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupIndexKind {
    /// No tensor.
    Absent,
    /// Row `k` is in group `k / group_size`.
    Trivial,
    /// Zeros where there are several groups: what old writers leave where they have nothing to say.
    AllZero,
    /// One group holds all rows.
    SingleGroup,
    /// Anything else.
    Permutation,
}

impl fmt::Display for GroupIndexKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Trivial => "trivial",
            Self::AllZero => "all zero",
            Self::SingleGroup => "single group",
            Self::Permutation => "permutation",
        })
    }
}

/// Why a `g_idx` cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupIndexError {
    /// The tensor has not one entry for each row.
    #[error("{found} entries, expected one for each of {in_features} rows")]
    Length {
        /// Entries of the tensor.
        found: usize,
        /// Rows of the weight.
        in_features: usize,
    },
    /// Rows are counted in 32 bits.
    #[error("{in_features} rows, expected at most {}", u32::MAX)]
    TooManyRows {
        /// Rows of the weight.
        in_features: usize,
    },
    /// A row names no group: −1, with which compressed-tensors marks a row that was never assigned.
    #[error("row {row} is -1, which marks a row without a group; expected a group from 0 to {}", groups.saturating_sub(1))]
    Unset {
        /// The first such row.
        row: usize,
        /// How many groups the layer has.
        groups: usize,
    },
    /// A row names a group that does not exist.
    #[error("row {row} names group {found}, expected a group from 0 to {}", groups.saturating_sub(1))]
    OutOfRange {
        /// The first such row.
        row: usize,
        /// The value found.
        found: i32,
        /// How many groups the layer has.
        groups: usize,
    },
}

/// Which group each row belongs to. Rows are in order, or they are not; the enum is exhaustive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupIndex {
    /// Row `k` is in group `k / group_size`.
    Sequential,
    /// Each row names its group.
    ActOrder(ActOrder),
}

impl GroupIndex {
    /// Reads a `g_idx [in_features]`, or its absence, and says which kind it is.
    ///
    /// # Errors
    /// Where the tensor has not one entry for each row, or an entry is not a group from 0 to `groups − 1`.
    pub fn from_tensor(
        g_idx: Option<&[i32]>,
        in_features: usize,
        group_size: GroupSize,
        groups: usize,
    ) -> Result<(Self, GroupIndexKind), GroupIndexError> {
        let Some(g_idx) = g_idx else {
            return Ok((Self::Sequential, GroupIndexKind::Absent));
        };
        if g_idx.len() != in_features {
            return Err(GroupIndexError::Length { found: g_idx.len(), in_features });
        }
        let rows = checked(g_idx, groups)?;
        let group_rows = group_size.rows(in_features);
        let kind = if groups == 1 {
            GroupIndexKind::SingleGroup
        } else if (0..).zip(&rows).all(|(k, &group)| k / group_rows == group as usize) {
            GroupIndexKind::Trivial
        } else if rows.iter().all(|&group| group == 0) {
            GroupIndexKind::AllZero
        } else {
            GroupIndexKind::Permutation
        };
        let index = match kind {
            GroupIndexKind::Permutation => Self::ActOrder(ActOrder::sort(rows, group_rows, groups)?),
            _ => Self::Sequential,
        };
        Ok((index, kind))
    }

    /// The permutation, where there is one.
    pub fn act_order(&self) -> Option<&ActOrder> {
        match self {
            Self::Sequential => None,
            Self::ActOrder(order) => Some(order),
        }
    }

    /// Bytes held in memory: the copy of an act-order `g_idx` and its sorted order.
    pub fn resident_bytes(&self) -> usize {
        self.act_order().map_or(0, |order| {
            let Tables { groups_of_rows, sorted_rows, starts, .. } = &*order.0;
            size_of_val(&groups_of_rows[..]) + size_of_val(&sorted_rows[..]) + size_of_val(&starts[..])
        })
    }

    /// The group of a row, where a full group has `group_rows` rows.
    ///
    /// # Panics
    /// If `group_rows` is 0, or an act-order index has no such row.
    pub fn group_of(&self, row: usize, group_rows: usize) -> usize {
        match self {
            Self::Sequential => row / group_rows,
            Self::ActOrder(order) => order.group_of(row),
        }
    }

    /// Cuts `rows` into the longest runs of one group, in the order of rows: `(group, rows)`.
    ///
    /// A kernel that walks the rows as they are stored reads scales and zero points once a run: once a group where
    /// rows are in order.
    ///
    /// # Panics
    /// If `group_rows` is 0, or an act-order index ends before `rows`.
    pub fn runs(
        &self,
        rows: Range<usize>,
        group_rows: usize,
    ) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let mut rest = rows;
        std::iter::from_fn(move || {
            let start = rest.next()?;
            let group = self.group_of(start, group_rows);
            rest.start = match self {
                Self::Sequential => (start - start % group_rows).saturating_add(group_rows).min(rest.end),
                Self::ActOrder(order) => {
                    let others = &order.groups_of_rows()[rest.clone()];
                    let run = others.iter().take_while(|&&other| other as usize == group).count();
                    rest.start + run
                }
            };
            Some((group, start..rest.start))
        })
    }
}

/// The groups of all rows, checked before anything is built on them.
fn checked(g_idx: &[i32], groups: usize) -> Result<Vec<u32>, GroupIndexError> {
    let group_of = |(row, &found): (usize, &i32)| match u32::try_from(found) {
        Ok(group) if (group as usize) < groups => Ok(group),
        Err(_) if found == -1 => Err(GroupIndexError::Unset { row, groups }),
        _ => Err(GroupIndexError::OutOfRange { row, found, groups }),
    };
    g_idx.iter().enumerate().map(group_of).collect()
}

/// The order of rows in an act-order layer.
///
/// Holds a copy of `g_idx`, not a view: kernels index by it without a check, and a file can change while it is
/// mapped. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct ActOrder(Arc<Tables>);

#[derive(PartialEq, Eq)]
struct Tables {
    groups_of_rows: Vec<u32>,
    sorted_rows: Vec<u32>,
    /// Where each group begins in `sorted_rows`, and the end of the last one.
    starts: Vec<usize>,
    uniform: bool,
}

impl ActOrder {
    /// Sorts rows by group: a counting sort, which keeps rows of one group in order. Every entry of
    /// `groups_of_rows` is less than `groups`.
    fn sort(groups_of_rows: Vec<u32>, group_rows: usize, groups: usize) -> Result<Self, GroupIndexError> {
        let in_features = groups_of_rows.len();
        let rows = u32::try_from(in_features).map_err(|_| GroupIndexError::TooManyRows { in_features })?;

        let mut starts = vec![0; groups + 1];
        for &group in &groups_of_rows {
            starts[group as usize + 1] += 1;
        }
        for group in 0..groups {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut sorted_rows = vec![0; in_features];
        for (row, &group) in (0..rows).zip(&groups_of_rows) {
            let place = &mut next[group as usize];
            sorted_rows[*place] = row;
            *place += 1;
        }
        let uniform = (0..)
            .zip(&starts)
            .all(|(group, &start)| start == in_features.min(group_rows.saturating_mul(group)));
        Ok(Self(Arc::new(Tables { groups_of_rows, sorted_rows, starts, uniform })))
    }

    /// The group of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn group_of(&self, row: usize) -> usize {
        self.0.groups_of_rows[row] as usize
    }

    /// The group of each row `[K]`, all less than G: a copy of `g_idx`.
    pub fn groups_of_rows(&self) -> &[u32] {
        &self.0.groups_of_rows
    }

    /// The rows `[K]` in order of their groups: `sorted_rows[new] = old`. Rows of one group keep their order.
    pub fn sorted_rows(&self) -> &[u32] {
        &self.0.sorted_rows
    }

    /// The rows of a group, in order.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn rows_of_group(&self, group: usize) -> &[u32] {
        &self.0.sorted_rows[self.0.starts[group]..self.0.starts[group + 1]]
    }

    /// Whether sorted rows are in order: row `i` of [`Self::sorted_rows`] is in group `i / group_size`. Every
    /// group is full, except a short last one. Kernels that find the group of a sorted row by division need this.
    pub fn is_uniform(&self) -> bool {
        self.0.uniform
    }
}

impl fmt::Debug for ActOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows in {} groups", self.0.sorted_rows.len(), self.0.starts.len() - 1)
    }
}

#[cfg(test)]
mod tests;
