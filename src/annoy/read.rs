//! Opening a file of Annoy.
//!
//! Nothing in a file can be trusted, and the metric and dimension that the caller names may be wrong. So the whole structure is
//! checked at the door: the roots, every child (a child lies before its parent, so there is no cycle; and has one
//! parent), the counts (a node has as many items as its children together), and that no node is left over. What is then
//! handed out are the items alone: an index of ours grows its own trees. A file has no checksum: a component that was changed
//! to another number can't be told from a right one.

use anyhow::{Result, bail, ensure};

use super::layout::{AnnoyMetric, Layout};
use crate::vector::MAX_DIM;

/// A file of Annoy, checked.
#[derive(Debug)]
pub struct AnnoyFile<B> {
    bytes: B,
    layout: Layout,
    numbers: usize,
    items: usize,
    trees: usize,
}

impl<B: AsRef<[u8]>> AnnoyFile<B> {
    /// Opens the bytes of a file that was saved with `dim` components and this metric.
    ///
    /// # Errors
    /// When the bytes are not such a file, whole.
    pub fn open(bytes: B, dim: usize, metric: AnnoyMetric) -> Result<Self> {
        ensure!(
            (1..=MAX_DIM).contains(&dim),
            "dimension {dim}: expected 1 to {MAX_DIM}"
        );
        let mut first = None;
        for layout in Layout::all(metric, dim) {
            match Nodes::new(bytes.as_ref(), layout).and_then(|nodes| nodes.check()) {
                Ok(checked) => {
                    return Ok(AnnoyFile {
                        bytes,
                        layout,
                        numbers: checked.numbers,
                        items: checked.items,
                        trees: checked.trees,
                    });
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        let others: Vec<&str> = AnnoyMetric::ALL
            .into_iter()
            .filter(|&other| {
                Layout::all(other, dim).into_iter().any(|layout| {
                    Nodes::new(bytes.as_ref(), layout)
                        .and_then(|nodes| nodes.check())
                        .is_ok()
                })
            })
            .map(AnnoyMetric::name)
            .collect();
        let error = first.unwrap_or_else(|| anyhow::anyhow!("no layout"));
        let name = metric.name();
        if others.is_empty() {
            bail!(
                "not a whole file of Annoy with {dim} components and metric {name}: {error:#}; give the dimension and metric \
                 that it was made with, or save it again"
            );
        }
        bail!(
            "not a file of Annoy with {dim} components and metric {name}, but it can be one of metric {}: {error:#}",
            others.join(" or ")
        )
    }

    /// The items: one more than the largest number of any item, so those that are missing included.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.numbers
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.trees
    }

    /// Components of a vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// The vector of an item, `dim` finite components (of bits: 0 and 1); `None` where there is no such item.
    #[must_use]
    pub fn vector(&self, item: usize) -> Option<Vec<f32>> {
        let nodes = Nodes {
            bytes: self.bytes.as_ref(),
            layout: self.layout,
        };
        (item < self.numbers && nodes.count(item) == 1).then(|| nodes.vector(item))
    }
}

/// The bytes as nodes.
struct Nodes<'a> {
    bytes: &'a [u8],
    layout: Layout,
}

struct Checked {
    numbers: usize,
    items: usize,
    trees: usize,
}

impl<'a> Nodes<'a> {
    fn new(bytes: &'a [u8], layout: Layout) -> Result<Self> {
        ensure!(!bytes.is_empty(), "it is empty");
        ensure!(
            bytes.len().is_multiple_of(layout.node),
            "its {} bytes are not a multiple of the {} bytes of a node",
            bytes.len(),
            layout.node
        );
        ensure!(
            bytes.len() / layout.node <= i32::MAX as usize,
            "it has more than 2^31 nodes"
        );
        Ok(Nodes { bytes, layout })
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.layout.node
    }

    fn node(&self, i: usize) -> &'a [u8] {
        &self.bytes[i * self.layout.node..][..self.layout.node]
    }

    fn i32_at(&self, i: usize, at: usize) -> i32 {
        let bytes = &self.node(i)[at..at + 4];
        i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn count(&self, i: usize) -> i32 {
        self.i32_at(i, 0)
    }

    /// The child with this number, or the item of a list.
    fn child(&self, i: usize, which: usize) -> i32 {
        self.i32_at(i, self.layout.children + 4 * which)
    }

    fn vector(&self, i: usize) -> Vec<f32> {
        let bytes = &self.node(i)[self.layout.vector..];
        match self.layout.metric {
            AnnoyMetric::Hamming => (0..self.layout.dim)
                .map(|bit| f32::from(bytes[bit / 8] >> (bit % 8) & 1))
                .collect(),
            _ => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        }
    }

    /// As Annoy finds them: the nodes at the end of the file with the same count. The copies of the roots come last, and the
    /// last root itself lies before them.
    fn roots(&self, numbers: usize) -> Vec<usize> {
        let count = self.count(self.len() - 1);
        let mut roots: Vec<usize> = (numbers..self.len())
            .rev()
            .take_while(|&i| self.count(i) == count)
            .collect();
        let (copies, before) = roots.split_at(roots.len() / 2);
        let same = |(a, b): (&usize, &usize)| self.node(*a) == self.node(*b);
        if copies.len() == before.len() && copies.iter().zip(before).all(same) {
            // Every tree is a root alone.
            roots.truncate(roots.len() / 2);
        } else if let [first, .., last] = roots[..]
            && self.node(first) == self.node(last)
        {
            roots.pop();
        }
        roots
    }

    fn check(&self) -> Result<Checked> {
        let numbers = usize::try_from(self.count(self.len() - 1))
            .ok()
            .filter(|&n| n < self.len());
        let Some(numbers) = numbers else {
            bail!(
                "its last node says that there are {} items, in {} nodes",
                self.count(self.len() - 1),
                self.len()
            );
        };
        let mut items = 0;
        for item in 0..numbers {
            match self.count(item) {
                0 => continue,
                1 => items += 1,
                other => bail!("item {item} has a count of {other}, expected 1"),
            }
            if let Some(c) = self.vector(item).iter().position(|x| !x.is_finite()) {
                bail!("component {c} of item {item} is not finite");
            }
        }
        let roots = self.roots(numbers);
        let mut seen = vec![false; self.len() - numbers];
        for &root in &roots {
            // An item by itself looks like a tree of one item, but for its vector.
            let rest = &self.node(root)[self.layout.children + 4..];
            ensure!(
                numbers != 1 || rest.iter().all(|&byte| byte == 0),
                "its last node is no tree"
            );
            self.check_tree(root, numbers, items, &mut seen)?;
        }
        // The roots themselves are there again as copies.
        for (i, _) in seen.iter().enumerate().filter(|(_, seen)| !**seen) {
            let node = i + numbers;
            ensure!(
                roots.iter().any(|&root| self.node(root) == self.node(node)),
                "node {node} belongs to no tree"
            );
        }
        Ok(Checked {
            numbers,
            items,
            trees: roots.len(),
        })
    }

    /// Checks a tree; its nodes are `seen`.
    fn check_tree(
        &self,
        root: usize,
        numbers: usize,
        items: usize,
        seen: &mut [bool],
    ) -> Result<()> {
        let mut stack = vec![root];
        // Items that lists and parents name, each time they do.
        let mut named = 0usize;
        while let Some(i) = stack.pop() {
            ensure!(
                !std::mem::replace(&mut seen[i - numbers], true),
                "node {i} has two parents"
            );
            let count = usize::try_from(self.count(i)).unwrap_or(usize::MAX);
            ensure!(
                i == root || (2..=items).contains(&count),
                "node {i} has a count of {}, with {items} items",
                self.count(i)
            );
            if count <= self.layout.bucket {
                for which in 0..count {
                    self.item(i, self.child(i, which), numbers, i == root)?;
                }
                named += count;
                continue;
            }
            if self.layout.metric == AnnoyMetric::Hamming {
                let bit = &self.node(i)[self.layout.vector..][..8];
                let bit = u64::from_le_bytes(bit.try_into()?);
                ensure!(
                    bit < 64 * self.layout.dim.div_ceil(64) as u64,
                    "node {i} looks at bit {bit} of {}",
                    self.layout.dim
                );
            } else if self.vector(i).iter().any(|x| !x.is_finite()) {
                bail!("the plane of node {i} is not finite");
            }
            let mut below = 0;
            for which in 0..2 {
                let child = self.child(i, which);
                let index = usize::try_from(child).unwrap_or(usize::MAX);
                if index < numbers {
                    self.item(i, child, numbers, i == root)?;
                    below += 1;
                    named += 1;
                } else {
                    ensure!(index < i, "node {i} has the child {child}");
                    below += usize::try_from(self.count(index)).unwrap_or(usize::MAX / 4);
                    stack.push(index);
                }
            }
            // A root's count has the missing items in it.
            ensure!(
                i == root || below == count,
                "node {i} has a count of {count}, its children {below}"
            );
        }
        ensure!(named >= items, "a tree has {named} of {items} items");
        Ok(())
    }

    /// Checks an item that node `i` names. Roots may name one that is missing.
    fn item(&self, i: usize, item: i32, numbers: usize, is_root: bool) -> Result<()> {
        let index = usize::try_from(item).unwrap_or(usize::MAX);
        ensure!(
            index < numbers && (is_root || self.count(index) == 1),
            "node {i} names item {item}, which is not there"
        );
        Ok(())
    }
}
