//! What a user may ask of fastText: word2vec's options, and what n-grams are.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::embed::options::{Given, Options};

/// The parameters of a fastText training. Names and defaults are gensim's.
#[derive(Debug, Clone, PartialEq)]
pub struct FasttextOptions {
    /// What it has in common with word2vec.
    pub base: Options,
    /// Characters of the shortest n-gram.
    pub min_n: usize,
    /// Characters of the longest n-gram; below `min_n` there are none.
    pub max_n: usize,
    /// Buckets that n-grams are hashed into.
    pub bucket: u32,
}

impl FasttextOptions {
    /// The names of its own options.
    pub const NAMES: [&'static str; 3] = ["min_n", "max_n", "bucket"];

    /// Reads options; `more` are names that the surface understands.
    ///
    /// # Errors
    /// As [`Options::from_pairs`].
    pub fn from_pairs(pairs: Vec<(String, Value)>, more: &[&str]) -> Result<FasttextOptions> {
        let (mut min_n, mut max_n, mut bucket) = (3, 6, 2_000_000);
        let mut rest = Vec::new();
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                "min_n" => min_n = given.integer(1, 100)? as usize,
                "max_n" => max_n = given.integer(0, 100)? as usize,
                "bucket" => bucket = given.integer(0, 1 << 31)? as u32,
                "word_ngrams" => bail!(
                    "option 'word_ngrams' is for fastText's classifier: word vectors know n-grams of characters only"
                ),
                _ => rest.push((name, value)),
            }
        }
        let more: Vec<&str> = FasttextOptions::NAMES.iter().chain(more).copied().collect();
        let base = Options::from_pairs(rest, &more)?;
        base.check_plain()?;
        Ok(FasttextOptions {
            base,
            min_n,
            max_n,
            bucket,
        })
    }

    /// The options as a JSON object that [`FasttextOptions::from_pairs`] reads back unchanged.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut all = self.base.to_json();
        all["min_n"] = json!(self.min_n);
        all["max_n"] = json!(self.max_n);
        all["bucket"] = json!(self.bucket);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::strict_json;

    #[test]
    fn options_survive_the_way_through_json_and_unknown_ones_are_refused() {
        let read =
            |text: &str| FasttextOptions::from_pairs(strict_json::object(text)?, &["replace"]);
        let options = read(r#"{"min_n":2, "max_n":0, "bucket":1000, "sg":1}"#).unwrap();
        assert_eq!((options.min_n, options.max_n, options.bucket), (2, 0, 1000));
        assert_eq!(read(&options.to_json().to_string()).unwrap(), options);
        let message = read(r#"{"buckets":1}"#).unwrap_err().to_string();
        assert!(
            message.contains("did you mean 'bucket'?") && message.contains("replace"),
            "{message}"
        );
        assert!(read(r#"{"word_ngrams":2}"#).is_err());
    }
}
