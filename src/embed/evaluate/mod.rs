//! How good word vectors are: analogies (Mikolov et al. 2013) and pairs that people have judged.
//!
//! Questions, defaults and figures are gensim's, so that numbers can be compared: words are compared in upper case (of
//! several spellings the most frequent one counts), only the first `restrict_vocab` words are known, and what contains
//! other words is left out, or counts as wrong (as 0 for pairs) with `dummy4unknown`.

mod analogies;
mod pairs;
mod statistics;

use rustc_hash::FxHashMap;

use crate::embed::matrix::Matrix;

pub use analogies::{Method, Questions, Score, analogies};
pub use pairs::{Agreement, Judgements, pairs};

/// What is evaluated: words, most frequent first, and their vectors.
#[derive(Debug)]
pub struct Subject {
    /// Unit vectors, a row for each word.
    vectors: Matrix,
    /// The word that stands for all spellings of this one: the first of them.
    spelling: Vec<u32>,
    /// By spelling, in upper case if case does not matter.
    ids: FxHashMap<String, u32>,
    case_insensitive: bool,
}

impl Subject {
    /// Words with their vectors in order; a vector of length zero stays zero.
    ///
    /// # Errors
    /// No memory, or vectors of different lengths.
    pub fn new(words: Vec<(String, Vec<f32>)>, case_insensitive: bool) -> anyhow::Result<Subject> {
        let dim = words.first().map_or(1, |(_, vector)| vector.len());
        let mut subject = Subject {
            vectors: Matrix::zeros(words.len(), dim)?,
            spelling: Vec::with_capacity(words.len()),
            ids: FxHashMap::default(),
            case_insensitive,
        };
        for (i, (word, vector)) in words.into_iter().enumerate() {
            if vector.len() != dim {
                anyhow::bail!(
                    "the vector of '{word}' has {} components, expected {dim} as the others have",
                    vector.len()
                );
            }
            let norm = vector
                .iter()
                .map(|&x| f64::from(x) * f64::from(x))
                .sum::<f64>()
                .sqrt();
            if norm > 0.0 {
                let unit = vector.iter().map(|&x| (f64::from(x) / norm) as f32);
                subject
                    .vectors
                    .row_mut(i)
                    .iter_mut()
                    .zip(unit)
                    .for_each(|(to, x)| *to = x);
            }
            let key = subject.key(&word);
            subject
                .spelling
                .push(*subject.ids.entry(key).or_insert(i as u32));
        }
        Ok(subject)
    }

    fn key(&self, word: &str) -> String {
        if self.case_insensitive {
            word.to_uppercase()
        } else {
            word.to_owned()
        }
    }

    fn find(&self, word: &str) -> Option<u32> {
        self.ids.get(&self.key(word)).copied()
    }
}
