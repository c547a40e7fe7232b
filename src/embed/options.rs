//! What a user may ask of the trainer: gensim's names and defaults, read from strict JSON.
//!
//! Every option is checked at the door: an unknown name, a wrong type or a value out of range is an error that says what
//! was expected, what came, and what to do. Names of gensim that have no meaning here are refused with the reason.
//! Two defaults differ from gensim's: `threads` is 1, so that the same call gives the same bytes, and the loss is
//! always computed.

use std::fmt::Display;

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use crate::embed::strict_json;
use crate::embed::tokenize::{Splitter, Tokenizer};
use crate::spelling::did_you_mean;
use crate::vector::MAX_DIM;

/// How the error of a CBOW window goes back to its context vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CbowGradient {
    /// As gensim and word2vec.c: with `cbow_mean` every context vector receives the whole error, without it an equal
    /// share. Neither is the gradient, but learning rates that people know are tuned to it: the default.
    Gensim,
    /// The gradient: an equal share for the mean, the whole error for the sum (Irsoy, Benton, Stratos: "Corrected CBOW
    /// performs as well as skip-gram", 2021). Wants a learning rate about three times as large.
    Corrected,
}

impl CbowGradient {
    fn name(self) -> &'static str {
        match self {
            CbowGradient::Gensim => "gensim",
            CbowGradient::Corrected => "corrected",
        }
    }
}

/// The parameters of a word2vec training. Names, defaults and meaning are gensim's where gensim has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Components of a vector, 1 to [`MAX_DIM`].
    pub vector_size: usize,
    /// Learning rate at the start.
    pub alpha: f64,
    /// Learning rate at the end; it falls linearly over all epochs.
    pub min_alpha: f64,
    /// Largest distance between centre and context word.
    pub window: usize,
    /// Words that occur less often are left out.
    pub min_count: u64,
    /// Words kept in memory while counting; the rarest are forgotten beyond it.
    pub max_vocab_size: Option<usize>,
    /// At most this many words: raises `min_count` until they fit.
    pub max_final_vocab: Option<usize>,
    /// Words to leave out of the corpus, spelled as the tokenizer leaves them.
    pub stop_words: Vec<String>,
    /// MiB of memory for the encoded corpus, 4 bytes a token; beyond it the corpus goes to a temporary file.
    pub max_memory: Option<usize>,
    /// Threshold of the subsampling of frequent words: a frequency below 1, a count from 1 up; 0 keeps every token.
    pub sample: f64,
    /// Seed of everything random.
    pub seed: u64,
    /// Skip-gram instead of CBOW.
    pub sg: bool,
    /// Hierarchical softmax (beside negative sampling, unless `negative` is 0).
    pub hs: bool,
    /// Noise words per example; 0 turns negative sampling off.
    pub negative: usize,
    /// Exponent of the noise distribution: count^ns_exponent.
    pub ns_exponent: f64,
    /// CBOW averages its context vectors instead of adding them.
    pub cbow_mean: bool,
    /// How the error of a CBOW window is shared.
    pub cbow_gradient: CbowGradient,
    /// Passes over the corpus.
    pub epochs: usize,
    /// Draw each window uniformly from 1 to `window`, so that near words count more.
    pub shrink_windows: bool,
    /// Worker threads. One thread gives the same bytes every run.
    pub threads: usize,
    /// The same bytes whatever the number of threads: they read and count the corpus, and one of them trains.
    pub deterministic: bool,
    /// How text becomes tokens.
    pub tokenizer: Tokenizer,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            vector_size: 100,
            alpha: 0.025,
            min_alpha: 0.0001,
            window: 5,
            min_count: 5,
            max_vocab_size: None,
            max_final_vocab: None,
            stop_words: Vec::new(),
            max_memory: None,
            sample: 1e-3,
            seed: 1,
            sg: false,
            hs: false,
            negative: 5,
            ns_exponent: 0.75,
            cbow_mean: true,
            cbow_gradient: CbowGradient::Gensim,
            epochs: 5,
            shrink_windows: true,
            threads: 1,
            deterministic: false,
            tokenizer: Tokenizer::default(),
        }
    }
}

/// The option names that are understood, in the order they are listed to users.
pub const NAMES: [&str; 24] = [
    "vector_size",
    "alpha",
    "min_alpha",
    "window",
    "min_count",
    "max_vocab_size",
    "max_final_vocab",
    "stop_words",
    "max_memory",
    "sample",
    "seed",
    "sg",
    "hs",
    "negative",
    "ns_exponent",
    "cbow_mean",
    "cbow_gradient",
    "epochs",
    "shrink_windows",
    "threads",
    "workers",
    "deterministic",
    "tokenizer",
    "lowercase",
];

/// gensim's parameters that mean nothing here, each with the reason.
const REFUSED: [(&str, &str); 13] = [
    (
        "sentences",
        "the corpus is the table and column given to the function",
    ),
    (
        "corpus_iterable",
        "the corpus is the table and column given to the function",
    ),
    (
        "corpus_file",
        "the corpus is the table and column given to the function",
    ),
    (
        "batch_words",
        "documents of any length are trained whole, so there is no batch to size",
    ),
    ("compute_loss", "the loss is always in the summary"),
    ("callbacks", "the summary reports the loss of every epoch"),
    (
        "sorted_vocab",
        "the vocabulary is always sorted by count, most frequent first",
    ),
    (
        "trim_rule",
        "use min_count, max_final_vocab, or a WHERE in a view of the corpus",
    ),
    (
        "hashfxn",
        "every initial vector is derived from the seed and the word's rank",
    ),
    ("null_word", "only gensim's doc2vec uses it"),
    ("comment", "put comments in a table of your own"),
    ("size", "gensim 4 calls it vector_size"),
    ("iter", "gensim 4 calls it epochs"),
];

impl Options {
    /// Reads options from the text of a JSON object.
    ///
    /// # Errors
    /// Text that is not a JSON object, an unknown or repeated name, a value of the wrong type or out of range, and
    /// combinations that train nothing.
    pub fn from_json(text: &str) -> Result<Options> {
        Options::from_pairs(strict_json::object(text)?, &[])
    }

    /// As [`Options::from_json`], from names and values that were parsed before: the surface takes its own options out
    /// first. `more` are the names of those, to be listed beside [`NAMES`].
    ///
    /// # Errors
    /// As [`Options::from_json`].
    pub fn from_pairs(pairs: Vec<(String, Value)>, more: &[&str]) -> Result<Options> {
        let mut o = Options::default();
        let mut threads_from: Option<String> = None;
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                "vector_size" => o.vector_size = given.integer(1, MAX_DIM as u64)? as usize,
                "alpha" => o.alpha = given.number(0.0, 100.0)?,
                "min_alpha" => o.min_alpha = given.number(0.0, 100.0)?,
                "window" => o.window = given.integer(1, 10_000)? as usize,
                "min_count" => o.min_count = given.integer(0, u64::from(u32::MAX))?,
                "max_vocab_size" => o.max_vocab_size = given.limit()?,
                "max_final_vocab" => o.max_final_vocab = given.limit()?,
                "stop_words" => o.stop_words = given.words()?,
                "max_memory" => o.max_memory = given.limit()?,
                "sample" => o.sample = given.number(0.0, 1e15)?,
                "seed" => o.seed = given.integer(0, i64::MAX as u64)?,
                "sg" => o.sg = given.flag()?,
                "hs" => o.hs = given.flag()?,
                "negative" => o.negative = given.integer(0, 1_000)? as usize,
                "ns_exponent" => o.ns_exponent = given.number(-10.0, 10.0)?,
                "cbow_mean" => o.cbow_mean = given.flag()?,
                "cbow_gradient" => {
                    let all = [CbowGradient::Gensim, CbowGradient::Corrected];
                    o.cbow_gradient = given.choice(&all.map(|g| (g.name(), g)))?;
                }
                "epochs" => o.epochs = given.integer(1, 1_000_000)? as usize,
                "shrink_windows" => o.shrink_windows = given.flag()?,
                "threads" | "workers" => {
                    if let Some(other) = threads_from {
                        bail!(
                            "options '{other}' and '{name}' are the same option: give one of them"
                        );
                    }
                    o.threads = given.integer(1, 256)? as usize;
                    threads_from = Some(name);
                }
                "deterministic" => o.deterministic = given.flag()?,
                "tokenizer" => {
                    o.tokenizer.splitter = given.choice(&Splitter::ALL.map(|s| (s.name(), s)))?;
                }
                "lowercase" => o.tokenizer.lowercase = given.flag()?,
                _ => return Err(unknown(&name, more)),
            }
        }
        o.check()?;
        Ok(o)
    }

    /// These options with some given anew.
    ///
    /// # Errors
    /// As [`Options::from_json`].
    pub fn with(&self, given: Vec<(String, Value)>) -> Result<Options> {
        let mut all = self.to_json();
        for (name, value) in given {
            let name = if name == "workers" { "threads" } else { &name };
            all[name] = value;
        }
        let pairs = match all {
            Value::Object(all) => all.into_iter().collect(),
            _ => Vec::new(),
        };
        Options::from_pairs(pairs, &[])
    }

    /// The options as a JSON object that [`Options::from_json`] reads back unchanged.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "vector_size": self.vector_size,
            "alpha": self.alpha,
            "min_alpha": self.min_alpha,
            "window": self.window,
            "min_count": self.min_count,
            "max_vocab_size": self.max_vocab_size,
            "max_final_vocab": self.max_final_vocab,
            "stop_words": self.stop_words,
            "max_memory": self.max_memory,
            "sample": self.sample,
            "seed": self.seed,
            "sg": u8::from(self.sg),
            "hs": u8::from(self.hs),
            "negative": self.negative,
            "ns_exponent": self.ns_exponent,
            "cbow_mean": u8::from(self.cbow_mean),
            "cbow_gradient": self.cbow_gradient.name(),
            "epochs": self.epochs,
            "shrink_windows": u8::from(self.shrink_windows),
            "threads": self.threads,
            "deterministic": u8::from(self.deterministic),
            "tokenizer": self.tokenizer.splitter.name(),
            "lowercase": u8::from(self.tokenizer.lowercase),
        })
    }

    /// For models whose training knows neither `max_memory` nor `deterministic`.
    pub(super) fn check_plain(&self) -> Result<()> {
        if self.max_memory.is_some() || self.deterministic {
            bail!(
                "options 'max_memory' and 'deterministic' are word2vec's alone: leave them out (one thread is repeatable)"
            );
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if !self.hs && self.negative == 0 {
            bail!(
                "hs = 0 with negative = 0 trains nothing: expected hs = 1 (hierarchical softmax) or negative from 1 up \
                 (negative sampling)"
            );
        }
        if self.min_alpha > self.alpha {
            bail!(
                "min_alpha {} is above alpha {}: the learning rate falls from alpha to min_alpha, so lower min_alpha",
                self.min_alpha,
                self.alpha
            );
        }
        Ok(())
    }
}

/// The error of an option that does not exist: why, if gensim knows it; else the valid names and the nearest of them.
/// `more` are names that the caller understands beside [`NAMES`].
#[must_use]
pub fn unknown(name: &str, more: &[&str]) -> anyhow::Error {
    if let Some((_, why)) = REFUSED.iter().find(|(n, _)| *n == name) {
        return anyhow!("option '{name}' of gensim has no meaning here: {why}");
    }
    let all: Vec<&str> = NAMES.iter().chain(more).copied().collect();
    let hint = match did_you_mean(name, all.iter().copied()) {
        hint if hint.is_empty() => ".".to_owned(),
        hint => hint,
    };
    anyhow!(
        "unknown option '{name}'{hint} Valid options: {}",
        all.join(", ")
    )
}

/// One option as the user gave it, and the checks of its value.
pub(crate) struct Given<'a> {
    /// Its name, for the message.
    pub(crate) name: &'a str,
    /// Its value.
    pub(crate) value: &'a Value,
}

impl Given<'_> {
    pub(crate) fn wrong<T>(&self, expected: impl Display) -> Result<T> {
        bail!(
            "option '{}': expected {expected}, got {}",
            self.name,
            self.value
        )
    }

    pub(crate) fn integer(&self, low: u64, high: u64) -> Result<u64> {
        let whole = match self.value {
            Value::Number(n) => n.as_u64().or_else(|| {
                let x = n.as_f64()?;
                (x.fract() == 0.0 && (0.0..9e15).contains(&x)).then_some(x as u64)
            }),
            _ => None,
        };
        match whole {
            Some(n) if (low..=high).contains(&n) => Ok(n),
            _ => self.wrong(format_args!("an integer from {low} to {high}")),
        }
    }

    pub(crate) fn number(&self, low: f64, high: f64) -> Result<f64> {
        match self.value.as_f64() {
            Some(x) if (low..=high).contains(&x) => Ok(x),
            _ => self.wrong(format_args!("a number from {low} to {high}")),
        }
    }

    /// gensim's flags are 0 and 1, JSON's are false and true.
    pub(crate) fn flag(&self) -> Result<bool> {
        match (self.value, self.value.as_u64()) {
            (Value::Bool(b), _) => Ok(*b),
            (_, Some(n @ 0..=1)) => Ok(n == 1),
            _ => self.wrong("0, 1, false or true"),
        }
    }

    pub(crate) fn limit(&self) -> Result<Option<usize>> {
        if self.value.is_null() {
            return Ok(None);
        }
        Ok(Some(self.integer(1, u64::from(u32::MAX) - 1)? as usize))
    }

    pub(crate) fn text(&self) -> Result<String> {
        match self.value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => self.wrong("a text"),
        }
    }

    fn words(&self) -> Result<Vec<String>> {
        let words = self.value.as_array().and_then(|all| {
            let words = all.iter().map(|word| word.as_str().map(String::from));
            words.collect::<Option<Vec<String>>>()
        });
        match words {
            Some(words) => Ok(words),
            None => self.wrong("an array of words"),
        }
    }

    pub(crate) fn choice<T: Copy>(&self, all: &[(&str, T)]) -> Result<T> {
        let found = self
            .value
            .as_str()
            .and_then(|s| all.iter().find(|(n, _)| *n == s));
        match found {
            Some((_, t)) => Ok(*t),
            None => {
                let names: Vec<String> = all.iter().map(|(n, _)| format!("\"{n}\"")).collect();
                self.wrong(names.join(" or "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Options::from_json(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_object_gives_the_defaults() {
        assert_eq!(Options::from_json("{}").unwrap(), Options::default());
    }

    #[test]
    fn options_survive_the_way_through_json() {
        let text = r#"{"vector_size":7, "alpha":0.05, "min_alpha":0.001, "window":3, "min_count":1, "max_vocab_size":1000,
            "max_final_vocab":99, "stop_words":["a", "the"], "max_memory":64, "sample":0, "seed":9007199254740993, "sg":1, "hs":true, "negative":0, "ns_exponent":-0.5,
            "cbow_mean":0, "cbow_gradient":"corrected", "epochs":2, "shrink_windows":false, "workers":2, "deterministic":1,
            "tokenizer":"simple", "lowercase":0}"#;
        let options = Options::from_json(text).unwrap();
        assert_eq!(options.seed, 9_007_199_254_740_993);
        assert_eq!(options.threads, 2);
        assert_eq!(
            Options::from_json(&options.to_json().to_string()).unwrap(),
            options
        );
    }

    #[test]
    fn every_listed_name_is_understood() {
        for name in NAMES {
            let message = Options::from_json(&format!("{{\"{name}\": {{}}}}"))
                .unwrap_err()
                .to_string();
            assert!(
                message.starts_with(&format!("option '{name}': expected")),
                "{message}"
            );
        }
    }

    #[test]
    fn an_unknown_option_names_the_nearest_and_lists_them_all() {
        let message = error(r#"{"vectorsize": 10}"#);
        assert!(message.contains("did you mean 'vector_size'?"), "{message}");
        for name in NAMES {
            assert!(message.contains(name), "{message}");
        }
        assert!(!error(r#"{"qqqqqqqqqqqq": 10}"#).contains("did you mean"));
    }

    #[test]
    fn options_of_gensim_without_meaning_are_refused_with_the_reason() {
        assert_eq!(
            error(r#"{"batch_words": 10000}"#),
            "option 'batch_words' of gensim has no meaning here: documents of any length are trained whole, so there is \
             no batch to size"
        );
        for (name, why) in REFUSED {
            assert!(error(&format!("{{\"{name}\": 1}}")).contains(why));
        }
    }

    #[test]
    fn wrong_types_and_ranges_say_what_was_expected_and_what_came() {
        for (text, message) in [
            (
                r#"{"vector_size": 0}"#,
                "option 'vector_size': expected an integer from 1 to 65536, got 0",
            ),
            (
                r#"{"vector_size": 65537}"#,
                "option 'vector_size': expected an integer from 1 to 65536, got 65537",
            ),
            (
                r#"{"vector_size": "100"}"#,
                "option 'vector_size': expected an integer from 1 to 65536, got \"100\"",
            ),
            (
                r#"{"window": 2.5}"#,
                "option 'window': expected an integer from 1 to 10000, got 2.5",
            ),
            (
                r#"{"alpha": -1}"#,
                "option 'alpha': expected a number from 0 to 100, got -1",
            ),
            (
                r#"{"sg": 2}"#,
                "option 'sg': expected 0, 1, false or true, got 2",
            ),
            (
                r#"{"tokenizer": "words"}"#,
                "option 'tokenizer': expected \"whitespace\" or \"simple\" or \"unicode\", got \"words\"",
            ),
            (
                r#"{"threads": 0}"#,
                "option 'threads': expected an integer from 1 to 256, got 0",
            ),
        ] {
            assert_eq!(error(text), message);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(
            error(r#"{"hs": 0, "negative": 0}"#)
                .starts_with("hs = 0 with negative = 0 trains nothing")
        );
        assert!(
            error(r#"{"alpha": 0.01, "min_alpha": 0.1}"#)
                .starts_with("min_alpha 0.1 is above alpha 0.01")
        );
        assert_eq!(
            error(r#"{"threads": 1, "workers": 1}"#),
            "options 'threads' and 'workers' are the same option: give one of them"
        );
    }
}
