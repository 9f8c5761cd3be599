//! Runs CUDA kernels on the CPU, for tests: no GPU, no toolkit, and faults that a GPU does not show.
//!
//! The `.cu` files of `kernels/` are compiled here as C++ against a header that gives CUDA's words a meaning on the
//! CPU: a thread is a fiber, `__syncthreads` a place where fibers wait for one another. A launch runs block by block,
//! the fibers of each in an order that a seed decides, and either ends or stops at the first [`Fault`].
//!
//! What is found: reads and writes outside of registered memory, misaligned vectors, values that nobody wrote, races
//! within a block and between blocks, data of a `cp.async` that was not waited for, barriers and warp operations that
//! not all threads reach. Each with kernel, block, thread, address, and the line of the kernel.
//!
//! ```
//! # #[cfg(not(emulated))] fn main() {} // No C++ compiler.
//! # #[cfg(emulated)] fn main() -> Result<(), gptq_emulator::Fault> {
//! use gptq_emulator::{Buffer, Kernel, Launch};
//!
//! /// tests/kernels/warp.cu: eight operations of one warp, for each of its lanes.
//! #[derive(Clone, Copy)]
//! #[repr(C)]
//! struct Lanes { from: *const u32, to: *mut u32 }
//!
//! let from = Buffer::input("from", &[7u32; 32]);
//! let to = Buffer::<u32>::output("to", 32 * 8);
//! let launch = Launch {
//!     kernel: Kernel::named("gptq_test_lanes")?,
//!     grid: [1, 1, 1],
//!     block: [32, 1, 1],
//!     shared_bytes: 0,
//!     params: Lanes { from: from.address(), to: to.address_mut() },
//! };
//! launch.run(0)?; // The threads in an order that the seed decides; what they do wrong is a Fault.
//! assert_eq!(to.to_vec()[..4], [7, 7, 7, 7]);
//! # Ok(()) }
//! ```
//!
//! # Choices, and their price
//!
//! - **Hooks on every access instead of wrapper types.** Kernels are compiled with `-fsanitize=thread`, and the functions
//!   that this makes them call are the emulator's own. Raw pointers work unchanged, races are found in whatever order
//!   the fibers ran, and bounds, values and copies are checked by the same shadow. AddressSanitizer over guarded
//!   buffers would find the bounds only, at more cost and under the host's names. The price: the runtime itself is
//!   compiled apart, and vector loads go through `ptx.cuh`, where their alignment is checked.
//! - **Fibers change only where threads meet.** What a race would do is not simulated, it is detected.
//! - **Blocks run one after another.** A kernel whose blocks wait for one another cannot run here.
//!
//! # What it does not promise
//!
//! Nothing about speed, and nothing about what only one architecture has: `wgmma`, bulk copies and clusters are tested
//! on a GPU. Launches do not overlap: one is over before the next begins, `wait_for_earlier_kernels` is nothing here, and
//! a kernel that lacks it passes. Of atomics only `count_arrival` orders blocks, and `__threadfence` orders nothing. Sums
//! of tensor cores are exact before they are rounded to f32; a GPU's are not.

#[cfg(emulated)]
mod buffer;
#[cfg(emulated)]
mod fault;
#[cfg(emulated)]
mod ffi;
#[cfg(emulated)]
mod launch;

#[cfg(emulated)]
pub use buffer::Buffer;
#[cfg(emulated)]
pub use fault::{Fault, FaultReport, Place, Region, Thread, What};
#[cfg(emulated)]
pub use launch::{Disagreement, Kernel, Launch, in_orders};

#[cfg(all(test, not(emulated)))]
mod tests {
    #[test]
    fn there_is_a_compiler_to_test_kernels_with() {
        panic!(
            "kernels are tested by compiling them as C++, and that failed: {}. Install a C++17 compiler with \
             _Float16 (Debian and Ubuntu: apt-get install g++, version 12 or later), or name one in CXX, then run \
             `cargo clean -p gptq-emulator` and test again.",
            env!("GPTQ_EMULATOR_MISSING")
        );
    }
}
