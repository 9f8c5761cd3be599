//! The names of the variants, for tests that must know all of them.

use super::Error;

/// One list for the names and for the match: a variant that is not in it does not compile.
macro_rules! kinds {
    ($($variant:ident),* $(,)?) => {
        impl Error {
            /// The names of all variants, in the order of the enum.
            #[doc(hidden)]
            pub const KINDS: &'static [&'static str] = &[$(stringify!($variant)),*];

            /// The name of the variant.
            #[doc(hidden)]
            pub const fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)*
                }
            }
        }
    };
}

kinds! {
    Io,
    ConfigMissing,
    ConfigSyntax,
    ConfigValue,
    DynamicRule,
    Unsupported,
    WeightsMissing,
    WeightsAmbiguous,
    Pickle,
    Index,
    Header,
    DuplicateTensor,
    TensorMissing,
    TensorDtype,
    TensorShape,
    GroupOutOfRange,
    NothingQuantized,
    ZeroEncodingContradiction,
    ZeroEncodingUnsettled,
    ZeroDialectUnknown,
    ZerosDestroyed,
    EmptyRegistry,
    BackendNotLinked,
    DuplicateBackend,
    Rejected,
    NoBackend,
    PlanMismatch,
    OutOfMemory,
    Device,
    Backend,
    Option,
    Output,
    NotStorable,
    SavedDiffers,
    NoSuchLayer,
    Shape,
    DtypeMismatch,
    DeviceMismatch,
    TensorBytes,
    ScratchTooSmall,
}
