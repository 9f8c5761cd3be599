//! Slices that own a share of the memory they lie in: a mapped file, or a vector.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;

/// What keeps the bytes of a [`Shared`] alive.
pub(crate) type Owner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A slice of `T` that owns a share of where it lies. Cloning it copies no data.
///
/// Made from a vector, or by [`Checkpoint::open`](crate::checkpoint::Checkpoint::open) as a view of a mapped file.
pub struct Shared<T> {
    owner: Owner,
    bytes: Range<usize>,
    mapped: bool,
    element: PhantomData<T>,
}

struct OwnedVec<T>(Vec<T>);

impl<T: Pod> AsRef<[u8]> for OwnedVec<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<T: Pod + Send + Sync> Shared<T> {
    /// A view of `bytes` of `owner`, without a copy. `None` where the range leaves the owner's bytes, is not a
    /// whole number of elements, or is not aligned for `T`. `mapped` says whether the owner is a mapped file.
    pub(crate) fn view(owner: Owner, bytes: Range<usize>, mapped: bool) -> Option<Self> {
        let slice = (*owner).as_ref().get(bytes.clone())?;
        bytemuck::try_cast_slice::<u8, T>(slice).ok()?;
        Some(Self { owner, bytes, mapped, element: PhantomData })
    }

    /// How many bytes this slice holds in memory that is not a mapped file.
    pub fn resident_bytes(&self) -> usize {
        if self.mapped { 0 } else { self.bytes.len() }
    }

    /// The elements as little-endian bytes, as a file holds them.
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl<T: Pod + Send + Sync> From<Vec<T>> for Shared<T> {
    fn from(elements: Vec<T>) -> Self {
        let bytes = 0..size_of_val(elements.as_slice());
        Self { owner: Arc::new(OwnedVec(elements)), bytes, mapped: false, element: PhantomData }
    }
}

impl<T: Pod> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // Neither step can fail: both constructors checked the range and the alignment, and neither kind of
        // owner ever moves or shortens its bytes.
        let bytes = (*self.owner).as_ref().get(self.bytes.clone()).unwrap_or_default();
        bytemuck::try_cast_slice(bytes).unwrap_or_default()
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            owner: Arc::clone(&self.owner),
            bytes: self.bytes.clone(),
            mapped: self.mapped,
            element: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.mapped { "mapped" } else { "in memory" };
        write!(f, "{} × {} ({place})", self.bytes.len() / size_of::<T>().max(1), std::any::type_name::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(bytes: Vec<u8>) -> Owner {
        Arc::new(bytes)
    }

    #[test]
    fn a_view_refuses_ranges_that_are_short_long_or_misaligned() {
        let words = Shared::from(vec![1u64, 2]);
        let at = |range| Shared::<u32>::view(Arc::clone(&words.owner), range, true);
        assert_eq!(at(8..16).as_deref(), Some(&[2u32, 0][..]));
        assert!(at(0..18).is_none(), "past the end");
        assert!(at(0..6).is_none(), "not a whole number of elements");
        assert!(at(2..10).is_none(), "misaligned");
        assert_eq!(at(0..0).as_deref(), Some(&[][..]));
    }

    #[test]
    fn only_memory_of_its_own_counts_as_resident() {
        assert_eq!(Shared::from(vec![0u16; 3]).resident_bytes(), 6);
        assert_eq!(Shared::<u8>::view(owner(vec![0; 3]), 0..3, true).map(|v| v.resident_bytes()), Some(0));
    }
}
