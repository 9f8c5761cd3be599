//! Compiled kernels: where they are found, and which GPUs they run on.
//!
//! The file of a family is its fatbins one after the other and, where gptq-kernel-build wrote it, a footer that says
//! what they run on. A plain fatbin is such a file too; then only the driver knows.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use gptq_core::backend::Rejection;
use gptq_core::device::Device;

use crate::code_target::{Code, CodeTarget};
use crate::driver::DeviceInfo;

/// The variable that names a folder of `FAMILY.fatbin` files. It goes before what a program embeds.
pub const KERNELS_DIR: &str = "GPTQ_KERNELS_DIR";

const FATBIN_MAGIC: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
const FOOTER_MAGIC: &[u8] = b"GPTQFATB";

/// The kernels of one family, compiled.
#[derive(Clone, Debug)]
pub struct KernelImage {
    family: String,
    origin: String,
    bytes: Cow<'static, [u8]>,
    runs_on: Option<RunsOn>,
}

/// What a footer says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct RunsOn {
    /// Architectures with machine code, as compilers name them: `80`, `90a`.
    code: Vec<String>,
    /// The architecture of the PTX, if there is any.
    ptx: Option<String>,
}

impl KernelImage {
    /// The kernels of `family`: `FAMILY.fatbin` of the folder that `GPTQ_KERNELS_DIR` names, else those embedded in the
    /// program.
    ///
    /// # Errors
    /// [`Rejection::KernelsMissing`] with the command that builds them, or [`Rejection::Other`] where the file is
    /// something else.
    pub fn find(family: &str, embedded: Option<&'static [u8]>) -> Result<Self, Rejection> {
        let folder = std::env::var_os(KERNELS_DIR).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        Self::find_in(folder.as_deref(), family, embedded)
    }

    fn find_in(
        folder: Option<&Path>,
        family: &str,
        embedded: Option<&'static [u8]>,
    ) -> Result<Self, Rejection> {
        let mut looked_for = format!("{KERNELS_DIR} is not set");
        if let Some(folder) = folder {
            let path = folder.join(format!("{family}.fatbin"));
            match fs::read(&path) {
                Ok(bytes) => return Self::new(family, path.display().to_string(), bytes.into()),
                Err(error) => looked_for = format!("{}: {error}", path.display()),
            }
        }
        match embedded {
            Some(bytes) => Self::new(family, "the program".into(), bytes.into()),
            None => Err(Rejection::KernelsMissing {
                looked_for: format!("{looked_for}, and none were built into the program"),
                remedy: format!(
                    "run `cargo xtask build-kernels --family {family}` and build the program again, or set \
                     {KERNELS_DIR}=kernels/out"
                ),
            }),
        }
    }

    /// Kernels that a program has from elsewhere.
    ///
    /// # Errors
    /// [`Rejection::Other`] where `bytes` are not fatbins.
    pub fn from_bytes(family: &str, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, Rejection> {
        Self::new(family, "memory".into(), bytes.into())
    }

    fn new(family: &str, origin: String, bytes: Cow<'static, [u8]>) -> Result<Self, Rejection> {
        let damaged = |problem: &str| {
            Rejection::other(
                format!("the kernels of `{family}` from {origin} are damaged: {problem}"),
                format!("build them again: `cargo xtask build-kernels --family {family}`"),
            )
        };
        let (body, footer) =
            split_footer(&bytes).ok_or_else(|| damaged("the footer is longer than the file"))?;
        split_fatbins(body).ok_or_else(|| damaged("it is not a sequence of fatbins"))?;
        let runs_on = footer.map(RunsOn::parse);
        Ok(Self { family: family.to_owned(), origin, runs_on, bytes })
    }

    /// The family.
    pub fn family(&self) -> &str {
        &self.family
    }

    /// Where it was found: a path, or `the program`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What this GPU runs of it, as far as the file says. The driver has the last word, when kernels are loaded.
    ///
    /// # Errors
    /// [`Rejection::ComputeCapability`] where there is nothing for it.
    pub fn check(&self, gpu: &DeviceInfo) -> Result<CodeTarget, Rejection> {
        match &self.runs_on {
            Some(runs_on) => runs_on.target(gpu).ok_or_else(|| self.wrong_architecture(gpu)),
            None => Ok(CodeTarget::unknown(gpu)),
        }
    }

    pub(crate) fn wrong_architecture(&self, gpu: &DeviceInfo) -> Rejection {
        let found = gpu.compute_capability;
        let option = found.architecture().map(|name| format!(" --arch {name}")).unwrap_or_default();
        Rejection::ComputeCapability {
            device: Device::Cuda(gpu.ordinal),
            found: found.to_string(),
            needed: match &self.runs_on {
                Some(runs_on) => runs_on.describe(),
                None => format!("one that {} was built for", self.origin),
            },
            remedy: format!(
                "build them for it: `cargo xtask build-kernels --family {}{option}`",
                self.family
            ),
        }
    }

    /// The fatbins. [`new`](Self::new) has seen that they are some.
    pub(crate) fn fatbins(&self) -> Vec<&[u8]> {
        split_footer(&self.bytes).and_then(|(body, _)| split_fatbins(body)).unwrap_or_default()
    }
}

impl RunsOn {
    fn parse(footer: &[u8]) -> Self {
        let mut runs_on = Self::default();
        for line in String::from_utf8_lossy(footer).lines() {
            match line.split_once('=') {
                Some(("sm", value)) => runs_on.code = value.split_whitespace().map(str::to_owned).collect(),
                Some(("ptx", value)) => {
                    runs_on.ptx = Some(value.to_owned()).filter(|value| !value.is_empty());
                }
                _ => {}
            }
        }
        runs_on
    }

    fn target(&self, gpu: &DeviceInfo) -> Option<CodeTarget> {
        let machine = self.code.iter().filter_map(|name| Code::machine(name));
        CodeTarget::of(machine.chain(self.ptx.as_deref().and_then(Code::ptx)), gpu)
    }

    fn describe(&self) -> String {
        let mut text = format!("one of sm_{}", self.code.join(", sm_"));
        if let Some(ptx) = &self.ptx {
            text.push_str(&format!(", or any from {ptx} on"));
        }
        text
    }
}

/// The fatbins of a file and the text of its footer, if it has one. `None`: the footer does not fit the file.
fn split_footer(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let Some(rest) = bytes.strip_suffix(FOOTER_MAGIC) else { return Some((bytes, None)) };
    let (rest, length) = rest.split_last_chunk::<8>()?;
    let start = rest.len().checked_sub(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let (body, footer) = rest.split_at(start);
    Some((body, Some(footer)))
}

/// Fatbins that stand one after the other, each padded to 8 bytes. `None`: they do not.
///
/// A fatbin begins with its magic number, a version and the length of its header, 16 bits each, and the length of what
/// follows the header, 64 bits.
fn split_fatbins(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (header, _) = bytes.split_first_chunk::<16>()?;
        let [magic @ .., _, _, _, _, _, _, _, _, _, _, _, _] = *header;
        let header_bytes = u16::from_le_bytes([header[6], header[7]]);
        let (_, length) = header.split_last_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?.checked_add(header_bytes.into())?;
        if magic != FATBIN_MAGIC || length < header.len() {
            return None;
        }
        found.push(bytes.get(..length)?);
        bytes = bytes.get(length.checked_next_multiple_of(8)?..).unwrap_or_default();
    }
    if found.is_empty() { None } else { Some(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::gpu;

    fn fatbin(content: &[u8]) -> Vec<u8> {
        let mut bytes = FATBIN_MAGIC.to_vec();
        bytes.extend([1, 0, 16, 0]);
        bytes.extend((content.len() as u64).to_le_bytes());
        bytes.extend(content);
        bytes
    }

    fn file(contents: &[&[u8]], footer: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for content in contents {
            bytes.extend(fatbin(content));
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes.extend(footer.as_bytes());
        bytes.extend((footer.len() as u64).to_le_bytes());
        bytes.extend(FOOTER_MAGIC);
        bytes
    }

    #[test]
    fn a_file_is_split_into_its_fatbins_with_or_without_a_footer() {
        let image =
            KernelImage::from_bytes("f", file(&[b"odd", b"12345678"], "family=f\nsm=80\nptx=\n")).unwrap();
        let lengths: Vec<usize> = image.fatbins().iter().map(|fatbin| fatbin.len()).collect();
        assert_eq!(lengths, [19, 24]);
        let plain = KernelImage::from_bytes("f", fatbin(b"alone")).unwrap();
        assert_eq!((plain.fatbins().len(), plain.runs_on), (1, None), "a fatbin is a file too");
    }

    #[test]
    fn what_is_no_sequence_of_fatbins_is_refused_with_the_command_that_makes_one() {
        let whole = file(&[b"content"], "sm=80\n");
        let mut lying = whole.clone();
        let at = lying.len() - 16;
        lying[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut endless = fatbin(b"content");
        endless[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        for (bytes, why) in [
            (Vec::new(), "empty"),
            (b"\x7fELF and so on, long enough".to_vec(), "another format"),
            (whole[..whole.len() - 20].to_vec(), "cut in the footer"),
            (fatbin(b"content")[..20].to_vec(), "cut in the fatbin"),
            (lying, "a footer longer than the file"),
            (endless, "a fatbin longer than memory"),
        ] {
            let rejection = KernelImage::from_bytes("mine", bytes).expect_err(why).to_string();
            assert!(rejection.contains("build-kernels --family mine"), "{why}: {rejection}");
        }
    }

    #[test]
    fn an_image_accepts_the_gpus_that_its_architectures_run_on() {
        let image = |footer: &str| KernelImage::from_bytes("f", file(&[b""], footer)).unwrap();
        for (footer, capability, accepted, why) in [
            ("sm=80\n", (8, 0), true, "its own"),
            ("sm=80\n", (8, 9), true, "a later minor version"),
            ("sm=86\n", (8, 0), false, "an earlier minor version"),
            ("sm=80\n", (9, 0), false, "another major version"),
            ("sm=90a\n", (9, 0), true, "the one of the variant"),
            ("sm=100a\n", (10, 3), false, "a variant runs nowhere else"),
            ("sm=100f\n", (10, 3), true, "a family"),
            ("sm=80 90a\nptx=80\n", (12, 0), true, "PTX runs on what comes later"),
            ("sm=80 90a\nptx=80\n", (7, 5), false, "PTX runs on nothing earlier"),
            ("sm=12x\nptx=\n", (12, 0), false, "a footer that says nothing"),
        ] {
            let gpu = gpu(capability.0, capability.1);
            assert_eq!(image(footer).check(&gpu).is_ok(), accepted, "{footer:?} on {capability:?}: {why}");
        }
        let refusal = image("sm=80 90a\nptx=80\n").check(&gpu(7, 5)).unwrap_err().to_string();
        assert!(refusal.contains("7.5") && refusal.contains("--arch 75"), "{refusal}");
        let refusal = image("sm=80 90a\nptx=\n").check(&gpu(10, 3)).unwrap_err().to_string();
        assert!(refusal.contains("--family f`"), "the default leaves PTX for it: {refusal}");
        let refusal = image("sm=80\n").check(&gpu(9, 0)).unwrap_err().to_string();
        assert!(refusal.contains("--arch 90a"), "the kernels for Hopper are those with wgmma: {refusal}");
        assert_eq!(
            KernelImage::from_bytes("f", fatbin(b"")).unwrap().check(&gpu(7, 5)).ok(),
            Some(CodeTarget::unknown(&gpu(7, 5))),
            "the driver knows"
        );
    }

    #[test]
    fn missing_kernels_are_a_rejection_with_the_command_and_the_folder_goes_first() {
        let nowhere = Path::new("no/such/folder");
        let rejection = KernelImage::find_in(Some(nowhere), "mine", None).unwrap_err();
        assert!(matches!(rejection, Rejection::KernelsMissing { .. }));
        let text = rejection.to_string();
        assert!(text.contains("mine.fatbin") && text.contains("build-kernels --family mine"), "{text}");

        let embedded: &'static [u8] = fatbin(b"embedded").leak();
        let image = KernelImage::find_in(Some(nowhere), "mine", Some(embedded)).unwrap();
        assert_eq!(image.origin(), "the program");
    }
}
