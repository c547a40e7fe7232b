//! Files of the library Annoy: `annoy_read`, `annoy_import`, `annoy_export`.
//!
//! | SQL | does |
//! |---|---|
//! | `annoy_read(path, dim, metric)` | rows (id, vector), id the number of the item |
//! | `annoy_import(path, dim, metric [, options])` | makes a table (id, vector) of them, and an index over it |
//! | `annoy_export(index, path [, options])` | writes the rows of an index (of a grouped one: its rows, not its groups) as a file that Annoy loads |
//!
//! A file says neither its dimension nor its metric, so the caller does. The index grows its own trees, as many as the file
//! has unless the option `trees` says otherwise; there is none for manhattan, which `knn_exact` answers (l1). The options of
//! an import: `table` (without it the name of the file, less its ending) and `trees`; of an export: `metric` (without it that
//! of the index), `trees` (that of the index; Annoy needs more of them: 10 at least), `renumber` (items are numbered from 0 in the
//! order of rowids, instead of by rowid) and `replace`. All are DIRECTONLY: they read and write files.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::functions::Context;
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Connection, params};
use serde_json::json;

use super::index::{METRICS, Reader, Rows, find, no_index};
use super::train::{Pending, Place, Surface, all_or_nothing, connection, options, text};
use super::values::whole;
use super::vtab::function::{Function, Scope};
use super::{DIRECT, Session, function_error, quote, work};
use crate::annoy::{self, AnnoyFile, AnnoyMetric, Trees};
use crate::embed::options::Given;
use crate::forest::MAX_TREES;
use crate::spill::Array;

/// Trees of an export, unless the index has more: what Annoy's own examples take. Its search finds little with fewer.
const TREES: u32 = 10;

pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    super::vtab::function::register::<AnnoyRead>(conn, session)?;
    for n_arguments in [3, 4] {
        conn.create_scalar_function("annoy_import", n_arguments, DIRECT, |ctx| {
            import(ctx).map_err(function_error)
        })?;
    }
    for n_arguments in [2, 3] {
        let session = Arc::clone(session);
        conn.create_scalar_function("annoy_export", n_arguments, DIRECT, move |ctx| {
            export(ctx, &session).map_err(function_error)
        })?;
    }
    Ok(())
}

/// Reads a file. It is copied to memory: a map would end the process if the file was cut meanwhile.
fn open(path: &str, dim: i64, metric: &str) -> Result<AnnoyFile<Vec<u8>>> {
    let metric = AnnoyMetric::parse(metric)?;
    let dim = usize::try_from(dim).unwrap_or(0);
    let bytes = std::fs::read(path).with_context(|| {
        let here = std::env::current_dir().unwrap_or_default();
        format!(
            "cannot read '{path}' (give a full path, or one relative to {})",
            here.display()
        )
    })?;
    AnnoyFile::open(bytes, dim, metric).with_context(|| format!("'{path}'"))
}

/// `annoy_read(path, dim, metric)`: see the page above.
struct AnnoyRead;

impl Function for AnnoyRead {
    const NAME: &'static str = "annoy_read";
    const COLUMNS: &'static [&'static str] = &["id INTEGER", "vector BLOB"];
    const ARGUMENTS: &'static [&'static str] = &["path", "dim", "metric"];
    const REQUIRED: usize = 3;
    const DIRECT_ONLY: bool = true;
    const ROWID: Option<usize> = Some(0);
    const ROWS: i64 = 100_000;
    type Rows = Box<dyn Iterator<Item = Result<Vec<SqlValue>>>>;

    fn call(_scope: &Scope, args: &[SqlValue]) -> Result<Self::Rows> {
        let [
            SqlValue::Text(path),
            SqlValue::Integer(dim),
            SqlValue::Text(metric),
        ] = args
        else {
            let types: Vec<String> = args.iter().map(|a| a.data_type().to_string()).collect();
            bail!(
                "annoy_read: expected the path of a file, its dimension and the name of its metric, got {}",
                types.join(", ")
            );
        };
        let file = open(path, *dim, metric).context("annoy_read")?;
        Ok(Box::new((0..file.numbers()).filter_map(move |item| {
            let vector = file.vector(item)?;
            Some(Ok(vec![(item as i64).into(), blob(&vector).into()]))
        })))
    }
}

/// A vector as its column holds it.
fn blob(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn import(ctx: &Context<'_>) -> Result<String> {
    let began = Instant::now();
    let conn = connection(ctx)?;
    let path = text(ctx, 0, "annoy_import", "the path of a file")?;
    let ValueRef::Integer(dim) = whole(ctx.get_raw(1)) else {
        bail!(
            "annoy_import: expected the dimension of the vectors as argument 2, got {}",
            ctx.get_raw(1).data_type()
        );
    };
    let metric = text(ctx, 2, "annoy_import", "the name of a metric")?;
    let (mut table, mut trees) = (None, None);
    for (name, value) in options(ctx, 3, "annoy_import")? {
        let given = Given {
            name: &name,
            value: &value,
        };
        match name.as_str() {
            "table" => table = Some(given.text()?),
            "trees" => trees = Some(given.integer(1, u64::from(MAX_TREES))? as u32),
            _ => bail!("unknown option '{name}'. Valid options: table, trees"),
        }
    }
    let table = match table {
        Some(table) => table,
        None => match Path::new(path).file_stem().and_then(|stem| stem.to_str()) {
            Some(stem) => stem.to_owned(),
            None => bail!("'{path}' gives no name for a table: expected the option \"table\""),
        },
    };
    let place = Place::for_new(&conn, &table)?;
    let [name, _] = place.names();
    let index = format!("{name}_index");
    check_free(&conn, place.schema(), [&name, &index])?;
    let file = open(path, dim, metric).context("annoy_import")?;
    let metric = AnnoyMetric::parse(metric)?;
    let indexed = METRICS.contains(&metric.of_index());
    let trees = trees.unwrap_or_else(|| (file.trees() as u32).clamp(1, MAX_TREES));
    all_or_nothing(&conn, place.schema(), || {
        check_free(&conn, place.schema(), [&name, &index])?;
        conn.execute_batch(&format!(
            "CREATE TABLE {}(id INTEGER PRIMARY KEY, vector BLOB)",
            place.words()
        ))?;
        let mut insert = conn.prepare(&format!(
            "INSERT INTO {}(id, vector) VALUES(?1, ?2)",
            place.words()
        ))?;
        for item in 0..file.numbers() {
            if let Some(vector) = file.vector(item) {
                insert.execute(params![item as i64, blob(&vector)])?;
            }
        }
        drop(insert);
        if indexed {
            conn.execute_batch(&format!(
                "CREATE VIRTUAL TABLE {}.{} USING annoy({}, vector, metric={}, trees={trees})",
                quote(place.schema()),
                quote(&index),
                quote(&name),
                metric.of_index().name(),
            ))?;
        }
        let summary = json!({
            "table": name,
            "index": indexed.then_some(&index),
            "items": file.len(),
            "vector_size": file.dim(),
            "metric": metric.of_index().name(),
            "trees": indexed.then_some(trees),
            "trees_in_file": file.trees(),
            "seconds": began.elapsed().as_secs_f64(),
        });
        Ok(summary.to_string())
    })
}

/// An error if one of these tables is there.
fn check_free(conn: &Connection, schema: &str, names: [&str; 2]) -> Result<()> {
    for name in names {
        let taken: bool = conn.query_row(
            "SELECT EXISTS(SELECT 1 FROM pragma_table_list WHERE schema = ?1 COLLATE NOCASE AND name = ?2 COLLATE NOCASE)",
            [schema, name],
            |row| row.get(0),
        )?;
        ensure!(
            !taken,
            "annoy_import: there is a table {name} already: drop it, or give another name by the option \"table\""
        );
    }
    Ok(())
}

fn export(ctx: &Context<'_>, session: &Arc<Session>) -> Result<String> {
    let began = Instant::now();
    let conn = connection(ctx)?;
    let name = text(ctx, 0, "annoy_export", "the name of an index")?;
    let path = text(ctx, 1, "annoy_export", "the path of a file")?;
    let mut pairs = options(ctx, 2, "annoy_export")?;
    let surface = Surface::take(&mut pairs)?;
    let (mut metric, mut trees, mut renumber) = (None, None, false);
    for (option, value) in pairs {
        let given = Given {
            name: &option,
            value: &value,
        };
        match option.as_str() {
            "metric" => metric = Some(AnnoyMetric::parse(&given.text()?)?),
            "trees" => trees = Some(given.integer(1, u64::from(MAX_TREES))? as u32),
            "renumber" => renumber = given.flag()?,
            _ => bail!(
                "unknown option '{option}'. Valid options: metric, trees, renumber, {}",
                Surface::NAMES.join(", ")
            ),
        }
    }
    let index = match find(&conn, name)? {
        Some(index) => index,
        None => return Err(no_index(&conn, name)),
    };
    let reader = Reader::open(&conn, &conn, session, index)?;
    let options = &reader.settings().options;
    let mut rows = Rows::gather(&conn, reader.source()).context("annoy_export")?;
    ensure!(
        !rows.ids.is_empty(),
        "annoy_export: there is no vector to write to {path}"
    );
    if renumber {
        rows.ids = Array::Memory((0..rows.ids.len() as i64).collect());
    }
    annoy::numbers(&rows.ids).with_context(|| {
        format!("{name} can't go into a file of Annoy (with the option \"renumber\": true it can)")
    })?;
    let trees = Trees {
        metric: metric.unwrap_or(AnnoyMetric::of(options.metric()?)),
        trees: trees.unwrap_or(options.trees.max(TREES)),
        seed: options.seed,
        threads: work::threads(options.threads),
    };
    let (pending, mut out) = Pending::create(path, surface.replace)?;
    let display = surface.display(session);
    work::run(&conn, display, |job| {
        annoy::write(&rows.vectors(), &trees, &mut out, job)
    })
    .with_context(|| format!("annoy_export: '{path}'"))?;
    let bytes = pending.publish(out)?;
    let summary = json!({
        "items": rows.ids.len(),
        "vector_size": rows.dim,
        "metric": trees.metric.name(),
        "trees": trees.trees,
        "bytes": bytes,
        "seconds": began.elapsed().as_secs_f64(),
    });
    Ok(summary.to_string())
}
