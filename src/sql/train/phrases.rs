//! `phrases_train(model, table, column [, options])` and `phrases_apply(model, text)`: words that belong together.
//!
//! A model `p` of phrases is the table `p(id, phrase, count, score)`, best first, and `p_model` with its options; rows may
//! be deleted or added by hand. `phrases_apply` returns the text's tokens, phrases joined, a blank between them, so that a
//! view can feed it to training:
//!
//! ```sql
//! CREATE VIEW joined AS SELECT id, phrases_apply('p', body) AS body FROM docs;
//! ```

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::params;
use rusqlite::types::ValueRef;
use serde_json::json;

use super::caller::connection;
use super::place::Place;
use super::request::{Request, text as text_argument};
use super::savepoint::all_or_nothing;
use super::{store, text};
use crate::embed::phrases::{PhraseCounter, PhraseOptions};
use crate::embed::strict_json;
use crate::sql::{DIRECT, function_error};

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for n_arguments in [3, 4] {
        conn.create_scalar_function("phrases_train", n_arguments, DIRECT, |ctx| {
            train(ctx).map_err(function_error)
        })?;
    }
    conn.create_scalar_function("phrases_apply", 2, FunctionFlags::SQLITE_UTF8, |ctx| {
        apply(ctx).map_err(function_error)
    })
}

fn train(ctx: &Context<'_>) -> Result<String> {
    let began = Instant::now();
    let conn = connection(ctx)?;
    let request = Request::new(ctx, "phrases_train")?;
    let options = PhraseOptions::from_pairs(request.pairs)?;
    let place = Place::for_new(&conn, request.model)?;
    let replace = request.surface.replace;
    store::check_free(&conn, &place, replace)?;

    let mut counter = PhraseCounter::new(&options);
    text::read(&conn, request.table, request.column, |_, text, pause| {
        counter.add(text, pause)
    })?;
    let (documents, tokens) = (counter.n_documents(), counter.n_tokens());
    let phrases = counter.finish();
    let summary = json!({
        "documents": documents,
        "tokens": tokens,
        "phrases": phrases.len(),
        "seconds": began.elapsed().as_secs_f64(),
    });
    all_or_nothing(&conn, place.schema(), || {
        store::check_free(&conn, &place, replace)?;
        store::create(
            &conn,
            &place,
            "phrase TEXT NOT NULL UNIQUE, count INTEGER NOT NULL, score REAL NOT NULL",
        )?;
        let mut insert = conn.prepare(&format!(
            "INSERT INTO {}(id, phrase, count, score) VALUES(?1, ?2, ?3, ?4)",
            place.words()
        ))?;
        for (id, phrase) in phrases.iter().enumerate() {
            insert.execute(params![
                id as i64,
                phrase.phrase,
                phrase.count as i64,
                phrase.score
            ])?;
        }
        store::describe(&conn, &place, store::PHRASES, &options.to_json(), &summary)
    })?;
    Ok(summary.to_string())
}

fn apply(ctx: &Context<'_>) -> Result<Option<String>> {
    let text = match ctx.get_raw(1) {
        ValueRef::Null => return Ok(None),
        ValueRef::Text(text) => std::str::from_utf8(text)?,
        other => bail!("phrases_apply: expected a text, got {}", other.data_type()),
    };
    let conn = connection(ctx)?;
    let model = text_argument(ctx, 0, "phrases_apply", "the name of a model of phrases")?;
    // A statement that calls this for many rows looks the model up once.
    let known = match ctx.get_aux::<(String, PhraseOptions)>(0)? {
        Some(known) => known,
        None => {
            let place = Place::find(&conn, model)?;
            let stored = store::of_format(&conn, &place, store::PHRASES, "phrases_train")?;
            let options = PhraseOptions::from_pairs(strict_json::object(&stored)?)
                .with_context(|| format!("the options of {}", place.shown()))?;
            ctx.set_aux(0, (place.words(), options))?
        }
    };
    let (table, options) = &*known;
    let mut find = conn.prepare_cached(&format!("SELECT 1 FROM {table} WHERE phrase = ?1"))?;
    let mut joined = String::with_capacity(text.len());
    options.apply(
        text,
        |candidate| Ok(find.exists([candidate])?),
        |token| {
            if !joined.is_empty() {
                joined.push(' ');
            }
            joined.push_str(token);
        },
    )?;
    Ok(Some(joined))
}
