//! Centroids as byte codes, sixteen side by side, as the kernels want them.

use super::directory::{Directory, Ranking};
use super::space::{Factors, quantise};
use crate::kernel::codes::{self, Blocks, LANES};

/// Blocks of leaves among which those near a leaf are looked for: they have many times as many leaves as are asked for, and
/// from some two million rows on a share of all blocks would make builds quadratic.
const MOST_BLOCKS: usize = 1024;

/// Centroids in the layout of [`Blocks`].
#[derive(Debug, Default)]
pub(crate) struct Centroids {
    pub(crate) stride: usize,
    pub(crate) codes: Vec<i8>,
    pub(crate) scale: Vec<f32>,
    pub(crate) norm: Vec<f32>,
    pub(crate) sum: Vec<i32>,
}

impl Centroids {
    /// Codes of centroids given as points, `[leaves, work]`, padded to whole blocks.
    pub(crate) fn new(points: &[f32], work: usize) -> Self {
        let stride = codes::stride(work);
        let leaves = points.len() / work;
        let mut c = Centroids {
            stride,
            ..Centroids::default()
        };
        c.resize(leaves);
        let mut code = vec![128u8; stride];
        for (leaf, point) in points.chunks_exact(work).enumerate() {
            let (scale, squares) = quantise(point, &mut code);
            c.set(leaf, &code, scale, squares);
        }
        c
    }

    /// Codes of points, each with what stands beside it, in the place of centroids.
    pub(crate) fn of_codes<'a>(
        work: usize,
        codes: impl ExactSizeIterator<Item = (&'a [u8], Factors)>,
    ) -> Self {
        let mut c = Self::new(&[], work);
        c.resize(codes.len());
        for (leaf, (code, f)) in codes.enumerate() {
            c.set(leaf, code, f.scale, 0);
            c.norm[leaf] = f.norm;
        }
        c
    }

    /// Room for `leaves`, padded to whole blocks.
    fn resize(&mut self, leaves: usize) {
        let padded = leaves.next_multiple_of(LANES);
        self.codes.resize(padded * self.stride, 0);
        self.scale.resize(padded, 0.0);
        self.norm.resize(padded, f32::INFINITY);
        self.sum.resize(padded, 0);
    }

    fn set(&mut self, leaf: usize, code: &[u8], scale: f32, squares: i64) {
        let (block, lane) = (leaf / LANES, leaf % LANES);
        let mut sum = 0i32;
        for (k, &c) in code.iter().enumerate() {
            let c = (i32::from(c) - 128) as i8;
            sum += i32::from(c);
            self.codes[block * LANES * self.stride + (k / 4) * 64 + lane * 4 + k % 4] = c;
        }
        self.scale[leaf] = scale;
        self.norm[leaf] = (f64::from(scale) * f64::from(scale) * squares as f64) as f32;
        self.sum[leaf] = sum;
    }

    pub(crate) fn blocks(&self) -> Blocks<'_> {
        Blocks {
            stride: self.stride,
            codes: &self.codes,
            scale: &self.scale,
            norm: &self.norm,
            sum: &self.sum,
        }
    }

    /// The centroids of `leaves` (numbers may repeat), in that order.
    pub(crate) fn pick(&self, leaves: &[u32]) -> Self {
        let mut c = Centroids {
            stride: self.stride,
            ..Centroids::default()
        };
        c.resize(leaves.len());
        for (to, &from) in leaves.iter().enumerate() {
            let from = from as usize;
            c.scale[to] = self.scale[from];
            c.norm[to] = self.norm[from];
            c.sum[to] = self.sum[from];
        }
        // Line by line of the new blocks: sixteen leaves are read at once, each from its first line to its last.
        let lines = self.stride / 4;
        let (from, to) = (
            self.codes.as_chunks::<4>().0,
            c.codes.as_chunks_mut::<4>().0,
        );
        for (leaves, block) in leaves.chunks(LANES).zip(to.chunks_exact_mut(LANES * lines)) {
            let mut first = [0; LANES];
            for (first, &leaf) in first.iter_mut().zip(leaves) {
                *first = leaf as usize / LANES * LANES * lines + leaf as usize % LANES;
            }
            for (l, line) in block.chunks_exact_mut(LANES).enumerate() {
                for (to, first) in line.iter_mut().zip(first).take(leaves.len()) {
                    *to = from[first + l * LANES];
                }
            }
        }
        c
    }

    /// The mean of each block of sixteen leaves, for a [`Directory`].
    pub(crate) fn means(&self) -> Self {
        // A tree without rows has no stride.
        let work = self.stride.max(1);
        let mut points = vec![0.0f32; self.norm.len() / LANES * work];
        for (block, point) in points.chunks_exact_mut(work).enumerate() {
            let codes = &self.codes[block * LANES * work..][..LANES * work];
            let leaves = block * LANES..(block + 1) * LANES;
            let real = leaves.clone().filter(|&j| self.norm[j].is_finite()).count();
            let by = 1.0 / real.max(1) as f32;
            for (k, p) in point.iter_mut().enumerate() {
                for lane in 0..LANES {
                    let scale = self.scale[leaves.start + lane];
                    *p += scale * f32::from(codes[k / 4 * 64 + lane * 4 + k % 4]);
                }
                *p *= by;
            }
        }
        Self::new(&points, work)
    }

    /// To look for the leaves near each leaf. `means` are those of the blocks.
    pub(crate) fn neighbours<'a>(&'a self, means: &'a Self) -> Neighbours<'a> {
        Neighbours {
            leaves: self,
            means,
            over: means.means(),
        }
    }
}

/// Leaves, and the means of their blocks and of the blocks of these.
#[derive(Debug)]
pub(crate) struct Neighbours<'a> {
    leaves: &'a Centroids,
    means: &'a Centroids,
    over: Centroids,
}

impl Neighbours<'_> {
    /// For leaf `leaf`: itself and the leaves nearest to it, about `many`, in order of number.
    pub(crate) fn of(&self, leaf: usize, many: usize) -> Vec<u32> {
        let all = self.leaves;
        let (block, lane) = (leaf / LANES, leaf % LANES);
        let codes = &all.codes[block * LANES * all.stride..][..LANES * all.stride];
        let code: Vec<u8> = (0..all.stride)
            .map(|k| (i32::from(codes[k / 4 * 64 + lane * 4 + k % 4]) + 128) as u8)
            .collect();
        let (mut ranking, factor) = (Ranking::default(), 2.0 * all.scale[leaf]);
        Directory {
            leaves: all.blocks(),
            groups: self.means.blocks(),
        }
        .rank_near(
            &self.over.blocks(),
            &code,
            factor,
            MOST_BLOCKS,
            &mut ranking,
        );
        let mut candidates = Vec::new();
        ranking.nearest(many, &mut candidates);
        let mut near: Vec<u32> = candidates
            .into_iter()
            .take(many)
            .filter(|&c| ranking.score(c) < f32::INFINITY)
            .map(|c| ranking.leaf(c) as u32)
            .collect();
        near.push(leaf as u32);
        near.sort_unstable();
        near.dedup();
        near
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::random::Random;

    #[test]
    fn leaves_near_a_leaf_are_found_where_there_are_too_many_to_look_at_all() {
        let (leaves, work) = (80_000, 16);
        let mut random = Random::new(3, 0);
        // As a tree of cuts orders them: each power of four side by side around a point of their own.
        let (mut points, mut above) = (vec![0.0f32; leaves * work], vec![0.0f32; work * 9]);
        for (leaf, point) in points.chunks_exact_mut(work).enumerate() {
            for depth in 0..9 {
                if leaf % (1 << (16 - 2 * depth)) == 0 {
                    let from = above[work * depth.max(1) - work..][..work].to_vec();
                    let wide = 0.8f32.powi(depth as i32);
                    for (to, from) in above[work * depth..][..work].iter_mut().zip(from) {
                        *to = from * f32::from(depth > 0) + wide * random.normal();
                    }
                }
            }
            point.copy_from_slice(&above[work * 8..]);
        }
        let centroids = Centroids::new(&points, work);
        let means = centroids.means();
        assert!(means.blocks().leaves() > 4 * MOST_BLOCKS);
        let neighbours = centroids.neighbours(&means);
        let mut found = 0;
        for leaf in (0..leaves).step_by(leaves / 50) {
            let near = neighbours.of(leaf, 256);
            assert!(near.is_sorted() && near.contains(&(leaf as u32)));
            assert!((256..=257).contains(&near.len()));
            let own = &points[leaf * work..][..work];
            let distance = |other: &[f32]| -> f32 {
                own.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum()
            };
            let mut all: Vec<f32> = points.chunks_exact(work).map(distance).collect();
            let of_near = near.iter().map(|&l| all[l as usize]).collect::<Vec<_>>();
            all.sort_unstable_by(f32::total_cmp);
            found += of_near.iter().filter(|&&d| d <= all[255]).count();
        }
        let share = found as f64 / (50.0 * 256.0);
        assert!(share > 0.95, "{share} of the nearest leaves");
    }
}
