//! The sections of a finished forest, and how they become bytes.
//!
//! Codes and vectors stay in the order of the rows and are gathered while they are written, so an image never holds a
//! second copy of either.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Result;
use half::f16;
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use super::Vectors;
use super::calibrate;
use super::centroids::Centroids;
use super::file::Bytes;
use super::format::{self, ALIGN, Header, KINDS, Kind};
use super::lists::Lists;
use super::originals::VectorStore;
use super::partition::Tree;
use super::plane::Nibbles;
use super::space::{Factors, Space};
use crate::job::Job;
use crate::kernel::codes;

/// The content of one section.
enum Part<'a> {
    Whole(Vec<u8>),
    /// Rows of so many bytes from one or several places, to be written in `order`.
    Rows(Vec<(Source<'a>, usize)>, Arc<[u32]>),
}

enum Source<'a> {
    Own(Vec<u8>),
    Factors(Vec<Factors>),
    /// Vectors as they came.
    Vectors(&'a [f32]),
    /// Vectors of so many components, to be written as float16.
    Halves(&'a [f32], usize),
}

impl Source<'_> {
    /// Adds the `width` bytes of a row to `out`.
    fn append(&self, row: usize, width: usize, out: &mut Vec<u8>) {
        let bytes: &[u8] = match self {
            Source::Own(bytes) => bytes,
            Source::Factors(factors) => bytemuck::cast_slice(factors),
            Source::Vectors(rows) => bytemuck::cast_slice(rows),
            Source::Halves(rows, dim) => {
                let vector = &rows[row * dim..][..*dim];
                out.extend(vector.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
                return;
            }
        };
        out.extend_from_slice(&bytes[row * width..][..width]);
    }
}

impl Part<'_> {
    fn new<T: bytemuck::NoUninit>(values: &[T]) -> Self {
        Part::Whole(bytemuck::cast_slice(values).to_vec())
    }

    fn none() -> Self {
        Part::Whole(Vec::new())
    }

    fn len(&self) -> usize {
        match self {
            Part::Whole(bytes) => bytes.len(),
            Part::Rows(columns, order) => {
                columns.iter().map(|(_, width)| width).sum::<usize>() * order.len()
            }
        }
    }

    /// Hands out all bytes, with zeros up to the next section.
    fn emit(&self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Part::Whole(bytes) => out(bytes)?,
            Part::Rows(columns, order) => {
                let mut buffer = Vec::with_capacity((1 << 16) + self.len() / order.len().max(1));
                for &row in order.iter() {
                    for (source, width) in columns {
                        source.append(row as usize, *width, &mut buffer);
                    }
                    if buffer.len() >= 1 << 16 {
                        out(&buffer)?;
                        buffer.clear();
                    }
                }
                out(&buffer)?;
            }
        }
        out(&[0; ALIGN][..self.len().next_multiple_of(ALIGN) - self.len()])
    }
}

/// What a build has made.
pub(super) struct Content<'s> {
    pub(super) space: &'s Space,
    pub(super) codes: Vec<u8>,
    pub(super) factors: Vec<Factors>,
    pub(super) trees: Vec<Tree>,
    /// Of the blocks of the first tree's leaves.
    pub(super) means: Centroids,
    pub(super) lists: Option<Lists>,
    pub(super) nibbles: Nibbles,
    pub(super) radii: Vec<f32>,
    pub(super) curve: Vec<calibrate::Point>,
}

/// A finished forest, ready to be written.
pub struct Image<'a> {
    head: Vec<u8>,
    parts: Vec<Part<'a>>,
    bytes: usize,
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<'a> Image<'a> {
    pub(super) fn new(
        v: &Vectors<'a>,
        header: &Header,
        content: Content,
        job: &Job,
    ) -> Result<Self> {
        let Content {
            space,
            codes,
            factors,
            mut trees,
            means,
            lists,
            curve,
            nibbles,
            mut radii,
        } = content;
        let lists = lists.as_ref();
        let order: Arc<[u32]> = std::mem::take(&mut trees[0].rows).into();
        let mut position = vec![0u32; order.len()];
        for (p, &row) in order.iter().enumerate() {
            position[row as usize] = p as u32;
        }
        let mut others = vec![0u32; (trees.len() - 1) * order.len()];
        if !others.is_empty() {
            others
                .par_chunks_mut(order.len())
                .zip(&mut trees[1..])
                .for_each(|(list, tree)| {
                    for (to, &row) in list.iter_mut().zip(&tree.rows) {
                        *to = position[row as usize];
                    }
                    tree.rows = Vec::new();
                    for leaf in tree.starts.windows(2) {
                        list[leaf[0] as usize..leaf[1] as usize].sort_unstable();
                    }
                });
        }
        let leaves = Leaves::new(&trees, &means);
        radii.resize(leaves.norm.len(), f32::INFINITY);
        let plane = nibbles.pack(&order);
        let ids: Vec<i64> = order.iter().map(|&r| v.ids[r as usize]).collect();
        let mut parts = Vec::with_capacity(KINDS.len());
        for kind in KINDS {
            parts.push(match kind {
                Kind::Mean => Part::new(&space.mean),
                Kind::Trees => Part::new(&leaves.first),
                Kind::LeafCodes => Part::new(&leaves.codes),
                Kind::LeafScale => Part::new(&leaves.scale),
                Kind::LeafNorm => Part::new(&leaves.norm),
                Kind::LeafSum => Part::new(&leaves.sum),
                Kind::LeafRows => Part::new(&leaves.rows),
                Kind::Codes => Part::none(),
                Kind::Ids => Part::new(&ids),
                Kind::ById => Part::new(&position),
                Kind::Lists => Part::new(&others),
                Kind::Curve => Part::new(&curve),
                Kind::ListStarts => lists.map_or_else(Part::none, |l| Part::new(&l.starts)),
                Kind::ListRows => lists.map_or_else(Part::none, |l| Part::new(&l.rows)),

                Kind::ListCodes => lists.map_or_else(Part::none, |l| Part::new(&l.codes)),
                Kind::Plane => Part::none(),
                Kind::LeafRadius => Part::new(&radii),
                Kind::Vectors => {
                    let source = match header.store {
                        VectorStore::F16 => Source::Halves(v.rows, v.dim),
                        _ => Source::Vectors(v.rows),
                    };
                    let width = v.dim * header.store.width();
                    Part::Rows(vec![(source, width)], order.clone())
                }
            });
        }
        parts[Kind::Codes as usize - 1] = Part::Rows(
            vec![
                (Source::Own(codes), codes::stride(space.work())),
                (Source::Factors(factors), size_of::<Factors>()),
            ],
            order.clone(),
        );
        parts[Kind::Plane as usize - 1] = Part::Whole(plane);
        let sections = parts
            .par_iter()
            .map(|part| {
                job.check()?;
                let mut hash = Xxh3::new();
                part.emit(&mut |bytes| {
                    hash.update(bytes);
                    Ok(())
                })?;
                Ok((part.len(), hash.digest()))
            })
            .collect::<Result<Vec<_>>>()?;
        let (head, bytes) = format::compose(header, &sections);
        Ok(Image { head, parts, bytes })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never: a forest without rows has a header too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Identifies the content: as [`crate::forest::Forest::checksum`].
    #[must_use]
    pub fn checksum(&self) -> u64 {
        format::checksum_of(&self.head)
    }

    /// Writes the file, front to back.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.head)?;
        for part in &self.parts {
            part.emit(&mut |bytes| out.write_all(bytes))?;
        }
        Ok(())
    }

    /// The file in memory.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.bytes);
        let written = self.write_to(&mut out);
        debug_assert!(written.is_ok(), "writing to memory can't fail");
        Bytes::new(&out)
    }
}

/// The leaves of all trees, one after the other, and the means of the blocks of tree 0.
#[derive(Default)]
struct Leaves {
    first: Vec<u32>,
    codes: Vec<i8>,
    scale: Vec<f32>,
    norm: Vec<f32>,
    sum: Vec<i32>,
    rows: Vec<[u32; 2]>,
}

impl Leaves {
    fn new(trees: &[Tree], means: &Centroids) -> Self {
        let mut all = Leaves::default();
        for tree in trees {
            let rows = tree.starts.windows(2).map(|r| [r[0], r[1] - r[0]]);
            all.add(&tree.centroids, rows);
        }
        all.add(means, std::iter::empty());
        all.first.push(all.norm.len() as u32);
        all
    }

    fn add(&mut self, c: &Centroids, rows: impl Iterator<Item = [u32; 2]>) {
        self.first.push(self.norm.len() as u32);
        self.codes.extend_from_slice(&c.codes);
        self.scale.extend_from_slice(&c.scale);
        self.norm.extend_from_slice(&c.norm);
        self.sum.extend_from_slice(&c.sum);
        self.rows.extend(rows);
        self.rows.resize(self.norm.len(), [0, 0]);
    }
}
