//! Why a launch was stopped, told so that the line in the kernel can be found.

use std::ffi::c_void;
use std::fmt;
use std::ops::Deref;

use crate::ffi::{Index, RawFault};

/// The first thing that a kernel did wrong, or why a launch was refused. Boxed: results that hold one stay small.
#[derive(Clone, Debug)]
pub struct Fault(Box<FaultReport>);

impl Deref for Fault {
    type Target = FaultReport;

    fn deref(&self) -> &FaultReport {
        &self.0
    }
}

/// What is known of a [`Fault`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FaultReport {
    /// The kernel's name.
    pub kernel: String,
    /// What it did.
    pub what: What,
    /// Who did it. `None` where nothing was run.
    pub thread: Option<Thread>,
    /// The memory that it is about.
    pub region: Option<Region>,
    /// Where in the kernel, the innermost inlined call first. Empty where the program has no debug information.
    pub places: Vec<Place>,
    /// The other access of a race, or where others wait.
    pub other: Option<(Thread, Vec<Place>)>,
}

/// The kinds of faults.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// A launch that no GPU would take, and why.
    Refused(String),
    /// A read outside of registered memory.
    OutOfBoundsRead,
    /// A write outside of registered memory.
    OutOfBoundsWrite,
    /// An access that is not aligned to its size.
    Misaligned,
    /// A write to memory that the kernel may only read.
    WriteToInput,
    /// A read of memory that nobody wrote.
    UninitialisedRead,
    /// A read of the destination of a `cp.async` that was not waited for.
    ReadBeforeWait,
    /// A write to the destination of a `cp.async` that was not waited for.
    WriteBeforeWait,
    /// Two accesses that nothing orders, one of them a write.
    Race,
    /// `__syncthreads` that not all threads of a block reach.
    DivergentBarrier,
    /// A warp operation that not all lanes of its mask reach.
    DivergentWarp,
    /// A shuffle from a lane that takes no part in it.
    UndefinedLane,
    /// `cp.async` or `ldmatrix` on memory that is not shared.
    NotSharedMemory,
    /// A kind that this side does not know.
    Other(u32),
}

/// A thread of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Thread {
    /// Its block and its place in it.
    At {
        /// `blockIdx`.
        block: [u32; 3],
        /// `threadIdx`.
        thread: [u32; 3],
    },
    /// A thread of the same block, counted along x first.
    Number(u32),
    /// Several threads of the same block.
    Several,
    /// A thread of another block.
    OfAnotherBlock,
}

/// A place in registered memory, or near it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Region {
    /// The buffer's name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where the access begins; negative or past the end where it is outside.
    pub offset: i64,
    /// How many bytes the access has.
    pub access_bytes: u32,
}

/// A line of a source file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Place {
    /// The file's name, without its folder.
    pub file: String,
    /// The line.
    pub line: u32,
}

impl Fault {
    pub(crate) fn refused(kernel: &str, why: impl Into<String>) -> Self {
        Self(Box::new(FaultReport {
            kernel: kernel.to_owned(),
            what: What::Refused(why.into()),
            thread: None,
            region: None,
            places: Vec::new(),
            other: None,
        }))
    }

    pub(crate) fn from_raw(kernel: &str, raw: &RawFault) -> Self {
        let what = What::from_raw(raw.what);
        let other = match what {
            What::Race if raw.other_is_of_other_block != 0 => Some(Thread::OfAnotherBlock),
            What::Race if raw.other_thread == u32::from(u16::MAX) => Some(Thread::Several),
            What::Race | What::DivergentBarrier | What::DivergentWarp | What::UndefinedLane => {
                Some(Thread::Number(raw.other_thread))
            }
            _ => None,
        };
        Self(Box::new(FaultReport {
            kernel: kernel.to_owned(),
            what,
            thread: Some(Thread::At { block: array(raw.block), thread: array(raw.thread) }),
            region: raw.region().map(|name| Region {
                name,
                bytes: raw.region_bytes,
                offset: raw.offset,
                access_bytes: raw.bytes,
            }),
            places: places(raw.site),
            other: other.map(|thread| (thread, places(raw.other_site))),
        }))
    }
}

impl What {
    fn from_raw(number: u32) -> Self {
        match number {
            1 => Self::OutOfBoundsRead,
            2 => Self::OutOfBoundsWrite,
            3 => Self::Misaligned,
            4 => Self::WriteToInput,
            5 => Self::UninitialisedRead,
            6 => Self::ReadBeforeWait,
            7 => Self::WriteBeforeWait,
            8 => Self::Race,
            9 => Self::DivergentBarrier,
            10 => Self::DivergentWarp,
            11 => Self::UndefinedLane,
            12 => Self::NotSharedMemory,
            other => Self::Other(other),
        }
    }
}

fn array(Index { x, y, z }: Index) -> [u32; 3] {
    [x, y, z]
}

/// The lines behind a return address, through the calls that were inlined there.
fn places(site: *const c_void) -> Vec<Place> {
    let mut places = Vec::new();
    if !site.is_null() {
        backtrace::resolve(site.cast_mut(), |symbol| {
            if let (Some(file), Some(line)) =
                (symbol.filename().and_then(|file| file.file_name()), symbol.lineno())
            {
                places.push(Place { file: file.to_string_lossy().into_owned(), line });
            }
        });
    }
    places
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kernel)?;
        if let Some(thread) = self.thread {
            write!(f, "{thread} ")?;
        }
        write!(f, "{}", self.what)?;
        if let Some(region) = &self.region {
            write!(f, ": {region}")?;
        }
        write_places(f, &self.places)?;
        if let Some((thread, places)) = &self.other {
            write!(f, "; the other is {thread}")?;
            write_places(f, places)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

fn write_places(f: &mut fmt::Formatter<'_>, places: &[Place]) -> fmt::Result {
    for (index, place) in places.iter().enumerate() {
        write!(f, "{} {}:{}", if index == 0 { ", at" } else { ", called at" }, place.file, place.line)?;
    }
    Ok(())
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(why) => why,
            Self::OutOfBoundsRead => "reads what is not in any buffer",
            Self::OutOfBoundsWrite => "writes to what is not in any buffer",
            Self::Misaligned => "uses an address that is not aligned to the size of the access",
            Self::WriteToInput => "writes to an input",
            Self::UninitialisedRead => "reads what nobody wrote",
            Self::ReadBeforeWait => "reads what cp.async copies and nobody waited for",
            Self::WriteBeforeWait => "writes to what cp.async copies and nobody waited for",
            Self::Race => "races with another access, which no barrier orders before or after it",
            Self::DivergentBarrier => "waits at a __syncthreads that not all threads of the block reach",
            Self::DivergentWarp => "waits at a warp operation that not all lanes of its mask reach",
            Self::UndefinedLane => "shuffles from a lane that takes no part",
            Self::NotSharedMemory => "uses an address that is not in shared memory",
            Self::Other(number) => return write!(f, "is at fault (kind {number})"),
        })
    }
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { block: [bx, by, bz], thread: [x, y, z] } => {
                write!(f, "block ({bx}, {by}, {bz}), thread ({x}, {y}, {z})")
            }
            Self::Number(number) => write!(f, "thread {number} of the block"),
            Self::Several => f.write_str("one of several threads of the block"),
            Self::OfAnotherBlock => f.write_str("a thread of another block"),
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, bytes, offset, access_bytes } = self;
        write!(f, "{access_bytes} bytes at offset {offset} of `{name}`, which has {bytes}")
    }
}
