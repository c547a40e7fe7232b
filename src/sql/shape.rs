//! `vec_cluster(table, column, k [, options])` and `vec_project(table, column [, options])`: what a column of vectors looks
//! like as a whole. Both read the table when they are called, and hold its vectors until they have answered.

use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use rusqlite::Connection;
use rusqlite::types::Value;
use serde::Deserialize;

use super::index::Rows;
use super::source::Source;
use super::values::options_error;
use super::vtab::function::{self, Function, Scope};
use super::{Session, work};
use crate::shape::{self, ClusterOptions};
use crate::vector::Metric;

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    function::register::<Cluster>(conn, session)?;
    function::register::<Project>(conn, session)
}

type Answer = std::vec::IntoIter<Result<Vec<Value>>>;

fn text<'a>(value: &'a Value, function: &str, what: &str) -> Result<&'a str> {
    match value {
        Value::Text(text) => Ok(text),
        other => bail!(
            "{function} needs the name of {what} as a text, got {}",
            other.data_type()
        ),
    }
}

fn vectors(scope: &Scope, args: &[Value], function: &str) -> Result<Rows> {
    let table = text(&args[0], function, "a table")?;
    let column = text(&args[1], function, "a column")?;
    Rows::gather(&scope.conn, &Source::find(&scope.conn, table, column)?)
}

/// The options of both.
#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a JSON object such as {\"seed\":1}"
)]
struct Options {
    metric: String,
    seed: u64,
    rounds: usize,
    threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            metric: Metric::Cosine.name().to_owned(),
            seed: 1,
            rounds: 25,
            threads: 0,
        }
    }
}

impl Options {
    fn read(value: &Value, function: &str) -> Result<Options> {
        let options: Options = match value {
            Value::Null => Options::default(),
            other => serde_json::from_str(text(other, function, "options")?)
                .map_err(|e| options_error(function, &e))?,
        };
        ensure!(
            options.threads <= 1024,
            "{function}: threads must be from 0 (all there are) to 1024, got {}",
            options.threads
        );
        Ok(options)
    }
}

/// k-means.
struct Cluster;

impl Function for Cluster {
    const NAME: &'static str = "vec_cluster";
    const COLUMNS: &'static [&'static str] = &["id INTEGER", "cluster INTEGER", "distance REAL"];
    const ARGUMENTS: &'static [&'static str] = &["table_name", "column_name", "k", "options"];
    const REQUIRED: usize = 3;
    const ROWID: Option<usize> = Some(0);
    const ROWS: i64 = 100_000;
    type Rows = Answer;

    fn call(scope: &Scope, args: &[Value]) -> Result<Answer> {
        let k = match args[2] {
            Value::Integer(k @ 1..) => usize::try_from(k)?,
            ref other => {
                return Err(anyhow!(
                    "vec_cluster: k, the number of clusters, must be an integer from 1 up, got {}",
                    match other {
                        Value::Integer(k) => k.to_string(),
                        other => other.data_type().to_string(),
                    }
                ));
            }
        };
        let options = Options::read(&args[3], "vec_cluster")?;
        let options = ClusterOptions {
            metric: Metric::parse(&options.metric, &[Metric::Cosine, Metric::L2])?,
            seed: options.seed,
            rounds: options.rounds.max(1),
            threads: work::threads(options.threads),
        };
        let rows = vectors(scope, args, Self::NAME)?;
        let found = work::run(&scope.conn, scope.session.display(), |job| {
            shape::cluster(&rows.rows, rows.dim, k, &options, job)
        })?;
        let answer: Vec<_> = rows
            .ids
            .iter()
            .zip(&found.of)
            .zip(&found.distances)
            .map(|((&id, &cluster), &distance)| {
                Ok(vec![id.into(), i64::from(cluster).into(), distance.into()])
            })
            .collect();
        Ok(answer.into_iter())
    }
}

/// The first two principal components.
struct Project;

impl Function for Project {
    const NAME: &'static str = "vec_project";
    const COLUMNS: &'static [&'static str] = &["id INTEGER", "x REAL", "y REAL"];
    const ARGUMENTS: &'static [&'static str] = &["table_name", "column_name", "options"];
    const REQUIRED: usize = 2;
    const ROWID: Option<usize> = Some(0);
    const ROWS: i64 = 100_000;
    type Rows = Answer;

    fn call(scope: &Scope, args: &[Value]) -> Result<Answer> {
        let options = Options::read(&args[2], "vec_project")?;
        let threads = work::threads(options.threads);
        let rows = vectors(scope, args, Self::NAME)?;
        let (places, _) = work::run(&scope.conn, scope.session.display(), |job| {
            shape::project(&rows.rows, rows.dim, options.seed, threads, job)
        })?;
        let answer: Vec<_> = rows
            .ids
            .iter()
            .zip(places)
            .map(|(&id, [x, y])| Ok(vec![id.into(), x.into(), y.into()]))
            .collect();
        Ok(answer.into_iter())
    }
}
