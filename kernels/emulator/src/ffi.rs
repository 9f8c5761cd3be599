//! The C++ side, as `runtime/interface.h` declares it.

#![expect(unsafe_code, reason = "calls into C++, which checks every access of a kernel before it happens")]

use std::ffi::{CStr, c_char, c_int, c_void};

#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(crate) struct Index {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) z: u32,
}

#[repr(C)]
pub(crate) struct KernelEntry {
    name: *const c_char,
    call: Call,
    params_bytes: usize,
    most_threads: u32,
    next: *const KernelEntry,
}

type Call = unsafe extern "C" fn(*const c_void);

#[repr(C)]
pub(crate) struct RawFault {
    pub(crate) what: u32,
    pub(crate) bytes: u32,
    pub(crate) block: Index,
    pub(crate) thread: Index,
    pub(crate) other_thread: u32,
    pub(crate) other_is_of_other_block: u32,
    pub(crate) address: u64,
    region: *const c_char,
    pub(crate) offset: i64,
    pub(crate) region_bytes: u64,
    pub(crate) site: *const c_void,
    pub(crate) other_site: *const c_void,
}

impl RawFault {
    const NONE: Self = Self {
        what: 0,
        bytes: 0,
        block: Index { x: 0, y: 0, z: 0 },
        thread: Index { x: 0, y: 0, z: 0 },
        other_thread: 0,
        other_is_of_other_block: 0,
        address: 0,
        region: std::ptr::null(),
        offset: 0,
        region_bytes: 0,
        site: std::ptr::null(),
        other_site: std::ptr::null(),
    };

    /// The name of the region that the address is in or near to.
    pub(crate) fn region(&self) -> Option<String> {
        // SAFETY: null, a literal of the runtime, or the name of a registered buffer, which outlives its launches.
        (!self.region.is_null())
            .then(|| unsafe { CStr::from_ptr(self.region) }.to_string_lossy().into_owned())
    }
}

#[repr(C)]
struct RawLaunch {
    call: Call,
    params: *const c_void,
    params_bytes: usize,
    grid: Index,
    block: Index,
    shared_bytes: usize,
    seed: u64,
}

unsafe extern "C" {
    fn gptq_emulator_kernels() -> *const KernelEntry;
    fn gptq_emulator_register(
        start: *mut c_void,
        bytes: usize,
        writable: c_int,
        initialised: c_int,
        name: *const c_char,
    );
    fn gptq_emulator_unregister(start: *mut c_void);
    fn gptq_emulator_initialised(start: *const c_void) -> usize;
    fn gptq_emulator_run(launch: *const RawLaunch, fault: *mut RawFault) -> c_int;
}

impl KernelEntry {
    pub(crate) fn name(&self) -> &'static str {
        // SAFETY: a literal in the kernel's source.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap_or("(not UTF-8)")
    }

    pub(crate) fn params_bytes(&self) -> usize {
        self.params_bytes
    }

    pub(crate) fn most_threads(&self) -> u32 {
        self.most_threads
    }
}

/// All kernels of this program.
pub(crate) fn kernels() -> impl Iterator<Item = &'static KernelEntry> {
    // SAFETY: the list is built before main by constructors of static objects and never changes.
    let first = unsafe { gptq_emulator_kernels().as_ref() };
    // SAFETY: as above; the last entry's `next` is null.
    std::iter::successors(first, |entry| unsafe { entry.next.as_ref() })
}

/// Makes memory known to launches of this thread, under a name that lives as long.
pub(crate) fn register(start: *mut c_void, bytes: usize, writable: bool, initialised: bool, name: &CStr) {
    // SAFETY: the caller owns the memory and unregisters it before it goes away.
    unsafe { gptq_emulator_register(start, bytes, writable.into(), initialised.into(), name.as_ptr()) };
}

pub(crate) fn unregister(start: *mut c_void) {
    // SAFETY: unknown addresses are ignored.
    unsafe { gptq_emulator_unregister(start) };
}

pub(crate) fn initialised(start: *const c_void) -> usize {
    // SAFETY: unknown addresses are ignored.
    unsafe { gptq_emulator_initialised(start) }
}

/// Runs a launch of a kernel whose parameters are `params_bytes` long.
pub(crate) fn run<P: Copy>(
    kernel: &KernelEntry,
    params: &P,
    grid: Index,
    block: Index,
    shared_bytes: usize,
    seed: u64,
) -> Result<(), RawFault> {
    let launch = RawLaunch {
        call: kernel.call,
        params: std::ptr::from_ref(params).cast(),
        params_bytes: size_of::<P>(),
        grid,
        block,
        shared_bytes,
        seed,
    };
    let mut fault = RawFault::NONE;
    // SAFETY: the struct has the size that the kernel expects (checked by the caller) and is only copied. Whatever
    // addresses it holds, the runtime refuses every access outside of registered memory.
    match unsafe { gptq_emulator_run(&raw const launch, &raw mut fault) } {
        0 => Ok(()),
        _ => Err(fault),
    }
}
