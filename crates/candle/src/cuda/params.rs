//! Generated from kernels/decoder/params.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

pub const GPTQ_DECODER_THREADS: u32 = 256;
pub const GPTQ_DECODER_TURN_THREADS: u32 = 32;
pub const GPTQ_DECODER_DENSE_ROWS: u32 = 16;
pub const GPTQ_DECODER_MOST_WIDTH: u32 = 256;
#[doc = " gptq_decoder_embed: a row of a matrix, whatever its type. Grid: as many threads as pieces."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDecoderEmbedParams {
    #[doc = " [rows, pieces] of 16 bytes."]
    pub table: *const ::core::ffi::c_void,
    #[doc = " Which row. Aligned to 4 bytes."]
    pub token: *const u32,
    pub x: *mut ::core::ffi::c_void,
    #[doc = " Pieces of 16 bytes in a row."]
    pub pieces: u32,
    pub rows: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDecoderEmbedParams"][::core::mem::size_of::<GptqDecoderEmbedParams>() - 32usize];
    ["Alignment of GptqDecoderEmbedParams"][::core::mem::align_of::<GptqDecoderEmbedParams>() - 8usize];
    ["Offset of field: GptqDecoderEmbedParams::table"]
        [::core::mem::offset_of!(GptqDecoderEmbedParams, table) - 0usize];
    ["Offset of field: GptqDecoderEmbedParams::token"]
        [::core::mem::offset_of!(GptqDecoderEmbedParams, token) - 8usize];
    ["Offset of field: GptqDecoderEmbedParams::x"]
        [::core::mem::offset_of!(GptqDecoderEmbedParams, x) - 16usize];
    ["Offset of field: GptqDecoderEmbedParams::pieces"]
        [::core::mem::offset_of!(GptqDecoderEmbedParams, pieces) - 24usize];
    ["Offset of field: GptqDecoderEmbedParams::rows"]
        [::core::mem::offset_of!(GptqDecoderEmbedParams, rows) - 28usize];
};
#[doc = " gptq_decoder_norm_<type>: x += delta, then out = x / sqrt(mean(x^2) + eps) * weight. Grid: x = rows."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDecoderNormParams {
    #[doc = " T [rows, width]."]
    pub x: *mut ::core::ffi::c_void,
    #[doc = " T [rows, width], or null: then x stays as it is."]
    pub delta: *const ::core::ffi::c_void,
    #[doc = " T [width]. No kernel writes it."]
    pub weight: *const ::core::ffi::c_void,
    #[doc = " T [rows, width]."]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " A multiple of E."]
    pub width: u32,
    pub eps: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDecoderNormParams"][::core::mem::size_of::<GptqDecoderNormParams>() - 40usize];
    ["Alignment of GptqDecoderNormParams"][::core::mem::align_of::<GptqDecoderNormParams>() - 8usize];
    ["Offset of field: GptqDecoderNormParams::x"][::core::mem::offset_of!(GptqDecoderNormParams, x) - 0usize];
    ["Offset of field: GptqDecoderNormParams::delta"]
        [::core::mem::offset_of!(GptqDecoderNormParams, delta) - 8usize];
    ["Offset of field: GptqDecoderNormParams::weight"]
        [::core::mem::offset_of!(GptqDecoderNormParams, weight) - 16usize];
    ["Offset of field: GptqDecoderNormParams::out"]
        [::core::mem::offset_of!(GptqDecoderNormParams, out) - 24usize];
    ["Offset of field: GptqDecoderNormParams::width"]
        [::core::mem::offset_of!(GptqDecoderNormParams, width) - 32usize];
    ["Offset of field: GptqDecoderNormParams::eps"]
        [::core::mem::offset_of!(GptqDecoderNormParams, eps) - 36usize];
};
#[doc = " gptq_decoder_turn_<type>: norms the heads of queries and keys where there are norms, turns them as their position says, and\n puts keys and values into the cache. No kernel writes norms, angles and the position. Grid: x = heads + 2 groups."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDecoderTurnParams {
    #[doc = " T [heads, width]."]
    pub q: *const ::core::ffi::c_void,
    #[doc = " T [groups, width]."]
    pub k: *const ::core::ffi::c_void,
    pub v: *const ::core::ffi::c_void,
    #[doc = " T [width], or null, both of them."]
    pub q_norm: *const ::core::ffi::c_void,
    pub k_norm: *const ::core::ffi::c_void,
    #[doc = " [capacity, width / 2]."]
    pub cosines: *const f32,
    pub sines: *const f32,
    #[doc = " Which row of the cache this token is. Aligned to 4 bytes."]
    pub position: *const u32,
    #[doc = " T [heads, width]."]
    pub turned: *mut ::core::ffi::c_void,
    #[doc = " T [groups, capacity, width]."]
    pub keys: *mut ::core::ffi::c_void,
    pub values: *mut ::core::ffi::c_void,
    pub heads: u32,
    pub groups: u32,
    #[doc = " Even, at most GPTQ_DECODER_MOST_WIDTH."]
    pub width: u32,
    pub capacity: u32,
    pub eps: f32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDecoderTurnParams"][::core::mem::size_of::<GptqDecoderTurnParams>() - 112usize];
    ["Alignment of GptqDecoderTurnParams"][::core::mem::align_of::<GptqDecoderTurnParams>() - 8usize];
    ["Offset of field: GptqDecoderTurnParams::q"][::core::mem::offset_of!(GptqDecoderTurnParams, q) - 0usize];
    ["Offset of field: GptqDecoderTurnParams::k"][::core::mem::offset_of!(GptqDecoderTurnParams, k) - 8usize];
    ["Offset of field: GptqDecoderTurnParams::v"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, v) - 16usize];
    ["Offset of field: GptqDecoderTurnParams::q_norm"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, q_norm) - 24usize];
    ["Offset of field: GptqDecoderTurnParams::k_norm"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, k_norm) - 32usize];
    ["Offset of field: GptqDecoderTurnParams::cosines"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, cosines) - 40usize];
    ["Offset of field: GptqDecoderTurnParams::sines"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, sines) - 48usize];
    ["Offset of field: GptqDecoderTurnParams::position"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, position) - 56usize];
    ["Offset of field: GptqDecoderTurnParams::turned"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, turned) - 64usize];
    ["Offset of field: GptqDecoderTurnParams::keys"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, keys) - 72usize];
    ["Offset of field: GptqDecoderTurnParams::values"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, values) - 80usize];
    ["Offset of field: GptqDecoderTurnParams::heads"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, heads) - 88usize];
    ["Offset of field: GptqDecoderTurnParams::groups"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, groups) - 92usize];
    ["Offset of field: GptqDecoderTurnParams::width"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, width) - 96usize];
    ["Offset of field: GptqDecoderTurnParams::capacity"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, capacity) - 100usize];
    ["Offset of field: GptqDecoderTurnParams::eps"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, eps) - 104usize];
    ["Offset of field: GptqDecoderTurnParams::reserved"]
        [::core::mem::offset_of!(GptqDecoderTurnParams, reserved) - 108usize];
};
#[doc = " gptq_decoder_attend_<type>: attention of one query of each head to the keys in the cache, up to its own position. Grid:\n x = heads, y = splits: blocks in y share the keys. Sums are added in an order that does not depend on time. No kernel writes\n the position."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDecoderAttendParams {
    #[doc = " T [heads, width]."]
    pub q: *const ::core::ffi::c_void,
    #[doc = " T [groups, capacity, width]."]
    pub keys: *const ::core::ffi::c_void,
    pub values: *const ::core::ffi::c_void,
    #[doc = " Aligned to 4 bytes."]
    pub position: *const u32,
    #[doc = " T [heads, width]."]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " [heads, splits, width + 2], where splits is more than 1."]
    pub partial: *mut f32,
    #[doc = " A cell for each head, where splits is more than 1: see count_arrival."]
    pub arrived: *mut u64,
    pub arrival_mark: u64,
    pub heads: u32,
    pub groups: u32,
    #[doc = " E, 2 E, 4 E .. 32 E, at most GPTQ_DECODER_MOST_WIDTH."]
    pub width: u32,
    pub capacity: u32,
    #[doc = " How many keys a query sees, its own among them; 0 for all."]
    pub window: u32,
    #[doc = " Up to 255."]
    pub splits: u32,
    #[doc = " What scores are multiplied with."]
    pub scale: f32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDecoderAttendParams"][::core::mem::size_of::<GptqDecoderAttendParams>() - 96usize];
    ["Alignment of GptqDecoderAttendParams"][::core::mem::align_of::<GptqDecoderAttendParams>() - 8usize];
    ["Offset of field: GptqDecoderAttendParams::q"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, q) - 0usize];
    ["Offset of field: GptqDecoderAttendParams::keys"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, keys) - 8usize];
    ["Offset of field: GptqDecoderAttendParams::values"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, values) - 16usize];
    ["Offset of field: GptqDecoderAttendParams::position"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, position) - 24usize];
    ["Offset of field: GptqDecoderAttendParams::out"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, out) - 32usize];
    ["Offset of field: GptqDecoderAttendParams::partial"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, partial) - 40usize];
    ["Offset of field: GptqDecoderAttendParams::arrived"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, arrived) - 48usize];
    ["Offset of field: GptqDecoderAttendParams::arrival_mark"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, arrival_mark) - 56usize];
    ["Offset of field: GptqDecoderAttendParams::heads"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, heads) - 64usize];
    ["Offset of field: GptqDecoderAttendParams::groups"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, groups) - 68usize];
    ["Offset of field: GptqDecoderAttendParams::width"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, width) - 72usize];
    ["Offset of field: GptqDecoderAttendParams::capacity"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, capacity) - 76usize];
    ["Offset of field: GptqDecoderAttendParams::window"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, window) - 80usize];
    ["Offset of field: GptqDecoderAttendParams::splits"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, splits) - 84usize];
    ["Offset of field: GptqDecoderAttendParams::scale"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, scale) - 88usize];
    ["Offset of field: GptqDecoderAttendParams::reserved"]
        [::core::mem::offset_of!(GptqDecoderAttendParams, reserved) - 92usize];
};
#[doc = " gptq_decoder_gate_<type>: out = silu(gate) * up, elementwise. Grid: as many threads as pieces."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDecoderGateParams {
    #[doc = " T [pieces, E]"]
    pub gate: *const ::core::ffi::c_void,
    pub up: *const ::core::ffi::c_void,
    pub out: *mut ::core::ffi::c_void,
    pub pieces: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDecoderGateParams"][::core::mem::size_of::<GptqDecoderGateParams>() - 32usize];
    ["Alignment of GptqDecoderGateParams"][::core::mem::align_of::<GptqDecoderGateParams>() - 8usize];
    ["Offset of field: GptqDecoderGateParams::gate"]
        [::core::mem::offset_of!(GptqDecoderGateParams, gate) - 0usize];
    ["Offset of field: GptqDecoderGateParams::up"]
        [::core::mem::offset_of!(GptqDecoderGateParams, up) - 8usize];
    ["Offset of field: GptqDecoderGateParams::out"]
        [::core::mem::offset_of!(GptqDecoderGateParams, out) - 16usize];
    ["Offset of field: GptqDecoderGateParams::pieces"]
        [::core::mem::offset_of!(GptqDecoderGateParams, pieces) - 24usize];
    ["Offset of field: GptqDecoderGateParams::reserved"]
        [::core::mem::offset_of!(GptqDecoderGateParams, reserved) - 28usize];
};
#[doc = " gptq_decoder_dense_<type>: out = W x + bias, for one x. Grid: x = ceil(out_features / GPTQ_DECODER_DENSE_ROWS)."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqDecoderDenseParams {
    #[doc = " T [out_features, in_features]. No kernel writes it."]
    pub weight: *const ::core::ffi::c_void,
    #[doc = " T [out_features], or null."]
    pub bias: *const ::core::ffi::c_void,
    #[doc = " T [in_features]."]
    pub x: *const ::core::ffi::c_void,
    #[doc = " [out_features]: f32 where out_is_f32 is not 0, T otherwise."]
    pub out: *mut ::core::ffi::c_void,
    #[doc = " A multiple of E."]
    pub in_features: u32,
    pub out_features: u32,
    pub out_is_f32: u32,
    pub reserved: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqDecoderDenseParams"][::core::mem::size_of::<GptqDecoderDenseParams>() - 48usize];
    ["Alignment of GptqDecoderDenseParams"][::core::mem::align_of::<GptqDecoderDenseParams>() - 8usize];
    ["Offset of field: GptqDecoderDenseParams::weight"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, weight) - 0usize];
    ["Offset of field: GptqDecoderDenseParams::bias"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, bias) - 8usize];
    ["Offset of field: GptqDecoderDenseParams::x"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, x) - 16usize];
    ["Offset of field: GptqDecoderDenseParams::out"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, out) - 24usize];
    ["Offset of field: GptqDecoderDenseParams::in_features"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, in_features) - 32usize];
    ["Offset of field: GptqDecoderDenseParams::out_features"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, out_features) - 36usize];
    ["Offset of field: GptqDecoderDenseParams::out_is_f32"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, out_is_f32) - 40usize];
    ["Offset of field: GptqDecoderDenseParams::reserved"]
        [::core::mem::offset_of!(GptqDecoderDenseParams, reserved) - 44usize];
};
