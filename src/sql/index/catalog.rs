//! What the database itself knows of an index: the shadow tables.
//!
//! `<index>_catalog(key, value)`:
//!
//! | key | value |
//! |---|---|
//! | table, column | what is indexed, as it was named when the index was made; the triggers know its name of now |
//! | options | JSON of [`IndexOptions`] |
//! | generation | number of the last file that was built; counts up, also over rebuilds that came to nothing |
//! | current | the parts that answer ([`super::part`]); NULL when there is none |
//! | hides:`<generation>` | rowids that a part has outdated in older ones |
//! | built | JSON of [`Built`] |
//! | unique | JSON of the UNIQUE indexes that the triggers know |
//!
//! `<index>_changes(seq, id, stamp)`: rowids whose rows may differ from the file, in the order of their last change. The
//! triggers fill it in plain SQL, so it is right whichever program writes. It is no shadow table in SQLite's sense:
//! SQLite keeps those from triggers in a host that runs in defensive mode, and the sqlite3 shell does.
//!
//! `stamp` is random, so an entry (seq, stamp) stands for one moment of one history: whoever finds it again knows that
//! nothing before it was undone ([`super::pending`]).
//!
//! Anybody may have written to these tables. What can't be read is an error that says so, or the reason why the table
//! answers; [`check`] finds it, `rebuild` makes the tables again from the declaration ([`super::create`]), and DROP needs
//! none of them.

use anyhow::{Result, anyhow, bail, ensure};
use rusqlite::types::{FromSql, Value};
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::{Deserialize, Serialize};

use super::names::{IndexName, TRIGGERS};
use super::options::IndexOptions;
use super::part;
use super::partial::{AROUND_FILTER, check_filter, filter_columns, filter_now, may_ask_the_clock};
use super::unique;
use crate::sql::source::{self, Group, Source};
use crate::sql::{quote, source::Column, unquote};

/// Figures of the last build.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Built {
    /// Rows in the file.
    pub(crate) items: u64,
    /// Rows left out because their vector is NULL.
    pub(crate) nulls: u64,
    /// Seconds to read the table.
    pub(crate) read_seconds: f64,
    /// Seconds to build the forest.
    pub(crate) build_seconds: f64,
    /// Seconds to write and sync the file.
    pub(crate) write_seconds: f64,
    /// Size of the file.
    pub(crate) bytes: u64,
}

/// The settings of an index.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) table: String,
    pub(crate) column: String,
    pub(crate) options: IndexOptions,
}

/// Makes the shadow tables.
pub(crate) fn create(conn: &Connection, index: &IndexName) -> Result<()> {
    create_tables(conn, index, "")
}

/// Removes the triggers and all that the shadow tables say, and makes those that are not there. (Inside a command to the
/// index SQLite drops no table.)
pub(crate) fn empty(conn: &Connection, index: &IndexName) -> Result<()> {
    drop_triggers(conn, index)?;
    create_tables(conn, index, "IF NOT EXISTS")?;
    conn.execute_batch(&format!(
        "DELETE FROM {}; DELETE FROM {};",
        index.catalog(),
        index.changes()
    ))?;
    Ok(())
}

fn create_tables(conn: &Connection, index: &IndexName, unless: &str) -> Result<()> {
    conn.execute_batch(&format!(
        "CREATE TABLE {unless} {}(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
         CREATE TABLE {unless} {}(seq INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, stamp INTEGER DEFAULT (random()));",
        index.catalog(),
        index.changes()
    ))?;
    Ok(())
}

/// Makes the triggers, and says in the shadow tables what the index is.
pub(crate) fn fill(
    conn: &Connection,
    index: &IndexName,
    source: &Source,
    options: &IndexOptions,
) -> Result<()> {
    for (key, value) in [
        ("table", Value::from(source.table.clone())),
        ("column", Value::from(source.column.clone())),
        ("options", Value::from(serde_json::to_string(options)?)),
        ("generation", Value::from(0)),
        ("current", Value::Null),
        ("built", Value::Null),
    ] {
        put(conn, index, key, value)?;
    }
    create_triggers(conn, index, source)
}

/// Removes triggers and shadow tables.
pub(crate) fn drop(conn: &Connection, index: &IndexName) -> Result<()> {
    drop_triggers(conn, index)?;
    conn.execute_batch(&format!(
        "DROP TABLE IF EXISTS {}; DROP TABLE IF EXISTS {};",
        index.catalog(),
        index.changes()
    ))?;
    Ok(())
}

/// Writes one value.
pub(crate) fn put(
    conn: &Connection,
    index: &IndexName,
    key: &str,
    value: impl Into<Value>,
) -> Result<()> {
    conn.execute(
        &format!(
            "INSERT INTO {}(key, value) VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            index.catalog()
        ),
        (key, value.into()),
    )?;
    Ok(())
}

/// What a catalogue keeps.
pub(crate) trait Kept: FromSql {
    /// What it is called in a message.
    const KIND: &str;
}

impl Kept for String {
    const KIND: &str = "a text";
}

impl Kept for i64 {
    const KIND: &str = "an integer";
}

impl Kept for Vec<u8> {
    const KIND: &str = "a blob";
}

/// The error for a catalogue that says what no build wrote.
fn damaged(index: &IndexName, key: &str, expected: &str, got: &str) -> anyhow::Error {
    anyhow!(
        "the catalogue of index {0} is damaged: its '{key}' is {got}, expected {expected}; repair it with INSERT INTO \
         {1}({1}) VALUES('rebuild')",
        index.name,
        quote(&index.name)
    )
}

/// Reads one value.
///
/// # Errors
/// When it is of another type, or there is no catalogue.
pub(crate) fn get<T: Kept>(conn: &Connection, index: &IndexName, key: &str) -> Result<Option<T>> {
    let value = conn
        .query_row(
            &format!("SELECT value FROM {} WHERE key = ?1", index.catalog()),
            [key],
            |row| row.get::<_, Value>(0),
        )
        .optional()
        .map_err(|error| match error {
            // A text that is no UTF-8.
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::Utf8Error(..) => {
                damaged(index, key, T::KIND, "no text")
            }
            other => other.into(),
        })?;
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match T::column_result((&value).into()) {
            Ok(value) => Ok(Some(value)),
            Err(_) => {
                let got = value.data_type().to_string().to_lowercase();
                Err(damaged(index, key, T::KIND, &format!("of type {got}")))
            }
        },
    }
}

/// Reads one value that must be there.
fn must<T: Kept>(conn: &Connection, index: &IndexName, key: &str) -> Result<T> {
    get(conn, index, key)?.ok_or_else(|| damaged(index, key, T::KIND, "not there"))
}

/// Reads the settings.
pub(crate) fn settings(conn: &Connection, index: &IndexName) -> Result<Settings> {
    let json: String = must(conn, index, "options")?;
    let options = IndexOptions::from_json(&json).map_err(|error| {
        damaged(
            index,
            "options",
            "those of an index",
            &format!("{json} ({error:#})"),
        )
    })?;
    Ok(Settings {
        table: must(conn, index, "table")?,
        column: must(conn, index, "column")?,
        options,
    })
}

/// Reads the figures of the last build. They are for people: none, where there are none that can be read.
pub(crate) fn built(conn: &Connection, index: &IndexName) -> Built {
    figures(conn, index).unwrap_or_default()
}

fn figures(conn: &Connection, index: &IndexName) -> Result<Built> {
    match get::<String>(conn, index, "built")? {
        Some(json) => serde_json::from_str(&json).map_err(|error| {
            damaged(
                index,
                "built",
                "figures of a build",
                &format!("{json} ({error})"),
            )
        }),
        None => Ok(Built::default()),
    }
}

/// Looks at all that the shadow tables say, as far as it can be wrong by itself.
///
/// # Errors
/// What is damaged.
pub(crate) fn check(conn: &Connection, index: &IndexName) -> Result<()> {
    for (table, columns) in [("_catalog", "key, value"), ("_changes", "seq, id, stamp")] {
        let readable = conn.prepare(&format!("SELECT {columns} FROM {}", index.quoted(table)));
        if let Err(error) = readable {
            bail!(
                "index {0} has lost its table {0}{table}({columns}) ({error}); repair it with INSERT INTO {1}({1}) \
                 VALUES('rebuild')",
                index.name,
                quote(&index.name)
            );
        }
    }
    settings(conn, index)?;
    figures(conn, index)?;
    let generation: i64 = must(conn, index, "generation")?;
    ensure!(
        generation >= 0,
        damaged(index, "generation", "0 or more", &generation.to_string())
    );
    must::<String>(conn, index, "unique")?;
    if let Some(current) = get::<String>(conn, index, "current")? {
        part::parse(&current).map_err(|_| damaged(index, "current", "names of parts", &current))?;
    }
    Ok(())
}

/// The table an index follows, found through its triggers: SQLite carries them along when the table is renamed. `None`
/// when one is gone, and with it the knowledge of what has changed.
pub(crate) fn tracked_table(conn: &Connection, index: &IndexName) -> Result<Option<String>> {
    let mut statement = conn.prepare(&format!(
        "SELECT min(tbl_name), max(tbl_name), count(*) FROM {}.sqlite_schema
         WHERE type = 'trigger' AND name IN (?1, ?2, ?3, ?4)",
        quote(&index.schema)
    ))?;
    // The one before an INSERT is not there for all: see `unnoticed_replace`.
    let name = |i: usize| format!("{}{}", index.name, TRIGGERS[i]);
    let (table, other, n): (Option<String>, Option<String>, i64) = statement
        .query_row([name(0), name(1), name(2), name(4)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok((n == 4 && other == table).then_some(table).flatten())
}

/// Why REPLACE could remove rows that no trigger notes, if it could.
pub(crate) fn unnoticed_replace(
    conn: &Connection,
    index: &IndexName,
    source: &Source,
) -> Result<Option<String>> {
    let indexes = unique::indexes(conn, source)?;
    if indexes.iter().any(unique::Index::is_unseen) {
        return Ok(Some(format!(
            "{} has a UNIQUE index over expressions alone, by way of which REPLACE removes rows that no trigger sees",
            source.table
        )));
    }
    // What can't be read is not what we know.
    let known: Option<String> = get(conn, index, "unique").unwrap_or_default();
    let before_insert: bool = conn.query_row(
        &format!(
            "SELECT EXISTS(SELECT 1 FROM {}.sqlite_schema WHERE type = 'trigger' AND name = ?1)",
            quote(&index.schema)
        ),
        [format!("{}{}", index.name, TRIGGERS[3])],
        |row| row.get(0),
    )?;
    let needs_it = !indexes.is_empty() || source.filter.is_some() || source.key != source.row_key;
    let knows =
        known.as_deref() == Some(&*unique::known_as(&indexes)) && (before_insert || !needs_it);
    Ok((!knows).then(|| {
        format!(
            "{} has other UNIQUE indexes than when its triggers were made, and REPLACE may remove rows by way of them",
            source.table
        )
    }))
}

/// Whether a search may run between a change of a row and the trigger that notes it: in a trigger of somebody else's that is
/// younger than ours (SQLite runs the youngest first), if there are searches in triggers or views at all.
pub(crate) fn searched_too_soon(
    conn: &Connection,
    index: &IndexName,
    source: &Source,
) -> Result<bool> {
    let ours = TRIGGERS.map(|suffix| format!("{}{suffix}", index.name));
    let sql = format!(
        "WITH item AS (SELECT name IN (?3, ?4, ?5, ?6, ?7) AS is_ours, rowid AS age, type, tbl_name, sql FROM {}.sqlite_schema
                       WHERE type IN ('trigger', 'view'))
         SELECT EXISTS(SELECT 1 FROM item WHERE NOT is_ours AND tbl_name = ?1 COLLATE NOCASE
                       AND age > (SELECT min(age) FROM item WHERE is_ours))
            AND EXISTS(SELECT 1 FROM item WHERE NOT is_ours
                       AND (instr(lower(sql), 'knn_') OR instr(lower(sql), lower(?2))))",
        quote(&index.schema)
    );
    let names = [&source.table, &index.name].into_iter().chain(&ours);
    Ok(conn.query_row(&sql, params_from_iter(names), |row| row.get(0))?)
}

/// The same of temporary triggers, whatever they do: they run before all others.
pub(crate) fn has_temporary_trigger(conn: &Connection, source: &Source) -> Result<bool> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM sqlite_temp_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE",
    )?;
    Ok(statement.exists([&source.table])?)
}

/// The column that is indexed, in the table it is in now; both may have been renamed.
pub(crate) fn source(
    conn: &Connection,
    index: &IndexName,
    settings: &Settings,
    table: &str,
) -> Result<Source> {
    if source::find_table(conn, &format!("{}.{table}", index.schema))?.is_none() {
        bail!(
            "no such table: {table}, which index {} follows; drop the index, or create the table again and rebuild",
            index.name
        );
    }
    let name = column_now(conn, index)?.unwrap_or_else(|| settings.column.clone());
    let by_name = |columns: &[Column]| {
        columns
            .iter()
            .position(|c| c.name.eq_ignore_ascii_case(&name))
            .ok_or_else(|| {
                let names = columns.iter().map(|c| c.name.as_str());
                let why = source::no_column(&name, table, names);
                anyhow!(
                    "{why}; index {} follows that column, or drop the index and make it of another",
                    index.name
                )
            })
    };
    let mut source = Source::in_table(conn, &index.schema, table, by_name)?;
    source.element = settings.options.element()?.or(source.element);
    source.filter.clone_from(&settings.options.filter);
    if source.filter.is_some()
        && let Some(filter) = filter_now(conn, index)?
    {
        source.filter = Some(filter);
    }
    // Looked at again: it is about to run as a statement of its own, free of the rules for what stands in a schema, and
    // whoever wrote the database may have written anything there.
    check_filter(conn, index, &source)?;
    group(conn, index, source, &settings.options)
}

/// The source with the option `group`.
pub(crate) fn group(
    conn: &Connection,
    index: &IndexName,
    source: Source,
    options: &IndexOptions,
) -> Result<Source> {
    let Some(name) = &options.group else {
        return Ok(source);
    };
    let name = &name_now(conn, index, GROUP)?.unwrap_or_else(|| name.clone());
    let columns = source::columns(conn, &source.schema, &source.table)?;
    let column = columns
        .iter()
        .find(|c| c.name.eq_ignore_ascii_case(name))
        .ok_or_else(|| {
            source::no_column(name, &source.table, columns.iter().map(|c| c.name.as_str()))
        })?;
    Ok(source.grouped(Group {
        column: column.name.clone(),
        column_id: column.id(),
        combine: options.combine()?,
    }))
}

/// Refuses groups whose rows are not found without a look at all.
pub(crate) fn check_group(conn: &Connection, source: &Source) -> Result<()> {
    let Some(group) = &source.group else {
        return Ok(());
    };
    let has_index: bool = conn.query_row(
        "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, ?2) l, pragma_index_info(l.name, ?2) i
                       WHERE NOT l.partial AND i.seqno = 0 AND i.cid = ?3)",
        (&source.table, &source.schema, group.column_id),
        |row| row.get(0),
    )?;
    if !has_index && group.column != source.row_key {
        bail!(
            "group={0} needs an index by which the rows of a group are found: CREATE INDEX name ON {1}({0})",
            quote(&group.column),
            quote(&source.table)
        );
    }
    Ok(())
}

/// What stands before the names of the columns in the trigger after an UPDATE. There SQLite carries along the names of
/// columns that are renamed, whatever columns have come and gone meanwhile.
const COLUMN: &str = "/* column: */ old.";
const GROUP: &str = "/* group: */ old.";

/// What the indexed column is called now; `None`: no trigger knows.
pub(super) fn column_now(conn: &Connection, index: &IndexName) -> Result<Option<String>> {
    name_now(conn, index, COLUMN)
}

/// The name that follows a mark.
fn name_now(conn: &Connection, index: &IndexName, mark: &str) -> Result<Option<String>> {
    let sql = trigger_sql(conn, index, TRIGGERS[1])?;
    Ok(sql
        .as_deref()
        .and_then(|sql| unquote(sql.split_once(mark)?.1)))
}

/// One of the triggers, as the schema has it now; `None`: it is gone.
pub(super) fn trigger_sql(
    conn: &Connection,
    index: &IndexName,
    suffix: &str,
) -> Result<Option<String>> {
    let sql = format!(
        "SELECT sql FROM {}.sqlite_schema WHERE type = 'trigger' AND name = ?1",
        quote(&index.schema)
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let sql = statement.query_row([format!("{}{suffix}", index.name)], |row| row.get(0));
    Ok(sql.optional()?)
}

/// Plain SQL, so that any program that writes to the table runs them.
pub(crate) fn create_triggers(conn: &Connection, index: &IndexName, source: &Source) -> Result<()> {
    let table = quote(&source.table);
    let key = source.quoted_row_key();
    // What is noted.
    let id = source.quoted_key();
    let column = quote(&source.column);
    let changes = index.bare("_changes");
    // Rows that are in the index, or would be.
    let row = |key_is: &str| {
        let filter = source.filter.as_deref().map_or(String::new(), |filter| {
            format!(" AND ({}{filter}{})", AROUND_FILTER[0], AROUND_FILTER[1])
        });
        format!("SELECT {id} AS x FROM {table} WHERE {key_is}{filter}")
    };
    // With a filter, only the row in the table tells whether it is satisfied: before a change for what goes, after it for
    // what comes.
    let (before, after) = (
        row(&format!("{key} = old.{key}")),
        format!(
            "(EXISTS({}){})",
            row(&format!("{key} = new.{key}")),
            if may_ask_the_clock(conn, source)? {
                // Its answer of now may not be that of the next build, which looks at what the row holds.
                " OR 1"
            } else {
                ""
            }
        ),
    );
    let partial = source.filter.is_some();
    let mut decisive = vec![id.clone()];
    if partial {
        decisive.push(key.clone());
        decisive.extend(filter_columns(conn, source)?.iter().map(|name| quote(name)));
        decisive.sort();
        decisive.dedup();
    }
    decisive.retain(|name| *name != column);
    // To the last bit: what a column's own collation, or IS, takes for equal may differ to a filter, or as a group.
    let differs = |c: &str| {
        format!("{c} IS NOT new.{c} COLLATE BINARY OR typeof(old.{c}) <> typeof(new.{c})")
    };
    let mut changed = vec![format!("{COLUMN}{}", differs(&column))];
    changed.extend(decisive.iter().map(|c| format!("old.{}", differs(c))));
    if let Some(group) = &source.group {
        changed.push(format!("{GROUP}{} IS NULL AND 0", quote(&group.column)));
    }
    let changed = changed.join(" OR ");
    // The conflict clause of the statement that fires a trigger replaces those inside it, so OR REPLACE would not do.
    let note = |values: &str| {
        format!(
            "DELETE FROM {changes} WHERE id IN ({values});
             INSERT INTO {changes}(id) SELECT x FROM ({values}) WHERE typeof(x) = 'integer';"
        )
    };
    let mut sql = String::new();
    let mut trigger = |suffix: &str, event: &str, when: &str, body: &str| {
        sql.push_str(&format!(
            "CREATE TRIGGER {} {event} ON {table} {when} BEGIN {body} END;\n",
            index.quoted(suffix)
        ));
    };
    if partial {
        let new = note(&format!("SELECT new.{id} AS x"));
        trigger(TRIGGERS[0], "AFTER INSERT", &format!("WHEN {after}"), &new);
        let when = format!("WHEN ({changed}) AND {after}");
        trigger(TRIGGERS[1], "AFTER UPDATE", &when, &new);
        trigger(TRIGGERS[2], "BEFORE DELETE", "", &note(&before));
    } else {
        trigger(
            TRIGGERS[0],
            "AFTER INSERT",
            "",
            &note(&format!("SELECT new.{id} AS x")),
        );
        trigger(
            TRIGGERS[1],
            "AFTER UPDATE",
            &format!("WHEN {changed}"),
            &note(&format!("SELECT old.{id} AS x UNION SELECT new.{id}")),
        );
        trigger(
            TRIGGERS[2],
            "AFTER DELETE",
            "",
            &note(&format!("SELECT old.{id} AS x")),
        );
    }

    // The rows that INSERT OR REPLACE and UPDATE OR REPLACE are about to remove.
    let indexes = unique::indexes(conn, source)?;
    put(conn, index, "unique", unique::known_as(&indexes))?;
    let mut replaced = unique::replaced(conn, source, &indexes)?;
    let same_key = format!("{key} = new.{key}");
    // Without a filter and groups, the row that comes is noted under the key of the one that goes.
    let noted_after = !partial && source.key == source.row_key;
    let by_key_alone = replaced.is_empty() && noted_after;
    if !noted_after {
        replaced.push(same_key.clone());
    }
    if !by_key_alone {
        let rows: Vec<_> = replaced.iter().map(|equal| row(equal)).collect();
        let insert = note(&rows.join(" UNION "));
        trigger(TRIGGERS[3], "BEFORE INSERT", "", &insert);
    }
    if noted_after {
        replaced.push(same_key);
    }
    let mut rows: Vec<_> = replaced
        .iter()
        .map(|equal| row(&format!("{equal} AND {key} IS NOT old.{key}")))
        .collect();
    if partial {
        rows.push(format!("{before} AND ({changed})"));
    }
    let event = if partial || !by_key_alone {
        "BEFORE UPDATE".to_owned()
    } else {
        format!("BEFORE UPDATE OF {key}")
    };
    trigger(TRIGGERS[4], &event, "", &note(&rows.join(" UNION ")));
    conn.execute_batch(&sql)?;
    Ok(())
}

/// Removes the triggers.
pub(crate) fn drop_triggers(conn: &Connection, index: &IndexName) -> Result<()> {
    for suffix in TRIGGERS {
        conn.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", index.quoted(suffix)))?;
    }
    Ok(())
}
