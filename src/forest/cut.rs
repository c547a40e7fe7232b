//! Cutting rows into leaves: the first shape of a tree.
//!
//! A node of more rows than a leaf should hold is cut between two centres found by a few rounds of 2-means on a sample
//! of its rows (Annoy's idea), but never more unevenly than 1 : 7, so depth is logarithmic for any data. A cut that
//! finds nothing to tell its rows apart is *degenerate*: the node stays one leaf. What is random depends on (seed,
//! tree, path to the node) alone; large nodes are cut one after the other with the rows shared among threads, small
//! ones are shared among threads as a whole, and the result is the same.

use anyhow::Result;
use rayon::prelude::*;

use super::partition::{Rows, Tree};
use super::random::Random;
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
}

/// What came out of some nodes: the ends of leaves, and how many cuts were tried and in vain.
#[derive(Default)]
struct Ends {
    ends: Vec<u32>,
    splits: u64,
    degenerate: u64,
    /// Nodes small enough to be handed out, in order; only the first pass makes them.
    small: Vec<Node>,
}

/// Cuts all rows into leaves of at most `leaf` rows (more where rows can't be told apart).
pub(crate) fn split(rows: &Rows, leaf: usize, seed: u64, tree: u64, job: &Job) -> Result<Tree> {
    let n = rows.factors.len();
    let mut order: Vec<u32> = (0..n as u32).collect();
    let whole = Node {
        from: 0,
        to: n,
        path: 1,
    };
    let seed = seed ^ (tree << 32);
    let mut top = descend(
        rows,
        &mut order,
        whole,
        leaf,
        (n / PARTS).max(leaf),
        seed,
        job,
    )?;
    let mut rest = &mut order[..];
    let mut parts = Vec::new();
    for node in std::mem::take(&mut top.small) {
        let part;
        (part, rest) = rest.split_at_mut(node.to - node.from);
        parts.push((part, node));
    }
    let done = parts
        .into_par_iter()
        .map(|(part, node)| {
            let from = node.from as u32;
            let node = Node {
                from: 0,
                to: part.len(),
                path: node.path,
            };
            let mut done = descend(rows, part, node, leaf, 0, seed, job)?;
            done.ends.iter_mut().for_each(|end| *end += from);
            Ok(done)
        })
        .collect::<Result<Vec<Ends>>>()?;
    let mut out = Tree {
        starts: vec![0],
        splits: top.splits,
        degenerate: top.degenerate,
        ..Tree::default()
    };
    for part in done {
        out.starts.extend(part.ends);
        out.splits += part.splits;
        out.degenerate += part.degenerate;
    }
    out.rows = order;
    Ok(out)
}

/// Cuts a node and what comes of it, down to leaves, or to nodes of at most `small` rows, which are left for later.
fn descend(
    rows: &Rows,
    order: &mut [u32],
    node: Node,
    leaf: usize,
    small: usize,
    seed: u64,
    job: &Job,
) -> Result<Ends> {
    let mut out = Ends::default();
    let mut stack = vec![node];
    let mut buffers = Buffers::default();
    while let Some(node) = stack.pop() {
        let members = &mut order[node.from..node.to];
        if members.len() <= small {
            out.small.push(node);
            continue;
        }
        if members.len() <= leaf {
            out.ends.push(node.to as u32);
            continue;
        }
        job.check()?;
        out.splits += 1;
        let mut random = Random::new(seed, node.path);
        match cut(rows, members, &mut random, &mut buffers, job)? {
            None if small > 0 => {
                // The second pass would try again and count twice.
                out.splits -= 1;
                out.small.push(node);
            }
            None => {
                out.degenerate += 1;
                out.ends.push(node.to as u32);
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
    let dot = super::space::dot32;
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
        .par_chunks_mut(CHUNK)
        .zip(of.par_chunks(CHUNK))
        .try_for_each(|(dots, of)| {
            job.check()?;
            codes::gather_dots(level(), rows.codes, rows.stride, of, query, dots);
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
