//! The k best hits so far.
//!
//! A few are a heap, whose worst is at hand at once. Many ([`HEAPED`]) are a pile that is cut back to the best k whenever it
//! has grown by a quarter: that costs each hit a few comparisons instead of their logarithm, in the order of memory, and
//! the limit it tells is that of the last cut.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// One answer: a row and its distance to the query, ordered by (distance, rowid).
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// The row.
    pub rowid: i64,
    /// Its distance as [`crate::vector::exact`] defines it, bit for bit.
    pub distance: f64,
}

impl Ord for Hit {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance
            .total_cmp(&other.distance)
            .then(self.rowid.cmp(&other.rowid))
    }
}

impl PartialOrd for Hit {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Hit {}

/// Up to so many hits are kept as a heap.
const HEAPED: usize = 2048;

/// Keeps the `k` smallest hits of all that are pushed and lie within a distance. Memory grows with the hits that arrive,
/// not with `k`.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    within: f64,
    heap: BinaryHeap<Hit>,
    /// In the place of the heap, and how many hits it may have.
    pile: Vec<Hit>,
    room: usize,
}

impl TopK {
    /// An empty list of at most `k` hits.
    #[must_use]
    pub fn new(k: usize) -> Self {
        TopK::within(k, f64::INFINITY)
    }

    /// An empty list of at most `k` hits, none of which is farther than `within` (a NaN is no limit).
    #[must_use]
    pub fn within(k: usize, within: f64) -> Self {
        TopK {
            k,
            within: within.min(f64::INFINITY),
            heap: BinaryHeap::new(),
            pile: Vec::new(),
            room: k.saturating_add(k / 4),
        }
    }

    /// From now on no hit that is farther than `within` is taken.
    pub fn tighten(&mut self, within: f64) {
        self.within = self.within.min(within);
    }

    /// Takes a hit if it is among the best so far.
    pub fn push(&mut self, hit: Hit) {
        if hit.distance > self.within {
            return;
        }
        // -0 and 0 are the same distance; a total order would tell them apart.
        let hit = Hit {
            distance: hit.distance + 0.0,
            ..hit
        };
        if self.k > HEAPED {
            self.pile.push(hit);
            if self.pile.len() > self.room {
                self.cut();
            }
        } else if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    /// Cuts the pile back to the best `k`; nothing beyond the worst of them is taken any more.
    fn cut(&mut self) {
        if self.pile.len() > self.k {
            let (_, worst, _) = self.pile.select_nth_unstable(self.k - 1);
            self.within = self.within.min(worst.distance);
            self.pile.truncate(self.k);
        }
    }

    /// Hits wanted.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Hits held, at most `k`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len() + self.pile.len().min(self.k)
    }

    /// Whether nothing has been pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A distance beyond which nothing can enter any more: of a heap the least there is.
    #[must_use]
    pub fn limit(&self) -> f64 {
        if self.k > HEAPED || self.heap.len() < self.k {
            self.within
        } else {
            let worst = self.heap.peek().map_or(f64::NEG_INFINITY, |h| h.distance);
            worst.min(self.within)
        }
    }

    /// The hits, best first.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Hit> {
        if self.k > HEAPED {
            self.cut();
            self.pile.sort_unstable();
            return self.pile;
        }
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::random::Random;

    #[test]
    fn a_heap_and_a_pile_keep_what_a_sort_puts_first_and_never_tell_too_low_a_limit() {
        let mut random = Random::new(11, 0);
        for k in [0, 1, 7, HEAPED, HEAPED + 1, 3000, 20_000] {
            for within in [f64::INFINITY, 0.4] {
                let mut best = TopK::within(k, within);
                let mut all = Vec::new();
                for rowid in 0..10_000 {
                    // Many are equally far.
                    let distance = random.below(1000) as f64 / 1000.0;
                    let hit = Hit { rowid, distance };
                    if hit.distance <= within {
                        all.push(hit);
                    }
                    best.push(hit);
                    if rowid % 997 == 0 {
                        all.sort_unstable();
                        let worst = all.get(k.wrapping_sub(1)).map(|hit| hit.distance);
                        assert!(k == 0 || best.limit() >= worst.unwrap_or(within), "{k}");
                        assert_eq!(best.len(), all.len().min(k));
                    }
                }
                all.sort_unstable();
                all.truncate(k);
                assert_eq!(best.into_sorted(), all, "k {k} within {within}");
            }
        }
    }
}
