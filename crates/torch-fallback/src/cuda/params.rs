//! Generated from kernels/dequantize/params.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

pub const GPTQ_DTYPE_F32: u32 = 0;
pub const GPTQ_DTYPE_F16: u32 = 1;
pub const GPTQ_DTYPE_BF16: u32 = 2;
pub const GPTQ_DEQUANTIZE_BLOCKS_THREADS: u32 = 128;
pub const GPTQ_DEQUANTIZE_ROWS_THREADS: u32 = 128;
pub const GPTQ_DEQUANTIZE_DOT_THREADS: u32 = 256;
pub const GPTQ_DEQUANTIZE_SUM_THREADS: u32 = 256;
pub const GPTQ_DEQUANTIZE_SORT_THREADS: u32 = 256;
pub const GPTQ_DEQUANTIZE_GATHER_THREADS: u32 = 128;
pub const GPTQ_DEQUANTIZE_TILE_ROWS: u32 = 32;
pub const GPTQ_DEQUANTIZE_ROWS_COLUMNS: u32 = 128;
pub const GPTQ_DEQUANTIZE_DOT_COLUMNS: u32 = 32;
pub const GPTQ_DEQUANTIZE_DOT_MOST_ROWS: u32 = 4;
#[doc = " gptq_dequantize_{blocks,rows}_<format>_<out dtype>: out[k, n - first_column] = scale * (code - zero), rounded once, for\n a panel of columns of W.\n\n Grid of `blocks`: x = ceil(columns / (128 * (16 / bytes of an output))), y = K / 32.\n Grid of `rows`:   x = ceil(columns / 128), y = ceil(K / 32)."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDequantizeParams {
    pub qweight: *const u32,
    pub qzeros: *const u32,
    pub scales: *const ::core::ffi::c_void,
    #[doc = " [K], the group of each row; null where g_idx_bytes is 0."]
    pub g_idx: *const ::core::ffi::c_void,
    #[doc = " [K], the row of W that each row of qweight is; null where it is the same."]
    pub w_rows: *const u32,
    #[doc = " [K, columns] with out_stride elements from row to row."]
    pub out: *mut ::core::ffi::c_void,
    pub in_features: u32,
    pub out_features: u32,
    #[doc = " Rows of a group; K where there is one group. The last group may have fewer."]
    pub group_rows: u32,
    #[doc = " The first column that is wanted, and how many."]
    pub first_column: u32,
    pub columns: u32,
    pub out_stride: u32,
    pub scale_dtype: u32,
    #[doc = " 0: groups are consecutive rows. 2: g_idx is uint16_t, 4: uint32_t."]
    pub g_idx_bytes: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDequantizeParams"][::core::mem::size_of::<GptqDequantizeParams>() - 80usize];
    ["Alignment of GptqDequantizeParams"][::core::mem::align_of::<GptqDequantizeParams>() - 8usize];
    ["Offset of field: GptqDequantizeParams::qweight"]
        [::core::mem::offset_of!(GptqDequantizeParams, qweight) - 0usize];
    ["Offset of field: GptqDequantizeParams::qzeros"]
        [::core::mem::offset_of!(GptqDequantizeParams, qzeros) - 8usize];
    ["Offset of field: GptqDequantizeParams::scales"]
        [::core::mem::offset_of!(GptqDequantizeParams, scales) - 16usize];
    ["Offset of field: GptqDequantizeParams::g_idx"]
        [::core::mem::offset_of!(GptqDequantizeParams, g_idx) - 24usize];
    ["Offset of field: GptqDequantizeParams::w_rows"]
        [::core::mem::offset_of!(GptqDequantizeParams, w_rows) - 32usize];
    ["Offset of field: GptqDequantizeParams::out"]
        [::core::mem::offset_of!(GptqDequantizeParams, out) - 40usize];
    ["Offset of field: GptqDequantizeParams::in_features"]
        [::core::mem::offset_of!(GptqDequantizeParams, in_features) - 48usize];
    ["Offset of field: GptqDequantizeParams::out_features"]
        [::core::mem::offset_of!(GptqDequantizeParams, out_features) - 52usize];
    ["Offset of field: GptqDequantizeParams::group_rows"]
        [::core::mem::offset_of!(GptqDequantizeParams, group_rows) - 56usize];
    ["Offset of field: GptqDequantizeParams::first_column"]
        [::core::mem::offset_of!(GptqDequantizeParams, first_column) - 60usize];
    ["Offset of field: GptqDequantizeParams::columns"]
        [::core::mem::offset_of!(GptqDequantizeParams, columns) - 64usize];
    ["Offset of field: GptqDequantizeParams::out_stride"]
        [::core::mem::offset_of!(GptqDequantizeParams, out_stride) - 68usize];
    ["Offset of field: GptqDequantizeParams::scale_dtype"]
        [::core::mem::offset_of!(GptqDequantizeParams, scale_dtype) - 72usize];
    ["Offset of field: GptqDequantizeParams::g_idx_bytes"]
        [::core::mem::offset_of!(GptqDequantizeParams, g_idx_bytes) - 76usize];
};
#[doc = " gptq_dequantize_sort_<format>: row i of `sorted` is row w_rows[i] of qweight. K is a multiple of 32.\n\n Grid: x = ceil(N / 256), y = K / 32."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDequantizeSortParams {
    pub qweight: *const u32,
    pub w_rows: *const u32,
    #[doc = " As qweight, elsewhere."]
    pub sorted: *mut u32,
    pub out_features: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDequantizeSortParams"][::core::mem::size_of::<GptqDequantizeSortParams>() - 32usize];
    ["Alignment of GptqDequantizeSortParams"][::core::mem::align_of::<GptqDequantizeSortParams>() - 8usize];
    ["Offset of field: GptqDequantizeSortParams::qweight"]
        [::core::mem::offset_of!(GptqDequantizeSortParams, qweight) - 0usize];
    ["Offset of field: GptqDequantizeSortParams::w_rows"]
        [::core::mem::offset_of!(GptqDequantizeSortParams, w_rows) - 8usize];
    ["Offset of field: GptqDequantizeSortParams::sorted"]
        [::core::mem::offset_of!(GptqDequantizeSortParams, sorted) - 16usize];
    ["Offset of field: GptqDequantizeSortParams::out_features"]
        [::core::mem::offset_of!(GptqDequantizeSortParams, out_features) - 24usize];
};
#[doc = " gptq_dequantize_gather_{16,32}bit: gathered[m, i] = x[m, w_rows[i]].\n\n Grid: x = ceil(K / 128), y = rows."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDequantizeGatherParams {
    pub w_rows: *const u32,
    #[doc = " [rows, K], both."]
    pub x: *const ::core::ffi::c_void,
    pub gathered: *mut ::core::ffi::c_void,
    pub in_features: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDequantizeGatherParams"][::core::mem::size_of::<GptqDequantizeGatherParams>() - 32usize];
    ["Alignment of GptqDequantizeGatherParams"]
        [::core::mem::align_of::<GptqDequantizeGatherParams>() - 8usize];
    ["Offset of field: GptqDequantizeGatherParams::w_rows"]
        [::core::mem::offset_of!(GptqDequantizeGatherParams, w_rows) - 0usize];
    ["Offset of field: GptqDequantizeGatherParams::x"]
        [::core::mem::offset_of!(GptqDequantizeGatherParams, x) - 8usize];
    ["Offset of field: GptqDequantizeGatherParams::gathered"]
        [::core::mem::offset_of!(GptqDequantizeGatherParams, gathered) - 16usize];
    ["Offset of field: GptqDequantizeGatherParams::in_features"]
        [::core::mem::offset_of!(GptqDequantizeGatherParams, in_features) - 24usize];
};
#[doc = " gptq_dequantize_dot_{blocks,rows}_<format>_<x dtype>_m<rows of x at most>: out = x W + bias, out and x of one type.\n\n Grid: x = ceil(out_features / 32), y = splits. With one split the kernel writes out; with more it writes the sums of\n each to `partial`, and gptq_dequantize_sum_<x dtype> has to follow. Sums are added in an order that does not depend on\n time: equal launches give equal bits.\n\n Of a layer whose rows were sorted, `rows` finds the elements of x by w_rows; `blocks` has no such pointer to read and\n takes x gathered."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDequantizeDotParams {
    pub qweight: *const u32,
    pub qzeros: *const u32,
    pub scales: *const ::core::ffi::c_void,
    #[doc = " As above."]
    pub g_idx: *const ::core::ffi::c_void,
    pub w_rows: *const u32,
    #[doc = " [N], or null."]
    pub bias: *const ::core::ffi::c_void,
    #[doc = " [rows, K]."]
    pub x: *const ::core::ffi::c_void,
    #[doc = " [rows, N]."]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " [splits, rows, N], where splits is more than 1."]
    pub partial: *mut f32,
    pub in_features: u32,
    pub out_features: u32,
    pub group_rows: u32,
    pub scale_dtype: u32,
    pub bias_dtype: u32,
    pub g_idx_bytes: u32,
    #[doc = " M: 1 to the number in the kernel's name."]
    pub rows: u32,
    #[doc = " Parts of K; each has ceil(ceil(K / 32) / splits) tiles of 32 rows, the last ones fewer or none."]
    pub splits: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDequantizeDotParams"][::core::mem::size_of::<GptqDequantizeDotParams>() - 104usize];
    ["Alignment of GptqDequantizeDotParams"][::core::mem::align_of::<GptqDequantizeDotParams>() - 8usize];
    ["Offset of field: GptqDequantizeDotParams::qweight"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, qweight) - 0usize];
    ["Offset of field: GptqDequantizeDotParams::qzeros"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, qzeros) - 8usize];
    ["Offset of field: GptqDequantizeDotParams::scales"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, scales) - 16usize];
    ["Offset of field: GptqDequantizeDotParams::g_idx"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, g_idx) - 24usize];
    ["Offset of field: GptqDequantizeDotParams::w_rows"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, w_rows) - 32usize];
    ["Offset of field: GptqDequantizeDotParams::bias"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, bias) - 40usize];
    ["Offset of field: GptqDequantizeDotParams::x"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, x) - 48usize];
    ["Offset of field: GptqDequantizeDotParams::out"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, out) - 56usize];
    ["Offset of field: GptqDequantizeDotParams::partial"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, partial) - 64usize];
    ["Offset of field: GptqDequantizeDotParams::in_features"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, in_features) - 72usize];
    ["Offset of field: GptqDequantizeDotParams::out_features"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, out_features) - 76usize];
    ["Offset of field: GptqDequantizeDotParams::group_rows"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, group_rows) - 80usize];
    ["Offset of field: GptqDequantizeDotParams::scale_dtype"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, scale_dtype) - 84usize];
    ["Offset of field: GptqDequantizeDotParams::bias_dtype"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, bias_dtype) - 88usize];
    ["Offset of field: GptqDequantizeDotParams::g_idx_bytes"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, g_idx_bytes) - 92usize];
    ["Offset of field: GptqDequantizeDotParams::rows"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, rows) - 96usize];
    ["Offset of field: GptqDequantizeDotParams::splits"]
        [::core::mem::offset_of!(GptqDequantizeDotParams, splits) - 100usize];
};
#[doc = " gptq_dequantize_sum_<out dtype>: out = the sum of `partial` over splits, plus bias, rounded once.\n\n Grid: x = ceil(rows * columns / 256)."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDequantizeSumParams {
    #[doc = " [splits, rows, columns]."]
    pub partial: *const f32,
    #[doc = " [columns], or null."]
    pub bias: *const ::core::ffi::c_void,
    #[doc = " [rows, columns] with out_stride elements from row to row."]
    pub out: *mut ::core::ffi::c_void,
    pub rows: u32,
    pub columns: u32,
    pub out_stride: u32,
    pub splits: u32,
    pub bias_dtype: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDequantizeSumParams"][::core::mem::size_of::<GptqDequantizeSumParams>() - 48usize];
    ["Alignment of GptqDequantizeSumParams"][::core::mem::align_of::<GptqDequantizeSumParams>() - 8usize];
    ["Offset of field: GptqDequantizeSumParams::partial"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, partial) - 0usize];
    ["Offset of field: GptqDequantizeSumParams::bias"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, bias) - 8usize];
    ["Offset of field: GptqDequantizeSumParams::out"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, out) - 16usize];
    ["Offset of field: GptqDequantizeSumParams::rows"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, rows) - 24usize];
    ["Offset of field: GptqDequantizeSumParams::columns"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, columns) - 28usize];
    ["Offset of field: GptqDequantizeSumParams::out_stride"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, out_stride) - 32usize];
    ["Offset of field: GptqDequantizeSumParams::splits"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, splits) - 36usize];
    ["Offset of field: GptqDequantizeSumParams::bias_dtype"]
        [::core::mem::offset_of!(GptqDequantizeSumParams, bias_dtype) - 40usize];
};
