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
//! * [`spill`]: arrays that may be larger than memory.
//!
//! `embed` and `forest` do not know each other: they meet in an SQL table of vectors.
//!
//! # From Rust
//!
//! An app that uses rusqlite with its bundled SQLite (features `bundled` here and there, `default-features = false`) calls
//! [`register`] for each connection; all of SQL is there then:
//!
//! ```no_run
//! # #[cfg(feature = "sql")]
//! # fn main() -> rusqlite::Result<()> {
//! let conn = rusqlite::Connection::open("app.db")?;
//! sqlite_annoy::register(&conn)?;
//! let distance: f64 = conn.query_row("SELECT vec_distance_l2('[1, 2]', '[4, 6]')", [], |row| row.get(0))?;
//! assert_eq!(distance, 5.0);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "sql"))]
//! # fn main() {}
//! ```
//!
//! The core needs no SQLite (`default-features = false`). An index over vectors, its file, approximate and exact search:
//!
//! ```
//! use sqlite_annoy::forest::{self, Budget, BuildOptions, Forest, Scratch, VectorStore, Vectors};
//! use sqlite_annoy::{job::Job, vector::Metric};
//!
//! // Six vectors of two dimensions.
//! let rows = [1.0, 0.0, 0.9, 0.1, 0.8, 0.3, 0.0, 1.0, 0.1, 0.9, -1.0, 0.0f32];
//! let vectors = Vectors { dim: 2, ids: &[10, 20, 30, 40, 50, 60], rows: &rows };
//! let options = BuildOptions { metric: Metric::Cosine, trees: 1, seed: 1, threads: 1, store: VectorStore::F32 };
//! let image = forest::build(&vectors, &options, &Job::new())?;
//!
//! // `write_to` a file and map it, or keep it in memory.
//! let forest = Forest::open(image.to_bytes())?;
//! let hidden = Default::default(); // rowids that must not be answered
//! let mut scratch = Scratch::default();
//! let near = forest.search(&[1.0, 0.1], 2, Budget::Recall(0.99), &hidden, &mut scratch);
//! assert_eq!(near.iter().map(|hit| hit.rowid).collect::<Vec<_>>(), [20, 10]);
//! assert_eq!(near, forest.exact(&[1.0, 0.1], 2, &hidden, &mut scratch));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Word vectors from text:
//!
//! ```
//! use sqlite_annoy::embed::{corpus::CorpusBuilder, options::Options, train::train};
//! use sqlite_annoy::{job::Job, kernel};
//!
//! let options = Options::from_json(r#"{"vector_size": 16, "min_count": 1, "sg": 1, "epochs": 5}"#)?;
//! let mut builder = CorpusBuilder::new(&options);
//! for text in ["the moon at night", "a star at night", "bread and butter"] {
//!     builder.add_document(text)?;
//! }
//! let (vocabulary, corpus) = builder.finish()?;
//! let model = train(vocabulary, &corpus, &options, kernel::level(), &Job::new())?;
//! let night = model.vocabulary.find("night").expect("a word of the text");
//! assert_eq!(model.vector(night).len(), 16);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod annoy;
pub mod embed;
pub mod forest;
pub mod job;
pub mod kernel;
pub mod shape;
mod spelling;
pub mod spill;
pub mod vector;

#[cfg(feature = "sql")]
pub mod entry;
#[cfg(feature = "sql")]
mod sql;
#[cfg(feature = "sql")]
pub use entry::register;
