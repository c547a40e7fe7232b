//! `word2vec_train(model, table, column [, options])`: text in, a table of word vectors out.
//!
//! The corpus is read on the thread that calls, because that holds the database handle; training runs on threads of its
//! own; the tables are written last, in one savepoint. So an error or an interrupt leaves nothing, and no lock is held
//! while the training lasts.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::caller::connection;
use super::place::Place;
use super::savepoint::all_or_nothing;
use super::{store, text};
use crate::embed::corpus::{Corpus, CorpusBuilder};
use crate::embed::model::Model;
use crate::embed::options::Options;
use crate::embed::strict_json;
use crate::embed::train::train;
use crate::kernel;
use crate::sql::work::Display;
use crate::sql::{DIRECT, Session, function_error, work};

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    for n_arguments in [3, 4] {
        let session = Arc::clone(session);
        conn.create_scalar_function("word2vec_train", n_arguments, DIRECT, move |ctx| {
            call(ctx, &session).map_err(function_error)
        })?;
    }
    Ok(())
}

/// What is asked for beside the training itself.
#[derive(Debug, Default)]
struct Surface {
    /// Train a model of that name anew.
    replace: bool,
    /// Where progress is shown, if not where `annoy_progress` says.
    progress: Option<Display>,
}

impl Surface {
    const NAMES: [&'static str; 2] = ["replace", "progress"];

    /// Takes its own options out of those given.
    fn take(pairs: &mut Vec<(String, Value)>) -> Result<Surface> {
        let mut surface = Surface::default();
        let mut rest = Vec::new();
        for (name, value) in pairs.drain(..) {
            match name.as_str() {
                "replace" => match (&value, value.as_u64()) {
                    (Value::Bool(flag), _) => surface.replace = *flag,
                    (_, Some(n @ 0..=1)) => surface.replace = n == 1,
                    _ => bail!("option 'replace': expected false or true, got {value}"),
                },
                "progress" => match value.as_str().map(Display::parse) {
                    Some(Ok(display)) => surface.progress = Some(display),
                    _ => bail!("option 'progress': expected \"stderr\" or \"off\", got {value}"),
                },
                _ => rest.push((name, value)),
            }
        }
        *pairs = rest;
        Ok(surface)
    }
}

fn call(ctx: &Context<'_>, session: &Session) -> Result<String> {
    let argument = |i: usize, what: &str| -> Result<&str> {
        match ctx.get_raw(i) {
            ValueRef::Text(text) => Ok(std::str::from_utf8(text)?),
            other => bail!(
                "word2vec_train: expected {what} as argument {}, got {}",
                i + 1,
                other.data_type()
            ),
        }
    };
    let (model, table) = (
        argument(0, "the name of a model")?,
        argument(1, "the name of a table")?,
    );
    let column = argument(2, "the name of a column")?;
    let mut pairs = match ctx.len() {
        4 if ctx.get_raw(3) != ValueRef::Null => {
            strict_json::object(argument(3, "options as JSON text")?)?
        }
        _ => Vec::new(),
    };
    let surface = Surface::take(&mut pairs)?;
    let options = Options::from_pairs(pairs, &Surface::NAMES)?;
    let display = surface.progress.unwrap_or_else(|| session.display());

    let conn = connection(ctx)?;
    let place = Place::for_new(&conn, model)?;
    store::check_free(&conn, &place, surface.replace)?;

    let mut builder = CorpusBuilder::new(&options);
    text::read(&conn, table, column, &mut builder)?;
    let (vocabulary, corpus) = builder.finish()?;
    let began = Instant::now();
    let model = work::run(&conn, display, |job| {
        train(vocabulary, &corpus, &options, kernel::level(), job)
    })?;
    let summary = summary(&model, &corpus, began.elapsed().as_secs_f64());

    all_or_nothing(&conn, place.schema(), || {
        store::check_free(&conn, &place, surface.replace)?;
        store::write(&conn, &place, &model, &summary)
    })?;
    Ok(summary.to_string())
}

/// What the function returns: what was read, what was trained, how long the training took.
fn summary(model: &Model, corpus: &Corpus, seconds: f64) -> Value {
    let trained = &model.summary;
    json!({
        "vocabulary": model.vocabulary.len(),
        "vector_size": model.options.vector_size,
        "alpha": model.options.alpha,
        "documents": corpus.n_documents(),
        "tokens": corpus.n_read(),
        "tokens_in_vocabulary": corpus.n_tokens(),
        "epochs": model.options.epochs,
        "effective_words": trained.effective_words,
        "seconds": seconds,
        "words_per_second": (trained.raw_words as f64 / seconds.max(1e-9)).round(),
        "loss": trained.losses.last().copied().flatten(),
        "losses": trained.losses,
    })
}
