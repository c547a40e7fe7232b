//! The words that are trained, and how often each occurs.
//!
//! Sorted by count, descending; words of equal count in the order in which they were first seen. So id 0 is the most
//! frequent word, and the same corpus gives the same ids everywhere.

use anyhow::{Result, bail};
use rustc_hash::FxHashMap;

use crate::embed::options::Options;

/// A word's number: its rank by count.
pub type WordId = u32;

/// Words and counts, most frequent first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<Box<str>>,
    counts: Vec<u64>,
}

impl Vocabulary {
    /// The vocabulary of these words in this order, each with its count. `None`: there are no words.
    #[must_use]
    pub fn from_words(words: impl IntoIterator<Item = (Box<str>, u64)>) -> Option<Vocabulary> {
        let (words, counts): (Vec<_>, Vec<_>) = words.into_iter().unzip();
        (!words.is_empty()).then_some(Vocabulary { words, counts })
    }

    /// Number of words.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a vocabulary is never empty")]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// The word of an id below [`Vocabulary::len`].
    #[must_use]
    pub fn word(&self, id: WordId) -> &str {
        &self.words[id as usize]
    }

    /// Occurrences of every word in the corpus, by id.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Occurrences of all words together: the tokens of the encoded corpus.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The id of a word. Looks at every word; for a handful of look-ups.
    #[must_use]
    pub fn find(&self, word: &str) -> Option<WordId> {
        self.words
            .iter()
            .position(|w| &**w == word)
            .map(|i| i as WordId)
    }
}

/// Counts words as they come and gives each a provisional number, in order of first appearance.
#[derive(Debug, Default)]
pub(super) struct Counter {
    numbers: FxHashMap<Box<str>, u32>,
    /// By provisional number; the count of a forgotten word is [`FORGOTTEN`].
    counts: Vec<u64>,
    /// Words in memory beyond which the rarest are forgotten.
    limit: Option<usize>,
    /// Words that occur less often than this are forgotten next time; rises each time, as in word2vec.c.
    forget_below: u64,
}

const FORGOTTEN: u64 = 0;

impl Counter {
    pub(super) fn new(limit: Option<usize>) -> Counter {
        Counter {
            limit,
            forget_below: 2,
            ..Counter::default()
        }
    }

    /// Counts one occurrence and returns the word's provisional number.
    pub(super) fn count(&mut self, word: &str) -> Result<u32> {
        if let Some(&number) = self.numbers.get(word) {
            self.counts[number as usize] += 1;
            return Ok(number);
        }
        if self.limit.is_some_and(|limit| self.numbers.len() >= limit) {
            self.forget();
        }
        let Ok(number) = u32::try_from(self.counts.len()) else {
            bail!(
                "the corpus has more than {} different words: expected words of a language",
                u32::MAX
            );
        };
        self.counts.push(1);
        self.numbers.insert(word.into(), number);
        Ok(number)
    }

    /// Drops the rarest words. Their occurrences so far are lost, as in gensim; should one come back it starts anew.
    fn forget(&mut self) {
        let (counts, bound) = (&mut self.counts, self.forget_below);
        self.numbers.retain(|_, number| {
            let count = &mut counts[*number as usize];
            let keep = *count >= bound;
            if !keep {
                *count = FORGOTTEN;
            }
            keep
        });
        self.forget_below += 1;
    }

    /// The vocabulary, and the final id of each provisional number (`None`: the word is left out).
    pub(super) fn finish(
        self,
        options: &Options,
        n_read: u64,
    ) -> Result<(Vocabulary, Vec<Option<WordId>>)> {
        let n_seen = self.counts.len();
        let mut all: Vec<(Box<str>, u32)> = self.numbers.into_iter().collect();
        all.sort_unstable_by_key(|(_, number)| {
            (std::cmp::Reverse(self.counts[*number as usize]), *number)
        });
        let count_of = |entry: &(Box<str>, u32)| self.counts[entry.1 as usize];

        let mut bound = options.min_count;
        if let Some(max) = options.max_final_vocab {
            // As gensim: whole classes of equal count go, so that the limit holds.
            bound = bound.max(all.get(max).map_or(0, |entry| count_of(entry) + 1));
        }
        let n_kept = all.partition_point(|entry| count_of(entry) >= bound);
        if n_kept == 0 {
            match all.first() {
                None => bail!(
                    "the corpus has no words: expected text with at least one token for the tokenizer '{}'",
                    options.tokenizer.splitter.name()
                ),
                Some(first) => bail!(
                    "no word is left: {n_read} tokens of {n_seen} words were read, the most frequent, '{}', occurs {} \
                     times, and words that occur less than {bound} times are left out; lower min_count (now {}){} or \
                     give more text",
                    first.0,
                    count_of(first),
                    options.min_count,
                    if options.max_final_vocab.is_some() {
                        ", raise max_final_vocab"
                    } else {
                        ""
                    },
                ),
            }
        }
        all.truncate(n_kept);

        let mut ids = vec![None; n_seen];
        let mut vocabulary = Vocabulary {
            words: Vec::with_capacity(n_kept),
            counts: Vec::with_capacity(n_kept),
        };
        for (id, (word, number)) in all.into_iter().enumerate() {
            ids[number as usize] = Some(id as WordId);
            vocabulary.counts.push(self.counts[number as usize]);
            vocabulary.words.push(word);
        }
        Ok((vocabulary, ids))
    }
}
