//! A column of vectors in somebody's table or view: found by name, read row by row.
//!
//! A row is known by its rowid. A table's own is used (through its INTEGER PRIMARY KEY when it has one); a view gives
//! an integer column named `rowid` or `id`; a WITHOUT ROWID table has none and is refused. NULL vectors are skipped and
//! counted. A vector of another length than the first, a NaN or an infinity is an error that names the row.

use anyhow::{Result, anyhow, bail};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::schema::{self, Kind};
use super::{quote, vector};
use crate::forest::RowSet;
use crate::spelling::did_you_mean;
use crate::vector::{Element, check_f32, f32_in};

/// Where vectors are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The schema: `main`, `temp`, or an attached database.
    pub(crate) schema: String,
    /// The table or view, as it is spelled in the schema.
    pub(crate) table: String,
    /// The column, as it is spelled in the schema.
    pub(crate) column: String,
    /// The element type that the column is declared with, as in `int8[384]`; `None`: a vector is float32 unless the query
    /// is of another type.
    pub(crate) element: Option<Element>,
    /// The column (or `rowid`) that identifies a row.
    pub(crate) key: String,
    /// Whether `key` is an INTEGER PRIMARY KEY, which VACUUM keeps.
    pub(crate) has_stable_key: bool,
    /// Whether it is a view, in which no row is found by its key without a look at others.
    pub(crate) is_view: bool,
    /// The table's own key; `key` unless rows are groups of the table's.
    pub(crate) row_key: String,
    /// What a row must satisfy to be one of them: an expression of SQL over the table's columns; `None`: nothing.
    pub(crate) filter: Option<String>,
    /// How the table's rows are taken together.
    pub(crate) group: Option<Group>,
}

/// Rows that belong together: those with the same integer in a column. The others belong to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The column, as it is spelled in the schema.
    pub(crate) column: String,
    /// The place of the column among the table's columns.
    pub(crate) column_id: i64,
    pub(crate) combine: Combine,
}

/// What stands for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    /// The nearest of its rows: they are searched, and the answers taken together.
    Best,
    /// The mean of its vectors, which is the one vector that is read.
    Mean,
}

/// What a read of all rows met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Rows with a vector.
    pub(crate) vectors: u64,
    /// Rows whose vector is NULL.
    pub(crate) nulls: u64,
}

impl Source {
    /// Finds the column by its names; `table` may be qualified, as in `main.words`.
    ///
    /// # Errors
    /// No such table, no such column, or no rowid to know a row by.
    pub(crate) fn find(conn: &Connection, table: &str, column: &str) -> Result<Source> {
        let Some((schema, table)) = find_table(conn, table)? else {
            return Err(no_table(conn, table));
        };
        Source::in_table(conn, &schema, &table, |columns| {
            columns
                .iter()
                .position(|c| c.name.eq_ignore_ascii_case(column))
                .ok_or_else(|| no_column(column, &table, columns.iter().map(|c| c.name.as_str())))
        })
    }

    /// The source in a table that is known to exist; `choose` picks the column.
    pub(crate) fn in_table(
        conn: &Connection,
        schema: &str,
        table: &str,
        choose: impl FnOnce(&[Column]) -> Result<usize>,
    ) -> Result<Source> {
        let columns = columns(conn, schema, table)?;
        let i = choose(&columns)?;
        let Key {
            name: key,
            is_stable: has_stable_key,
            is_view,
        } = key(conn, schema, table, &columns)?;
        Ok(Source {
            schema: schema.to_owned(),
            table: table.to_owned(),
            column: columns[i].name.clone(),
            element: declared(&columns[i].kind),
            row_key: key.clone(),
            key,
            has_stable_key,
            is_view,
            filter: None,
            group: None,
        })
    }

    /// The same column, its rows taken together by another one.
    pub(crate) fn grouped(mut self, group: Group) -> Source {
        if group.combine == Combine::Mean {
            self.key.clone_from(&group.column);
        }
        self.group = Some(group);
        self
    }

    /// The group whose mean each row is.
    fn mean(&self) -> Option<&Group> {
        let group = self.group.as_ref();
        group.filter(|group| group.combine == Combine::Mean)
    }

    /// The groups whose best row counts.
    pub(crate) fn best(&self) -> Option<&Group> {
        let group = self.group.as_ref();
        group.filter(|group| group.combine == Combine::Best)
    }

    /// The table's quoted, qualified name.
    pub(crate) fn quoted_table(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }

    /// The quoted key.
    pub(crate) fn quoted_key(&self) -> String {
        quote_key(&self.key)
    }

    /// The quoted key of the table.
    pub(crate) fn quoted_row_key(&self) -> String {
        quote_key(&self.row_key)
    }

    /// `FROM table`, and what a row must satisfy.
    pub(crate) fn from(&self, condition: Option<&str>) -> String {
        let mut sql = format!("FROM {}", self.quoted_table());
        let of_group = self.mean().map(|group| {
            let (group, column) = (quote(&group.column), quote(&self.column));
            format!("typeof({group}) = 'integer' AND {column} IS NOT NULL")
        });
        let terms = [self.filter.as_deref(), of_group.as_deref(), condition];
        let words = std::iter::once("WHERE").chain(std::iter::repeat("AND"));
        for (word, term) in words.zip(terms.into_iter().flatten()) {
            // The line ends lest a comment at the end of an expression go on.
            sql.push_str(&format!(" {word} ({term}\n)"));
        }
        sql
    }

    /// The statement that counts them.
    pub(crate) fn count(&self) -> String {
        match self.mean() {
            Some(_) => format!(
                "SELECT count(DISTINCT {}) {}",
                self.quoted_key(),
                self.from(None)
            ),
            None => format!("SELECT count({}) {}", quote(&self.column), self.from(None)),
        }
    }

    /// The statements for a group of which the best row counts: the group of the row whose key is bound to ?1, and the keys
    /// of the rows whose group is.
    pub(crate) fn of_groups(&self, group: &Group) -> [String; 2] {
        let (key, column) = (self.quoted_row_key(), quote(&group.column));
        [
            format!(
                "SELECT {column} FROM {} WHERE {key} = ?1",
                self.quoted_table()
            ),
            format!(
                "SELECT {key} FROM {} WHERE {column} = ?1",
                self.quoted_table()
            ),
        ]
    }

    /// The statement that gives (group, vector) of every row, or (rowid, vector) where a row is its own group.
    pub(crate) fn listing(&self, of_one: Option<i64>) -> String {
        let (id, of_group) = match self.best() {
            Some(group) => {
                let id = quote(&group.column);
                let of_group = format!("typeof({id}) = 'integer'");
                (id, of_group)
            }
            None => (self.quoted_key(), "1".to_owned()),
        };
        let condition = match of_one {
            Some(one) => format!("{of_group} AND {id} = {one}"),
            None => of_group,
        };
        match self.best() {
            Some(_) => format!(
                "SELECT {id}, {} {}",
                quote(&self.column),
                self.from(Some(&condition))
            ),
            None => self.rows_that(&condition),
        }
    }

    /// The statement that gives (rowid, vector) of every row.
    pub(crate) fn all_rows(&self) -> String {
        self.rows(None)
    }

    /// The statement that gives (rowid, vector) of every row that satisfies this condition, too.
    pub(crate) fn rows_that(&self, condition: &str) -> String {
        self.rows(Some(condition))
    }

    fn rows(&self, condition: Option<&str>) -> String {
        let (key, column) = (self.quoted_key(), quote(&self.column));
        let from = self.from(condition);
        match self.mean() {
            Some(_) => format!("SELECT {key} AS k, vec_avg({column}) AS v {from} GROUP BY 1"),
            None => format!("SELECT {key} AS k, {column} AS v {from}"),
        }
    }

    /// The statement that gives (rowid, vector) of the row whose rowid is bound to ?1.
    pub(crate) fn one_row(&self) -> String {
        self.rows_that(&format!("{} = ?1", self.quoted_key()))
    }

    /// Hands each (rowid, vector) that `sql` selects to `each`. `dim` is what every vector must have; 0: the first
    /// vector decides.
    pub(crate) fn read(
        &self,
        conn: &Connection,
        sql: &str,
        dim: usize,
        mut each: impl FnMut(i64, &[f32]) -> Result<()>,
    ) -> Result<Read> {
        self.scan(conn, sql, dim, |rowid, vector| {
            self.check_finite(|| Ok(rowid), vector)?;
            each(rowid, vector)
        })
    }

    /// Refuses a vector with a NaN or an infinity. Here and below the rowid is asked for when there is an error to be told.
    pub(crate) fn check_finite(
        &self,
        rowid: impl FnOnce() -> Result<i64>,
        vector: &[f32],
    ) -> Result<()> {
        check_f32(vector).or_else(|error| Err(self.no_vector(rowid()?, &error)))
    }

    /// [`Source::read`] without a look at the components: they may be NaN or infinite, and `each` must find out.
    pub(crate) fn scan(
        &self,
        conn: &Connection,
        sql: &str,
        mut dim: usize,
        mut each: impl FnMut(i64, &[f32]) -> Result<()>,
    ) -> Result<Read> {
        self.with_statement(conn, sql, |statement| {
            let mut rows = statement.query([])?;
            let mut read = Read::default();
            let mut buffer = Vec::new();
            while let Some(row) = rows.next()? {
                let rowid = self.rowid(row)?;
                let this = || Ok(rowid);
                let Some(vector) = self.vector(this, row.get_ref(1)?, &mut buffer)? else {
                    read.nulls += 1;
                    continue;
                };
                if dim == 0 {
                    dim = vector.len();
                }
                self.check_dim(this, vector, dim)?;
                read.vectors += 1;
                each(rowid, vector)?;
            }
            Ok(read)
        })
    }

    /// Runs `body` with a statement over the rows, which is kept for the next time. That of a view is not: the view may
    /// search, with the very virtual table whose connection would keep the statement, and then neither could be closed.
    pub(crate) fn with_statement<T>(
        &self,
        conn: &Connection,
        sql: &str,
        body: impl FnOnce(&mut rusqlite::Statement<'_>) -> Result<T>,
    ) -> Result<T> {
        if self.is_view {
            body(&mut conn.prepare(sql)?)
        } else {
            body(&mut *conn.prepare_cached(sql)?)
        }
    }

    /// Hands the vector of a row to `each` if there is one; `statement` is that of [`Source::one_row`].
    pub(crate) fn read_one(
        &self,
        statement: &mut rusqlite::Statement<'_>,
        rowid: i64,
        dim: usize,
        each: impl FnOnce(&[f32]),
    ) -> Result<()> {
        let mut rows = statement.query([rowid])?;
        let this = || Ok(rowid);
        if let Some(row) = rows.next()?
            && let Some(vector) = self.vector(this, row.get_ref(1)?, &mut Vec::new())?
        {
            self.check_dim(this, vector, dim)?;
            self.check_finite(this, vector)?;
            each(vector);
        }
        Ok(())
    }

    /// A value of the column as a vector, whose components may be NaN or infinite, in float32: it has all values of the
    /// other element types; a bit is 0 or 1. `None`: NULL.
    #[inline]
    pub(crate) fn vector<'a>(
        &self,
        rowid: impl FnOnce() -> Result<i64>,
        value: ValueRef<'a>,
        buffer: &'a mut Vec<f32>,
    ) -> Result<Option<&'a [f32]>> {
        let element = self.element.unwrap_or(Element::F32);
        match value {
            ValueRef::Null => return Ok(None),
            ValueRef::Blob(blob) if element == Element::F32 => f32_in(blob, buffer),
            value => vector::row(value, element).map(|vector| {
                vector.write_f32(buffer);
                buffer.as_slice()
            }),
        }
        .map(Some)
        .or_else(|error| Err(self.no_vector(rowid()?, &error)))
    }

    /// A value of the column as a vector's bytes; `None`: NULL.
    pub(crate) fn bytes(&self, rowid: i64, value: ValueRef<'_>) -> Result<Option<Vec<u8>>> {
        if value == ValueRef::Null {
            return Ok(None);
        }
        vector::row(value, self.element.unwrap_or(Element::F32))
            .and_then(|vector| vector.check_finite().map(|()| vector.bytes().to_vec()))
            .map(Some)
            .map_err(|error| self.no_vector(rowid, &error))
    }

    pub(crate) fn check_dim(
        &self,
        rowid: impl FnOnce() -> Result<i64>,
        vector: &[f32],
        dim: usize,
    ) -> Result<()> {
        if vector.len() != dim {
            let rowid = rowid()?;
            bail!(
                "the vector in {}.{} of row {rowid} has {} dimensions, expected {dim}; correct or remove the row",
                self.table,
                self.column,
                vector.len()
            );
        }
        Ok(())
    }

    /// The statement of one row that hands the (rowid, vector) of each row, or of each that satisfies a condition, to the
    /// function of this name.
    pub(crate) fn rows_to(&self, function: &str, condition: Option<&str>) -> String {
        if self.mean().is_some() {
            return format!("SELECT {function}(k, v) FROM ({})", self.rows(condition));
        }
        let (key, column) = (self.quoted_key(), quote(&self.column));
        format!(
            "SELECT {function}({key}, {column}) {}",
            self.from(condition)
        )
    }

    /// Whether to look for the rows of a set one by one is quicker than to read the whole table. Finding a row takes
    /// about six times as long as reading the next one.
    pub(crate) fn finds_sooner(&self, conn: &Connection, among: &RowSet) -> Result<bool> {
        if self.is_view {
            return Ok(false);
        }
        let (key, table) = (self.quoted_key(), self.quoted_table());
        // Two SELECTs: each takes one end of the table, where one would read it all. No table has more rows than this.
        let span: Option<i64> = conn
            .prepare_cached(&format!(
                "SELECT (SELECT max({key}) FROM {table}) - (SELECT min({key}) FROM {table})"
            ))?
            .query_row([], |row| row.get::<_, Option<f64>>(0))
            .map(|span| span.map(|span| span as i64))?;
        Ok((among.len() as i64).saturating_mul(6) < span.unwrap_or(0))
    }

    /// Hands each (rowid, value) that is not NULL to `each`; only the rows of a set, if there is one.
    pub(crate) fn values(
        &self,
        conn: &Connection,
        among: Option<&RowSet>,
        mut each: impl FnMut(i64, ValueRef<'_>) -> Result<()>,
    ) -> Result<Read> {
        let mut read = Read::default();
        let mut take = |rows: &mut rusqlite::Rows<'_>| -> Result<()> {
            while let Some(row) = rows.next()? {
                let rowid = self.rowid(row)?;
                if among.is_some_and(|among| !among.contains(rowid)) {
                    continue;
                }
                match row.get_ref(1)? {
                    ValueRef::Null => read.nulls += 1,
                    value => {
                        read.vectors += 1;
                        each(rowid, value)?;
                    }
                }
            }
            Ok(())
        };
        match among {
            Some(among) if self.finds_sooner(conn, among)? => {
                let mut statement = conn.prepare_cached(&self.one_row())?;
                for id in among.ids() {
                    take(&mut statement.query([id])?)?;
                }
            }
            _ => self.with_statement(conn, &self.all_rows(), |statement| {
                take(&mut statement.query([])?)
            })?,
        }
        Ok(read)
    }

    fn rowid(&self, row: &rusqlite::Row<'_>) -> Result<i64> {
        self.key_of(row.get_ref(0)?)
    }

    /// The value of the key column as a rowid.
    pub(crate) fn key_of(&self, value: ValueRef<'_>) -> Result<i64> {
        match value {
            ValueRef::Integer(rowid) => Ok(rowid),
            _ => bail!(
                "{}.{} must be an integer in every row of {}, to know rows by",
                self.table,
                self.key,
                self.table
            ),
        }
    }

    /// The error of a row whose value is no vector.
    pub(crate) fn no_vector(&self, rowid: i64, error: &anyhow::Error) -> anyhow::Error {
        anyhow!(
            "the value in {}.{} of row {rowid} is not a vector: {error}",
            self.table,
            self.column
        )
    }
}

fn quote_key(key: &str) -> String {
    if key == "rowid" {
        // In quotes it would become a string where the table has no such column.
        key.to_owned()
    } else {
        quote(key)
    }
}

/// The element type in a column's declaration: sqlite-vec's names, with the dimension behind them. (`int8` alone is one of
/// SQLite's names for INTEGER.)
fn declared(kind: &str) -> Option<Element> {
    let (name, rest) = kind.split_once('[')?;
    rest.trim_end().strip_suffix(']')?;
    element_named(name.trim())
}

/// The element type of this name, by any of the names that sqlite-vec has for it.
pub(crate) fn element_named(name: &str) -> Option<Element> {
    match name.to_ascii_lowercase().as_str() {
        "float" | "float32" | "f32" => Some(Element::F32),
        "float16" | "f16" | "half" => Some(Element::F16),
        "int8" | "i8" => Some(Element::Int8),
        "bit" => Some(Element::Bit),
        _ => None,
    }
}

/// A column, as the schema has it.
pub(crate) struct Column {
    id: i64,
    pub(crate) name: String,
    kind: String,
    primary_key: i64,
}

impl Column {
    /// Its place among the table's columns.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }
}

/// The schema and the true spelling of a table or view. SQLite's own order for a bare name: temp, main, attached.
pub(crate) fn find_table(conn: &Connection, name: &str) -> Result<Option<(String, String)>> {
    let found = schema::find(conn, name, |_| Ok(true))?;
    Ok(found.map(|object| (object.schema, object.name)))
}

/// The error for a table that is not there.
pub(crate) fn no_table(conn: &Connection, name: &str) -> anyhow::Error {
    let known = || -> rusqlite::Result<Vec<String>> {
        conn.prepare(
            r"SELECT name FROM pragma_table_list WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
    };
    // The list is a help only: what matters is that the table is not there.
    let known = known().unwrap_or_default();
    let hint = did_you_mean(name, known.iter().map(String::as_str));
    anyhow!("no such table: {name}{hint}")
}

/// The error for a column that is not there.
pub(crate) fn no_column<'a>(
    name: &str,
    table: &str,
    columns: impl Iterator<Item = &'a str> + Clone,
) -> anyhow::Error {
    let hint = did_you_mean(name, columns.clone());
    let columns: Vec<_> = columns.collect();
    anyhow!(
        "no such column: {name} in {table}; its columns are {}{hint}",
        columns.join(", ")
    )
}

pub(crate) fn columns(conn: &Connection, schema: &str, table: &str) -> Result<Vec<Column>> {
    let mut statement = conn.prepare_cached(
        "SELECT cid, name, type, pk FROM pragma_table_xinfo(?1, ?2) WHERE hidden <> 1",
    )?;
    let columns = statement
        .query_map([table, schema], |row| {
            Ok(Column {
                id: row.get(0)?,
                name: row.get(1)?,
                kind: row.get(2)?,
                primary_key: row.get(3)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    Ok(columns)
}

/// What rows are known by.
struct Key {
    name: String,
    /// Whether VACUUM keeps it.
    is_stable: bool,
    is_view: bool,
}

fn key(conn: &Connection, schema: &str, table: &str, columns: &[Column]) -> Result<Key> {
    let key = |name: &str, is_stable, is_view| {
        Ok(Key {
            name: name.to_owned(),
            is_stable,
            is_view,
        })
    };
    let is_view =
        schema::object(conn, schema, table)?.is_some_and(|object| object.kind == Kind::View);
    // A name of the rowid that no column has.
    let rowid = ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|c| c.name.eq_ignore_ascii_case(name)));
    if !is_view && is_without_rowid(conn, schema, table, rowid)? {
        bail!(
            "{table} is a WITHOUT ROWID table, which has no rowid to answer with; give it an INTEGER PRIMARY KEY, or \
             query a view with an integer column named id"
        );
    }
    if is_view {
        return match columns
            .iter()
            .find(|c| c.name.eq_ignore_ascii_case("rowid"))
            .or_else(|| columns.iter().find(|c| c.name.eq_ignore_ascii_case("id")))
        {
            Some(column) => key(&column.name, false, true),
            None => bail!(
                "the view {table} needs an integer column named rowid or id, to know its rows by"
            ),
        };
    }
    let mut primary = columns.iter().filter(|c| c.primary_key > 0);
    if let (Some(column), None) = (primary.next(), primary.next())
        && column.kind.eq_ignore_ascii_case("integer")
    {
        // `INTEGER PRIMARY KEY DESC` is no rowid: it has an index of its own.
        let own_index: bool = conn
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, ?2) WHERE origin = 'pk')",
            )?
            .query_row([table, schema], |row| row.get(0))?;
        if !own_index {
            return key(&column.name, true, false);
        }
    }
    match rowid {
        Some(name) => key(name, false, false),
        None => bail!(
            "{table} hides its rowid behind columns of that name; give it an INTEGER PRIMARY KEY"
        ),
    }
}

/// Whether a table has no rowid, told by `rowid`, a name of it that no column has.
fn is_without_rowid(
    conn: &Connection,
    schema: &str,
    table: &str,
    rowid: Option<&str>,
) -> Result<bool> {
    let Some(rowid) = rowid else {
        // Nothing else tells in this case.
        let mut statement =
            conn.prepare("SELECT wr FROM pragma_table_list WHERE schema = ?1 AND name = ?2")?;
        return Ok(statement.query_row([schema, table], |row| row.get(0))?);
    };
    let sql = format!("SELECT {rowid} FROM {}.{}", quote(schema), quote(table));
    match conn.prepare(&sql) {
        Ok(_) => Ok(false),
        Err(error) if error.to_string().contains("no such column") => Ok(true),
        Err(error) => Err(error.into()),
    }
}
