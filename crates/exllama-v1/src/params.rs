//! Generated from kernels/exllama_v1/params.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

pub const GPTQ_DTYPE_F32: u32 = 0;
pub const GPTQ_DTYPE_F16: u32 = 1;
pub const GPTQ_DTYPE_BF16: u32 = 2;
pub const GPTQ_EXLLAMA_V1_THREADS: u32 = 256;
pub const GPTQ_EXLLAMA_V1_DOT_COLUMNS: u32 = 32;
pub const GPTQ_EXLLAMA_V1_DOT_MOST_ROWS: u32 = 4;
pub const GPTQ_EXLLAMA_V1_RECONSTRUCT_THREADS: u32 = 128;
pub const GPTQ_EXLLAMA_V1_RECONSTRUCT_ROWS: u32 = 32;
pub const GPTQ_EXLLAMA_V1_SORT_COLUMNS: u32 = 32;
#[doc = " gptq_exllama_v1_product_m<rows>_n<columns>: out = x W + bias on tensor cores, from compute capability 7.5 on.\n\n A block has as many rows and columns as its name says. What is below one another in its columns is divided into items of\n item_rows rows of W, which product.cu says for each kernel, as it does threads and shared memory.\n Grid: x = blocks, up to as many as there are items, ceil(in_features / item_rows) * ceil(out_features / columns), and up\n to 255 for each block of columns; y = ceil(rows / rows of a block). Blocks in x share the items evenly, and need not run\n at once. Where they are as many as the blocks of columns, or divide them, neither `partial` nor `arrived` is used.\n Sums are added in an order that does not depend on time: equal launches give equal bits."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV1ProductParams {
    pub qweight: *const u32,
    pub qzeros: *const u32,
    pub scales: *const ::core::ffi::c_void,
    #[doc = " [N], or null."]
    pub bias: *const ::core::ffi::c_void,
    #[doc = " [rows, K]."]
    pub x: *const ::core::ffi::c_void,
    #[doc = " [rows, N], aligned to 2 bytes."]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " [y, x, 2, rows of a block, columns of a block], where y and x are those of the grid."]
    pub partial: *mut f32,
    #[doc = " [y, columns of all blocks / 32]: see count_arrival, and the mark of its cells."]
    pub arrived: *mut u64,
    pub arrival_mark: u64,
    pub in_features: u32,
    pub out_features: u32,
    #[doc = " Rows of a group; K where there is one group."]
    pub group_rows: u32,
    pub bias_dtype: u32,
    #[doc = " M."]
    pub rows: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV1ProductParams"][::core::mem::size_of::<GptqExllamaV1ProductParams>() - 96usize];
    ["Alignment of GptqExllamaV1ProductParams"]
        [::core::mem::align_of::<GptqExllamaV1ProductParams>() - 8usize];
    ["Offset of field: GptqExllamaV1ProductParams::qweight"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, qweight) - 0usize];
    ["Offset of field: GptqExllamaV1ProductParams::qzeros"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, qzeros) - 8usize];
    ["Offset of field: GptqExllamaV1ProductParams::scales"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, scales) - 16usize];
    ["Offset of field: GptqExllamaV1ProductParams::bias"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, bias) - 24usize];
    ["Offset of field: GptqExllamaV1ProductParams::x"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, x) - 32usize];
    ["Offset of field: GptqExllamaV1ProductParams::out"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, out) - 40usize];
    ["Offset of field: GptqExllamaV1ProductParams::partial"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, partial) - 48usize];
    ["Offset of field: GptqExllamaV1ProductParams::arrived"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, arrived) - 56usize];
    ["Offset of field: GptqExllamaV1ProductParams::arrival_mark"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, arrival_mark) - 64usize];
    ["Offset of field: GptqExllamaV1ProductParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, in_features) - 72usize];
    ["Offset of field: GptqExllamaV1ProductParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, out_features) - 76usize];
    ["Offset of field: GptqExllamaV1ProductParams::group_rows"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, group_rows) - 80usize];
    ["Offset of field: GptqExllamaV1ProductParams::bias_dtype"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, bias_dtype) - 84usize];
    ["Offset of field: GptqExllamaV1ProductParams::rows"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, rows) - 88usize];
    ["Offset of field: GptqExllamaV1ProductParams::reserved"]
        [::core::mem::offset_of!(GptqExllamaV1ProductParams, reserved) - 92usize];
};
#[doc = " gptq_exllama_v1_dot_m{1,2,4} and dot_rows_m4: the same without tensor cores, for as many rows as the name says, or\n fewer.\n\n Grid: x = 1, y = ceil(out_features / DOT_COLUMNS), z = splits. With one split it writes out; with more it writes the sums\n of each to `partial`, and gptq_exllama_v1_sum has to follow."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV1DotParams {
    pub qweight: *const u32,
    pub qzeros: *const u32,
    pub scales: *const ::core::ffi::c_void,
    #[doc = " [N], or null."]
    pub bias: *const ::core::ffi::c_void,
    #[doc = " [rows, K]."]
    pub x: *const ::core::ffi::c_void,
    #[doc = " [rows, N], aligned to 2 bytes."]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " [splits, rows, N], where splits is more than 1."]
    pub partial: *mut f32,
    pub in_features: u32,
    pub out_features: u32,
    pub group_rows: u32,
    pub bias_dtype: u32,
    pub rows: u32,
    #[doc = " Parts of K."]
    pub splits: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV1DotParams"][::core::mem::size_of::<GptqExllamaV1DotParams>() - 80usize];
    ["Alignment of GptqExllamaV1DotParams"][::core::mem::align_of::<GptqExllamaV1DotParams>() - 8usize];
    ["Offset of field: GptqExllamaV1DotParams::qweight"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, qweight) - 0usize];
    ["Offset of field: GptqExllamaV1DotParams::qzeros"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, qzeros) - 8usize];
    ["Offset of field: GptqExllamaV1DotParams::scales"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, scales) - 16usize];
    ["Offset of field: GptqExllamaV1DotParams::bias"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, bias) - 24usize];
    ["Offset of field: GptqExllamaV1DotParams::x"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, x) - 32usize];
    ["Offset of field: GptqExllamaV1DotParams::out"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, out) - 40usize];
    ["Offset of field: GptqExllamaV1DotParams::partial"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, partial) - 48usize];
    ["Offset of field: GptqExllamaV1DotParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, in_features) - 56usize];
    ["Offset of field: GptqExllamaV1DotParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, out_features) - 60usize];
    ["Offset of field: GptqExllamaV1DotParams::group_rows"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, group_rows) - 64usize];
    ["Offset of field: GptqExllamaV1DotParams::bias_dtype"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, bias_dtype) - 68usize];
    ["Offset of field: GptqExllamaV1DotParams::rows"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, rows) - 72usize];
    ["Offset of field: GptqExllamaV1DotParams::splits"]
        [::core::mem::offset_of!(GptqExllamaV1DotParams, splits) - 76usize];
};
#[doc = " gptq_exllama_v1_sum: out = the sum of `partial` over splits, plus bias.\n\n Grid: x = ceil(rows * out_features / (4 * 256))."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV1SumParams {
    pub partial: *const f32,
    pub bias: *const ::core::ffi::c_void,
    pub out: *mut ::core::ffi::c_void,
    pub rows: u32,
    pub out_features: u32,
    pub splits: u32,
    pub bias_dtype: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV1SumParams"][::core::mem::size_of::<GptqExllamaV1SumParams>() - 40usize];
    ["Alignment of GptqExllamaV1SumParams"][::core::mem::align_of::<GptqExllamaV1SumParams>() - 8usize];
    ["Offset of field: GptqExllamaV1SumParams::partial"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, partial) - 0usize];
    ["Offset of field: GptqExllamaV1SumParams::bias"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, bias) - 8usize];
    ["Offset of field: GptqExllamaV1SumParams::out"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, out) - 16usize];
    ["Offset of field: GptqExllamaV1SumParams::rows"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, rows) - 24usize];
    ["Offset of field: GptqExllamaV1SumParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, out_features) - 28usize];
    ["Offset of field: GptqExllamaV1SumParams::splits"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, splits) - 32usize];
    ["Offset of field: GptqExllamaV1SumParams::bias_dtype"]
        [::core::mem::offset_of!(GptqExllamaV1SumParams, bias_dtype) - 36usize];
};
#[doc = " gptq_exllama_v1_reconstruct and reconstruct_rows: W, or a panel of its columns, each weight rounded once.\n\n Grid: x = ceil(columns / (columns of a thread * RECONSTRUCT_THREADS)), where a thread of reconstruct has 8 columns and one\n of reconstruct_rows has 1; y = ceil(in_features / RECONSTRUCT_ROWS)."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV1ReconstructParams {
    pub qweight: *const u32,
    pub qzeros: *const u32,
    pub scales: *const ::core::ffi::c_void,
    #[doc = " [in_features, columns], rows out_stride elements apart."]
    pub out: *mut ::core::ffi::c_void,
    pub in_features: u32,
    pub out_features: u32,
    pub group_rows: u32,
    #[doc = " Where the panel begins, how wide it is, elements from row to row of out: multiples of 8."]
    pub first_column: u32,
    pub columns: u32,
    pub out_stride: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV1ReconstructParams"]
        [::core::mem::size_of::<GptqExllamaV1ReconstructParams>() - 56usize];
    ["Alignment of GptqExllamaV1ReconstructParams"]
        [::core::mem::align_of::<GptqExllamaV1ReconstructParams>() - 8usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::qweight"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, qweight) - 0usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::qzeros"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, qzeros) - 8usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::scales"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, scales) - 16usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::out"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, out) - 24usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, in_features) - 32usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, out_features) - 36usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::group_rows"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, group_rows) - 40usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::first_column"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, first_column) - 44usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::columns"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, columns) - 48usize];
    ["Offset of field: GptqExllamaV1ReconstructParams::out_stride"]
        [::core::mem::offset_of!(GptqExllamaV1ReconstructParams, out_stride) - 52usize];
};
#[doc = " gptq_exllama_v1_sort_rows: row k of `sorted` is row sorted_rows[k] of `qweight`.\n\n Grid: x = ceil(in_features / 8 / 32), y = ceil(out_features / 32)."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV1SortParams {
    pub qweight: *const u32,
    #[doc = " [K], a permutation."]
    pub sorted_rows: *const u32,
    pub sorted: *mut u32,
    pub in_features: u32,
    pub out_features: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV1SortParams"][::core::mem::size_of::<GptqExllamaV1SortParams>() - 32usize];
    ["Alignment of GptqExllamaV1SortParams"][::core::mem::align_of::<GptqExllamaV1SortParams>() - 8usize];
    ["Offset of field: GptqExllamaV1SortParams::qweight"]
        [::core::mem::offset_of!(GptqExllamaV1SortParams, qweight) - 0usize];
    ["Offset of field: GptqExllamaV1SortParams::sorted_rows"]
        [::core::mem::offset_of!(GptqExllamaV1SortParams, sorted_rows) - 8usize];
    ["Offset of field: GptqExllamaV1SortParams::sorted"]
        [::core::mem::offset_of!(GptqExllamaV1SortParams, sorted) - 16usize];
    ["Offset of field: GptqExllamaV1SortParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV1SortParams, in_features) - 24usize];
    ["Offset of field: GptqExllamaV1SortParams::out_features"]
        [::core::mem::offset_of!(GptqExllamaV1SortParams, out_features) - 28usize];
};
#[doc = " gptq_exllama_v1_gather_x: gathered[m, k] = x[m, sorted_rows[k]], or x[m, k] where sorted_rows is null.\n\n Grid: x = ceil(in_features / 8 / 256), y = rows, or as many as a grid may have, whose blocks then take several."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqExllamaV1GatherParams {
    #[doc = " [rows, K], aligned to 2 bytes."]
    pub x: *const ::core::ffi::c_void,
    pub sorted_rows: *const u32,
    pub gathered: *mut ::core::ffi::c_void,
    pub in_features: u32,
    pub rows: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqExllamaV1GatherParams"][::core::mem::size_of::<GptqExllamaV1GatherParams>() - 32usize];
    ["Alignment of GptqExllamaV1GatherParams"][::core::mem::align_of::<GptqExllamaV1GatherParams>() - 8usize];
    ["Offset of field: GptqExllamaV1GatherParams::x"]
        [::core::mem::offset_of!(GptqExllamaV1GatherParams, x) - 0usize];
    ["Offset of field: GptqExllamaV1GatherParams::sorted_rows"]
        [::core::mem::offset_of!(GptqExllamaV1GatherParams, sorted_rows) - 8usize];
    ["Offset of field: GptqExllamaV1GatherParams::gathered"]
        [::core::mem::offset_of!(GptqExllamaV1GatherParams, gathered) - 16usize];
    ["Offset of field: GptqExllamaV1GatherParams::in_features"]
        [::core::mem::offset_of!(GptqExllamaV1GatherParams, in_features) - 24usize];
    ["Offset of field: GptqExllamaV1GatherParams::rows"]
        [::core::mem::offset_of!(GptqExllamaV1GatherParams, rows) - 28usize];
};
