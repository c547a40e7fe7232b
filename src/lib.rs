//! Text to vectors, and vectors to nearest neighbours, in SQL.
//!
//! The crate is a core without SQLite and a surface on top of it; dependencies point down only:
//!
//! ```text
//! sql -> { embed, annoy -> forest } -> { kernel, vector }
//! ```
//!
//! * [`vector`]: what a vector is: element types, metrics, the BLOB and JSON codecs, validation.
//! * [`kernel`]: dot products and distances, one algorithm and one thin instance for each instruction set.
//! * [`embed`]: from text to vectors: tokenizers, vocabulary, word2vec.
//! * [`forest`]: from vectors to neighbours: the index file, its build, approximate and exact search.
//! * [`annoy`]: the files of the library Annoy.
//! * `sql`: the functions, table functions and virtual tables that SQLite sees (feature `sql`).
//! * [`shape`]: groups of vectors, and a picture of them.
//! * [`job`]: how long work reports and stops.
//!
//! `embed` and `forest` do not know each other: they meet in an SQL table of vectors.

pub mod annoy;
pub mod embed;
pub mod forest;
pub mod job;
pub mod kernel;
pub mod shape;
mod spelling;
pub mod vector;

#[cfg(feature = "sql")]
pub mod entry;
#[cfg(feature = "sql")]
mod sql;
#[cfg(feature = "sql")]
pub use entry::register;
