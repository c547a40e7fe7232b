//! How much an approximate search must look at to find a promised part of the neighbours.
//!
//! A few hundred rows are taken as queries (each left out of its own answer), their true neighbours found among all
//! rows by the byte codes, and the search replayed: for growing numbers of slots scanned, and of estimates kept for
//! a second look, how many true neighbours would still be in. The cheapest pair for each promise is written to the file
//! as a point (k, recall, slots, kept), for some k from 10 to 1,000 ([`CLASSES`]; fewer queries are asked for more). The
//! replay ends when every promise is kept, or at a third of all slots: a promise that needs more is answered exactly, and so
//! has no point.
//!
//! More neighbours are more than as much more work where rows lie in clusters: a thousand neighbours of a row whose cluster
//! has two hundred are anywhere. That is why large k have points of their own.
//!
//! How many slots that is differs from query to query: points say how many it is on average, [`super::hardness`] what
//! share a query gets.
//!
//! The rows asked about took part in the build, and a sample errs: points aim [`MARGIN`] higher than they say.
//!
//! Where codes are too coarse to tell a neighbour from what is no neighbour (one cluster so far away that all others share
//! their codes), nobody knows what a replay has found. Such a query counts as one that finds nothing, unless its vectors say
//! that all those it can't tell apart are equally near: then any of them will do.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use rayon::prelude::*;

use super::centroids::Centroids;
use super::directory::{Directory, Ranking};
use super::hardness::{self, Hardness, Known};
use super::lists::{Lists, View};
use super::partition::{Rows, Tree};
use super::random::Random;
use super::space::{Factors, Role};
use crate::job::Job;
use crate::kernel::codes::{self, LANES};
use crate::kernel::dispatch::{self, Task};
use crate::kernel::level;
use crate::kernel::scan::{ScanQuery, survivors};
use crate::spill::Array;
use crate::vector::{Metric, exact};

/// Rows taken as queries.
pub(super) const QUERIES: usize = 512;
/// Numbers of neighbours that points are made for.
pub(crate) const CLASSES: [usize; 5] = [10, 32, 100, 316, 1000];
/// One query in so many is asked for the neighbours of each class; those of a class are also asked for all smaller ones.
const EVERY: [usize; CLASSES.len()] = [1, 4, 4, 8, 16];
/// Promises.
const PROMISES: [f32; 17] = [
    0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995,
    0.999,
];
/// How much of what is missing to 1 a point must do better than its promise.
const MARGIN: f64 = 0.08;
/// Estimates kept for a second look, for each class: even steps from little more than what is wanted.
const KEPT: [[usize; 16]; CLASSES.len()] = [
    [
        16, 21, 27, 35, 46, 60, 78, 100, 130, 170, 220, 285, 370, 480, 625, 800,
    ],
    [
        45, 55, 67, 82, 100, 122, 149, 182, 222, 272, 332, 405, 494, 604, 737, 900,
    ],
    [
        120, 140, 160, 185, 210, 240, 275, 315, 360, 415, 475, 550, 640, 750, 900, 1200,
    ],
    [
        340, 387, 441, 503, 573, 652, 743, 846, 964, 1098, 1251, 1425, 1624, 1849, 2107, 2400,
    ],
    [
        1050, 1165, 1293, 1435, 1592, 1767, 1960, 2175, 2414, 2678, 2972, 3298, 3659, 4061, 4506,
        5000,
    ],
];
/// How many classes query number `i` counts for.
fn classes(i: usize) -> usize {
    EVERY.partition_point(|&every| i.is_multiple_of(every))
}
/// How many neighbours it is asked for.
fn wanted(i: usize) -> usize {
    CLASSES[classes(i) - 1]
}
/// Slots of the longest replay for each class, for a query as hard as the mean.
const LONGEST: [f64; CLASSES.len()] = [400e3, 400e3, 400e3, 800e3, 1600e3];
/// How much longer each replay is than the one before.
const GROWTH: f64 = 1.08;
/// Replays between two looks at whether all promises are kept.
const STAGE: usize = 10;

/// One point of the curve.
pub(crate) type Point = [f32; 4];

/// How many neighbours were found, for one number of slots: by how many estimates are kept; and that for each class.
type Kept = [u32; KEPT[0].len()];
type Found = [Kept; CLASSES.len()];

/// Measures the curve. `means` are those of the blocks of the tree's leaves.
pub(crate) fn curve(
    rows: &Rows,
    tree: &Tree,
    means: &Centroids,
    lists: &Lists,
    seed: u64,
    job: &Job,
) -> Result<(Vec<Point>, Hardness)> {
    let (codes, lists) = (&lists.codes, &lists.view(rows.space.work()));
    let n = rows.len();
    // Evenly over the leaves, so that easy and hard regions have their share.
    let mut random = Random::new(seed, 0xca11);
    let each = n.div_ceil(QUERIES).max(1);
    let mut asked: Vec<u32> = (0..n)
        .step_by(each)
        .map(|from| tree.rows[from + random.below(each.min(n - from))])
        .collect();
    asked.sort_unstable();
    let asked = asked
        .into_iter()
        .map(|row| Asked::new(rows, row))
        .collect::<Vec<_>>();
    let truth = truths(rows, &asked, job)?;
    let places = Places::new(&asked, &truth, tree, lists, n);
    let directory = Directory {
        leaves: tree.centroids.blocks(),
        groups: means.blocks(),
    };
    let ground = Ground {
        rows,
        tree,
        lists,
        directory,
        places: &places,
    };
    let mut replays = asked
        .par_iter()
        .zip(&truth)
        .enumerate()
        .map(|(i, (asked, truth))| {
            job.check()?;
            Ok(Replay::new(&ground, asked, truth, classes(i)))
        })
        .collect::<Result<Vec<_>>>()?;
    let known: Vec<Known> = replays.iter().filter_map(|r| r.known(lists)).collect();
    let hardness = Hardness::fit(&known);
    for replay in &mut replays {
        replay.hardness = hardness;
    }
    let ladder = ladder(lists.rows.len());
    let possible = CLASSES.map(|k| {
        let asked = truth.iter().enumerate().filter(|(i, _)| wanted(*i) >= k);
        asked.map(|(_, t)| t.near.len().min(k)).sum::<usize>()
    });
    // By class, and by step of the ladder.
    let mut found: [Vec<Kept>; CLASSES.len()] = Default::default();
    let mut open = [true; CLASSES.len()];
    // Each replay reads leaves from all over the lists.
    codes.scatter(true);
    for stage in ladder.chunks(STAGE) {
        let parts = replays
            .par_iter_mut()
            .filter(|replay| open[..replay.classes].contains(&true))
            .map(|replay| {
                job.check()?;
                replay.bring(lists, codes, stage[stage.len() - 1]);
                Ok(stage
                    .iter()
                    .map(|&slots| replay.until(lists, slots))
                    .collect())
            })
            .collect::<Result<Vec<Vec<Found>>>>()?;
        for (class, (open, found)) in open.iter_mut().zip(&mut found).enumerate() {
            if !*open {
                continue;
            }
            found.extend((0..stage.len()).map(|step| {
                let mut sum = Kept::default();
                for part in &parts {
                    for (sum, part) in sum.iter_mut().zip(&part[step][class]) {
                        *sum += part;
                    }
                }
                sum
            }));
            let most = found.last().map_or(0, |found| found[found.len() - 1]);
            let all = goal(PROMISES[PROMISES.len() - 1]) * possible[class] as f64;
            *open = f64::from(most) < all && (stage[stage.len() - 1] as f64) < LONGEST[class];
        }
        if !open.contains(&true) {
            break;
        }
    }
    codes.scatter(false);
    let mut points = Vec::new();
    for (class, &k) in CLASSES.iter().enumerate() {
        for promise in PROMISES {
            let least = goal(promise) * possible[class] as f64;
            let mut best: Option<(f64, usize, usize)> = None;
            for (&slots, found) in ladder.iter().zip(&found[class]) {
                for (&kept, &found) in KEPT[class].iter().zip(found) {
                    let cost = cost(lists, rows.stride, slots, kept);
                    if f64::from(found) >= least && best.is_none_or(|b| cost < b.0) {
                        best = Some((cost, slots, kept));
                    }
                }
            }
            if let Some((_, slots, kept)) = best {
                points.push([k as f32, promise, slots as f32, kept as f32]);
            }
        }
    }
    Ok((points, hardness))
}

/// How many leaves all replays have in order at the same time, of a tree over `n` rows of which a search ranks `ranked`.
pub(super) fn leaves_in_order(leaves: usize, ranked: usize, n: usize) -> usize {
    let each = |i| reach(classes(i)) * leaves as f64 / n.max(1) as f64;
    (0..QUERIES).map(|i| ranked.min(each(i) as usize)).sum()
}

/// Slots beyond which no replay goes that counts for so many classes.
fn reach(classes: usize) -> f64 {
    LONGEST[classes - 1] * f64::from(hardness::MOST)
}

/// What a point must do on the sample.
fn goal(promise: f32) -> f64 {
    f64::from(promise) + MARGIN * (1.0 - f64::from(promise))
}

/// Nanoseconds, about: slots are read in a row, a second look is a miss in the cache for each line (measured).
fn cost(lists: &View, stride: usize, slots: usize, kept: usize) -> f64 {
    slots as f64 * (0.4 + 0.04 * lists.block_bytes as f64 / 16.0)
        + kept as f64 * (25.0 + 8.0 * stride as f64 / 64.0)
}

/// Numbers of slots to try.
fn ladder(slots: usize) -> Vec<usize> {
    let mut out = Vec::new();
    let mut s = 128.0f64;
    while (s as usize) < slots / 3 && s < LONGEST[LONGEST.len() - 1] {
        out.push(s as usize);
        s *= GROWTH;
    }
    out
}

/// A row taken as a query.
struct Asked {
    row: u32,
    /// What a search for its vector compares with the rows. Under `dot` that is another point than the row's: a query's.
    code: Vec<u8>,
    factors: Factors,
}

impl Asked {
    fn new(rows: &Rows, row: u32) -> Self {
        let mut asked = Asked {
            row,
            code: rows.code(row).to_vec(),
            factors: *rows.factors(row),
        };
        let vector = rows.vector(row);
        // No direction, no query.
        if rows.space.metric == Metric::Dot && vector.iter().any(|&x| x != 0.0) {
            let (role, code) = (Role::Query, &mut asked.code);
            if let Some(factors) = rows.space.encode(vector, role, &mut Vec::new(), code) {
                asked.factors = factors;
            }
        }
        asked
    }
}

/// Where the rows that matter stand in the lists.
struct Places {
    /// By position: number among those that matter, or `u32::MAX`.
    number: Vec<u32>,
    /// By row.
    position: Vec<u32>,
    /// (leaf, slot) of each, once for each list it stands in.
    slots: Vec<Vec<(u32, u32)>>,
}

impl Places {
    fn new(asked: &[Asked], truth: &[Truth], tree: &Tree, lists: &View, n: usize) -> Self {
        let mut position = vec![0u32; n];
        for (p, &row) in tree.rows.iter().enumerate() {
            position[row as usize] = p as u32;
        }
        let mut number = vec![u32::MAX; n];
        let mut many = 0;
        let near = truth.iter().flat_map(|truth| &truth.near);
        let near = near.map(|&(_, row)| row);
        for row in asked.iter().map(|asked| asked.row).chain(near) {
            let number = &mut number[position[row as usize] as usize];
            if *number == u32::MAX {
                *number = many;
                many += 1;
            }
        }
        let mut slots = vec![Vec::with_capacity(2); many as usize];
        for (leaf, range) in lists.starts.windows(2).enumerate() {
            let list = &lists.rows[range[0] as usize..range[1] as usize];
            for (&p, slot) in list.iter().zip(range[0]..) {
                let number = number.get(p as usize).copied().unwrap_or(u32::MAX);
                if number != u32::MAX {
                    slots[number as usize].push((leaf as u32, slot));
                }
            }
        }
        Places {
            number,
            position,
            slots,
        }
    }

    fn of(&self, row: u32) -> &[(u32, u32)] {
        let number = self.number[self.position[row as usize] as usize];
        &self.slots[number as usize]
    }
}

/// A search that goes on and on.
struct Replay {
    query: ScanQuery,
    /// (leaf, score), nearest first.
    order: Vec<(u32, f32)>,
    /// What [`hardness`] goes by, and what it says.
    at_leaves: [f32; 3],
    hardness: Hardness,
    /// The next leaf, and the slots scanned so far.
    at: usize,
    scanned: usize,
    /// Slots of the query's own row: it is not there when another asks.
    own: Vec<(u32, u32)>,
    /// (leaf, slot, rank) of the neighbours, by leaf; a neighbour's smallest estimate by rank.
    near: Vec<(u32, u32, u32)>,
    best: Vec<f32>,
    /// Classes that the query counts for, those of them for which it finds nothing, and the most estimates kept for them.
    classes: usize,
    blind: [bool; CLASSES.len()],
    most: usize,
    /// The smallest estimates so far, ascending, at most `most`; those not merged in yet.
    pool: Vec<f32>,
    fresh: Vec<f32>,
    slots: Vec<u32>,
    /// What was found when something was last scanned.
    found: Found,
}

/// What is searched.
struct Ground<'a> {
    rows: &'a Rows<'a>,
    tree: &'a Tree,
    lists: &'a View<'a>,
    directory: Directory<'a>,
    places: &'a Places,
}

impl Ground<'_> {
    /// (leaf, score, squared distance) of every leaf that is ranked for a row that asks, nearest first.
    ///
    /// The row has pulled the centroid of its own leaf towards it, which no query does: without it that distance would be
    /// larger by m / (m - 1), m the rows of the leaf. (Under `dot` the query is another point, far away.)
    fn order(&self, asked: &Asked) -> Vec<(u32, f32, f32)> {
        let factors = &asked.factors;
        let mut ranking = Ranking::default();
        self.directory
            .rank(&asked.code, 2.0 * factors.scale, &mut ranking);
        let position = self.places.position[asked.row as usize];
        let pulled = self.rows.space.metric != Metric::Dot;
        let mut order: Vec<_> = (0..ranking.len() as u32)
            .map(|c| {
                let (leaf, score) = (ranking.leaf(c), ranking.score(c));
                let away = match self.tree.starts.get(leaf..leaf + 2) {
                    Some(&[from, to])
                        if pulled && from <= position && position < to && to - from > 1 =>
                    {
                        (to - from) as f32 / (to - from - 1) as f32
                    }
                    _ => 1.0,
                };
                (leaf as u32, score, (factors.norm + score) * (away * away))
            })
            .collect();
        order.sort_unstable_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
        order
    }
}

impl Replay {
    fn new(ground: &Ground, asked: &Asked, truth: &Truth, classes: usize) -> Self {
        let Ground {
            rows,
            lists,
            places,
            ..
        } = ground;
        let factor = asked.factors.scale;
        let order = ground.order(asked);
        let code: Vec<i8> = asked.code[..rows.space.work()]
            .iter()
            .map(|&c| (i32::from(c) - 128) as i8)
            .collect();
        let mut query = ScanQuery::default();
        query.prepare(level(), lists.bits, &code, factor);
        let mut near: Vec<_> = truth
            .near
            .iter()
            .zip(0..)
            .flat_map(|(&(_, row), rank)| places.of(row).iter().map(move |&(l, s)| (l, s, rank)))
            .collect();
        near.sort_unstable();
        let at_leaves = hardness::at(order.len(), |i| order[i].2);
        // No replay goes farther, and there are hundreds.
        let mut left = reach(classes) as i64;
        let order = order.into_iter().take_while(|&(leaf, ..)| {
            left -= lists.slots(leaf as usize).len() as i64;
            left > 0
        });
        let order: Vec<_> = order.map(|(leaf, score, _)| (leaf, score)).collect();
        Replay {
            query,
            order,
            at_leaves,
            hardness: Hardness::default(),
            at: 0,
            scanned: 0,
            own: places.of(asked.row).to_vec(),
            near,
            best: vec![f32::INFINITY; truth.near.len()],
            classes,
            blind: truth.blind,
            most: KEPT[classes - 1][KEPT[0].len() - 1],
            pool: Vec::new(),
            fresh: Vec::new(),
            slots: Vec::new(),
            found: Found::default(),
        }
    }

    /// How many slots the nearest neighbours take, by the order of the leaves alone.
    fn known(&self, lists: &View) -> Option<Known> {
        let mut took = [0.0f32; CLASSES[0]];
        let (mut slots, mut missing) = (0, self.best.len().min(took.len()));
        let all = missing;
        for &(leaf, _) in &self.order {
            slots += lists.slots(leaf as usize).len();
            let from = self.near.partition_point(|near| near.0 < leaf);
            for near in self.near[from..].iter().take_while(|near| near.0 == leaf) {
                if let Some(took) = took.get_mut(near.2 as usize)
                    && *took == 0.0
                {
                    *took = hardness::logarithm(slots as f32);
                    missing -= 1;
                }
            }
            if missing == 0 {
                break;
            }
        }
        (missing == 0 && all > 0 && !self.blind[0]).then(|| Known {
            at: self.at_leaves,
            took: took.iter().sum::<f32>() / all as f32,
        })
    }

    /// Has the lists read that [`Replay::until`] will scan.
    fn bring(&self, lists: &View, codes: &Array<u8>, slots: usize) {
        let slots = self.hardness.share(slots, &self.at_leaves);
        let mut scanned = self.scanned;
        for &(leaf, _) in &self.order[self.at.min(self.order.len())..] {
            if scanned >= slots {
                break;
            }
            let range = lists.slots(leaf as usize);
            scanned += range.len();
            codes.bring(lists.bytes_of(&range));
        }
    }

    /// Scans on until so many slots, times the query's share, have been scanned; how many neighbours are found then.
    fn until(&mut self, lists: &View, slots: usize) -> Found {
        let slots = self.hardness.share(slots, &self.at_leaves);
        let at = self.at;
        while self.scanned < slots
            && let Some(&(leaf, score)) = self.order.get(self.at)
        {
            self.leaf(lists, leaf, score);
            self.at += 1;
        }
        if self.at == at {
            return self.found;
        }
        self.merge();
        let mut found = Found::default();
        let classes = CLASSES.iter().zip(&KEPT).zip(self.blind).zip(&mut found);
        for (((&k, kept), blind), found) in classes.take(self.classes) {
            if blind {
                continue;
            }
            // Found by all that keep more than there are before it: counted at the first of them.
            let limits = kept.map(|kept| self.pool.get(kept - 1).copied());
            let limits = limits.map(|limit| limit.unwrap_or(f32::INFINITY));
            for &best in self.best.iter().take(k) {
                let first = limits.iter().filter(|&&limit| limit < best).count();
                if best < f32::INFINITY && first < kept.len() {
                    found[first] += 1;
                }
            }
        }
        for found in &mut found {
            for i in 1..found.len() {
                found[i] += found[i - 1];
            }
        }
        self.found = found;
        found
    }

    fn leaf(&mut self, lists: &View, leaf: u32, score: f32) {
        let range = lists.slots(leaf as usize);
        self.scanned += range.len();
        let from = self.near.partition_point(|near| near.0 < leaf);
        let near = self.near[from..].iter().take_while(|near| near.0 == leaf);
        // Everything is asked for where a neighbour stands: it may lie behind the limit.
        let limit = match self.pool.last() {
            Some(&last) if self.pool.len() == self.most && near.clone().next().is_none() => last,
            _ => f32::INFINITY,
        };
        let fresh = self.fresh.len();
        self.slots.clear();
        self.slots.resize(fresh, u32::MAX);
        survivors(
            level(),
            &self.query,
            lists.codes_of(&range),
            &[],
            (score, limit),
            range.start as u32,
            &mut self.slots,
            &mut self.fresh,
        );
        for &(_, slot, rank) in near {
            if let Ok(i) = self.slots[fresh..].binary_search(&slot) {
                let best = &mut self.best[rank as usize];
                *best = best.min(self.fresh[fresh + i]);
            }
        }
        for &(_, own) in self.own.iter().filter(|own| own.0 == leaf) {
            if let Ok(i) = self.slots[fresh..].binary_search(&own) {
                self.slots.remove(fresh + i);
                self.fresh.remove(fresh + i);
            }
        }
        if self.fresh.len() > 4 * self.most {
            self.merge();
        }
    }

    /// Merges the new estimates into the pool.
    fn merge(&mut self) {
        if self.pool.len() == self.most {
            let last = self.pool[self.most - 1];
            self.fresh.retain(|&x| x < last);
        }
        self.fresh.sort_unstable_by(f32::total_cmp);
        // From the back, so that the two runs need no third place.
        let (mut i, mut j) = (self.pool.len(), self.fresh.len());
        self.pool.resize(i + j, 0.0);
        while j > 0 {
            if i > 0 && self.pool[i - 1] > self.fresh[j - 1] {
                i -= 1;
                self.pool[i + j] = self.pool[i];
            } else {
                j -= 1;
                self.pool[i + j] = self.fresh[j];
            }
        }
        self.pool.truncate(self.most);
        self.fresh.clear();
    }
}

/// The true neighbours of a query.
struct Truth {
    /// By byte codes: (squared distance, row), nearest first.
    near: Vec<(f32, u32)>,
    /// For which classes codes don't tell.
    blind: [bool; CLASSES.len()],
}

/// So many times the rows that are wanted are looked at to see whether codes tell them from others.
const BEYOND: usize = 2;

impl Truth {
    /// Of more rows than are wanted, nearest first.
    fn new(rows: &Rows, asked: &Asked, wanted: usize, mut near: Vec<(f32, u32)>) -> Truth {
        // What a code is off is in all directions: of that, as much as one has in the direction of the other point.
        let off = |f: &Factors| f.error * f.error / rows.space.work() as f32;
        let blind = CLASSES.map(|k| {
            let beyond = near.len().min(BEYOND * k);
            if k > wanted || beyond <= k {
                return false;
            }
            let ((at, row), (far, _)) = (near[k - 1], near[beyond - 1]);
            let noise = (off(&asked.factors) + off(rows.factors(row))).sqrt();
            far.max(0.0).sqrt() - at.max(0.0).sqrt() <= 2.0 * noise
                && !are_as_near(rows, asked, k, &near[..beyond])
        });
        near.truncate(wanted);
        Truth { near, blind }
    }
}

/// Whether the farthest of these rows is as near as the k-th, by their vectors.
fn are_as_near(rows: &Rows, asked: &Asked, k: usize, near: &[(f32, u32)]) -> bool {
    let query = rows.vector(asked.row);
    let distance = |row: u32| exact::distance(rows.space.metric, query, rows.vector(row));
    let mut all: Vec<f64> = near.iter().map(|&(_, row)| distance(row)).collect();
    all.sort_unstable_by(f64::total_cmp);
    let (at, far) = (all[k - 1], all[all.len() - 1]);
    // Rows of one direction are at 0, but for rounding.
    let rounding = if rows.space.metric == Metric::Cosine {
        1e-12
    } else {
        0.0
    };
    far - at <= 1e-6 * at.abs() + rounding
}

/// The true neighbours of the rows asked about.
fn truths(rows: &Rows, asked: &[Asked], job: &Job) -> Result<Vec<Truth>> {
    const PART: usize = 8192;
    let codes = asked.iter().map(|asked| (&asked.code[..], asked.factors));
    let queries = Centroids::of_codes(rows.space.work(), codes);
    let blocks = queries.blocks();
    let nearer = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    let keep = move |q: usize, list: &mut Vec<(f32, u32)>| {
        let k = BEYOND * wanted(q);
        if list.len() > k {
            list.select_nth_unstable_by(k - 1, nearer);
            list.truncate(k);
        }
    };
    let farthest = |list: &[(f32, u32)]| list.iter().fold(f32::NEG_INFINITY, |m, x| m.max(x.0));
    let n = rows.len();
    // In the order in which they lie. Few parts, each with its own lists; in any order the result is the same.
    let mut row_at = vec![0u32; rows.place.len()];
    for (&place, row) in rows.place.iter().zip(0..) {
        row_at[place as usize] = row;
    }
    let part = n.div_ceil(8).max(PART);
    let known: Vec<Limit> = asked.iter().map(|_| Limit::default()).collect();
    let parts = (0..n.div_ceil(part))
        .into_par_iter()
        .map(|p| {
            let mut lists: Vec<Vec<(f32, u32)>> = vec![Vec::new(); asked.len()];
            let mut limits: Vec<f32> = known.iter().map(Limit::get).collect();
            limits.resize(blocks.leaves(), f32::NEG_INFINITY);
            const TILE: usize = codes::TILE;
            let mut nearer_blocks = Vec::new();
            let mut scores = vec![0.0f32; TILE * blocks.leaves()];
            let range = p * part..((p + 1) * part).min(n);
            for place in range.clone() {
                let at = (place - range.start) % TILE;
                if at == 0 {
                    job.check()?;
                    let here = place..(place + TILE).min(range.end);
                    let mut factors = [0.0; TILE];
                    for (factor, f) in factors.iter_mut().zip(&rows.factors[here.clone()]) {
                        *factor = 2.0 * f.scale;
                    }
                    codes::row_scores(
                        level(),
                        &blocks,
                        &rows.codes[here.start * rows.stride..here.end * rows.stride],
                        &factors[..here.len()],
                        &mut scores[..here.len() * blocks.leaves()],
                    );
                }
                let f = &rows.factors[place];
                let row = row_at.get(place).copied().unwrap_or(place as u32);
                let scores = &scores[at * blocks.leaves()..][..blocks.leaves()];
                nearer_blocks.clear();
                let task = Nearer(scores, &limits, f.norm, &mut nearer_blocks);
                dispatch::run(level(), task);
                for &(b, mut near) in &nearer_blocks {
                    while near != 0 {
                        let q = b as usize * LANES + near.trailing_zeros() as usize;
                        near &= near - 1;
                        let s = scores[q] + f.norm;
                        if asked[q].row != row {
                            lists[q].push((s, row));
                            if lists[q].len() >= 4 * BEYOND * wanted(q) {
                                keep(q, &mut lists[q]);
                                limits[q] = farthest(&lists[q]);
                                known[q].lower(limits[q]);
                            }
                        }
                    }
                }
            }
            for (q, list) in lists.iter_mut().enumerate() {
                keep(q, list);
                if list.len() == BEYOND * wanted(q) {
                    known[q].lower(farthest(list));
                }
            }
            Ok(lists)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok((0..asked.len())
        .map(|q| {
            let mut all: Vec<(f32, u32)> = parts
                .iter()
                .flat_map(|lists| lists[q].iter().copied())
                .collect();
            keep(q, &mut all);
            all.sort_unstable_by(nearer);
            Truth::new(rows, &asked[q], wanted(q), all)
        })
        .collect())
}

/// What the last row wanted is not beyond, whichever part of the rows has found that out. The result does not depend on when another part
/// reads it: all that is wanted is within every limit there ever is.
struct Limit(AtomicU32);

impl Default for Limit {
    fn default() -> Self {
        Limit(AtomicU32::new(f32::INFINITY.to_bits()))
    }
}

impl Limit {
    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn lower(&self, to: f32) {
        let lower = |now| (to < f32::from_bits(now)).then_some(to.to_bits());
        // An error is a limit that is lower already.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
    }
}

/// Which scores, with this number added, are not beyond their limits: (scores, limits, number, blocks that have any, a bit for
/// each of them).
struct Nearer<'a>(&'a [f32], &'a [f32], f32, &'a mut Vec<(u32, u32)>);

impl Task for Nearer<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let (scores, limits) = (self.0.as_chunks::<LANES>().0, self.1.as_chunks::<LANES>().0);
        for (b, (scores, limits)) in scores.iter().zip(limits).enumerate() {
            let mut near = 0;
            for k in 0..LANES {
                near |= u32::from(scores[k] + self.2 <= limits[k]) << k;
            }
            if near != 0 {
                self.3.push((b as u32, near));
            }
        }
    }
}
