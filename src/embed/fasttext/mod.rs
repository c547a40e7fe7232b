//! fastText (Bojanowski et al. 2017: "Enriching word vectors with subword information"): a word is the mean of a vector of
//! its own and the vectors of its n-grams, so that words that were never seen have vectors, too.
//!
//! * [`ngrams`]: the n-grams of a word, and the bucket that each falls into.
//! * [`mod@train`]: learning; [`facebook`]: reading the `.bin` files of the original program.
//!
//! Buckets are many (2,000,000), and most stay empty. What is trained here keeps the buckets that the vocabulary's n-grams
//! fall into and no others: an unknown word is the mean of those of its n-grams that are known. The original keeps rows
//! for all, those that never learned being noise. A file's buckets are all kept.

pub mod facebook;
pub mod ngrams;
mod options;
mod train;

pub use options::FasttextOptions;
pub use train::train;

use crate::embed::matrix::Matrix;
use crate::embed::vocab::{Vocabulary, WordId};

/// A fastText model.
#[derive(Debug, Clone)]
pub struct Fasttext {
    /// What was asked for.
    pub options: FasttextOptions,
    /// The words.
    pub vocabulary: Vocabulary,
    /// The words' own vectors: [vocabulary, vector_size].
    pub words: Matrix,
    /// The n-grams of each word, as rows of `ngrams`: those of word i end at `ends[i]`.
    rows: Vec<u32>,
    ends: Vec<usize>,
    /// The bucket of each row, ascending.
    pub buckets: Vec<u32>,
    /// Vectors of n-grams: [buckets, vector_size].
    pub ngrams: Matrix,
    /// Output vectors of negative sampling: [vocabulary, vector_size].
    pub output: Option<Matrix>,
    /// Vectors of the inner nodes of hierarchical softmax.
    pub nodes: Option<Matrix>,
    /// Mean loss of each epoch; `None` for one that was read from a file, or that had nothing to train.
    pub losses: Vec<Option<f64>>,
}

impl Fasttext {
    /// The rows of a word's n-grams.
    fn rows_of(&self, id: WordId) -> &[u32] {
        let i = id as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.rows[start..self.ends[i]]
    }

    /// The vector of a word: the mean of its own and its n-grams'.
    ///
    /// # Panics
    /// When the id is not in the vocabulary.
    #[must_use]
    pub fn vector(&self, id: WordId) -> Vec<f32> {
        let rows = self.rows_of(id);
        let ngrams = rows.iter().map(|&row| self.ngrams.row(row as usize));
        mean(std::iter::once(self.words.row(id as usize)).chain(ngrams))
    }
}

/// The mean of vectors; empty if there are none.
#[must_use]
pub fn mean<'a>(vectors: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut sum: Vec<f64> = Vec::new();
    let mut n = 0.0;
    for vector in vectors {
        sum.resize(vector.len(), 0.0);
        sum.iter_mut()
            .zip(vector)
            .for_each(|(s, &x)| *s += f64::from(x));
        n += 1.0;
    }
    sum.iter().map(|s| (s / n) as f32).collect()
}
