//! Search among some of the rows.
//!
//! Three ways, whichever promises to be the cheapest for a set that holds a part s of the rows:
//!
//! * the rows of the set by their positions, each by its byte code: exact, for small sets;
//! * the lists, as far as a search for k / s neighbours looks, where rows outside of the set are dropped before the second
//!   look. Here s is the part of the rows near the query, which are looked up first: a filter may have more of them than
//!   of all rows (correlated with the query), fewer, or none. Where those few are the farthest of the rows near the query,
//!   which are the ones a search misses, it promises more of all, and so what was asked of them;
//! * the four-bit plane of all rows, exact, for large sets that the lists do not help with.
//!
//! Constants: what one of each costs, measured on four sets of 50 to 784 dimensions with what they touch in the second
//! cache (CONTRIBUTING.md).

use super::exact::{Ask, Stats};
use super::file::Forest;
use super::filter::RowSet;
use super::format::Kind;
use super::lists::View;
use super::near::Reach;
use super::score::{FIRST_CHUNK, Query};
use super::search::{Effort, Scratch};
use super::topk::{Hit, TopK};
use crate::kernel::scan::BLOCK;

/// A search with a filter may miss this part of what one without may: how far it must look is an estimate, too.
const MISSES: f32 = 0.75;
/// So many rows of the set are looked for around the query, or `k`: then what part they are there is known to a quarter.
const ENOUGH: usize = 16;
/// A set may be so many times as dense at the query as a sample of the rows around it says.
const DENSER: f64 = 1.2;
/// The sample counts with the part of all rows, as if that were so many rows more.
const BEFORE: f64 = 64.0;
/// To take the sample may cost this part of an exact search.
const LOOK: f64 = 0.15;
/// All that lists cost may be this part of it, by a guess that may be wrong.
const FIRST: f64 = 0.75;
/// All scans together, when one has found too few rows.
const AGAIN: f64 = 1.0;
/// Bytes of the second cache.
const CACHE: f64 = 1e6;
/// Nanoseconds to take the sample, and to look a row up.
const SAMPLE: f64 = 3000.0;
const LOOKUP: f64 = 3.0;

impl<B: AsRef<[u8]> + Sync> Forest<B> {
    /// Nanoseconds to look at the rows of a set by position: more for those that the second cache does not hold.
    fn by_position(&self, among: &RowSet) -> f64 {
        let (rows, work) = (among.len() as f64, self.space.work() as f64);
        let held = CACHE / self.space.record() as f64;
        rows * (18.0 + work / 28.0) + (rows - held).max(0.0) * (20.0 + work / 8.0)
    }

    /// Nanoseconds to read the plane.
    fn by_plane(&self) -> f64 {
        self.len() as f64 * (0.7 + self.space.work() as f64 / 45.0)
    }

    /// Nanoseconds to rank the lists.
    fn to_rank(&self) -> f64 {
        self.tree(0).1 as f64 * (2.0 + self.space.work() as f64 / 100.0)
    }

    /// Nanoseconds to scan lists that are ranked, for a set that holds a part of the rows.
    fn by_lists(&self, lists: &View<'_>, effort: Effort, part: f64) -> f64 {
        let bytes = lists.block_bytes as f64 / BLOCK as f64;
        effort.slots as f64 * (0.65 + bytes / 48.0)
            + effort.kept as f64 * (6.0 + part * (20.0 + self.space.work() as f64 / 28.0))
    }

    /// The nearest of those rows of a set that a search with a promise finds; see the module page.
    pub(super) fn search_among(
        &self,
        query: &[f32],
        recall: f32,
        ask: &Ask<'_>,
        among: &RowSet,
        s: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Hit> {
        if query.len() == self.dim() {
            let query = self.prepare(query, s);
            if let Some(hits) = self.lists_among(query, recall, ask, among, s, stats) {
                return hits;
            }
            if self.few(among) {
                return self.positions_among(query, ask, among, s, stats);
            }
        }
        self.exact_with(query, ask, s, stats)
    }

    /// Exact search among the rows of a set by their positions; `None`: the plane is cheaper.
    pub(super) fn exact_among(
        &self,
        query: &[f32],
        ask: &Ask<'_>,
        among: &RowSet,
        s: &mut Scratch,
        stats: &mut Stats,
    ) -> Option<Vec<Hit>> {
        (query.len() == self.dim() && self.few(among)).then(|| {
            let query = self.prepare(query, s);
            self.positions_among(query, ask, among, s, stats)
        })
    }

    /// Whether the rows of a set are better looked at by their positions than with all others.
    fn few(&self, among: &RowSet) -> bool {
        // The plane must be better by some: a set has fewer rows in the leaves that set its first limit.
        self.by_position(among) <= 1.5 * self.by_plane()
    }

    /// [`Forest::exact_among`], the query's codes in the scratch.
    fn positions_among(
        &self,
        query: Query<'_>,
        ask: &Ask<'_>,
        among: &RowSet,
        s: &mut Scratch,
        stats: &mut Stats,
    ) -> Vec<Hit> {
        if ask.k == 0 || self.is_empty() {
            return Vec::new();
        }
        let positions = self.positions(among);
        let best = TopK::within(ask.k, ask.within);
        let mut scan = self.begin(query, best, ask);
        if scan.has_code() {
            // Some from everywhere, for the limit; then the others.
            let step = positions.len().div_ceil(FIRST_CHUNK);
            if step > 1 {
                let (mut first, mut others) = (Vec::new(), Vec::new());
                for (i, &p) in positions.iter().enumerate() {
                    let part = if i.is_multiple_of(step) {
                        &mut first
                    } else {
                        &mut others
                    };
                    part.push(p);
                }
                scan.some(&first, s);
                scan.some(&others, s);
            } else {
                scan.some(&positions, s);
            }
        } else {
            positions.iter().for_each(|&p| scan.wait(p));
        }
        scan.flush();
        stats.rows += self.len() as u64;
        stats.left_out_by_filter += (self.len() - positions.len()) as u64;
        stats.by_position += positions.len() as u64;
        stats.left_out_by_bytes += scan.by_code.saturating_sub(scan.scored);
        stats.reranked += scan.scored;
        stats.bytes_read +=
            scan.by_code * (self.space.stride() as u64 + 12) + scan.scored * self.vector_bytes();
        scan.best.into_sorted()
    }

    /// Approximate search among the rows of a set; `None`: an exact one is as cheap.
    fn lists_among(
        &self,
        query: Query<'_>,
        recall: f32,
        ask: &Ask<'_>,
        among: &RowSet,
        s: &mut Scratch,
        stats: &mut Stats,
    ) -> Option<Vec<Hit>> {
        if ask.k == 0 || self.is_empty() {
            return None;
        }
        let lists = self.lists()?;
        let more = 1.0 - MISSES * (1.0 - recall);
        let recall = if self.effort(more, ask.k).is_some() {
            more
        } else {
            recall
        };
        let (all, k) = (self.len() as f64, ask.k as f64);
        let exact = if ask.scan_lists {
            f64::INFINITY
        } else {
            self.by_position(among).min(self.by_plane())
        };
        // What it takes to look as far as the `reach` nearest rows, if that costs no more than `most`; `share`: how hard the
        // query is ([`super::hardness`]).
        let affordable = |recall: f32, reach: f64, share: f64, most: f64| {
            let effort = self.effort(recall, reach.min(all) as usize)?;
            let slots = (effort.slots as f64 * share) as usize;
            let cost = self.by_lists(&lists, Effort { slots, ..effort }, k / reach);
            (cost <= most).then_some((effort, cost))
        };
        // The rows looked up on the way.
        let looked = |reach: f64| LOOKUP * reach * (ask.k.max(ENOUGH) as f64 / k);
        // To take a sample, to rank the lists and to look around costs something, too: only if that is not much, and if it
        // would pay were every row near the query in the set, and if some of those around there are.
        if SAMPLE > LOOK * exact {
            return None;
        }
        let ranked = self.to_rank();
        let first = FIRST * exact - ranked;
        let near_enough =
            |reach: f64| affordable(recall, reach, 1.0, first - looked(reach)).is_some();
        if !near_enough(k) {
            return None;
        }
        let mut scan = self.begin(query, TopK::new(ask.k), ask);
        if !scan.has_code() {
            return None;
        }
        if !ask.scan_lists {
            let (seen, admitted) = scan.sample(&lists, s);
            let before = BEFORE * (among.len() as f64 / all).min(1.0);
            let part = (admitted as f64 + before) / (seen as f64 + BEFORE);
            if !near_enough((k / part / DENSER).clamp(k, all)) {
                return None;
            }
        }
        let mut farthest = k;
        while farthest < all && near_enough(1.2 * farthest) {
            farthest *= 1.2;
        }
        scan.rank_lists(s);
        let Reach {
            rows: mut reach,
            spread,
        } = scan.reach(&lists, (ask.k, ENOUGH), farthest, s)?;
        // What is missed is the farthest. Where those that pass are the farthest, too, less may be missed of all.
        let recall = if spread < 1.0 {
            1.0 - (1.0 - recall) * spread as f32
        } else {
            recall
        };
        let share = scan.share(s);
        let (effort, mut spent) = affordable(recall, reach, share, first - looked(reach))?;
        spent += looked(reach);
        scan.ranked_lists(&lists, effort, s);
        let mut hits = scan.finish(stats);
        loop {
            // Of the rows offered, this part passes; so among the nearest `reach` there are about that many.
            let passes = s.passed as f64 / s.offered.max(1) as f64;
            if hits.len() == ask.k && passes * reach >= 0.8 * k {
                return Some(hits);
            }
            // What was spent is lost: little more may be.
            reach = (k / passes).max(2.0 * reach).ceil();
            let (effort, cost) = affordable(recall, reach, share, AGAIN * exact - ranked - spent)?;
            spent += cost;
            let mut scan = self.begin(query, TopK::new(ask.k), ask);
            scan.ranked_lists(&lists, effort, s);
            hits = scan.finish(stats);
        }
    }

    /// The positions of those rows of a set that are in the file, ascending.
    fn positions(&self, among: &RowSet) -> Vec<u32> {
        let (ids, by_id) = (self.ids(), self.section::<u32>(Kind::ById));
        let id = |at: usize| ids.get(by_id[at] as usize).copied().unwrap_or(i64::MAX);
        let mut positions = Vec::with_capacity(among.len().min(by_id.len()));
        if let Some(last) = by_id.len().checked_sub(1)
            && id(last).wrapping_sub(id(0)) == last as i64
        {
            // No rowid is missing between the first and the last, so none need be read.
            let (first, n) = (id(0), by_id.len() as u64);
            let at = among.ids().iter().map(|&id| id.wrapping_sub(first) as u64);
            positions.extend(at.filter(|&at| at < n).map(|at| by_id[at as usize]));
            positions.retain(|&p| (p as usize) < ids.len());
            in_order(&mut positions, ids.len());
            return positions;
        }
        let (mut from, mut before) = (0, None);
        for &wanted in among.ids() {
            if from >= by_id.len() {
                break;
            }
            // Rowids are all different, so it can't be farther on than the rowids lie apart; often it is just there.
            let step = match before {
                Some(before) => wanted.wrapping_sub(before) as u64,
                None => u64::MAX,
            };
            let last = usize::try_from(step)
                .ok()
                .and_then(|step| from.checked_add(step))
                .map_or(by_id.len() - 1, |at| (at - 1).min(by_id.len() - 1));
            let at = if id(last) == wanted {
                last
            } else {
                from + by_id[from..=last]
                    .partition_point(|&p| ids.get(p as usize).is_some_and(|&known| known < wanted))
            };
            if at < by_id.len() && id(at) == wanted {
                positions.push(by_id[at]);
                (from, before) = (at + 1, Some(wanted));
            } else {
                // The next one lies behind this place, but nothing is known of how far.
                (from, before) = (at, None);
            }
        }
        positions.retain(|&p| (p as usize) < ids.len());
        in_order(&mut positions, ids.len());
        positions
    }
}

/// Sorts positions below `n`, all different.
fn in_order(positions: &mut Vec<u32>, n: usize) {
    // Bits are faster unless there are too many of them.
    if n / 1024 > positions.len() {
        positions.sort_unstable();
        return;
    }
    let mut bits = vec![0u64; n.div_ceil(64)];
    for &p in positions.iter() {
        bits[p as usize / 64] |= 1 << (p % 64);
    }
    positions.clear();
    for (at, mut word) in (0u32..).step_by(64).zip(bits) {
        while word != 0 {
            positions.push(at + word.trailing_zeros());
            word &= word - 1;
        }
    }
}
