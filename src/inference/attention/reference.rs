//! Attention in the plainest way, to compare with: whole matrices as candle tensors, and a full sort to choose rows.

use candle_core::{D, Device, IndexOp, Result, Tensor};

use super::{Count, DecodeRow, HeadShape, PrefillItem, Rows};
use crate::cache::{PAGE_TOKENS, Page, Select, Tail};

/// What [`decode`] finds.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The output, `[heads·head_dim]`.
    pub out: Vec<f32>,
    /// The softmax over all positions of each head.
    pub weights: Vec<Vec<f32>>,
    /// The rows each head reads, ascending.
    pub selected: Vec<Vec<u32>>,
    /// The softmax mass of those.
    pub kept: Vec<f32>,
}

/// Attention of one new token, for every rule.
///
/// # Errors
/// What candle says to shapes that do not fit.
pub fn decode(shape: &HeadShape, row: &DecodeRow<'_>) -> Result<Decoded> {
    let (heads, head_dim, group) = (shape.heads, shape.head_dim, shape.group());
    let q = Tensor::from_slice(row.q, (heads, head_dim), &Device::Cpu)?;
    let (mut scores, mut weights) = (Vec::new(), Vec::new());
    for head in 0..heads {
        let k = matrix(row.k, head / group, row.len, head_dim)?;
        let products = (q.i(head..=head)?.matmul(&k.t()?)? * f64::from(shape.scale))?;
        weights.push(softmax(&products)?.flatten_all()?.to_vec1::<f32>()?);
        scores.push(products.flatten_all()?.to_vec1::<f32>()?);
    }
    let everything = Rows::Top { n: Count::Same(row.len), tail: Tail::None, select: Select::Head, lean: &[] };
    // A context of no more than the policy's number of rows is read whole.
    let all = match row.rows {
        Rows::All => true,
        Rows::Top { n: Count::Same(n) | Count::Each { mean: n, .. } | Count::Mass { most: n, .. }, .. } => n >= row.len,
    };
    let Rows::Top { n, tail, select, lean } = (if all { everything } else { row.rows }) else {
        unreachable!("all rows are the top of all");
    };
    let mut selected = Vec::new();
    for (head, scores) in scores.iter().enumerate() {
        let together = match select {
            Select::Head => head..head + 1,
            Select::Group => head / group * group..(head / group + 1) * group,
        };
        let mass = |at: u32| together.clone().map(|head| weights[head][at as usize]).sum::<f32>();
        // Of one head's weights the order is that of the scores, which tells small ones apart that round to nothing.
        let order = match select {
            Select::Head => descending(scores),
            Select::Group => descending(&(0..row.len as u32).map(mass).collect::<Vec<f32>>()),
        };
        let most = match n {
            Count::Same(n) => n,
            Count::Each { rows, .. } => rows[together.clone()].iter().copied().max().unwrap_or(0) as usize,
            Count::Mass { most, .. } => most,
        };
        let most = most.clamp(1, row.len);
        let rows = match n {
            Count::Mass { share, .. } => {
                let needed = share * together.len() as f32;
                let mut sum = 0.0;
                let enough = order[..most].iter().position(|&at| {
                    sum += mass(at);
                    sum >= needed
                });
                enough.map_or(most, |last| last + 1)
            }
            _ => most,
        };
        let mut rows = order[..rows].to_vec();
        rows.sort_unstable();
        selected.push(rows);
    }
    let mut out = Vec::new();
    let mut kept = Vec::new();
    for head in 0..heads {
        let v = matrix(row.v, head / group, row.len, head_dim)?;
        let index = Tensor::from_slice(&selected[head], selected[head].len(), &Device::Cpu)?;
        let chosen = Tensor::from_slice(&weights[head], row.len, &Device::Cpu)?.index_select(&index, 0)?;
        let mass = chosen.sum_all()?.to_scalar::<f32>()?;
        let read = v.index_select(&index, 0)?;
        let sum = chosen.unsqueeze(0)?.matmul(&read)?;
        let sum = match tail {
            Tail::None => sum,
            Tail::Renorm => (sum / f64::from(mass.max(f32::MIN_POSITIVE)))?,
            Tail::Mean => {
                let lean = f64::from(lean.get(head).copied().unwrap_or(0.0));
                let mean = ((v.mean_keepdim(0)? * (1.0 - lean))? + (read.mean_keepdim(0)? * lean)?)?;
                (sum + (mean * f64::from((1.0 - mass).max(0.0)))?)?
            }
        };
        out.extend(sum.flatten_all()?.to_vec1::<f32>()?);
        kept.push(mass);
    }
    Ok(Decoded { out, weights, selected, kept })
}

/// Exact causal attention of an item, `[rows, heads·head_dim]`.
///
/// # Errors
/// What candle says to shapes that do not fit.
pub fn prefill(shape: &HeadShape, item: &PrefillItem<'_>) -> Result<Vec<f32>> {
    let (heads, head_dim, group) = (shape.heads, shape.head_dim, shape.group());
    let len = item.start + item.rows;
    let q = Tensor::from_slice(item.q, (item.rows, heads, head_dim), &Device::Cpu)?;
    let mask: Vec<f32> = (0..item.rows)
        .flat_map(|row| (0..len).map(move |at| if at <= item.start + row { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    let mask = Tensor::from_vec(mask, (item.rows, len), &Device::Cpu)?;
    let mut outs = Vec::new();
    for head in 0..heads {
        let (k, v) = (matrix(item.k, head / group, len, head_dim)?, matrix(item.v, head / group, len, head_dim)?);
        let scores = (q.i((.., head, ..))?.contiguous()?.matmul(&k.t()?)? * f64::from(shape.scale))?;
        outs.push(softmax(&(scores + &mask)?)?.matmul(&v)?);
    }
    Tensor::cat(&outs, 1)?.flatten_all()?.to_vec1()
}

/// The first `len` rows of one KV head as `[len, head_dim]`.
fn matrix(pages: &[Page], kv_head: usize, len: usize, head_dim: usize) -> Result<Tensor> {
    let mut values = vec![0.0; len * head_dim];
    for (at, row) in values.chunks_exact_mut(head_dim).enumerate() {
        pages[at / PAGE_TOKENS].read(kv_head, at % PAGE_TOKENS, row);
    }
    Tensor::from_vec(values, (len, head_dim), &Device::Cpu)
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

/// All positions by value, the largest first; of equal ones the lower position.
fn descending(values: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    // A sum of products may be either zero.
    order.sort_by(|&a, &b| (values[b as usize] + 0.0).total_cmp(&(values[a as usize] + 0.0)).then(a.cmp(&b)));
    order
}
