//! The sections of a finished forest, and how they become bytes.
//!
//! Codes and vectors stay where they lie and are gathered while they are written, so an image never holds a second copy
//! of either.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use bytemuck::{NoUninit, Pod};
use half::f16;
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use super::calibrate;
use super::centroids::Centroids;
use super::file::Bytes;
use super::format::{self, ALIGN, Header, KINDS};
use super::lists::Lists;
use super::originals::VectorStore;
use super::partition::Tree;
use super::plane::Nibbles;
use super::shelf::moved;
use super::space::{Factors, Space};
use crate::job::Job;
use crate::kernel::codes;
use crate::spill::{Array, Spill};

/// The content of one section.
enum Part<'a> {
    /// Numbers of any kind.
    Whole(Box<dyn Numbers + 'a>),
    /// Rows of so many bytes from one or several places.
    Rows(Vec<(Source<'a>, usize)>, Arc<Slots>),
}

/// Numbers as bytes.
trait Numbers: Send + Sync {
    fn bytes(&self) -> &[u8];
}

impl<T: NoUninit + Send + Sync> Numbers for Vec<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl<T: Pod + Send + Sync> Numbers for Array<'_, T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

/// Where rows lie that are written in order of position.
struct Slots {
    /// By position.
    places: Vec<u32>,
    /// The ends of spans ([`super::shelf`]).
    bounds: Vec<u32>,
}

enum Source<'a> {
    Own(Array<'a, u8>),
    Factors(Array<'a, Factors>),
    /// Vectors as they came.
    Vectors(Array<'a, f32>),
    /// Vectors of so many components, to be written as float16.
    Halves(Array<'a, f32>, usize),
}

impl Source<'_> {
    /// Adds the `width` bytes of a row to `out`.
    fn append(&self, place: usize, width: usize, out: &mut Vec<u8>) {
        let bytes: &[u8] = match self {
            Source::Own(bytes) => bytes,
            Source::Factors(factors) => bytemuck::cast_slice(factors),
            Source::Vectors(rows) => bytemuck::cast_slice(rows),
            Source::Halves(rows, dim) => {
                let vector = &rows[place * dim..][..*dim];
                out.extend(vector.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
                return;
            }
        };
        out.extend_from_slice(&bytes[place * width..][..width]);
    }

    /// Has some rows read, of `width` bytes each in the file.
    fn bring(&self, places: Range<usize>, width: usize) {
        let times = |by: usize| places.start * by..places.end * by;
        match self {
            Source::Own(bytes) => bytes.bring(times(width)),
            Source::Factors(factors) => factors.bring(places),
            Source::Vectors(rows) => rows.bring(times(width / 4)),
            Source::Halves(rows, dim) => rows.bring(times(*dim)),
        }
    }
}

impl<'a> Part<'a> {
    fn new(numbers: impl Numbers + 'a) -> Self {
        Part::Whole(Box::new(numbers))
    }

    fn none() -> Self {
        Part::new(Vec::<u8>::new())
    }

    fn len(&self) -> usize {
        match self {
            Part::Whole(numbers) => numbers.bytes().len(),
            Part::Rows(columns, slots) => {
                columns.iter().map(|(_, width)| width).sum::<usize>() * slots.places.len()
            }
        }
    }

    /// Hands out all bytes, with zeros up to the next section, some at a time.
    fn emit(&self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        const SOME: usize = 1 << 16;
        match self {
            Part::Whole(numbers) => numbers.bytes().chunks(SOME).try_for_each(&mut *out)?,
            Part::Rows(columns, slots) => {
                let mut buffer = Vec::with_capacity(SOME + self.len() / slots.places.len().max(1));
                for span in slots.bounds.windows(2) {
                    let span = span[0] as usize..span[1] as usize;
                    for (source, width) in columns {
                        source.bring(span.clone(), *width);
                    }
                    for &place in &slots.places[span] {
                        for (source, width) in columns {
                            source.append(place as usize, *width, &mut buffer);
                        }
                        if buffer.len() >= SOME {
                            out(&buffer)?;
                            buffer.clear();
                        }
                    }
                }
                out(&buffer)?;
            }
        }
        out(&[0; ALIGN][..self.len().next_multiple_of(ALIGN) - self.len()])
    }
}

/// What a build has made.
pub(super) struct Content<'a, 's> {
    pub(super) space: &'s Space,
    pub(super) spill: &'s Spill,
    pub(super) ids: Array<'a, i64>,
    pub(super) vectors: Array<'a, f32>,
    pub(super) codes: Array<'static, u8>,
    pub(super) factors: Array<'static, Factors>,
    pub(super) nibbles: Nibbles,
    /// Where codes lie ([`super::shelf`]), in the end vectors and nibbles too.
    pub(super) place: Vec<u32>,
    pub(super) bounds: Vec<u32>,
    pub(super) trees: Vec<Tree>,
    /// Of the blocks of the first tree's leaves.
    pub(super) means: Centroids,
    pub(super) lists: Option<Lists>,
    pub(super) radii: Vec<f32>,
    pub(super) curve: Vec<calibrate::Point>,
}

/// A finished forest, ready to be written.
pub struct Image<'a> {
    head: Vec<u8>,
    parts: [Part<'a>; KINDS.len()],
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
    pub(super) fn new(header: &Header, content: Content<'a, '_>, job: &Job) -> Result<Self> {
        let Content {
            space,
            spill,
            ids,
            mut vectors,
            codes,
            factors,
            mut nibbles,
            place,
            bounds,
            mut trees,
            means,
            lists,
            curve,
            mut radii,
        } = content;
        let order = std::mem::take(&mut trees[0].rows);
        let n = order.len();
        let mut position = spill.zeros::<u32>(n)?;
        for (p, &row) in (0..).zip(&order) {
            position[row as usize] = p;
        }
        let mut others = spill.zeros::<u32>((trees.len() - 1) * n)?;
        if !others.is_empty() {
            others
                .par_chunks_mut(n)
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
        drop(trees);
        radii.resize(leaves.norm.len(), f32::INFINITY);
        let mut by_position = spill.reserve::<i64>(n)?;
        for rows in order.chunks(1024) {
            let some: Vec<i64> = rows.iter().map(|&row| ids[row as usize]).collect();
            by_position.extend(&some)?;
        }
        drop(ids);
        let mut places = order;
        if !place.is_empty() {
            if header.store != VectorStore::None {
                vectors = moved(&vectors, header.dim, &[], &place, spill, job)?;
            }
            nibbles = nibbles.moved(&place, spill, job)?;
            places
                .iter_mut()
                .for_each(|row| *row = place[*row as usize]);
        }
        let plane = nibbles.pack(&places, &bounds, spill, job)?;
        let slots = Arc::new(Slots { places, bounds });
        let (list_starts, list_rows, list_codes) = match lists {
            Some(l) => (Part::new(l.starts), Part::new(l.rows), Part::new(l.codes)),
            None => (Part::none(), Part::none(), Part::none()),
        };
        let width = header.dim * header.store.width();
        let vectors = match header.store {
            VectorStore::F32 => Source::Vectors(vectors),
            VectorStore::F16 => Source::Halves(vectors, header.dim),
            VectorStore::None => Source::Own(Array::default()),
        };
        let codes = vec![
            (Source::Own(codes), codes::stride(space.work())),
            (Source::Factors(factors), size_of::<Factors>()),
        ];
        // As KINDS has them.
        let parts = [
            Part::new(space.mean.clone()),
            Part::new(leaves.first),
            Part::new(leaves.codes),
            Part::new(leaves.scale),
            Part::new(leaves.norm),
            Part::new(leaves.sum),
            Part::new(leaves.rows),
            Part::Rows(codes, slots.clone()),
            Part::new(by_position),
            Part::new(position),
            Part::new(others),
            Part::new(curve),
            Part::Rows(vec![(vectors, width)], slots),
            list_starts,
            list_rows,
            list_codes,
            Part::new(plane),
            Part::new(radii),
        ];
        let sections = parts
            .par_iter()
            .map(|part| {
                job.check()?;
                let mut hash = Xxh3::new();
                let mut stopped = Ok(());
                let emitted = part.emit(&mut |bytes| {
                    hash.update(bytes);
                    stopped = job.check();
                    let is_stopped = stopped.is_err();
                    (!is_stopped)
                        .then_some(())
                        .ok_or(io::ErrorKind::Interrupted.into())
                });
                stopped?;
                emitted?;
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
