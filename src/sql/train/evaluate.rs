//! `evaluate_word_analogies(model, path [, options])` and `evaluate_word_pairs(model, path [, options])`: how good the
//! vectors of a model are, in gensim's numbers.
//!
//! Analogies: a row (section, correct, incorrect, accuracy, unknown) for each section of the file and one named
//! `Total accuracy`; accuracy is NULL for a section without known words. Pairs: one row of correlations. Options:
//! `restrict_vocab` (300000), `case_insensitive` (true), `dummy4unknown` (false); for analogies `method` (`3cosadd` or
//! `3cosmul`) and `threads` (1), for pairs `delimiter` (a tab). Both are DIRECTONLY, because they read files.

use std::io::Read;

use anyhow::{Context, Result, anyhow, bail};
use rusqlite::types::Value;

use super::import::open;
use super::place::Place;
use crate::embed::evaluate::{Judgements, Method, Questions, Subject, analogies, pairs};
use crate::embed::options::Given;
use crate::embed::strict_json;
use crate::sql::values::vector as vector_of;
use crate::sql::vtab::function::{Function, Scope};
use crate::sql::work;

/// What both are asked.
struct Request {
    text: String,
    /// For messages: function and file.
    shown: String,
    model: String,
    restrict_vocab: usize,
    case_insensitive: bool,
    dummy4unknown: bool,
    method: Method,
    threads: usize,
    delimiter: String,
}

impl Request {
    fn new(function: &str, args: &[Value], own: &[&str]) -> Result<Request> {
        let [Value::Text(model), Value::Text(path), options] = args else {
            bail!("{function}: expected the name of a model and the path of a file");
        };
        let mut request = Request {
            text: String::new(),
            shown: format!("{function}: '{path}'"),
            model: model.clone(),
            restrict_vocab: 300_000,
            case_insensitive: true,
            dummy4unknown: false,
            method: Method::Add,
            threads: 1,
            delimiter: "\t".to_owned(),
        };
        let pairs = match options {
            Value::Null => Vec::new(),
            Value::Text(text) => strict_json::object(text)?,
            other => bail!(
                "{function}: expected options as JSON text, got {}",
                other.data_type()
            ),
        };
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            let common = ["restrict_vocab", "case_insensitive", "dummy4unknown"];
            match name.as_str() {
                "restrict_vocab" => {
                    request.restrict_vocab = given.limit()?.unwrap_or(u32::MAX as usize);
                }
                "case_insensitive" => request.case_insensitive = given.flag()?,
                "dummy4unknown" => request.dummy4unknown = given.flag()?,
                other if !own.contains(&other) => bail!(
                    "unknown option '{name}'. Valid options: {}",
                    common
                        .iter()
                        .chain(own)
                        .copied()
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                "method" => {
                    let all = [("3cosadd", Method::Add), ("3cosmul", Method::Mul)];
                    request.method = given.choice(&all)?;
                }
                "threads" => request.threads = given.integer(1, 256)? as usize,
                _ => request.delimiter = given.text()?,
            }
        }
        if request.delimiter.is_empty() {
            bail!("option 'delimiter': expected at least one character, got none");
        }
        open(path)
            .context(function.to_owned())?
            .read_to_string(&mut request.text)
            .with_context(|| request.shown.clone())?;
        Ok(request)
    }

    /// The words and vectors to be evaluated.
    fn subject(&self, scope: &Scope) -> Result<Subject> {
        let place = Place::find(&scope.conn, &self.model)?;
        let sql = format!(
            "SELECT word, vector FROM {} WHERE vector IS NOT NULL ORDER BY id LIMIT ?1",
            place.words()
        );
        let mut statement = scope.conn.prepare(&sql)?;
        let mut rows = statement.query([self.restrict_vocab as i64])?;
        let mut words = Vec::new();
        while let Some(row) = rows.next()? {
            let word: String = row.get(0)?;
            let vector = vector_of(row.get_ref(1)?)
                .map_err(|e| anyhow!("the vector of '{word}' in {}: {e}", place.shown()))?;
            words.push((word, vector.into_owned()));
        }
        Subject::new(words, self.case_insensitive)
    }
}

pub(super) struct Analogies;

impl Function for Analogies {
    const NAME: &'static str = "evaluate_word_analogies";
    const COLUMNS: &'static [&'static str] = &[
        "section TEXT",
        "correct INTEGER",
        "incorrect INTEGER",
        "accuracy REAL",
        "unknown INTEGER",
    ];
    const ARGUMENTS: &'static [&'static str] = &["model", "path", "options"];
    const REQUIRED: usize = 2;
    const DIRECT_ONLY: bool = true;
    const ROWS: i64 = 15;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let request = Request::new(Self::NAME, args, &["method", "threads"])?;
        let questions = Questions::parse(&request.text).with_context(|| request.shown.clone())?;
        let subject = request.subject(scope)?;
        let scores = work::run(&scope.conn, scope.session.display(), |job| {
            analogies(
                &subject,
                &questions,
                request.method,
                request.dummy4unknown,
                request.threads,
                job,
            )
        })?;
        let rows: Vec<_> = scores
            .into_iter()
            .map(|score| {
                let asked = score.correct + score.incorrect;
                let accuracy = (asked > 0).then(|| score.correct as f64 / asked as f64);
                Ok(vec![
                    score.section.into(),
                    (score.correct as i64).into(),
                    (score.incorrect as i64).into(),
                    accuracy.into(),
                    (score.unknown as i64).into(),
                ])
            })
            .collect();
        Ok(rows.into_iter())
    }
}

pub(super) struct Pairs;

impl Function for Pairs {
    const NAME: &'static str = "evaluate_word_pairs";
    const COLUMNS: &'static [&'static str] = &[
        "pearson REAL",
        "pearson_p REAL",
        "spearman REAL",
        "spearman_p REAL",
        "oov_ratio REAL",
        "pairs INTEGER",
    ];
    const ARGUMENTS: &'static [&'static str] = &["model", "path", "options"];
    const REQUIRED: usize = 2;
    const DIRECT_ONLY: bool = true;
    const ROWS: i64 = 1;
    type Rows = std::iter::Once<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let request = Request::new(Self::NAME, args, &["delimiter"])?;
        let judgements = Judgements::parse(&request.text, &request.delimiter)
            .with_context(|| request.shown.clone())?;
        let subject = request.subject(scope)?;
        let agreement = pairs(&subject, &judgements, request.dummy4unknown)
            .with_context(|| request.shown.clone())?;
        Ok(std::iter::once(Ok(vec![
            agreement.pearson.0.into(),
            agreement.pearson.1.into(),
            agreement.spearman.0.into(),
            agreement.spearman.1.into(),
            agreement.oov_ratio.into(),
            (agreement.n_pairs as i64).into(),
        ])))
    }
}
