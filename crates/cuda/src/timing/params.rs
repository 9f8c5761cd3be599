//! Generated from kernels/limits/params.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

pub const GPTQ_LIMITS_THREADS: u32 = 512;
#[doc = " gptq_limits_read: reads everything and writes nothing."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqLimitsReadParams {
    #[doc = " Aligned to 16 bytes."]
    pub from: *const ::core::ffi::c_void,
    #[doc = " Pieces of 16 bytes."]
    pub count: u64,
    #[doc = " Written only where the bits of all that a thread reads come to a number that they do not come to."]
    pub sink: *mut u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqLimitsReadParams"][::core::mem::size_of::<GptqLimitsReadParams>() - 24usize];
    ["Alignment of GptqLimitsReadParams"][::core::mem::align_of::<GptqLimitsReadParams>() - 8usize];
    ["Offset of field: GptqLimitsReadParams::from"]
        [::core::mem::offset_of!(GptqLimitsReadParams, from) - 0usize];
    ["Offset of field: GptqLimitsReadParams::count"]
        [::core::mem::offset_of!(GptqLimitsReadParams, count) - 8usize];
    ["Offset of field: GptqLimitsReadParams::sink"]
        [::core::mem::offset_of!(GptqLimitsReadParams, sink) - 16usize];
};
#[doc = " gptq_limits_copy: copies."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqLimitsCopyParams {
    #[doc = " Both aligned to 16 bytes."]
    pub from: *const ::core::ffi::c_void,
    pub to: *mut ::core::ffi::c_void,
    #[doc = " Pieces of 16 bytes."]
    pub count: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqLimitsCopyParams"][::core::mem::size_of::<GptqLimitsCopyParams>() - 24usize];
    ["Alignment of GptqLimitsCopyParams"][::core::mem::align_of::<GptqLimitsCopyParams>() - 8usize];
    ["Offset of field: GptqLimitsCopyParams::from"]
        [::core::mem::offset_of!(GptqLimitsCopyParams, from) - 0usize];
    ["Offset of field: GptqLimitsCopyParams::to"][::core::mem::offset_of!(GptqLimitsCopyParams, to) - 8usize];
    ["Offset of field: GptqLimitsCopyParams::count"]
        [::core::mem::offset_of!(GptqLimitsCopyParams, count) - 16usize];
};
