//! `fasttext_train(model, table, column [, options])` and `fasttext_vector(model, word)`.
//!
//! The tables are those of word2vec: `m(id, word, count, vector)`, the vector the mean of the word's own and its n-grams'.
//! Beside the parts of word2vec `m_model` has `words`, the words' own vectors, and `ngrams` with the bucket as its part.
//! Options: word2vec's, and `min_n` (3), `max_n` (6), `bucket` (2000000).

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::caller::connection;
use super::place::Place;
use super::request::{Request, Surface, text as text_argument};
use super::savepoint::all_or_nothing;
use super::store::{self, bytes_of};
use super::text;
use super::words::Words;
use crate::embed::documents::DocumentReader;
use crate::embed::fasttext::{self, Fasttext, FasttextOptions, ngrams};
use crate::embed::strict_json;
use crate::kernel;
use crate::sql::values::vector as vector_of;
use crate::sql::{DIRECT, Session, function_error, work};

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    for n_arguments in [3, 4] {
        let session = Arc::clone(session);
        conn.create_scalar_function("fasttext_train", n_arguments, DIRECT, move |ctx| {
            train(ctx, &session).map_err(function_error)
        })?;
    }
    conn.create_scalar_function("fasttext_vector", 2, FunctionFlags::SQLITE_UTF8, |ctx| {
        fasttext_vector(ctx).map_err(function_error)
    })
}

fn train(ctx: &Context<'_>, session: &Session) -> Result<String> {
    let conn = connection(ctx)?;
    let request = Request::new(ctx, "fasttext_train")?;
    let options = FasttextOptions::from_pairs(request.pairs, &Surface::NAMES)?;
    let display = request.surface.display(session);
    let replace = request.surface.replace;
    let place = Place::for_new(&conn, request.model)?;
    store::check_free(&conn, &place, replace)?;

    let mut reader = DocumentReader::new(&options.base);
    text::read(&conn, request.table, request.column, |_, text, pause| {
        reader.add(0, text, pause)
    })?;
    let (vocabulary, documents) = reader.finish()?;
    let began = Instant::now();
    let model = work::run(&conn, display, |job| {
        fasttext::train(vocabulary, &documents, &options, kernel::level(), job)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let raw_words = options.base.epochs * documents.n_tokens();
    let summary = json!({
        "vocabulary": model.vocabulary.len(),
        "vector_size": options.base.vector_size,
        "ngrams": model.buckets.len(),
        "documents": documents.len(),
        "tokens": documents.n_read(),
        "tokens_in_vocabulary": documents.n_tokens(),
        "epochs": options.base.epochs,
        "seconds": seconds,
        "words_per_second": (raw_words as f64 / seconds.max(1e-9)).round(),
        "loss": model.losses.last().copied().flatten(),
        "losses": model.losses,
    });
    write(&conn, &place, &model, &summary, replace)?;
    Ok(summary.to_string())
}

/// Writes a model, in one savepoint.
pub(super) fn write(
    conn: &Connection,
    place: &Place,
    model: &Fasttext,
    summary: &Value,
    replace: bool,
) -> Result<()> {
    all_or_nothing(conn, place.schema(), || {
        store::check_free(conn, place, replace)?;
        store::create(conn, place, store::WORDS)?;
        store::put_words(conn, place, &model.vocabulary, |id| {
            bytes_of(&model.vector(id))
        })?;
        store::describe(
            conn,
            place,
            store::FASTTEXT,
            &model.options.to_json(),
            summary,
        )?;
        store::put_matrix(conn, place, "words", &model.words)?;
        for (i, &bucket) in model.buckets.iter().enumerate() {
            let vector = bytes_of(model.ngrams.row(i));
            store::put(conn, place, "ngrams", i64::from(bucket), vector)?;
        }
        store::put_outputs(conn, place, model.output.as_ref(), model.nodes.as_ref())
    })
}

/// `fasttext_vector(model, word)`: the vector of a word, from its n-grams if the model does not have it; a zero vector if
/// none of them is known; NULL for NULL.
fn fasttext_vector(ctx: &Context<'_>) -> Result<Option<Vec<u8>>> {
    let word = match ctx.get_raw(1) {
        ValueRef::Null => return Ok(None),
        ValueRef::Text(word) => std::str::from_utf8(word)?,
        other => bail!(
            "fasttext_vector: expected a word, got {}",
            other.data_type()
        ),
    };
    let conn = connection(ctx)?;
    let model = text_argument(ctx, 0, "fasttext_vector", "the name of a model")?;
    let mut words = Words::open(&conn, model)?;
    if let Some(example) = words.find(word)? {
        return Ok(Some(bytes_of(&example.vector)));
    }
    match from_ngrams(&conn, &words.place, word)? {
        Some(vector) => Ok(Some(bytes_of(&vector))),
        None => bail!(
            "{} is a model of another kind: expected one that fasttext_train or model_import made of fastText's words",
            words.place.shown()
        ),
    }
}

/// The mean of a word's n-grams, zero if none is known; `None` if the model is not fastText's.
pub(super) fn from_ngrams(
    conn: &Connection,
    place: &Place,
    word: &str,
) -> Result<Option<Vec<f32>>> {
    let Some(stored) = store::options_if(conn, place, store::FASTTEXT)? else {
        return Ok(None);
    };
    let options = FasttextOptions::from_pairs(strict_json::object(&stored)?, &[])
        .with_context(|| format!("the options of {}", place.shown()))?;
    let mut find = conn.prepare_cached(&format!(
        "SELECT value FROM {} WHERE key = 'ngrams' AND part = ?1",
        place.parts()
    ))?;
    let dim = options.base.vector_size;
    let mut vectors = Vec::new();
    for bucket in ngrams::buckets(
        word.as_bytes(),
        options.min_n,
        options.max_n,
        options.bucket,
    ) {
        let mut rows = find.query([bucket])?;
        if let Some(row) = rows.next()? {
            let vector = vector_of(row.get_ref(0)?)?.into_owned();
            if vector.len() != dim {
                bail!(
                    "the n-gram vector {bucket} of {} has {} components, expected {dim}",
                    place.shown(),
                    vector.len()
                );
            }
            vectors.push(vector);
        }
    }
    Ok(Some(match vectors.is_empty() {
        true => vec![0.0; dim],
        false => fasttext::mean(vectors.iter().map(Vec::as_slice)),
    }))
}
