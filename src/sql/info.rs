//! `annoy_info(index)`: all there is to know about an index, as rows (key, value). `annoy_indexes()`: every index of
//! every attached database, one a row.
//!
//! `state` is `current` (file and table agree), `pending` (rows have changed since the build; they are searched
//! exactly), `empty` (no file, because the table had no vector), or `fallback: ` and the reason why the file can't be
//! used; then `remedy` says what to do.

use anyhow::{Result, bail};
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::json;

use super::index::files::Storage;
use super::index::{self, IndexName, Reader};
use super::vtab::function::{Function, Scope};
use super::{index::built, quote};
use crate::forest::CurvePoint;
use crate::vector::Element;

pub(super) struct Info;

impl Function for Info {
    const NAME: &'static str = "annoy_info";
    const COLUMNS: &'static [&'static str] = &["key TEXT", "value"];
    const ARGUMENTS: &'static [&'static str] = &["index"];
    const REQUIRED: usize = 1;
    const ROWS: i64 = 32;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let Value::Text(name) = &args[0] else {
            bail!("annoy_info(index) needs the name of an index as a text");
        };
        let Some(index) = index::find(&scope.conn, name)? else {
            return Err(index::no_index(&scope.conn, name));
        };
        let facts = Facts::read(scope, index)?;
        let rows: Vec<_> = facts
            .rows()
            .into_iter()
            .map(|(key, value)| Ok(vec![key.to_owned().into(), value]))
            .collect();
        Ok(rows.into_iter())
    }
}

pub(super) struct Indexes;

impl Function for Indexes {
    const NAME: &'static str = "annoy_indexes";
    const COLUMNS: &'static [&'static str] = &[
        "schema TEXT",
        "name TEXT",
        "table_name TEXT",
        "column_name TEXT",
        "metric TEXT",
        "trees INTEGER",
        "items INTEGER",
        "bytes INTEGER",
        "pending INTEGER",
        "state TEXT",
        "storage TEXT",
    ];
    const ARGUMENTS: &'static [&'static str] = &[];
    const REQUIRED: usize = 0;
    const ROWS: i64 = 5;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, _args: &[Value]) -> Result<Self::Rows> {
        let mut rows = Vec::new();
        for index in index::all(&scope.conn)? {
            let (schema, name) = (index.schema.clone(), index.name.clone());
            rows.push(Ok(match Facts::read(scope, index) {
                Ok(facts) => {
                    let mut row = vec![Value::from(schema), Value::from(name)];
                    row.extend(facts.summary());
                    row
                }
                // One broken index must not hide the others.
                Err(error) => {
                    let mut row = vec![Value::Null; Self::COLUMNS.len()];
                    row[0] = schema.into();
                    row[1] = name.into();
                    row[9] = format!("error: {error:#}").into();
                    row
                }
            }));
        }
        Ok(rows.into_iter())
    }
}

/// An index and what its tables say.
struct Facts {
    reader: Reader,
    pending: i64,
    built: index::Built,
    file: Value,
    storage: &'static str,
}

impl Facts {
    fn read(scope: &Scope, index: IndexName) -> Result<Facts> {
        let conn: &Connection = &scope.conn;
        let reader = Reader::open(conn, conn, &scope.session, index)?;
        let index = reader.index();
        let pending = conn.query_row(
            &format!("SELECT count(*) FROM {}", index.changes()),
            [],
            |row| row.get(0),
        )?;
        let storage = index::files::storage(conn, index)?;
        let file = match (&storage, reader.current()) {
            (Some(Storage::Beside(database)), Some(current)) => {
                let parts = index::part::parse(current)?;
                let main = parts
                    .first()
                    .map(|main| index.file(database, main.generation));
                main.map(|file| file.to_string_lossy().into_owned()).into()
            }
            _ => Value::Null,
        };
        let built = built(conn, index);
        Ok(Facts {
            pending,
            built,
            file,
            storage: match storage {
                Some(Storage::Inline) => "inline",
                _ => "file",
            },
            reader,
        })
    }

    fn state(&self) -> String {
        match (self.reader.fault(), self.reader.forest()) {
            (Some(fault), _) => format!("fallback: {fault}"),
            (None, None) => "empty".to_owned(),
            (None, Some(_)) if self.pending > 0 => "pending".to_owned(),
            (None, Some(_)) => "current".to_owned(),
        }
    }

    /// The columns of `annoy_indexes` behind schema and name.
    fn summary(&self) -> Vec<Value> {
        let source = self.reader.source();
        vec![
            source.table.clone().into(),
            source.column.clone().into(),
            self.reader.metric().name().to_owned().into(),
            self.reader.settings().options.trees.into(),
            count(self.built.items),
            count(self.built.bytes),
            self.pending.into(),
            self.state().into(),
            self.storage.to_owned().into(),
        ]
    }

    fn rows(&self) -> Vec<(&'static str, Value)> {
        let reader = &self.reader;
        let source = reader.source();
        let options = &reader.settings().options;
        let name = quote(&reader.index().name);
        let mut rows: Vec<(&'static str, Value)> = vec![
            ("schema", reader.index().schema.clone().into()),
            ("table", source.table.clone().into()),
            ("column", source.column.clone().into()),
            (
                "type",
                source
                    .element
                    .unwrap_or(Element::F32)
                    .name()
                    .to_owned()
                    .into(),
            ),
            ("where", source.filter.clone().into()),
            (
                "group",
                source.group.as_ref().map(|g| g.column.clone()).into(),
            ),
            ("combine", options.combine.clone().into()),
            ("metric", options.metric.clone().into()),
            ("trees", options.trees.into()),
            (
                "seed",
                i64::try_from(options.seed).unwrap_or(i64::MAX).into(),
            ),
            ("state", self.state().into()),
            (
                "store",
                options.store.as_deref().unwrap_or("f32").to_owned().into(),
            ),
            ("storage", self.storage.to_owned().into()),
            ("file", self.file.clone()),
            (
                "generation",
                reader
                    .current()
                    .and_then(|c| index::part::parse(c).ok()?.last().copied())
                    .map_or(Value::Null, |part| part.generation.into()),
            ),
            ("items", count(self.built.items)),
            ("nulls", count(self.built.nulls)),
            ("pending", self.pending.into()),
            ("read_seconds", self.built.read_seconds.into()),
            ("build_seconds", self.built.build_seconds.into()),
            ("write_seconds", self.built.write_seconds.into()),
            ("bytes", count(self.built.bytes)),
        ];
        if let Some(forest) = reader.forest() {
            let info = forest.info();
            let parts = reader.parts();
            rows.extend([
                ("parts", count(parts.len() as u64)),
                ("items_in_main_file", count(info.items as u64)),
                ("dim", count(info.dim as u64)),
                (
                    "bytes_beside_vectors",
                    count(info.bytes_beside_vectors as u64),
                ),
                ("leaves", count(info.leaves as u64)),
                ("leaf_size", count(info.leaf_size as u64)),
                ("largest_leaf", count(info.largest_leaf as u64)),
                ("splits", count(info.splits)),
                ("degenerate_splits", count(info.degenerate_splits)),
                ("recall_curve", curve(&forest.curve()).into()),
                ("checksum", format!("{:016x}", forest.checksum()).into()),
            ]);
        }
        if reader.fault().is_some() {
            rows.push((
                "remedy",
                format!("INSERT INTO {name}({name}) VALUES('rebuild')").into(),
            ));
        }
        rows
    }
}

/// The calibration of the build as JSON: what a promised recall of `k` neighbours takes.
fn curve(points: &[CurvePoint]) -> String {
    let points: Vec<_> = points
        .iter()
        .map(|p| json!({"k": p.k, "recall": (f64::from(p.recall) * 1e4).round() / 1e4, "scanned": p.slots, "reranked": p.kept}))
        .collect();
    serde_json::Value::from(points).to_string()
}

/// A count as SQL has it.
fn count(n: u64) -> Value {
    i64::try_from(n).unwrap_or(i64::MAX).into()
}
