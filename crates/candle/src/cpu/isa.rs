//! Loops compiled for several instruction sets, and which of them a processor runs.
//!
//! A body is plain Rust over arrays of [`LANES`] numbers, which the compiler turns into vectors. It is generic over
//! an [`Isa`], which holds the two things that the compiler does not find by itself: fused multiply-add, and the
//! conversion of f16. [`vectorized!`] makes an instance for each instruction set, and a function that picks one.

use half::{bf16, f16};

/// Numbers that a body treats as one.
pub(crate) const LANES: usize = 16;

/// What the bodies of [`vectorized!`] ask of an instruction set.
pub(crate) trait Isa {
    /// `a · b + c`.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;

    /// Widened, exactly.
    fn widen(values: &[f16; LANES]) -> [f32; LANES];

    /// The sum of the lanes, pairwise.
    fn sum(lanes: [f32; LANES]) -> f32;

    /// Asks for the cache line `bytes` behind `from`, whatever is there.
    fn prefetch<T>(from: &T, bytes: usize);
}

/// What every processor has.
pub(crate) struct Plain;

impl Isa for Plain {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }

    #[inline(always)]
    fn widen(values: &[f16; LANES]) -> [f32; LANES] {
        values.map(f16::to_f32)
    }

    #[inline(always)]
    fn sum(mut lanes: [f32; LANES]) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    #[inline(always)]
    fn prefetch<T>(_: &T, _: usize) {}
}

/// FMA and F16C, with AVX2 or AVX-512. Only named inside functions that are compiled for them.
#[cfg(target_arch = "x86_64")]
pub(crate) struct Fused;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "calls instructions that not every processor has")]
impl Isa for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn widen(values: &[f16; LANES]) -> [f32; LANES] {
        use std::arch::x86_64::{__m256, _mm_loadu_si128, _mm256_cvtph_ps};
        let (halves, _) = values.as_chunks::<{ LANES / 2 }>();
        let mut widened: [__m256; 2] = bytemuck::Zeroable::zeroed();
        for (widened, half) in widened.iter_mut().zip(halves) {
            // SAFETY: `half` is 16 bytes to read. Only bodies of `vectorized!` name `Fused`, inside functions that are
            // called where the processor has F16C.
            *widened = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(half.as_ptr().cast())) };
        }
        bytemuck::cast(widened)
    }

    #[inline(always)]
    fn sum(lanes: [f32; LANES]) -> f32 {
        use std::arch::x86_64::*;
        let [low, high]: [__m256; 2] = bytemuck::cast(lanes);
        // SAFETY: as above, of AVX.
        unsafe {
            let eight = _mm256_add_ps(low, high);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn prefetch<T>(from: &T, bytes: usize) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program sees, and of an address where nothing is it does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(from).cast::<i8>().wrapping_add(bytes)) };
    }
}

/// A type in which weights and caches are stored.
pub(crate) trait Stored: gptq_core::tensor::Element {
    /// Widened, exactly.
    fn load<I: Isa>(values: &[Self; LANES]) -> [f32; LANES];
}

impl Stored for f32 {
    #[inline(always)]
    fn load<I: Isa>(values: &[Self; LANES]) -> [f32; LANES] {
        *values
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn load<I: Isa>(values: &[Self; LANES]) -> [f32; LANES] {
        I::widen(values)
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<I: Isa>(values: &[Self; LANES]) -> [f32; LANES] {
        values.map(|value| f32::from_bits(u32::from(value.to_bits()) << 16))
    }
}

/// Makes `fn $name` of a body that is generic over an [`Isa`]: compiled for AVX-512, for AVX2 and for every
/// processor, and called for the best that this one has.
macro_rules! vectorized {
    ($(#[$doc:meta])* pub(crate) fn $name:ident $(<$T:ident: $Bound:ident>)? ($($arg:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(unsafe_code, reason = "calls a function compiled for more than the baseline, once the processor was asked")]
        pub(crate) fn $name $(<$T: $Bound>)? ($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
                fn avx512 $(<$T: $Bound>)? ($($arg: $type),*) {
                    $body::<$crate::cpu::isa::Fused $(, $T)?>($($arg),*);
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2 $(<$T: $Bound>)? ($($arg: $type),*) {
                    $body::<$crate::cpu::isa::Fused $(, $T)?>($($arg),*);
                }
                match $crate::cpu::isa::level() {
                    // SAFETY: the processor has the features of the level that it was found to have.
                    $crate::cpu::isa::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::isa::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::cpu::isa::Level::Plain => {}
                }
            }
            $body::<$crate::cpu::isa::Plain $(, $T)?>($($arg),*);
        }
    };
}
pub(crate) use vectorized;

/// The instruction sets that bodies are compiled for.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Plain,
    Avx2,
    Avx512,
}

/// The best that this processor has. The standard library asks it once.
#[cfg(target_arch = "x86_64")]
pub(crate) fn level() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Plain,
    }
}
