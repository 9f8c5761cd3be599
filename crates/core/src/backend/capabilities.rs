//! What a backend can run, as data.

use serde::Serialize;

use super::Rejection;
use crate::format::{Bits, GroupSize, Packing};
use crate::quant_linear::LayerInfo;
use crate::tensor::DType;

/// What a backend can run on one device. Written as a literal that ends in `..Capabilities::ANY`:
///
/// ```
/// use gptq_core::backend::{Capabilities, GroupSizes};
/// use gptq_core::format::Bits;
/// use gptq_core::tensor::DType;
///
/// const MARLIN_LIKE: Capabilities = Capabilities {
///     bits: &[Bits::FOUR, Bits::EIGHT],
///     group_sizes: GroupSizes::OneOf(&[32, 64, 128]),
///     asymmetric: false,
///     x_dtypes: &[DType::F16, DType::BF16],
///     in_features_multiple: 64,
///     out_features_multiple: 64,
///     ..Capabilities::ANY
/// };
/// ```
#[derive(Clone, Debug, Serialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends write it as a literal that ends in ..Capabilities::ANY"
)]
pub struct Capabilities {
    /// Widths it has kernels for.
    pub bits: &'static [Bits],
    /// Whether it reads the planar layout in the widths where that differs from the continuous one.
    pub planar: bool,
    /// Group sizes it has kernels for.
    pub group_sizes: GroupSizes,
    /// Whether one group for the whole column (group size −1, or at least K) is among them.
    pub per_column: bool,
    /// Whether the last group may be shorter than the others.
    pub short_last_group: bool,
    /// Whether zero points may differ from 2^(bits − 1).
    pub asymmetric: bool,
    /// Whether `g_idx` may be a permutation.
    pub act_order: bool,
    /// Whether act-order groups may be of unequal size.
    pub ragged_groups: bool,
    /// Whether it adds a bias.
    pub bias: bool,
    /// Types of x and out.
    pub x_dtypes: &'static [DType],
    /// Types of scales that it reads without narrowing them.
    pub scale_dtypes: &'static [DType],
    /// K must be a multiple of this.
    pub in_features_multiple: usize,
    /// N must be a multiple of this.
    pub out_features_multiple: usize,
    /// In which encoding its kernels read zero points.
    pub zeros: ZeroOperand,
    /// Whether some path rounds dequantized weights to x's type before it multiplies, as one does that hands a dense
    /// matrix to a BLAS. Who judges an output then counts that rounding too. A path that multiplies codes as they are
    /// and scales in f32 rounds none.
    pub rounds_weights: bool,
    /// How near to the device's limit it runs.
    pub speed: Speed,
}

/// The group sizes that a backend has kernels for, −1 aside.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupSizes {
    /// Every positive number.
    Any,
    /// Multiples of a number.
    MultipleOf(usize),
    /// These.
    OneOf(&'static [usize]),
}

/// In which encoding kernels read zero points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ZeroOperand {
    /// As they are: v2.
    V2,
    /// Less one: v1.
    V1,
    /// Not at all: 2^(bits − 1) is built in.
    Fixed,
}

/// How near to the device's limit a backend runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Speed {
    /// An order of magnitude below what the device can do; right, but not fast.
    Fallback,
    /// Near the device's limit for some sizes of M.
    Native,
}

impl Capabilities {
    /// Everything a layer can be, in every type, weights unrounded, at the device's limit. The base of a literal.
    pub const ANY: Self = Self {
        bits: &Bits::ALL,
        planar: true,
        group_sizes: GroupSizes::Any,
        per_column: true,
        short_last_group: true,
        asymmetric: true,
        act_order: true,
        ragged_groups: true,
        bias: true,
        x_dtypes: &DType::ALL,
        scale_dtypes: &DType::ALL,
        in_features_multiple: 1,
        out_features_multiple: 1,
        zeros: ZeroOperand::V2,
        rounds_weights: false,
        speed: Speed::Native,
    };

    /// Whether a layer of this kind can be run, with x of `x_dtype` where that is known.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn accept(&self, layer: &LayerInfo, x_dtype: Option<DType>) -> Result<(), Rejection> {
        let k = layer.in_features;
        if !self.bits.contains(&layer.bits) {
            return Err(Rejection::Bits { found: layer.bits, supported: self.bits.to_vec() });
        }
        let planar = layer.packing == Packing::Planar && !32usize.is_multiple_of(layer.bits.get());
        if planar && !self.planar {
            return Err(Rejection::Packing { found: layer.packing });
        }
        if !self.accepts_group_size(layer) {
            return Err(Rejection::GroupSize {
                found: layer.group_size.to_config(),
                supported: self.describe_group_sizes(),
            });
        }
        let group_size = layer.group_size.rows(k);
        if layer.short_last_group() && !self.short_last_group {
            return Err(Rejection::ShortLastGroup { in_features: k, group_size });
        }
        if !layer.symmetric && !self.asymmetric {
            return Err(Rejection::Asymmetric);
        }
        if layer.act_order && !self.act_order {
            return Err(Rejection::ActOrder);
        }
        if layer.ragged_groups && !self.ragged_groups {
            return Err(Rejection::RaggedGroups { group_size });
        }
        if layer.bias && !self.bias {
            return Err(Rejection::Bias);
        }
        if !k.is_multiple_of(self.in_features_multiple) {
            return Err(Rejection::InFeatures { found: k, multiple: self.in_features_multiple });
        }
        if !layer.out_features.is_multiple_of(self.out_features_multiple) {
            let (found, multiple) = (layer.out_features, self.out_features_multiple);
            return Err(Rejection::OutFeatures { found, multiple });
        }
        if !self.scale_dtypes.contains(&layer.scale_dtype) {
            return Err(Rejection::ScaleDtype {
                found: layer.scale_dtype,
                supported: self.scale_dtypes.to_vec(),
            });
        }
        match x_dtype {
            Some(found) if !self.x_dtypes.contains(&found) => {
                Err(Rejection::ActivationDtype { found, supported: self.x_dtypes.to_vec() })
            }
            _ => Ok(()),
        }
    }

    fn accepts_group_size(&self, layer: &LayerInfo) -> bool {
        let size = match layer.group_size {
            GroupSize::Rows(size) if layer.groups > 1 => size.get(),
            _ if self.per_column => return true,
            // One group of K rows is the same as a group size of K, where that is a size it runs.
            _ => layer.in_features,
        };
        match self.group_sizes {
            GroupSizes::Any => true,
            GroupSizes::MultipleOf(number) => size.is_multiple_of(number),
            GroupSizes::OneOf(sizes) => sizes.contains(&size),
        }
    }

    /// The group sizes in words: `-1, 32, 64, 128`.
    pub fn describe_group_sizes(&self) -> String {
        let sizes = match self.group_sizes {
            GroupSizes::Any => "any".to_owned(),
            GroupSizes::MultipleOf(number) => format!("multiples of {number}"),
            GroupSizes::OneOf(sizes) => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        };
        if self.per_column { format!("-1, {sizes}") } else { sizes }
    }
}
