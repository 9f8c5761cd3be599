//! Matrices in safetensors files: one read whole, one written row by row.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use gptq_conformance::Activations;
use gptq_core::tensor::DType;
use gptq_core::{Error, StoredDtype};
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, TensorInfo};
use tempfile::NamedTempFile;

use crate::failure::{Failure, Result};

/// A row-major matrix in host memory, of a type that is known at run time. Aligned for every type it can have.
pub(crate) struct Matrix {
    dtype: DType,
    shape: [usize; 2],
    words: Vec<u64>,
}

impl Matrix {
    /// A matrix of zeros. `None` where its size in bytes is no number.
    pub(crate) fn zeros(dtype: DType, shape: [usize; 2]) -> Option<Self> {
        let bytes = shape[0].checked_mul(shape[1])?.checked_mul(dtype.size_bytes())?;
        Some(Self { dtype, shape, words: vec![0; bytes.div_ceil(size_of::<u64>())] })
    }

    /// The values of x, rounded to its type. `None` as for [`Matrix::zeros`].
    pub(crate) fn of(x: &Activations) -> Option<Self> {
        let mut matrix = Self::zeros(x.dtype(), x.shape())?;
        matrix.bytes_mut().copy_from_slice(&x.to_bytes());
        Some(matrix)
    }

    /// Reads the tensor `name` of `file`, which has two dimensions and is f32, f16 or bf16.
    pub(crate) fn read(file: &Path, name: &'static str) -> Result<Self> {
        let content =
            fs::read(file).map_err(|source| Error::Io { path: file.into(), action: "read", source })?;
        let tensors = SafeTensors::deserialize(&content)
            .map_err(|error| Error::Header { path: file.into(), problem: error.to_string() })?;
        let Ok(tensor) = tensors.tensor(name) else {
            let mut found: Vec<String> = tensors.names().iter().map(|name| format!("`{name}`")).collect();
            found.sort();
            return Err(Failure::NoSuchTensor { file: file.into(), wanted: name, found });
        };
        let dtype = match tensor.dtype() {
            StoredDtype::F32 => DType::F32,
            StoredDtype::F16 => DType::F16,
            StoredDtype::BF16 => DType::BF16,
            other => {
                return Err(Failure::Core(Error::TensorDtype {
                    file: file.into(),
                    tensor: name.into(),
                    found: format!("{other:?}"),
                    expected: "F32, F16 or BF16".into(),
                    hint: "convert it to the type that the layer is to compute in".into(),
                }));
            }
        };
        let shape = |hint: &str| {
            Failure::Core(Error::TensorShape {
                file: file.into(),
                tensor: name.into(),
                found: tensor.shape().to_vec(),
                expected: "two dimensions, [M, K]".into(),
                hint: hint.into(),
            })
        };
        let &[rows, columns] = tensor.shape() else {
            return Err(shape(
                "reshape it; one row is [1, K], a batch of sequences is [batch * sequence, K]",
            ));
        };
        let mut matrix = Self::zeros(dtype, [rows, columns]).ok_or_else(|| shape("it is too large"))?;
        matrix.bytes_mut().copy_from_slice(tensor.data());
        Ok(matrix)
    }

    /// The element type.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[rows, columns]`.
    pub(crate) fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The elements, row-major, little-endian.
    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words).get(..self.len_bytes()).unwrap_or_default()
    }

    /// The elements, row-major, little-endian.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len_bytes();
        bytemuck::cast_slice_mut(&mut self.words).get_mut(..len).unwrap_or_default()
    }

    /// The element in a row and column; `None` where there is none.
    pub(crate) fn value(&self, row: usize, column: usize) -> Option<f64> {
        let [rows, columns] = self.shape;
        if row >= rows || column >= columns {
            return None;
        }
        let size = self.dtype.size_bytes();
        let start = (row * columns + column) * size;
        let bytes = self.bytes().get(start..start + size)?;
        Some(match self.dtype {
            DType::F32 => f32::from_ne_bytes(bytes.try_into().ok()?).into(),
            DType::F16 => f16::from_ne_bytes(bytes.try_into().ok()?).to_f64(),
            DType::BF16 => bf16::from_ne_bytes(bytes.try_into().ok()?).to_f64(),
        })
    }

    /// How many elements are infinite or no number.
    pub(crate) fn not_finite(&self) -> usize {
        // All exponent bits set, in all three types.
        let halves = |exponent: u16| {
            let halves: &[u16] = bytemuck::cast_slice(self.bytes());
            halves.iter().filter(|half| *half & exponent == exponent).count()
        };
        match self.dtype {
            DType::F32 => {
                bytemuck::cast_slice::<u8, f32>(self.bytes()).iter().filter(|x| !x.is_finite()).count()
            }
            DType::F16 => halves(0x7c00),
            DType::BF16 => halves(0x7f80),
        }
    }

    // Cannot overflow: `zeros` has made the same product.
    fn len_bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.dtype.size_bytes()
    }
}

/// A safetensors file that does not exist until it is complete.
pub(crate) struct NewFile {
    path: PathBuf,
    force: bool,
}

impl NewFile {
    /// The file at `path`, which must not exist unless `force`. Asked before the work, so that the work is not lost.
    pub(crate) fn at(path: &Path, force: bool) -> Result<Self> {
        let path = path.to_path_buf();
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                Err(Failure::OutputExists { path, what: "this is a directory", forcible: false })
            }
            Ok(_) if !force => Err(exists(path)),
            _ => {
                let dir = directory_of(&path);
                fs::metadata(dir).map_err(|source| Error::Io {
                    path: dir.into(),
                    action: "write into",
                    source,
                })?;
                Ok(Self { path, force })
            }
        }
    }

    /// Writes one tensor of `shape`, whose bytes `write_rows` writes, and gives the file its name. Returns its length.
    pub(crate) fn write(
        self,
        name: &str,
        dtype: DType,
        shape: [usize; 2],
        write_rows: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<usize> {
        let header = header(name, dtype, shape).map_err(|source| Error::Io {
            path: self.path.clone(),
            action: "write",
            source,
        })?;
        self.fill(|writer| header_and_rows(writer, &header, write_rows))
    }

    /// Writes a text and gives the file its name.
    pub(crate) fn write_text(self, text: &str) -> Result<()> {
        self.fill(|writer| writer.write_all(text.as_bytes())).map(drop)
    }

    fn fill(self, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<usize> {
        let path = &self.path;
        let failed = |action| move |source| Error::Io { path: path.clone(), action, source };
        let temporary = self.temporary().map_err(failed("create"))?;
        let mut writer = BufWriter::with_capacity(1 << 20, temporary);
        let file = content(&mut writer)
            .and_then(|()| writer.into_inner().map_err(io::IntoInnerError::into_error))
            .map_err(failed("write"))?;
        let bytes = file.as_file().metadata().map_err(failed("write"))?.len();
        let renamed = if self.force { file.persist(path) } else { file.persist_noclobber(path) };
        match renamed {
            Ok(_) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(exists(self.path)),
            Err(error) => Err(failed("create")(error.error).into()),
        }
    }

    /// A file beside the one to write, so that renaming it copies nothing. Removed unless it gets its name.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new file, less what umask takes away. Private by default would surprise whoever shares a directory.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(directory_of(&self.path))
    }
}

/// The directory in which a path stands.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

fn exists(path: PathBuf) -> Failure {
    Failure::OutputExists { path, what: "the file exists already", forcible: true }
}

fn header_and_rows(
    writer: &mut dyn Write,
    header: &[u8],
    write_rows: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    writer.write_all(&(header.len() as u64).to_le_bytes())?;
    writer.write_all(header)?;
    write_rows(writer)?;
    writer.flush()
}

/// The header of a file with one tensor, filled up so that the data is aligned to 8 bytes.
fn header(name: &str, dtype: DType, shape: [usize; 2]) -> io::Result<Vec<u8>> {
    let stored = match dtype {
        DType::F32 => StoredDtype::F32,
        DType::F16 => StoredDtype::F16,
        DType::BF16 => StoredDtype::BF16,
    };
    let bytes = shape[0].saturating_mul(shape[1]).saturating_mul(dtype.size_bytes());
    let info = TensorInfo { dtype: stored, shape: shape.to_vec(), data_offsets: (0, bytes) };
    let metadata = Metadata::new(None, vec![(name.to_owned(), info)]).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, force: bool, bytes: &[u8]) -> Result<usize> {
        NewFile::at(path, force)?.write("x", DType::F16, [2, 3], |file| file.write_all(bytes))
    }

    #[test]
    fn a_matrix_that_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let bytes: Vec<u8> = (0..12).collect();
        write(&path, false, &bytes).unwrap();
        let matrix = Matrix::read(&path, "x").unwrap();
        assert_eq!((matrix.dtype(), matrix.shape(), matrix.bytes()), (DType::F16, [2, 3], &bytes[..]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
    }

    #[test]
    fn a_file_is_replaced_by_force_only_and_a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(write(&path, false, &[0; 12]), Err(Failure::OutputExists { .. })));
        let broken = NewFile::at(&path, true).unwrap();
        let failure = broken.write("x", DType::F16, [2, 3], |_| Err(io::Error::other("the disk is full")));
        assert!(failure.is_err_and(|failure| failure.report().contains("the disk is full")));
        assert_eq!(fs::read(&path).unwrap(), b"precious", "the old file stays until the new one is complete");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary file is gone");
        write(&path, true, &[0; 12]).unwrap();
        assert!(Matrix::read(&path, "x").is_ok());
    }

    #[test]
    fn infinities_and_what_is_no_number_are_counted_in_every_type() {
        for (dtype, infinite, largest) in [
            (DType::F32, f32::NEG_INFINITY.to_le_bytes().to_vec(), f32::MAX.to_le_bytes().to_vec()),
            (DType::F16, 0xfc00u16.to_le_bytes().to_vec(), 0x7bffu16.to_le_bytes().to_vec()),
            (DType::BF16, 0x7fc0u16.to_le_bytes().to_vec(), 0x7f7fu16.to_le_bytes().to_vec()),
        ] {
            let mut matrix = Matrix::zeros(dtype, [1, 3]).unwrap();
            matrix.bytes_mut()[..infinite.len()].copy_from_slice(&infinite);
            matrix.bytes_mut()[infinite.len()..2 * infinite.len()].copy_from_slice(&largest);
            assert_eq!(matrix.not_finite(), 1, "{dtype}");
            assert!(matrix.value(0, 0).is_some_and(|value| !value.is_finite()), "{dtype}");
            assert!(matrix.value(0, 1).is_some_and(|value| value > 6e4 && value.is_finite()), "{dtype}");
            assert_eq!((matrix.value(0, 2), matrix.value(0, 3), matrix.value(1, 0)), (Some(0.0), None, None));
        }
    }
}
