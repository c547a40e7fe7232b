//! Which rows an approximate search looks at: leaves near the query, or lists near the query.

use super::directory::{Ranking, nearest};
use super::format::Kind;
use super::hardness::{self, LEAVES};
use super::lists::View;
use super::score::Scan;
use super::search::{Effort, Scratch};
use crate::kernel::codes::{self, LANES};
use crate::kernel::dispatch::prefetch;
use crate::kernel::scan::{ScanQuery, survivors};
use crate::kernel::{level, select};

/// Lists that set the limit, nearest first; the others follow in the order of the file.
const NEAREST_FIRST: usize = 8;
/// Lists of a block of which some rows are looked up to tell what part of them a filter admits, and how many rows of each.
const SAMPLED_LISTS: usize = 4;
const SAMPLED: usize = 24;
/// Rows that are spread evenly seem to be by so much less, as chance has it.
const CHANCE: f64 = 0.15;
/// Up to this many trees, all are searched whatever the budget.
const FEW_TREES: usize = 16;

impl<B: AsRef<[u8]>> Scan<'_, B> {
    /// Whole leaves, nearest first, until `search_k` rows have been looked at; rows that several trees offer count
    /// once, but no more than twice as many are offered. Of several trees at least two leaves: a leaf may have more rows than
    /// the budget, and alone it is all that one tree knows.
    pub(super) fn leaves(&mut self, search_k: usize, s: &mut Scratch) {
        let f = self.forest;
        // All trees while they are few. Of many, as many as half the leaves wanted: each further one hardly adds a
        // better leaf than those found, but has its own leaves to be ranked.
        let wanted = search_k.div_ceil(f.layout.header.leaf.max(1)).max(4);
        let trees = f.trees().min((wanted / 2).max(FEW_TREES));
        let leaves = f.tree(trees - 1).1;
        // Rows that the filter leaves out do not count.
        let several = trees > 1 || self.filter.among.is_some();
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
        let at_least = f.trees().min(2);
        let enough = |leaves: usize, looked: usize, offered: usize| {
            leaves >= at_least && (looked >= search_k || offered >= search_k.saturating_mul(2))
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
            for (key, leaves) in order[done.min(order.len())..].iter().zip(done + 1..) {
                let (new, all) = self.leaf((key & 0xffff_ffff) as usize, several, s);
                looked += new;
                offered += all;
                if enough(leaves, looked, offered) {
                    break;
                }
            }
            let all = order.len() >= leaves || order.len() == done;
            done = order.len();
            s.order = order;
            if all || enough(done, looked, offered) {
                return;
            }
            least = done * 4;
        }
    }

    /// The lists nearest to the query, by estimate; the best of those by byte code; the best of these exactly.
    pub(super) fn lists(&mut self, lists: &View, effort: Effort, s: &mut Scratch) {
        self.rank_lists(s);
        self.ranked_lists(lists, effort, s);
    }

    /// Ranks all lists.
    pub(super) fn rank_lists(&self, s: &mut Scratch) {
        let directory = self.forest.directory();
        directory.rank(&s.code, 2.0 * self.query.scale, &mut s.ranking);
    }

    /// A few rows of the nearest of those lists whose mean is the nearest: how many, and how many of them the filter admits. A
    /// small part of what it takes to rank all lists.
    pub(super) fn sample(&self, lists: &View, s: &mut Scratch) -> (usize, usize) {
        let directory = self.forest.directory();
        let blocks = directory.leaves.leaves() / LANES;
        let factor = 2.0 * self.query.scale;
        s.scores.resize(directory.groups.leaves(), 0.0);
        codes::leaf_scores(level(), &directory.groups, &s.code, factor, &mut s.scores);
        let nearest = (0..blocks).min_by(|&a, &b| s.scores[a].total_cmp(&s.scores[b]));
        let Some(first) = nearest.map(|block| block * LANES) else {
            return (0, 0);
        };
        let mut scores = [0.0; LANES];
        let block = self.forest.blocks(first, first + LANES);
        codes::leaf_scores(level(), &block, &s.code, factor, &mut scores);
        let mut leaves: [usize; LANES] = std::array::from_fn(|i| i);
        leaves.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        // The rowids are all over the file: they are sent for before the first is wanted.
        let ids = self.forest.ids();
        s.list.clear();
        for leaf in &leaves[..SAMPLED_LISTS] {
            let rows = &lists.rows[lists.slots(first + leaf)];
            for &row in rows.iter().step_by((rows.len() / SAMPLED).max(1)) {
                if let Some(id) = ids.get(row as usize..=row as usize) {
                    prefetch(bytemuck::cast_slice(id));
                    s.list.push(row);
                }
            }
        }
        let admitted = s
            .list
            .iter()
            .filter(|&&row| self.filter.admits(ids[row as usize]));
        (s.list.len(), admitted.count())
    }

    /// Among how many of the nearest rows there are `k` that the filter admits, and what part of these they are spread over:
    /// looks up those in the nearest of the ranked lists until `enough` are admitted, or `k`. `None`: among more than
    /// `farthest`, as far as chance allows to tell.
    pub(super) fn reach(
        &self,
        lists: &View,
        (k, enough): (usize, usize),
        farthest: f64,
        s: &mut Scratch,
    ) -> Option<Reach> {
        let ids = self.forest.ids();
        let (mut seen, mut admitted, mut walked) = (0usize, 0usize, 0);
        // Where the last of k was, and the sum of all places. Those admitted may be the farthest of the rows near the query:
        // then k of them reach farther than their part says.
        let (mut last, mut places) = (0, 0usize);
        let mut leaves = LEAVES;
        let reach = |seen: usize, admitted: usize, last: usize, places: usize| {
            let even = k as f64 * seen as f64 / (admitted as f64).max(0.5);
            let mean = places as f64 / ((seen * admitted) as f64).max(1.0);
            Reach {
                rows: even.max(last as f64).ceil(),
                spread: (2.0 * (1.0 - mean) + CHANCE).min(1.0),
            }
        };
        loop {
            s.ranking.nearest(leaves, &mut s.leaves);
            for &leaf in s.leaves.get(walked..).unwrap_or(&[]) {
                for &row in &lists.rows[lists.slots(s.ranking.leaf(leaf))] {
                    // The last slots of a list may be empty.
                    if let Some(&id) = ids.get(row as usize) {
                        seen += 1;
                        if self.filter.admits(id) {
                            admitted += 1;
                            places += seen;
                            if admitted == k {
                                last = seen;
                            }
                        }
                    }
                }
                if at_most(admitted) * farthest < k as f64 * seen as f64 {
                    return None;
                }
                if admitted >= enough.max(k) {
                    return Some(reach(seen, admitted, last, places));
                }
            }
            walked = s.leaves.len();
            if walked >= s.ranking.len() || leaves > s.ranking.len() {
                return Some(reach(seen, admitted, last, places));
            }
            leaves = leaves.saturating_mul(4);
        }
    }

    /// What share of the mean work the query deserves, its lists ranked.
    pub(super) fn share(&self, s: &mut Scratch) -> f64 {
        const MEAN: usize = 1 << 16;
        s.ranking.nearest(LEAVES, &mut s.leaves);
        self.deserved(MEAN, &s.ranking, &s.leaves) as f64 / MEAN as f64
    }

    /// How many slots the query deserves when others get `mean`; the nearest of the ranked lists are in order ([`hardness`]).
    fn deserved(&self, mean: usize, ranking: &Ranking, leaves: &[u32]) -> usize {
        let squared = |i: usize| self.query.square + ranking.score(leaves[i]);
        let at = hardness::at(leaves.len(), squared);
        self.forest.layout.header.hardness.share(mean, &at)
    }

    /// [`Scan::lists`], ranked.
    pub(super) fn ranked_lists(&mut self, lists: &View, effort: Effort, s: &mut Scratch) {
        self.choose_lists(lists, effort, s);
        while s.first_look.list(lists, s.first_look.ahead(lists)) {}
        self.second_look(lists, s);
    }

    /// Prepares the first look: which of the ranked lists, and what they are compared with.
    ///
    /// The nearest, until they have as many slots as this query deserves ([`hardness`]) when others get `effort.slots`.
    /// The nearest of all ([`NEAREST_FIRST`]) set the limit; the rest come in the order of the file, for the prefetcher's
    /// sake.
    fn choose_lists(&mut self, lists: &View, effort: Effort, s: &mut Scratch) {
        let f = self.forest;
        let work = f.space.work();
        let Scratch {
            query,
            ranking,
            leaves,
            first_look,
            ..
        } = s;
        let each = (lists.rows.len() / f.tree(0).1.max(1)).max(1);
        let enough = |slots: usize| LEAVES.max(slots / each * 9 / 8 + 8);
        let mut least = enough(effort.slots);
        ranking.nearest(least, leaves);
        let slots = self.deserved(effort.slots, ranking, leaves);
        let taken = loop {
            let (mut sum, mut taken) = (0, 0);
            while sum < slots && taken < leaves.len() {
                sum += lists.slots(ranking.leaf(leaves[taken])).len();
                taken += 1;
            }
            if sum >= slots || least > ranking.len() {
                break taken;
            }
            least = (least * 2).max(enough(slots));
            ranking.nearest(least, leaves);
        };
        leaves.truncate(taken);
        if let Some(rest) = leaves.get_mut(NEAREST_FIRST..) {
            rest.sort_unstable();
        }
        first_look
            .query
            .prepare(level(), lists.bits, &query[..work], self.query.scale);
        first_look.begin(effort.kept);
        first_look.lists.extend(leaves.iter().map(|&c| {
            let slots = lists.slots(ranking.leaf(c));
            Chosen {
                slots: [slots.start as u32, slots.end as u32],
                score: ranking.score(c),
            }
        }));
    }

    /// The rows of the slots that the first look has left, each once: by byte code, and the best of them exactly.
    fn second_look(&mut self, lists: &View, s: &mut Scratch) {
        let list = &mut s.list;
        list.clear();
        let rows = s.first_look.slots.iter();
        list.extend(rows.map(|&slot| lists.rows[slot as usize]));
        once(list, self.forest.len(), &mut s.table);
        s.offered = list.len();
        if self.filter.among.is_some() {
            list.retain(|&p| self.admits(p));
        }
        s.passed = list.len();
        self.leaves += s.first_look.lists.len() as u64;
        self.codes += s.first_look.scanned;
        let list = std::mem::take(&mut s.list);
        self.some(&list, s);
        s.list = list;
    }

    /// Scores of leaves `0..leaves`.
    pub(super) fn rank(&self, leaves: usize, s: &mut Scratch) {
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
        self.leaves += 1;
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
        let (seen, epoch, filter, ids) = (&mut s.seen, s.epoch, self.filter, f.ids());
        let mut take = |p: u32| {
            if let Some(mark) = seen.get_mut(p as usize)
                && *mark != epoch
            {
                *mark = epoch;
                if filter
                    .among
                    .is_none_or(|among| among.contains(ids[p as usize]))
                {
                    list.push(p);
                }
            }
        };
        if tree == 0 {
            (first as u32..end as u32).for_each(&mut take);
        } else {
            let lists: &[u32] = f.section(Kind::Lists);
            let list = &lists[(tree - 1) * n..][..n];
            list[first..end].iter().copied().for_each(&mut take);
        }
        self.some(&list, s);
        let looked = list.len();
        s.list = list;
        (looked, end - first)
    }
}

/// How far a search must look for the rows of a set.
pub(super) struct Reach {
    /// As far as this many rows of all.
    pub(super) rows: f64,
    /// The rows of the set are in this part of them, the farthest.
    pub(super) spread: f64,
}

/// A list to be scanned.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    /// From, to.
    slots: [u32; 2],
    /// Of the leaf.
    score: f32,
}

impl Chosen {
    fn codes<'a>(&self, lists: &View<'a>) -> &'a [u8] {
        let [from, to] = self.slots.map(|s| s as usize);
        lists.codes_of(&(from..to))
    }
}

/// The scan of lists for one query.
#[derive(Debug, Default)]
pub(super) struct FirstLook {
    query: ScanQuery,
    /// What is to be scanned, in that order.
    lists: Vec<Chosen>,
    /// How many of them have been.
    at: usize,
    /// Slots with an estimate that may be among the best, and their estimates.
    slots: Vec<u32>,
    estimates: Vec<f32>,
    /// No estimate beyond this is wanted any more; how many are, at least and at most.
    limit: f32,
    least: usize,
    most: usize,
    /// Slots scanned.
    scanned: u64,
}

impl FirstLook {
    /// A new scan, of which the `kept` best estimates are wanted, or about that many.
    fn begin(&mut self, kept: usize) {
        self.lists.clear();
        self.slots.clear();
        self.estimates.clear();
        (self.at, self.scanned, self.limit) = (0, 0, f32::INFINITY);
        (self.least, self.most) = (kept - kept / 16, kept + kept / 16 + 2);
    }

    /// The codes of the list after the next one.
    fn ahead<'a>(&self, lists: &View<'a>) -> &'a [u8] {
        let after = self.lists.get(self.at + 1);
        after.map_or(&[], |list| list.codes(lists))
    }

    /// Scans the next list, while `ahead` is brought near; `false`: there is none.
    fn list(&mut self, lists: &View, ahead: &[u8]) -> bool {
        let Some(list) = self.lists.get(self.at) else {
            return false;
        };
        survivors(
            level(),
            &self.query,
            list.codes(lists),
            ahead,
            (list.score, self.limit),
            list.slots[0],
            &mut self.slots,
            &mut self.estimates,
        );
        self.scanned += u64::from(list.slots[1] - list.slots[0]);
        self.at += 1;
        if self.slots.len() > 3 * self.most || self.at == self.lists.len() {
            let limit = select::limit_for(level(), &self.estimates, self.least, self.most);
            self.limit = limit.min(self.limit);
            keep(self.limit, &mut self.slots, &mut self.estimates);
        }
        true
    }
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

/// What a count of a sample may stand for: twice its deviation more, and two.
fn at_most(count: usize) -> f64 {
    count as f64 + 2.0 * (count as f64).sqrt() + 2.0
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
