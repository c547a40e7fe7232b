//! From vectors to neighbours: the index file, its build, approximate and exact search.
//!
//! ```text
//! Vectors -> space (points, byte codes) -> partition (trees) -> build -> Image -> bytes (format)
//! bytes -> Forest (open, verify) -> search (the leaves near the query) or exact (all rows), both -> Hits
//! ```
//!
//! A forest divides the rows several times (once for each tree) into leaves of near neighbours, ranks leaves by the
//! distance of their centroid, and scores whole leaves, nearest first, until the budget is spent. Annoy's idea of a
//! forest of 2-means trees in one read-only file; unlike Annoy's, leaves are cells around centroids, ranked by the
//! very rule that filled them, and rows are scored from contiguous byte codes.
//!
//! * [`space`]: one euclidean geometry for every metric; byte codes with a proven error bound.
//! * [`rotate`]: the turn that makes byte codes good.
//! * [`shelf`]: where rows lie while they are built from; [`crate::spill`] has them in memory or in files.
//! * [`partition`]: one tree, from [`cut`] rows and [`centroids`].
//! * [`lists`]: the leaves of the first tree as codes of one or two bits a dimension, for approximate search.
//! * [`directory`]: which leaves are near a query, without a look at all of them.
//! * [`calibrate`]: how much of them a promised recall needs.
//! * [`mod@build`]: all of it together, and an [`image`] of the file.
//! * [`need`]: what a build will need of memory and disk.
//! * [`mod@format`]: the only place that knows the bytes.
//! * [`mod@file`]: a forest over bytes: opening, asking what it is, verifying ([`check`]).
//! * [`search`]: approximate search: what to look at ([`near`]), and the bound and the exact distances ([`score`]).
//! * [`batch`]: the same for many queries.
//! * [`originals`]: the vectors themselves, in the file or not.
//! * [`mod@exact`]: exact search, over the four-bit plane ([`plane`]).
//! * [`filter`]: which rows may be among an answer; [`among`]: the search when they are few.
//! * [`scan`]: rows that are in no index.
//! * [`typed`]: the same for any element type.
//! * [`topk`]: the k best so far.
//!
//! The core knows neither SQLite nor files: bytes come as anything that is `AsRef<[u8]>`, the map stays outside.
//!
//! A file is written once, and read where it lies. Here a search among some rows only:
//!
//! ```
//! use sqlite_annoy::forest::{self, Ask, BuildOptions, Forest, RowSet, Scratch, Stats, VectorStore, Vectors};
//! use sqlite_annoy::{job::Job, vector::Metric};
//!
//! // 5,000 points on a spiral, of three dimensions.
//! let point = |i: i64| [(i as f32 * 0.01).sin(), (i as f32 * 0.01).cos(), i as f32 * 0.001];
//! let ids: Vec<i64> = (0..5000).collect();
//! let rows: Vec<f32> = ids.iter().flat_map(|&i| point(i)).collect();
//! let vectors = Vectors { dim: 3, ids: &ids, rows: &rows };
//! let options = BuildOptions { metric: Metric::L2, trees: 1, seed: 1, threads: 2, store: VectorStore::F32 };
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("spiral.annoy");
//! let mut out = std::io::BufWriter::new(std::fs::File::create(&path)?);
//! forest::build(&vectors, &options, &Job::new())?.write_to(&mut out)?;
//! out.into_inner()?;
//!
//! // SAFETY: nobody changes the file while it is mapped.
//! let map = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path)?)? };
//! let forest = Forest::open(map)?;
//! assert_eq!((forest.len(), forest.dim()), (5000, 3));
//! let even = RowSet::new((0..5000).step_by(2).collect());
//! let hidden = Default::default();
//! let ask = Ask { among: Some(&even), ..Ask::nearest(3, &hidden) };
//! let near = forest.exact_with(&point(701), &ask, &mut Scratch::default(), &mut Stats::default());
//! assert_eq!(near[0].rowid % 2, 0);
//! assert!((near[0].rowid - 701).abs() == 1 && near[0].distance < 0.02);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Rows that are in no file are scanned:
//!
//! ```
//! use sqlite_annoy::forest::{RowScan, TopK};
//! use sqlite_annoy::vector::Metric;
//!
//! let scan = RowScan::new(Metric::Cosine, vec![1.0, 0.2]);
//! let mut best = TopK::new(2);
//! for (rowid, row) in [(1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [1.0, 1.0])] {
//!     assert!(scan.push(rowid, &row, &mut best), "all components are numbers");
//! }
//! assert_eq!(best.into_sorted().iter().map(|hit| hit.rowid).collect::<Vec<_>>(), [1, 3]);
//! ```

mod among;
mod batch;
mod build;
mod calibrate;
mod centroids;
mod check;
mod cut;
mod directory;
mod exact;
mod file;
mod filter;
mod format;
mod hardness;
mod image;
mod lists;
mod near;
mod need;
mod originals;
mod partition;
mod plane;
mod random;
mod rotate;
mod scan;
mod score;
mod search;
mod shelf;
mod space;
mod topk;
mod typed;

pub use build::{BuildOptions, Input, MAX_TREES, build, build_exact, build_large};
pub use exact::{Ask, Stats};
pub use file::{Bytes, CurvePoint, Forest, Info};
pub use filter::{Filter, RowSet};
#[cfg(feature = "sql")]
pub(crate) use format::MAGIC;
pub use image::Image;
pub use need::Need;
pub use originals::{Originals, VectorStore};
pub(crate) use random::Random;
pub use scan::RowScan;
pub use search::{Budget, DEFAULT_RECALL, Scratch};
pub use topk::{Hit, TopK};
pub use typed::{TypedScan, widened};

/// Rows to index: `ids[i]` is the rowid of the vector `rows[i * dim..][..dim]`.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// Components of a vector, 1..=[`crate::vector::MAX_DIM`].
    pub dim: usize,
    /// Rowids, ascending, no two equal.
    pub ids: &'a [i64],
    /// The vectors, `[ids.len(), dim]` row-major, all components finite.
    pub rows: &'a [f32],
}
