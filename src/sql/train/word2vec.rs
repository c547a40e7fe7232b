//! `word2vec_train(model, table, column [, options])`: text in, a table of word vectors out.
//!
//! The corpus is read on the thread that calls, because that holds the database handle; training runs on threads of its
//! own; the tables are written last, in one savepoint. So an error or an interrupt leaves nothing, and no lock is held
//! while the training lasts.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use rusqlite::Connection;
use rusqlite::functions::Context;
use serde_json::{Value, json};

use super::caller::connection;
use super::place::Place;
use super::request::{Request, Surface};
use super::savepoint::all_or_nothing;
use super::{store, text};
use crate::embed::corpus::{Corpus, CorpusBuilder};
use crate::embed::model::Model;
use crate::embed::options::Options;
use crate::embed::train::train;
use crate::kernel;
use crate::sql::work::Watch;
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

fn call(ctx: &Context<'_>, session: &Session) -> Result<String> {
    let request = Request::new(ctx, "word2vec_train")?;
    let Request {
        model,
        table,
        column,
        pairs,
        surface,
    } = request;
    let options = Options::from_pairs(pairs, &Surface::NAMES)?;
    let display = surface.display(session);

    let conn = connection(ctx)?;
    let place = Place::for_new(&conn, model)?;
    store::check_free(&conn, &place, surface.replace)?;

    let began = Instant::now();
    let mut builder = CorpusBuilder::new(&options);
    let mut watch = Watch::new(display, "read");
    text::read(&conn, table, column, |_, text, pause| {
        builder.add_document_in_pieces(text, pause)?;
        watch.done(builder.n_tokens());
        Ok(())
    })?;
    drop(watch);
    let (vocabulary, corpus) = work::run(&conn, display, |job| builder.finish_under(job))?;
    let read = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let model = work::run(&conn, display, |job| {
        train(vocabulary, &corpus, &options, kernel::level(), job)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let mut summary = summary(&model, &corpus, seconds);
    summary["seconds_reading"] = json!(read);

    all_or_nothing(&conn, place.schema(), || {
        store::check_free(&conn, &place, surface.replace)?;
        store::write(&conn, &place, &model, &summary)
    })?;
    Ok(summary.to_string())
}

/// What the function returns: what was read, what was trained, how long the training took.
pub(super) fn summary(model: &Model, corpus: &Corpus, seconds: f64) -> Value {
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
