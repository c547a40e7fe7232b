//! Where the last look at a row finds its vector: in the file, or at its owner's.
//!
//! A file holds the vectors as they came, or as float16 where that loses nothing, or not at all. Then whoever searches
//! hands over what reads them ([`Originals`], by [`super::Ask::originals`]): a search asks for the few rows that no bound
//! leaves out. Either way distances are computed by the same kernels from the same numbers, so answers have the same bits.

use std::borrow::Cow;

use anyhow::{Context, Result, bail};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::file::Forest;
use super::format::Kind;
use super::space::Role;

/// How a file holds the vectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum VectorStore {
    /// As float32: every vector.
    #[default]
    F32,
    /// As float16: vectors all of whose components float16 holds exactly.
    F16,
    /// Not at all: searches ask [`Originals`].
    None,
}

impl VectorStore {
    /// All of them; the place of each is its number in a file.
    pub const ALL: [VectorStore; 3] = [VectorStore::F32, VectorStore::F16, VectorStore::None];

    /// Its name: `f32`, `f16` or `none`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            VectorStore::F32 => "f32",
            VectorStore::F16 => "f16",
            VectorStore::None => "none",
        }
    }

    /// The one of this name, in any case.
    ///
    /// # Errors
    /// When there is none.
    pub fn parse(name: &str) -> Result<Self> {
        match Self::ALL
            .into_iter()
            .find(|store| name.eq_ignore_ascii_case(store.name()))
        {
            Some(store) => Ok(store),
            None => bail!("store must be f32, f16 or none, got '{name}'"),
        }
    }

    /// Bytes of a component in the file.
    pub(super) fn width(self) -> usize {
        match self {
            VectorStore::F32 => 4,
            VectorStore::F16 => 2,
            VectorStore::None => 0,
        }
    }
}

/// What reads vectors that a file does not hold.
pub trait Originals: std::fmt::Debug {
    /// Writes the vector of a row to `out`, which has room for its `dim` components; the numbers the forest was built of.
    ///
    /// `false`: it can't. The search goes on without the row, so its answer is worth nothing: whoever implements this
    /// must remember why, and look when the search has ended.
    fn fetch(&self, rowid: i64, out: &mut [f32]) -> bool;
}

/// Refuses a vector that float16 does not hold to the bit.
pub(super) fn check_f16(rowid: i64, vector: &[f32]) -> Result<()> {
    let lossy = |x: &f32| f16::from_f32(*x).to_f32().to_bits() != x.to_bits();
    match vector.iter().position(lossy) {
        None => Ok(()),
        Some(at) => bail!(
            "component {at} of the vector of rowid {rowid} is {:?}, which store=f16 would round: take store=f32, or \
             store=none",
            vector[at]
        ),
    }
}

impl<B: AsRef<[u8]>> Forest<B> {
    /// How the file holds the vectors.
    #[must_use]
    pub fn store(&self) -> VectorStore {
        self.layout.header.store
    }

    /// The bytes of a vector in the file; none if it doesn't hold it.
    pub(super) fn stored(&self, position: usize) -> &[u8] {
        let width = self.dim() * self.store().width();
        &self.section::<u8>(Kind::Vectors)[position * width..][..width]
    }

    /// Bytes that an exact distance takes: a vector, wherever it is, and a rowid.
    pub(super) fn vector_bytes(&self) -> u64 {
        let width = match self.store() {
            VectorStore::F16 => 2,
            VectorStore::F32 | VectorStore::None => 4,
        };
        (self.dim() * width + 8) as u64
    }

    /// The vector at a position, if the file holds it.
    pub(super) fn vector_at(&self, position: usize) -> Option<Cow<'_, [f32]>> {
        let bytes = self.stored(position);
        match self.store() {
            VectorStore::F32 => Some(Cow::Borrowed(bytemuck::cast_slice(bytes))),
            VectorStore::F16 => Some(Cow::Owned(
                bytemuck::cast_slice::<_, f16>(bytes).to_f32_vec(),
            )),
            VectorStore::None => None,
        }
    }

    /// The vector of a row, `dim` components; `None`: there is no such row, or the file holds no vectors.
    #[must_use]
    pub fn vector_of(&self, rowid: i64) -> Option<Cow<'_, [f32]>> {
        self.vector_at(self.position(rowid)? as usize)
    }

    /// Writes the vector at a position to `out`; `false`: the originals don't have it.
    pub(super) fn copy_vector(
        &self,
        position: usize,
        originals: Option<&dyn Originals>,
        out: &mut [f32],
    ) -> bool {
        let bytes = self.stored(position);
        match self.store() {
            VectorStore::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
            VectorStore::F16 => bytemuck::cast_slice::<_, f16>(bytes).convert_to_f32_slice(out),
            VectorStore::None => {
                let rowid = self.ids()[position];
                return originals.is_some_and(|originals| originals.fetch(rowid, out));
            }
        }
        true
    }

    /// Whether this is the vector that the file was built of for a row, as [`Forest::has_row_at`].
    #[must_use]
    pub fn has_row(&self, rowid: i64, vector: &[f32]) -> bool {
        let position = self.position(rowid);
        position.is_some_and(|position| self.has_row_at(position, vector))
    }

    /// Whether this is the vector that the file was built of for the row at a position: the same bits, 0 and -0 being two. A
    /// file without vectors tells by its codes, which are the same for vectors that lie closer together than a code tells.
    ///
    /// # Panics
    /// When there is no such position.
    #[must_use]
    pub fn has_row_at(&self, position: u32, vector: &[f32]) -> bool {
        let position = position as usize;
        if vector.len() != self.dim() {
            return false;
        }
        match self.vector_at(position) {
            Some(ours) => ours
                .iter()
                .zip(vector)
                .all(|(a, b)| a.to_bits() == b.to_bits()),
            None => self.has_code(position, vector),
        }
    }

    /// Whether the code at a position is that of this vector.
    pub(super) fn has_code(&self, position: usize, vector: &[f32]) -> bool {
        let mut code = vec![0u8; self.space.stride()];
        let factors = self
            .space
            .encode(vector, Role::Item, &mut Vec::new(), &mut code);
        factors.is_some_and(|factors| (&code[..], factors) == self.code(position))
    }
}

/// The store of this number in a file.
pub(super) fn numbered(number: u32) -> Result<VectorStore> {
    let store = VectorStore::ALL.get(number as usize).copied();
    store.with_context(|| format!("index file: vectors stored in way {number}"))
}
