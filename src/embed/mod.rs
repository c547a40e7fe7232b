//! From text to vectors: word2vec (Mikolov et al. 2013), with gensim's parameters.
//!
//! ```text
//! text -> tokenize -> corpus + vocab -> train (sampling, huffman, hogwild -> kernel::window) -> model
//! ```
//!
//! * [`options`]: what a user may ask for; [`tokenize`]: from text to tokens.
//! * [`vocab`], [`corpus`]: words by rank, and the text as ids of 4 bytes a token (`reading`: how it gets there, on several
//!   threads; `tokens`: in memory or in a file).
//! * [`sampling`]: which tokens are trained, which words are noise; [`huffman`]: the tree of hierarchical softmax;
//!   [`random`]: one stream for each (seed, epoch, chunk).
//! * [`doc2vec`]: vectors of documents; [`fasttext`]: words as n-grams. `predict` is what their training has in common,
//!   [`documents`] their corpus.
//! * [`update`]: more text for a model. [`phrases`]: words that belong together.
//! * `epochs`: threads, learning rate and loss, of every training.
//! * [`train`]: the loop over the corpus. The arithmetic of one window is in [`kernel::window`](crate::kernel::window).
//! * [`matrix`]: rows of vectors; `hogwild`: the same rows under several threads.
//! * [`model`]: what comes out; [`formats`]: the files in which vectors travel; [`evaluate`]: how good
//!   vectors are.
//!
//! Nothing here knows SQLite. The clock is not read, threads and seeds are arguments.

pub mod corpus;
pub mod doc2vec;
pub mod documents;
mod epochs;
pub mod evaluate;
pub mod fasttext;
pub mod formats;
mod hogwild;
pub mod huffman;
pub mod matrix;
pub mod model;
pub mod options;
pub mod phrases;
mod predict;
pub mod random;
mod reading;
pub mod sampling;
pub mod strict_json;
pub mod tokenize;
mod tokens;
pub mod train;
pub mod update;
pub mod vocab;
