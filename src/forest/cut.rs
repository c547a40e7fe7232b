//! Cutting rows into leaves: the first shape of a tree.
//!
//! A node of more rows than a leaf should hold is cut between two centres found by a few rounds of 2-means on a sample
//! of its rows (Annoy's idea), but never more unevenly than 1 : 7, so depth is logarithmic for any data. A cut that
//! finds nothing to tell its rows apart is *degenerate*: the node stays one leaf. What is random depends on (seed,
//! tree, path to the node) alone; large nodes are cut level by level, in a pass over all rows each, small ones are
//! shared among threads as a whole, and the result is the same.

use anyhow::Result;
use rayon::prelude::*;

use super::partition::{Rows, Tree};
use super::random::Random;
use super::shelf::Shelf;
use super::space::quantise;
use crate::job::Job;
use crate::kernel::codes;
use crate::kernel::level;

/// Rows of a node looked at to find its two centres.
const SAMPLE: usize = 96;
/// Rounds of 2-means on the sample.
const ROUNDS: usize = 3;
/// The smaller side of a cut gets at least one part in this many.
const EVEN: usize = 8;
/// Rows whose margins one task computes.
const CHUNK: usize = 8192;
/// Parts that are handed out to threads, at least.
const PARTS: usize = 32;

/// A node that still has to be looked at: its range of the row order, and its name (a path of cuts).
struct Node {
    from: usize,
    to: usize,
    path: u64,
    /// Nothing was found that tells its rows apart.
    whole: bool,
}

/// What came out of some nodes: the ends of leaves, and how many cuts were tried and in vain.
#[derive(Default)]
struct Ends {
    ends: Vec<u32>,
    splits: u64,
    degenerate: u64,
}

/// Cuts all rows into leaves of at most `leaf` rows (more where rows can't be told apart).
pub(crate) fn split(
    shelf: &mut Shelf,
    leaf: usize,
    seed: u64,
    tree: u64,
    job: &Job,
) -> Result<Tree> {
    let n = shelf.len();
    let mut order: Vec<u32> = (0..n as u32).collect();
    let seed = seed ^ (tree << 32);
    let small = (n / PARTS).min(shelf.span()).max(leaf);
    let (nodes, splits) = coarse(shelf, &mut order, small, seed, job)?;
    let starts: Vec<u32> = std::iter::once(0)
        .chain(nodes.iter().map(|node| node.to as u32))
        .collect();
    shelf.arrange(&order, &starts, job)?;
    let rows = &shelf.rows();
    let mut out = Tree {
        starts: vec![0],
        splits,
        ..Tree::default()
    };
    let mut rest = &mut order[..];
    for (_, span) in rows.spans(&starts) {
        let mut parts = Vec::with_capacity(span.len());
        for node in &nodes[span] {
            let part;
            (part, rest) = rest.split_at_mut(node.to - node.from);
            parts.push((part, node));
        }
        let done = parts
            .into_par_iter()
            .map(|(part, node)| {
                let whole = Node {
                    from: 0,
                    to: part.len(),
                    path: node.path,
                    whole: false,
                };
                let mut done = descend(rows, part, whole, leaf, seed, job)?;
                done.ends
                    .iter_mut()
                    .for_each(|end| *end += node.from as u32);
                Ok(done)
            })
            .collect::<Result<Vec<Ends>>>()?;
        for part in done {
            out.starts.extend(part.ends);
            out.splits += part.splits;
            out.degenerate += part.degenerate;
        }
    }
    out.rows = order;
    Ok(out)
}

/// Cuts nodes of more than `small` rows, all of one depth in one pass over the rows, until there are none. Returns what is left
/// to cut, in order, and how many cuts were made; a node that can't be cut is left as it is.
fn coarse(
    shelf: &Shelf,
    order: &mut [u32],
    small: usize,
    seed: u64,
    job: &Job,
) -> Result<(Vec<Node>, u64)> {
    let rows = &shelf.rows();
    let (n, block) = (order.len(), shelf.span());
    let mut splits = 0;
    let mut nodes = vec![Node {
        from: 0,
        to: n,
        path: 1,
        whole: false,
    }];
    loop {
        let mut cuts = Vec::new();
        for (i, node) in nodes.iter_mut().enumerate() {
            let members = &order[node.from..node.to];
            if members.len() <= small || node.whole {
                continue;
            }
            let (mut random, mut b) = (Random::new(seed, node.path), Buffers::default());
            match centres(rows, members, &mut random, &mut b, job)? {
                Some(at) => cuts.push((i, members, at, b)),
                None => node.whole = true,
            }
        }
        if cuts.is_empty() {
            return Ok((nodes, splits));
        }
        // The rows of a block are near when the second node looks for its own.
        for first in (0..n).step_by(block) {
            let end = (first + block).min(n) as u32;
            if !shelf.is_fixed() {
                shelf.bring_rows(first..end as usize);
            }
            cuts.par_iter_mut().try_for_each(|(_, members, at, b)| {
                let rest = &members[b.margins.len()..];
                let here = rest.partition_point(|&row| row < end);
                margins(rows, &rest[..here], *at, b, job)
            })?;
        }
        let cuts: Vec<_> = cuts.into_iter().map(|(i, _, _, b)| (i, b)).collect();
        let mut cuts = cuts.into_iter().peekable();
        for (i, mut node) in std::mem::take(&mut nodes).into_iter().enumerate() {
            let Some((_, mut b)) = cuts.next_if(|cut| cut.0 == i) else {
                nodes.push(node);
                continue;
            };
            match divide(&mut order[node.from..node.to], &mut b) {
                Some(left) => {
                    splits += 1;
                    nodes.extend(node.halves(left));
                }
                None => {
                    node.whole = true;
                    nodes.push(node);
                }
            }
        }
    }
}

impl Node {
    /// The two nodes that a cut behind the first `left` rows makes.
    fn halves(&self, left: usize) -> [Node; 2] {
        let middle = self.from + left;
        let path = |side: u64| (self.path << 1 | side).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let node = |from, to, side| Node {
            from,
            to,
            path: path(side),
            whole: false,
        };
        [node(self.from, middle, 0), node(middle, self.to, 1)]
    }
}

/// Cuts a node and what comes of it, down to leaves.
fn descend(
    rows: &Rows,
    order: &mut [u32],
    node: Node,
    leaf: usize,
    seed: u64,
    job: &Job,
) -> Result<Ends> {
    let mut out = Ends::default();
    let mut stack = vec![node];
    let mut b = Buffers::default();
    while let Some(node) = stack.pop() {
        let members = &mut order[node.from..node.to];
        if members.len() <= leaf {
            out.ends.push(node.to as u32);
            continue;
        }
        job.check()?;
        out.splits += 1;
        let mut random = Random::new(seed, node.path);
        let mut left = None;
        if let Some(at) = centres(rows, members, &mut random, &mut b, job)? {
            margins(rows, members, at, &mut b, job)?;
            left = divide(members, &mut b);
        }
        match left {
            None => {
                out.degenerate += 1;
                out.ends.push(node.to as u32);
            }
            Some(left) => {
                // Left on top of the stack: leaves come out in order, neighbours next to each other.
                let [left, right] = node.halves(left);
                stack.extend([right, left]);
            }
        }
    }
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

/// Finds the direction in which to cut the members, codes it, and returns (its scale, the margin at the origin); `None` when
/// nothing tells them apart.
fn centres(
    rows: &Rows,
    members: &[u32],
    random: &mut Random,
    b: &mut Buffers,
    job: &Job,
) -> Result<Option<(f32, f32)>> {
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
        b.margins.clear();
        margins(rows, &sample, level_at, b, job)?;
        let mut sides = [
            Vec::with_capacity(sample.len()),
            Vec::with_capacity(sample.len()),
        ];
        for (&row, &m) in sample.iter().zip(&b.margins) {
            sides[usize::from(m <= 0.0)].push(row);
        }
        if sides.iter().any(Vec::is_empty) {
            break;
        }
        for (sum, side) in b.sums.iter_mut().zip(&sides) {
            rows.mean(side, sum);
        }
        level_at = direction(rows, b);
    }
    b.margins.clear();
    Ok(Some(level_at))
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
    let dot = super::space::dot32;
    // |x - b|^2 - |x - a|^2 = 2 <x, a - b> + |b|^2 - |a|^2
    let offset = (dot(second, second) - dot(first, first)) * 0.5;
    (scale, offset as f32)
}

/// Adds half of |x - second|^2 - |x - first|^2 for each row to the margins: positive where the first centre is nearer.
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
        .par_chunks_mut(CHUNK)
        .zip(of.par_chunks(CHUNK))
        .try_for_each(|(dots, of)| {
            job.check()?;
            codes::gather_dots(
                level(),
                rows.codes,
                rows.stride,
                &rows.places(of),
                query,
                dots,
            );
            Ok::<_, anyhow::Error>(())
        })?;
    b.margins.extend(
        of.iter()
            .zip(&b.dots)
            .map(|(&row, &dot)| rows.factors(row).scale * (scale * dot as f32) + offset),
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
