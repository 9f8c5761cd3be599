use proptest::prelude::*;

use super::GroupIndexKind::{Absent, AllZero, Permutation, SingleGroup, Trivial};
use super::*;

const K: usize = 64;
const GROUPS: usize = 4;

fn sixteen() -> GroupSize {
    GroupSize::from_config(16).unwrap()
}

/// Reads the index of a layer of 64 rows in groups of 16.
fn read(g_idx: &[i32]) -> Result<(GroupIndex, GroupIndexKind), GroupIndexError> {
    GroupIndex::from_tensor(Some(g_idx), K, sixteen(), GROUPS)
}

fn trivial() -> Vec<i32> {
    (0..4).flat_map(|group| [group; 16]).collect()
}

/// Row k in group k mod 4: 16 rows each, none next to its like.
fn shuffled() -> Vec<i32> {
    (0..64).map(|k| k % 4).collect()
}

#[test]
fn absent_trivial_and_zero_indices_are_all_sequential() {
    let absent = GroupIndex::from_tensor(None, K, sixteen(), GROUPS).unwrap();
    assert_eq!(absent, (GroupIndex::Sequential, Absent));
    // Also what `desc_act: true` with static groups leaves: the tensor decides.
    assert_eq!(read(&trivial()).unwrap(), (GroupIndex::Sequential, Trivial));
    assert_eq!(read(&[0; K]).unwrap(), (GroupIndex::Sequential, AllZero));
    assert_eq!(
        (0..K).map(|k| absent.0.group_of(k, 16)).collect::<Vec<_>>(),
        [[0; 16], [1; 16], [2; 16], [3; 16]].concat()
    );
}

#[test]
fn a_single_group_has_no_order() {
    for size in [-1, 64, 128] {
        let size = GroupSize::from_config(size).unwrap();
        let index = GroupIndex::from_tensor(Some(&[0; K]), K, size, 1).unwrap();
        assert_eq!(index, (GroupIndex::Sequential, SingleGroup), "{size:?}");
    }
}

#[test]
fn a_short_last_group_is_still_trivial() {
    let g_idx: Vec<i32> = (0..40).map(|k| k / 16).collect();
    let (index, kind) = GroupIndex::from_tensor(Some(&g_idx), 40, sixteen(), 3).unwrap();
    assert_eq!((index, kind), (GroupIndex::Sequential, Trivial));
}

#[test]
fn a_permutation_is_sorted_by_group_and_keeps_the_order_of_equals() {
    let (index, kind) = read(&shuffled()).unwrap();
    let order = index.act_order().unwrap();
    assert_eq!(kind, Permutation);
    assert_eq!(order.groups_of_rows()[..6], [0, 1, 2, 3, 0, 1]);
    assert_eq!(order.group_of(6), 2);
    assert_eq!(order.sorted_rows()[..4], [0, 4, 8, 12]);
    assert_eq!(order.rows_of_group(3)[..3], [3, 7, 11]);
    assert_eq!(order.rows_of_group(3).len(), 16);
    assert!(order.is_uniform());
}

#[test]
fn groups_of_unequal_size_are_not_uniform() {
    let mut g_idx = shuffled();
    g_idx[0] = 1;
    let (index, kind) = read(&g_idx).unwrap();
    assert_eq!(kind, Permutation);
    assert!(!index.act_order().unwrap().is_uniform(), "group 0 has 15 rows, group 1 has 17");

    let sorted: Vec<i32> = (0..64).map(|k| i32::from(k >= 15)).collect();
    let (index, _) = read(&sorted).unwrap();
    let order = index.act_order().unwrap();
    assert!(!order.is_uniform());
    assert!(order.rows_of_group(2).is_empty(), "a group may have no rows");
}

#[test]
fn a_short_last_group_is_uniform_and_a_short_first_one_is_not() {
    let last: Vec<i32> = (0..40).rev().map(|k| k / 16).collect();
    let first: Vec<i32> = last.iter().map(|group| 2 - group).collect();
    for (g_idx, uniform) in [(last, true), (first, false)] {
        let (index, _) = GroupIndex::from_tensor(Some(&g_idx), 40, sixteen(), 3).unwrap();
        assert_eq!(index.act_order().unwrap().is_uniform(), uniform, "{g_idx:?}");
    }
}

#[test]
fn entries_that_name_no_group_are_refused_with_their_row() {
    let with = |row: usize, value| {
        let mut g_idx = shuffled();
        g_idx[row] = value;
        g_idx[row + 1] = 99;
        read(&g_idx).unwrap_err()
    };
    let groups = GROUPS;
    assert_eq!(with(5, 4), GroupIndexError::OutOfRange { row: 5, found: 4, groups });
    assert_eq!(with(0, -2), GroupIndexError::OutOfRange { row: 0, found: -2, groups });
    assert_eq!(with(9, -1), GroupIndexError::Unset { row: 9, groups });
    let message = with(5, 4).to_string();
    assert_eq!(message, "row 5 names group 4, expected a group from 0 to 3");
}

#[test]
fn an_index_of_the_wrong_length_is_refused_before_its_values_are_read() {
    for found in [0, 63, 65] {
        let error = read(&vec![-7; found]).unwrap_err();
        assert_eq!(error, GroupIndexError::Length { found, in_features: K });
    }
    let single = GroupIndex::from_tensor(Some(&[0, 1]), 2, GroupSize::PerColumn, 1);
    assert_eq!(single.unwrap_err(), GroupIndexError::OutOfRange { row: 1, found: 1, groups: 1 });
}

#[test]
fn sequential_runs_are_groups_cut_by_the_range() {
    let runs: Vec<_> = GroupIndex::Sequential.runs(10..50, 16).collect();
    assert_eq!(runs, [(0, 10..16), (1, 16..32), (2, 32..48), (3, 48..50)]);
    assert_eq!(GroupIndex::Sequential.runs(7..7, 16).count(), 0);
    assert_eq!(GroupIndex::Sequential.runs(3..9, usize::MAX).collect::<Vec<_>>(), [(0, 3..9)]);
}

#[test]
fn kinds_are_written_as_words() {
    assert_eq!(serde_json::to_string(&AllZero).unwrap(), "\"all_zero\"");
    assert_eq!(AllZero.to_string(), "all zero");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sorting_is_a_stable_permutation(g_idx in prop::collection::vec(0i32..5, 1..100)) {
        let groups = g_idx.iter().map(|&group| u32::try_from(group).unwrap()).collect::<Vec<_>>();
        let order = ActOrder::sort(groups.clone(), 16, 5).unwrap();

        let mut expected: Vec<u32> = (0..).take(g_idx.len()).collect();
        expected.sort_by_key(|&row| groups[row as usize]);
        prop_assert_eq!(order.sorted_rows(), &expected);
        prop_assert_eq!((0..5).flat_map(|group| order.rows_of_group(group)).copied().collect::<Vec<_>>(), expected.clone());
        let uniform = (0..).zip(&expected).all(|(i, &row)| order.group_of(row as usize) == i / 16);
        // Groups past the last row are empty, and so begin where they should.
        prop_assert_eq!(order.is_uniform(), uniform);
    }

    #[test]
    fn runs_cover_the_range_in_order(
        g_idx in prop::collection::vec(0i32..3, 40),
        ends in (0usize..=40, 0usize..=40),
        act_order in any::<bool>(),
    ) {
        let range = ends.0.min(ends.1)..ends.0.max(ends.1);
        let tensor = act_order.then_some(&g_idx[..]);
        let (index, _) = GroupIndex::from_tensor(tensor, 40, sixteen(), 3).unwrap();
        let runs: Vec<_> = index.runs(range.clone(), 16).collect();
        let groups: Vec<usize> = runs.iter().flat_map(|(group, rows)| rows.clone().map(|_| *group)).collect();
        let rows: Vec<usize> = runs.iter().flat_map(|(_, rows)| rows.clone()).collect();
        prop_assert_eq!(rows, range.clone().collect::<Vec<_>>());
        prop_assert_eq!(groups, range.map(|row| index.group_of(row, 16)).collect::<Vec<_>>());
        prop_assert!(runs.windows(2).all(|pair| pair[0].0 != pair[1].0), "a run was cut: {runs:?}");
    }
}
