//! Generated from kernels/include/tile.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

pub const GPTQ_DTYPE_F32: u32 = 0;
pub const GPTQ_DTYPE_F16: u32 = 1;
pub const GPTQ_DTYPE_BF16: u32 = 2;
pub const GPTQ_TILE_ROWS: u32 = 64;
pub const GPTQ_TILE_STRIP_COLUMNS: u32 = 16;
pub const GPTQ_TILE_ARRANGE_THREADS: u32 = 512;
pub const GPTQ_TILE_GROUPS_THREADS: u32 = 256;
pub const GPTQ_TILE_DEQUANTIZE_THREADS: u32 = 256;
pub const GPTQ_TILE_DEQUANTIZE_COLUMNS: u32 = 128;
pub const GPTQ_TILE_GATHER_THREADS: u32 = 256;
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
    #[doc = " For one row of x: whether weights are asked for ahead of x. Where this launch begins before the kernel in front has\n ended, x has to wait; and where blocks are many, the weights of each matter more than when it starts to add."]
    pub weights_first: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqProductParams"][::core::mem::size_of::<GptqProductParams>() - 128usize];
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
    ["Offset of field: GptqProductParams::weights_first"]
        [::core::mem::offset_of!(GptqProductParams, weights_first) - 116usize];
    ["Offset of field: GptqProductParams::reserved"]
        [::core::mem::offset_of!(GptqProductParams, reserved) - 120usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqTileArrangeParams {
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
    ["Size of GptqTileArrangeParams"][::core::mem::size_of::<GptqTileArrangeParams>() - 48usize];
    ["Alignment of GptqTileArrangeParams"][::core::mem::align_of::<GptqTileArrangeParams>() - 8usize];
    ["Offset of field: GptqTileArrangeParams::qweight"]
        [::core::mem::offset_of!(GptqTileArrangeParams, qweight) - 0usize];
    ["Offset of field: GptqTileArrangeParams::order"]
        [::core::mem::offset_of!(GptqTileArrangeParams, order) - 8usize];
    ["Offset of field: GptqTileArrangeParams::weights"]
        [::core::mem::offset_of!(GptqTileArrangeParams, weights) - 16usize];
    ["Offset of field: GptqTileArrangeParams::in_features"]
        [::core::mem::offset_of!(GptqTileArrangeParams, in_features) - 24usize];
    ["Offset of field: GptqTileArrangeParams::out_features"]
        [::core::mem::offset_of!(GptqTileArrangeParams, out_features) - 28usize];
    ["Offset of field: GptqTileArrangeParams::strips"]
        [::core::mem::offset_of!(GptqTileArrangeParams, strips) - 32usize];
    ["Offset of field: GptqTileArrangeParams::tiles"]
        [::core::mem::offset_of!(GptqTileArrangeParams, tiles) - 36usize];
    ["Offset of field: GptqTileArrangeParams::block_strips"]
        [::core::mem::offset_of!(GptqTileArrangeParams, block_strips) - 40usize];
    ["Offset of field: GptqTileArrangeParams::block_tiles"]
        [::core::mem::offset_of!(GptqTileArrangeParams, block_tiles) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqTileGroupsParams {
    #[doc = " [groups, N] of 16-bit floats, and [groups, ceil(N * bits / 32)] packed, direct (v2) zero points, which are not read where\n arranged_zeros is null."]
    pub scales: *const u16,
    pub qzeros: *const u32,
    #[doc = " [strips, arranged_groups, 16] both; arranged_zeros may be null."]
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
    ["Size of GptqTileGroupsParams"][::core::mem::size_of::<GptqTileGroupsParams>() - 48usize];
    ["Alignment of GptqTileGroupsParams"][::core::mem::align_of::<GptqTileGroupsParams>() - 8usize];
    ["Offset of field: GptqTileGroupsParams::scales"]
        [::core::mem::offset_of!(GptqTileGroupsParams, scales) - 0usize];
    ["Offset of field: GptqTileGroupsParams::qzeros"]
        [::core::mem::offset_of!(GptqTileGroupsParams, qzeros) - 8usize];
    ["Offset of field: GptqTileGroupsParams::arranged_scales"]
        [::core::mem::offset_of!(GptqTileGroupsParams, arranged_scales) - 16usize];
    ["Offset of field: GptqTileGroupsParams::arranged_zeros"]
        [::core::mem::offset_of!(GptqTileGroupsParams, arranged_zeros) - 24usize];
    ["Offset of field: GptqTileGroupsParams::out_features"]
        [::core::mem::offset_of!(GptqTileGroupsParams, out_features) - 32usize];
    ["Offset of field: GptqTileGroupsParams::strips"]
        [::core::mem::offset_of!(GptqTileGroupsParams, strips) - 36usize];
    ["Offset of field: GptqTileGroupsParams::groups"]
        [::core::mem::offset_of!(GptqTileGroupsParams, groups) - 40usize];
    ["Offset of field: GptqTileGroupsParams::arranged_groups"]
        [::core::mem::offset_of!(GptqTileGroupsParams, arranged_groups) - 44usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqTileDequantizeParams {
    pub weights: *const ::core::ffi::c_void,
    pub scales: *const ::core::ffi::c_void,
    #[doc = " Not read where zero points are built in."]
    pub zeros: *const ::core::ffi::c_void,
    #[doc = " As for GptqTileArrangeParams."]
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
    ["Size of GptqTileDequantizeParams"][::core::mem::size_of::<GptqTileDequantizeParams>() - 72usize];
    ["Alignment of GptqTileDequantizeParams"][::core::mem::align_of::<GptqTileDequantizeParams>() - 8usize];
    ["Offset of field: GptqTileDequantizeParams::weights"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, weights) - 0usize];
    ["Offset of field: GptqTileDequantizeParams::scales"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, scales) - 8usize];
    ["Offset of field: GptqTileDequantizeParams::zeros"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, zeros) - 16usize];
    ["Offset of field: GptqTileDequantizeParams::order"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, order) - 24usize];
    ["Offset of field: GptqTileDequantizeParams::out"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, out) - 32usize];
    ["Offset of field: GptqTileDequantizeParams::in_features"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, in_features) - 40usize];
    ["Offset of field: GptqTileDequantizeParams::tiles"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, tiles) - 44usize];
    ["Offset of field: GptqTileDequantizeParams::groups"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, groups) - 48usize];
    ["Offset of field: GptqTileDequantizeParams::inverse_of_group"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, inverse_of_group) - 52usize];
    ["Offset of field: GptqTileDequantizeParams::first_column"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, first_column) - 56usize];
    ["Offset of field: GptqTileDequantizeParams::columns"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, columns) - 60usize];
    ["Offset of field: GptqTileDequantizeParams::out_stride"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, out_stride) - 64usize];
    ["Offset of field: GptqTileDequantizeParams::scale_dtype"]
        [::core::mem::offset_of!(GptqTileDequantizeParams, scale_dtype) - 68usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqTileGatherParams {
    pub x: *const u16,
    pub order: *const u16,
    pub out: *mut u16,
    pub in_features: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqTileGatherParams"][::core::mem::size_of::<GptqTileGatherParams>() - 32usize];
    ["Alignment of GptqTileGatherParams"][::core::mem::align_of::<GptqTileGatherParams>() - 8usize];
    ["Offset of field: GptqTileGatherParams::x"][::core::mem::offset_of!(GptqTileGatherParams, x) - 0usize];
    ["Offset of field: GptqTileGatherParams::order"]
        [::core::mem::offset_of!(GptqTileGatherParams, order) - 8usize];
    ["Offset of field: GptqTileGatherParams::out"]
        [::core::mem::offset_of!(GptqTileGatherParams, out) - 16usize];
    ["Offset of field: GptqTileGatherParams::in_features"]
        [::core::mem::offset_of!(GptqTileGatherParams, in_features) - 24usize];
    ["Offset of field: GptqTileGatherParams::reserved"]
        [::core::mem::offset_of!(GptqTileGatherParams, reserved) - 28usize];
};
