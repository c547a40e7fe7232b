//! Functions of one model that give one value: `similarity`, `doesnt_match`, `text_vector`.

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;

use super::caller::connection;
use super::store::{self, bytes_of};
use super::words::{Words, unit};
use crate::sql::function_error;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    // They read tables, so the same arguments may give another value tomorrow.
    let flags = FunctionFlags::SQLITE_UTF8;
    conn.create_scalar_function("similarity", 3, flags, |ctx| {
        similarity(ctx).map_err(function_error)
    })?;
    conn.create_scalar_function("doesnt_match", 2, flags, |ctx| {
        doesnt_match(ctx).map_err(function_error)
    })?;
    conn.create_scalar_function("text_vector", 2, flags, |ctx| {
        text_vector(ctx).map_err(function_error)
    })
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

/// `doesnt_match(model, words)`: of the words in a JSON array, the one least similar to the mean of their unit vectors;
/// words that the model does not have are left aside, as in gensim.
fn doesnt_match(ctx: &Context<'_>) -> Result<Option<String>> {
    let conn = connection(ctx)?;
    let mut words = Words::open(&conn, model(ctx)?)?;
    let Some(list) = text(ctx, 1, "a JSON array of words")? else {
        return Ok(None);
    };
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

/// `text_vector(model, text)`: the mean of the vectors of the text's words, split as the model's corpus was; a word that
/// comes twice counts twice. NULL when none is in the model.
fn text_vector(ctx: &Context<'_>) -> Result<Option<Vec<u8>>> {
    let conn = connection(ctx)?;
    let model = model(ctx)?;
    let Some(text) = text(ctx, 1, "a text")? else {
        return Ok(None);
    };
    let mut words = Words::open(&conn, model)?;
    let tokenizer = store::options(&conn, &words.place)?.tokenizer;
    let mut sum: Vec<f64> = Vec::new();
    let mut n = 0u64;
    let mut outcome = Ok(());
    tokenizer.for_each(text, |token| {
        if outcome.is_err() {
            return;
        }
        match words.find(token) {
            Ok(Some(example)) => {
                if n == 0 {
                    sum.resize(example.vector.len(), 0.0);
                }
                outcome = words.check_dim(&example.vector, sum.len());
                sum.iter_mut()
                    .zip(example.vector)
                    .for_each(|(s, x)| *s += f64::from(x));
                n += 1;
            }
            Ok(None) => {}
            Err(e) => outcome = Err(e),
        }
    });
    outcome?;
    let mean: Vec<f32> = sum.iter().map(|s| (s / n as f64) as f32).collect();
    Ok((n > 0).then(|| bytes_of(&mean)))
}
