//! A corpus whose documents are known by a key, also those without a word of the vocabulary: what doc2vec trains on.

use std::ops::Range;

use anyhow::{Result, bail};

use crate::embed::options::Options;
use crate::embed::vocab::{Counter, Vocabulary, WordId};

/// Tokens after which a chunk ends: see [`corpus`](crate::embed::corpus).
const CHUNK: usize = 16_384;

/// Reads documents.
#[derive(Debug)]
pub struct DocumentReader {
    options: Options,
    counter: Counter,
    tokens: Vec<u32>,
    ends: Vec<usize>,
    keys: Vec<i64>,
}

impl DocumentReader {
    /// No documents; of the options those of tokenizer and vocabulary are used.
    #[must_use]
    pub fn new(options: &Options) -> DocumentReader {
        DocumentReader {
            options: options.clone(),
            counter: Counter::new(options.max_vocab_size),
            tokens: Vec::new(),
            ends: Vec::new(),
            keys: Vec::new(),
        }
    }

    /// Adds one document. Now and then `pause` is called, whose error ends the reading.
    ///
    /// # Errors
    /// Those of `pause`, more different words than an id can number, or no memory.
    pub fn add(
        &mut self,
        key: i64,
        text: &str,
        mut pause: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        if self.tokens.try_reserve(text.len() / 2 + 1).is_err() {
            bail!("no memory for a corpus of {} tokens", self.tokens.len());
        }
        let mut outcome = Ok(());
        let tokenizer = self.options.tokenizer;
        tokenizer.for_each(text, |token| {
            if outcome.is_err() {
                return;
            }
            match self.counter.count(token) {
                Ok(number) => self.tokens.push(number),
                Err(e) => outcome = Err(e),
            }
            if self.tokens.len().is_multiple_of(1 << 17) {
                outcome = pause();
            }
        });
        outcome?;
        self.ends.push(self.tokens.len());
        self.keys.push(key);
        Ok(())
    }

    /// The vocabulary, and the documents in its ids.
    ///
    /// # Errors
    /// When no word is left, with the reason.
    pub fn finish(self) -> Result<(Vocabulary, Documents)> {
        let n_read = self.tokens.len() as u64;
        let (vocabulary, ids) = self.counter.finish(&self.options, n_read)?;
        let mut tokens = Vec::with_capacity(vocabulary.n_tokens() as usize);
        let mut from = 0;
        let mut ends = self.ends;
        for end in &mut ends {
            let read = self.tokens[from..*end].iter();
            tokens.extend(read.filter_map(|&t| ids[t as usize]));
            from = *end;
            *end = tokens.len();
        }
        let documents = Documents {
            tokens,
            ends,
            keys: self.keys,
            n_read,
        };
        Ok((vocabulary, documents))
    }
}

/// Documents as word ids.
#[derive(Debug, Clone)]
pub struct Documents {
    tokens: Vec<WordId>,
    /// Where each document ends.
    ends: Vec<usize>,
    keys: Vec<i64>,
    n_read: u64,
}

impl Documents {
    /// Number of documents.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a vocabulary has words, so there is a document"
    )]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The keys of all documents.
    #[must_use]
    pub fn keys(&self) -> &[i64] {
        &self.keys
    }

    /// Tokens that were read, whether their word is in the vocabulary or not.
    #[must_use]
    pub fn n_read(&self) -> u64 {
        self.n_read
    }

    /// Tokens of words in the vocabulary.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens of the longest document.
    pub(super) fn longest(&self) -> usize {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| end - start)
            .max()
            .unwrap_or(0)
    }

    /// A document's first token among all, and its tokens.
    pub(super) fn document(&self, i: usize) -> (usize, &[WordId]) {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        (start, &self.tokens[start..self.ends[i]])
    }

    /// Runs of documents, each the work of one thread at a time.
    pub(super) fn chunks(&self) -> Vec<Range<usize>> {
        let mut chunks = Vec::new();
        let (mut first, mut start) = (0, 0);
        for (i, &end) in self.ends.iter().enumerate() {
            if end - start >= CHUNK || i + 1 == self.ends.len() {
                chunks.push(first..i + 1);
                (first, start) = (i + 1, end);
            }
        }
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_keys_also_when_no_word_of_them_is_left() {
        let options = Options::from_json(r#"{"min_count":2}"#).unwrap();
        let mut reader = DocumentReader::new(&options);
        for (key, text) in [(7, "a b"), (-3, "rare"), (9, ""), (8, "b a a")] {
            reader.add(key, text, || Ok(())).unwrap();
        }
        let (vocabulary, documents) = reader.finish().unwrap();
        assert_eq!(vocabulary.counts(), [3, 2]);
        assert_eq!(documents.keys(), [7, -3, 9, 8]);
        let found: Vec<_> = (0..4).map(|i| documents.document(i).1.to_vec()).collect();
        assert_eq!(found, [vec![0, 1], vec![], vec![], vec![1, 0, 0]]);
        assert_eq!(documents.chunks().len(), 1);
    }

    #[test]
    fn chunks_are_whole_documents_and_cover_all() {
        let mut reader = DocumentReader::new(&Options::from_json(r#"{"min_count":1}"#).unwrap());
        for (key, n) in [(0, 1), (1, 20_000), (2, 5), (3, 16_400), (4, 0)] {
            reader.add(key, &"w ".repeat(n), || Ok(())).unwrap();
        }
        let (_, documents) = reader.finish().unwrap();
        assert_eq!(documents.chunks(), [0..2, 2..4, 4..5]);
    }
}
