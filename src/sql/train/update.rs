//! `word2vec_update(model, table, column [, options])`: trains a model on more text, and adds its new words.
//!
//! The options are those the model was trained with, as its `_model` table has them, except those given now: `epochs`,
//! `alpha`, `min_alpha`, `min_count`, `sample`, `window`, `seed`, `threads`, `progress`. Words keep their ids, so that an
//! index of the model's table and tables that refer to it stay right; new words come behind them, though they may be more
//! frequent. One transaction, as training.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::functions::Context;
use serde_json::Value;

use super::caller::connection;
use super::place::{Place, check_alone};
use super::request::Request;
use super::savepoint::all_or_nothing;
use super::store::{self, bytes_of};
use super::{text, word2vec};
use crate::embed::options::Options;
use crate::embed::train::{Weights, train_from};
use crate::embed::update::{Update, grow};
use crate::kernel;
use crate::sql::{DIRECT, Session, function_error, work};

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    for n_arguments in [3, 4] {
        let session = Arc::clone(session);
        conn.create_scalar_function("word2vec_update", n_arguments, DIRECT, move |ctx| {
            call(ctx, &session).map_err(function_error)
        })?;
    }
    Ok(())
}

/// What may be given anew.
const NAMES: [&str; 10] = [
    "epochs",
    "alpha",
    "min_alpha",
    "min_count",
    "sample",
    "window",
    "seed",
    "threads",
    "workers",
    "shrink_windows",
];

/// The model's options with those that are given now.
fn options(stored: &Options, given: Vec<(String, Value)>) -> Result<Options> {
    for (name, _) in &given {
        if !NAMES.contains(&name.as_str()) {
            bail!(
                "option '{name}' can't be given to word2vec_update: the model keeps what it was trained with. Valid \
                 options: {}, progress",
                NAMES.join(", ")
            );
        }
    }
    stored.with(given)
}

fn call(ctx: &Context<'_>, session: &Session) -> Result<String> {
    let conn = connection(ctx)?;
    let request = Request::new(ctx, "word2vec_update")?;
    check_alone(&conn)?;
    let place = Place::find(&conn, request.model)?;
    store::of_format(&conn, &place, store::WORD2VEC, "word2vec_train")?;
    let stored = store::options(&conn, &place)?;
    if stored.hs {
        bail!(
            "the model {} was trained with hs = 1, whose tree is made of the counts of all its words: expected a model \
             of negative sampling alone; train anew on all text",
            place.shown()
        );
    }
    let options = options(&stored, request.pairs)?;
    let display = request.surface.display(session);

    let vocabulary = store::vocabulary(&conn, &place)?;
    let n_known = vocabulary.len();
    let weights = Weights {
        input: store::vectors(&conn, &place, n_known, options.vector_size)?,
        output: Some(store::matrix(
            &conn,
            &place,
            "output",
            n_known,
            options.vector_size,
        )?),
        nodes: None,
    };
    let mut update = Update::new(&vocabulary, &options);
    text::read(&conn, request.table, request.column, |_, text, pause| {
        update.add_document(text, pause)
    })?;
    let (vocabulary, corpus) = update.finish()?;
    let began = Instant::now();
    let model = work::run(&conn, display, |job| {
        let weights = grow(weights, vocabulary.len(), &options)?;
        train_from(weights, vocabulary, &corpus, &options, kernel::level(), job)
    })?;
    let mut summary = word2vec::summary(&model, &corpus, began.elapsed().as_secs_f64());
    if let Value::Object(summary) = &mut summary {
        summary.insert(
            "new_words".to_owned(),
            (model.vocabulary.len() - n_known).into(),
        );
    }

    all_or_nothing(&conn, place.schema(), || {
        // What was read may have changed since.
        if store::vocabulary(&conn, &place)?.len() != n_known {
            bail!(
                "the model {} was changed while it was trained",
                place.shown()
            );
        }
        store::put_words(&conn, &place, &model.vocabulary, |id| {
            bytes_of(model.vector(id))
        })?;
        store::describe(&conn, &place, store::WORD2VEC, &stored.to_json(), &summary)?;
        store::put_outputs(&conn, &place, model.output.as_ref(), None)
    })?;
    Ok(summary.to_string())
}
