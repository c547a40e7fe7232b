//! The four-bit plane ([`crate::kernel::nibble`]) of all rows in leaf order, and the radius of every leaf: what exact search
//! looks at first.

use std::ops::Range;

use anyhow::{Result, ensure};
use rayon::iter::IndexedParallelIterator;
use rayon::prelude::*;

use super::file::Forest;
use super::format::Kind;
use super::partition::{Rows, Tree};
use super::shelf::moved;
use super::space::{Role, Space};
use crate::job::Job;
use crate::kernel::codes::{self, LANES};
use crate::kernel::level;
use crate::kernel::nibble::{Factors, ROWS, block_bytes, groups, pack};
use crate::spill::{Array, Spill};

/// The four-bit codes of all rows, by row number.
pub(super) struct Nibbles {
    dim: usize,
    /// `[n, groups]`.
    codes: Array<'static, [u8; 4]>,
    factors: Array<'static, Factors>,
}

/// Those of some consecutive rows.
pub(super) struct Part<'a> {
    groups: usize,
    codes: &'a mut [[u8; 4]],
    factors: &'a mut [Factors],
}

impl Part<'_> {
    /// Codes row `i` of the part, given its turned point.
    pub(super) fn set(&mut self, i: usize, space: &Space, point: &[f32]) {
        let code = &mut self.codes[i * self.groups..][..self.groups];
        self.factors[i] = space.encode_nibbles(point, code);
    }
}

impl Nibbles {
    /// Bytes of a row.
    pub(super) fn record(dim: usize) -> usize {
        groups(dim) * 4 + size_of::<Factors>()
    }

    /// Space for `n` points of `dim` components.
    pub(super) fn new(n: usize, dim: usize, spill: &Spill) -> Result<Self> {
        Ok(Nibbles {
            dim,
            codes: spill.zeros(n * groups(dim))?,
            factors: spill.zeros(n)?,
        })
    }

    /// Has what was coded reach the disk.
    pub(super) fn flush(&self) -> Result<()> {
        self.codes.flush()?;
        self.factors.flush()
    }

    /// The rows at other places.
    pub(super) fn moved(self, place: &[u32], spill: &Spill, job: &Job) -> Result<Self> {
        Ok(Nibbles {
            dim: self.dim,
            codes: moved(&self.codes, groups(self.dim), &[], place, spill, job)?,
            factors: moved(&self.factors, 1, &[], place, spill, job)?,
        })
    }

    /// Some rows in parts of `each`.
    pub(super) fn par_chunks_mut(
        &mut self,
        rows: Range<usize>,
        each: usize,
    ) -> impl IndexedParallelIterator<Item = Part<'_>> {
        let groups = groups(self.dim);
        self.codes[rows.start * groups..rows.end * groups]
            .par_chunks_mut(each * groups)
            .zip(self.factors[rows].par_chunks_mut(each))
            .map(move |(codes, factors)| Part {
                groups,
                codes,
                factors,
            })
    }

    /// The plane, in this order of rows, which lie in spans that end at `bounds`.
    pub(super) fn pack(
        self,
        order: &[u32],
        bounds: &[u32],
        spill: &Spill,
        job: &Job,
    ) -> Result<Array<'static, u8>> {
        let size = block_bytes(self.dim);
        let groups = groups(self.dim);
        let mut plane = spill.zeros::<u8>(order.len().div_ceil(ROWS) * size)?;
        for span in bounds.windows(2) {
            let places = span[0] as usize..span[1] as usize;
            self.factors.bring(places.clone());
            self.codes.bring(places.start * groups..places.end * groups);
            // A block belongs to the span that it begins in.
            let blocks = places.start.div_ceil(ROWS)..places.end.div_ceil(ROWS);
            let rows = order.len().min(blocks.start * ROWS)..order.len().min(blocks.end * ROWS);
            plane[blocks.start * size..blocks.end * size]
                .par_chunks_mut(size)
                .zip(order[rows].par_chunks(ROWS))
                .try_for_each(|(block, rows)| {
                    job.check()?;
                    pack(block, rows.len(), |i| {
                        let row = rows[i] as usize;
                        (&self.codes[row * groups..][..groups], self.factors[row])
                    });
                    Ok::<_, anyhow::Error>(())
                })?;
            plane.flush()?;
        }
        Ok(plane)
    }
}

/// For each leaf of a tree, padding included, a distance from its coded centroid beyond which it has no rows.
///
/// The distance of the centroid's code from a row's code, from their integer product, and the error of the row's code; 2^-20
/// of the squares for the roundings of norms to f32.
pub(super) fn radii(rows: &Rows, tree: &Tree, job: &Job) -> Result<Vec<f32>> {
    let c = tree.centroids.blocks();
    let mut radii = vec![0.0f32; c.leaves()];
    for (_, span) in rows.spans(&tree.starts) {
        radii[span.clone()]
            .par_iter_mut()
            .zip(tree.starts[span.start..=span.end].par_windows(2))
            .zip(span)
            .try_for_each(|((radius, ends), leaf)| {
                job.check()?;
                let members = &tree.rows[ends[0] as usize..ends[1] as usize];
                let lane = &c.codes[leaf / LANES * LANES * c.stride..];
                let center: Vec<i8> = (0..c.stride)
                    .map(|k| lane[k / 4 * 64 + leaf % LANES * 4 + k % 4])
                    .collect();
                let mut dots = vec![0i32; members.len()];
                codes::gather_dots(
                    level(),
                    rows.codes,
                    rows.stride,
                    &rows.places(members),
                    &center,
                    &mut dots,
                );
                let (scale, norm) = (f64::from(c.scale[leaf]), f64::from(c.norm[leaf]));
                for (&row, &dot) in members.iter().zip(&dots) {
                    let f = rows.factors(row);
                    let squares = norm + f64::from(f.norm);
                    let product = 2.0 * scale * f64::from(f.scale) * f64::from(dot);
                    let square = squares - product + squares * 2f64.powi(-20);
                    let reach =
                        (square.max(0.0).sqrt() + f64::from(f.error)) * (1.0 + 2f64.powi(-20));
                    *radius = radius.max(reach as f32);
                }
                Ok::<_, anyhow::Error>(())
            })?;
    }
    Ok(radii)
}

impl<B: AsRef<[u8]>> Forest<B> {
    /// Codes every vector that the file holds again and compares.
    pub(super) fn verify_plane(&self) -> Result<()> {
        let space = &self.space;
        let groups = groups(space.work());
        let plane: &[u8] = self.section(Kind::Plane);
        let (mut point, mut byte_code) = (Vec::new(), vec![0; space.stride()]);
        let mut nibbles = vec![[0u8; 4]; ROWS * groups];
        let mut factors = [Factors::default(); ROWS];
        let mut again = vec![0u8; block_bytes(space.work())];
        for (b, block) in plane.chunks_exact(again.len()).enumerate() {
            let rows = ROWS.min(self.len() - b * ROWS);
            for i in 0..rows {
                let code = &mut nibbles[i * groups..][..groups];
                let Some(vector) = self.vector_at(b * ROWS + i) else {
                    return Ok(());
                };
                space.encode(&vector, Role::Item, &mut point, &mut byte_code);
                factors[i] = space.encode_nibbles(&point, code);
            }
            again.fill(0);
            pack(&mut again, rows, |i| {
                (&nibbles[i * groups..][..groups], factors[i])
            });
            ensure!(
                again == block,
                "index file: block {b} of its plane is not that of its vectors"
            );
        }
        Ok(())
    }

    /// Whether each row lies within the radius of its leaf.
    pub(super) fn verify_radii(&self) -> Result<()> {
        let leaves = self.tree(0).1;
        let c = self.blocks(0, leaves);
        let rows: &[[u32; 2]] = self.section(Kind::LeafRows);
        let radii: &[f32] = self.section(Kind::LeafRadius);
        for (leaf, (&[first, count], &radius)) in rows[..leaves].iter().zip(radii).enumerate() {
            for p in (first as usize..).take(count as usize) {
                let (row, f) = self.code(p);
                let lane = &c.codes[leaf / LANES * LANES * c.stride..];
                let dot: i64 = row
                    .iter()
                    .enumerate()
                    .map(|(k, &x)| {
                        let c = lane[k / 4 * 64 + leaf % LANES * 4 + k % 4];
                        (i64::from(x) - 128) * i64::from(c)
                    })
                    .sum();
                let square = f64::from(c.norm[leaf]) + f64::from(f.norm)
                    - 2.0 * f64::from(c.scale[leaf]) * f64::from(f.scale) * dot as f64;
                let reach = square.max(0.0).sqrt() + f64::from(f.error);
                ensure!(
                    reach <= f64::from(radius) * (1.0 + 1e-6) + 1e-30,
                    "index file: a row lies beyond the radius of leaf {leaf}"
                );
            }
        }
        Ok(())
    }
}
