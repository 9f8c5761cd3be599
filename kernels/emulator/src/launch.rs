//! Kernels and launches.

use std::fmt;

use crate::fault::Fault;
use crate::ffi::{self, Index, KernelEntry};

/// A kernel of this program, by the name of its `__global__` function.
#[derive(Clone, Copy)]
pub struct Kernel(&'static KernelEntry);

impl Kernel {
    /// The kernel of that name.
    ///
    /// # Errors
    /// Where no source that the emulator compiles defines it.
    pub fn named(name: &str) -> Result<Self, Fault> {
        Self::all().find(|kernel| kernel.name() == name).ok_or_else(|| {
            Fault::refused(
                name,
                "there is no such kernel; is its folder listed in kernels/emulator/build.rs?",
            )
        })
    }

    /// All kernels, in no order.
    pub fn all() -> impl Iterator<Item = Self> {
        ffi::kernels().map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One launch: what `<<<grid, block, shared_bytes>>>(params)` says.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "written as a literal; these are what a launch has")]
pub struct Launch<P> {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: usize,
    /// The kernel's one struct of parameters, laid out as in its `params.h`.
    pub params: P,
}

/// What a block may have at most on the GPUs that the kernels are for (compute capability 9.0).
const MOST_SHARED_BYTES: usize = 227 * 1024;

impl<P: Copy> Launch<P> {
    /// Runs all blocks on this thread. Seed 0 runs blocks and threads in order, any other in an order of its own.
    ///
    /// # Errors
    /// The first thing that the kernel does wrong, or why the launch is refused.
    pub fn run(&self, seed: u64) -> Result<(), Fault> {
        let name = self.kernel.name();
        if size_of::<P>() != self.kernel.0.params_bytes() {
            return Err(Fault::refused(
                name,
                format!(
                    "it takes {} bytes of parameters and was given {}: does the struct match params.h?",
                    self.kernel.0.params_bytes(),
                    size_of::<P>()
                ),
            ));
        }
        let threads = self.block.iter().fold(1u32, |all, &threads| all.saturating_mul(threads));
        if threads == 0 || threads > self.kernel.0.most_threads() {
            return Err(Fault::refused(
                name,
                format!(
                    "a block has 1 to {} threads, and {threads} were asked for",
                    self.kernel.0.most_threads()
                ),
            ));
        }
        let [_, y, z] = self.grid;
        if self.grid.contains(&0) || y > 65535 || z > 65535 {
            return Err(Fault::refused(name, format!("no GPU launches a grid of {:?}", self.grid)));
        }
        if self.shared_bytes > MOST_SHARED_BYTES {
            return Err(Fault::refused(
                name,
                format!("{} bytes of shared memory are more than {MOST_SHARED_BYTES}", self.shared_bytes),
            ));
        }
        ffi::run(self.kernel.0, &self.params, index(self.grid), index(self.block), self.shared_bytes, seed)
            .map_err(|raw| Fault::from_raw(name, &raw))
    }
}

fn index([x, y, z]: [u32; 3]) -> Index {
    Index { x, y, z }
}

/// Runs a piece of work once for each seed and compares what comes out, bit by bit where `T` is bytes.
///
/// # Errors
/// The first fault, or two seeds whose results differ: a race, or a sum whose order is not fixed.
pub fn in_orders<T: PartialEq>(
    seeds: impl IntoIterator<Item = u64>,
    work: impl Fn(u64) -> Result<T, Fault>,
) -> Result<Option<T>, Disagreement> {
    let mut first: Option<(u64, T)> = None;
    for seed in seeds {
        let result = work(seed).map_err(|fault| Disagreement::Fault { seed, fault })?;
        match &first {
            Some((other, expected)) if *expected != result => {
                return Err(Disagreement::Results { seeds: [*other, seed] });
            }
            Some(_) => {}
            None => first = Some((seed, result)),
        }
    }
    Ok(first.map(|(_, result)| result))
}

/// Why a piece of work does not give one result in all orders.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "it is at fault, or it is not and differs")]
pub enum Disagreement {
    /// A launch was stopped.
    Fault {
        /// The order in which it ran.
        seed: u64,
        /// Why.
        fault: Fault,
    },
    /// Two orders give different results.
    Results {
        /// The orders.
        seeds: [u64; 2],
    },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { seed, fault } => write!(f, "{fault} (seed {seed})"),
            Self::Results { seeds: [a, b] } => write!(
                f,
                "the orders of seeds {a} and {b} give different results, and no race was seen: is there a sum whose \
                 order depends on who comes first?"
            ),
        }
    }
}

impl std::error::Error for Disagreement {}
