//! One tree: rows divided into leaves of near neighbours.
//!
//! 1. **Split.** A node of more than `leaf` rows is cut between two centres found by a few rounds of 2-means on a
//!    sample of its rows (Annoy's idea), but never more unevenly than 1 : 7, so depth is logarithmic for any data. A
//!    cut that finds nothing to tell its rows apart is *degenerate*: the node stays one leaf.
//! 2. **Settle.** The centroids of those leaves take over: every row goes to the leaf with the nearest centroid,
//!    centroids move to the mean of their rows, and again (Lloyd 1957), so leaves are cells around their centroids.
//! 3. **Assign.** With the centroids fixed and coded in bytes, every row goes to its leaf by the very score that ranks
//!    leaves for a query ([`codes::nearest_leaves`]). Whatever the query does, a row that is the query has its own
//!    leaf first.
//! 4. **Thin out copies.** Rows with equal components in an overfull leaf are spread in order of rowid over several
//!    leaves with the same centroid: ties are answered by rowid, so the first of them are the answer.
//!
//! Work is on byte codes ([`super::space`]) in exact integers, sums are f32 in the order of the rows, and random
//! choices depend on (seed, tree, node): the result does not depend on threads or processor.

use anyhow::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::random::Random;
use super::space::{Factors, Space, quantise};
use crate::job::Job;
use crate::kernel::codes::{self, Blocks, LANES};
use crate::kernel::level;

/// Rows of a node looked at to find its two centres.
const SAMPLE: usize = 96;
/// Rounds of 2-means on the sample.
const ROUNDS: usize = 3;
/// The smaller side of a cut gets at least one part in this many.
const EVEN: usize = 8;
/// Rounds of assignment before the last one.
const SETTLE: usize = 2;
/// Rows handled between two looks at the job.
const CHUNK: usize = 1024;

/// The rows as codes, by row number (the rank of the rowid).
pub(crate) struct Rows<'a> {
    pub(crate) space: &'a Space,
    pub(crate) stride: usize,
    /// `[n, stride]`.
    pub(crate) codes: &'a [u8],
    pub(crate) factors: &'a [Factors],
    /// `[n, dim]`: the vectors themselves, to tell copies from rows that only share a code.
    pub(crate) vectors: &'a [f32],
}

impl Rows<'_> {
    pub(crate) fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.stride..][..self.stride]
    }

    fn same_code(&self, a: u32, b: u32) -> bool {
        self.factors[a as usize].scale == self.factors[b as usize].scale
            && self.code(a) == self.code(b)
    }

    fn vector(&self, row: u32) -> &[f32] {
        let dim = self.space.dim;
        &self.vectors[row as usize * dim..][..dim]
    }

    /// Adds the point of a row, as its code has it.
    pub(crate) fn add_to(&self, row: u32, sum: &mut [f32]) {
        let scale = self.factors[row as usize].scale;
        for (s, &c) in sum.iter_mut().zip(self.code(row)) {
            *s += scale * (i32::from(c) - 128) as f32;
        }
    }
}

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

    /// The codes of some rows, in the place of centroids.
    pub(crate) fn of_rows(rows: &Rows, some: &[u32]) -> Self {
        let mut c = Self::new(&[], rows.space.work());
        c.resize(some.len());
        for (leaf, &row) in some.iter().enumerate() {
            let f = &rows.factors[row as usize];
            c.set(leaf, rows.code(row), f.scale, 0);
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
    fn pick(&self, leaves: &[u32]) -> Self {
        let mut c = Centroids {
            stride: self.stride,
            ..Centroids::default()
        };
        c.resize(leaves.len());
        let size = LANES * self.stride;
        for (to, &from) in leaves.iter().enumerate() {
            let from = from as usize;
            c.scale[to] = self.scale[from];
            c.norm[to] = self.norm[from];
            c.sum[to] = self.sum[from];
            for four in 0..self.stride / 4 {
                let a = from / LANES * size + four * 64 + from % LANES * 4;
                let b = to / LANES * size + four * 64 + to % LANES * 4;
                c.codes[b..b + 4].copy_from_slice(&self.codes[a..a + 4]);
            }
        }
        c
    }
}

/// A finished tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) centroids: Centroids,
    /// `[leaves + 1]`: leaf `j` holds `rows[starts[j]..starts[j + 1]]`.
    pub(crate) starts: Vec<u32>,
    /// All row numbers, leaf by leaf, ascending within one.
    pub(crate) rows: Vec<u32>,
    /// `[leaves]`: whether a leaf holds only further copies of rows of the leaf before.
    pub(crate) surplus: Vec<bool>,
    pub(crate) splits: u64,
    pub(crate) degenerate: u64,
}

/// Grows tree number `tree` over all rows. `leaf` is the number of rows a leaf should hold.
pub(crate) fn grow(rows: &Rows, leaf: usize, seed: u64, tree: u64, job: &Job) -> Result<Tree> {
    let n = rows.factors.len();
    if n == 0 {
        return Ok(Tree {
            starts: vec![0],
            ..Tree::default()
        });
    }
    let mut cut = split(rows, leaf, seed, tree, job)?;
    let mut points = means(rows, &cut, None, job)?;
    for _ in 0..SETTLE {
        let centroids = Centroids::new(&points, rows.space.work());
        let groups = group(
            &assign(rows, &centroids, job)?,
            points.len() / rows.space.work(),
        );
        (cut.starts, cut.rows) = groups;
        points = means(rows, &cut, Some(points), job)?;
    }
    let centroids = Centroids::new(&points, rows.space.work());
    let leaves = points.len() / rows.space.work();
    let (starts, order) = group(&assign(rows, &centroids, job)?, leaves);
    finish(rows, leaf, &centroids, &starts, order, &cut)
}

/// Drops empty leaves and thins out copies.
fn finish(
    rows: &Rows,
    leaf: usize,
    centroids: &Centroids,
    starts: &[u32],
    mut order: Vec<u32>,
    cut: &Tree,
) -> Result<Tree> {
    let (mut from, mut surplus) = (Vec::new(), Vec::new());
    let mut ends = vec![0u32];
    for (j, range) in starts.windows(2).enumerate() {
        let (a, b) = (range[0] as usize, range[1] as usize);
        let members = &mut order[a..b];
        let first = if members.len() > 4 * leaf {
            spread_copies(rows, members, leaf)
        } else {
            members.len()
        };
        if members.is_empty() {
            continue;
        }
        from.push(j as u32);
        surplus.push(false);
        ends.push((a + first) as u32);
        for at in (a + first..b).step_by(leaf) {
            from.push(j as u32);
            surplus.push(true);
            ends.push((at + leaf).min(b) as u32);
        }
    }
    Ok(Tree {
        centroids: centroids.pick(&from),
        starts: ends,
        rows: order,
        surplus,
        splits: cut.splits,
        degenerate: cut.degenerate,
    })
}

/// Reorders the rows of a leaf: first those to keep in it (every row that differs from the others, and the first
/// `leaf` of each group of copies), then the surplus copies in order of row number. Returns how many to keep.
fn spread_copies(rows: &Rows, members: &mut [u32], leaf: usize) -> usize {
    let bits = |row: u32| -> &[u8] { bytemuck::cast_slice(rows.vector(row)) };
    let mut seen: FxHashMap<&[u8], usize> = FxHashMap::default();
    let (mut kept, mut surplus) = (Vec::with_capacity(members.len()), Vec::new());
    for &row in members.iter() {
        let copies = seen.entry(bits(row)).or_insert(0);
        *copies += 1;
        if *copies <= leaf {
            kept.push(row);
        } else {
            surplus.push(row);
        }
    }
    members[..kept.len()].copy_from_slice(&kept);
    members[kept.len()..].copy_from_slice(&surplus);
    kept.len()
}

/// The leaf of every row.
fn assign(rows: &Rows, centroids: &Centroids, job: &Job) -> Result<Vec<u32>> {
    let blocks = centroids.blocks();
    let mut leaf = vec![0u32; rows.factors.len()];
    leaf.par_chunks_mut(CHUNK)
        .zip(rows.codes.par_chunks(CHUNK * rows.stride))
        .zip(rows.factors.par_chunks(CHUNK))
        .try_for_each(|((leaf, code), factors)| {
            job.check()?;
            let mut twice = [0.0f32; CHUNK];
            for (t, f) in twice.iter_mut().zip(factors) {
                *t = 2.0 * f.scale;
            }
            codes::nearest_leaves(level(), &blocks, code, &twice[..factors.len()], leaf);
            Ok::<_, anyhow::Error>(())
        })?;
    Ok(leaf)
}

/// Rows by leaf: (`starts`, row numbers), ascending within a leaf.
fn group(leaf: &[u32], leaves: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; leaves + 1];
    for &l in leaf {
        starts[l as usize + 1] += 1;
    }
    for j in 0..leaves {
        starts[j + 1] += starts[j];
    }
    let mut next = starts.clone();
    let mut order = vec![0u32; leaf.len()];
    for (row, &l) in leaf.iter().enumerate() {
        let at = &mut next[l as usize];
        order[*at as usize] = row as u32;
        *at += 1;
    }
    (starts, order)
}

/// Mean point of every leaf, of unit norm where points are directions; an empty leaf keeps the one it had.
fn means(rows: &Rows, tree: &Tree, before: Option<Vec<f32>>, job: &Job) -> Result<Vec<f32>> {
    let work = rows.space.work();
    let leaves = tree.starts.len() - 1;
    let mut points = before.unwrap_or_else(|| vec![0.0; leaves * work]);
    points
        .par_chunks_mut(work)
        .zip(tree.starts.par_windows(2))
        .with_min_len(8)
        .try_for_each(|(point, range)| {
            job.check()?;
            let members = &tree.rows[range[0] as usize..range[1] as usize];
            if !members.is_empty() {
                mean_of(rows, members, point);
                rows.space.normalise(point);
            }
            Ok::<_, anyhow::Error>(())
        })?;
    Ok(points)
}

fn mean_of(rows: &Rows, members: &[u32], point: &mut [f32]) {
    point.fill(0.0);
    for &row in members {
        rows.add_to(row, point);
    }
    let by = 1.0 / members.len() as f32;
    for p in point {
        *p *= by;
    }
}

/// A node that still has to be looked at: its range of the row order, and its name (a path of cuts).
struct Node {
    from: usize,
    to: usize,
    path: u64,
}

/// Cuts all rows into leaves of at most `leaf` rows (more where rows can't be told apart).
fn split(rows: &Rows, leaf: usize, seed: u64, tree: u64, job: &Job) -> Result<Tree> {
    let n = rows.factors.len();
    let mut order: Vec<u32> = (0..n as u32).collect();
    let mut out = Tree::default();
    let mut ends = vec![];
    let mut stack = vec![Node {
        from: 0,
        to: n,
        path: 1,
    }];
    let mut buffers = Buffers::default();
    while let Some(node) = stack.pop() {
        let members = &mut order[node.from..node.to];
        if members.len() <= leaf {
            ends.push(node.to as u32);
            continue;
        }
        job.check()?;
        out.splits += 1;
        let mut random = Random::new(seed ^ (tree << 32), node.path);
        match cut(rows, members, &mut random, &mut buffers, job)? {
            None => {
                out.degenerate += 1;
                ends.push(node.to as u32);
            }
            Some(left) => {
                let middle = node.from + left;
                let path = |side: u64| (node.path << 1 | side).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                // Left on top of the stack: leaves come out in order, neighbours next to each other.
                stack.push(Node {
                    from: middle,
                    to: node.to,
                    path: path(1),
                });
                stack.push(Node {
                    from: node.from,
                    to: middle,
                    path: path(0),
                });
            }
        }
    }
    out.starts = std::iter::once(0).chain(ends).collect();
    out.rows = order;
    Ok(out)
}

#[derive(Default)]
struct Buffers {
    dots: Vec<i32>,
    margins: Vec<f32>,
    left: Vec<u32>,
    right: Vec<u32>,
    sums: [Vec<f32>; 2],
    direction: Vec<f32>,
    code: Vec<u8>,
    query: Vec<i8>,
    sorted: Vec<f32>,
}

/// Cuts the members in two, in place and keeping their order on each side. Returns the size of the first side, or
/// `None` when nothing tells them apart.
fn cut(
    rows: &Rows,
    members: &mut [u32],
    random: &mut Random,
    b: &mut Buffers,
    job: &Job,
) -> Result<Option<usize>> {
    let sample: Vec<u32> = if members.len() <= SAMPLE {
        members.to_vec()
    } else {
        (0..SAMPLE)
            .map(|_| members[random.below(members.len())])
            .collect()
    };
    let first = sample[random.below(sample.len())];
    let others: Vec<u32> = sample
        .iter()
        .copied()
        .filter(|&r| !rows.same_code(r, first))
        .collect();
    let second = if others.is_empty() {
        match members.iter().find(|&&r| !rows.same_code(r, first)) {
            Some(&r) => r,
            None => return Ok(None),
        }
    } else {
        others[random.below(others.len())]
    };
    let work = rows.space.work();
    for (sum, row) in b.sums.iter_mut().zip([first, second]) {
        sum.clear();
        sum.resize(work, 0.0);
        rows.add_to(row, sum);
    }
    let mut level_at = direction(rows, b);
    for _ in 0..ROUNDS {
        margins(rows, &sample, level_at, b, job)?;
        let mut counts = [0u32; 2];
        let margins = std::mem::take(&mut b.margins);
        let mut sums = [vec![0.0f32; work], vec![0.0f32; work]];
        for (&row, &m) in sample.iter().zip(&margins) {
            let side = usize::from(m <= 0.0);
            counts[side] += 1;
            rows.add_to(row, &mut sums[side]);
        }
        b.margins = margins;
        if counts.contains(&0) {
            break;
        }
        for (sum, count) in sums.iter_mut().zip(counts) {
            let by = 1.0 / count as f32;
            for s in sum {
                *s *= by;
            }
        }
        b.sums = sums;
        level_at = direction(rows, b);
    }
    margins(rows, members, level_at, b, job)?;
    Ok(divide(members, b))
}

/// Codes the direction from the second centre to the first; returns (its scale, the margin at the origin).
fn direction(rows: &Rows, b: &mut Buffers) -> (f32, f32) {
    let [first, second] = &b.sums;
    b.direction.clear();
    b.direction
        .extend(first.iter().zip(second).map(|(a, b)| a - b));
    b.code.resize(rows.stride, 128);
    let (scale, _) = quantise(&b.direction, &mut b.code);
    b.query.clear();
    b.query
        .extend(b.code.iter().map(|&c| (i32::from(c) - 128) as i8));
    let dot = super::space::dot8;
    // |x - b|^2 - |x - a|^2 = 2 <x, a - b> + |b|^2 - |a|^2
    let offset = (dot(second, second) - dot(first, first)) * 0.5;
    (scale, offset as f32)
}

/// Half of |x - second|^2 - |x - first|^2 for each row: positive where the first centre is nearer.
fn margins(
    rows: &Rows,
    of: &[u32],
    (scale, offset): (f32, f32),
    b: &mut Buffers,
    job: &Job,
) -> Result<()> {
    b.dots.resize(of.len(), 0);
    let query = &b.query;
    b.dots
        .par_chunks_mut(CHUNK * 8)
        .zip(of.par_chunks(CHUNK * 8))
        .try_for_each(|(dots, of)| {
            job.check()?;
            codes::gather_dots(level(), rows.codes, of, query, dots);
            Ok::<_, anyhow::Error>(())
        })?;
    b.margins.clear();
    b.margins.extend(
        of.iter()
            .zip(&b.dots)
            .map(|(&row, &dot)| rows.factors[row as usize].scale * (scale * dot as f32) + offset),
    );
    Ok(())
}

/// Stable partition by margin: at zero, or as near to it as the limit on unevenness allows.
fn divide(members: &mut [u32], b: &mut Buffers) -> Option<usize> {
    let n = members.len();
    let positive = b.margins.iter().filter(|&&m| m > 0.0).count();
    let least = n.div_ceil(EVEN);
    let left = positive.clamp(least, n - least);
    let mut at = 0.0f32;
    let mut ties = 0;
    if left != positive {
        // The left-th largest margin; of those equal to it the first in order go left.
        b.sorted.clone_from(&b.margins);
        let (above, pivot, _) = b
            .sorted
            .select_nth_unstable_by(left - 1, |x, y| y.total_cmp(x));
        at = *pivot;
        ties = left - above.iter().filter(|&&m| m > at).count();
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for &m in &b.margins {
            low = low.min(m);
            high = high.max(m);
        }
        if low == high {
            return None;
        }
    }
    b.left.clear();
    b.right.clear();
    for (&row, &m) in members.iter().zip(&b.margins) {
        if m > at {
            b.left.push(row);
        } else if m == at && ties > 0 {
            ties -= 1;
            b.left.push(row);
        } else {
            b.right.push(row);
        }
    }
    members[..b.left.len()].copy_from_slice(&b.left);
    members[b.left.len()..].copy_from_slice(&b.right);
    Some(b.left.len())
}
