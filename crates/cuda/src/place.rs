//! Where tensors lie in a piece of device memory that is planned before it is allocated, so that a model that does not fit is
//! refused with the layer at which the memory ends. Pure: no GPU is asked.

/// Tensors begin at multiples of this: what vector loads and cuBLASLt want.
pub const ALIGNMENT: usize = 256;

/// A part of a piece of memory, in bytes from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Where it begins: a multiple of [`ALIGNMENT`].
    pub offset: usize,
    /// How long it is.
    pub bytes: usize,
}

impl Place {
    /// Its address, in memory that begins at `base`.
    pub fn address(self, base: u64) -> u64 {
        base + self.offset as u64
    }
}

/// Gives out places one behind the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planner {
    end: usize,
}

impl Planner {
    /// The next place of so many bytes.
    pub fn place(&mut self, bytes: usize) -> Place {
        let offset = self.end;
        self.end += bytes.next_multiple_of(ALIGNMENT);
        Place { offset, bytes }
    }

    /// The bytes given out so far, with what lies between places.
    pub fn end(&self) -> usize {
        self.end
    }
}
