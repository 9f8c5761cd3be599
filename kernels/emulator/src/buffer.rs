//! Memory that kernels may touch.

#![expect(unsafe_code, reason = "kernels write to it through raw pointers")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::CString;
use std::marker::PhantomData;

use bytemuck::Pod;

use crate::ffi;

/// Unused bytes before and after each buffer, so that an index past an end does not reach another one. Also the
/// alignment: a GPU's allocations have 256.
const GUARD: usize = 4096;

/// Global memory of the emulated device: registered with the thread that made it, until it is dropped.
///
/// A kernel that touches anything else is stopped.
#[derive(Debug)]
pub struct Buffer<T> {
    allocation: *mut u8,
    layout: Layout,
    len: usize,
    /// Faults speak of the buffer by it.
    _name: CString,
    elements: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// What a kernel reads. Writing to it is a fault.
    pub fn input(name: &str, values: &[T]) -> Self {
        Self::new(name, values.len(), false, Some(values))
    }

    /// What a kernel writes. Reading it before it was written is a fault.
    pub fn output(name: &str, len: usize) -> Self {
        Self::new(name, len, true, None)
    }

    /// What a kernel reads and writes.
    pub fn in_out(name: &str, values: &[T]) -> Self {
        Self::new(name, values.len(), true, Some(values))
    }

    fn new(name: &str, len: usize, writable: bool, values: Option<&[T]>) -> Self {
        let bytes = len * size_of::<T>();
        let Ok(layout) = Layout::from_size_align(bytes + 2 * GUARD, GUARD) else {
            handle_alloc_error(Layout::new::<T>());
        };
        // SAFETY: the size is not zero.
        let allocation = unsafe { alloc_zeroed(layout) };
        if allocation.is_null() {
            handle_alloc_error(layout);
        }
        let name = CString::new(name.replace('\0', "")).unwrap_or_default();
        let buffer = Self { allocation, layout, len, _name: name, elements: PhantomData };
        if let Some(values) = values {
            // SAFETY: the allocation holds `len` elements behind the guard, and nobody else knows of it.
            unsafe { buffer.address_mut().copy_from_nonoverlapping(values.as_ptr(), len) };
        }
        ffi::register(buffer.address_mut().cast(), bytes, writable, values.is_some(), &buffer._name);
        buffer
    }

    /// Its address, for launch parameters.
    pub fn address(&self) -> *const T {
        self.address_mut()
    }

    /// Its address, for launch parameters.
    pub fn address_mut(&self) -> *mut T {
        self.allocation.wrapping_add(GUARD).cast()
    }

    /// What it holds; zeros where nobody wrote.
    pub fn to_vec(&self) -> Vec<T> {
        // SAFETY: `len` elements that were zeroed, copied to or written by kernels; any bytes are a value of a Pod type.
        // Kernels run only inside of a launch on this thread, so nobody writes now.
        unsafe { std::slice::from_raw_parts(self.address(), self.len) }.to_vec()
    }

    /// How many of its bytes hold no value yet.
    pub fn unwritten_bytes(&self) -> usize {
        self.len * size_of::<T>() - ffi::initialised(self.address().cast())
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        ffi::unregister(self.allocation.wrapping_add(GUARD).cast());
        // SAFETY: allocated with this layout; kernels can reach it no more.
        unsafe { dealloc(self.allocation, self.layout) };
    }
}
