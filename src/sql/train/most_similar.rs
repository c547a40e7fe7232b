//! `most_similar(model, positive [, negative, k, index, method])`: the words nearest to some and farthest from others.
//!
//! `positive` and `negative` are each a word, a JSON array of words, or a vector (BLOB or JSON numbers). The direction is
//! the mean of the unit vectors of the words, negative ones subtracted; a vector counts as it is, as in gensim. Rows
//! (word, similarity) come best first, without the words that were given; `k` NULL gives all. `king - man + woman` is
//! `most_similar('m', '["king","woman"]', 'man', 10)`.
//!
//! `method` is `3cosadd` (the default: the cosine with that direction) or `3cosmul` (Levy, Goldberg 2014: "Linguistic
//! regularities in sparse and explicit word representations"): the product of the cosines with the positive ones over that
//! with the negative ones plus 1e-6, cosines shifted to 0..1; gensim's `most_similar_cosmul`.
//!
//! Exact, by reading every vector, unless `index` names an `annoy` index of the model's table: then the candidates come
//! from there, and are ranked by their exact similarity.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use anyhow::{Result, anyhow, bail};
use rusqlite::types::{Value, ValueRef};

use super::store::bytes_of;
use super::words::{Words, unit};
use crate::sql::values::vector as vector_of;
use crate::sql::vtab::function::{Function, Scope};
use crate::vector::exact;

pub(super) struct MostSimilar;

impl Function for MostSimilar {
    const NAME: &'static str = "most_similar";
    const COLUMNS: &'static [&'static str] = &["word TEXT", "similarity REAL"];
    const ARGUMENTS: &'static [&'static str] =
        &["model", "positive", "negative", "k", "index", "method"];
    const REQUIRED: usize = 2;
    const ROWS: i64 = 10;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let Value::Text(model) = &args[0] else {
            bail!(
                "most_similar: expected the name of a model, got {}",
                args[0].data_type()
            );
        };
        let k = match args[3] {
            Value::Null => usize::MAX,
            Value::Integer(k) => {
                usize::try_from(k).map_err(|_| anyhow!("k must be 0 or more, got {k}"))?
            }
            ref other => bail!("k must be an integer, got {}", other.data_type()),
        };
        let index = match &args[4] {
            Value::Null => None,
            Value::Text(name) => Some(name.as_str()),
            other => bail!(
                "index: expected the name of an index, got {}",
                other.data_type()
            ),
        };
        let mut words = Words::open(&scope.conn, model)?;
        let is_product = match &args[5] {
            Value::Null => false,
            Value::Text(name) if name.eq_ignore_ascii_case("3cosadd") => false,
            Value::Text(name) if name.eq_ignore_ascii_case("3cosmul") => true,
            _ => bail!("method: expected '3cosadd' or '3cosmul', got another value"),
        };
        if is_product && index.is_some() {
            bail!(
                "method '3cosmul' has no direction that an index could search: leave index NULL, or use '3cosadd'"
            );
        }
        let (positive, negative) = ((&args[1]).into(), (&args[2]).into());
        let query = Query::new(&mut words, positive, negative, is_product)?;
        let mut best = match index {
            None => query.among_all(&words, k)?,
            Some(index) => query.among_candidates(&words, index, k)?,
        };
        best.sort_unstable_by(|a, b| b.cmp(a));
        let rows: Vec<_> = best
            .into_iter()
            .map(|found| Ok(vec![found.word.into(), found.similarity.into()]))
            .collect();
        Ok(rows.into_iter())
    }
}

/// What is asked for.
struct Query {
    /// The mean of the examples.
    direction: Vec<f32>,
    squared_norm: f64,
    /// For 3CosMul: the positive and the negative examples, words as unit vectors.
    product: Option<[Vec<Vec<f64>>; 2]>,
    /// Ids of the words given, ascending.
    given: Vec<i64>,
}

/// A word of the answer.
#[derive(Debug, PartialEq)]
struct Found {
    similarity: f64,
    id: i64,
    word: String,
}

impl Eq for Found {}

impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Found {
    /// The better one is greater: more similar, then more frequent.
    fn cmp(&self, other: &Self) -> Ordering {
        self.similarity
            .total_cmp(&other.similarity)
            .then(other.id.cmp(&self.id))
    }
}

impl Query {
    fn new(
        words: &mut Words<'_>,
        positive: ValueRef<'_>,
        negative: ValueRef<'_>,
        is_product: bool,
    ) -> Result<Query> {
        let positive = words.examples(positive, "positive")?;
        let negative = words.examples(negative, "negative")?;
        let Some(first) = positive.first().or(negative.first()) else {
            bail!(
                "most_similar: expected at least one word or vector as positive or negative, got none"
            );
        };
        let dim = words.dim()?.unwrap_or(first.vector.len());
        let mut sum = vec![0.0; dim];
        let mut given = Vec::new();
        let mut sides = [Vec::new(), Vec::new()];
        for (sign, examples) in [(1.0, &positive), (-1.0, &negative)] {
            for example in examples {
                words.check_dim(&example.vector, dim)?;
                let vector = match example.id {
                    Some(id) => {
                        given.push(id);
                        unit(&example.vector)
                    }
                    None => example.vector.iter().map(|&x| f64::from(x)).collect(),
                };
                sum.iter_mut()
                    .zip(&vector)
                    .for_each(|(s, x)| *s += sign * x);
                sides[usize::from(sign < 0.0)].push(vector);
            }
        }
        given.sort_unstable();
        if is_product && sides[0].is_empty() {
            bail!(
                "most_similar: expected at least one positive word or vector for 3cosmul, got none"
            );
        }
        let n = (positive.len() + negative.len()) as f64;
        let direction: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
        Ok(Query {
            squared_norm: exact::dot(&direction, &direction),
            direction,
            product: is_product.then_some(sides),
            given,
        })
    }

    /// The cosine of a vector with the direction, 0 if either is zero; or what 3CosMul has in its place.
    fn similarity(&self, vector: &[f32]) -> f64 {
        if let Some([positive, negative]) = &self.product {
            let vector = unit(vector);
            let shifted = |side: &[Vec<f64>]| -> f64 {
                side.iter()
                    .map(|other| {
                        let dot: f64 = vector.iter().zip(other).map(|(x, y)| x * y).sum();
                        (1.0 + dot) / 2.0
                    })
                    .product()
            };
            return shifted(positive) / (shifted(negative) + 1e-6);
        }
        let (dot, squared) = (
            exact::dot(&self.direction, vector),
            exact::dot(vector, vector),
        );
        1.0 - exact::cosine_from(dot, self.squared_norm, squared)
    }

    /// The best k of the rows (id, word, vector) that a statement gives.
    fn best(
        &self,
        words: &Words<'_>,
        sql: &str,
        params: impl rusqlite::Params,
        k: usize,
    ) -> Result<Vec<Found>> {
        // The worst of the best k on top.
        let mut heap = BinaryHeap::new();
        let mut statement = words.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let value = row.get_ref(2)?;
            if value == ValueRef::Null || self.given.binary_search(&id).is_ok() {
                continue;
            }
            let vector = vector_of(value)
                .map_err(|e| anyhow!("the vector of id {id} in {}: {e}", words.place.shown()))?;
            words.check_dim(&vector, self.direction.len())?;
            let similarity = self.similarity(&vector);
            let found = |word| Found {
                similarity,
                id,
                word,
            };
            let is_full = heap.len() >= k;
            if is_full
                && heap
                    .peek()
                    .is_none_or(|std::cmp::Reverse(worst)| found(String::new()) <= *worst)
            {
                continue;
            }
            heap.push(std::cmp::Reverse(found(row.get(1)?)));
            if is_full {
                heap.pop();
            }
        }
        Ok(heap
            .into_iter()
            .map(|std::cmp::Reverse(found)| found)
            .collect())
    }

    fn among_all(&self, words: &Words<'_>, k: usize) -> Result<Vec<Found>> {
        self.best(
            words,
            &format!("SELECT id, word, vector FROM {}", words.place.words()),
            [],
            k,
        )
    }

    fn among_candidates(&self, words: &Words<'_>, index: &str, k: usize) -> Result<Vec<Found>> {
        // The words given are found, too, and left out afterwards.
        let wanted = i64::try_from(k.saturating_add(self.given.len())).unwrap_or(i64::MAX);
        let sql = format!(
            "SELECT w.id, w.word, w.vector FROM knn_annoy(?1, ?2, ?3) AS n JOIN {} AS w ON w.id = n.rowid",
            words.place.words()
        );
        self.best(words, &sql, (index, bytes_of(&self.direction), wanted), k)
    }
}
