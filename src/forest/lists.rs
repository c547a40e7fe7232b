//! What an approximate search reads first: the rows of each leaf of tree 0 as codes of one or two bits a dimension.
//!
//! A code describes the residual r = x - c of a row to its leaf's centroid by levels u (the signs, or four steps one
//! standard deviation wide); one number a row makes the estimate of an inner product unbiased (Gao and Long 2024):
//! `<v, r> ~ f <v, u>`, f = |r|^2 / <r, u>. The squared distance of query and row is then, up to |q|^2,
//!
//! ```text
//! |c|^2 - 2 <q, c>  +  |r|^2 + 2 f <c, u>  -  2 f <q, u>
//!  score of the leaf    `constant`             `gain` * <q, u>
//! ```
//!
//! Where it pays each row stands in a second list too, in which it is wrong in another direction
//! ([`codes::second_leaf`]): a query that misses one list finds it in the other. Lists are padded to whole blocks of
//! sixteen; a slot that pads has constant NaN and is never chosen.
//!
//! Cost: d / 8 or d / 4 bytes and twelve more for each slot. A scan reads them front to back.

use std::ops::Range;

use anyhow::Result;
use half::bf16;
use rayon::prelude::*;

use super::centroids::Centroids;
use super::partition::{self, FEW, NEAR, Rows, Tree};
use super::shelf::Shelf;
use super::space::{dot32, quantise};
use crate::job::Job;
use crate::kernel::codes::{self, LANES, Second};
use crate::kernel::dispatch::{self, Task};
use crate::kernel::level;
use crate::kernel::scan::{BLOCK, Bits, MAX_DIM_ONE_BIT, put_factors};
use crate::spill::Array;

/// Fewer rows than this are searched exactly in less time than lists would take.
const LEAST_ROWS: usize = 1024;

/// How the rows of an index of this dimension are coded: `None` for too few rows. One bit is enough where many
/// dimensions average its error out; a second copy costs less than it saves until vectors are long (measured on GloVe,
/// MiniLM and fashion-mnist).
pub(crate) fn kind(n: usize, work: usize) -> Option<(Bits, usize)> {
    if n < LEAST_ROWS {
        return None;
    }
    let bits = if (256..=MAX_DIM_ONE_BIT).contains(&work) {
        Bits::One
    } else {
        Bits::Two
    };
    Some((bits, if work <= 401 { 2 } else { 1 }))
}

/// The lists of a build.
#[derive(Debug)]
pub(crate) struct Lists {
    pub(crate) bits: Bits,
    /// `[leaves + 1]`, in slots, multiples of sixteen.
    pub(crate) starts: Vec<u32>,
    /// Position of the row in each slot; `u32::MAX` where it pads.
    pub(crate) rows: Vec<u32>,
    pub(crate) codes: Array<'static, u8>,
}

/// Lists, wherever their numbers lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) bits: Bits,
    pub(crate) block_bytes: usize,
    pub(crate) starts: &'a [u32],
    pub(crate) rows: &'a [u32],
    pub(crate) codes: &'a [u8],
}

impl<'a> View<'a> {
    /// The slots of a leaf; empty if the table of starts does not make sense.
    pub(crate) fn slots(&self, leaf: usize) -> Range<usize> {
        let (a, b) = (self.starts[leaf] as usize, self.starts[leaf + 1] as usize);
        if a <= b && b <= self.rows.len() && a.is_multiple_of(BLOCK) && b.is_multiple_of(BLOCK) {
            a..b
        } else {
            0..0
        }
    }

    /// The rows and codes of each group of a leaf.
    pub(crate) fn groups(&self, leaf: usize) -> impl Iterator<Item = (&'a [u32], &'a [u8])> {
        let slots = self.slots(leaf);
        let group = self.bits.group();
        let codes = self.codes_of(&slots);
        let rows: &[u32] = &self.rows[slots];
        rows.chunks(group)
            .zip(codes.chunks(group / BLOCK * self.block_bytes))
    }

    /// The codes of a list: whole groups, from the first slot of a leaf on.
    pub(crate) fn codes_of(&self, slots: &Range<usize>) -> &'a [u8] {
        &self.codes[self.bytes_of(slots)]
    }

    /// Where they lie.
    pub(super) fn bytes_of(&self, slots: &Range<usize>) -> Range<usize> {
        slots.start / BLOCK * self.block_bytes..slots.end / BLOCK * self.block_bytes
    }
}

impl Lists {
    pub(crate) fn view(&self, work: usize) -> View<'_> {
        View {
            bits: self.bits,
            block_bytes: self.bits.block_bytes(work),
            starts: &self.starts,
            rows: &self.rows,
            codes: &self.codes,
        }
    }

    /// Codes all rows for the leaves of `tree`, whose blocks have these `means`.
    pub(super) fn build(
        shelf: &Shelf,
        tree: &Tree,
        means: &Centroids,
        (bits, copies): (Bits, usize),
        job: &Job,
    ) -> Result<Self> {
        let rows = &shelf.rows();
        let leaves = tree.centroids.norm.len();
        let second = if copies > 1 {
            second_leaves(rows, tree, means, job)?
        } else {
            vec![u32::MAX; tree.rows.len()]
        };
        // How many rows each leaf holds, its own and those of others.
        let mut counts = vec![0u32; leaves];
        for (count, r) in counts.iter_mut().zip(tree.starts.windows(2)) {
            *count = r[1] - r[0];
        }
        for &leaf in second.iter().filter(|&&leaf| leaf != u32::MAX) {
            counts[leaf as usize] += 1;
        }
        let mut starts = vec![0u32];
        for count in &counts {
            starts.push(starts[starts.len() - 1] + count.next_multiple_of(BLOCK as u32));
        }
        let slots = starts[leaves] as usize;
        let mut list = vec![u32::MAX; slots];
        let mut next: Vec<usize> = starts[..leaves].iter().map(|&s| s as usize).collect();
        for (leaf, r) in tree.starts.windows(2).enumerate() {
            let own = (r[1] - r[0]) as usize;
            let to = &mut list[next[leaf]..][..own];
            to.iter_mut().zip(r[0]..).for_each(|(to, p)| *to = p);
            next[leaf] += own;
        }
        for (position, &leaf) in second.iter().enumerate() {
            if leaf != u32::MAX {
                list[next[leaf as usize]] = position as u32;
                next[leaf as usize] += 1;
            }
        }
        let others = by_second_leaf(shelf, tree, &second, job)?;
        drop(second);
        let block_bytes = bits.block_bytes(rows.space.work());
        let mut codes: Array<'_, u8> = shelf.spill.zeros(slots / BLOCK * block_bytes)?;
        for (span, leaves) in rows.spans(&tree.starts) {
            others.bring(span);
            // Cut the codes at the leaves, to fill them in parallel.
            let byte = |slot: u32| slot as usize / BLOCK * block_bytes;
            let mut rest = &mut codes[byte(starts[leaves.start])..byte(starts[leaves.end])];
            let mut parts = Vec::with_capacity(leaves.len());
            for leaf in leaves {
                let range = starts[leaf] as usize..starts[leaf + 1] as usize;
                let part;
                (part, rest) = rest.split_at_mut(range.len() / BLOCK * block_bytes);
                parts.push((leaf, &list[range], part));
            }
            parts.into_par_iter().try_for_each(|(leaf, list, codes)| {
                let mut coder = Coder::new(*rows, others.rows(), tree, leaf);
                for (list, group) in list
                    .chunks(bits.group())
                    .zip(codes.chunks_mut(bits.group() / BLOCK * block_bytes))
                {
                    job.check()?;
                    coder.group(list, bits, group);
                }
                Ok::<_, anyhow::Error>(())
            })?;
            codes.flush()?;
        }
        Ok(Lists {
            bits,
            starts,
            rows: list,
            codes,
        })
    }
}

/// The rows in order of their second leaves, where it matters how they lie: a leaf's list takes them from all over the tree.
fn by_second_leaf<'a>(
    shelf: &'a Shelf,
    tree: &Tree,
    second: &[u32],
    job: &Job,
) -> Result<Shelf<'a, 'a>> {
    if shelf.is_fixed() {
        return Ok(shelf.lend());
    }
    // Those without one come last.
    let last = tree.surplus.len();
    let mut leaf = vec![0u32; second.len()];
    for (&row, &second) in tree.rows.iter().zip(second) {
        leaf[row as usize] = second.min(last as u32);
    }
    let (starts, order) = partition::group(&leaf, last + 1);
    drop(leaf);
    let spans = shelf.leaves_of_spans(&tree.starts);
    let mut bounds: Vec<u32> = std::iter::once(0)
        .chain(spans.map(|leaves| starts[leaves.end]))
        .collect();
    if let Some(end) = bounds.last_mut() {
        *end = order.len() as u32;
    }
    shelf.arranged(&order, bounds, job)
}

/// The second leaf of every position.
fn second_leaves(rows: &Rows, tree: &Tree, means: &Centroids, job: &Job) -> Result<Vec<u32>> {
    let blocks = tree.centroids.blocks();
    let neighbours = tree.centroids.neighbours(means);
    let mut second = vec![u32::MAX; tree.rows.len()];
    let mut rest = &mut second[..];
    for (_, leaves) in rows.spans(&tree.starts) {
        let mut parts = Vec::with_capacity(leaves.len());
        for j in leaves {
            let range = tree.starts[j] as usize..tree.starts[j + 1] as usize;
            let part;
            (part, rest) = rest.split_at_mut(range.len());
            // Copies of a row beyond the first few are in no second list: they would fill one.
            if !tree.surplus[j] {
                parts.push((j, range.start, part));
            }
        }
        parts.into_par_iter().try_for_each(|(j, first, part)| {
            let mut coder = Coder::new(*rows, *rows, tree, j);
            let mut code = vec![128u8; rows.stride];
            // As for the first leaf, only those around it where there are many.
            let near = (tree.surplus.len() > FEW).then(|| neighbours.of(j, NEAR));
            let some = near.as_ref().map(|near| tree.centroids.pick(near));
            let candidates = some.as_ref().map_or(blocks, |some| some.blocks());
            for (i, second) in part.iter_mut().enumerate() {
                job.check()?;
                let row = tree.rows[first + i];
                let (scale, along) = coder.unit_residual((first + i) as u32, &mut code);
                let factor = 2.0 * rows.factors(row).scale;
                *second = codes::second_leaf(
                    level(),
                    &candidates,
                    &Second {
                        row: rows.code(row),
                        factor,
                        residual: &code,
                        residual_scale: scale,
                        along,
                        own: codes::leaf_score(&blocks, j, rows.code(row), factor),
                    },
                );
                if let Some(near) = &near {
                    *second = near.get(*second as usize).copied().unwrap_or(u32::MAX);
                }
            }
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(second)
}

/// Codes rows relative to one leaf.
struct Coder<'a> {
    /// The rows, and the same for those of other leaves.
    rows: Rows<'a>,
    others: Rows<'a>,
    /// Positions of the leaf's own rows.
    own: Range<u32>,
    /// Row numbers by position.
    order: &'a [u32],
    centroid: Vec<f32>,
    point: Vec<f32>,
    residual: Vec<f32>,
    /// Levels of the rows of one group, `[rows][dimensions, padded to a step]`.
    levels: Vec<u8>,
}

impl<'a> Coder<'a> {
    fn new(rows: Rows<'a>, others: Rows<'a>, tree: &'a Tree, leaf: usize) -> Self {
        let c = &tree.centroids;
        let work = rows.space.work();
        let block = &c.codes[leaf / LANES * LANES * c.stride..][..LANES * c.stride];
        let centroid = (0..work)
            .map(|k| c.scale[leaf] * f32::from(block[k / 4 * 64 + leaf % LANES * 4 + k % 4]))
            .collect();
        Coder {
            rows,
            others,
            own: tree.starts[leaf]..tree.starts[leaf + 1],
            order: &tree.rows,
            centroid,
            point: vec![0.0; work],
            residual: vec![0.0; work],
            levels: Vec::new(),
        }
    }

    /// The code of the unit vector from the centroid to the row at a position; returns its scale, and its product with the row.
    fn unit_residual(&mut self, position: u32, code: &mut [u8]) -> (f32, f32) {
        dispatch::run(level(), UnitResidual(self, position, code))
    }

    /// Codes the rows at the positions of a group; `u32::MAX` is none.
    fn group(&mut self, positions: &[u32], bits: Bits, group: &mut [u8]) {
        dispatch::run(level(), CodeGroup(self, positions, bits, group));
    }

    /// Point and residual of the row at a position, as its code has it; returns the length of the residual.
    #[inline(always)]
    fn residual(&mut self, position: u32) -> f64 {
        let row = self.order[position as usize];
        let rows = if self.own.contains(&position) {
            &self.rows
        } else {
            &self.others
        };
        let scale = rows.factors(row).scale;
        let code = rows.code(row);
        let to = self.residual.iter_mut().zip(&mut self.point);
        for (((r, x), c), code) in to.zip(&self.centroid).zip(code) {
            *x = scale * (i32::from(*code) - 128) as f32;
            *r = *x - c;
        }
        dot32(&self.residual, &self.residual).sqrt()
    }
}

struct UnitResidual<'a, 'b, 'c>(&'a mut Coder<'b>, u32, &'c mut [u8]);

impl Task for UnitResidual<'_, '_, '_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn run(self) -> (f32, f32) {
        let UnitResidual(coder, position, code) = self;
        let length = coder.residual(position);
        let unit = if length > 0.0 {
            (1.0 / length) as f32
        } else {
            0.0
        };
        coder.residual.iter_mut().for_each(|r| *r *= unit);
        let (scale, _) = quantise(&coder.residual, code);
        (scale, dot32(&coder.residual, &coder.point) as f32)
    }
}

struct CodeGroup<'a, 'b, 'c>(&'a mut Coder<'b>, &'c [u32], Bits, &'c mut [u8]);

impl Task for CodeGroup<'_, '_, '_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let CodeGroup(coder, positions, bits, group) = self;
        let width = coder.residual.len().next_multiple_of(8);
        coder.levels.resize(positions.len() * width, 0);
        for (v, &position) in positions.iter().enumerate() {
            let levels = v * width..(v + 1) * width;
            if position == u32::MAX {
                coder.levels[levels].fill(0);
                put_factors(group, positions.len(), v, f32::NAN, 0.0);
                continue;
            }
            let length = coder.residual(position);
            // The step of the best four equidistant levels for a normal distribution (Max 1960).
            let step = 0.9957 * length / (coder.residual.len() as f64).sqrt();
            let per = if step > 1e-30 {
                (1.0 / step) as f32
            } else {
                0.0
            };
            let levels = &mut coder.levels[levels];
            for (l, &r) in levels.iter_mut().zip(&coder.residual) {
                *l = match bits {
                    Bits::One => u8::from(r > 0.0),
                    Bits::Two => (r * per + 2.0).clamp(0.0, 3.0) as i32 as u8,
                };
            }
            // The point is used up: its place takes the levels as numbers.
            let middle = if bits == Bits::One { 1.0 } else { 3.0 };
            for (u, &l) in coder.point.iter_mut().zip(&*levels) {
                *u = 2.0 * f32::from(l) - middle;
            }
            let along = dot32(&coder.residual, &coder.point);
            let square = length * length;
            let f = if along > 0.0 { square / along } else { 0.0 };
            // The gain as it will be read, so that its rounding tells only where query and centroid differ.
            let gain = bf16::from_f64(2.0 * f).to_f32();
            let constant = square + f64::from(gain) * dot32(&coder.centroid, &coder.point);
            put_factors(group, positions.len(), v, constant as f32, gain);
        }
        bits.pack(&coder.levels, positions.len(), group);
    }
}
