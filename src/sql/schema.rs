//! What the schemas of a connection hold under a name.
//!
//! From `sqlite_schema`, not from `pragma_table_list`: that one wants to know the columns of every virtual table and every view there is,
//! and so has each virtual table connected (26 ms in a database of 40 indexes) whenever any schema has changed.

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension};

use super::quote;

/// What can be read like a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    View,
    Virtual,
}

/// A table, view or virtual table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) schema: String,
    /// As its schema spells it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// The schemas in the order in which SQLite looks for a bare name: temp, main, attached ones.
pub(crate) fn schemas(conn: &Connection) -> Result<Vec<String>> {
    let mut statement = conn.prepare_cached(
        "SELECT name FROM pragma_database_list ORDER BY CASE name WHEN 'temp' THEN 0 WHEN 'main' THEN 1 ELSE 2 END, seq",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// What a schema holds under this name, in whatever spelling.
pub(crate) fn object(conn: &Connection, schema: &str, name: &str) -> Result<Option<Object>> {
    // A virtual table has no pages.
    let mut statement = conn.prepare_cached(&format!(
        "SELECT name, CASE WHEN type = 'view' THEN 1 WHEN rootpage > 0 THEN 0 ELSE 2 END FROM {}.sqlite_schema
         WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        quote(schema)
    ))?;
    let object = statement.query_row([name], |row| {
        let kind = match row.get::<_, i64>(1)? {
            0 => Kind::Table,
            1 => Kind::View,
            _ => Kind::Virtual,
        };
        Ok(Object {
            schema: schema.to_owned(),
            name: row.get(0)?,
            kind,
        })
    });
    Ok(object.optional()?)
}

/// The first object of this name that `is_it`: of those with the bare name, then of those with the qualified name `schema.name`.
pub(crate) fn find(
    conn: &Connection,
    name: &str,
    is_it: impl Fn(&Object) -> Result<bool>,
) -> Result<Option<Object>> {
    let schemas = schemas(conn)?;
    let bare = schemas.iter().map(|schema| (schema, name));
    let qualified = schemas.iter().filter_map(|schema| {
        let (before, after) = name.split_at_checked(schema.len())?;
        let rest = after.strip_prefix('.')?;
        before
            .eq_ignore_ascii_case(schema)
            .then_some((schema, rest))
    });
    for (schema, name) in bare.chain(qualified) {
        if let Some(object) = object(conn, schema, name)?
            && is_it(&object)?
        {
            return Ok(Some(object));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(conn: &Connection, name: &str) -> Option<(String, String, Kind)> {
        let object = find(conn, name, |_| Ok(true)).unwrap();
        object.map(|o| (o.schema, o.name, o.kind))
    }

    #[test]
    fn a_bare_name_is_looked_for_as_sqlite_does_and_before_a_qualified_one() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            r#"ATTACH ':memory:' AS "o.x"; CREATE TABLE Words(a); CREATE TABLE "o.x".words(a); CREATE TABLE "o.x".only(a);
               CREATE VIEW seen AS SELECT 1; CREATE VIRTUAL TABLE box USING rtree(id, a, b)"#,
        )
        .unwrap();
        let named = |schema: &str, name: &str, kind| Some((schema.into(), name.into(), kind));
        assert_eq!(found(&conn, "WORDS"), named("main", "Words", Kind::Table));
        assert_eq!(found(&conn, "Main.seen"), named("main", "seen", Kind::View));
        assert_eq!(found(&conn, "box"), named("main", "box", Kind::Virtual));
        assert_eq!(found(&conn, "only"), named("o.x", "only", Kind::Table));
        assert_eq!(
            found(&conn, "o.x.words"),
            named("o.x", "words", Kind::Table)
        );
        assert_eq!(found(&conn, "o.words"), None);
        assert_eq!(found(&conn, "ö"), None);
        conn.execute_batch(r#"CREATE TEMP TABLE words(b); CREATE TABLE "main.seen"(a)"#)
            .unwrap();
        assert_eq!(found(&conn, "words"), named("temp", "words", Kind::Table));
        assert_eq!(
            found(&conn, "main.words"),
            named("main", "Words", Kind::Table)
        );
        assert_eq!(
            found(&conn, "main.seen"),
            named("main", "main.seen", Kind::Table)
        );
    }
}
