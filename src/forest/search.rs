//! Approximate and exact search: the door.
//!
//! Three ways to look at rows, all of which end in exact distances ([`super::score`]):
//!
//! * `exact` ([`super::exact`]): all rows, by codes and a proven bound. The answer is that of a loop over
//!   [`crate::vector::exact::distance`], bit for bit.
//! * `search` with a number of rows ([`Budget::SearchK`]): the leaves of all trees nearest to the query, whole leaves until
//!   the number is reached; the answer is exact among the rows of these leaves. The trees alone, as in Annoy.
//! * `search` with a promise ([`Budget::Recall`]): the lists of the first tree ([`super::lists`]) nearest to the query, as
//!   many slots as calibration found necessary ([`super::calibrate`]); the best of the estimates by byte code; what the bound
//!   leaves of them exactly. A promise that can't be kept cheaply, or an answer with fewer than k rows, is answered
//!   by exact search.

use rustc_hash::FxHashSet;

use super::directory::Ranking;
use super::exact::{Ask, Stats};
use super::file::Forest;
use super::format::Kind;
use super::hardness::{logarithm, power};
use super::near::FirstLook;
use super::score::{EIGHT, Query, Scan};
use super::space::{Role, Space};
use super::topk::{Hit, TopK};
use crate::vector::{Metric, exact};

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

/// What a search promises that was told nothing.
pub const DEFAULT_RECALL: f32 = 0.95;

/// How much of the lists to scan, and how many estimates to look at twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) slots: usize,
    pub(super) kept: usize,
}

/// Buffers of a search, to be kept from one query to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) point: Vec<f32>,
    pub(super) code: Vec<u8>,
    pub(super) query: Vec<i8>,
    pub(super) scores: Vec<f32>,
    pub(super) order: Vec<u64>,
    pub(super) seen: Vec<u32>,
    pub(super) epoch: u32,
    pub(super) list: Vec<u32>,
    pub(super) dots: Vec<i32>,
    pub(super) gathered: [Vec<f32>; 3],
    pub(super) kept: Vec<u32>,
    pub(super) near: Vec<(f32, u32)>,
    pub(super) first_look: FirstLook,
    pub(super) ranking: Ranking,
    pub(super) leaves: Vec<u32>,
    pub(super) places: Vec<u32>,
    pub(super) table: Vec<u32>,
    /// Of the last scan of lists: rows offered to the second look, and those of them that the filter let pass.
    pub(super) offered: usize,
    pub(super) passed: usize,
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
    ) -> Vec<Hit>
    where
        B: Sync,
    {
        let ask = Ask::nearest(k, hidden);
        self.search_with(query, budget, &ask, scratch, &mut Stats::default())
    }

    /// [`Forest::search`] with all that can be asked, and what it took. Whatever the budget, fewer than `k` rows of a set
    /// ([`Ask::among`]) only if it has fewer.
    #[must_use]
    pub fn search_with(
        &self,
        query: &[f32],
        budget: Budget,
        ask: &Ask<'_>,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Hit>
    where
        B: Sync,
    {
        let k = ask.k;
        let recall = match budget {
            Budget::SearchK(search_k) if search_k < self.len() => {
                let hits = self.scan(query, ask, scratch, stats, |scan, s| {
                    scan.leaves(search_k, s);
                });
                if ask.among.is_none() || hits.len() == k {
                    return hits;
                }
                1.0
            }
            Budget::SearchK(_) => 1.0,
            Budget::Recall(recall) => recall,
            Budget::Default => DEFAULT_RECALL,
        };
        if let Some(among) = ask.among {
            return self.search_among(query, recall, ask, among, scratch, stats);
        }
        if let (Some(effort), Some(lists)) = (self.effort(recall, k), self.lists()) {
            let hits = self.scan(query, ask, scratch, stats, |scan, s| {
                scan.lists(&lists, effort, s);
            });
            if hits.len() == k {
                return hits;
            }
        }
        self.exact_with(query, ask, scratch, stats)
    }

    /// What it takes to find this part of `k` neighbours; `None`: all rows.
    pub(super) fn effort(&self, recall: f32, k: usize) -> Option<Effort> {
        let points: &[[f32; 4]] = self.section(Kind::Curve);
        let k = k as f32;
        let point = |class: f32| {
            let point = points.iter().find(|p| p[0] == class && p[1] >= recall)?;
            Some((point[2], point[3]))
        };
        let above = points.iter().map(|p| p[0]).find(|&class| k <= class);
        let below = points.iter().map(|p| p[0]).rfind(|&class| class < k);
        let (slots, kept) = match (below, above) {
            (Some(below), Some(above)) => {
                let ((low, few), (high, many)) = (point(below)?, point(above)?);
                // Between two numbers that were calibrated work grows evenly, by logarithms (their own, as they are the same
                // on every machine). Where it grows faster than neighbours do, it leaps somewhere between the two.
                let (from, to) = (logarithm(below), logarithm(above));
                let at = (logarithm(k) - from) / (to - from);
                let at = if high * below > low * above { 1.0 } else { at };
                let between = |low: f32, high: f32| {
                    let (from, to) = (logarithm(low), logarithm(high));
                    power(from + at * (to - from)).ceil()
                };
                (between(low, high), between(few, many))
            }
            (None, Some(above)) => point(above)?,
            // More neighbours than were calibrated for: as much more work.
            (Some(below), None) => {
                let (slots, kept) = point(below)?;
                (slots * (k / below), kept * (k / below))
            }
            (None, None) => return None,
        };
        let effort = Effort {
            slots: slots as usize,
            kept: kept as usize,
        };
        (effort.slots < self.len()).then_some(effort)
    }

    pub(super) fn scan(
        &self,
        query: &[f32],
        ask: &Ask<'_>,
        s: &mut Scratch,
        stats: &mut Stats,
        run: impl FnOnce(&mut Scan<'_, B>, &mut Scratch),
    ) -> Vec<Hit> {
        if ask.k == 0 || self.is_empty() || query.len() != self.dim() {
            return Vec::new();
        }
        let mut scan = self.start(query, TopK::new(ask.k), ask, s);
        if scan.has_code() {
            run(&mut scan, s);
        } else {
            scan.plain();
        }
        scan.finish(stats)
    }

    /// A search with nothing looked at; the codes of the query are left in `s`.
    pub(super) fn start<'a>(
        &'a self,
        query: &'a [f32],
        best: TopK,
        ask: &Ask<'a>,
        s: &mut Scratch,
    ) -> Scan<'a, B> {
        self.begin(self.prepare(query, s), best, ask)
    }

    /// The query as a scan needs it; its codes are left in `s`.
    pub(super) fn prepare<'a>(&self, query: &'a [f32], s: &mut Scratch) -> Query<'a> {
        s.code.resize(self.space.stride(), 128);
        let factors = self
            .space
            .encode(query, Role::Query, &mut s.point, &mut s.code);
        let norm = Space::query_norm(query);
        let mut prepared = Query {
            vector: query,
            own: exact::dot(query, query),
            norm,
            scale: 0.0,
            square: 0.0,
            error: f32::INFINITY,
        };
        // A query without a direction is equally far from everything.
        if let Some(f) = factors
            && (self.metric() == Metric::L2 || norm > 0.0)
        {
            s.query.clear();
            s.query
                .extend(s.code.iter().map(|&c| (i32::from(c) - 128) as i8));
            (prepared.scale, prepared.square, prepared.error) = (f.scale, f.norm, f.error);
        }
        prepared
    }

    /// A search with nothing looked at, for the query whose codes are in the scratch.
    pub(super) fn begin<'a>(&'a self, query: Query<'a>, best: TopK, ask: &Ask<'a>) -> Scan<'a, B> {
        Scan {
            forest: self,
            filter: ask.filter(),
            best,
            queue: [0; EIGHT],
            waiting: 0,
            query,
            originals: ask.originals,
            copies: Vec::new(),
            leaves: 0,
            codes: 0,
            by_code: 0,
            scored: 0,
        }
    }
}
