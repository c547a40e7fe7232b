//! Where a model lives: a name, as the user gives it, and the two tables behind it.

use anyhow::{Result, bail};
use rusqlite::{Connection, OptionalExtension};

use crate::sql::{quote, work};

/// A schema and the name of a model in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    schema: String,
    name: String,
}

/// Refuses to run inside of a statement that writes, where SQLite opens no savepoint: now, not when all has been computed.
pub(super) fn check_alone(conn: &Connection) -> Result<()> {
    if work::is_writing(conn) {
        bail!(
            "a statement that writes is running, and a model can't be written inside of it: expected a SELECT of its own, with \
             nothing around it but a transaction"
        );
    }
    Ok(())
}

/// What ends the name of a model's second table.
const SUFFIX: &str = "_model";

impl Place {
    /// Where a model of this name is to be made: `name` in `main`, or `schema.name` in that schema.
    pub(crate) fn for_new(conn: &Connection, given: &str) -> Result<Place> {
        let (schema, name) = match given.split_once('.') {
            Some((schema, name)) => match schema_named(conn, schema)? {
                Some(schema) => (schema, name),
                None => ("main".to_owned(), given),
            },
            None => ("main".to_owned(), given),
        };
        if name.is_empty() || name.contains('\0') {
            bail!("'{given}' can't name a model: expected a table name");
        }
        if name
            .get(..7)
            .is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"))
        {
            bail!(
                "'{name}' can't name a model: SQLite keeps names that begin with sqlite_ for itself"
            );
        }
        check_alone(conn)?;
        if conn.query_row("PRAGMA query_only", [], |row| row.get(0))? {
            bail!(
                "PRAGMA query_only is on: expected a connection that may write the model; turn it off first"
            );
        }
        if schema != "temp" && conn.is_readonly(schema.as_str())? {
            bail!(
                "the database '{schema}' is read-only: expected one that a model can be written to; attach another and \
                 name the model other.{name}"
            );
        }
        Ok(Place {
            schema,
            name: name.to_owned(),
        })
    }

    /// Where the model of the words of a model of documents is.
    pub(super) fn words_of_documents(&self) -> Place {
        Place {
            schema: self.schema.clone(),
            name: format!("{}_words", self.name),
        }
    }

    /// The model of this name; a bare one is looked for as SQLite does it: temp, main, attached databases.
    pub(super) fn find(conn: &Connection, given: &str) -> Result<Place> {
        let found = conn
            .prepare_cached(
                "SELECT m.schema, m.name FROM pragma_table_list AS m JOIN pragma_table_list AS parts
                 ON parts.schema = m.schema AND parts.name = m.name || '_model' COLLATE NOCASE
                 WHERE m.name = ?1 COLLATE NOCASE OR m.schema || '.' || m.name = ?1 COLLATE NOCASE
                 ORDER BY m.name <> ?1 COLLATE NOCASE,
                          CASE m.schema WHEN 'temp' THEN 0 WHEN 'main' THEN 1 ELSE 2 END",
            )?
            .query_row([given], |row| {
                Ok(Place {
                    schema: row.get(0)?,
                    name: row.get(1)?,
                })
            })
            .optional()?;
        match found {
            Some(place) => Ok(place),
            None => bail!(
                "no such model: {given}; expected the name of a model that word2vec_train made (tables {given} and \
                 {given}{SUFFIX})"
            ),
        }
    }

    /// The name, with its schema unless that is `main`.
    pub(super) fn shown(&self) -> String {
        if self.schema == "main" {
            self.name.clone()
        } else {
            format!("{}.{}", self.schema, self.name)
        }
    }

    /// The schema.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The names of both tables, words first.
    pub(crate) fn names(&self) -> [String; 2] {
        [self.name.clone(), format!("{}{SUFFIX}", self.name)]
    }

    /// The table of words, quoted and qualified.
    pub(crate) fn words(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }

    /// The table of everything else, quoted and qualified.
    pub(super) fn parts(&self) -> String {
        let [_, parts] = self.names();
        format!("{}.{}", quote(&self.schema), quote(&parts))
    }
}

/// The schema of this name, as it is spelled.
fn schema_named(conn: &Connection, name: &str) -> Result<Option<String>> {
    if name.eq_ignore_ascii_case("temp") {
        // Listed only once something is in it.
        return Ok(Some("temp".to_owned()));
    }
    Ok(conn
        .prepare_cached("SELECT name FROM pragma_database_list WHERE name = ?1 COLLATE NOCASE")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}
