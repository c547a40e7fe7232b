//! Words that belong together, such as `new york`, become one token (Mikolov et al. 2013: "Distributed representations
//! of words and phrases and their compositionality", section 4). What is counted, scored and joined is what gensim's
//! `Phrases` counts, scores and joins.
//!
//! Neighbouring words a, b are a phrase if their score is above a threshold; V is the number of different words and
//! pairs, N the number of tokens:
//!
//! * `default`: (n_ab - min_count) / (n_a n_b) * V
//! * `npmi`: ln(p_ab / (p_a p_b)) / -ln(p_ab), p = n / N, from -1 to 1 (Bouma 2009), for pairs seen at least min_count times
//!
//! Connector words (`of`, `the`) may stand inside a phrase but not at its ends, and have no say in the score. A text is
//! joined greedily from left to right.

use anyhow::{Result, bail};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Value, json};

use crate::embed::options::Given;
use crate::embed::tokenize::{Splitter, Tokenizer};

/// Articles, prepositions and conjunctions that English phrases may contain.
const ENGLISH: &str = "a an the for of with without at from to in on by and or";

/// How a pair is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Mikolov's.
    Default,
    /// Normalised pointwise mutual information.
    Npmi,
}

/// What a user may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct PhraseOptions {
    /// Pairs seen less often are none.
    pub min_count: u64,
    /// The score that a phrase exceeds.
    pub threshold: f64,
    /// How pairs are scored.
    pub scoring: Scoring,
    /// What stands between the words of a phrase.
    pub delimiter: String,
    /// Words that may stand inside a phrase.
    pub connector_words: FxHashSet<String>,
    /// Words and pairs in memory beyond which the rarest are forgotten.
    pub max_vocab_size: usize,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
}

impl Default for PhraseOptions {
    fn default() -> Self {
        PhraseOptions {
            min_count: 5,
            threshold: 10.0,
            scoring: Scoring::Default,
            delimiter: "_".to_owned(),
            connector_words: FxHashSet::default(),
            max_vocab_size: 40_000_000,
            tokenizer: Tokenizer::default(),
        }
    }
}

impl PhraseOptions {
    /// The option names that are understood.
    pub const NAMES: [&'static str; 8] = [
        "min_count",
        "threshold",
        "scoring",
        "delimiter",
        "connector_words",
        "max_vocab_size",
        "tokenizer",
        "lowercase",
    ];

    /// Reads options.
    ///
    /// # Errors
    /// An unknown name, or a value of the wrong type or out of range.
    pub fn from_pairs(pairs: Vec<(String, Value)>) -> Result<PhraseOptions> {
        let mut o = PhraseOptions::default();
        let mut threshold = None;
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                "min_count" => o.min_count = given.integer(1, u64::from(u32::MAX))?,
                "threshold" => threshold = Some(given.number(-1.0, 1e15)?),
                "scoring" => {
                    let all = [("default", Scoring::Default), ("npmi", Scoring::Npmi)];
                    o.scoring = given.choice(&all)?;
                }
                "delimiter" => {
                    o.delimiter = given.text()?;
                    if o.delimiter.is_empty() || o.delimiter.contains(char::is_whitespace) {
                        return given.wrong("a text without white space");
                    }
                }
                "connector_words" => o.connector_words = connectors(&given)?,
                "max_vocab_size" => {
                    o.max_vocab_size = given.limit()?.unwrap_or(u32::MAX as usize);
                }
                "tokenizer" => {
                    o.tokenizer.splitter = given.choice(&Splitter::ALL.map(|s| (s.name(), s)))?;
                }
                "lowercase" => o.tokenizer.lowercase = given.flag()?,
                _ => bail!(
                    "unknown option '{name}'. Valid options: {}, replace, progress",
                    PhraseOptions::NAMES.join(", ")
                ),
            }
        }
        if let Some(threshold) = threshold {
            o.threshold = threshold;
        }
        match o.scoring {
            Scoring::Default if o.threshold <= 0.0 => bail!(
                "option 'threshold': expected a number above 0 for scoring \"default\", got {}",
                o.threshold
            ),
            Scoring::Npmi if o.threshold > 1.0 => bail!(
                "option 'threshold': expected a number from -1 to 1 for scoring \"npmi\", got {}",
                o.threshold
            ),
            _ => Ok(o),
        }
    }

    /// The options as a JSON object that [`PhraseOptions::from_pairs`] reads back unchanged.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut connectors: Vec<&String> = self.connector_words.iter().collect();
        connectors.sort_unstable();
        json!({
            "min_count": self.min_count,
            "threshold": self.threshold,
            "scoring": match self.scoring {
                Scoring::Default => "default",
                Scoring::Npmi => "npmi",
            },
            "delimiter": self.delimiter,
            "connector_words": connectors,
            "max_vocab_size": self.max_vocab_size,
            "tokenizer": self.tokenizer.splitter.name(),
            "lowercase": u8::from(self.tokenizer.lowercase),
        })
    }

    fn score(&self, a: u64, b: u64, ab: u64, n_keys: usize, n_tokens: u64) -> f64 {
        let (a, b, ab_) = (a as f64, b as f64, ab as f64);
        match self.scoring {
            Scoring::Default => (ab_ - self.min_count as f64) / (a * b) * n_keys as f64,
            Scoring::Npmi if ab >= self.min_count => {
                let n = n_tokens as f64;
                let (pa, pb, pab) = (a / n, b / n, ab_ / n);
                (pab / (pa * pb)).ln() / -pab.ln()
            }
            Scoring::Npmi => f64::NEG_INFINITY,
        }
    }

    /// Calls `each` with the tokens of a text, phrases joined. `is_phrase` says whether a joined candidate is one.
    ///
    /// # Errors
    /// Those of `is_phrase`.
    pub fn apply(
        &self,
        text: &str,
        mut is_phrase: impl FnMut(&str) -> Result<bool>,
        mut each: impl FnMut(&str),
    ) -> Result<()> {
        // A word that may begin a phrase, and the connectors behind it.
        let mut open: Vec<String> = Vec::new();
        let mut outcome = Ok(());
        self.tokenizer.for_each(text, |token| {
            if outcome.is_err() {
                return;
            }
            match (self.connector_words.contains(token), open.is_empty()) {
                (true, true) => each(token),
                (false, true) | (true, false) => open.push(token.to_owned()),
                (false, false) => {
                    let joined = self.joined(&open, token);
                    match is_phrase(&joined) {
                        Ok(true) => {
                            each(&joined);
                            open.clear();
                        }
                        Ok(false) => {
                            open.drain(..).for_each(|t| each(&t));
                            open.push(token.to_owned());
                        }
                        Err(e) => outcome = Err(e),
                    }
                }
            }
        });
        outcome?;
        open.drain(..).for_each(|t| each(&t));
        Ok(())
    }

    fn joined(&self, open: &[String], last: &str) -> String {
        let mut joined = open.join(&self.delimiter);
        joined.push_str(&self.delimiter);
        joined.push_str(last);
        joined
    }
}

/// `"english"`, or an array of words.
fn connectors(given: &Given<'_>) -> Result<FxHashSet<String>> {
    match given.value {
        Value::String(name) if name == "english" => {
            Ok(ENGLISH.split(' ').map(str::to_owned).collect())
        }
        Value::Array(words) if words.iter().all(Value::is_string) => Ok(words
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()),
        _ => given.wrong("\"english\" or an array of words"),
    }
}

/// A phrase that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Phrase {
    /// Its words, joined.
    pub phrase: Box<str>,
    /// How often it occurs.
    pub count: u64,
    /// Its score.
    pub score: f64,
}

/// Counts words and pairs.
#[derive(Debug)]
pub struct PhraseCounter {
    options: PhraseOptions,
    numbers: FxHashMap<Box<str>, u32>,
    /// By number; 0 if forgotten.
    counts: Vec<u64>,
    /// The pair of words that each joined key stood for last; their numbers change when they were forgotten.
    pairs: FxHashMap<u32, (u32, u32)>,
    n_tokens: u64,
    n_documents: u64,
    forget_up_to: u64,
}

impl PhraseCounter {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(options: &PhraseOptions) -> PhraseCounter {
        PhraseCounter {
            options: options.clone(),
            numbers: FxHashMap::default(),
            counts: Vec::new(),
            pairs: FxHashMap::default(),
            n_tokens: 0,
            n_documents: 0,
            forget_up_to: 1,
        }
    }

    /// Tokens counted.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// Documents counted.
    #[must_use]
    pub fn n_documents(&self) -> u64 {
        self.n_documents
    }

    /// Adds one document. Now and then `pause` is called, whose error ends the counting.
    ///
    /// # Errors
    /// Those of `pause`, and more different words and pairs than a number of 32 bits can tell apart.
    pub fn add(&mut self, text: &str, mut pause: impl FnMut() -> Result<()>) -> Result<()> {
        self.n_documents += 1;
        let options = self.options.clone();
        let mut open: Vec<String> = Vec::new();
        let mut first = 0;
        let mut outcome = Ok(());
        options.tokenizer.for_each(text, |token| {
            if outcome.is_err() {
                return;
            }
            self.n_tokens += 1;
            if self.n_tokens.is_multiple_of(1 << 17) {
                outcome = pause();
            }
            if options.connector_words.contains(token) {
                if !open.is_empty() {
                    open.push(token.to_owned());
                }
                return;
            }
            let mut counted = || -> Result<()> {
                let word = self.count(token)?;
                if !open.is_empty() {
                    let pair = self.count(&options.joined(&open, token))?;
                    self.pairs.insert(pair, (first, word));
                }
                first = word;
                Ok(())
            };
            if let Err(e) = counted() {
                outcome = Err(e);
            }
            open.clear();
            open.push(token.to_owned());
        });
        if self.numbers.len() > options.max_vocab_size {
            self.forget();
        }
        outcome
    }

    fn count(&mut self, key: &str) -> Result<u32> {
        if let Some(&number) = self.numbers.get(key) {
            self.counts[number as usize] += 1;
            return Ok(number);
        }
        let Ok(number) = u32::try_from(self.counts.len()) else {
            bail!(
                "the corpus has more than {} different words and pairs",
                u32::MAX
            );
        };
        self.counts.push(1);
        self.numbers.insert(key.into(), number);
        Ok(number)
    }

    /// Drops what was seen least, more each time; as in gensim.
    fn forget(&mut self) {
        let (counts, pairs, bound) = (&mut self.counts, &mut self.pairs, self.forget_up_to);
        self.numbers.retain(|_, number| {
            let count = &mut counts[*number as usize];
            let keep = *count > bound;
            if !keep {
                *count = 0;
                pairs.remove(number);
            }
            keep
        });
        self.forget_up_to += 1;
    }

    /// The phrases, best first.
    #[must_use]
    pub fn finish(self) -> Vec<Phrase> {
        let n_keys = self.numbers.len();
        let mut phrases: Vec<Phrase> = self
            .numbers
            .into_iter()
            .filter_map(|(phrase, number)| {
                let (a, b) = self.pairs.get(&number)?;
                let count = self.counts[number as usize];
                let (a, b) = (self.counts[*a as usize], self.counts[*b as usize]);
                if a == 0 || b == 0 {
                    return None;
                }
                let score = self.options.score(a, b, count, n_keys, self.n_tokens);
                (score > self.options.threshold).then_some(Phrase {
                    phrase,
                    count,
                    score,
                })
            })
            .collect();
        phrases.sort_unstable_by(|a, b| {
            b.score
                .total_cmp(&a.score)
                .then_with(|| a.phrase.cmp(&b.phrase))
        });
        phrases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(options: &str, documents: &[&str]) -> Vec<Phrase> {
        let pairs = crate::embed::strict_json::object(options).unwrap();
        let options = PhraseOptions::from_pairs(pairs).unwrap();
        let again = crate::embed::strict_json::object(&options.to_json().to_string()).unwrap();
        assert_eq!(PhraseOptions::from_pairs(again).unwrap(), options);
        let mut counter = PhraseCounter::new(&options);
        for text in documents {
            counter.add(text, || Ok(())).unwrap();
        }
        counter.finish()
    }

    #[test]
    fn scores_follow_their_formulas() {
        let documents = ["new york is new", "new york", "york is old"];
        // Keys: new 3, york 3, is 2, old 1; new_york 2, york_is 2, is_new 1, is_old 1.
        let phrases = found(r#"{"min_count":1, "threshold":0.1}"#, &documents);
        let pairs: Vec<_> = phrases
            .iter()
            .map(|p| (&*p.phrase, p.count, p.score))
            .collect();
        assert_eq!(
            pairs,
            [
                ("york_is", 2, 1.0 / 6.0 * 8.0),
                ("new_york", 2, 1.0 / 9.0 * 8.0)
            ]
        );
        let phrases = found(
            r#"{"min_count":1, "threshold":-1, "scoring":"npmi"}"#,
            &documents,
        );
        let is_old = phrases.iter().find(|p| &*p.phrase == "is_old").unwrap();
        let n = 9.0f64;
        let expected = ((1.0 / n) / (2.0 / n * 1.0 / n)).ln() / -(1.0 / n).ln();
        assert!((is_old.score - expected).abs() < 1e-15);
    }

    #[test]
    fn connectors_stand_inside_phrases_and_texts_are_joined_from_the_left() {
        let documents = ["the bank of america is the bank of america"];
        let options = r#"{"min_count":1, "threshold":1, "connector_words":"english"}"#;
        let phrases = found(options, &documents);
        let names: Vec<_> = phrases.iter().map(|p| &*p.phrase).collect();
        assert_eq!(names, ["bank_of_america"]);
        let pairs = crate::embed::strict_json::object(options).unwrap();
        let options = PhraseOptions::from_pairs(pairs).unwrap();
        let mut tokens = Vec::new();
        options
            .apply(
                "Of the bank of america the bank of and bank of america america",
                |p| Ok(p == "bank_of_america"),
                |t| tokens.push(t.to_owned()),
            )
            .unwrap();
        assert_eq!(
            tokens.join(" "),
            "of the bank_of_america the bank of and bank_of_america america"
        );
    }

    #[test]
    fn the_rarest_are_forgotten_beyond_the_limit() {
        let documents: Vec<String> = (0..200).map(|i| format!("a b rare{i}")).collect();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let phrases = found(
            r#"{"min_count":1, "threshold":0.0001, "max_vocab_size":20}"#,
            &documents,
        );
        assert_eq!(&*phrases[0].phrase, "a_b");
        assert!(phrases.len() < 20);
    }

    #[test]
    fn thresholds_fit_the_scoring() {
        for options in [
            r#"{"threshold":0}"#,
            r#"{"scoring":"npmi"}"#,
            r#"{"delimiter":" "}"#,
            r#"{"connector_words":"german"}"#,
            r#"{"minimum":1}"#,
        ] {
            let pairs = crate::embed::strict_json::object(options).unwrap();
            assert!(PhraseOptions::from_pairs(pairs).is_err(), "{options}");
        }
    }
}
