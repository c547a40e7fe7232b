//! More text for a model that was trained before: its words keep their ids and vectors, new words are added behind them.
//!
//! As gensim's `build_vocab(update=True)` and `train`: counts of known words grow by what the new text has of them; a word
//! that is new is taken in if the new text has it at least `min_count` times. A new word's input vector begins at random,
//! its output vector at zero. Ids are therefore no longer ranks by count.

use anyhow::{Result, bail};
use rustc_hash::FxHashMap;

use crate::embed::corpus::Corpus;
use crate::embed::matrix::Matrix;
use crate::embed::options::Options;
use crate::embed::tokenize::Tokenizer;
use crate::embed::train::{Weights, initial};
use crate::embed::vocab::Vocabulary;

/// Reads the new text.
#[derive(Debug)]
pub struct Update {
    tokenizer: Tokenizer,
    min_count: u64,
    n_known: usize,
    words: Vec<Box<str>>,
    numbers: FxHashMap<Box<str>, u32>,
    /// Counts of the model.
    before: Vec<u64>,
    /// Counts in the new text, by number.
    counts: Vec<u64>,
    tokens: Vec<u32>,
    ends: Vec<usize>,
    n_documents: u64,
}

impl Update {
    /// Of the options those of the tokenizer and `min_count` are used.
    #[must_use]
    pub fn new(known: &Vocabulary, options: &Options) -> Update {
        let words: Vec<Box<str>> = (0..known.len() as u32)
            .map(|id| known.word(id).into())
            .collect();
        Update {
            tokenizer: options.tokenizer,
            min_count: options.min_count,
            n_known: words.len(),
            numbers: (0u32..).zip(&words).map(|(i, w)| (w.clone(), i)).collect(),
            counts: vec![0; words.len()],
            before: known.counts().to_vec(),
            words,
            tokens: Vec::new(),
            ends: Vec::new(),
            n_documents: 0,
        }
    }

    /// Adds one document. Now and then `pause` is called, whose error ends the reading.
    ///
    /// # Errors
    /// Those of `pause`, more different words than an id can number, or no memory.
    pub fn add_document(
        &mut self,
        text: &str,
        mut pause: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        self.n_documents += 1;
        if self.tokens.try_reserve(text.len() / 2 + 1).is_err() {
            bail!("no memory for a corpus of {} tokens", self.tokens.len());
        }
        let mut outcome = Ok(());
        let tokenizer = self.tokenizer;
        tokenizer.for_each(text, |token| {
            if outcome.is_err() {
                return;
            }
            let number = match self.numbers.get(token) {
                Some(&number) => number,
                None => match u32::try_from(self.words.len()) {
                    Ok(number) => {
                        self.words.push(token.into());
                        self.counts.push(0);
                        self.numbers.insert(token.into(), number);
                        number
                    }
                    Err(_) => {
                        outcome = Err(anyhow::anyhow!(
                            "the corpus has more than {} different words",
                            u32::MAX
                        ));
                        return;
                    }
                },
            };
            self.counts[number as usize] += 1;
            self.tokens.push(number);
            if self.tokens.len().is_multiple_of(1 << 17) {
                outcome = pause();
            }
        });
        outcome?;
        self.ends.push(self.tokens.len());
        Ok(())
    }

    /// The vocabulary with the new words, and the new text in its ids.
    ///
    /// # Errors
    /// When the text has nothing to train.
    pub fn finish(self) -> Result<(Vocabulary, Corpus)> {
        let n_read = self.tokens.len() as u64;
        let mut new: Vec<usize> = (self.n_known..self.words.len())
            .filter(|&i| self.counts[i] >= self.min_count)
            .collect();
        new.sort_by_key(|&i| std::cmp::Reverse(self.counts[i]));
        let mut ids: Vec<Option<u32>> = (0..self.words.len())
            .map(|i| (i < self.n_known).then_some(i as u32))
            .collect();
        for (id, &i) in (self.n_known as u32..).zip(&new) {
            ids[i] = Some(id);
        }
        let known = (0..self.n_known).map(|i| (i, self.before[i] + self.counts[i]));
        let all = known.chain(new.iter().map(|&i| (i, self.counts[i])));
        let words = all.map(|(i, count)| (self.words[i].clone(), count));
        let mut tokens = Vec::with_capacity(self.tokens.len());
        let mut ends = Vec::with_capacity(self.ends.len());
        let mut from = 0;
        for end in self.ends {
            let kept = self.tokens[from..end].iter();
            tokens.extend(kept.filter_map(|&t| ids[t as usize]));
            from = end;
            if ends.last().copied().unwrap_or(0) < tokens.len() {
                ends.push(tokens.len());
            }
        }
        match Vocabulary::from_words(words) {
            Some(vocabulary) if !tokens.is_empty() => {
                let corpus = Corpus::from_ids(tokens, ends, n_read, self.n_documents);
                Ok((vocabulary, corpus))
            }
            _ => bail!(
                "nothing to train: none of {n_read} tokens is of a word that the model has or that occurs at least {} \
                 times (min_count) in the new text",
                self.min_count
            ),
        }
    }
}

/// The matrices of a model, with rows for new words.
///
/// # Errors
/// When there is no memory for them.
pub fn grow(weights: Weights, n_words: usize, options: &Options) -> Result<Weights> {
    let larger = |small: &Matrix, mut large: Matrix| -> Matrix {
        for i in 0..small.n_rows() {
            large.row_mut(i).copy_from_slice(small.row(i));
        }
        large
    };
    let input = larger(&weights.input, initial(n_words, options)?);
    let output = match weights.output {
        Some(small) => Some(larger(&small, Matrix::zeros(n_words, small.dim())?)),
        None => None,
    };
    Ok(Weights {
        input,
        output,
        nodes: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_keep_their_ids_and_new_ones_follow() {
        let words = [("b", 5), ("a", 9)].map(|(w, n)| (w.into(), n));
        let known = Vocabulary::from_words(words).unwrap();
        let options = Options::from_json(r#"{"min_count":2, "vector_size":3}"#).unwrap();
        let mut update = Update::new(&known, &options);
        for text in ["x a y", "", "rare", "y b x y a"] {
            update.add_document(text, || Ok(())).unwrap();
        }
        let (vocabulary, corpus) = update.finish().unwrap();
        let words: Vec<_> = (0..4).map(|id| vocabulary.word(id)).collect();
        assert_eq!(words, ["b", "a", "y", "x"]);
        assert_eq!(vocabulary.counts(), [6, 11, 3, 2]);
        let documents: Vec<_> = corpus.documents().collect();
        assert_eq!(documents, [&[3, 1, 2][..], &[2, 0, 3, 2, 1]]);

        let weights = Weights::new(2, &options).unwrap();
        let grown = grow(weights.clone(), 4, &options).unwrap();
        assert_eq!(grown.input.row(1), weights.input.row(1));
        assert_eq!(grown.output.unwrap().n_rows(), 4);
        assert!(Update::new(&known, &options).finish().is_err());
    }
}
