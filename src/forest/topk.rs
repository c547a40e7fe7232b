//! The k best hits so far.

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
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance
            .total_cmp(&other.distance)
            .then(self.rowid.cmp(&other.rowid))
    }
}

impl PartialOrd for Hit {
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

/// Keeps the `k` smallest hits of all that are pushed and lie within a distance. Memory grows with the hits that arrive,
/// not with `k`.
#[derive(Debug, Clone)]
pub struct TopK {
    k: usize,
    within: f64,
    heap: BinaryHeap<Hit>,
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
        if self.heap.len() < self.k {
            self.heap.push(hit);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && hit < *worst
        {
            *worst = hit;
        }
    }

    /// Hits wanted.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Hits held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing has been pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The distance beyond which nothing can enter any more.
    #[must_use]
    pub fn limit(&self) -> f64 {
        if self.heap.len() < self.k {
            self.within
        } else {
            let worst = self.heap.peek().map_or(f64::NEG_INFINITY, |h| h.distance);
            worst.min(self.within)
        }
    }

    /// The hits, best first.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Hit> {
        self.heap.into_sorted_vec()
    }
}
