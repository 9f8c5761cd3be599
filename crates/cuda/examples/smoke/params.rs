//! Generated from crates/kernel-build/tests/data/scale/params.h by `cargo xtask codegen`; do not edit.
#![allow(clippy::all, rustdoc::all)] // It is written for C.
#![allow(dead_code, missing_docs, unreachable_pub, unused_qualifications)]

#[doc = " Launch parameters of `gptq_test_scale_f32`: values[i] *= factor for i < count."]
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct GptqTestScaleParams {
    #[doc = " Device address of the values."]
    pub values: u64,
    #[doc = " How many there are."]
    pub count: u32,
    #[doc = " What each is multiplied with."]
    pub factor: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of GptqTestScaleParams"][::core::mem::size_of::<GptqTestScaleParams>() - 16usize];
    ["Alignment of GptqTestScaleParams"][::core::mem::align_of::<GptqTestScaleParams>() - 8usize];
    ["Offset of field: GptqTestScaleParams::values"]
        [::core::mem::offset_of!(GptqTestScaleParams, values) - 0usize];
    ["Offset of field: GptqTestScaleParams::count"]
        [::core::mem::offset_of!(GptqTestScaleParams, count) - 8usize];
    ["Offset of field: GptqTestScaleParams::factor"]
        [::core::mem::offset_of!(GptqTestScaleParams, factor) - 12usize];
};
