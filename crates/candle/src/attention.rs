//! Causal attention with grouped heads over a cache.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp3, DType, Device, InplaceOp1, Layout, Shape, Tensor, WithDType, bail};
use rayon::prelude::*;

use crate::cpu::attention::{Head, attend};
use crate::cpu::elementwise::softmax;
use crate::cpu::isa::Stored;
use crate::ops::{contiguous, narrow, widen};

/// Queries for which the cache is read row by row. More of them are multiplied as a matrix.
const STREAM_QUERIES: usize = 4;
/// Queries in one matrix: with their scores they stay in a cache of the processor.
const QUERY_ROWS: usize = 128;
/// Products below which one thread is faster than all.
const SERIAL: usize = 1 << 14;

/// Which keys a query sees: its own position and those before it, as far back as the window reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Causal {
    /// The position of the first query; keys begin at position 0.
    pub(crate) first: usize,
    /// How many keys, its own among them; `None` for all.
    pub(crate) window: Option<usize>,
}

impl Causal {
    /// The keys that query number `query` sees.
    fn visible(self, query: usize) -> Range<usize> {
        let end = self.first + query + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    /// The keys that any of the first `queries` queries sees.
    fn seen(self, queries: usize) -> Range<usize> {
        self.visible(0).start..self.visible(queries.saturating_sub(1)).end
    }
}

/// What is added to the scores of `queries` on a device, in f32: `[1, T, keys]`, of those keys alone that any of them sees.
/// `None` where each of them sees all of those, and on the CPU, which masks by itself.
pub(crate) fn mask(causal: Causal, queries: usize, device: &Device) -> candle_core::Result<Option<Tensor>> {
    if device.is_cpu() || queries <= 1 {
        return Ok(None);
    }
    let keys = causal.seen(queries);
    let mut mask = Vec::with_capacity(queries * keys.len());
    for query in 0..queries {
        let visible = causal.visible(query);
        mask.extend(keys.clone().map(|key| if visible.contains(&key) { 0.0 } else { f32::NEG_INFINITY }));
    }
    Ok(Some(Tensor::from_vec(mask, (1, queries, keys.len()), device)?))
}

/// Attention of queries `[T, H, D]` to keys and values `[S, G, D]`, where `H / G` heads share each key, T = S - first:
/// `[T, H · D]`. Scores are scaled by `1 / sqrt(D)`. `mask` is what [`mask`] makes for T queries.
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    causal: Causal,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let (queries, heads, width) = q.dims3()?;
    if !q.device().is_cpu() {
        return on_device(q, k, v, causal, mask);
    }
    if queries <= STREAM_QUERIES {
        let op = Streamed { causal };
        return q.contiguous()?.apply_op3_no_bwd(k, v, &op)?.reshape((queries, heads * width));
    }
    let mut blocks = Vec::new();
    for start in (0..queries).step_by(QUERY_ROWS) {
        let rows = QUERY_ROWS.min(queries - start);
        let causal = Causal { first: causal.first + start, ..causal };
        blocks.push(block(&q.narrow(0, start, rows)?, k, v, causal)?);
    }
    Tensor::cat(&blocks, 0)
}

/// Queries `[T, H, D]` as one matrix for each group of heads: `[G, H / G · T, D]`.
fn by_group(q: &Tensor, groups: usize) -> candle_core::Result<Tensor> {
    let (queries, heads, width) = q.dims3()?;
    let shared = heads / groups;
    let q = q.reshape((queries, groups, shared, width))?.permute((1, 2, 0, 3))?.contiguous()?;
    q.reshape((groups, shared * queries, width))
}

/// The way back, `[T, H · D]`.
fn by_query(out: &Tensor, queries: usize) -> candle_core::Result<Tensor> {
    let (groups, rows, width) = out.dims3()?;
    let shared = rows / queries;
    let out = out.reshape((groups, shared, queries, width))?.permute((2, 0, 1, 3))?.contiguous()?;
    out.reshape((queries, groups * shared * width))
}

/// [`attention`] of one block of queries on the CPU, by matrix products. It multiplies in f32 anyway: so nothing is
/// rounded on the way.
fn block(q: &Tensor, k: &Tensor, v: &Tensor, causal: Causal) -> candle_core::Result<Tensor> {
    let (queries, _, width) = q.dims3()?;
    let dtype = q.dtype();
    let keys = causal.seen(queries);
    let seen =
        |cache: &Tensor| cache.narrow(0, keys.start, keys.len())?.to_dtype(DType::F32)?.transpose(0, 1);
    let (k, v) = (seen(k)?, seen(v)?);
    let q = by_group(q, k.dim(0)?)?.to_dtype(DType::F32)?;
    let scores = q.matmul(&k.transpose(1, 2)?)?;
    let scale = 1.0 / (width as f32).sqrt();
    scores.inplace_op1(&CausalSoftmax { queries, scale, start: keys.start, causal })?;
    by_query(&scores.matmul(&v.contiguous()?)?, queries)?.to_dtype(dtype)
}

/// [`attention`] on a device, by matrix products in the type of q, with softmax in f32. Keys and values are read where
/// they lie.
fn on_device(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    causal: Causal,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let (queries, heads, width) = q.dims3()?;
    let keys = causal.seen(queries);
    let seen = |cache: &Tensor| cache.narrow(0, keys.start, keys.len())?.transpose(0, 1);
    let (k, v) = (seen(k)?, seen(v)?);
    let groups = k.dim(0)?;
    // Scaled before it is multiplied: there are fewer of them, and a product in f16 may not overflow.
    let q = (by_group(q, groups)? * (1.0 / (width as f64).sqrt()))?;
    let scores = q.matmul(&k.transpose(1, 2)?)?.to_dtype(DType::F32)?;
    let scores = match mask {
        Some(mask) => scores.reshape((heads, queries, keys.len()))?.broadcast_add(mask)?,
        None => scores,
    };
    let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(q.dtype())?;
    let weights = weights.reshape((groups, heads / groups * queries, keys.len()))?;
    by_query(&weights.matmul(&v)?, queries)
}

struct CausalSoftmax {
    queries: usize,
    scale: f32,
    start: usize,
    causal: Causal,
}

impl CausalSoftmax {
    fn run(&self, scores: &mut [f32], keys: usize) {
        scores.par_chunks_mut(keys).enumerate().with_min_len(4).for_each(|(row, scores)| {
            let visible = self.causal.visible(row % self.queries);
            let (before, rest) = scores.split_at_mut(visible.start - self.start);
            let (seen, after) = rest.split_at_mut(visible.len());
            before.fill(0.0);
            softmax(seen, self.scale);
            after.fill(0.0);
        });
    }
}

impl InplaceOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, scores: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let keys = layout.dims().last().copied().unwrap_or(1);
        if layout.contiguous_offsets() != Some((0, layout.shape().elem_count())) {
            bail!("the scores are no tensor of their own");
        }
        match scores {
            CpuStorage::F32(scores) => self.run(scores, keys),
            _ => bail!("the scores are not in f32"),
        }
        Ok(())
    }
}

/// [`attention`] of a few queries on the CPU.
struct Streamed {
    causal: Causal,
}

impl Streamed {
    fn run<T: Stored + WithDType>(
        &self,
        (q, q_layout): (&[T], &Layout),
        (k, k_layout): (&[T], &Layout),
        (v, v_layout): (&[T], &Layout),
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (queries, heads, width) = q_layout.shape().dims3()?;
        let (keys, groups, _) = k_layout.shape().dims3()?;
        if v_layout.dims() != k_layout.dims() || keys != self.causal.first + queries {
            bail!("queries {q_layout:?} do not fit keys {k_layout:?} and values {v_layout:?}");
        }
        let (q, k, v) = (widen(contiguous(q, q_layout)?), contiguous(k, k_layout)?, contiguous(v, v_layout)?);
        let share = heads / groups * width;
        let scale = 1.0 / (width as f32).sqrt();
        let mut out = vec![0.0; q.len()];
        let head = |index: usize, out: &mut [f32]| {
            let (query, group) = (index / groups, index % groups);
            let Range { start, end } = self.causal.visible(query);
            let first = (start * groups + group) * width;
            let rows = end - start;
            let of = |elements| Head { elements, stride: groups * width, width, rows };
            let mut scores = vec![0.0; share / width * rows];
            attend(&q[index * share..][..share], of(&k[first..]), of(&v[first..]), scale, &mut scores, out);
        };
        if keys * q.len() < SERIAL {
            out.chunks_mut(share).enumerate().for_each(|(index, out)| head(index, out));
        } else {
            out.par_chunks_mut(share).enumerate().for_each(|(index, out)| head(index, out));
        }
        Ok((T::to_cpu_storage_owned(narrow::<T>(out)), q_layout.shape().clone()))
    }
}

impl CustomOp3 for Streamed {
    fn name(&self) -> &'static str {
        "streamed-attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        match (q, k, v) {
            (CpuStorage::F32(q), CpuStorage::F32(k), CpuStorage::F32(v)) => {
                self.run((q, q_layout), (k, k_layout), (v, v_layout))
            }
            (CpuStorage::F16(q), CpuStorage::F16(k), CpuStorage::F16(v)) => {
                self.run((q, q_layout), (k, k_layout), (v, v_layout))
            }
            (CpuStorage::BF16(q), CpuStorage::BF16(k), CpuStorage::BF16(v)) => {
                self.run((q, q_layout), (k, k_layout), (v, v_layout))
            }
            _ => bail!("queries, keys and values have different dtypes"),
        }
    }
}
