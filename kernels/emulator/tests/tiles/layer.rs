//! Layers of the kinds that the backend takes, arranged by its plain version, in the emulated device's memory.

use gptq_conformance::case::Case;
use gptq_conformance::matrix::{self, Entry};
use gptq_core::backend::{Capabilities, GroupSizes};
use gptq_core::format::{Bits, Packing};
use gptq_core::tensor::DType;
use gptq_core::{LayerInfo, QuantLinear};
use gptq_emulator::{Buffer, Fault, Kernel};
use gptq_tiles::layout::{Arranged, Arrangement};
use gptq_tiles::{HALVES, Zeros};

/// A family of kernels, and what its backend says that it takes on a GPU that multiplies bf16.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) zeros: Zeros,
    takes: Capabilities,
    least_entries: usize,
}

pub(crate) const FAMILIES: [Family; 2] = [
    Family {
        name: "exllama_v2",
        zeros: Zeros::Stored,
        takes: Capabilities {
            bits: &[Bits::TWO, Bits::THREE, Bits::FOUR, Bits::EIGHT],
            group_sizes: GroupSizes::MultipleOf(8),
            ragged_groups: false,
            x_dtypes: &HALVES,
            scale_dtypes: &HALVES,
            in_features_multiple: 32,
            out_features_multiple: 8,
            ..Capabilities::ANY
        },
        least_entries: 100,
    },
    Family {
        name: "marlin",
        zeros: Zeros::BuiltIn,
        takes: Capabilities {
            bits: &[Bits::FOUR, Bits::EIGHT],
            group_sizes: GroupSizes::OneOf(&[16, 32, 64, 128, 256]),
            asymmetric: false,
            ragged_groups: false,
            x_dtypes: &HALVES,
            scale_dtypes: &HALVES,
            in_features_multiple: 64,
            out_features_multiple: 64,
            ..Capabilities::ANY
        },
        least_entries: 20,
    },
];

impl Family {
    /// Entries of the matrix, for layers that the backend takes.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let outline = |case: &Case| case.outline().ok();
        let taken = |entry: &Entry| {
            outline(&entry.case)
                .is_some_and(|layer| self.takes.accept(layer.info(), Some(entry.x_dtype)).is_ok())
        };
        let (entries, _) = matrix::accepted_entries(taken);
        assert!(entries.len() > self.least_entries, "{}: {} entries are no test", self.name, entries.len());
        entries
    }

    /// The kernel of this name.
    pub(crate) fn kernel(&self, name: &str) -> Result<Kernel, Fault> {
        Kernel::named(&format!("gptq_{}_{name}", self.name))
    }

    /// A width as kernels are named that read zero points, or have them built in.
    pub(crate) fn width(&self, bits: Bits) -> String {
        format!("b{bits}{}", if self.zeros == Zeros::BuiltIn { "s" } else { "" })
    }
}

/// An arranged layer.
pub(crate) struct DeviceLayer {
    pub(crate) arrangement: Arrangement,
    pub(crate) weights: Buffer<u32>,
    pub(crate) scales: Buffer<u16>,
    pub(crate) zeros: Buffer<u8>,
    /// Which row of the file is which row here.
    pub(crate) order: Option<Vec<u16>>,
    pub(crate) order_buffer: Buffer<u16>,
    pub(crate) info: LayerInfo,
}

impl DeviceLayer {
    pub(crate) fn new(layer: &QuantLinear) -> Self {
        let arrangement = Arrangement::of(layer.info());
        let Arranged { weights, scales, zeros } = arrangement.arrange(layer);
        let order = arrangement.order(layer);
        Self {
            arrangement,
            weights: Buffer::input("weights", &weights),
            scales: Buffer::input("scales", &scales),
            zeros: Buffer::input("zeros", &zeros),
            order_buffer: Buffer::input("order", order.as_deref().unwrap_or(&[])),
            order,
            info: layer.info().clone(),
        }
    }

    /// The order as kernels take it: null where rows stay where they are.
    pub(crate) fn order_address(&self) -> *const u16 {
        if self.order.is_some() { self.order_buffer.address() } else { std::ptr::null() }
    }
}

/// A type as launch parameters say it (dtype.h).
pub(crate) fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    }
}

/// A format as kernels are named: 2, 4 and 8 bits are the same in both packings.
pub(crate) fn format_name(bits: Bits, packing: Packing) -> String {
    let planar = packing == Packing::Planar && bits.get() == 3;
    format!("b{}{}", bits.get(), if planar { "p" } else { "" })
}
