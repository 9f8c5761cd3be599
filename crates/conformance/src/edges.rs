//! The edges of what a backend declares: for each thing that its capabilities claim, layers that would show it.
//!
//! The [matrix](crate::matrix) runs many layers of common shapes. Here each layer goes as far as one claim goes: the
//! smallest matrix and a large one, groups of one row and of a thousand, a last group of one row.

use gptq_core::backend::{Capabilities, GroupSizes};
use gptq_core::format::{Bits, GroupSize, Packing};
use gptq_core::tensor::DType;

use crate::case::{Case, GIdx};

/// Something that capabilities claim, and layers of this kind with a type of x for each, the plainest first. Few claims
/// need more than the first, so that they are made when they are asked for.
pub(crate) struct Claim<'a> {
    pub(crate) what: String,
    pub(crate) layers: Box<dyn Iterator<Item = (Case, DType)> + 'a>,
}

/// More rows and columns than these are called large.
const LARGE: usize = 4096;

/// What a backend declares.
pub(crate) struct Edges<'a> {
    can: &'a Capabilities,
    plain: Vec<(Case, DType)>,
}

impl<'a> Edges<'a> {
    pub(crate) fn new(capabilities: &'a Capabilities) -> Self {
        Self { can: capabilities, plain: plain_layers(capabilities) }
    }

    /// Every claim, the simplest first, so that what fails is told by its name. One that files hold no layer for has none.
    pub(crate) fn claims(&self) -> Vec<Claim<'_>> {
        let mut claims = self.kinds();
        claims.extend(self.shapes());
        claims.extend(self.group_sizes());
        claims.extend(self.short_last_groups());
        claims
    }

    /// Layers made of plain ones by `change`, those that files hold and the capabilities allow.
    fn claim<'e>(
        &'e self,
        what: impl Into<String>,
        change: impl Fn(Case, DType) -> Option<(Case, DType)> + 'e,
    ) -> Claim<'e> {
        let layers = self.plain.iter().filter_map(move |&(case, x_dtype)| change(case, x_dtype));
        let allowed = |(case, x_dtype): &(Case, DType)| {
            let outline = case.is_legal().then(|| case.outline().ok()).flatten();
            outline.is_some_and(|layer| self.can.accept(layer.info(), Some(*x_dtype)).is_ok())
        };
        Claim { what: what.into(), layers: Box::new(layers.filter(allowed)) }
    }

    /// Of plain layers those of one kind, or turned into it, with shapes that suit it.
    fn of_kind<'e>(&'e self, what: impl Into<String>, change: impl Fn(Case) -> Case + 'e) -> Claim<'e> {
        self.claim(what, move |case, x_dtype| Some((self.shaped(change(case)), x_dtype)))
    }

    /// What is claimed beside shapes and groups.
    fn kinds(&self) -> Vec<Claim<'_>> {
        let mut claims = Vec::new();
        for (bits, packing) in formats(self.can) {
            let change = move |case| Case { bits, packing, ..case };
            claims.push(self.of_kind(format!("{bits} bits {packing}"), change));
        }
        for &x_dtype in self.can.x_dtypes {
            claims.push(self.claim(format!("x in {x_dtype}"), move |case, _| Some((case, x_dtype))));
        }
        for &scale_dtype in self.can.scale_dtypes {
            let what = format!("scales in {scale_dtype}");
            claims.push(self.of_kind(what, move |case| Case { scale_dtype, ..case }));
        }
        claims.push(self.of_kind("symmetric zero points", |case| Case { sym: true, ..case }));
        if self.can.asymmetric {
            claims.push(self.of_kind("zero points of any value", |case| Case { sym: false, ..case }));
        }
        if self.can.act_order {
            claims.push(self.of_kind("act-order", |case| Case { g_idx: GIdx::ActOrder, ..case }));
        }
        if self.can.act_order && self.can.ragged_groups {
            let what = "act-order with groups of unequal size";
            claims.push(self.of_kind(what, |case| Case { g_idx: GIdx::RaggedActOrder, ..case }));
        }
        if self.can.bias {
            claims.push(self.of_kind("a bias", |case| Case { bias: true, ..case }));
        }
        claims
    }

    fn group_sizes(&self) -> Vec<Claim<'_>> {
        let sizes = match self.can.group_sizes {
            GroupSizes::Any => vec![1, 3, 40, 100, 1024],
            GroupSizes::MultipleOf(number) if number > 0 => {
                vec![number, 3 * number, (1024 / number + 1) * number]
            }
            GroupSizes::OneOf(sizes) => sizes.to_vec(),
            _ => Vec::new(),
        };
        let mut claims = Vec::new();
        for group_size in sizes.into_iter().filter_map(rows_of_group) {
            let what = format!("group size {group_size}");
            claims.push(self.of_kind(what, move |case| Case { group_size, ..case }));
        }
        if self.can.per_column {
            let what = "one group for each column (group size -1)";
            claims.push(self.of_kind(what, per_column));
            for (what, times) in [("a group size of K", 1), ("a group size above K", 2)] {
                claims.push(self.claim(what, move |case, x_dtype| {
                    let case = self.shaped(per_column(case));
                    let group_size = rows_of_group(times * case.in_features)?;
                    Some((Case { group_size, ..case }, x_dtype))
                }));
            }
        }
        claims
    }

    /// A last group of as few rows as K allows, and one that lacks as few.
    fn short_last_groups(&self) -> Vec<Claim<'_>> {
        let mut claims = Vec::new();
        for (g_idx, of) in [(GIdx::Absent, ""), (GIdx::ActOrder, " in act-order")] {
            let declared = self.can.short_last_group && (g_idx == GIdx::Absent || self.can.act_order);
            for (most, how) in [(false, "very short"), (true, "hardly short")] {
                let change = move |case, x_dtype| Some((self.short(Case { g_idx, ..case }, most)?, x_dtype));
                if declared {
                    claims.push(self.claim(format!("a last group that is {how}{of}"), change));
                }
            }
        }
        claims
    }

    fn short(&self, case: Case, most: bool) -> Option<Case> {
        let (rows, step) = (case.group_size.rows(case.in_features), self.k_step(&case));
        // Every remainder that K can leave occurs within `rows` steps.
        let lengths = (1..=rows).map(|steps| (2 * rows).next_multiple_of(step) + steps * step);
        let short = lengths.filter(|k| !k.is_multiple_of(rows));
        let k = if most { short.max_by_key(|k| k % rows) } else { short.min_by_key(|k| k % rows) };
        Some(Case { in_features: k?, ..case })
    }

    fn shapes(&self) -> Vec<Claim<'_>> {
        let Capabilities { in_features_multiple: k, out_features_multiple: n, .. } = *self.can;
        let with_n =
            |case, tiles: fn(usize) -> usize| Case { out_features: tiles(self.n_step(&case)), ..case };
        let one: fn(usize) -> usize = |step| step;
        let large: fn(usize) -> usize = |step| (LARGE / step + 1) * step;
        let mut claims = vec![
            self.claim(format!("the smallest K, in_features_multiple {k}"), |case, x| {
                Some((self.smallest(case), x))
            }),
            self.claim(format!("an odd number of tiles down K, in_features_multiple {k}"), |case, x| {
                Some((self.odd(case), x))
            }),
            self.claim("a large K", move |case, x| {
                let case = with_n(case, one);
                Some((Case { in_features: large(self.unit(&case)), ..case }, x))
            }),
            self.claim(format!("the smallest N, out_features_multiple {n}"), move |case, x| {
                Some((with_n(case, one), x))
            }),
            self.claim(
                format!("an odd number of tiles across N, out_features_multiple {n}"),
                move |case, x| Some((with_n(case, |step| 3 * step), x)),
            ),
            self.claim("a large N", move |case, x| Some((with_n(case, large), x))),
            self.claim("the smallest K and N", move |case, x| Some((with_n(self.smallest(case), one), x))),
        ];
        if self.can.act_order {
            let what = format!("act-order, an odd number of tiles down K, in_features_multiple {k}");
            claims.push(
                self.claim(what, |case, x| Some((self.odd(Case { g_idx: GIdx::ActOrder, ..case }), x))),
            );
        }
        claims
    }

    /// The case with the smallest K. An index lets K end within a word.
    fn smallest(&self, case: Case) -> Case {
        let case = match self.can.per_column {
            true => Case { g_idx: GIdx::SingleGroup, ..per_column(case) },
            false => case,
        };
        Case { in_features: self.unit(&case), ..case }
    }

    /// The case with a K that two tiles do not divide.
    fn odd(&self, case: Case) -> Case {
        Case { in_features: 3 * self.unit(&case), ..case }
    }

    /// The case with a K of at least two groups, full ones, and an N that is no power of two where that is allowed.
    fn shaped(&self, case: Case) -> Case {
        let groups_of = case.group_size;
        let k_unit = self.unit(&case);
        let least = match groups_of {
            GroupSize::PerColumn => 64,
            GroupSize::Rows(rows) => 2 * rows.get(),
        };
        Case {
            in_features: least.next_multiple_of(k_unit),
            out_features: 33usize.next_multiple_of(self.n_step(&case)),
            ..case
        }
    }

    /// What K is a multiple of where all groups are full.
    fn unit(&self, case: &Case) -> usize {
        let step = self.k_step(case);
        match case.group_size {
            GroupSize::PerColumn => step,
            GroupSize::Rows(rows) => least_common_multiple(step, rows.get()),
        }
    }

    /// What K is a multiple of: tiles, whole blocks, and without an index whole words.
    fn k_step(&self, case: &Case) -> usize {
        let of_file = match (case.packing, case.g_idx) {
            (Packing::Planar, _) => 32,
            (Packing::Continuous, GIdx::Absent) => 32 >> case.bits.get().trailing_zeros(),
            _ => 1,
        };
        least_common_multiple(of_file, self.can.in_features_multiple)
    }

    /// What N is a multiple of.
    fn n_step(&self, case: &Case) -> usize {
        let of_file = if case.packing == Packing::Planar { 32 } else { 1 };
        least_common_multiple(of_file, self.can.out_features_multiple)
    }
}

/// Layers of the common kinds that the capabilities allow, the plainest first, with a type of x for each.
fn plain_layers(can: &Capabilities) -> Vec<(Case, DType)> {
    let shapes = Edges { can, plain: Vec::new() };
    let declared = match can.group_sizes {
        GroupSizes::Any => vec![32],
        GroupSizes::MultipleOf(number) => vec![32usize.next_multiple_of(number.max(1))],
        GroupSizes::OneOf(sizes) => sizes.to_vec(),
        _ => Vec::new(),
    };
    let mut group_sizes: Vec<GroupSize> = declared.into_iter().filter_map(rows_of_group).collect();
    group_sizes.extend(can.per_column.then_some(GroupSize::PerColumn));
    let zeros: &[bool] = if can.asymmetric { &[false, true] } else { &[true] };
    let preferred = |dtypes: &'static [DType]| {
        [DType::F16, DType::BF16, DType::F32].into_iter().filter(|dtype| dtypes.contains(dtype))
    };
    let mut layers = Vec::new();
    for &sym in zeros {
        for x_dtype in preferred(can.x_dtypes) {
            for (bits, packing) in formats(can) {
                for &group_size in &group_sizes {
                    for scale_dtype in preferred(can.scale_dtypes) {
                        let case =
                            Case { bits, packing, group_size, sym, scale_dtype, seed: 51, ..Case::PLAIN };
                        layers.push((shapes.shaped(case), x_dtype));
                    }
                }
            }
        }
    }
    layers
}

/// The widths and packings that are declared, 4 bits first.
fn formats(can: &Capabilities) -> Vec<(Bits, Packing)> {
    let mut bits: Vec<Bits> = can.bits.to_vec();
    bits.sort_by_key(|&bits| (bits != Bits::FOUR, bits));
    bits.dedup();
    let of = |packing| bits.iter().map(move |&bits| (bits, packing));
    let continuous = of(Packing::Continuous).filter(|(bits, packing)| packing.supports(*bits));
    // Where the layouts do not differ, whoever reads one reads the other.
    let planar = of(Packing::Planar).filter(|(bits, _)| can.planar || 32usize.is_multiple_of(bits.get()));
    continuous.chain(planar).collect()
}

fn per_column(case: Case) -> Case {
    Case { group_size: GroupSize::PerColumn, ..case }
}

fn rows_of_group(rows: usize) -> Option<GroupSize> {
    GroupSize::from_config(rows.try_into().ok()?)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (a, b) = (a.max(1), b.max(1));
    let (mut high, mut low) = (a, b);
    while low > 0 {
        (high, low) = (low, high % low);
    }
    a / high * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_without_limits_is_taken_to_the_ends_of_what_files_hold() {
        let edges = Edges::new(&Capabilities::ANY);
        let first: Vec<Case> =
            edges.claims().into_iter().map(|mut claim| claim.layers.next().unwrap().0).collect();
        let has = |test: &dyn Fn(&Case) -> bool| first.iter().any(test);
        assert!(has(&|case| case.in_features == 1 && case.out_features == 1), "one weight");
        assert!(has(&|case| case.in_features > LARGE) && has(&|case| case.out_features > LARGE));
        assert!(has(&|case| case.group_size.rows(1) == 1), "groups of one row");
        assert!(has(&|case| case.group_size.rows(1) == 1024 && case.groups() == 2));
        assert!(has(&|case| case.in_features % case.group_size.rows(1000) == 1), "a last group of one row");
        assert!(has(&|case| case.group_size.rows(1) > case.in_features), "a group size above K");
    }

    #[test]
    fn a_narrow_backend_is_asked_only_for_what_it_declares() {
        let narrow = Capabilities {
            bits: &[Bits::FOUR],
            planar: false,
            group_sizes: GroupSizes::OneOf(&[64, 128]),
            per_column: false,
            short_last_group: false,
            asymmetric: false,
            ragged_groups: false,
            bias: false,
            x_dtypes: &[DType::BF16],
            scale_dtypes: &[DType::F16],
            in_features_multiple: 64,
            out_features_multiple: 96,
            ..Capabilities::ANY
        };
        let edges = Edges::new(&narrow);
        for claim in edges.claims() {
            let mut some = false;
            for (case, x_dtype) in claim.layers {
                narrow.accept(case.outline().unwrap().info(), Some(x_dtype)).unwrap();
                some = true;
            }
            assert!(some, "{}", claim.what);
        }
        let whats: Vec<String> = edges.claims().into_iter().map(|claim| claim.what).collect();
        for what in ["group size 64", "group size 128", "act-order", "x in bf16", "a large K"] {
            assert!(whats.iter().any(|claim| claim == what), "{what}: {whats:?}");
        }
        let smallest = edges.claims().into_iter().find(|claim| claim.what == "the smallest K and N");
        let (case, _) = smallest.unwrap().layers.next().unwrap();
        assert_eq!((case.in_features, case.out_features), (64, 96));
    }

    #[test]
    fn what_is_impossible_has_no_layers() {
        for impossible in [
            Capabilities { bits: &[], ..Capabilities::ANY },
            Capabilities { in_features_multiple: 0, out_features_multiple: 0, ..Capabilities::ANY },
        ] {
            assert!(Edges::new(&impossible).claims().into_iter().all(|claim| claim.layers.count() == 0));
        }
    }
}
