//! Which rows an approximate search looks at: leaves near the query, or lists near the query.

use super::format::Kind;
use super::lists::View;
use super::score::{CHUNK, Scan};
use super::search::{Effort, Scratch};
use crate::kernel::codes::{self, LANES};
use crate::kernel::scan::estimates;
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
    pub(super) fn lists(&mut self, lists: &View, effort: Effort, s: &mut Scratch) {
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
pub(super) fn nearest(
    scores: &[f32],
    least: usize,
    mut order: Vec<u64>,
    places: &mut Vec<u32>,
) -> Vec<u64> {
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
