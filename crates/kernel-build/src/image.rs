//! The file of a family: its fatbins, one after the other, and a footer that says what they run on.
//!
//! A reader walks the fatbins by the sizes in their headers. The footer is text, so that a program can refuse a GPU
//! before it asks the driver, and say why:
//!
//! ```text
//! fatbin, padded to 8 bytes       one for each .cu file
//! ...
//! family=dequantize\n sm=80 90a\n ptx=80\n nvcc=..\n hash=..\n     lines of KEY=VALUE
//! u64, little-endian              length of the lines
//! "GPTQFATB"                      8 bytes
//! ```

use crate::manifest::Manifest;

pub(crate) const MAGIC: &[u8; 8] = b"GPTQFATB";
const FATBIN_MAGIC: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();

/// Whether `bytes` begins like a fatbin.
pub(crate) fn is_fatbin(bytes: &[u8]) -> bool {
    bytes.starts_with(&FATBIN_MAGIC)
}

/// Joins fatbins and the footer into the bytes of a file.
pub(crate) fn join(fatbins: &[Vec<u8>], manifest: &Manifest) -> Vec<u8> {
    let mut file = Vec::new();
    for fatbin in fatbins {
        file.extend_from_slice(fatbin);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    let architectures: Vec<String> = manifest.architectures.iter().map(ToString::to_string).collect();
    let ptx = manifest.ptx.map(|architecture| architecture.to_string()).unwrap_or_default();
    let footer = format!(
        "family={}\nsm={}\nptx={ptx}\nnvcc={}\nhash={}\n",
        manifest.family,
        architectures.join(" "),
        manifest.nvcc,
        manifest.source_hash
    );
    file.extend_from_slice(footer.as_bytes());
    file.extend_from_slice(&(footer.len() as u64).to_le_bytes());
    file.extend_from_slice(MAGIC);
    file
}
