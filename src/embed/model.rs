//! What training makes: words with their vectors, and everything needed to go on.

use crate::embed::matrix::Matrix;
use crate::embed::options::Options;
use crate::embed::vocab::{Vocabulary, WordId};

/// A trained word2vec model.
#[derive(Debug, Clone)]
pub struct Model {
    /// What was asked for.
    pub options: Options,
    /// The words; row i of every matrix belongs to id i.
    pub vocabulary: Vocabulary,
    /// The word vectors: [vocabulary, vector_size].
    pub input: Matrix,
    /// Output vectors of negative sampling: [vocabulary, vector_size].
    pub output: Option<Matrix>,
    /// Vectors of the inner nodes of hierarchical softmax: [vocabulary - 1, vector_size].
    pub nodes: Option<Matrix>,
    /// How the training went.
    pub summary: Summary,
}

/// How a training went.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Tokens of the vocabulary's words, times epochs: how many were offered.
    pub raw_words: u64,
    /// Of these, the tokens that subsampling left: how many were trained.
    pub effective_words: u64,
    /// Mean loss of each epoch in nats, `None` if it had nothing to train. For skip-gram the mean over pairs of centre
    /// and context, for CBOW over centres, of the training objective: -log sigma of the true score, plus what the noise
    /// words (or the nodes of the tree) contribute. Measured before each update, on every 31st step.
    pub losses: Vec<Option<f64>>,
}

impl Model {
    /// The vector of a word.
    ///
    /// # Panics
    /// When the id is not in the vocabulary.
    #[must_use]
    pub fn vector(&self, id: WordId) -> &[f32] {
        self.input.row(id as usize)
    }
}
