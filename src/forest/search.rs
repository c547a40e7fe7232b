//! Approximate and exact search.
//!
//! Both look at rows in chunks: integer dot products of byte codes give for each row a distance to the query's own
//! code, the triangle inequality turns it into a lower bound of the true distance, and only rows whose bound lies
//! within the k-th best distance so far are scored by [`crate::vector::exact`]. So within the rows looked at the
//! answer is exact; approximate search looks at the leaves near the query, exact search at all rows.
//!
//! The bound. With codes c (scale s) of the row and g (scale t) of the query, and their errors E and F
//! ([`super::space`]): |w(q) - w(x)| >= |t g - s c| - E - F, and |t g - s c|^2 = |t g|^2 + |s c|^2 - 2 s t <g, c> with
//! <g, c> an exact integer. In f32 that sum is off by less than 2^-20 (|t g|^2 + |s c|^2), since 2 s t |<g, c>| is no
//! larger than the two squares. So a row is left out only if
//!
//! ```text
//! |t g|^2 + |s c|^2 - 2 s t <g, c> - 2^-20 (|t g|^2 + |s c|^2) > (R + E + F)^2 (1 + 2^-20) + 1e-30
//! ```
//!
//! where R is the distance of points that the k-th best distance allows ([`Space::reach`]). 1e-30 stands for
//! underflow. A comparison with NaN or infinity on the right is false, and keeps the row.

use rustc_hash::FxHashSet;

use super::file::Forest;
use super::format::Kind;
use super::lists::View;
use super::space::{Role, Space};
use super::topk::{Hit, TopK};
use crate::kernel::bound::{self, Bound, Chunk};
use crate::kernel::codes::{self, LANES};
use crate::kernel::dispatch::prefetch;
use crate::kernel::scan::{ScanQuery, estimates};
use crate::kernel::{kernels, level, select};
use crate::vector::{Metric, exact};

/// Rows handled at a time: the buffers stay in the first cache.
const CHUNK: usize = 256;
/// Rows scored at once.
const EIGHT: usize = 8;

/// How much an approximate search looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// The trees alone: whole leaves, nearest first, until this many rows have been looked at.
    SearchK(usize),
    /// As much as it takes to find this part of the true neighbours, 0..=1.
    Recall(f32),
    /// `Recall(0.95)`.
    Default,
}

const DEFAULT_RECALL: f32 = 0.95;

/// Up to this many trees, all are searched whatever the budget.
const FEW_TREES: usize = 16;

/// How much of the lists to scan, and how many estimates to look at twice.
#[derive(Debug, Clone, Copy)]
struct Effort {
    slots: usize,
    kept: usize,
}

/// Buffers of a search, to be kept from one query to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    point: Vec<f32>,
    code: Vec<u8>,
    query: Vec<i8>,
    scores: Vec<f32>,
    order: Vec<u64>,
    seen: Vec<u32>,
    epoch: u32,
    list: Vec<u32>,
    done: Vec<bool>,
    dots: Vec<i32>,
    gathered: [Vec<f32>; 3],
    kept: Vec<u32>,
    near: Vec<(f32, u32)>,
    scan: ScanQuery,
    estimates: Vec<f32>,
    values: Vec<f32>,
    places: Vec<u32>,
    table: Vec<u32>,
}

/// The query as the scan needs it.
struct Query<'a> {
    vector: &'a [f32],
    /// Its own inner product, for cosine.
    own: f64,
    norm: f64,
    scale: f32,
    square: f32,
    error: f32,
}

impl<B: AsRef<[u8]>> Forest<B> {
    /// The `k` nearest rows among those in the leaves that the budget allows, without those `hidden`. Fewer than `k`
    /// only if the leaves hold fewer.
    ///
    /// A query of another dimension has no neighbours here.
    #[must_use]
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        budget: Budget,
        hidden: &FxHashSet<i64>,
        scratch: &mut Scratch,
    ) -> Vec<Hit> {
        let recall = match budget {
            Budget::SearchK(search_k) if search_k < self.len() => {
                return self.scan(query, k, hidden, scratch, |scan, s| {
                    scan.leaves(search_k, s);
                });
            }
            Budget::SearchK(_) => 1.0,
            Budget::Recall(recall) => recall,
            Budget::Default => DEFAULT_RECALL,
        };
        if let (Some(effort), Some(lists)) = (self.effort(recall, k), self.lists()) {
            let hits = self.scan(query, k, hidden, scratch, |scan, s| {
                scan.lists(&lists, effort, s);
            });
            if hits.len() == k {
                return hits;
            }
        }
        self.exact(query, k, hidden, scratch)
    }

    /// What it takes to find this part of `k` neighbours; `None`: all rows.
    fn effort(&self, recall: f32, k: usize) -> Option<Effort> {
        let points: &[[f32; 4]] = self.section(Kind::Curve);
        let class = points.iter().map(|p| p[0]).find(|&c| k as f32 <= c);
        let last = points.last().map(|p| p[0]);
        let class = class.or(last)?;
        let point = points.iter().find(|p| p[0] == class && p[1] >= recall)?;
        // More neighbours than were calibrated for: as much more work.
        let by = (k as f32 / class).max(1.0);
        let effort = Effort {
            slots: (point[2] * by) as usize,
            kept: (point[3] * by) as usize,
        };
        (effort.slots < self.len()).then_some(effort)
    }

    /// The `k` nearest of all rows, without those `hidden`: the same rows and distances as a loop over
    /// [`exact::distance`] followed by a sort by (distance, rowid).
    ///
    /// A query of another dimension has no neighbours here.
    #[must_use]
    pub fn exact(
        &self,
        query: &[f32],
        k: usize,
        hidden: &FxHashSet<i64>,
        scratch: &mut Scratch,
    ) -> Vec<Hit> {
        self.scan(query, k, hidden, scratch, |scan, s| {
            scan.everything(s);
        })
    }

    fn scan(
        &self,
        query: &[f32],
        k: usize,
        hidden: &FxHashSet<i64>,
        s: &mut Scratch,
        run: impl FnOnce(&mut Scan<'_, B>, &mut Scratch),
    ) -> Vec<Hit> {
        if k == 0 || self.is_empty() || query.len() != self.dim() {
            return Vec::new();
        }
        let stride = self.space.stride();
        s.code.resize(stride, 128);
        let factors = self
            .space
            .encode(query, Role::Query, &mut s.point, &mut s.code);
        let norm = Space::query_norm(query);
        let mut scan = Scan {
            forest: self,
            hidden,
            best: TopK::new(k),
            queue: [0; EIGHT],
            waiting: 0,
            query: Query {
                vector: query,
                own: exact::dot(query, query),
                norm,
                scale: 0.0,
                square: 0.0,
                error: f32::INFINITY,
            },
        };
        match factors {
            // A query without a direction is equally far from everything.
            Some(f) if self.metric() == Metric::L2 || norm > 0.0 => {
                s.query.clear();
                s.query
                    .extend(s.code.iter().map(|&c| (i32::from(c) - 128) as i8));
                (scan.query.scale, scan.query.square, scan.query.error) =
                    (f.scale, f.norm, f.error);
                run(&mut scan, s);
            }
            _ => scan.plain(),
        }
        scan.flush();
        scan.best.into_sorted()
    }
}

struct Scan<'a, B: AsRef<[u8]>> {
    forest: &'a Forest<B>,
    hidden: &'a FxHashSet<i64>,
    best: TopK,
    /// Positions of rows to be scored, and how many of them.
    queue: [u32; EIGHT],
    waiting: usize,
    query: Query<'a>,
}

/// Keeps the slots whose estimate is at most `limit`.
fn keep(limit: f32, slots: &mut Vec<u32>, estimates: &mut Vec<f32>) {
    let mut kept = 0;
    for i in 0..slots.len() {
        slots[kept] = slots[i];
        estimates[kept] = estimates[i];
        kept += usize::from(estimates[i] <= limit);
    }
    slots.truncate(kept);
    estimates.truncate(kept);
}

/// Leaves each of the positions below `n` in the list once, in order.
fn once(list: &mut Vec<u32>, n: usize, table: &mut Vec<u32>) {
    // A hash table with room to spare, in the first cache; `u32::MAX` is free.
    let size = (list.len() * 2).next_power_of_two().max(16);
    table.clear();
    table.resize(size, u32::MAX);
    let shift = 32 - size.ilog2();
    list.retain(|&p| {
        let mut at = (p.wrapping_mul(0x9e37_79b9) >> shift) as usize;
        while table[at] != u32::MAX {
            if table[at] == p {
                return false;
            }
            at = (at + 1) % size;
        }
        table[at] = p;
        (p as usize) < n
    });
}

/// The `least` leaves with the smallest scores (or somewhat more, or all), nearest first, the first of equals first.
/// The low half of an entry is the leaf.
fn nearest(scores: &[f32], least: usize, mut order: Vec<u64>, places: &mut Vec<u32>) -> Vec<u64> {
    let limit = select::limit_for(level(), scores, least, least + least / 2 + 8);
    places.clear();
    select::places(level(), scores, limit, 0, places);
    order.clear();
    order.extend(
        places
            .iter()
            .map(|&j| u64::from(ordered(scores[j as usize])) << 32 | u64::from(j)),
    );
    order.sort_unstable();
    order
}

/// A score as an integer that orders the same way; NaN last.
fn ordered(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

impl<B: AsRef<[u8]>> Scan<'_, B> {
    /// Whole leaves, nearest first, until `search_k` rows have been looked at; rows that several trees offer count
    /// once, but no more than twice as many are offered.
    fn leaves(&mut self, search_k: usize, s: &mut Scratch) {
        let f = self.forest;
        // All trees while they are few. Of many, as many as half the leaves wanted: each further one hardly adds a
        // better leaf than those found, but has its own leaves to be ranked.
        let wanted = search_k.div_ceil(f.layout.header.leaf.max(1)).max(4);
        let trees = f.trees().min((wanted / 2).max(FEW_TREES));
        let leaves = f.tree(trees - 1).1;
        let several = trees > 1;
        if several {
            s.seen.resize(f.len(), 0);
            s.epoch = s.epoch.wrapping_add(1);
            if s.epoch == 0 {
                s.seen.fill(0);
                s.epoch = 1;
            }
        }
        self.rank(leaves, s);
        let (mut looked, mut offered) = (0, 0);
        let enough = |looked: usize, offered: usize| {
            looked >= search_k || offered >= search_k.saturating_mul(2)
        };
        let mut least = wanted * if several { 4 } else { 2 } + 8;
        let mut done = 0;
        loop {
            // The nearest leaves, in order; more of them if they turn out to be too few.
            let order = nearest(
                &s.scores,
                least,
                std::mem::take(&mut s.order),
                &mut s.places,
            );
            for key in &order[done.min(order.len())..] {
                let (new, all) = self.leaf((key & 0xffff_ffff) as usize, several, s);
                looked += new;
                offered += all;
                if enough(looked, offered) {
                    break;
                }
            }
            let all = order.len() >= leaves || order.len() == done;
            done = order.len();
            s.order = order;
            if all || enough(looked, offered) {
                return;
            }
            least = done * 4;
        }
    }

    /// The lists nearest to the query, by estimate; the best of those by byte code; the best of these exactly.
    fn lists(&mut self, lists: &View, effort: Effort, s: &mut Scratch) {
        let f = self.forest;
        let work = f.space.work();
        self.rank(f.tree(0).1, s);
        s.scan
            .prepare(lists.bits, &s.query[..work], self.query.scale);
        // Leaves, nearest first, until they have enough slots; then in the order of the file.
        let each = (lists.rows.len() / s.scores.len().max(1)).max(1);
        let mut least = effort.slots / each * 5 / 4 + 8;
        let mut order = std::mem::take(&mut s.order);
        let taken = loop {
            order = nearest(&s.scores, least, order, &mut s.places);
            let (mut slots, mut taken) = (0, 0);
            while slots < effort.slots && taken < order.len() {
                slots += lists.slots((order[taken] & 0xffff_ffff) as usize).len();
                taken += 1;
            }
            if slots >= effort.slots || order.len() >= s.scores.len() || least > s.scores.len() {
                break taken;
            }
            least *= 2;
        };
        order.truncate(taken);
        // The nearest eight set the limit; the rest in the order of the file, for the prefetcher's sake.
        if let Some(rest) = order.get_mut(8..) {
            rest.sort_unstable_by_key(|&key| key as u32);
        }
        let (least, most) = (effort.kept, effort.kept + effort.kept / 4 + 4);
        let mut limit = f32::INFINITY;
        let mut list = std::mem::take(&mut s.list);
        list.clear();
        s.estimates.clear();
        for (i, key) in order.iter().enumerate() {
            let leaf = |key: &u64| (key & 0xffff_ffff) as usize;
            let slots = lists.slots(leaf(key));
            let next = order.get(i + 1).map_or(0..0, |key| lists.slots(leaf(key)));
            s.values.resize(slots.len(), 0.0);
            let (codes, next) = (lists.codes_of(&slots), lists.codes_of(&next));
            estimates(
                level(),
                &s.scan,
                codes,
                next,
                s.scores[leaf(key)],
                &mut s.values,
            );
            select::pairs(
                level(),
                &s.values,
                limit,
                slots.start as u32,
                &mut list,
                &mut s.estimates,
            );
            if list.len() > 3 * most || i + 1 == order.len() {
                limit = select::limit_for(level(), &s.estimates, least, most).min(limit);
                keep(limit, &mut list, &mut s.estimates);
            }
        }
        s.order = order;
        for slot in &mut list {
            *slot = lists.rows[*slot as usize];
        }
        once(&mut list, f.len(), &mut s.table);
        for part in list.chunks(CHUNK) {
            self.some(part, s);
        }
        s.list = list;
    }

    /// Scores of leaves `0..leaves`.
    fn rank(&self, leaves: usize, s: &mut Scratch) {
        debug_assert_eq!(leaves % LANES, 0);
        s.scores.resize(leaves, 0.0);
        let factor = 2.0 * self.query.scale;
        codes::leaf_scores(
            level(),
            &self.forest.blocks(0, leaves),
            &s.code,
            factor,
            &mut s.scores,
        );
    }

    /// Looks at the rows of one leaf; returns how many were new, and how many there were.
    fn leaf(&mut self, leaf: usize, several: bool, s: &mut Scratch) -> (usize, usize) {
        let f = self.forest;
        let n = f.len();
        let rows: &[[u32; 2]] = f.section(Kind::LeafRows);
        let [first, count] = rows[leaf];
        let (first, end) = (
            first as usize,
            (first as usize).saturating_add(count as usize).min(n),
        );
        if first >= end {
            return (0, 0);
        }
        if !several {
            self.range(first, end, s);
            return (end - first, end - first);
        }
        let tree = f
            .section::<u32>(Kind::Trees)
            .partition_point(|&t| t as usize <= leaf)
            - 1;
        let mut list = std::mem::take(&mut s.list);
        list.clear();
        let (seen, epoch) = (&mut s.seen, s.epoch);
        let mut take = |p: u32| {
            if let Some(mark) = seen.get_mut(p as usize)
                && *mark != epoch
            {
                *mark = epoch;
                list.push(p);
            }
        };
        if tree == 0 {
            (first as u32..end as u32).for_each(&mut take);
        } else {
            let lists: &[u32] = f.section(Kind::Lists);
            let list = &lists[(tree - 1) * n..][..n];
            list[first..end].iter().copied().for_each(&mut take);
        }
        for part in list.chunks(CHUNK) {
            self.some(part, s);
        }
        let looked = list.len();
        s.list = list;
        (looked, end - first)
    }

    /// All rows: those of the nearest leaves first, so that the k-th best is near its final value for the rest.
    fn everything(&mut self, s: &mut Scratch) {
        let f = self.forest;
        let leaves = f.tree(0).1;
        self.rank(leaves, s);
        let rows: &[[u32; 2]] = f.section(Kind::LeafRows);
        let first = (f.len() / 100).max(2 * self.best.k().min(f.len()));
        s.done.clear();
        s.done.resize(leaves, false);
        let wanted = 2 * first / f.layout.header.leaf.max(1) + 4;
        let order = nearest(
            &s.scores,
            wanted,
            std::mem::take(&mut s.order),
            &mut s.places,
        );
        let mut looked = 0;
        for key in &order {
            if looked >= first {
                break;
            }
            let leaf = (key & 0xffff_ffff) as usize;
            s.done[leaf] = true;
            looked += self.leaf(leaf, false, s).0;
        }
        self.flush();
        s.order = order;
        let mut from = 0;
        for (j, &[start, count]) in rows[..leaves].iter().enumerate() {
            if s.done[j] {
                let start = (start as usize).min(f.len());
                self.range(from, start, s);
                from = from.max(start.saturating_add(count as usize));
            }
        }
        self.range(from, f.len(), s);
    }

    /// Consecutive rows.
    fn range(&mut self, from: usize, to: usize, s: &mut Scratch) {
        let f = self.forest;
        let stride = f.space.stride();
        let codes: &[u8] = f.section(Kind::Codes);
        let (scale, norm, error) = f.factors();
        let mut at = from;
        while at < to {
            let n = CHUNK.min(to - at);
            s.dots.resize(CHUNK, 0);
            codes::row_dots(
                level(),
                &codes[at * stride..][..n * stride],
                &s.query,
                &mut s.dots[..n],
            );
            let chunk = Chunk {
                dots: &s.dots[..n],
                scale: &scale[at..at + n],
                norm: &norm[at..at + n],
                error: &error[at..at + n],
            };
            self.chunk(&chunk, |i| (at + i) as u32, &mut s.near, &mut s.kept);
            at += n;
        }
    }

    /// Rows anywhere, at most a chunk of them.
    fn some(&mut self, positions: &[u32], s: &mut Scratch) {
        let f = self.forest;
        let n = positions.len();
        s.dots.resize(CHUNK, 0);
        codes::gather_dots(
            level(),
            f.section(Kind::Codes),
            positions,
            &s.query,
            &mut s.dots,
        );
        let (scale, norm, error) = f.factors();
        for (to, from) in s.gathered.iter_mut().zip([scale, norm, error]) {
            to.clear();
            to.extend(positions.iter().map(|&p| from[p as usize]));
        }
        let chunk = Chunk {
            dots: &s.dots[..n],
            scale: &s.gathered[0],
            norm: &s.gathered[1],
            error: &s.gathered[2],
        };
        self.chunk(&chunk, |i| positions[i], &mut s.near, &mut s.kept);
    }

    /// Scores those rows of a chunk that the bound does not leave out.
    fn chunk(
        &mut self,
        chunk: &Chunk,
        position: impl Fn(usize) -> u32,
        near: &mut Vec<(f32, u32)>,
        kept: &mut Vec<u32>,
    ) {
        let missing = self.best.k().saturating_sub(self.best.len() + self.waiting);
        if missing == 0 {
            if self.best.len() < self.best.k() {
                self.flush();
            }
            kept.clear();
            bound::within(level(), &self.bound(), chunk, kept);
            for &i in kept.iter() {
                self.wait(position(i as usize));
            }
            return;
        }
        // There are fewer than k hits: score the rows with the nearest codes first, so that the bound bites from the
        // first chunk on.
        let twice_scale = 2.0 * self.query.scale;
        near.clear();
        near.extend((0..chunk.dots.len()).map(|i| {
            let product = twice_scale * (chunk.scale[i] * chunk.dots[i] as f32);
            (chunk.norm[i] - product, i as u32)
        }));
        if missing < near.len() {
            near.select_nth_unstable_by(missing, |a, b| a.0.total_cmp(&b.0));
        }
        for &(_, i) in near.iter().take(missing) {
            self.wait(position(i as usize));
        }
        if missing < near.len() {
            self.flush();
        }
        let bound = self.bound();
        for &(_, i) in near.iter().skip(missing) {
            let i = i as usize;
            if bound.excess(chunk.dots[i], chunk.scale[i], chunk.norm[i], chunk.error[i]) > 0.0 {
                continue;
            }
            self.wait(position(i));
        }
    }

    fn bound(&self) -> Bound {
        let limit = self.best.limit();
        let reach = if limit == f64::INFINITY {
            f32::INFINITY
        } else {
            self.forest.space.reach(limit, self.query.norm) + self.query.error
        };
        Bound {
            square: self.query.square,
            twice_scale: 2.0 * self.query.scale,
            reach,
        }
    }

    /// Takes a row to be scored; eight are scored at once.
    fn wait(&mut self, position: u32) {
        if !self.hidden.is_empty() && self.hidden.contains(&self.forest.ids()[position as usize]) {
            return;
        }
        // The row is read when eight wait: by then it is near. What follows its first lines the processor fetches.
        let row: &[u8] = bytemuck::cast_slice(self.forest.vector_at(position as usize));
        prefetch(&row[..row.len().min(512)]);
        self.queue[self.waiting] = position;
        self.waiting += 1;
        if self.waiting == self.queue.len() {
            self.flush();
        }
    }

    /// Scores the rows that wait.
    fn flush(&mut self) {
        let f = self.forest;
        let n = std::mem::take(&mut self.waiting);
        let mut rows = [self.query.vector; EIGHT];
        for (row, &p) in rows.iter_mut().zip(&self.queue[..n]) {
            *row = f.vector_at(p as usize);
        }
        let (rows, mut scores, mut norms) = (&rows[..n], [0.0; EIGHT], [0.0; EIGHT]);
        let (scores, q, kernels) = (&mut scores[..n], self.query.vector, &kernels().rerank);
        match f.metric() {
            Metric::Cosine => {
                (kernels.dot_and_norm)(q, rows, scores, &mut norms[..n]);
                for (score, &norm) in scores.iter_mut().zip(&norms) {
                    *score = exact::cosine_from(*score, self.query.own, norm);
                }
            }
            Metric::L2 => {
                (kernels.squared_l2)(q, rows, scores);
                scores.iter_mut().for_each(|s| *s = s.sqrt());
            }
            _ => {
                (kernels.dot)(q, rows, scores);
                scores.iter_mut().for_each(|s| *s = -*s);
            }
        }
        for (&distance, &p) in scores.iter().zip(&self.queue) {
            let rowid = f.ids()[p as usize];
            self.best.push(Hit { rowid, distance });
        }
    }

    /// Every row by its exact distance: for queries the codes say nothing about.
    fn plain(&mut self) {
        for p in 0..self.forest.len() {
            self.wait(p as u32);
        }
    }
}
