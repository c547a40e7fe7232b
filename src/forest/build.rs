//! From vectors to the bytes of a forest.
//!
//! 1. Largest norm and mean point (sums over fixed chunks, added in order).
//! 2. A byte code for every row.
//! 3. The trees, each independent of the others ([`super::partition`]).
//! 4. Of the first tree, the lists for approximate search ([`super::lists`]), and how much of them a promised recall needs
//!    ([`super::calibrate`]).
//! 5. The sections ([`super::image`]), in the leaf order of tree 0. Codes and vectors are gathered while they are written, so the image
//!    never holds a second copy of either: the peak is the caller's rows, one byte a dimension, and the lists.
//!
//! All that is large lies in arrays of [`crate::spill`]: in memory, or in files that each stage reads and writes in order
//! ([`super::shelf`]). [`super::need`] says beforehand how much of either it will be.
//!
//! Threads share work by rows and by trees; no result depends on how.

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use super::Vectors;
use super::calibrate;
use super::format::Header;
use super::image::{Content, Image};
use super::lists::{self, Lists};
use super::originals::{VectorStore, check_f16};
use super::partition::{self, Tree};
use super::plane::{self, Nibbles};
use super::shelf::Shelf;
use super::space::{Factors, Role, Space, dot32, work_dim};
use crate::job::Job;
use crate::kernel::scan::Bits;
use crate::spill::{Array, Spill};
use crate::vector::{MAX_DIM, Metric};

/// The largest number of trees a forest may have.
pub const MAX_TREES: u32 = 10_000;

/// Rows summed up by one task.
const CHUNK: usize = 1024;

/// How to build a forest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildOptions {
    /// What near means: cosine, l2 or dot.
    pub metric: Metric,
    /// Number of trees, 1..=[`MAX_TREES`].
    pub trees: u32,
    /// The same seed, rows and options give the same bytes.
    pub seed: u64,
    /// Threads to build with, at least 1. The bytes do not depend on it.
    pub threads: usize,
    /// How the file holds the vectors.
    pub store: VectorStore,
}

/// Builds a forest over `vectors`.
///
/// # Errors
/// When lengths do not fit, rowids are not ascending, a component is not finite or not what `store` can hold, an option is out of range, or the
/// job is stopped ([`crate::job::Interrupted`]).
pub fn build<'a>(vectors: &Vectors<'a>, options: &BuildOptions, job: &Job) -> Result<Image<'a>> {
    let input = Input::from(vectors);
    build_with(input, options, lists::kind, &Spill::memory(), job)
}

/// [`build`] of vectors that may be more than memory holds, with its arrays where `spill` says. The bytes are the same.
///
/// # Errors
/// As [`build`], and when `spill` has no room.
pub fn build_large(
    vectors: Input<'static>,
    options: &BuildOptions,
    spill: &Spill,
    job: &Job,
) -> Result<Image<'static>> {
    build_with(vectors, options, lists::kind, spill, job)
}

/// [`build`] without the lists of approximate search and their calibration: such a forest is searched exactly, whatever the
/// budget, and costs a third to build.
///
/// # Errors
/// As [`build`].
pub fn build_exact<'a>(
    vectors: &Vectors<'a>,
    options: &BuildOptions,
    job: &Job,
) -> Result<Image<'a>> {
    let input = Input::from(vectors);
    build_with(input, options, |_, _| None, &Spill::memory(), job)
}

/// Vectors to index, as [`Vectors`], which a build uses up.
#[derive(Debug)]
pub struct Input<'a> {
    /// As [`Vectors::dim`].
    pub dim: usize,
    /// As [`Vectors::ids`].
    pub ids: Array<'a, i64>,
    /// As [`Vectors::rows`].
    pub rows: Array<'a, f32>,
}

impl<'a> From<&Vectors<'a>> for Input<'a> {
    fn from(vectors: &Vectors<'a>) -> Self {
        Input {
            dim: vectors.dim,
            ids: Array::Borrowed(vectors.ids),
            rows: Array::Borrowed(vectors.rows),
        }
    }
}

fn build_with<'a>(
    input: Input<'a>,
    options: &BuildOptions,
    kind: impl Fn(usize, usize) -> Option<(Bits, usize)>,
    spill: &Spill,
    job: &Job,
) -> Result<Image<'a>> {
    let vectors = Vectors {
        dim: input.dim,
        ids: &input.ids,
        rows: &input.rows,
    };
    check(&vectors, options)?;
    let kind = kind(vectors.ids.len(), work_dim(options.metric, vectors.dim));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .context("the threads of the build could not be started")?;
    pool.install(|| build_here(input, options, kind, spill, job))
}

fn check(v: &Vectors, o: &BuildOptions) -> Result<()> {
    ensure!(
        (1..=MAX_DIM).contains(&v.dim),
        "dimension {}: expected 1 to {MAX_DIM}",
        v.dim
    );
    ensure!(
        v.ids.len().checked_mul(v.dim) == Some(v.rows.len()),
        "{} rowids and {} components of dimension {} do not fit together",
        v.ids.len(),
        v.rows.len(),
        v.dim
    );
    ensure!(
        v.ids.len() < u32::MAX as usize,
        "{} rows: an index holds at most 2^32 - 2",
        v.ids.len()
    );
    ensure!(
        v.ids.is_sorted_by(|a, b| a < b),
        "rowids must be ascending and unique"
    );
    ensure!(
        (1..=MAX_TREES).contains(&o.trees),
        "trees = {}: expected 1 to {MAX_TREES}",
        o.trees
    );
    ensure!(
        (1..=1024).contains(&o.threads),
        "threads = {}: expected 1 to 1024",
        o.threads
    );
    ensure!(
        matches!(o.metric, Metric::Cosine | Metric::L2 | Metric::Dot),
        "an index of metric '{}' is not possible: expected one of cosine, l2, dot",
        o.metric.name()
    );
    Ok(())
}

/// The most rows a leaf should hold (cuts leave about half of that in one). Small leaves waste less of a scan, and few
/// leaves less of their ranking, which costs as much for a leaf as scanning four (two bits) or eight rows (one bit).
pub(super) fn leaf_size(n: usize, kind: Option<(Bits, usize)>) -> usize {
    let most = match kind {
        Some((Bits::One, _)) => 192.0,
        _ => 128.0,
    };
    ((n as f64).sqrt() / 1.5).round().clamp(16.0, most) as usize
}

fn build_here<'a>(
    input: Input<'a>,
    o: &BuildOptions,
    kind: Option<(Bits, usize)>,
    spill: &Spill,
    job: &Job,
) -> Result<Image<'a>> {
    let v = &Vectors {
        dim: input.dim,
        ids: &input.ids,
        rows: &input.rows,
    };
    let n = v.ids.len();
    job.phase("encode", n as u64);
    let space = fit(v, o, job)?;
    let stride = space.stride();
    let mut codes = spill.zeros::<u8>(n * stride)?;
    let mut factors = spill.zeros::<Factors>(n)?;
    let mut nibbles = Nibbles::new(n, space.work(), spill)?;
    let batch = spill.batch(n, space.record() + Nibbles::record(space.work()));
    for first in (0..n).step_by(batch) {
        let end = (first + batch).min(n);
        input.rows.bring(first * v.dim..end * v.dim);
        codes[first * stride..end * stride]
            .par_chunks_mut(CHUNK * stride)
            .zip(factors[first..end].par_chunks_mut(CHUNK))
            .zip(nibbles.par_chunks_mut(first..end, CHUNK))
            .zip(v.rows[first * v.dim..end * v.dim].par_chunks(CHUNK * v.dim))
            .enumerate()
            .try_for_each(|(chunk, (((codes, factors), mut nibbles), rows))| {
                let mut point = Vec::with_capacity(space.work());
                for (i, ((code, factor), row)) in codes
                    .chunks_exact_mut(stride)
                    .zip(factors)
                    .zip(rows.chunks_exact(v.dim))
                    .enumerate()
                {
                    job.check()?;
                    if o.store == VectorStore::F16 {
                        check_f16(v.ids[first + chunk * CHUNK + i], row)?;
                    }
                    *factor = space
                        .encode(row, Role::Item, &mut point, code)
                        .context("a row is too far from the others to be indexed")?;
                    nibbles.set(i, &space, &point);
                    job.advance(1);
                }
                Ok::<_, anyhow::Error>(())
            })?;
        codes.flush()?;
        factors.flush()?;
        nibbles.flush()?;
    }
    let leaf = leaf_size(n, kind);
    let mut shelf = Shelf {
        space: &space,
        spill,
        codes,
        factors,
        vectors: v.rows,
        place: Vec::new(),
        bounds: vec![0, n as u32],
    };
    job.phase("trees", u64::from(o.trees));
    let trees = if shelf.is_fixed() {
        (0..u64::from(o.trees))
            .into_par_iter()
            .map(|t| {
                let tree = partition::grow(&mut shelf.lend(), leaf, o.seed, t, job);
                job.advance(1);
                tree
            })
            .collect::<Result<Vec<Tree>>>()?
    } else {
        // One after the other: each brings the rows into an order of its own.
        (0..u64::from(o.trees))
            .map(|t| {
                let tree = partition::grow(&mut shelf, leaf, o.seed, t, job);
                job.advance(1);
                tree
            })
            .collect::<Result<Vec<Tree>>>()?
    };
    job.phase("lists", 0);
    shelf.arrange(&trees[0].rows, &trees[0].starts, job)?;
    let means = trees[0].centroids.means();
    let lists = kind
        .map(|kind| Lists::build(&shelf, &trees[0], &means, kind, job))
        .transpose()?;
    job.phase("calibrate", 0);
    let rows = shelf.rows();
    let (curve, hardness) = match &lists {
        Some(lists) => calibrate::curve(&rows, &trees[0], &means, lists, o.seed, job)?,
        None => Default::default(),
    };
    let radii = plane::radii(&rows, &trees[0], job)?;
    job.phase("write", 0);
    let header = Header {
        metric: o.metric,
        dim: v.dim,
        leaf,
        store: o.store,
        n,
        trees: trees.len(),
        seed: o.seed,
        max_norm: space.max_norm,
        splits: trees.iter().map(|t| t.splits).sum(),
        degenerate: trees.iter().map(|t| t.degenerate).sum(),
        lists: kind,
        hardness,
    };
    let Shelf {
        codes,
        factors,
        place,
        bounds,
        ..
    } = shelf;
    let content = Content {
        space: &space,
        spill,
        ids: input.ids,
        vectors: input.rows,
        codes,
        factors,
        nibbles,
        place,
        bounds,
        trees,
        means,
        lists,
        radii,
        curve,
    };
    Image::new(&header, content, job)
}

/// Largest norm and mean point.
fn fit(v: &Vectors, o: &BuildOptions, job: &Job) -> Result<Space> {
    let chunk = CHUNK * v.dim;
    let norms = v
        .rows
        .par_chunks(chunk)
        .enumerate()
        .map(|(c, rows)| {
            job.check()?;
            let mut largest = 0.0f64;
            for (i, row) in rows.chunks_exact(v.dim).enumerate() {
                let norm = dot32(row, row);
                // Squares of f32 never overflow f64, so only a component that is not finite makes this sum so.
                ensure!(
                    norm.is_finite(),
                    "the vector of rowid {} has a component that is not finite",
                    v.ids[c * CHUNK + i]
                );
                largest = largest.max(norm);
            }
            Ok(largest)
        })
        .collect::<Result<Vec<f64>>>()?;
    // A hair above, so that no vector sticks out of the unit ball by rounding.
    let max_norm = norms.into_iter().fold(0.0, f64::max).sqrt() * (1.0 + 1e-12);
    let unit = Space::unit(o.metric, max_norm);
    let work = work_dim(o.metric, v.dim);
    // Few large chunks: each holds a sum of `work` numbers until they are added up in order.
    let rows_each = v.ids.len().div_ceil(64).max(CHUNK);
    let sums = v
        .rows
        .par_chunks(rows_each * v.dim)
        .map(|rows| {
            let mut sum = vec![0.0f64; work];
            for row in rows.chunks_exact(v.dim) {
                job.check()?;
                let by = Space::multiplier(o.metric, unit, row, Role::Item);
                for (s, &x) in sum.iter_mut().zip(row) {
                    *s += f64::from(x) * by;
                }
                if o.metric == Metric::Dot {
                    sum[v.dim] += Space::lift(unit, row);
                }
            }
            Ok(sum)
        })
        .collect::<Result<Vec<_>>>()?;
    let mut mean = vec![0.0f64; work];
    for sum in sums {
        for (m, s) in mean.iter_mut().zip(sum) {
            *m += s;
        }
    }
    let n = v.ids.len().max(1) as f64;
    let mean = mean.into_iter().map(|m| (m / n) as f32).collect();
    Ok(Space::new(o.metric, v.dim, max_norm, mean, o.seed))
}
