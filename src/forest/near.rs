//! Which rows an approximate search looks at: leaves near the query, or lists near the query.

use super::directory::{Ranking, nearest};
use super::format::Kind;
use super::hardness::{self, LEAVES};
use super::lists::View;
use super::score::{CHUNK, Scan};
use super::search::{Effort, Scratch};
use crate::kernel::codes::{self, LANES};
use crate::kernel::scan::survivors;
use crate::kernel::{level, select};

/// Up to this many trees, all are searched whatever the budget.
const FEW_TREES: usize = 16;

impl<B: AsRef<[u8]>> Scan<'_, B> {
    /// Whole leaves, nearest first, until `search_k` rows have been looked at; rows that several trees offer count
    /// once, but no more than twice as many are offered.
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
    pub(super) fn lists(&mut self, lists: &View, effort: Effort, s: &mut Scratch) {
        let f = self.forest;
        let work = f.space.work();
        f.directory()
            .rank(&s.code, 2.0 * self.query.scale, &mut s.ranking);
        s.scan
            .prepare(level(), lists.bits, &s.query[..work], self.query.scale);
        self.leaves_for(lists, effort.slots, s);
        let little = effort.kept / 16;
        let (least, most) = (effort.kept - little, effort.kept + little + 2);
        let mut limit = f32::INFINITY;
        s.list.clear();
        s.estimates.clear();
        let slots_of = |r: &Ranking, c: u32| lists.slots(r.leaf(c));
        let mut slots = s.leaves.first().map_or(0..0, |&c| slots_of(&s.ranking, c));
        for (i, &leaf) in s.leaves.iter().enumerate() {
            self.codes += slots.len() as u64;
            let next = s.leaves.get(i + 1);
            let next = next.map_or(0..0, |&c| slots_of(&s.ranking, c));
            survivors(
                level(),
                &s.scan,
                lists.codes_of(&slots),
                lists.codes_of(&next),
                (s.ranking.score(leaf), limit),
                slots.start as u32,
                &mut s.list,
                &mut s.estimates,
            );
            if s.list.len() > 3 * most || i + 1 == s.leaves.len() {
                limit = select::limit_for(level(), &s.estimates, least, most).min(limit);
                keep(limit, &mut s.list, &mut s.estimates);
            }
            slots = next;
        }
        let mut list = std::mem::take(&mut s.list);
        for slot in &mut list {
            *slot = lists.rows[*slot as usize];
        }
        once(&mut list, f.len(), &mut s.table);
        s.offered = list.len();
        if self.filter.among.is_some() {
            list.retain(|&p| self.admits(p));
        }
        s.passed = list.len();
        self.leaves += s.leaves.len() as u64;
        for part in list.chunks(CHUNK) {
            self.some(part, s);
        }
        s.list = list;
    }

    /// The candidates whose lists are scanned: the nearest, until they have as many slots as this query deserves
    /// ([`hardness`]) when others get `slots`. The first eight set the limit, nearest first; the rest come in the order
    /// of the file, for the prefetcher's sake.
    fn leaves_for(&self, lists: &View, slots: usize, s: &mut Scratch) {
        let each = (lists.rows.len() / self.forest.tree(0).1.max(1)).max(1);
        let enough = |slots: usize| LEAVES.max(slots / each * 9 / 8 + 8);
        let mut least = enough(slots);
        s.ranking.nearest(least, &mut s.leaves);
        let squared = |i: usize| self.query.square + s.ranking.score(s.leaves[i]);
        let at = hardness::at(s.leaves.len(), squared);
        let slots = self.forest.layout.header.hardness.share(slots, &at);
        let taken = loop {
            let (mut sum, mut taken) = (0, 0);
            while sum < slots && taken < s.leaves.len() {
                sum += lists.slots(s.ranking.leaf(s.leaves[taken])).len();
                taken += 1;
            }
            if sum >= slots || least > s.ranking.len() {
                break taken;
            }
            least = (least * 2).max(enough(slots));
            s.ranking.nearest(least, &mut s.leaves);
        };
        s.leaves.truncate(taken);
        if let Some(rest) = s.leaves.get_mut(8..) {
            rest.sort_unstable();
        }
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
        for part in list.chunks(CHUNK) {
            self.some(part, s);
        }
        let looked = list.len();
        s.list = list;
        (looked, end - first)
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
