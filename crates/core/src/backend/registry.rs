//! Which backends a program has.

use super::{Backend, BackendId, Capabilities, OptionSpec, Options, Rejection};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::quant_linear::LayerInfo;

/// The version of the interface between core and backends. A backend built for another one is refused, not called.
pub const API_VERSION: u32 = 1;

/// Asks what a backend can run on a device.
pub type Probe = fn(&Device) -> Result<Capabilities, Rejection>;
/// Asks whether a backend can run a layer that its capabilities allow.
pub type Condition = fn(&Device, &LayerInfo) -> Result<(), Rejection>;
/// Opens a backend for one model on a device.
pub type Open = fn(&Device, &Options) -> Result<Box<dyn Backend>>;

/// How a backend crate describes itself: a plain value that any program can name.
///
/// A backend crate exports one as a `const`, and submits it with [`register!`](crate::register) so that programs
/// which link the crate find it. The const is the interface; registration is the convenience.
///
/// ```
/// # use gptq_core::backend::*;
/// # use gptq_core::{device::Device, Result};
/// # fn capabilities(_: &Device) -> Result<Capabilities, Rejection> { Ok(Capabilities::ANY) }
/// # fn open(_: &Device, _: &Options) -> Result<Box<dyn Backend>> { Err(gptq_core::Error::EmptyRegistry) }
/// /// Runs layers on the moon.
/// pub const REGISTRATION: Registration = Registration {
///     priority: 5,
///     summary: "layers on the moon",
///     ..Registration::new(BackendId::new("moon"), capabilities, open)
/// };
/// gptq_core::register!(REGISTRATION);
/// ```
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::exhaustive_structs,
    reason = "backends write it as a literal that ends in ..Registration::new(..)"
)]
pub struct Registration {
    /// [`API_VERSION`] of the core it was built against.
    pub api: u32,
    /// Its name, distinct from every other backend's.
    pub id: BackendId,
    /// One line on what it is.
    pub summary: &'static str,
    /// `auto` asks the highest first; equal ones by name.
    pub priority: i32,
    /// What it can run on a device, or why it cannot run there. Has no side effects: allocates nothing on the
    /// device, logs nothing.
    pub capabilities: Probe,
    /// A further condition on a layer, for what [`Capabilities`] cannot express.
    pub accepts: Option<Condition>,
    /// Opens it for one model on one device.
    pub open: Open,
    /// The options it understands.
    pub options: &'static [OptionSpec],
}

impl Registration {
    /// A registration with priority 0, no summary, no options and no further condition.
    pub const fn new(id: BackendId, capabilities: Probe, open: Open) -> Self {
        Self {
            api: API_VERSION,
            id,
            summary: "",
            priority: 0,
            capabilities,
            accepts: None,
            open,
            options: &[],
        }
    }

    /// What it can run on `device`, or why it cannot be used there at all.
    ///
    /// # Errors
    /// The reason.
    pub fn probe(&self, device: &Device) -> Result<Capabilities, Rejection> {
        if self.api != API_VERSION {
            return Err(Rejection::ApiVersion { found: self.api, expected: API_VERSION });
        }
        (self.capabilities)(device)
    }
}

inventory::collect!(Registration);

/// Submits a [`Registration`] to every program that links this crate.
///
/// Nothing runs before `main`: only the address of a constant is linked in.
#[macro_export]
macro_rules! register {
    ($registration:expr) => {
        $crate::inventory::submit! { $registration }
    };
}

/// The backends that a plan may choose from, best first.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    entries: Vec<Registration>,
}

impl Registry {
    /// No backend; add some with [`Registry::with`].
    pub fn empty() -> Self {
        Self::default()
    }

    /// Every backend whose crate is linked into this program.
    ///
    /// A crate is linked when a source file names it: `use gptq_torch_fallback as _;`. Cargo.toml alone does not
    /// link it.
    pub fn linked() -> Self {
        inventory::iter::<Registration>
            .into_iter()
            .fold(Self::empty(), |registry, entry| registry.with(*entry))
    }

    /// Adds a backend by its registration. Needs no linker.
    #[must_use]
    pub fn with(mut self, registration: Registration) -> Self {
        self.entries.push(registration);
        self.entries.sort_by_key(|entry| (std::cmp::Reverse(entry.priority), entry.id));
        self
    }

    /// The backends, highest priority first, equal ones by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Registration> {
        self.entries.iter()
    }

    /// The backend of this name.
    ///
    /// # Errors
    /// [`Error::EmptyRegistry`], [`Error::BackendNotLinked`].
    pub fn find(&self, name: &str) -> Result<&Registration> {
        self.check()?;
        self.entries.iter().find(|entry| entry.id.as_str() == name).ok_or_else(|| Error::BackendNotLinked {
            asked: name.to_owned(),
            linked: self.entries.iter().map(|entry| entry.id.as_str()).collect(),
        })
    }

    /// That there is a backend, and no two of one name.
    ///
    /// # Errors
    /// [`Error::EmptyRegistry`], [`Error::DuplicateBackend`].
    pub fn check(&self) -> Result<()> {
        if self.entries.is_empty() {
            return Err(Error::EmptyRegistry);
        }
        for (index, entry) in self.entries.iter().enumerate() {
            if self.entries.iter().skip(index + 1).any(|other| other.id == entry.id) {
                return Err(Error::DuplicateBackend { id: entry.id });
            }
        }
        Ok(())
    }
}
