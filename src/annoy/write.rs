//! Trees over rows, as the nodes of a file that Annoy loads.
//!
//! Each tree depends on (seed, tree) alone; as many as there are threads grow at a time and are written one after the other,
//! so the bytes do not depend on the threads and no more than those trees are in memory.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::layout::{AnnoyMetric, Layout};
use super::split::{Plane, Rows, split};
use crate::forest::{MAX_TREES, Random, Vectors};
use crate::job::Job;
use crate::vector::exact;

/// Items may be at most so many times as many numbers as there are rows: a file has a node for each number.
const SPREAD: usize = 16;

/// How to grow the trees of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trees {
    /// What near means in the file.
    pub metric: AnnoyMetric,
    /// Number of trees, 1..=[`MAX_TREES`].
    pub trees: u32,
    /// The same seed, rows and options give the same bytes.
    pub seed: u64,
    /// Threads, at least 1. The bytes do not depend on it.
    pub threads: usize,
}

/// Writes a file of items that the annoy package (1.17) loads: item `ids[i]` is row `i`. Returns the number of its bytes.
///
/// # Errors
/// When there are no rows, an id is negative, above 2^31 - 2 or far above the number of rows (a file has a node for each number up
/// to the largest), an option is out of range, the file would have 2^31 nodes or more, the writer fails, or the job is
/// stopped ([`crate::job::Interrupted`]).
pub fn write(
    vectors: &Vectors<'_>,
    options: &Trees,
    out: &mut (impl Write + Send),
    job: &Job,
) -> Result<u64> {
    ensure!(
        (1..=MAX_TREES).contains(&options.trees),
        "trees = {}: expected 1 to {MAX_TREES}",
        options.trees
    );
    let numbers = numbers(vectors.ids)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .context("the threads could not be started")?;
    let writer = Writer {
        rows: Rows {
            metric: options.metric,
            dim: vectors.dim,
            rows: vectors.rows,
        },
        ids: vectors.ids,
        numbers,
        layout: Layout::new(options.metric, vectors.dim),
    };
    pool.install(|| writer.write(options, out, job))
}

/// How many nodes of items a file with these items (ascending) has: one for each number up to the largest.
///
/// # Errors
/// As [`write()`], for the ids.
pub fn numbers(ids: &[i64]) -> Result<usize> {
    let [first, .., last] = ids else {
        let only = ids.first().context("there is no row to write")?;
        return numbers(&[*only, *only]);
    };
    ensure!(
        *first >= 0 && *last < i64::from(i32::MAX),
        "its rowids are {first} to {last}: Annoy numbers items from 0 to 2^31 - 2"
    );
    let numbers = *last as usize + 1;
    ensure!(
        numbers <= SPREAD * ids.len() + (1 << 16),
        "it has {} rowids of which the largest is {last}: a file of Annoy has a node for each number up to it",
        ids.len()
    );
    Ok(numbers)
}

struct Writer<'a> {
    rows: Rows<'a>,
    ids: &'a [i64],
    /// One more than the largest number of an item.
    numbers: usize,
    layout: Layout,
}

/// A finished tree. A child below `numbers` is an item, any other a node of this tree.
#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
}

enum Node {
    List(Vec<u32>),
    Cut {
        count: usize,
        plane: Plane,
        children: [usize; 2],
    },
}

impl Writer<'_> {
    fn write(&self, options: &Trees, out: &mut impl Write, job: &Job) -> Result<u64> {
        self.write_items(out, job)?;
        let mut nodes = self.numbers;
        let mut roots = Vec::new();
        job.phase("trees", u64::from(options.trees));
        let numbers: Vec<u64> = (0..u64::from(options.trees)).collect();
        for some in numbers.chunks(options.threads) {
            let trees = some
                .par_iter()
                .map(|&tree| self.grow(&mut Random::new(options.seed, tree), job))
                .collect::<Result<Vec<Tree>>>()?;
            for tree in trees {
                let mut root = Vec::new();
                for (i, node) in tree.nodes.iter().enumerate() {
                    job.check()?;
                    let is_root = i + 1 == tree.nodes.len();
                    root = self.node(node, nodes, is_root);
                    out.write_all(&root)?;
                }
                nodes += tree.nodes.len();
                roots.push(root);
                ensure!(
                    nodes + (options.trees as usize) < i32::MAX as usize,
                    "{} trees over {} rows have more than 2^31 nodes: give fewer trees",
                    options.trees,
                    self.ids.len()
                );
            }
            job.advance(some.len() as u64);
        }
        for root in &roots {
            out.write_all(root)?;
        }
        Ok(((nodes + roots.len()) * self.layout.node) as u64)
    }

    fn write_items(&self, out: &mut impl Write, job: &Job) -> Result<()> {
        job.phase("items", self.numbers as u64);
        let largest = match self.rows.metric {
            AnnoyMetric::Dot => self
                .rows
                .rows
                .chunks_exact(self.rows.dim)
                .map(|row| exact::dot(row, row))
                .fold(0.0, f64::max),
            _ => 0.0,
        };
        let mut rows = self.ids.iter().zip(0u32..).peekable();
        for number in 0..self.numbers {
            if number % 4096 == 0 {
                job.check()?;
                job.advance(4096);
            }
            let mut node = vec![0u8; self.layout.node];
            if let Some((_, row)) = rows.next_if(|(id, _)| **id == number as i64) {
                self.item(self.rows.row(row), largest, &mut node);
            }
            out.write_all(&node)?;
        }
        Ok(())
    }

    /// The node of an item. `largest` is the largest squared norm.
    fn item(&self, row: &[f32], largest: f64, node: &mut [u8]) {
        put(node, 0, &1i32.to_le_bytes());
        let squared = exact::dot(row, row);
        match self.rows.metric {
            AnnoyMetric::Angular => put(node, 4, &(squared as f32).to_le_bytes()),
            AnnoyMetric::Dot => {
                put(node, 12, &((largest - squared).sqrt() as f32).to_le_bytes());
            }
            AnnoyMetric::Euclidean | AnnoyMetric::Manhattan | AnnoyMetric::Hamming => {}
        }
        if self.rows.metric == AnnoyMetric::Hamming {
            for (bit, &component) in row.iter().enumerate() {
                node[self.layout.vector + bit / 8] |=
                    u8::from(Rows::is_set(component)) << (bit % 8);
            }
        } else {
            self.put_vector(node, row);
        }
    }

    fn put_vector(&self, node: &mut [u8], vector: &[f32]) {
        for (i, x) in vector.iter().enumerate() {
            put(node, self.layout.vector + 4 * i, &x.to_le_bytes());
        }
    }

    /// The bytes of a node of a tree whose first node has the number `first`.
    fn node(&self, node: &Node, first: usize, is_root: bool) -> Vec<u8> {
        let mut bytes = vec![0u8; self.layout.node];
        let count = match node {
            _ if is_root => self.numbers,
            Node::List(rows) => rows.len(),
            Node::Cut { count, .. } => *count,
        };
        put(&mut bytes, 0, &(count as i32).to_le_bytes());
        let child = |which: usize| self.layout.children + 4 * which;
        match node {
            Node::List(rows) => {
                // A root's count has missing items in it: the first one stands for them, and is answered once.
                for which in 0..count {
                    let row = rows[if which < rows.len() { which } else { 0 }];
                    let item = self.ids[row as usize] as i32;
                    put(&mut bytes, child(which), &item.to_le_bytes());
                }
            }
            Node::Cut {
                plane, children, ..
            } => {
                match plane {
                    Plane::Normal { normal, offset } => {
                        self.put_vector(&mut bytes, normal);
                        if self.layout.children == 8 {
                            put(&mut bytes, 4, &offset.to_le_bytes());
                        }
                    }
                    Plane::Bit(bit) => {
                        put(
                            &mut bytes,
                            self.layout.vector,
                            &Layout::bit_number(*bit).to_le_bytes(),
                        );
                    }
                }
                for (which, &at) in children.iter().enumerate() {
                    let at = if at < self.numbers {
                        at
                    } else {
                        at - self.numbers + first
                    };
                    put(&mut bytes, child(which), &(at as i32).to_le_bytes());
                }
            }
        }
        bytes
    }

    fn grow(&self, random: &mut Random, job: &Job) -> Result<Tree> {
        let mut tree = Tree::default();
        let all: Vec<u32> = (0..self.ids.len() as u32).collect();
        if self.numbers <= self.layout.bucket {
            tree.nodes.push(Node::List(all));
        } else if let [only] = all[..] {
            // A root of one item that is no list: both children are that item, which is answered once.
            let item = self.ids[only as usize] as usize;
            let (plane, _) = split(&self.rows, &mut vec![only], random);
            tree.nodes.push(Node::Cut {
                count: 1,
                plane,
                children: [item, item],
            });
        } else {
            self.cut(&mut tree, all, random, job)?;
        }
        Ok(tree)
    }

    /// Cuts rows (at least two) in two, and makes both children before the node itself. The depth of the recursion is the
    /// logarithm of the number of rows, because no side has more than 95 of 100.
    fn cut(
        &self,
        tree: &mut Tree,
        mut members: Vec<u32>,
        random: &mut Random,
        job: &Job,
    ) -> Result<usize> {
        job.check()?;
        let count = members.len();
        let (plane, at) = split(&self.rows, &mut members, random);
        let right = members.split_off(at);
        let mut children = [0, 0];
        for (child, members) in children.iter_mut().zip([members, right]) {
            *child = match members[..] {
                [only] => self.ids[only as usize] as usize,
                _ if members.len() <= self.layout.bucket => {
                    tree.nodes.push(Node::List(members));
                    self.numbers + tree.nodes.len() - 1
                }
                _ => self.cut(tree, members, random, job)?,
            };
        }
        tree.nodes.push(Node::Cut {
            count,
            plane,
            children,
        });
        Ok(self.numbers + tree.nodes.len() - 1)
    }
}

fn put(node: &mut [u8], at: usize, bytes: &[u8]) {
    node[at..at + bytes.len()].copy_from_slice(bytes);
}
