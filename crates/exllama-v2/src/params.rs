//! Generated from kernels/exllama_v2/params.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

pub const GPTQ_DTYPE_F32: u32 = 0;
pub const GPTQ_DTYPE_F16: u32 = 1;
pub const GPTQ_DTYPE_BF16: u32 = 2;
pub const GPTQ_EXLLAMA_V2_TILE_ROWS: u32 = 64;
pub const GPTQ_EXLLAMA_V2_STRIP_COLUMNS: u32 = 16;
pub const GPTQ_EXLLAMA_V2_ARRANGE_THREADS: u32 = 512;
pub const GPTQ_EXLLAMA_V2_GROUPS_THREADS: u32 = 256;
pub const GPTQ_EXLLAMA_V2_DEQUANTIZE_THREADS: u32 = 256;
pub const GPTQ_EXLLAMA_V2_DEQUANTIZE_COLUMNS: u32 = 128;
pub const GPTQ_EXLLAMA_V2_GATHER_THREADS: u32 = 128;
#[doc = " The weights are arranged as tile.cuh says. Every pointer but bias and out is aligned to 16 bytes."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqProductParams {
    #[doc = " [strips, tiles], a tile of 128 * bits bytes."]
    pub weights: *const ::core::ffi::c_void,
    #[doc = " [strips, groups, 8, 2], 16-bit floats of scale_dtype, and bytes in the same order; zeros is not read by kernels for\n symmetric layers."]
    pub scales: *const ::core::ffi::c_void,
    pub zeros: *const ::core::ffi::c_void,
    #[doc = " [N] of bias_dtype, or null."]
    pub bias: *const ::core::ffi::c_void,
    #[doc = " [rows, K], columns in the order of the arrangement's rows, and [rows, N]; both of the type in the kernel's name."]
    pub x: *const ::core::ffi::c_void,
    pub out: *mut ::core::ffi::c_void,
    #[doc = " [splits, rows, gridDim.x * columns of a block], where splits is more than 1."]
    pub partial: *mut f32,
    #[doc = " A cell for each block in x, where splits is more than 1: see count_arrival."]
    pub arrived: *mut u64,
    pub arrival_mark: u64,
    pub in_features: u32,
    pub out_features: u32,
    pub strips: u32,
    #[doc = " Tiles and groups of a strip."]
    pub tiles: u32,
    pub groups: u32,
    #[doc = " Which group a run of rows is in: floor((2 run + 1) * inverse_of_group / 2^32), where a run has as many rows as the\n kernel's name says."]
    pub inverse_of_group: u32,
    pub rows: u32,
    #[doc = " Parts of K, gridDim.y, and the tiles of each; the last one may have fewer."]
    pub splits: u32,
    pub split_tiles: u32,
    pub scale_dtype: u32,
    pub bias_dtype: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqProductParams"][::core::mem::size_of::<GptqProductParams>() - 120usize];
    ["Alignment of GptqProductParams"][::core::mem::align_of::<GptqProductParams>() - 8usize];
    ["Offset of field: GptqProductParams::weights"]
        [::core::mem::offset_of!(GptqProductParams, weights) - 0usize];
    ["Offset of field: GptqProductParams::scales"]
        [::core::mem::offset_of!(GptqProductParams, scales) - 8usize];
    ["Offset of field: GptqProductParams::zeros"]
        [::core::mem::offset_of!(GptqProductParams, zeros) - 16usize];
    ["Offset of field: GptqProductParams::bias"][::core::mem::offset_of!(GptqProductParams, bias) - 24usize];
    ["Offset of field: GptqProductParams::x"][::core::mem::offset_of!(GptqProductParams, x) - 32usize];
    ["Offset of field: GptqProductParams::out"][::core::mem::offset_of!(GptqProductParams, out) - 40usize];
    ["Offset of field: GptqProductParams::partial"]
        [::core::mem::offset_of!(GptqProductParams, partial) - 48usize];
    ["Offset of field: GptqProductParams::arrived"]
        [::core::mem::offset_of!(GptqProductParams, arrived) - 56usize];
    ["Offset of field: GptqProductParams::arrival_mark"]
        [::core::mem::offset_of!(GptqProductParams, arrival_mark) - 64usize];
    ["Offset of field: GptqProductParams::in_features"]
        [::core::mem::offset_of!(GptqProductParams, in_features) - 72usize];
    ["Offset of field: GptqProductParams::out_features"]
        [::core::mem::offset_of!(GptqProductParams, out_features) - 76usize];
    ["Offset of field: GptqProductParams::strips"]
        [::core::mem::offset_of!(GptqProductParams, strips) - 80usize];
    ["Offset of field: GptqProductParams::tiles"]
        [::core::mem::offset_of!(GptqProductParams, tiles) - 84usize];
    ["Offset of field: GptqProductParams::groups"]
        [::core::mem::offset_of!(GptqProductParams, groups) - 88usize];
    ["Offset of field: GptqProductParams::inverse_of_group"]
        [::core::mem::offset_of!(GptqProductParams, inverse_of_group) - 92usize];
    ["Offset of field: GptqProductParams::rows"][::core::mem::offset_of!(GptqProductParams, rows) - 96usize];
    ["Offset of field: GptqProductParams::splits"]
        [::core::mem::offset_of!(GptqProductParams, splits) - 100usize];
    ["Offset of field: GptqProductParams::split_tiles"]
        [::core::mem::offset_of!(GptqProductParams, split_tiles) - 104usize];
    ["Offset of field: GptqProductParams::scale_dtype"]
        [::core::mem::offset_of!(GptqProductParams, scale_dtype) - 108usize];
    ["Offset of field: GptqProductParams::bias_dtype"]
        [::core::mem::offset_of!(GptqProductParams, bias_dtype) - 112usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV2ArrangeParams {
    #[doc = " [K * bits / 32, N], as files hold it."]
    pub qweight: *const u32,
    #[doc = " Which row of the file is which row of the arrangement, [tiles * 64] of 16 bits, any past K; null for `blocks`."]
    pub order: *const u16,
    #[doc = " [strips, tiles], a tile of 128 * bits bytes."]
    pub weights: *mut ::core::ffi::c_void,
    pub in_features: u32,
    pub out_features: u32,
    pub strips: u32,
    pub tiles: u32,
    #[doc = " Of a block of threads."]
    pub block_strips: u32,
    pub block_tiles: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV2ArrangeParams"][::core::mem::size_of::<GptqExllamaV2ArrangeParams>() - 48usize];
    ["Alignment of GptqExllamaV2ArrangeParams"]
        [::core::mem::align_of::<GptqExllamaV2ArrangeParams>() - 8usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::qweight"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, qweight) - 0usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::order"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, order) - 8usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::weights"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, weights) - 16usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, in_features) - 24usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, out_features) - 28usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::strips"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, strips) - 32usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::tiles"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, tiles) - 36usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::block_strips"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, block_strips) - 40usize];
    ["Offset of field: GptqExllamaV2ArrangeParams::block_tiles"]
        [::core::mem::offset_of!(GptqExllamaV2ArrangeParams, block_tiles) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV2GroupsParams {
    #[doc = " [groups, N] of 16-bit floats, and [groups, ceil(N * bits / 32)] packed, direct (v2) zero points."]
    pub scales: *const u16,
    pub qzeros: *const u32,
    #[doc = " [strips, arranged_groups, 16] both."]
    pub arranged_scales: *mut u16,
    pub arranged_zeros: *mut u8,
    pub out_features: u32,
    pub strips: u32,
    pub groups: u32,
    #[doc = " As many as all rows of tiles have; those past the last are zero."]
    pub arranged_groups: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV2GroupsParams"][::core::mem::size_of::<GptqExllamaV2GroupsParams>() - 48usize];
    ["Alignment of GptqExllamaV2GroupsParams"][::core::mem::align_of::<GptqExllamaV2GroupsParams>() - 8usize];
    ["Offset of field: GptqExllamaV2GroupsParams::scales"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, scales) - 0usize];
    ["Offset of field: GptqExllamaV2GroupsParams::qzeros"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, qzeros) - 8usize];
    ["Offset of field: GptqExllamaV2GroupsParams::arranged_scales"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, arranged_scales) - 16usize];
    ["Offset of field: GptqExllamaV2GroupsParams::arranged_zeros"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, arranged_zeros) - 24usize];
    ["Offset of field: GptqExllamaV2GroupsParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, out_features) - 32usize];
    ["Offset of field: GptqExllamaV2GroupsParams::strips"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, strips) - 36usize];
    ["Offset of field: GptqExllamaV2GroupsParams::groups"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, groups) - 40usize];
    ["Offset of field: GptqExllamaV2GroupsParams::arranged_groups"]
        [::core::mem::offset_of!(GptqExllamaV2GroupsParams, arranged_groups) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV2DequantizeParams {
    pub weights: *const ::core::ffi::c_void,
    pub scales: *const ::core::ffi::c_void,
    pub zeros: *const ::core::ffi::c_void,
    #[doc = " As for GptqExllamaV2ArrangeParams."]
    pub order: *const u16,
    #[doc = " [K, columns] with out_stride elements from row to row."]
    pub out: *mut ::core::ffi::c_void,
    pub in_features: u32,
    pub tiles: u32,
    pub groups: u32,
    #[doc = " For runs of 8 rows."]
    pub inverse_of_group: u32,
    #[doc = " A multiple of 128; then columns and out_stride, multiples of 8."]
    pub first_column: u32,
    pub columns: u32,
    pub out_stride: u32,
    pub scale_dtype: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV2DequantizeParams"]
        [::core::mem::size_of::<GptqExllamaV2DequantizeParams>() - 72usize];
    ["Alignment of GptqExllamaV2DequantizeParams"]
        [::core::mem::align_of::<GptqExllamaV2DequantizeParams>() - 8usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::weights"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, weights) - 0usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::scales"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, scales) - 8usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::zeros"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, zeros) - 16usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::order"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, order) - 24usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::out"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, out) - 32usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, in_features) - 40usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::tiles"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, tiles) - 44usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::groups"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, groups) - 48usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::inverse_of_group"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, inverse_of_group) - 52usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::first_column"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, first_column) - 56usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::columns"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, columns) - 60usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::out_stride"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, out_stride) - 64usize];
    ["Offset of field: GptqExllamaV2DequantizeParams::scale_dtype"]
        [::core::mem::offset_of!(GptqExllamaV2DequantizeParams, scale_dtype) - 68usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV2GatherParams {
    pub x: *const u16,
    pub order: *const u16,
    pub out: *mut u16,
    pub in_features: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV2GatherParams"][::core::mem::size_of::<GptqExllamaV2GatherParams>() - 32usize];
    ["Alignment of GptqExllamaV2GatherParams"][::core::mem::align_of::<GptqExllamaV2GatherParams>() - 8usize];
    ["Offset of field: GptqExllamaV2GatherParams::x"]
        [::core::mem::offset_of!(GptqExllamaV2GatherParams, x) - 0usize];
    ["Offset of field: GptqExllamaV2GatherParams::order"]
        [::core::mem::offset_of!(GptqExllamaV2GatherParams, order) - 8usize];
    ["Offset of field: GptqExllamaV2GatherParams::out"]
        [::core::mem::offset_of!(GptqExllamaV2GatherParams, out) - 16usize];
    ["Offset of field: GptqExllamaV2GatherParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV2GatherParams, in_features) - 24usize];
    ["Offset of field: GptqExllamaV2GatherParams::reserved"]
        [::core::mem::offset_of!(GptqExllamaV2GatherParams, reserved) - 28usize];
};
