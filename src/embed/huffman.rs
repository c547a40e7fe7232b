//! The tree of hierarchical softmax: frequent words have short paths.
//!
//! Huffman's code on the word counts (1952), by the two-queue method: the leaves come sorted, and merged nodes are made
//! in ascending order, so the two smallest of all nodes stand at the front of one queue or the other. A tree of V words
//! has V - 1 inner nodes; inner node 0 is the first made, the root the last.

use crate::embed::vocab::WordId;
use crate::kernel::window::Target;

/// The path from the root to every word.
#[derive(Debug, Clone)]
pub struct Huffman {
    /// Where the path of word i begins; one more entry than there are words.
    starts: Vec<usize>,
    steps: Vec<Target>,
}

impl Huffman {
    /// The tree for words with these counts, sorted descending.
    #[must_use]
    pub fn new(counts: &[u64]) -> Huffman {
        let n = counts.len();
        if n < 2 {
            return Huffman {
                starts: vec![0; n + 1],
                steps: Vec::new(),
            };
        }
        // Nodes 0..n are the words, n.. the inner nodes.
        let mut weight: Vec<u64> = counts.to_vec();
        let mut parent = vec![0usize; 2 * n - 1];
        let mut is_second = vec![false; 2 * n - 1];
        let (mut leaves_left, mut inner) = (n, n);
        for node in n..2 * n - 1 {
            let mut sum = 0u64;
            for second in [false, true] {
                // An inner node is ready once it was made before this one.
                let take_leaf =
                    leaves_left > 0 && (inner == node || weight[leaves_left - 1] <= weight[inner]);
                let child = if take_leaf {
                    leaves_left -= 1;
                    leaves_left
                } else {
                    inner += 1;
                    inner - 1
                };
                parent[child] = node;
                is_second[child] = second;
                sum = sum.saturating_add(weight[child]);
            }
            weight.push(sum);
        }
        Huffman::paths(n, &parent, &is_second)
    }

    fn paths(n: usize, parent: &[usize], is_second: &[bool]) -> Huffman {
        let root = parent.len() - 1;
        let mut starts = Vec::with_capacity(n + 1);
        let mut steps = Vec::new();
        for word in 0..n {
            starts.push(steps.len());
            let mut node = word;
            while node != root {
                steps.push(Target::new((parent[node] - n) as u32, !is_second[node]));
                node = parent[node];
            }
            let start = starts[word];
            steps[start..].reverse();
        }
        starts.push(steps.len());
        Huffman { starts, steps }
    }

    /// The inner nodes on the way to a word, root first, with labels: 1 where the path goes on to the first child, 0 where
    /// to the second, the more frequent one. Rows are below V - 1. Empty when it is the only word.
    #[must_use]
    #[inline]
    pub fn path(&self, word: WordId) -> &[Target] {
        &self.steps[self.starts[word as usize]..self.starts[word as usize + 1]]
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, HashSet};

    use super::*;
    use crate::embed::random::Random;

    /// The least possible sum of count * path length: the sum of all merged weights, by a heap.
    fn optimal_cost(counts: &[u64]) -> u64 {
        let mut heap: BinaryHeap<Reverse<u64>> = counts.iter().map(|&c| Reverse(c)).collect();
        let mut cost = 0;
        while heap.len() > 1 {
            let merged = heap.pop().unwrap().0 + heap.pop().unwrap().0;
            cost += merged;
            heap.push(Reverse(merged));
        }
        cost
    }

    #[test]
    fn the_code_is_optimal_and_prefix_free() {
        for (seed, n) in [(1, 1), (2, 2), (3, 3), (4, 10), (5, 257), (6, 5000)] {
            let mut random = Random::new(seed, [0, 0]);
            let mut count = || {
                let magnitude = random.below(20);
                1 + u64::from(random.below(1 << magnitude))
            };
            let mut counts: Vec<u64> = (0..n).map(|_| count()).collect();
            counts.sort_unstable_by_key(|&c| Reverse(c));
            let tree = Huffman::new(&counts);
            let paths: Vec<&[Target]> = (0..n).map(|id| tree.path(id)).collect();

            let cost: u64 = paths
                .iter()
                .zip(&counts)
                .map(|(p, c)| p.len() as u64 * c)
                .sum();
            assert_eq!(cost, optimal_cost(&counts), "seed {seed}, {n} words");
            assert!(
                paths.windows(2).all(|p| p[0].len() <= p[1].len()),
                "a rarer word has a shorter path"
            );

            // A node is always reached the same way, so no code is the beginning of another.
            let mut ends = HashSet::new();
            let mut prefix_of = vec![None; n as usize];
            for path in &paths {
                let codes: Vec<bool> = path.iter().map(|s| !s.label()).collect();
                for (i, step) in path.iter().enumerate() {
                    let seen =
                        prefix_of[step.row() as usize].get_or_insert_with(|| codes[..i].to_vec());
                    assert_eq!(*seen, codes[..i]);
                }
                assert!(ends.insert(codes));
            }
        }
    }
}
