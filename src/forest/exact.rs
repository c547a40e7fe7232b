//! Exact search: every row, from an eighth of its bytes.
//!
//! Three looks at a row, each with a worst-case bound, each for those that the one before could not leave out:
//!
//! 1. its four-bit code ([`crate::kernel::nibble`]): one sequential stream, as fast as memory gives it;
//! 2. its byte code ([`super::score`]), row-major: a few cache lines for each survivor;
//! 3. its vector: [`crate::vector::exact`], bit for bit, ties by rowid.
//!
//! Proof. Let w be a row's true point, v the query's, P the true turn (orthonormal), m the mean, and let a row have the
//! code s c, with E >= |P(w - m) - s c|, the query the code t g with F >= |P(v - m) - t g|. E and F are measured in f64
//! against the turned point that was computed, and cover what computing it in floats can have moved it ([`super::space`]).
//! P keeps distances, so by the triangle inequality
//!
//! ```text
//! |v - w| >= |t g - s c| - E - F,    |t g - s c|^2 = |t g|^2 + |s c|^2 - 2 s t <g, c>
//! ```
//!
//! with <g, c> an exact integer. A row whose exact f64 distance is at most tau has |v - w| <= R = reach(tau), so it may be
//! left out if |t g - s c| > R + E + F. [`super::score`] says how that is compared in f32, and why rounding can't matter;
//! the four-bit code stores, instead of |s c|^2, a number that is not above it, which only lowers the left side (its s is
//! a bf16 exactly, its E is rounded up). No quotient and no root of a difference is taken, so nothing cancels near ties, and
//! a comparison with a NaN or an infinity keeps the row. Nothing is assumed of the data.
//!
//! The same inequality with a leaf's coded centroid for c and its radius for E leaves out whole leaves.
//!
//! Order. The nearest leaves first, about 1 % of the rows: they set the limit for all that follows. Then the plane front to
//! back. Several queries share each piece of the plane while it is near; several threads take pieces in turn and share
//! their limits. A limit is never below the true k-th distance, so neither changes the answer.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rustc_hash::FxHashSet;

use super::directory::nearest;
use super::file::Forest;
use super::filter::{Filter, RowSet};
use super::format::Kind;
use super::originals::{Originals, VectorStore};
use super::score::Scan;
use super::search::Scratch;
use super::topk::{Hit, TopK};
use crate::kernel::dispatch::prefetch;
use crate::kernel::level;
use crate::kernel::nibble::{self, NibbleQuery, ROWS, TOGETHER, block_bytes};

/// Survivors of the first look that are collected before the second.
const COLLECT: usize = 64;
/// Bytes of the plane that are taken at a time: several queries find them in the second cache.
const PIECE: usize = 128 << 10;

/// Queries that share one pass over the plane: each has buffers of its own.
const AT_ONCE: usize = 256;

/// What is asked of an exact search, beside the queries.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// How many rows.
    pub k: usize,
    /// No row beyond this distance; infinite: no limit.
    pub within: f64,
    /// Threads, at least 1. The answer does not depend on it.
    pub threads: usize,
    /// Rowids that must not be among the answer.
    pub hidden: &'a FxHashSet<i64>,
    /// Rowids of which the answer must be, if not all may be.
    pub among: Option<&'a RowSet>,
    /// Whether an approximate search among them scans lists even where it would be cheaper to look at them one by one: to
    /// compare.
    pub scan_lists: bool,
    /// What reads the vectors if the file holds none: without, such a forest finds nothing.
    pub originals: Option<&'a dyn Originals>,
}

impl<'a> Ask<'a> {
    /// The `k` nearest rows, without those `hidden`.
    #[must_use]
    pub fn nearest(k: usize, hidden: &'a FxHashSet<i64>) -> Self {
        Ask {
            k,
            within: f64::INFINITY,
            threads: 1,
            hidden,
            among: None,
            scan_lists: false,
            originals: None,
        }
    }

    /// What a row must be.
    #[must_use]
    pub fn filter(&self) -> Filter<'a> {
        Filter {
            hidden: self.hidden,
            among: self.among,
        }
    }
}

/// What a search has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows of the index, once for each query.
    pub rows: u64,
    /// Rows in leaves that lie too far as a whole.
    pub left_out_by_radius: u64,
    /// Rows that the four-bit bound left out.
    pub left_out_by_nibbles: u64,
    /// Rows that the byte bound left out.
    pub left_out_by_bytes: u64,
    /// Rows of a table that an f32 sum left out.
    pub left_out_by_floats: u64,
    /// Rows that a filter left out: all but those looked at by position, or those that a bound had not left out before.
    pub left_out_by_filter: u64,
    /// Rows of a filter that were looked at by position.
    pub by_position: u64,
    /// Leaves that an approximate search opened.
    pub leaves: u64,
    /// Codes in lists that it scanned.
    pub codes: u64,
    /// Rows whose byte code it looked at.
    pub by_code: u64,
    /// Rows whose distance was computed from their vector.
    pub reranked: u64,
    /// Bytes of centroids, planes and vectors read.
    pub bytes_read: u64,
}

impl Stats {
    /// Adds what another search has done.
    pub fn add(&mut self, other: &Stats) {
        self.rows += other.rows;
        self.left_out_by_radius += other.left_out_by_radius;
        self.left_out_by_nibbles += other.left_out_by_nibbles;
        self.left_out_by_bytes += other.left_out_by_bytes;
        self.left_out_by_floats += other.left_out_by_floats;
        self.left_out_by_filter += other.left_out_by_filter;
        self.by_position += other.by_position;
        self.leaves += other.leaves;
        self.codes += other.codes;
        self.by_code += other.by_code;
        self.reranked += other.reranked;
        self.bytes_read += other.bytes_read;
    }
}

/// A distance that only falls, seen by several threads.
struct Limit(AtomicU64);

impl Limit {
    fn new(limit: f64) -> Self {
        Limit(AtomicU64::new(limit.to_bits()))
    }

    /// Lowers it to `limit` if that is lower; what it is then.
    fn lower(&self, limit: f64) -> f64 {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let now = f64::from_bits(seen);
            if now <= limit {
                return now;
            }
            match self.0.compare_exchange_weak(
                seen,
                limit.to_bits(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return limit,
                Err(other) => seen = other,
            }
        }
    }
}

/// One query on its way through the plane, in one thread.
struct Probe<'a, B: AsRef<[u8]>> {
    scan: Scan<'a, B>,
    s: &'a mut Scratch,
    nibbles: NibbleQuery,
    /// Survivors of the first look.
    kept: Vec<u32>,
    /// Rows looked at by four-bit code, survivors among them, and rows that went to byte codes at once.
    rough: u64,
    survived: u64,
    at_once: u64,
    /// Survivors that the filter left out.
    filtered: u64,
    /// Whether it only collects survivors: the originals are read by one thread.
    collects: bool,
}

/// Blocks of the plane by number, and which of them a query has seen.
type Seen = Vec<bool>;

impl<'a, B: AsRef<[u8]>> Probe<'a, B> {
    /// `None`: the codes say nothing about this query.
    fn new(
        forest: &'a Forest<B>,
        query: &'a [f32],
        best: TopK,
        ask: &Ask<'a>,
        s: &'a mut Scratch,
    ) -> Result<Self, Box<Scan<'a, B>>> {
        let scan = forest.start(query, best, ask, s);
        if !scan.has_code() {
            return Err(Box::new(scan));
        }
        let nibbles = NibbleQuery::new(forest.space.work(), &s.query, scan.bound());
        Ok(Probe {
            scan,
            s,
            nibbles,
            kept: Vec::new(),
            rough: 0,
            survived: 0,
            at_once: 0,
            filtered: 0,
            collects: false,
        })
    }

    /// The nearest leaves: about 1 % of the rows, and enough for `k` of them.
    fn open(&mut self) -> Seen {
        let f = self.scan.forest;
        let n = f.len();
        let mut seen = vec![false; n.div_ceil(ROWS)];
        let leaves = f.tree(0).1;
        self.scan.rank(leaves, self.s);
        let rows: &[[u32; 2]] = f.section(Kind::LeafRows);
        let first = (n / 100)
            .max(self.scan.best.k().min(n).saturating_mul(2))
            .min(n);
        let wanted = 2 * first / f.layout.header.leaf.max(1) + 4;
        let order = nearest(
            &self.s.scores,
            wanted,
            std::mem::take(&mut self.s.order),
            &mut self.s.places,
        );
        let mut looked = 0;
        for key in &order {
            if looked >= first {
                break;
            }
            let blocks = blocks_of(rows[(key & 0xffff_ffff) as usize], n);
            let mut from = blocks.start;
            for b in blocks.clone() {
                looked += ROWS;
                if std::mem::replace(&mut seen[b], true) {
                    self.blocks(from, b);
                    from = b + 1;
                }
            }
            self.blocks(from, blocks.end);
        }
        self.s.order = order;
        self.refine();
        self.scan.flush();
        seen
    }

    /// Looks at blocks `from..to`.
    fn blocks(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let f = self.scan.forest;
        if self.scan.best.limit() == f64::INFINITY {
            let rows = from * ROWS..(to * ROWS).min(f.len());
            self.at_once += rows.len() as u64;
            self.scan.range(rows.start, rows.end, self.s);
            self.scan.flush();
        } else {
            together(&mut [self], from, to, &[]);
        }
    }

    /// Looks twice at those that survived the first look.
    fn refine(&mut self) {
        if self.collects {
            return;
        }
        let n = self.scan.forest.len();
        self.kept.retain(|&p| (p as usize) < n);
        self.survived += self.kept.len() as u64;
        if self.scan.filter.among.is_some() {
            let before = self.kept.len();
            self.kept.retain(|&p| self.scan.admits(p));
            self.filtered += (before - self.kept.len()) as u64;
        }
        self.scan.some(&self.kept, self.s);
        self.kept.clear();
    }

    /// What is left of the leaves once those too far are left out: marks their blocks in `wanted`.
    fn mark(&mut self, seen: &Seen, wanted: &mut Seen) {
        let f = self.scan.forest;
        let leaves = f.tree(0).1;
        let rows: &[[u32; 2]] = f.section(Kind::LeafRows);
        let radii: &[f32] = f.section(Kind::LeafRadius);
        let norms = f.blocks(0, leaves).norm;
        let bound = self.scan.bound();
        // Neighbours in the file together: so many bytes at a time.
        let mut run = 0..0;
        let mut take = |run: &std::ops::Range<usize>| {
            for (wanted, seen) in wanted[run.clone()].iter_mut().zip(&seen[run.clone()]) {
                *wanted |= !seen;
            }
        };
        for leaf in 0..leaves {
            if bound.excess_of(self.s.scores[leaf], norms[leaf], radii[leaf]) > 0.0 {
                continue;
            }
            let blocks = blocks_of(rows[leaf], f.len());
            // Of a damaged file they may lie behind its end.
            if blocks.is_empty() {
                continue;
            }
            if (run.start..=run.end).contains(&blocks.start) {
                run.end = run.end.max(blocks.end);
            } else {
                take(&run);
                run = blocks;
            }
        }
        take(&run);
    }

    fn stats(&self) -> Stats {
        let f = self.scan.forest;
        let rows = f.len() as u64;
        let (work, record) = (f.space.work(), f.space.record() as u64);
        let leaves = f.tree(0).1 as u64;
        let looked = (self.rough + self.at_once).min(rows);
        Stats {
            rows,
            left_out_by_radius: rows - looked,
            left_out_by_nibbles: (looked - self.at_once).saturating_sub(self.survived),
            left_out_by_bytes: self.scan.by_code.saturating_sub(self.scan.scored),
            left_out_by_floats: 0,
            left_out_by_filter: self.filtered,
            reranked: self.scan.scored,
            bytes_read: self.rough / ROWS as u64 * block_bytes(work) as u64
                // A centroid has as many numbers beside it as a row.
                + leaves * record
                + self.scan.by_code * record
                + self.scan.scored * f.vector_bytes(),
            ..Stats::default()
        }
    }
}

/// The blocks that hold the rows of a leaf.
fn blocks_of([first, count]: [u32; 2], n: usize) -> std::ops::Range<usize> {
    let end = (first as usize + count as usize).min(n);
    let from = first as usize / ROWS;
    from..if count == 0 { from } else { end.div_ceil(ROWS) }
}

/// Rows in a block.
fn rows_in(block: usize, n: usize) -> u64 {
    n.saturating_sub(block * ROWS).min(ROWS) as u64
}

/// Blocks `from..to` for up to [`TOGETHER`] queries; `seen[i]` are those that query `i` has seen before.
fn together<B: AsRef<[u8]>>(
    probes: &mut [&mut Probe<'_, B>],
    from: usize,
    to: usize,
    seen: &[Seen],
) {
    let Some(first) = probes.first() else {
        return;
    };
    let f = first.scan.forest;
    let work = f.space.work();
    let size = block_bytes(work);
    let plane: &[u8] = &f.section(Kind::Plane)[from * size..to * size];
    let mut before = [0; TOGETHER];
    let mut queries = Vec::with_capacity(probes.len());
    let mut out = Vec::with_capacity(probes.len());
    for (probe, before) in probes.iter_mut().zip(&mut before) {
        probe.nibbles.bound = probe.scan.bound();
        *before = probe.kept.len();
        queries.push(&probe.nibbles);
        out.push(&mut probe.kept);
    }
    nibble::scan(
        level(),
        work,
        plane,
        (from * ROWS) as u32,
        &queries,
        &mut out,
    );
    let n = f.len();
    let rows = (from..to).map(|b| rows_in(b, n)).sum::<u64>();
    let codes: &[u8] = f.section(Kind::Codes);
    let width = f.space.record();
    for (i, probe) in probes.iter_mut().enumerate() {
        probe.rough += rows;
        if let Some(seen) = seen.get(i) {
            let again = (from..to).filter(|&b| seen[b]);
            probe.rough -= again.map(|b| rows_in(b, n)).sum::<u64>();
            // Rare: a few rows of the nearest leaves, all of which have been looked at.
            let mut at = before[i];
            while at < probe.kept.len() {
                if seen[probe.kept[at] as usize / ROWS] {
                    probe.kept.remove(at);
                } else {
                    at += 1;
                }
            }
        }
        if probe.kept.len() >= COLLECT {
            probe.refine();
        } else {
            for &p in &probe.kept[before[i]..] {
                let at = p as usize * width;
                prefetch(codes.get(at..at + width).unwrap_or(&[]));
            }
        }
    }
}

impl<B: AsRef<[u8]>> Forest<B> {
    /// The `k` nearest of all rows, without those `hidden`: the same rows and distances as a loop over
    /// [`crate::vector::exact::distance`] followed by a sort by (distance, rowid).
    ///
    /// A query of another dimension has no neighbours here.
    #[must_use]
    pub fn exact(
        &self,
        query: &[f32],
        k: usize,
        hidden: &FxHashSet<i64>,
        scratch: &mut Scratch,
    ) -> Vec<Hit>
    where
        B: Sync,
    {
        let ask = Ask::nearest(k, hidden);
        self.exact_with(query, &ask, scratch, &mut Stats::default())
    }

    /// [`Forest::exact`] with all that can be asked, and what it took.
    #[must_use]
    pub fn exact_with(
        &self,
        query: &[f32],
        ask: &Ask<'_>,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Hit>
    where
        B: Sync,
    {
        if let Some(among) = ask.among
            && let Some(found) = self.exact_among(query, ask, among, scratch, stats)
        {
            return found;
        }
        let mut found = self.sweep(&[query], ask, std::slice::from_mut(scratch), stats);
        found.pop().unwrap_or_default()
    }

    /// [`Forest::exact_with`] for many queries, which share what is read.
    #[must_use]
    pub fn exact_many(&self, queries: &[&[f32]], ask: &Ask<'_>, stats: &mut Stats) -> Vec<Vec<Hit>>
    where
        B: Sync,
    {
        let mut scratch = Vec::new();
        scratch.resize_with(queries.len().min(AT_ONCE), Scratch::default);
        queries
            .chunks(AT_ONCE)
            .flat_map(|queries| self.sweep(queries, ask, &mut scratch[..queries.len()], stats))
            .collect()
    }

    fn sweep(
        &self,
        queries: &[&[f32]],
        ask: &Ask<'_>,
        scratch: &mut [Scratch],
        stats: &mut Stats,
    ) -> Vec<Vec<Hit>>
    where
        B: Sync,
    {
        let mut found: Vec<TopK> = queries
            .iter()
            .map(|_| TopK::within(ask.k, ask.within))
            .collect();
        if ask.k > 0 && !self.is_empty() {
            self.sweep_into(queries, ask, scratch, &mut found, stats);
        }
        found.into_iter().map(TopK::into_sorted).collect()
    }

    fn sweep_into(
        &self,
        queries: &[&[f32]],
        ask: &Ask<'_>,
        scratch: &mut [Scratch],
        found: &mut [TopK],
        stats: &mut Stats,
    ) where
        B: Sync,
    {
        // The nearest leaves of each query by itself; what is left of the plane for any of them.
        let mut numbers = Vec::with_capacity(queries.len());
        let mut probes = Vec::with_capacity(queries.len());
        let mut seen = Vec::with_capacity(queries.len());
        let mut wanted = vec![false; self.len().div_ceil(ROWS)];
        for (i, (query, s)) in queries.iter().zip(scratch).enumerate() {
            if query.len() != self.dim() {
                continue;
            }
            match Probe::new(self, query, TopK::within(ask.k, ask.within), ask, s) {
                Ok(mut probe) => {
                    let mine = probe.open();
                    probe.mark(&mine, &mut wanted);
                    seen.push(mine);
                    numbers.push(i);
                    probes.push(probe);
                }
                Err(mut scan) => {
                    scan.plain();
                    scan.flush();
                    stats.add(&Stats {
                        rows: self.len() as u64,
                        reranked: scan.scored,
                        bytes_read: scan.scored * self.vector_bytes(),
                        ..Stats::default()
                    });
                    found[i] = scan.best;
                }
            }
        }
        let pieces = pieces(&wanted, PIECE.div_ceil(block_bytes(self.space.work())));
        let limits: Vec<Limit> = probes
            .iter()
            .map(|p| Limit::new(p.scan.best.limit()))
            .collect();
        let next = AtomicUsize::new(0);
        let shared = Shared {
            pieces: &pieces,
            next: &next,
            limits: &limits,
            seen: &seen,
        };
        let collects = self.store() == VectorStore::None;
        let (k, hidden, among) = (ask.k, ask.hidden, ask.among);
        let others = ask.threads.min(pieces.len()).saturating_sub(1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..others)
                .map(|_| {
                    scope.spawn(|| {
                        let mut scratch = Vec::new();
                        scratch.resize_with(numbers.len(), Scratch::default);
                        // Not `ask` itself: the originals stay with the thread that asks.
                        let ask = Ask {
                            among,
                            ..Ask::nearest(k, hidden)
                        };
                        let mut probes: Vec<_> = numbers
                            .iter()
                            .zip(shared.limits)
                            .zip(&mut scratch)
                            .filter_map(|((&i, limit), s)| {
                                let best = TopK::within(k, limit.lower(f64::INFINITY));
                                let probe = Probe::new(self, queries[i], best, &ask, s).ok()?;
                                Some(Probe { collects, ..probe })
                            })
                            .collect();
                        shared.work(&mut probes);
                        probes
                            .into_iter()
                            .map(|p| (p.counts(), p.kept, p.scan.best.into_sorted()))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            shared.work(&mut probes);
            for thread in threads {
                // A thread that panicked has found a defect of ours: let it be seen.
                let theirs = match thread.join() {
                    Ok(theirs) => theirs,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                for (probe, (counts, kept, hits)) in probes.iter_mut().zip(theirs) {
                    probe.count(counts);
                    probe.kept.extend(kept);
                    hits.into_iter().for_each(|hit| probe.scan.best.push(hit));
                }
            }
        });
        for (i, mut probe) in numbers.into_iter().zip(probes) {
            probe.refine();
            probe.scan.flush();
            stats.add(&probe.stats());
            found[i] = probe.scan.best;
        }
    }

    /// Bytes that an exact search reads front to back.
    #[must_use]
    pub fn plane_bytes(&self) -> usize {
        self.layout.range(Kind::Plane).len()
    }

    /// The parts of the file that exact searches read again and again, here and there.
    #[must_use]
    pub fn exact_parts(&self) -> [std::ops::Range<usize>; 2] {
        [Kind::Plane, Kind::Codes].map(|kind| self.layout.range(kind))
    }

    /// The section that an exact search reads from its beginning to its end.
    #[must_use]
    pub fn streamed_part(&self) -> std::ops::Range<usize> {
        self.layout.range(Kind::Plane)
    }

    /// The bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &B {
        &self.bytes
    }
}

/// Counts of a probe that are added up over threads.
type Counts = [u64; 5];

impl<B: AsRef<[u8]>> Probe<'_, B> {
    fn counts(&self) -> Counts {
        [
            self.rough,
            self.survived,
            self.filtered,
            self.scan.by_code,
            self.scan.scored,
        ]
    }

    fn count(&mut self, [rough, survived, filtered, by_code, scored]: Counts) {
        self.rough += rough;
        self.survived += survived;
        self.filtered += filtered;
        self.scan.by_code += by_code;
        self.scan.scored += scored;
    }
}

/// What the threads of a search share.
struct Shared<'a> {
    pieces: &'a [[usize; 2]],
    next: &'a AtomicUsize,
    limits: &'a [Limit],
    seen: &'a [Seen],
}

impl Shared<'_> {
    /// Takes pieces of the plane until there are none left.
    fn work<B: AsRef<[u8]>>(&self, probes: &mut [Probe<'_, B>]) {
        while let Some(&[from, to]) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            for ((probes, seen), limits) in probes
                .chunks_mut(TOGETHER)
                .zip(self.seen.chunks(TOGETHER))
                .zip(self.limits.chunks(TOGETHER))
            {
                // One query alone wants no block that it has seen.
                let seen = if self.seen.len() == 1 { &[] } else { seen };
                if probes.len() == 1 {
                    together(&mut [&mut probes[0]], from, to, seen);
                } else {
                    together(&mut probes.iter_mut().collect::<Vec<_>>(), from, to, seen);
                }
                for (probe, limit) in probes.iter_mut().zip(limits) {
                    let limit = limit.lower(probe.scan.best.limit());
                    probe.scan.best.tighten(limit);
                }
            }
        }
        for probe in probes {
            probe.refine();
            probe.scan.flush();
        }
    }
}

/// Runs of wanted blocks, cut to at most `most` each.
fn pieces(wanted: &Seen, most: usize) -> Vec<[usize; 2]> {
    let mut pieces: Vec<[usize; 2]> = Vec::with_capacity(wanted.len() / most.max(1) + 8);
    for (b, _) in wanted.iter().enumerate().filter(|&(_, &w)| w) {
        match pieces.last_mut() {
            Some([from, to]) if *to == b && b - *from < most => *to = b + 1,
            _ => pieces.push([b, b + 1]),
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
