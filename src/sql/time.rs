//! `annoy_time(sql [, repeat])`: runs a query and says how long it took.
//!
//! One row: `first_ms` is the first run with its preparation, which also opens what the query needs (cold, on a new
//! connection); `median_ms` and `min_ms` are of the `repeat` runs after it (warm, prepared once; 25 unless given);
//! `rows` is the number of rows of one run. Milliseconds, each from the first step to the last row. Only for
//! statements that SQLite calls read-only; DIRECTONLY, because SQLite also calls `SELECT f()` read-only when f writes.

use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use rusqlite::Statement;
use rusqlite::types::Value;

use super::vtab::function::{Function, Scope};

const DEFAULT_RUNS: i64 = 25;
const MAX_RUNS: i64 = 1_000_000;

pub(super) struct Time;

impl Function for Time {
    const NAME: &'static str = "annoy_time";
    const COLUMNS: &'static [&'static str] = &[
        "first_ms REAL",
        "median_ms REAL",
        "min_ms REAL",
        "runs INTEGER",
        "rows INTEGER",
    ];
    const ARGUMENTS: &'static [&'static str] = &["sql", "repeat"];
    const REQUIRED: usize = 1;
    const DIRECT_ONLY: bool = true;
    const ROWS: i64 = 1;
    type Rows = std::iter::Once<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let [Value::Text(sql), runs] = args else {
            bail!("annoy_time: expected the text of a query, got none");
        };
        let runs = match runs {
            Value::Null => DEFAULT_RUNS,
            Value::Integer(n @ 1..=MAX_RUNS) => *n,
            _ => bail!("annoy_time: repeat: expected an integer from 1 to {MAX_RUNS}"),
        };
        let began = Instant::now();
        let mut statement = scope.conn.prepare(sql).map_err(|e| match e {
            rusqlite::Error::MultipleStatement => {
                anyhow!("annoy_time: expected one statement, got several")
            }
            rusqlite::Error::SqliteFailure(_, Some(message))
            | rusqlite::Error::SqlInputError { msg: message, .. } => {
                anyhow!("annoy_time: {message}")
            }
            other => other.into(),
        })?;
        // BEGIN and ATTACH are read-only as well: what is timed must give rows.
        if !statement.readonly() || statement.column_count() == 0 {
            bail!(
                "annoy_time: expected a statement that only reads, such as SELECT; this one does not"
            );
        }
        if statement.parameter_count() > 0 {
            bail!(
                "annoy_time: expected a statement without parameters; write their values into it"
            );
        }
        let rows = run(&mut statement)?;
        let first = ms(began);
        let mut warm = Vec::new();
        for _ in 0..runs {
            let began = Instant::now();
            run(&mut statement)?;
            warm.push(ms(began));
        }
        warm.sort_by(f64::total_cmp);
        Ok(std::iter::once(Ok(vec![
            first.into(),
            warm[warm.len() / 2].into(),
            warm[0].into(),
            runs.into(),
            rows.into(),
        ])))
    }
}

/// Steps through all rows; returns how many there are.
fn run(statement: &mut Statement<'_>) -> Result<i64> {
    let mut rows = statement.query([])?;
    let mut n = 0;
    while rows.next()?.is_some() {
        n += 1;
    }
    Ok(n)
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}
