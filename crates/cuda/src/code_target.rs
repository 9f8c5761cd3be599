//! What a GPU runs of an image, and what launches may count on there.

use std::fmt;

use crate::driver::{ComputeCapability, CudaVersion, DeviceInfo};

/// Graphs know of launches that overlap the one before since this version.
const OVERLAPS_IN_GRAPHS: CudaVersion = CudaVersion { major: 12, minor: 3 };

/// The architecture whose code a driver picks out of an image for a GPU.
///
/// What kernels do is a property of that code, not of the GPU: a GPU of compute capability 9.0 may be given `sm_90a`,
/// `sm_90`, or PTX for 8.0, and only the first multiplies with wgmma.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeTarget {
    /// `None` where the image does not say what is in it, so that only the driver knows.
    code: Option<Code>,
    driver: CudaVersion,
}

/// Code for an architecture, as compilers name it. Of what a GPU can run the driver takes the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Code {
    /// False for PTX: it is compiled where there is nothing else.
    is_machine_code: bool,
    /// Major times ten plus minor: 75, 90, 120.
    number: u32,
    variant: Variant,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Variant {
    /// `90`
    Common,
    /// `100f`
    Family,
    /// `90a`
    Exact,
}

impl Code {
    /// Machine code for `80`, `100f` or `90a`. `None` for what is no architecture.
    pub(crate) fn machine(name: &str) -> Option<Self> {
        let (digits, variant) = match name.split_at_checked(name.len().saturating_sub(1)) {
            Some((digits, "a")) => (digits, Variant::Exact),
            Some((digits, "f")) => (digits, Variant::Family),
            _ => (name, Variant::Common),
        };
        Some(Self { is_machine_code: true, number: digits.parse().ok()?, variant })
    }

    /// PTX for `80`. Of a variant it runs nowhere else, and is none of these.
    pub(crate) fn ptx(name: &str) -> Option<Self> {
        Some(Self { is_machine_code: false, number: name.parse().ok()?, variant: Variant::Common })
    }

    /// Machine code runs on later minor versions of its major one, a variant like `90a` on that GPU alone, `100f` on its
    /// family; PTX on every GPU after its own.
    pub(crate) fn runs_on(self, gpu: ComputeCapability) -> bool {
        let gpu = gpu.major * 10 + gpu.minor;
        match self.variant {
            Variant::Exact => self.number == gpu,
            _ => self.number <= gpu && (!self.is_machine_code || self.number / 10 == gpu / 10),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self.variant {
            Variant::Common => "",
            Variant::Family => "f",
            Variant::Exact => "a",
        };
        let kind = if self.is_machine_code { "sm_" } else { "PTX of " };
        write!(f, "{kind}{}{variant}", self.number)
    }
}

impl CodeTarget {
    /// The one of `codes` that the GPU runs. `None` where there is none for it.
    pub(crate) fn of(codes: impl Iterator<Item = Code>, gpu: &DeviceInfo) -> Option<Self> {
        let code = codes.filter(|code| code.runs_on(gpu.compute_capability)).max()?;
        Some(Self { code: Some(code), driver: gpu.driver })
    }

    /// Of an image that does not say what is in it: nothing may be counted on.
    pub(crate) fn unknown(gpu: &DeviceInfo) -> Self {
        Self { code: None, driver: gpu.driver }
    }

    fn is_from(self, number: u32) -> bool {
        self.code.is_some_and(|code| code.number >= number)
    }

    /// Whether tensor cores multiply f16 with sums in f32: code for Turing or newer.
    pub fn has_tensor_cores(self) -> bool {
        self.is_from(75)
    }

    /// Whether tensor cores multiply bf16, and entries for it are there: code for Ampere or newer.
    pub fn has_bf16(self) -> bool {
        self.is_from(80)
    }

    /// Whether four warps can multiply together (wgmma): code for `90a`, and no other.
    pub fn has_groups(self) -> bool {
        self.code.is_some_and(|code| code.number == 90 && code.variant == Variant::Exact)
    }

    /// Whether kernels may be launched to [overlap the one before](crate::Launch::overlaps_previous): those that wait for it
    /// themselves do so in code for Hopper or newer, and graphs know of it since CUDA 12.3.
    pub fn overlaps(self) -> bool {
        self.is_from(90) && self.driver >= OVERLAPS_IN_GRAPHS
    }
}

impl fmt::Display for CodeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => code.fmt(f),
            None => f.write_str("code that the image does not name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::gpu;

    #[test]
    fn what_launches_may_count_on_is_what_the_code_has_that_the_gpu_is_given() {
        const DEFAULT: &str = "75 80 86 89 90a";
        const WITH_BLACKWELL: &str = "75 80 86 89 90a 100 120";
        for (built, ptx, capability, runs, [groups, overlaps, bf16]) in [
            ("90a", "", (9, 0), Some("sm_90a"), [true, true, true]),
            ("80 90a", "80", (9, 0), Some("sm_90a"), [true, true, true]),
            ("90 90a", "90", (9, 0), Some("sm_90a"), [true, true, true]),
            ("90", "90", (9, 0), Some("sm_90"), [false, true, true]),
            ("80", "80", (9, 0), Some("PTX of 80"), [false, false, true]),
            ("75", "75", (9, 0), Some("PTX of 75"), [false, false, false]),
            ("80 90a", "80", (10, 0), Some("PTX of 80"), [false, false, true]),
            ("80 90a", "80", (12, 0), Some("PTX of 80"), [false, false, true]),
            ("90 90a", "90", (10, 0), Some("PTX of 90"), [false, true, true]),
            ("80 86", "80", (8, 9), Some("sm_86"), [false, false, true]),
            ("75 80", "75", (7, 5), Some("sm_75"), [false, false, false]),
            ("75 80", "75", (8, 9), Some("sm_80"), [false, false, true]),
            ("100a", "", (10, 0), Some("sm_100a"), [false, true, true]),
            ("100a", "", (10, 3), None, [false; 3]),
            ("100f 103", "", (10, 3), Some("sm_103"), [false, true, true]),
            (DEFAULT, "89", (7, 5), Some("sm_75"), [false, false, false]),
            (DEFAULT, "89", (8, 7), Some("sm_86"), [false, false, true]),
            (DEFAULT, "89", (9, 0), Some("sm_90a"), [true, true, true]),
            (DEFAULT, "89", (10, 3), Some("PTX of 89"), [false, false, true]),
            (DEFAULT, "89", (12, 1), Some("PTX of 89"), [false, false, true]),
            (WITH_BLACKWELL, "100", (10, 3), Some("sm_100"), [false, true, true]),
            (WITH_BLACKWELL, "100", (11, 0), Some("PTX of 100"), [false, true, true]),
            (WITH_BLACKWELL, "100", (12, 1), Some("sm_120"), [false, true, true]),
        ] {
            let codes = built.split(' ').filter_map(Code::machine).chain(Code::ptx(ptx));
            let codes: Vec<Code> = codes.collect();
            let case = format!("built for {built}, PTX {ptx:?}, on {capability:?}");
            let mut gpu = gpu(capability.0, capability.1);
            gpu.driver = OVERLAPS_IN_GRAPHS;
            let target = CodeTarget::of(codes.iter().copied(), &gpu);
            assert_eq!(target.map(|target| target.to_string()).as_deref(), runs, "{case}");
            let Some(target) = target else { continue };
            assert_eq!(
                [target.has_groups(), target.overlaps(), target.has_bf16()],
                [groups, overlaps, bf16],
                "{case}"
            );
            assert!(target.has_tensor_cores(), "{case}");
            gpu.driver = crate::MINIMUM_DRIVER;
            let older = CodeTarget::of(codes.into_iter(), &gpu);
            assert!(
                older.is_some_and(|older| !older.overlaps()),
                "{case}, with a driver whose graphs do not overlap"
            );
        }
    }

    #[test]
    fn nothing_is_counted_on_where_the_image_does_not_say_what_is_in_it() {
        let target = CodeTarget::unknown(&gpu(9, 0));
        let counted = [target.has_tensor_cores(), target.has_bf16(), target.has_groups(), target.overlaps()];
        assert_eq!(counted, [false; 4]);
    }

    #[test]
    fn what_is_no_architecture_is_no_code() {
        for name in ["", "a", "12x", "é", "-80"] {
            assert_eq!((Code::machine(name), Code::ptx(name)), (None, None), "`{name}`");
        }
        assert_eq!(Code::ptx("90a"), None, "PTX of a variant runs nowhere else");
    }
}
