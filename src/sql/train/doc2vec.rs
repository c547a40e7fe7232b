//! `doc2vec_train(model, table, column [, options])` and `doc2vec_infer(model, text [, options])`.
//!
//! A model `d` is the table `d(id, vector)`, a row for each document with the rowid of its row in the corpus (a view's
//! column `id`, or the number of the row), and the model of its words `d_words(id, word, count, vector)` with
//! `d_words_model`, which can be asked as any other. Options: word2vec's without `sg` and `cbow_mean`; `dm` (1), `dm_mean`
//! (1), `dm_concat` (0), `dbow_words` (0), and 10 epochs unless others are given.
//!
//! `doc2vec_infer` has the options `epochs`, `alpha`, `min_alpha`; without them those of the training.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::caller::connection;
use super::place::Place;
use super::request::{Request, Surface, options as options_argument, text as text_argument};
use super::savepoint::all_or_nothing;
use super::store::{self, bytes_of};
use super::text;
use crate::embed::doc2vec::{Doc2vec, Doc2vecOptions};
use crate::embed::documents::DocumentReader;
use crate::embed::options::Options;
use crate::embed::strict_json;
use crate::embed::vocab::WordId;
use crate::job::Job;
use crate::kernel;
use crate::sql::work::Display;
use crate::sql::{DIRECT, Session, function_error, work};

/// Tokens times epochs up to which a document is inferred at once: less than a second.
const QUICK: usize = 1 << 19;

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    for n_arguments in [3, 4] {
        let session = Arc::clone(session);
        conn.create_scalar_function("doc2vec_train", n_arguments, DIRECT, move |ctx| {
            train(ctx, &session).map_err(function_error)
        })?;
    }
    for n_arguments in [2, 3] {
        let flags = FunctionFlags::SQLITE_UTF8;
        conn.create_scalar_function("doc2vec_infer", n_arguments, flags, |ctx| {
            infer(ctx).map_err(function_error)
        })?;
    }
    Ok(())
}

/// Makes sure that both parts of a model can be made.
fn check_free(conn: &Connection, place: &Place, words: &Place, replace: bool) -> Result<()> {
    let is_model = store::check_free(conn, words, replace)?;
    let taken: Option<String> = conn
        .prepare_cached(
            "SELECT name FROM pragma_table_list WHERE schema = ?1 AND name = ?2 COLLATE NOCASE",
        )?
        .query_row([place.schema(), &place.names()[0]], |row| row.get(0))
        .optional()?;
    let is_ours = is_model && store::of_format(conn, words, store::DOC2VEC, "").is_ok();
    if let Some(taken) = taken
        && !is_ours
    {
        bail!(
            "{taken} exists in '{}' and is not part of a model of documents: choose another name for the model, or drop \
             or rename it",
            place.schema()
        );
    }
    Ok(())
}

fn train(ctx: &Context<'_>, session: &Session) -> Result<String> {
    let conn = connection(ctx)?;
    let request = Request::new(ctx, "doc2vec_train")?;
    let options = Doc2vecOptions::from_pairs(request.pairs, &Surface::NAMES)?;
    let display = request.surface.display(session);
    let replace = request.surface.replace;
    let place = Place::for_new(&conn, request.model)?;
    let words = place.words_of_documents();
    check_free(&conn, &place, &words, replace)?;

    let mut reader = DocumentReader::new(&options.base);
    let mut n = 0;
    text::read(
        &conn,
        request.table,
        request.column,
        |rowid, text, pause| {
            n += 1;
            reader.add(rowid.unwrap_or(n), text, pause)
        },
    )?;
    let (vocabulary, documents) = reader.finish()?;
    let began = Instant::now();
    let (model, vectors) = work::run(&conn, display, |job| {
        let mut model = Doc2vec::new(vocabulary, &options)?;
        let vectors = model.train(&documents, kernel::level(), job)?;
        Ok((model, vectors))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let raw_words = options.base.epochs * documents.n_tokens();
    let summary = json!({
        "documents": documents.len(),
        "vocabulary": model.vocabulary.len(),
        "vector_size": options.base.vector_size,
        "tokens": documents.n_read(),
        "tokens_in_vocabulary": documents.n_tokens(),
        "epochs": options.base.epochs,
        "seconds": seconds,
        "words_per_second": (raw_words as f64 / seconds.max(1e-9)).round(),
        "loss": model.losses.last().copied().flatten(),
        "losses": model.losses,
    });

    all_or_nothing(&conn, place.schema(), || {
        check_free(&conn, &place, &words, replace)?;
        let table = place.words();
        conn.execute_batch(&format!(
            "DROP TABLE IF EXISTS {table};
             CREATE TABLE {table}(id INTEGER PRIMARY KEY, vector BLOB);"
        ))?;
        let mut insert =
            conn.prepare(&format!("INSERT INTO {table}(id, vector) VALUES(?1, ?2)"))?;
        for (i, key) in documents.keys().iter().enumerate() {
            insert
                .execute(params![key, bytes_of(vectors.row(i))])
                .with_context(|| format!("the document with id {key}"))?;
        }
        store::create(&conn, &words, store::WORDS)?;
        store::put_words(&conn, &words, &model.vocabulary, |id| {
            bytes_of(model.words.row(id as usize))
        })?;
        store::describe(
            &conn,
            &words,
            store::DOC2VEC,
            &model.options.to_json(),
            &summary,
        )?;
        if options.dm_concat {
            let nobody = bytes_of(model.words.row(model.vocabulary.len()));
            store::put(&conn, &words, "nobody", 0, nobody)?;
        }
        store::put_outputs(&conn, &words, model.output.as_ref(), model.nodes.as_ref())
    })?;
    Ok(summary.to_string())
}

/// A model that a statement infers documents with, and what it was asked.
struct Known {
    asked: String,
    model: Mutex<Doc2vec>,
    ids: FxHashMap<Box<str>, WordId>,
    schedule: Options,
}

impl Known {
    fn load(
        conn: &Connection,
        asked: String,
        model: &str,
        given: Vec<(String, Value)>,
    ) -> Result<Known> {
        let place = Place::find(conn, &format!("{model}_words"))
            .with_context(|| format!("no such model of documents: {model}"))?;
        let stored = store::of_format(conn, &place, store::DOC2VEC, "doc2vec_train")?;
        let options = Doc2vecOptions::from_pairs(strict_json::object(&stored)?, &[])
            .with_context(|| format!("the options of {}", place.shown()))?;
        let vocabulary = store::vocabulary(conn, &place)?;
        let n = vocabulary.len();
        let base = &options.base;
        let mut model = Doc2vec::new(vocabulary, &options)?;
        let vectors = store::vectors(conn, &place, n, base.vector_size)?;
        for i in 0..n {
            model.words.row_mut(i).copy_from_slice(vectors.row(i));
        }
        if options.dm_concat {
            let nobody = store::matrix(conn, &place, "nobody", 1, base.vector_size)?;
            model.words.row_mut(n).copy_from_slice(nobody.row(0));
        }
        for (key, matrix) in [("output", &mut model.output), ("nodes", &mut model.nodes)] {
            if let Some(matrix) = matrix {
                *matrix = store::matrix(conn, &place, key, matrix.n_rows(), matrix.dim())?;
            }
        }
        Ok(Known {
            asked,
            ids: (0..n as WordId)
                .map(|id| (model.vocabulary.word(id).into(), id))
                .collect(),
            schedule: schedule(base, given)?,
            model: Mutex::new(model),
        })
    }
}

/// The epochs and learning rates of an inference.
fn schedule(base: &Options, given: Vec<(String, Value)>) -> Result<Options> {
    for (name, _) in &given {
        if !["epochs", "alpha", "min_alpha"].contains(&name.as_str()) {
            bail!("unknown option '{name}'. Valid options: epochs, alpha, min_alpha");
        }
    }
    base.with(given)
}

fn infer(ctx: &Context<'_>) -> Result<Option<Vec<u8>>> {
    let text = match ctx.get_raw(1) {
        ValueRef::Null => return Ok(None),
        ValueRef::Text(text) => std::str::from_utf8(text)?,
        other => bail!("doc2vec_infer: expected a text, got {}", other.data_type()),
    };
    let conn = connection(ctx)?;
    let name = text_argument(ctx, 0, "doc2vec_infer", "the name of a model")?;
    let asked = match ctx.len() {
        3 => format!("{name}\0{:?}", ctx.get_raw(2)),
        _ => name.to_owned(),
    };
    // A statement that infers many documents by one model reads it once.
    let known: Arc<Known> = match ctx.get_aux::<Known>(0)? {
        Some(known) if known.asked == asked => known,
        _ => {
            let given = options_argument(ctx, 2, "doc2vec_infer")?;
            ctx.set_aux(0, Known::load(&conn, asked, name, given)?)?
        }
    };
    let mut tokens = Vec::new();
    known.schedule.tokenizer.for_each(text, |token| {
        tokens.extend(known.ids.get(token).copied());
    });
    let mut model = known.model.lock().unwrap_or_else(PoisonError::into_inner);
    let model = &mut *model;
    let level = kernel::level();
    let vector = if tokens.len() * known.schedule.epochs <= QUICK {
        model.infer(&tokens, &known.schedule, level, &Job::new())?
    } else {
        work::run(&conn, Display::default(), |job| {
            model.infer(&tokens, &known.schedule, level, job)
        })?
    };
    Ok(Some(bytes_of(&vector)))
}
