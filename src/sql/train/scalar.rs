//! Functions of one model that give one value: `similarity`, `n_similarity`, `doesnt_match`, `text_vector`.

use std::sync::Arc;

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::caller::connection;
use super::request::options;
use super::store::{self, bytes_of};
use super::words::{Words, unit};
use crate::embed::options::Given;
use crate::embed::strict_json;
use crate::embed::tokenize::Tokenizer;
use crate::sql::function_error;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    // They read tables, so the same arguments may give another value tomorrow.
    let flags = FunctionFlags::SQLITE_UTF8;
    conn.create_scalar_function("similarity", 3, flags, |ctx| {
        similarity(ctx).map_err(function_error)
    })?;
    conn.create_scalar_function("n_similarity", 3, flags, |ctx| {
        n_similarity(ctx).map_err(function_error)
    })?;
    conn.create_scalar_function("doesnt_match", 2, flags, |ctx| {
        doesnt_match(ctx).map_err(function_error)
    })?;
    for n_arguments in [2, 3] {
        conn.create_scalar_function("text_vector", n_arguments, flags, |ctx| {
            text_vector(ctx).map_err(function_error)
        })?;
    }
    Ok(())
}

/// A text argument; `None` for NULL.
fn text<'a>(ctx: &'a Context<'_>, i: usize, what: &str) -> Result<Option<&'a str>> {
    match ctx.get_raw(i) {
        ValueRef::Null => Ok(None),
        ValueRef::Text(text) => Ok(Some(std::str::from_utf8(text)?)),
        other => bail!("expected {what}, got {}", other.data_type()),
    }
}

fn model<'a>(ctx: &'a Context<'_>) -> Result<&'a str> {
    match text(ctx, 0, "the name of a model")? {
        Some(name) => Ok(name),
        None => bail!("expected the name of a model, got NULL"),
    }
}

/// `similarity(model, a, b)`: the cosine of two words (or vectors); NULL if either is NULL.
fn similarity(ctx: &Context<'_>) -> Result<Option<f64>> {
    let conn = connection(ctx)?;
    let mut words = Words::open(&conn, model(ctx)?)?;
    let mut sides = Vec::new();
    for i in [1, 2] {
        let mut examples = words.examples(ctx.get_raw(i), "similarity")?;
        match (examples.pop(), examples.is_empty()) {
            (Some(example), true) => sides.push(example.vector),
            (None, _) if ctx.get_raw(i) == ValueRef::Null => return Ok(None),
            _ => bail!("similarity: expected two words or vectors, got a list"),
        }
    }
    words.check_dim(&sides[1], sides[0].len())?;
    let (a, b) = (unit(&sides[0]), unit(&sides[1]));
    Ok(Some(a.iter().zip(&b).map(|(x, y)| x * y).sum()))
}

/// `n_similarity(model, words, words)`: the cosine of the means of two sets of words (or vectors), each a JSON array; NULL
/// if either is NULL. The means are of the vectors as they are, as in gensim.
fn n_similarity(ctx: &Context<'_>) -> Result<Option<f64>> {
    let conn = connection(ctx)?;
    let mut words = Words::open(&conn, model(ctx)?)?;
    let mut sides: Vec<Vec<f32>> = Vec::new();
    for i in [1, 2] {
        if ctx.get_raw(i) == ValueRef::Null {
            return Ok(None);
        }
        let examples = words.examples(ctx.get_raw(i), "n_similarity")?;
        let Some(first) = examples.first() else {
            bail!("n_similarity: expected at least one word in each set, got none");
        };
        let mut mean = vec![0.0; first.vector.len()];
        for example in &examples {
            words.check_dim(&example.vector, mean.len())?;
            mean.iter_mut()
                .zip(&example.vector)
                .for_each(|(m, &x)| *m += x / examples.len() as f32);
        }
        sides.push(mean);
    }
    words.check_dim(&sides[1], sides[0].len())?;
    let (a, b) = (unit(&sides[0]), unit(&sides[1]));
    Ok(Some(a.iter().zip(&b).map(|(x, y)| x * y).sum()))
}

/// `doesnt_match(model, words)`: of the words in a JSON array, the one least similar to the mean of their unit vectors;
/// words that the model does not have are left aside, as in gensim.
fn doesnt_match(ctx: &Context<'_>) -> Result<Option<String>> {
    let conn = connection(ctx)?;
    let mut words = Words::open(&conn, model(ctx)?)?;
    let Some(list) = text(ctx, 1, "a JSON array of words")? else {
        return Ok(None);
    };
    strict_json::check_length(list, "doesnt_match")?;
    let list: Vec<String> = match serde_json::from_str(list) {
        Ok(list) => list,
        Err(e) => bail!("doesnt_match: expected a JSON array of words such as [\"a\",\"b\"]: {e}"),
    };
    let mut known: Vec<(String, Vec<f64>)> = Vec::new();
    for word in list {
        if let Some(example) = words.find(&word)? {
            known.push((word, unit(&example.vector)));
        }
    }
    let Some((_, first)) = known.first() else {
        bail!(
            "doesnt_match: none of the words is in the model {}",
            words.place.shown()
        );
    };
    let mut mean = vec![0.0; first.len()];
    for (_, vector) in &known {
        mean.iter_mut().zip(vector).for_each(|(m, x)| *m += x);
    }
    let dot = |v: &[f64]| v.iter().zip(&mean).map(|(x, m)| x * m).sum::<f64>();
    let odd = known.iter().min_by(|a, b| dot(&a.1).total_cmp(&dot(&b.1)));
    Ok(odd.map(|(word, _)| word.clone()))
}

/// How much a word of a text counts.
#[derive(Clone, Copy)]
enum Weight {
    /// As much as any other.
    Mean,
    /// a / (a + p), p the word's share of all tokens: smooth inverse frequency (Arora, Liang, Ma 2017: "A simple but
    /// tough-to-beat baseline for sentence embeddings"), without the removal of a common component, which needs all texts.
    Sif(f64),
    /// -ln p.
    Idf,
}

impl Weight {
    fn new(ctx: &Context<'_>) -> Result<Weight> {
        let (mut weight, mut a) = ("mean", None);
        for (name, value) in options(ctx, 2, "text_vector")? {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                "weight" => {
                    weight = given.choice(&["mean", "sif", "idf"].map(|name| (name, name)))?;
                }
                "a" => a = Some(given.number(1e-12, 1.0)?),
                _ => bail!("unknown option '{name}'. Valid options: weight, a"),
            }
        }
        match (weight, a) {
            ("sif", a) => Ok(Weight::Sif(a.unwrap_or(1e-3))),
            (_, Some(_)) => bail!("option 'a': expected weight \"sif\", got \"{weight}\""),
            ("idf", _) => Ok(Weight::Idf),
            _ => Ok(Weight::Mean),
        }
    }

    /// The weight of a word that is a share of all tokens.
    fn of(self, share: f64) -> f64 {
        match self {
            Weight::Mean => 1.0,
            Weight::Sif(a) => a / (a + share),
            Weight::Idf => -share.ln(),
        }
    }
}

/// What `text_vector` knows of a model for the time of a statement.
struct Known {
    tokenizer: Tokenizer,
    weight: Weight,
    /// Tokens of all words together; 1 where it does not matter.
    n_tokens: f64,
}

/// `text_vector(model, text [, options])`: the mean of the vectors of the text's words, split as the model's corpus was; a
/// word that comes twice counts twice. With `{"weight":"sif"}` or `"idf"` rare words count more. NULL when no word is in
/// the model.
fn text_vector(ctx: &Context<'_>) -> Result<Option<Vec<u8>>> {
    let conn = connection(ctx)?;
    let model = model(ctx)?;
    let Some(text) = text(ctx, 1, "a text")? else {
        return Ok(None);
    };
    let mut words = Words::open(&conn, model)?;
    // A statement that calls this for many rows of the same model, with the same options, asks once.
    let asked = match ctx.len() {
        3 => format!("{model}\0{:?}", ctx.get_raw(2)),
        _ => model.to_owned(),
    };
    let known: Arc<(String, Known)> = match ctx.get_aux::<(String, Known)>(0)? {
        Some(known) if known.0 == asked => known,
        _ => {
            let weight = Weight::new(ctx)?;
            let known = Known {
                tokenizer: store::options(&conn, &words.place)?.tokenizer,
                weight,
                n_tokens: match weight {
                    Weight::Mean => 1.0,
                    _ => n_tokens(&conn, &words)?,
                },
            };
            ctx.set_aux(0, (asked, known))?
        }
    };
    let Known {
        tokenizer,
        weight,
        n_tokens,
    } = &known.1;
    let mut count_of = conn.prepare_cached(&format!(
        "SELECT count FROM {} WHERE id = ?1",
        words.place.words()
    ))?;
    let mut sum: Vec<f64> = Vec::new();
    let mut weights = 0.0;
    let mut outcome = Ok(());
    let mut add = |token: &str| -> Result<()> {
        let Some(example) = words.find(token)? else {
            return Ok(());
        };
        let weight = match weight {
            Weight::Mean => 1.0,
            weight => {
                let count: Option<f64> = count_of.query_row([example.id], |row| row.get(0))?;
                weight.of(count.unwrap_or(1.0).max(1.0) / n_tokens)
            }
        };
        sum.resize(
            if sum.is_empty() {
                example.vector.len()
            } else {
                sum.len()
            },
            0.0,
        );
        words.check_dim(&example.vector, sum.len())?;
        sum.iter_mut()
            .zip(&example.vector)
            .for_each(|(s, &x)| *s += weight * f64::from(x));
        weights += weight;
        Ok(())
    };
    tokenizer.for_each(text, |token| {
        if outcome.is_ok() {
            outcome = add(token);
        }
    });
    outcome?;
    if sum.is_empty() {
        return Ok(None);
    }
    // All weights are zero when the model has one word, which is every token.
    let factor = if weights > 0.0 { 1.0 / weights } else { 0.0 };
    let mean: Vec<f32> = sum.iter().map(|s| (s * factor) as f32).collect();
    Ok(Some(bytes_of(&mean)))
}

/// The counts of all words together.
fn n_tokens(conn: &Connection, words: &Words<'_>) -> Result<f64> {
    let (sum, unknown): (Option<f64>, i64) = conn.query_row(
        &format!(
            "SELECT sum(count), count(*) - count(count) FROM {}",
            words.place.words()
        ),
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match sum {
        Some(sum) if sum > 0.0 && unknown == 0 => Ok(sum),
        _ => bail!(
            "the model {} has words without count: expected counts to weigh words by; import it with the option vocab, \
             or leave the option weight out",
            words.place.shown()
        ),
    }
}
