//! How much an approximate search must look at to find a promised part of the neighbours.
//!
//! A few hundred rows are taken as queries (each left out of its own answer), their true neighbours found among all
//! rows by the byte codes, and the search replayed: for growing numbers of slots scanned, and of estimates kept for
//! a second look, how many true neighbours would still be in. The cheapest pair for each promise is written to the file
//! as a point (k, recall, slots, kept), for k = 10 and k = 100. A promise that a third of all slots can't keep is
//! answered exactly, and so has no point.
//!
//! The rows asked about took part in the build, and a sample errs: points aim [`MARGIN`] higher than they say.

use anyhow::Result;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::centroids::Centroids;
use super::lists::View;
use super::partition::{Rows, Tree};
use super::random::Random;
use crate::job::Job;
use crate::kernel::codes::{self, LANES};
use crate::kernel::level;
use crate::kernel::scan::{ScanQuery, estimates};
use crate::kernel::select;

/// Rows taken as queries.
const QUERIES: usize = 384;
/// Numbers of neighbours that points are made for.
pub(crate) const CLASSES: [usize; 2] = [10, 100];
/// Promises.
const PROMISES: [f32; 14] = [
    0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99, 0.995, 0.999,
];
/// How much of what is missing to 1 a point must do better than its promise.
const MARGIN: f64 = 0.1;
/// Estimates kept for a second look, for each class.
const KEPT: [[usize; 8]; 2] = [
    [24, 36, 56, 80, 120, 180, 280, 420],
    [140, 180, 240, 320, 440, 600, 840, 1200],
];
/// The most of them.
const MOST: usize = 1200;

/// One point of the curve.
pub(crate) type Point = [f32; 4];

/// Measures the curve.
pub(crate) fn curve(
    rows: &Rows,
    tree: &Tree,
    lists: &View,
    seed: u64,
    job: &Job,
) -> Result<Vec<Point>> {
    let n = rows.factors.len();
    let mut random = Random::new(seed, 0xca11);
    let mut asked: Vec<u32> = (0..QUERIES).map(|_| random.below(n) as u32).collect();
    asked.sort_unstable();
    asked.dedup();
    let truth = truths(rows, &asked, job)?;
    let mut position = vec![0u32; n];
    for (p, &row) in tree.rows.iter().enumerate() {
        position[row as usize] = p as u32;
    }
    let ladder = ladder(lists.rows.len());
    let parts = asked
        .par_iter()
        .zip(&truth)
        .map(|(&row, truth)| {
            job.check()?;
            let near: FxHashMap<u32, usize> = truth
                .iter()
                .enumerate()
                .map(|(rank, &(_, row))| (position[row as usize], rank))
                .collect();
            Ok(replay(
                rows,
                tree,
                lists,
                row,
                position[row as usize],
                &near,
                &ladder,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut points = Vec::new();
    for (class, &k) in CLASSES.iter().enumerate() {
        let possible: usize = truth.iter().map(|t| t.len().min(k)).sum();
        for promise in PROMISES {
            let goal = f64::from(promise) + MARGIN * (1.0 - f64::from(promise));
            let mut best: Option<(f64, usize, usize)> = None;
            for (s, &slots) in ladder.iter().enumerate() {
                for (r, &kept) in KEPT[class].iter().enumerate() {
                    let found: usize = parts.iter().map(|p| p[(s * 2 + class) * 8 + r]).sum();
                    let cost = cost(lists, slots, kept);
                    if found as f64 >= goal * possible as f64 && best.is_none_or(|b| cost < b.0) {
                        best = Some((cost, slots, kept));
                    }
                }
            }
            if let Some((_, slots, kept)) = best {
                points.push([k as f32, promise, slots as f32, kept as f32]);
            }
        }
    }
    Ok(points)
}

/// Nanoseconds, about: slots are read in a row, a second look is a miss in the cache (measured).
fn cost(lists: &View, slots: usize, kept: usize) -> f64 {
    slots as f64 * (0.3 + 0.012 * lists.block_bytes as f64 / 16.0) + kept as f64 * 25.0
}

/// Numbers of slots to try.
fn ladder(slots: usize) -> Vec<usize> {
    let mut out = Vec::new();
    let mut s = 128.0f64;
    while (s as usize) < slots / 3 && s < 400_000.0 {
        out.push(s as usize);
        s *= 1.3;
    }
    out
}

/// The true neighbours of the rows asked about, by byte codes: (squared distance, row), nearest first.
fn truths(rows: &Rows, asked: &[u32], job: &Job) -> Result<Vec<Vec<(f32, u32)>>> {
    const PART: usize = 8192;
    let k = CLASSES[CLASSES.len() - 1];
    let queries = Centroids::of_rows(rows, asked);
    let blocks = queries.blocks();
    let nearer = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    let keep = move |list: &mut Vec<(f32, u32)>| {
        if list.len() > k {
            list.select_nth_unstable_by(k - 1, nearer);
            list.truncate(k);
        }
    };
    let n = rows.factors.len();
    // Few parts, each with its own lists; merged in any order the result is the same.
    let part = n.div_ceil(16).max(PART);
    let parts = (0..n.div_ceil(part))
        .into_par_iter()
        .map(|p| {
            let mut lists: Vec<Vec<(f32, u32)>> = vec![Vec::new(); asked.len()];
            let mut limits = vec![f32::INFINITY; blocks.leaves()];
            limits[asked.len()..].fill(f32::NEG_INFINITY);
            let mut scores = vec![0.0f32; blocks.leaves()];
            for row in p * part..((p + 1) * part).min(n) {
                if row % 256 == 0 {
                    job.check()?;
                }
                let f = &rows.factors[row];
                codes::leaf_scores(
                    level(),
                    &blocks,
                    rows.code(row as u32),
                    2.0 * f.scale,
                    &mut scores,
                );
                for (b, (scores, limits)) in scores
                    .chunks_exact(LANES)
                    .zip(limits.chunks_exact_mut(LANES))
                    .enumerate()
                {
                    let any = scores
                        .iter()
                        .zip(limits.iter())
                        .fold(false, |any, (s, l)| any | (s + f.norm < *l));
                    if !any {
                        continue;
                    }
                    for (j, (&s, limit)) in scores.iter().zip(limits).enumerate() {
                        let q = b * LANES + j;
                        if s + f.norm < *limit && asked[q] != row as u32 {
                            lists[q].push((s + f.norm, row as u32));
                            if lists[q].len() >= 4 * k {
                                keep(&mut lists[q]);
                                *limit = lists[q].iter().fold(f32::NEG_INFINITY, |m, x| m.max(x.0));
                            }
                        }
                    }
                }
            }
            lists.iter_mut().for_each(&keep);
            Ok(lists)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((0..asked.len())
        .map(|q| {
            let mut all: Vec<(f32, u32)> = parts
                .iter()
                .flat_map(|lists| lists[q].iter().copied())
                .collect();
            keep(&mut all);
            all.sort_unstable_by(nearer);
            all
        })
        .collect())
}

/// For one query: how many of its neighbours are found, for each class, number of slots and number kept.
fn replay(
    rows: &Rows,
    tree: &Tree,
    lists: &View,
    row: u32,
    own: u32,
    near: &FxHashMap<u32, usize>,
    ladder: &[usize],
) -> Vec<usize> {
    let blocks = tree.centroids.blocks();
    let factor = rows.factors[row as usize].scale;
    let mut scores = vec![0.0f32; blocks.leaves()];
    codes::leaf_scores(level(), &blocks, rows.code(row), 2.0 * factor, &mut scores);
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| {
        scores[a as usize]
            .total_cmp(&scores[b as usize])
            .then(a.cmp(&b))
    });
    let code: Vec<i8> = rows.code(row)[..rows.space.work()]
        .iter()
        .map(|&c| (i32::from(c) - 128) as i8)
        .collect();
    let mut query = ScanQuery::default();
    query.prepare(lists.bits, &code, factor);
    let mut out = Vec::with_capacity(ladder.len() * 16);
    // The smallest estimates so far, and those of the neighbours: (rank, estimate).
    let mut pool: Vec<f32> = Vec::new();
    let mut hits: Vec<(usize, f32)> = Vec::new();
    let mut limit = f32::INFINITY;
    let (mut places, mut values, mut scanned) = (Vec::new(), Vec::new(), 0);
    let mut leaves = order.iter().map(|&leaf| leaf as usize);
    for &slots in ladder {
        while scanned < slots
            && let Some(leaf) = leaves.next()
        {
            let range = lists.slots(leaf);
            scanned += range.len();
            values.resize(range.len(), 0.0);
            estimates(
                level(),
                &query,
                lists.codes_of(&range),
                &[],
                scores[leaf],
                &mut values,
            );
            for (value, position) in values.iter_mut().zip(&lists.rows[range]) {
                if *position == own {
                    // The query itself is not there when another asks.
                    *value = f32::NAN;
                } else if let Some(&rank) = near.get(position) {
                    hits.push((rank, *value));
                }
            }
            select::pairs(level(), &values, limit, 0, &mut places, &mut pool);
            places.clear();
            if pool.len() > 4 * MOST {
                pool.select_nth_unstable_by(MOST - 1, f32::total_cmp);
                pool.truncate(MOST);
                limit = pool[MOST - 1];
            }
        }
        pool.sort_unstable_by(f32::total_cmp);
        pool.truncate(MOST);
        if pool.len() == MOST {
            limit = pool[MOST - 1];
        }
        for (&k, kept) in CLASSES.iter().zip(&KEPT) {
            for &kept in kept {
                let Some(&limit) = pool.get(kept - 1).or(pool.last()) else {
                    out.push(0);
                    continue;
                };
                let mut found = [false; CLASSES[1]];
                for &(rank, value) in &hits {
                    found[rank] |= rank < k && value <= limit;
                }
                out.push(found.iter().filter(|f| **f).count());
            }
        }
    }
    out
}
