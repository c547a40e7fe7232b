//! Scoring rows: byte codes first, a proven bound, exact distances last.
//!
//! Rows come in chunks: integer dot products of byte codes give for each row a distance to the query's own code, the
//! triangle inequality turns it into a lower bound of the true distance, and only rows whose bound lies within the
//! k-th best distance so far are scored by [`crate::vector::exact`]. So among the rows looked at the answer is exact.
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
//! where R is the distance of points that the k-th best distance allows ([`super::space::Space::reach`]). 1e-30 stands for
//! underflow. A comparison with NaN or infinity on the right is false, and keeps the row.

use super::exact::Stats;
use super::file::Forest;
use super::filter::Filter;
use super::format::Kind;
use super::originals::{Originals, VectorStore};
use super::search::Scratch;
use super::space::Factors;
use super::topk::{Hit, TopK};
use crate::kernel::bound::{self, Bound, Chunk, Slack};
use crate::kernel::codes;
use crate::kernel::dispatch::prefetch;
use crate::kernel::{kernels, level};
use crate::vector::{Metric, exact};

/// Rows handled at a time: the buffers stay in the first cache.
const CHUNK: usize = 256;
/// Rows handled at a time while there are fewer than k hits: the nearest of more rows make a better limit. The buffers stay in the
/// second cache.
pub(super) const FIRST_CHUNK: usize = 8192;
/// Rows scored at once.
pub(super) const EIGHT: usize = 8;

/// The query as the scan needs it.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) vector: &'a [f32],
    /// Its own inner product, for cosine.
    pub(super) own: f64,
    pub(super) norm: f64,
    pub(super) scale: f32,
    pub(super) square: f32,
    pub(super) error: f32,
}

pub(super) struct Scan<'a, B: AsRef<[u8]>> {
    pub(super) forest: &'a Forest<B>,
    pub(super) filter: Filter<'a>,
    pub(super) best: TopK,
    /// Positions of rows to be scored, and how many of them.
    pub(super) queue: [u32; EIGHT],
    pub(super) waiting: usize,
    pub(super) query: Query<'a>,
    /// What reads vectors that the file does not hold; eight vectors that it does not hold as they are scored.
    pub(super) originals: Option<&'a dyn Originals>,
    pub(super) copies: Vec<f32>,
    /// Leaves and codes of lists scanned, rows looked at by byte code, and rows scored exactly.
    pub(super) leaves: u64,
    pub(super) codes: u64,
    pub(super) by_code: u64,
    pub(super) scored: u64,
}

impl<'a, B: AsRef<[u8]>> Scan<'a, B> {
    /// Whether the codes say anything about this query.
    pub(super) fn has_code(&self) -> bool {
        self.query.error < f32::INFINITY
    }

    /// Consecutive rows.
    pub(super) fn range(&mut self, from: usize, to: usize, s: &mut Scratch) {
        let (width, records) = self.records();
        let mut at = from;
        while at < to {
            let n = CHUNK.min(to - at);
            let some = &records[at * width..][..n * width];
            s.dots.resize(n, 0);
            codes::row_dots(level(), some, width, &s.query, &mut s.dots);
            let row = |i: usize| &some[i * width..][..width];
            s.gathered.iter_mut().for_each(Vec::clear);
            factors((0..n).map(row), &mut s.gathered);
            self.chunk(|i| (at + i) as u32, s);
            at += n;
        }
    }

    /// Rows anywhere.
    pub(super) fn some(&mut self, mut positions: &[u32], s: &mut Scratch) {
        let (width, records) = self.records();
        let row = |&p: &u32| &records[p as usize * width..][..width];
        while !positions.is_empty() {
            let n = if self.missing() > 0 {
                FIRST_CHUNK
            } else {
                CHUNK
            };
            let (some, rest) = positions.split_at(n.min(positions.len()));
            s.dots.resize(some.len(), 0);
            s.gathered.iter_mut().for_each(Vec::clear);
            // What has been gathered is in the first cache when the factors are read.
            for (some, dots) in some.chunks(CHUNK).zip(s.dots.chunks_mut(CHUNK)) {
                codes::gather_dots(level(), records, width, some, &s.query, dots);
                factors(some.iter().map(row), &mut s.gathered);
            }
            self.chunk(|i| some[i], s);
            positions = rest;
        }
    }

    /// The codes of all rows, and the bytes of each.
    fn records(&self) -> (usize, &'a [u8]) {
        let f = self.forest;
        (f.space.record(), f.section(Kind::Codes))
    }

    /// How many hits are missing before there is a limit.
    fn missing(&self) -> usize {
        if self.best.limit() == f64::INFINITY {
            self.best.k().saturating_sub(self.best.len() + self.waiting)
        } else {
            0
        }
    }

    /// Scores those rows of a chunk, whose dot products and factors have been gathered, that the bound does not leave out.
    fn chunk(&mut self, position: impl Fn(usize) -> u32, s: &mut Scratch) {
        let Scratch {
            dots,
            gathered: [scale, norm, error],
            near,
            kept,
            ..
        } = s;
        let chunk = Chunk {
            dots,
            scale,
            norm,
            error,
        };
        self.by_code += chunk.dots.len() as u64;
        kept.clear();
        near.clear();
        // While there are fewer than k hits, the rows with the nearest codes come first, so that the bound bites as soon as it can.
        let mut first = 0;
        if self.missing() > 0 {
            let twice_scale = 2.0 * self.query.scale;
            near.extend((0..chunk.dots.len()).map(|i| {
                let product = twice_scale * (chunk.scale[i] * chunk.dots[i] as f32);
                (chunk.norm[i] - product, i as u32)
            }));
            // The filter may leave some of them out.
            while self.missing() > 0 && first < near.len() {
                let (rest, missing) = (&mut near[first..], self.missing());
                if missing < rest.len() {
                    rest.select_nth_unstable_by(missing, |a, b| a.0.total_cmp(&b.0));
                }
                for &(_, i) in rest.iter().take(missing) {
                    self.wait(position(i as usize));
                }
                first += missing.min(rest.len());
            }
            if first == near.len() {
                return;
            }
            near.truncate(first);
            near.sort_unstable_by_key(|&(_, i)| i);
        }
        if self.best.len() < self.best.k() {
            self.flush();
        }
        bound::within(level(), &self.bound(), &chunk, kept);
        let mut scored = near.iter().map(|&(_, i)| i).peekable();
        for &i in kept.iter() {
            while scored.next_if(|&before| before < i).is_some() {}
            if scored.peek() != Some(&i) {
                self.wait(position(i as usize));
            }
        }
    }

    pub(super) fn bound(&self) -> Bound {
        let limit = self.best.limit();
        let reach = if limit == f64::INFINITY {
            f32::INFINITY
        } else {
            self.forest.space.reach(limit, self.query.norm) + self.query.error
        };
        Bound {
            slack: Slack::PROVEN,
            square: self.query.square,
            twice_scale: 2.0 * self.query.scale,
            reach,
        }
    }

    /// Whether the row at a position may be among the answer.
    pub(super) fn admits(&self, position: u32) -> bool {
        self.filter.admits_all() || self.filter.admits(self.forest.ids()[position as usize])
    }

    /// Takes a row to be scored; eight are scored at once.
    pub(super) fn wait(&mut self, position: u32) {
        if !self.admits(position) {
            return;
        }
        // The row is read when eight wait: by then it is near. What follows its first lines the processor fetches.
        let row = self.forest.stored(position as usize);
        prefetch(&row[..row.len().min(512)]);
        self.queue[self.waiting] = position;
        self.waiting += 1;
        if self.waiting == self.queue.len() {
            self.flush();
        }
    }

    /// Scores the rows that wait.
    pub(super) fn flush(&mut self) {
        let f = self.forest;
        let mut n = std::mem::take(&mut self.waiting);
        let mut rows = [self.query.vector; EIGHT];
        if f.store() == VectorStore::F32 {
            for (row, &p) in rows.iter_mut().zip(&self.queue[..n]) {
                *row = bytemuck::cast_slice(f.stored(p as usize));
            }
        } else {
            n = self.copy(n);
            let copies = self.copies.chunks_exact(f.dim());
            rows.iter_mut()
                .zip(copies)
                .for_each(|(row, copy)| *row = copy);
        }
        self.scored += n as u64;
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

    /// Copies the vectors of the first `n` rows that wait, leaving out those that the originals don't have; how many
    /// remain.
    fn copy(&mut self, n: usize) -> usize {
        let (f, dim) = (self.forest, self.forest.dim());
        self.copies.resize(EIGHT * dim, 0.0);
        let mut copied = 0;
        for i in 0..n {
            let position = self.queue[i];
            let copy = &mut self.copies[copied * dim..][..dim];
            if f.copy_vector(position as usize, self.originals, copy) {
                self.queue[copied] = position;
                copied += 1;
            }
        }
        copied
    }

    /// The answer; what it took goes to `stats`.
    pub(super) fn finish(mut self, stats: &mut Stats) -> Vec<Hit> {
        self.flush();
        stats.leaves += self.leaves;
        stats.codes += self.codes;
        stats.by_code += self.by_code;
        stats.reranked += self.scored;
        self.best.into_sorted()
    }

    /// Every row by its exact distance: for queries the codes say nothing about.
    pub(super) fn plain(&mut self) {
        for p in 0..self.forest.len() {
            self.wait(p as u32);
        }
    }
}

/// Appends what stands beside the codes of these records: scales, norms, errors.
#[inline]
fn factors<'a>(records: impl Iterator<Item = &'a [u8]>, to: &mut [Vec<f32>; 3]) {
    let [scales, norms, errors] = to;
    for record in records {
        let (_, f) = Factors::split(record);
        scales.push(f.scale);
        norms.push(f.norm);
        errors.push(f.error);
    }
}
