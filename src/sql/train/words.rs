//! Words and vectors of a model, as queries name them.

use anyhow::{Result, anyhow, bail};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use serde_json::Value;

use super::fasttext::from_ngrams;
use super::place::Place;
use super::store;
use crate::embed::strict_json;
use crate::sql::values::vector as vector_of;

/// A model that is asked for words.
pub(super) struct Words<'a> {
    pub(super) conn: &'a Connection,
    pub(super) place: Place,
    by_word: CachedStatement<'a>,
}

/// Something to compare with: a word of the model, or a vector from elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Example {
    /// The word's id; `None` for a vector.
    pub(super) id: Option<i64>,
    pub(super) vector: Vec<f32>,
}

impl<'a> Words<'a> {
    /// The model of this name.
    pub(super) fn open(conn: &'a Connection, model: &str) -> Result<Words<'a>> {
        let place = Place::find(conn, model)?;
        let by_word = conn.prepare_cached(&format!(
            "SELECT id, vector FROM {} WHERE word = ?1",
            place.words()
        ))?;
        Ok(Words {
            conn,
            place,
            by_word,
        })
    }

    /// The word, if the model has it.
    pub(super) fn find(&mut self, word: &str) -> Result<Option<Example>> {
        let mut rows = self.by_word.query([word])?;
        match rows.next()? {
            None => Ok(None),
            Some(row) => Ok(Some(Example {
                id: Some(row.get(0)?),
                vector: vector_of(row.get_ref(1)?)
                    .map_err(|e| anyhow!("the vector of '{word}' in {}: {e}", self.place.shown()))?
                    .into_owned(),
            })),
        }
    }

    /// The word; a model of fastText makes it of its n-grams if it does not have it.
    ///
    /// # Errors
    /// When the model does not have it.
    pub(super) fn get(&mut self, word: &str) -> Result<Example> {
        if let Some(example) = self.find(word)? {
            return Ok(example);
        }
        if let Some(vector) = from_ngrams(self.conn, &self.place, word)?
            && vector.iter().any(|&x| x != 0.0)
        {
            // As a word it counts with length 1, though it has no id.
            let vector = unit(&vector).into_iter().map(|x| x as f32).collect();
            return Ok(Example { id: None, vector });
        }
        let lower = word.to_lowercase();
        let hint = if lower != word && self.find(&lower)?.is_some() {
            format!("; did you mean '{lower}'?")
        } else {
            String::new()
        };
        let min_count = store::options(self.conn, &self.place)?.min_count;
        bail!(
            "the word '{word}' is not in the model {}{hint} Expected a word that occurs at least {min_count} times \
             (min_count) in its corpus",
            self.place.shown(),
            hint = if hint.is_empty() {
                ".".to_owned()
            } else {
                hint
            },
        )
    }

    /// What an argument names: nothing (NULL), a word, a JSON array of words and vectors, or a vector as BLOB or JSON.
    /// A text that is a word of the model is that word, whatever it looks like.
    pub(super) fn examples(&mut self, argument: ValueRef<'_>, name: &str) -> Result<Vec<Example>> {
        match argument {
            ValueRef::Null => Ok(Vec::new()),
            ValueRef::Blob(_) => Ok(vec![Example {
                id: None,
                vector: vector_of(argument)?.into_owned(),
            }]),
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text)?;
                if let Some(word) = self.find(text)? {
                    return Ok(vec![word]);
                }
                if !text.trim_start().starts_with('[') {
                    return Ok(vec![self.get(text)?]);
                }
                strict_json::check_length(text, name)?;
                let array: Vec<Value> = serde_json::from_str(text).map_err(|e| {
                    anyhow!("{name}: expected a word, a JSON array of words, or a vector: {e}")
                })?;
                if array.iter().any(Value::is_number) {
                    return Ok(vec![Example {
                        id: None,
                        vector: numbers(&array, name)?,
                    }]);
                }
                array
                    .iter()
                    .map(|item| self.example_in_array(item, name))
                    .collect()
            }
            other => bail!(
                "{name}: expected a word, a JSON array of words, or a vector, got {}",
                other.data_type()
            ),
        }
    }

    fn example_in_array(&mut self, item: &Value, name: &str) -> Result<Example> {
        match item {
            Value::String(word) => self.get(word),
            Value::Array(components) => Ok(Example {
                id: None,
                vector: numbers(components, name)?,
            }),
            other => bail!("{name}: expected words or vectors in the JSON array, got {other}"),
        }
    }

    /// Components of the model's vectors; `None` if it has none.
    pub(super) fn dim(&self) -> Result<Option<usize>> {
        let sql = format!(
            "SELECT length(vector) / 4 FROM {} WHERE vector IS NOT NULL LIMIT 1",
            self.place.words()
        );
        let dim: Option<i64> = self
            .conn
            .prepare_cached(&sql)?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(dim.and_then(|dim| usize::try_from(dim).ok()))
    }

    /// Checks that a vector can be compared with those of the model.
    pub(super) fn check_dim(&self, vector: &[f32], dim: usize) -> Result<()> {
        if vector.len() == dim {
            return Ok(());
        }
        bail!(
            "Dimension mismatch for a vector compared with the model {}. Expected {dim} dimensions but received {}.",
            self.place.shown(),
            vector.len()
        )
    }
}

fn numbers(array: &[Value], name: &str) -> Result<Vec<f32>> {
    array
        .iter()
        .map(|x| match x.as_f64().map(|x| x as f32) {
            Some(x) if x.is_finite() => Ok(x),
            _ => bail!("{name}: expected finite numbers in the vector, got {x}"),
        })
        .collect()
}

/// The vector scaled to length 1; a zero vector stays.
pub(super) fn unit(vector: &[f32]) -> Vec<f64> {
    let norm = vector
        .iter()
        .map(|&x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt();
    let factor = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    vector.iter().map(|&x| f64::from(x) * factor).collect()
}
