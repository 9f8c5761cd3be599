//! One validated, packed layer.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::format::{
    Bits, GroupIndex, GroupIndexError, GroupIndexKind, GroupSize, Packing, ZeroEncoding, ZeroPoints,
    ZeroScan, packing,
};
use crate::shared::Shared;
use crate::tensor::{DType, Floats};

/// A quantized linear layer as it is packed on disk: `y [M, N] = x [M, K] · W (+ bias)`.
///
/// A `QuantLinear` cannot be wrong. Whoever holds one knows that the shapes agree, that every row's group exists,
/// that bits, packing and group size are legal, and in which encoding the zero points stand. It is made by
/// [`Checkpoint::open`](crate::checkpoint::Checkpoint::open) or by [`QuantLinear::new`], and cloning it copies no
/// weights.
#[derive(Clone, Debug)]
pub struct QuantLinear {
    info: LayerInfo,
    qweight: Shared<u32>,
    zeros: ZeroPoints,
    zero_scan: ZeroScan,
    scales: Floats,
    group_index: GroupIndex,
    bias: Option<Floats>,
}

/// What a dispatcher and a person need to know of a layer, without its weights.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// The module's name in the checkpoint: `model.layers.0.self_attn.q_proj`.
    pub name: Arc<str>,
    /// K: columns of x, rows of W.
    pub in_features: usize,
    /// N: columns of W and of the output.
    pub out_features: usize,
    /// The width of a code.
    pub bits: Bits,
    /// The order of bits in the packed words.
    pub packing: Packing,
    /// Rows that share a scale.
    pub group_size: GroupSize,
    /// G: how many groups there are, `ceil(K / group_size)`.
    pub groups: usize,
    /// Whether every zero point is `2^(bits − 1)`. Read from the tensor.
    pub symmetric: bool,
    /// What kind of `g_idx` the file holds.
    pub g_idx: GroupIndexKind,
    /// Whether rows must be looked up in `g_idx`: a real permutation. Read from the tensor.
    pub act_order: bool,
    /// Whether some group has more or fewer rows than `group_size` (the last one may be short).
    pub ragged_groups: bool,
    /// Whether there is a bias.
    pub bias: bool,
    /// The element type of the scales.
    pub scale_dtype: DType,
    /// How the zero points are stored at the moment.
    pub zero_encoding: ZeroEncoding,
    /// Bytes of qweight, qzeros, scales, g_idx and bias together, as packed.
    pub packed_bytes: usize,
}

/// A layer's place in its model: an index into [`Checkpoint::layers`](crate::checkpoint::Checkpoint::layers).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct LayerId(pub(crate) usize);

impl LayerId {
    /// The index.
    pub fn index(self) -> usize {
        self.0
    }
}

impl LayerInfo {
    /// Whether the last group has fewer rows than the others.
    pub fn short_last_group(&self) -> bool {
        self.groups > 1 && !self.in_features.is_multiple_of(self.group_size.rows(self.in_features))
    }
}

/// A tensor that becomes part of a layer, and where it comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Part<T> {
    /// The file it was read from, for error messages.
    pub file: Arc<Path>,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub data: T,
}

impl<T> Part<T> {
    /// A tensor of `file`.
    pub fn from_file(file: Arc<Path>, shape: Vec<usize>, data: T) -> Self {
        Self { file, shape, data }
    }

    /// A tensor that an engine made itself.
    pub fn in_memory(shape: Vec<usize>, data: T) -> Self {
        Self { file: Arc::from(Path::new("(memory)")), shape, data }
    }
}

/// The tensors and numbers of which [`QuantLinear::new`] makes a layer.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a layer has these parts; a new one must break callers")]
pub struct QuantLinearParts {
    /// The module's name.
    pub name: Arc<str>,
    /// The width of a code.
    pub bits: Bits,
    /// The order of bits in the packed words.
    pub packing: Packing,
    /// Rows that share a scale.
    pub group_size: GroupSize,
    /// How `qzeros` stores zero points.
    pub zero_encoding: ZeroEncoding,
    /// `[ceil(K · bits / 32), N]`, codes packed along K.
    pub qweight: Part<Shared<u32>>,
    /// `[G, ceil(N · bits / 32)]`, zero points packed along N.
    pub qzeros: Part<Shared<u32>>,
    /// `[G, N]`.
    pub scales: Part<Floats>,
    /// `[K]`: the group of each row. `None`, or no element: groups are consecutive.
    pub g_idx: Option<Part<Shared<i32>>>,
    /// `[N]`.
    pub bias: Option<Part<Floats>>,
}

impl QuantLinear {
    /// Checks that the parts fit together and makes a layer of them.
    ///
    /// # Errors
    /// [`Error::TensorShape`] or [`Error::GroupOutOfRange`], naming the tensor, what was found and what was
    /// expected.
    pub fn new(parts: QuantLinearParts) -> Result<Self> {
        let QuantLinearParts { name, bits, packing, group_size, zero_encoding, .. } = &parts;
        let (bits, packing, group_size) = (*bits, *packing, *group_size);
        let shape = |tensor: &str, file: &Arc<Path>, found: &[usize], expected: String, hint: &str| {
            Error::TensorShape {
                file: Arc::clone(file),
                tensor: format!("{name}.{tensor}"),
                found: found.to_vec(),
                expected,
                hint: hint.into(),
            }
        };

        let whole = |tensor: &str, file: &Arc<Path>, found: &[usize], elements: usize| {
            let needed = found.iter().try_fold(1usize, |product, &length| product.checked_mul(length));
            if needed == Some(elements) {
                return Ok(());
            }
            let needed = needed.map_or("more than can be counted".to_owned(), |needed| needed.to_string());
            let expected = format!("a shape of the {elements} elements that it holds");
            let hint = format!("it holds {elements} elements, its shape needs {needed}: pass all of them");
            Err(shape(tensor, file, found, expected, &hint))
        };
        let g_idx = parts.g_idx.as_ref().filter(|part| !part.data.is_empty());
        whole("qweight", &parts.qweight.file, &parts.qweight.shape, parts.qweight.data.len())?;
        whole("qzeros", &parts.qzeros.file, &parts.qzeros.shape, parts.qzeros.data.len())?;
        whole("scales", &parts.scales.file, &parts.scales.shape, parts.scales.data.len())?;
        g_idx.map_or(Ok(()), |part| whole("g_idx", &part.file, &part.shape, part.data.len()))?;
        parts.bias.as_ref().map_or(Ok(()), |part| whole("bias", &part.file, &part.shape, part.data.len()))?;

        let &[word_rows, n] = parts.qweight.shape.as_slice() else {
            let expected = "two dimensions, [ceil(K · bits / 32), N]".into();
            return Err(shape(
                "qweight",
                &parts.qweight.file,
                &parts.qweight.shape,
                expected,
                "restore the file",
            ));
        };
        let k = match g_idx {
            Some(part) => part.data.len(),
            None => word_rows.saturating_mul(32) / bits.get(),
        };
        if n == 0 || k == 0 {
            let expected = "at least one row and one column".into();
            return Err(shape(
                "qweight",
                &parts.qweight.file,
                &parts.qweight.shape,
                expected,
                "restore the file",
            ));
        }
        if packing::words_for(bits, k) != word_rows {
            return Err(shape(
                "qweight",
                &parts.qweight.file,
                &parts.qweight.shape,
                format!("[{}, N]: {k} rows (from g_idx) of {bits}-bit codes", packing::words_for(bits, k)),
                &match Bits::ALL.into_iter().find(|&bits| packing::words_for(bits, k) == word_rows) {
                    Some(fit) => fits_bits(fit),
                    None => "restore the file from where the checkpoint came from".into(),
                },
            ));
        }
        if !packing::allows(bits, packing, k) || !packing::allows(bits, packing, n) {
            return Err(shape(
                "qweight",
                &parts.qweight.file,
                &parts.qweight.shape,
                format!(
                    "K and N to be multiples of 32 in the {packing} layout of {bits} bits (K = {k}, N = {n})"
                ),
                "quantize the module in another format",
            ));
        }

        let groups = group_size.groups(k);
        let because = format!("K = {k}, N = {n}, {bits} bits, group size {group_size}");
        // Without g_idx, K follows from the width, and so does all that is wrong with a wrong one.
        let bits_that_fit = || {
            let fits = |other: &Bits| {
                let k = word_rows.saturating_mul(32) / other.get();
                let groups = group_size.groups(k);
                packing::words_for(*other, k) == word_rows
                    && parts.scales.shape == [groups, n]
                    && parts.qzeros.shape == [groups, packing::words_for(*other, n)]
            };
            Bits::ALL.into_iter().filter(|other| g_idx.is_none() && *other != bits).find(fits)
        };
        let group_hint = || match (bits_that_fit(), &parts.scales.shape[..]) {
            (Some(fit), _) => fits_bits(fit),
            (None, &[found, _]) if found != groups && found > 0 => format!(
                "{found} groups over {k} rows fit a group size of {}: correct `group_size` in the configuration, \
                 or the `dynamic` rule for this module",
                if found == 1 { "-1".into() } else { k.div_ceil(found).to_string() }
            ),
            _ => "restore the file from where the checkpoint came from".into(),
        };
        if parts.scales.shape != [groups, n] {
            let expected = format!("[{groups}, {n}] ({because})");
            return Err(shape("scales", &parts.scales.file, &parts.scales.shape, expected, &group_hint()));
        }
        let zero_words = packing::words_for(bits, n);
        if parts.qzeros.shape != [groups, zero_words] {
            let expected = format!("[{groups}, {zero_words}] ({because})");
            return Err(shape("qzeros", &parts.qzeros.file, &parts.qzeros.shape, expected, &group_hint()));
        }
        let zeros = ZeroPoints::new(parts.qzeros.data.clone(), groups, n, bits, packing, *zero_encoding)
            .ok_or_else(|| {
                let expected = format!("[{groups}, {zero_words}] ({because})");
                shape("qzeros", &parts.qzeros.file, &parts.qzeros.shape, expected, "restore the file")
            })?;

        if let Some(part) = g_idx
            && part.shape != [k]
        {
            return Err(shape("g_idx", &part.file, &part.shape, format!("[{k}]"), "restore the file"));
        }
        let (group_index, kind) =
            GroupIndex::from_tensor(g_idx.map(|part| &part.data[..]), k, group_size, groups)
                .map_err(|fault| group_error(fault, name, g_idx.map(|part| &part.file), k))?;
        if let Some(part) = &parts.bias
            && (part.shape != [n] || part.data.len() != n)
        {
            return Err(shape("bias", &part.file, &part.shape, format!("[{n}]"), "restore the file"));
        }

        let packed_bytes = parts.qweight.data.as_bytes().len()
            + parts.qzeros.data.as_bytes().len()
            + parts.scales.data.as_bytes().len()
            + g_idx.map_or(0, |part| part.data.as_bytes().len())
            + parts.bias.as_ref().map_or(0, |part| part.data.as_bytes().len());
        let zero_scan = zeros.scan();
        let info = LayerInfo {
            name: Arc::clone(name),
            in_features: k,
            out_features: n,
            bits,
            packing,
            group_size,
            groups,
            symmetric: zeros.is_symmetric_by(&zero_scan),
            g_idx: kind,
            act_order: matches!(group_index, GroupIndex::ActOrder(_)),
            ragged_groups: matches!(&group_index, GroupIndex::ActOrder(order) if !order.is_uniform()),
            bias: parts.bias.is_some(),
            scale_dtype: parts.scales.data.dtype(),
            zero_encoding: *zero_encoding,
            packed_bytes,
        };
        Ok(Self {
            info,
            qweight: parts.qweight.data,
            zeros,
            zero_scan,
            scales: parts.scales.data,
            group_index,
            bias: parts.bias.map(|part| part.data),
        })
    }

    /// The layer's numbers and kinds.
    pub fn info(&self) -> &LayerInfo {
        &self.info
    }

    /// The module's name in the checkpoint.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// K: columns of x, rows of W.
    pub fn in_features(&self) -> usize {
        self.info.in_features
    }

    /// N: columns of W and of the output.
    pub fn out_features(&self) -> usize {
        self.info.out_features
    }

    /// The packed codes, `[ceil(K · bits / 32), N]`; [`packing::locate`] says where each stands.
    pub fn qweight(&self) -> &Shared<u32> {
        &self.qweight
    }

    /// The zero points, `[G, N]` packed along N.
    pub fn zeros(&self) -> &ZeroPoints {
        &self.zeros
    }

    /// What was seen in the stored zero points when the layer was made.
    pub fn zero_scan(&self) -> &ZeroScan {
        &self.zero_scan
    }

    /// The scales, `[G, N]`.
    pub fn scales(&self) -> &Floats {
        &self.scales
    }

    /// The bias, `[N]`.
    pub fn bias(&self) -> Option<&Floats> {
        self.bias.as_ref()
    }

    /// Which group each row belongs to.
    pub fn group_index(&self) -> &GroupIndex {
        &self.group_index
    }

    /// Brings the zero points to another encoding and says whether that changed anything. They carry the mark of
    /// the encoding they are in, so converting twice is the same as converting once.
    pub fn convert_zeros(&mut self, to: ZeroEncoding) -> bool {
        self.info.zero_encoding = to;
        self.zeros.convert(to)
    }

    /// Reads the stored zero points as `encoding`, without changing a word.
    pub(crate) fn reinterpret_zeros(&mut self, encoding: ZeroEncoding) {
        self.zeros.reinterpret(encoding);
        self.info.zero_encoding = encoding;
        self.info.symmetric = self.zeros.is_symmetric_by(&self.zero_scan);
    }

    /// Replaces the zero points by what they mean, where [`ZeroPoints`] had no encoding for what was stored.
    pub(crate) fn replace_zeros(&mut self, zeros: ZeroPoints) {
        self.zeros = zeros;
        self.info.zero_encoding = self.zeros.encoding();
        self.info.symmetric = self.zeros.is_symmetric();
    }

    /// Bytes held in memory that is not a mapped file.
    pub fn resident_bytes(&self) -> usize {
        self.qweight.resident_bytes()
            + self.zeros.resident_bytes()
            + self.scales.resident_bytes()
            + self.bias.as_ref().map_or(0, Floats::resident_bytes)
            + self.group_index.resident_bytes()
    }

    /// The dense matrix `[K, N]`, row-major: `scale · (code − zero)` in f32, one rounding for f32 scales and none
    /// for f16 and bf16 ones.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.in_features() * self.out_features()];
        let mut row = DequantizedRow::new(self);
        for (k, out) in dense.chunks_exact_mut(self.out_features()).enumerate() {
            row.read(k, out);
        }
        dense
    }

    /// Reads dense rows one at a time, without ever holding the matrix.
    pub fn dequantized_rows(&self) -> DequantizedRow<'_> {
        DequantizedRow::new(self)
    }
}

/// A reader of dense rows of a layer. Holds the scales and zero points of the group it read last.
#[derive(Debug)]
pub struct DequantizedRow<'a> {
    layer: &'a QuantLinear,
    group: Option<usize>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
    codes: Vec<u8>,
}

impl<'a> DequantizedRow<'a> {
    fn new(layer: &'a QuantLinear) -> Self {
        let n = layer.out_features();
        Self { layer, group: None, scales: vec![0.0; n], zeros: vec![0; n], codes: vec![0; n] }
    }

    /// Writes row `k` (0 ≤ k < K) of W into `out [N]`.
    pub fn read(&mut self, k: usize, out: &mut [f32]) {
        let info = &self.layer.info;
        let n = info.out_features;
        let group = self.layer.group_index.group_of(k, info.group_size.rows(info.in_features));
        if self.group != Some(group) {
            self.layer.scales.read(group * n..(group + 1) * n, &mut self.scales);
            self.layer.zeros.unpack_group(group, 0..n, &mut self.zeros);
            self.group = Some(group);
        }
        packing::unpack_row(&self.layer.qweight, n, info.bits, info.packing, k, 0..n, &mut self.codes);
        let columns = self.codes.iter().zip(&self.zeros).zip(&self.scales);
        for (out, ((&code, &zero), &scale)) in out.iter_mut().zip(columns) {
            *out = scale * (f32::from(code) - f32::from(zero));
        }
    }
}

fn fits_bits(fit: Bits) -> String {
    format!(
        "the tensors fit {fit} bits: correct `bits` in the configuration, or the `dynamic` rule for this module"
    )
}

fn group_error(fault: GroupIndexError, name: &str, file: Option<&Arc<Path>>, k: usize) -> Error {
    let file = file.map_or_else(|| Arc::from(Path::new("")), Arc::clone);
    let tensor = format!("{name}.g_idx");
    match fault {
        GroupIndexError::Length { found, .. } => Error::TensorShape {
            file,
            tensor,
            found: vec![found],
            expected: format!("[{k}]"),
            hint: "restore the file".into(),
        },
        GroupIndexError::TooManyRows { in_features } => Error::TensorShape {
            file,
            tensor,
            found: vec![in_features],
            expected: format!("at most {} rows", u32::MAX),
            hint: "rows are counted in 32 bits: split the module".into(),
        },
        GroupIndexError::Unset { row, groups } => Error::GroupOutOfRange {
            file,
            tensor,
            row,
            found: -1,
            groups,
            hint: "-1 marks a row without a group in files of compressed-tensors: convert the file with its own tools"
                .into(),
        },
        GroupIndexError::OutOfRange { row, found, groups } => Error::GroupOutOfRange {
            file,
            tensor,
            row,
            found,
            groups,
            hint: "restore the file; `group_size` in the configuration may also be wrong".into(),
        },
    }
}
