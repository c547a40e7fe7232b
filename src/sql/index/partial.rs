//! The expression of a partial index (`where='...'`).
//!
//! It must give the same answer for a row until the row changes, so it may hold only what SQLite allows in a partial index
//! of its own. Of that, SQLite sees all but one thing when it prepares a statement: a function of date and time may be told
//! to ask the clock by the value of a column ('now', 'localtime'). That SQLite notices while it computes a CHECK constraint,
//! so rows whose expression has such a function are put through one before a file is made of them ([`check_rows`]). A row
//! that another program writes later is noted by the triggers whatever its answer is, and so is met by the next build.

use anyhow::{Result, anyhow};
use rusqlite::types::Value;
use rusqlite::{Connection, Rows, params_from_iter};

use super::catalog::trigger_sql;
use super::names::{IndexName, TRIGGERS};
use crate::sql::quote;
use crate::sql::source::{self, Source};

/// Functions that may ask the clock or for the time zone.
const OF_TIME: [&str; 7] = [
    "date",
    "time",
    "datetime",
    "julianday",
    "unixepoch",
    "strftime",
    "timediff",
];

/// What stands around a partial index's expression in its first trigger. There SQLite carries along the names of columns
/// that are renamed, so that is where the expression is read from.
pub(super) const AROUND_FILTER: [&str; 2] = ["/* where: */ ", "\n/* :where */"];

pub(super) fn filter_now(conn: &Connection, index: &IndexName) -> Result<Option<String>> {
    let sql = trigger_sql(conn, index, TRIGGERS[0])?;
    let between = |sql: &str| {
        let (_, rest) = sql.split_once(AROUND_FILTER[0])?;
        Some(rest.rsplit_once(AROUND_FILTER[1])?.0.to_owned())
    };
    Ok(sql.as_deref().and_then(between))
}

/// Refuses an expression that SQLite would refuse for a partial index of its own: a subquery, a function that is not
/// deterministic, an unknown column.
pub(crate) fn check_filter(conn: &Connection, index: &IndexName, source: &Source) -> Result<()> {
    let Some(filter) = &source.filter else {
        return Ok(());
    };
    let said = |error: rusqlite::Error| {
        let said = match error {
            rusqlite::Error::SqliteFailure(_, Some(said)) => said,
            rusqlite::Error::SqlInputError { msg, .. } => msg,
            other => other.to_string(),
        };
        let columns = source::columns(conn, &source.schema, &source.table).unwrap_or_default();
        let names = || columns.iter().map(|c| c.name.as_str());
        match said.strip_prefix("no such column: ") {
            Some(name) => source::no_column(name, &source.table, names()),
            None => anyhow!("{said}"),
        }
    };
    let said = |error| said_of(filter, said(error));
    // Without brackets around it, too: so it has as many of them that open as that close, and each in its place.
    let table = source.quoted_table();
    conn.prepare(&format!("SELECT 1 FROM {table} WHERE\n{filter}"))
        .map_err(said)?;
    // Prepared, which is when SQLite looks at the expression, and never run.
    conn.prepare(&format!(
        "CREATE INDEX {} ON {}({}) WHERE ({filter}\n)",
        index.quoted("_annoy_where"),
        quote(&source.table),
        source.quoted_key()
    ))
    .map_err(said)?;
    Ok(())
}

fn said_of(filter: &str, error: anyhow::Error) -> anyhow::Error {
    error.context(format!("where='{}'", filter.replace('\'', "''")))
}

/// The columns that a filter may depend on: those whose names are in it. One that is there by chance costs a look.
pub(super) fn filter_columns(conn: &Connection, source: &Source) -> Result<Vec<String>> {
    let Some(filter) = source.filter.as_deref().map(str::to_ascii_lowercase) else {
        return Ok(Vec::new());
    };
    // Quotes in a name are doubled where it stands quoted.
    let occurs =
        |name: &str| name.contains(['"', '`', '\'']) || filter.contains(&name.to_ascii_lowercase());
    let columns = source::columns(conn, &source.schema, &source.table)?;
    Ok(columns
        .into_iter()
        .map(|column| column.name)
        .filter(|name| occurs(name))
        .collect())
}

/// Whether the expression of a source has a function of date and time, as SQLite reads it.
pub(super) fn may_ask_the_clock(conn: &Connection, source: &Source) -> Result<bool> {
    let Some(filter) = &source.filter else {
        return Ok(false);
    };
    let table = source.quoted_table();
    let mut program = conn.prepare(&format!("EXPLAIN SELECT ({filter}\n) FROM {table}"))?;
    let mut steps = program.query([])?;
    while let Some(step) = steps.next()? {
        // Columns: addr, opcode, p1, p2, p3, p4. That of a call tells its name and the number of its arguments.
        let (code, called): (String, Option<String>) = (step.get(1)?, step.get(5)?);
        let name = called
            .as_deref()
            .and_then(|called| called.split('(').next());
        let name = name.unwrap_or_default().to_ascii_lowercase();
        let calls = code.ends_with("Function") || code.ends_with("Func");
        if calls && OF_TIME.contains(&name.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses rows for which the expression asks the clock: these, or all.
pub(super) fn check_rows(conn: &Connection, source: &Source, ids: Option<&[i64]>) -> Result<()> {
    let Some(filter) = source.filter.as_deref() else {
        return Ok(());
    };
    if !may_ask_the_clock(conn, source)? {
        return Ok(());
    }
    let (key, table) = (source.quoted_row_key(), quote(&source.table));
    let mut names = filter_columns(conn, source)?;
    names.retain(|name| *name != source.row_key);
    let places = ", ?".repeat(names.len());
    let names: String = names
        .iter()
        .map(|name| format!(", {}", quote(name)))
        .collect();
    // In a database of its own: in this one a table can't be dropped while a statement runs. It bears the table's name, for
    // an expression may say `t.y`, and forgets each row at once.
    let judge = Connection::open_in_memory()?;
    let made = judge.execute_batch(&format!(
        "CREATE TABLE {table}({key} INTEGER PRIMARY KEY{names}, CHECK(typeof({filter}\n) <> ''));
         CREATE TRIGGER forget AFTER INSERT ON {table} BEGIN DELETE FROM {table}; END; BEGIN"
    ));
    if made.is_err() {
        // A function or collation that the host has added, for which it must answer itself.
        return Ok(());
    }
    let mut put = judge.prepare(&format!(
        "INSERT INTO {table}({key}{names}) VALUES(?{places})"
    ))?;
    let columns = put.parameter_count();
    let mut check = |row: &[Value], what: &str| {
        match put.execute(params_from_iter(row)) {
            Err(error) if error.to_string().contains("non-deterministic use of") => {
                let said = "a function of date and time changes its answer while no row does";
                Err(said_of(filter, anyhow!("{what}{said}")))
            }
            // What else may be wrong the table's own statements tell.
            _ => Ok(()),
        }
    };
    // What asks the clock for any row is refused even while there is none.
    check(&vec![Value::Null; columns], "")?;
    // What rows are known by may be a group of them.
    let id = source.quoted_key();
    let rows = format!("SELECT {id}, {key}{names} FROM {}", source.quoted_table());
    let mut check_those = |rows: &mut Rows<'_>| {
        while let Some(row) = rows.next()? {
            let values: Vec<Value> = (1..=columns)
                .map(|i| row.get(i))
                .collect::<Result<_, _>>()?;
            let id = row.get_ref(0)?.as_i64().unwrap_or_default();
            check(&values, &format!("row {id} of {}: ", source.table))?;
        }
        anyhow::Ok(())
    };
    match ids {
        None => check_those(&mut conn.prepare(&rows)?.query([])?),
        Some(ids) => {
            let mut one = conn.prepare(&format!("{rows} WHERE {id} = ?1"))?;
            ids.iter()
                .try_for_each(|id| check_those(&mut one.query([id])?))
        }
    }
}
