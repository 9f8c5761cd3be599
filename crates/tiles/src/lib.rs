//! What backends share whose layers are arranged in tiles for the tensor cores of NVIDIA GPUs.
//!
//! The arrangement ([`layout`]), the table of products ([`products`]), the three steps and `forward` are the same for all of
//! them. A backend adds its kernels, instantiated from the same headers, and says what it can run. It is no backend itself
//! and registers nothing.
//!
//! ```
//! use gptq_core::backend::{Backend, BackendId, Options};
//! use gptq_core::device::Device;
//! use gptq_tiles::{Family, Zeros};
//!
//! static FAMILY: Family =
//!     Family { id: BackendId::new("mine"), name: "mine", kernels: None, zeros: Zeros::Stored };
//!
//! fn open(device: &Device, options: &Options) -> gptq_core::Result<Box<dyn Backend>> {
//!     FAMILY.open(device, options)
//! }
//! # assert!(open(&Device::Cpu, &Options::default()).is_err());
//! ```
//!
//! # Design, and its price
//!
//! - **Weights are arranged once**, on the GPU, as tensor cores take them: a lane of a warp loads what it needs in pieces of
//!   16 bytes. The price: packed layers are not what lies in device memory, and loading takes a pass over them.
//! - **Rows of act-order layers are sorted** when they are arranged, and x is brought into their order by a small kernel
//!   ahead of each product.
//! - **A few rows of x cost what one costs**, up to 8: x is the narrow operand of the tensor core. Weights are multiplied
//!   unscaled, as whole numbers less their zero point, which is exact; sums are f32 and scaled once for each group.
//! - **17 rows and more** take the same kernels with more registers for sums, up to 64 rows where columns are few, or, up to a few
//!   hundred, tiles of many columns by many rows of x, whose work is divided evenly over the GPU; whichever is modelled to be
//!   faster. The price: parts of sums in the scratch, and a kernel for each size of tile, and for Hopper of its own.
//! - **Many rows** take the dense matrix, a panel of columns at a time in the scratch of the context, and products by
//!   cuBLASLt.
//! - **Equal calls give equal bits.** Sums of warps and blocks are added in order; nothing is added atomically.

mod backend;
mod kernels;
pub mod layout;
mod linear;
mod memory;
#[doc(hidden)] // For tests of the kernels elsewhere.
pub mod params;
pub mod products;

use gptq_core::backend::{Backend, BackendId, OptionSpec, Options, Rejection};
use gptq_core::device::Device;
use gptq_core::tensor::DType;
use gptq_core::{Error, LayerInfo, Result};
use gptq_cuda::{CodeTarget, KernelImage, Matmul};

/// A backend of this kind: what tells it from others.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "backends of other crates write it as a literal")]
pub struct Family {
    /// The backend.
    pub id: BackendId,
    /// Its family of kernels: the file is `<name>.fatbin`, and their names begin with `gptq_<name>_`.
    pub name: &'static str,
    /// That file, where it was built before the backend's crate.
    pub kernels: Option<&'static [u8]>,
    /// Whether its kernels read zero points, direct as they are, or have those of symmetric layers built in.
    pub zeros: Zeros,
}

/// What kernels know of zero points.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "kernels read them or do not")]
pub enum Zeros {
    /// They are arranged beside the scales. Products of symmetric layers may do without.
    Stored,
    /// All are `2^(bits - 1)`; none are stored, and layers with others must not be accepted.
    BuiltIn,
}

impl Family {
    /// Which code of the family the GPU runs, where there is one with all that it needs. It allocates nothing and opens
    /// nothing.
    ///
    /// # Errors
    /// What is missing: the device is no GPU, there is no driver, or none of the kernels or no cuBLASLt for it.
    pub fn probe(&self, device: &Device) -> Result<CodeTarget, Rejection> {
        let Device::Cuda(ordinal) = device else { return Err(elsewhere(device)) };
        let gpu = gptq_cuda::probe(*ordinal)?;
        let target = KernelImage::find(self.name, self.kernels)?.check(&gpu)?;
        Matmul::probe()?;
        Ok(target)
    }

    /// Opens the backend for one model on a GPU. Of the options it reads those of [`OPTIONS`].
    ///
    /// # Errors
    /// As [`probe`](Self::probe), where a kernel cannot be loaded, and for an option that is no number.
    pub fn open(&'static self, device: &Device, options: &Options) -> Result<Box<dyn Backend>> {
        backend::TileBackend::open(self, device, options)
    }

    fn refused(&self, device: &Device, rejection: Rejection) -> Error {
        Error::Rejected { backend: self.id, subject: format!("on {device}"), rejection: Box::new(rejection) }
    }
}

const DENSE_ROWS: &str = "dense_rows";
const DENSE_BYTES: &str = "dense_bytes";

/// The options that every family reads.
pub const OPTIONS: [OptionSpec; 2] = [
    OptionSpec {
        name: DENSE_ROWS,
        help: "rows of x from which the dense matrix is written and multiplied by cuBLASLt, 0 for never; or, as `gptq tune` \
           measures them, for layers by size: 4096x4096:72,8192x28672:200; by default where that was faster on an H100",
    },
    OptionSpec {
        name: DENSE_BYTES,
        help: "bytes of the dense matrix that are written at a time: a context's scratch has room for so much; by default up to \
           512 MB, at most a 64th of the GPU's memory",
    },
];

/// The types that scales may have, and x where tensor cores multiply both.
pub const HALVES: [DType; 2] = [DType::F16, DType::BF16];

/// The types that x may have with this code: kernels for bf16 are there from Ampere on.
pub fn x_dtypes(target: CodeTarget) -> &'static [DType] {
    if target.has_bf16() { &HALVES } else { &[DType::F16] }
}

/// Whether the numbers of a layer are ones that the kernels count with.
///
/// # Errors
/// The number that is too large.
pub fn accepts(layer: &LayerInfo) -> Result<(), Rejection> {
    let most = if layer.act_order { layout::MOST_SORTED_ROWS } else { layout::MOST_ROWS };
    let rows = layer.in_features;
    if rows > most {
        return Err(Rejection::other(
            format!("the layer's in_features is {rows}, and the kernels count to {most}"),
            "split the module, or choose another backend",
        ));
    }
    counts(&layout::Arrangement::of(layer))
}

fn counts(arrangement: &layout::Arrangement) -> Result<(), Rejection> {
    for (what, number, most) in kernels::counted(arrangement) {
        if number > most {
            return Err(Rejection::other(
                format!("the layer has {number} {what}, and the kernels count to {most}"),
                "split the module, or choose another backend",
            ));
        }
    }
    Ok(())
}

fn elsewhere(device: &Device) -> Rejection {
    Rejection::DeviceKind { device: device.clone(), supported: "cuda".into() }
}

#[cfg(test)]
mod tests {
    use gptq_core::format::Bits;

    use super::*;

    #[test]
    fn a_layer_that_kernels_do_not_count_is_told_which_number_is_too_large_and_how_large_it_may_be() {
        let arrangement = |out_features: usize, groups: usize| layout::Arrangement {
            bits: Bits::FOUR,
            in_features: 4096,
            out_features,
            strips: out_features.div_ceil(layout::STRIP_COLUMNS),
            tiles: 64,
            groups,
            group_rows: 4096 / groups,
        };
        assert_eq!(counts(&arrangement(28672, 32)).map_err(|refused| refused.to_string()), Ok(()));
        for (out_features, groups, what, number, most) in [
            (1 << 30, 1, "out_features", "1073741824", "1073741823"),
            (1 << 24, 128, "scales", "2147483648", "2147483647"),
        ] {
            let refused = counts(&arrangement(out_features, groups)).expect_err(what).to_string();
            for part in [what, number, most] {
                assert!(refused.contains(part), "{part}: {refused}");
            }
        }
    }
}
