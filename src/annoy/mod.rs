//! Annoy's own files (`.ann`): reading what the annoy package saved, and writing what it loads.
//!
//! Such a file is an array of nodes of one size, without header, checksum, dimension or metric: who reads it must know
//! dimension and metric. In order: the items, node `i` being item `i` (or empty, where no item has that number); the nodes
//! of every tree, children before their parents; and copies of the roots. Numbers are little-endian, `i32` and `f32`.
//!
//! ```text
//! angular     count i32, norm f32,                            vector    count = 1: an item; 0: no item
//! euclidean   count i32, offset f32, children i32 [2],        vector    count <= bucket: a list of items from
//! manhattan   as euclidean                                              `children` on, over the vector
//! dot         count i32, children i32 [2], lift f32,          vector    more: a plane, and two children
//! hamming     count i32, children i32 [2], 0 i32, u64 words of 64 bits; of a plane: the number of a bit
//! ```
//!
//! (Of angular, `children` lie over `norm` and the four bytes behind it, as every node has room for two of them.) A root's
//! count is the number of items, those that are missing included; that is how Annoy finds the roots: from the end
//! backwards, as long as the count stays the same.
//!
//! * [`layout`]: where a number is in a node.
//! * [`read`]: opening a file. Annoy follows every number in it unseen; here all are checked first.
//! * [`split`]: a plane between rows.
//! * [`mod@write`]: trees over rows, and the file.
//!
//! ```
//! use sqlite_annoy::annoy::{self, AnnoyFile, AnnoyMetric, Trees};
//! use sqlite_annoy::{forest::Vectors, job::Job};
//!
//! // Items 0, 1 and 4, of two components.
//! let vectors = Vectors { dim: 2, ids: &[0, 1, 4], rows: &[1.0, 0.0, 0.5, 0.5, 0.0, 1.0] };
//! let trees = Trees { metric: AnnoyMetric::Angular, trees: 10, seed: 1, threads: 1 };
//! let mut bytes = Vec::new();
//! annoy::write(&vectors, &trees, &mut bytes, &Job::new())?; // AnnoyIndex(2, "angular").load(...) reads this
//!
//! let file = AnnoyFile::open(&bytes, 2, AnnoyMetric::Angular)?;
//! assert_eq!((file.len(), file.numbers(), file.trees()), (3, 5, 10));
//! assert_eq!((file.vector(1), file.vector(2)), (Some(vec![0.5, 0.5]), None));
//! let error = AnnoyFile::open(&bytes[..bytes.len() - 1], 2, AnnoyMetric::Angular).unwrap_err();
//! assert!(error.to_string().contains("not a whole file of Annoy"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod layout;
mod read;
mod split;
mod write;

pub use layout::AnnoyMetric;
pub use read::AnnoyFile;
pub use write::{Trees, numbers, write};
