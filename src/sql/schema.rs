//! What the schemas of a connection hold under a name.
//!
//! From `sqlite_schema`, not from `pragma_table_list`: that one wants to know the columns of every virtual table and every view there is,
//! and so has each virtual table connected whenever any schema has changed (10 ms in a database of 160 indexes).

use anyhow::Result;
use rusqlite::{Connection, Params};

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

/// What a schema holds under this name, in whatever spelling. The table of a schema itself is in no schema, and has another name in temp.
pub(crate) fn object(conn: &Connection, schema: &str, name: &str) -> Result<Option<Object>> {
    let own = match schema {
        "temp" => "sqlite_temp_schema",
        _ => "sqlite_schema",
    };
    if name.eq_ignore_ascii_case(own) {
        return Ok(Some(Object {
            schema: schema.to_owned(),
            name: own.to_owned(),
            kind: Kind::Table,
        }));
    }
    let mut found = objects(conn, schema, "name = ?1 COLLATE NOCASE", [name])?;
    Ok(found.pop())
}

/// The virtual tables of a schema, by name.
pub(crate) fn virtual_tables(conn: &Connection, schema: &str) -> Result<Vec<Object>> {
    let mut all = objects(conn, schema, "type = 'table' ORDER BY name", [])?;
    all.retain(|object| object.kind == Kind::Virtual);
    Ok(all)
}

fn objects(
    conn: &Connection,
    schema: &str,
    condition: &str,
    params: impl Params,
) -> Result<Vec<Object>> {
    // A virtual table has no pages.
    let mut statement = conn.prepare_cached(&format!(
        "SELECT name, type = 'view', rootpage > 0 FROM {}.sqlite_schema WHERE type IN ('table', 'view') AND {condition}",
        quote(schema)
    ))?;
    let objects = statement.query_map(params, |row| {
        let (is_view, has_pages): (bool, Option<bool>) = (row.get(1)?, row.get(2)?);
        Ok(Object {
            schema: schema.to_owned(),
            name: row.get(0)?,
            kind: match (is_view, has_pages) {
                (true, _) => Kind::View,
                (_, Some(true)) => Kind::Table,
                _ => Kind::Virtual,
            },
        })
    })?;
    Ok(objects.collect::<rusqlite::Result<_>>()?)
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
        let conn = crate::sql::testing::in_memory();
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
        assert_eq!(
            found(&conn, "SQLite_Schema"),
            named("main", "sqlite_schema", Kind::Table)
        );
        assert_eq!(found(&conn, "o.words"), None);
        assert_eq!(found(&conn, "ö"), None);
        let tables = virtual_tables(&conn, "main").unwrap();
        assert_eq!(tables.iter().map(|t| &t.name).collect::<Vec<_>>(), ["box"]);
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
