//! The words that are trained, and how often each occurs.
//!
//! Sorted by count, descending; words of equal count in the order in which they were first seen. So id 0 is the most
//! frequent word, and the same corpus gives the same ids everywhere.

use anyhow::{Result, anyhow, bail};
use rustc_hash::{FxHashMap, FxHashSet};

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

/// What a provisional number becomes when its word is left out. No id is as large.
pub(super) const LEFT_OUT: WordId = WordId::MAX;

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
        let number = self.counts.len() as u32;
        if self.counts.len() >= LEFT_OUT as usize {
            bail!(
                "the corpus has more than {LEFT_OUT} different words: expected words of a language"
            );
        }
        self.counts.push(1);
        self.numbers.insert(word.into(), number);
        Ok(number)
    }

    /// How many provisional numbers were given.
    pub(super) fn n_numbers(&self) -> usize {
        self.counts.len()
    }

    /// The vocabulary, and the final id of each provisional number (`None`: the word is left out).
    ///
    /// # Errors
    /// No word is left, with the reason.
    pub(super) fn finish(
        self,
        options: &Options,
        n_read: u64,
    ) -> Result<(Vocabulary, Vec<Option<WordId>>)> {
        let first = (0..self.counts.len() as u64).collect();
        let (vocabulary, ids) = settle(vec![(self, first)], options, n_read)?;
        let ids = ids.into_iter().flatten();
        Ok((
            vocabulary,
            ids.map(|id| (id != LEFT_OUT).then_some(id)).collect(),
        ))
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
}

/// A word that was counted: how often, and where it came first. Later places are larger numbers.
struct Seen {
    word: Box<str>,
    count: u64,
    first: u64,
}

/// The vocabulary of several counters together, and for each of them the final id of every provisional number. `first`
/// has for each counter the place where each of its numbers was given.
///
/// # Errors
/// No word is left, with the reason, or there are more words than ids.
pub(super) fn settle(
    counters: Vec<(Counter, Vec<u64>)>,
    options: &Options,
    n_read: u64,
) -> Result<(Vocabulary, Vec<Vec<WordId>>)> {
    let mut n_seen = 0;
    let mut all: Vec<Seen> = Vec::new();
    // For each counter and number the word in `all`; none for one that was forgotten.
    let mut places: Vec<Vec<u32>> = Vec::new();
    let mut index: FxHashMap<Box<str>, u32> = FxHashMap::default();
    let alone = counters.len() == 1;
    for (counter, first) in counters {
        n_seen = n_seen.max(counter.counts.len());
        let mut place = vec![LEFT_OUT; counter.counts.len()];
        for (word, number) in counter.numbers {
            let (count, first) = (counter.counts[number as usize], first[number as usize]);
            let next = all.len() as u32;
            let i = if alone {
                next
            } else {
                *index.entry(word.clone()).or_insert(next)
            };
            if i < next {
                let seen = &mut all[i as usize];
                seen.count += count;
                seen.first = seen.first.min(first);
            } else if all.len() < LEFT_OUT as usize {
                all.push(Seen { word, count, first });
            } else {
                bail!(
                    "the corpus has more than {LEFT_OUT} different words: expected words of a language"
                );
            }
            place[number as usize] = i;
        }
        places.push(place);
    }
    drop(index);
    n_seen = n_seen.max(all.len());

    let stop: FxHashSet<&str> = options.stop_words.iter().map(String::as_str).collect();
    let mut order: Vec<u32> = (0..all.len() as u32)
        .filter(|&i| !stop.contains(&*all[i as usize].word))
        .collect();
    order.sort_unstable_by_key(|&i| {
        let seen = &all[i as usize];
        (std::cmp::Reverse(seen.count), seen.first)
    });
    let count_of = |&i: &u32| all[i as usize].count;

    let mut bound = options.min_count;
    if let Some(max) = options.max_final_vocab {
        // As gensim: whole classes of equal count go, so that the limit holds.
        bound = bound.max(order.get(max).map_or(0, |i| count_of(i) + 1));
    }
    let n_kept = order.partition_point(|i| count_of(i) >= bound);
    if n_kept == 0 {
        return Err(nothing_left(
            order.first().map(|&i| &all[i as usize]),
            options,
            n_read,
            n_seen,
            bound,
        ));
    }
    order.truncate(n_kept);

    let mut ids = vec![LEFT_OUT; all.len()];
    let mut vocabulary = Vocabulary {
        words: Vec::with_capacity(n_kept),
        counts: Vec::with_capacity(n_kept),
    };
    for (id, &i) in order.iter().enumerate() {
        let seen = &mut all[i as usize];
        ids[i as usize] = id as WordId;
        vocabulary.counts.push(seen.count);
        vocabulary.words.push(std::mem::take(&mut seen.word));
    }
    for place in places.iter_mut().flatten() {
        *place = ids.get(*place as usize).copied().unwrap_or(LEFT_OUT);
    }
    Ok((vocabulary, places))
}

/// Why the vocabulary is empty; `best` is the most frequent word.
fn nothing_left(
    best: Option<&Seen>,
    options: &Options,
    n_read: u64,
    n_seen: usize,
    bound: u64,
) -> anyhow::Error {
    match best {
        None if n_seen > 0 => anyhow!(
            "no word is left: {n_read} tokens of {n_seen} words were read, and all of them are stop_words; give more text"
        ),
        None => anyhow!(
            "the corpus has no words: expected text with at least one token for the tokenizer '{}'",
            options.tokenizer.splitter.name()
        ),
        Some(best) => anyhow!(
            "no word is left: {n_read} tokens of {n_seen} words were read, the most frequent, '{}', occurs {} \
             times, and words that occur less than {bound} times are left out; lower min_count (now {}){} or \
             give more text",
            best.word,
            best.count,
            options.min_count,
            if options.max_final_vocab.is_some() {
                ", raise max_final_vocab"
            } else {
                ""
            },
        ),
    }
}
