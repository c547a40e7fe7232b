//! The UNIQUE constraints and indexes of a table, by way of which REPLACE removes rows that no DELETE trigger sees.
//!
//! A trigger before INSERT or UPDATE notes them: for each index, the rows that are equal in its columns to the one that comes
//! ([`replaced`]). It may note too many, not too few. What the row that comes will hold is not known for certain there:
//!
//! * REPLACE puts its default into a column that may not be NULL, but only after the triggers have run;
//! * a rowid that SQLite chooses is -1 until then;
//! * a generated column is computed from both.
//!
//! So a generated column does not count where an ordinary one stands beside it; where there is none, whatever it may be
//! computed from does. What an expression gives can't be asked at all ([`Index::is_unseen`]).

use anyhow::Result;
use rusqlite::Connection;

use crate::sql::quote;
use crate::sql::source::Source;

/// A UNIQUE index (constraint or CREATE UNIQUE INDEX): its terms.
pub(super) struct Index(Vec<Term>);

/// One column of an index, or an expression.
struct Term {
    /// The column's place in its table; -2 for an expression.
    place: i64,
    /// `None`: an expression.
    column: Option<String>,
    /// By which values are compared.
    collation: String,
    /// Whether REPLACE puts another value in the place of NULL.
    has_default: bool,
    is_generated: bool,
}

impl Index {
    /// Whether no column tells which rows it takes for equal.
    pub(super) fn is_unseen(&self) -> bool {
        self.0.iter().all(|term| term.column.is_none())
    }
}

/// The UNIQUE indexes of the table.
pub(super) fn indexes(conn: &Connection, source: &Source) -> Result<Vec<Index>> {
    let mut statement = conn.prepare(
        "SELECT l.name, i.cid, i.name, i.coll, c.\"notnull\" AND c.dflt_value IS NOT NULL, c.hidden IN (2, 3)
         FROM pragma_index_list(?1, ?2) l, pragma_index_xinfo(l.name, ?2) i
         LEFT JOIN pragma_table_xinfo(?1, ?2) c ON c.cid = i.cid
         WHERE l.\"unique\" AND i.key ORDER BY l.name, i.seqno",
    )?;
    let mut rows = statement.query([&source.table, &source.schema])?;
    let mut indexes: Vec<(String, Index)> = Vec::new();
    while let Some(row) = rows.next()? {
        let index: String = row.get(0)?;
        let term = Term {
            place: row.get(1)?,
            column: row.get(2)?,
            collation: row.get(3)?,
            has_default: row.get::<_, Option<bool>>(4)?.unwrap_or(false),
            is_generated: row.get::<_, Option<bool>>(5)?.unwrap_or(false),
        };
        match indexes.last_mut() {
            Some((name, Index(terms))) if *name == index => terms.push(term),
            _ => indexes.push((index, Index(vec![term]))),
        }
    }
    Ok(indexes.into_iter().map(|(_, index)| index).collect())
}

/// What the catalogue says of UNIQUE indexes: their columns by place, because names change.
pub(super) fn known_as(indexes: &[Index]) -> String {
    let places: Vec<Vec<(i64, &str)>> = indexes
        .iter()
        .map(|Index(terms)| {
            terms
                .iter()
                .map(|t| (t.place, t.collation.as_str()))
                .collect()
        })
        .collect();
    serde_json::json!(places).to_string()
}

/// Conditions of which a row that `new` replaces by way of one of these indexes satisfies one.
pub(super) fn replaced(
    conn: &Connection,
    source: &Source,
    indexes: &[Index],
) -> Result<Vec<String>> {
    let mut replaced = Vec::new();
    for Index(terms) in indexes {
        let columns = terms.iter().filter(|term| term.column.is_some());
        let (generated, ordinary): (Vec<_>, Vec<_>) = columns.partition(|term| term.is_generated);
        let mut unknown = Vec::new();
        let counted = if ordinary.is_empty() {
            if !generated.is_empty() {
                unknown = inputs(conn, source)?;
            }
            generated
        } else {
            ordinary
        };
        let mut equal = Vec::new();
        for term in counted {
            let column = quote(term.column.as_deref().unwrap_or_default());
            if term.has_default {
                unknown.push(format!("new.{column} IS NULL"));
            }
            let collation = quote(&term.collation);
            equal.push(format!("{column} = new.{column} COLLATE {collation}"));
        }
        if !equal.is_empty() {
            replaced.push(equal.join(" AND "));
            replaced.extend(unknown);
        }
    }
    replaced.sort();
    replaced.dedup();
    Ok(replaced)
}

/// When a generated column is not yet what it will be.
fn inputs(conn: &Connection, source: &Source) -> Result<Vec<String>> {
    let mut statement = conn.prepare(
        "SELECT name FROM pragma_table_xinfo(?1, ?2) WHERE \"notnull\" AND dflt_value IS NOT NULL ORDER BY cid",
    )?;
    let names = statement.query_map([&source.table, &source.schema], |row| {
        row.get::<_, String>(0)
    })?;
    let mut inputs = Vec::new();
    for name in names {
        inputs.push(format!("new.{} IS NULL", quote(&name?)));
    }
    let sql: String = conn.query_row(
        &format!(
            "SELECT sql FROM {}.sqlite_schema WHERE type = 'table' AND name = ?1",
            quote(&source.schema)
        ),
        [&source.table],
        |row| row.get(0),
    )?;
    if generates_from(&sql, &source.row_key) {
        inputs.push(format!("new.{} IS -1", source.quoted_row_key()));
    }
    Ok(inputs)
}

/// Whether a table's CREATE statement has a generated column that names its key.
fn generates_from(sql: &str, key: &str) -> bool {
    let names = [key, "rowid", "_rowid_", "oid"];
    let words = words(sql);
    let mut at = 0;
    while at + 1 < words.len() {
        if !(words[at].eq_ignore_ascii_case("as") && words[at + 1] == "(") {
            at += 1;
            continue;
        }
        let mut depth = 0;
        for word in &words[at + 1..] {
            match *word {
                "(" => depth += 1,
                ")" => depth -= 1,
                word if names.iter().any(|name| word.eq_ignore_ascii_case(name)) => return true,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        at += 2;
    }
    false
}

/// Words, quoted names and texts without their quotes, and brackets of a statement; comments are left out.
fn words(sql: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let until = |end: &str| {
            rest[first.len_utf8()..]
                .find(end)
                .map_or(rest.len(), |n| first.len_utf8() + n)
        };
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
        let length = if let Some(end) = match first {
            '"' | '\'' | '`' => Some(first),
            '[' => Some(']'),
            _ => None,
        } {
            let end = until(end.encode_utf8(&mut [0; 4]));
            words.push(&rest[1..end]);
            end + 1
        } else if rest.starts_with("--") {
            until("\n")
        } else if rest.starts_with("/*") {
            until("*/") + 2
        } else if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            words.push(&rest[..end]);
            end
        } else {
            if "()".contains(first) {
                words.push(&rest[..1]);
            }
            1
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_column_that_names_the_key_is_recognised() {
        for (sql, is) in [
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, g AS (id / 2))",
                true,
            ),
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, g AS(a + (\"ID\")))",
                true,
            ),
            (
                "CREATE TABLE t(a, g GENERATED ALWAYS AS /* ( */ (lower([rowid])) STORED)",
                true,
            ),
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, a REFERENCES u(id), g AS (a + width(a)))",
                false,
            ),
            (
                "CREATE TABLE t(id INTEGER PRIMARY KEY, g AS (a) -- AS (id)\n, CHECK(CAST(id AS INTEGER)))",
                false,
            ),
            ("CREATE TABLE \"é AS (\"(id INTEGER PRIMARY KEY)", false),
        ] {
            assert_eq!(generates_from(sql, "id"), is, "{sql}");
        }
        for broken in ["AS (", "'", "[é", "/*", "/* *", "\""] {
            assert!(!generates_from(broken, "id"));
        }
    }
}
