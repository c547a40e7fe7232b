//! From rows of the table to a published file: what CREATE, 'rebuild' and 'refresh' do.
//!
//! `rebuild` reads the whole table. `refresh` makes a further part of the rows that have changed, and takes younger
//! parts in that are not much larger: each is then more than [`TAKE`] times as large as the next, so there are few, and
//! a row is written again only a few times until the parts together are worth a rebuild.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::catalog::{self, Built};
use super::files;
use super::names::IndexName;
use super::options::IndexOptions;
use super::part::{self, Part, PartName};
use super::partial;
use crate::forest::{self, BuildOptions, Input, Need, Vectors};
use crate::spill::{Array, Spill};
use crate::sql::source::{Read, Source};
use crate::sql::{Session, work};

/// `refresh` takes the youngest part in if it has less than so many times the rows that are new.
const TAKE: usize = 4;

/// The vectors of a column, in the order of their rowids.
pub(crate) struct Rows {
    pub(crate) dim: usize,
    pub(crate) ids: Array<'static, i64>,
    pub(crate) rows: Array<'static, f32>,
    pub(crate) read: Read,
    /// Where they lie, and what is made of them may.
    spill: Spill,
}

impl Rows {
    /// Reads them all into memory.
    pub(crate) fn gather(conn: &Connection, source: &Source) -> Result<Rows> {
        Self::gather_to(conn, source, |_, _| Ok(Spill::memory()))
    }

    /// Reads them all to the place for their number and dimension.
    fn gather_to(
        conn: &Connection,
        source: &Source,
        place: impl Fn(usize, usize) -> Result<Spill>,
    ) -> Result<Rows> {
        let n: usize = conn.query_row(&source.count(), [], |row| row.get::<_, i64>(0))? as usize;
        let (mut dim, mut ids, mut rows) = (0, Array::default(), Array::default());
        let mut spill = Spill::memory();
        let sql = format!("{} ORDER BY 1", source.all_rows());
        let read = source.read(conn, &sql, 0, |id, row| {
            if ids.is_empty() {
                // Reserved exactly: growing by doubling would hold the vectors up to three times.
                dim = row.len();
                spill = place(n, dim)?;
                ids = spill.reserve(n)?;
                rows = spill
                    .reserve(n.saturating_mul(dim))
                    .context("no room for the vectors of the table")?;
            }
            ids.extend(&[id])?;
            rows.extend(row)
        })?;
        Ok(Rows {
            dim,
            ids,
            rows,
            read,
            spill,
        })
    }

    /// Reads those of these rowids that are there and have a vector; `ids` ascending.
    fn gather_some(
        conn: &Connection,
        source: &Source,
        dim: usize,
        ids: &[i64],
        spill: Spill,
    ) -> Result<Rows> {
        let mut rows = Rows {
            dim,
            ids: spill.reserve(ids.len())?,
            rows: spill
                .reserve(ids.len().saturating_mul(dim))
                .context("no room for the vectors that have changed")?,
            read: Read::default(),
            spill,
        };
        let mut one_row = conn.prepare(&source.one_row())?;
        for &id in ids {
            let mut taken = Ok(());
            source.read_one(&mut one_row, id, dim, |row| {
                taken = rows.ids.extend(&[id]).and_then(|()| rows.rows.extend(row));
            })?;
            taken?;
        }
        rows.read.vectors = rows.ids.len() as u64;
        Ok(rows)
    }

    /// As the forest takes them.
    pub(crate) fn vectors(&self) -> Vectors<'_> {
        Vectors {
            dim: self.dim,
            ids: &self.ids,
            rows: &self.rows,
        }
    }
}

/// Where the rows of a build are to lie: in memory unless `max_memory` says that there is not enough. Then files hold them, and
/// whether there is room for these and the new index is known before anything is done.
fn place(
    conn: &Connection,
    index: &IndexName,
    options: &IndexOptions,
    (n, dim): (usize, usize),
) -> Result<Spill> {
    let Some(mib) = options.max_memory else {
        return Ok(Spill::memory());
    };
    let need = Need::new(n, dim, &build_options(options)?);
    let limit = mib << 20;
    if need.memory <= limit as u64 {
        return Ok(Spill::memory());
    }
    ensure!(
        need.least_memory <= limit as u64,
        "max_memory={mib} (MiB) is too little to build an index of {n} vectors of {dim} dimensions: expected at least {}; \
         create the index with more, or divide the table",
        need.least_memory.div_ceil(1 << 20)
    );
    let folder = files::folder(conn, index)?;
    files::check_room(&folder, need.disk)?;
    Ok(Spill::files(folder, limit))
}

fn build_options(options: &IndexOptions) -> Result<BuildOptions> {
    Ok(BuildOptions {
        metric: options.forest_metric()?,
        trees: options.trees,
        seed: options.seed,
        threads: work::threads(options.threads),
        store: options.store()?,
    })
}

/// Builds a new generation from the table, publishes it, and forgets the changes it contains. The caller's transaction
/// (a statement is one) makes it all or nothing.
pub(crate) fn rebuild(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    source: &Source,
    options: &IndexOptions,
) -> Result<Built> {
    let generation = next_generation(conn, index)?;
    let old = current(conn, index);
    files::settle_storage(conn, index, options.inline)?;
    let began = Instant::now();
    partial::check_rows(conn, source, None)?;
    let rows = Rows::gather_to(conn, source, |n, dim| place(conn, index, options, (n, dim)))?;
    let mut built = Built {
        items: rows.read.vectors,
        nulls: rows.read.nulls,
        read_seconds: began.elapsed().as_secs_f64(),
        ..Built::default()
    };
    // No row, no dimension, no file: what comes is found in the table.
    let new = if rows.ids.is_empty() {
        None
    } else {
        let to = (index, generation, &old[..]);
        Some(write(conn, session, to, rows, options, &mut built)?)
    };
    files::retire(conn, session, index, &old)?;
    part::remove_lists(conn, index, &old)?;
    settle(conn, index, new.as_slice(), &built)?;
    Ok(built)
}

/// Folds the rows that have changed into a further part, at a cost in proportion to their number; `false`: they are so
/// many that a rebuild is due.
pub(crate) fn fold(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    source: &Source,
    options: &IndexOptions,
    parts: &[Part],
) -> Result<bool> {
    let Some(main) = parts.first().and_then(|main| main.forest.as_ref()) else {
        return Ok(false);
    };
    if files::storage(conn, index)?.is_none() {
        // The database was moved while it was open.
        return Ok(false);
    }
    let generation = next_generation(conn, index)?;
    let mut ids: Vec<i64> = conn
        .prepare(&format!(
            "SELECT id FROM {} WHERE typeof(id) = 'integer'",
            index.changes()
        ))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut kept = parts.len();
    while kept > 1 && parts[kept - 1].live() < TAKE * ids.len() {
        kept -= 1;
        if let Some(forest) = &parts[kept].forest {
            let hidden = &parts[kept].hidden;
            ids.extend(forest.ids().iter().filter(|id| !hidden.contains(id)));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    let (kept, taken) = parts.split_at(kept);
    let apart: usize = kept[1..].iter().map(Part::live).sum();
    if 2 * (kept[0].hidden.len() + apart + ids.len()) > main.len() {
        return Ok(false);
    }
    let began = Instant::now();
    partial::check_rows(conn, source, Some(&ids))?;
    let spill = place(conn, index, options, (ids.len(), main.dim()))?;
    let rows = Rows::gather_some(conn, source, main.dim(), &ids, spill)?;
    let mut built = catalog::built(conn, index);
    built.read_seconds = began.elapsed().as_secs_f64();
    let mut names: Vec<PartName> = kept.iter().map(|part| part.name).collect();
    let taken: Vec<PartName> = taken.iter().map(|part| part.name).collect();
    let mut new = PartName {
        generation,
        checksum: None,
        hides: None,
    };
    if !rows.ids.is_empty() {
        let all: Vec<PartName> = parts.iter().map(|part| part.name).collect();
        let to = (index, generation, &all[..]);
        new = write(conn, session, to, rows, options, &mut built)?;
        let files = kept.iter().filter_map(|part| part.forest.as_ref());
        built.bytes += files.map(|forest| forest.info().bytes as u64).sum::<u64>();
    }
    // What parts that are taken in have hidden is in older ones, and stays hidden there.
    for part in &taken {
        ids.extend(part::list(conn, index, part)?);
    }
    ids.sort_unstable();
    ids.dedup();
    let older = |id: &i64| {
        let mut files = kept.iter().filter_map(|part| part.forest.as_ref());
        files.any(|forest| forest.contains(*id))
    };
    ids.retain(older);
    new.hides = Some(part::put_list(conn, index, generation, &ids)?);
    files::retire(conn, session, index, &taken)?;
    part::remove_lists(conn, index, &taken)?;
    names.push(new);
    built.items = conn.query_row(&source.count(), [], |row| {
        row.get::<_, i64>(0).map(|n| n as u64)
    })?;
    settle(conn, index, &names, &built)?;
    Ok(true)
}

/// The number of the build that begins.
fn next_generation(conn: &Connection, index: &IndexName) -> Result<i64> {
    // Writing first takes the write lock: in WAL mode a reader that becomes a writer late may find that it can't.
    let last: i64 = catalog::get(conn, index, "generation")?.unwrap_or(0);
    catalog::put(conn, index, "generation", last)?;
    // No name twice: a file of an index that was dropped must still be there if that is rolled back.
    let generation = last
        .max(files::largest_generation(conn, index)?)
        .checked_add(1)
        .context(
            "the catalogue counts builds beyond any number; drop the index and create it again",
        )?;
    catalog::put(conn, index, "generation", generation)?;
    Ok(generation)
}

/// The parts that the catalogue names.
pub(crate) fn current(conn: &Connection, index: &IndexName) -> Vec<PartName> {
    let current: Option<String> = catalog::get(conn, index, "current").ok().flatten();
    // What can't be read can't be retired: the next build sweeps it.
    current
        .and_then(|c| part::parse(&c).ok())
        .unwrap_or_default()
}

/// Builds a file of these rows and publishes it.
fn write(
    conn: &Connection,
    session: &Session,
    (index, generation, old): (&IndexName, i64, &[PartName]),
    rows: Rows,
    options: &IndexOptions,
    built: &mut Built,
) -> Result<PartName> {
    let build_options = build_options(options)?;
    let given = Input {
        dim: rows.dim,
        ids: rows.ids,
        rows: rows.rows,
    };
    let began = Instant::now();
    let image = work::run(conn, session.display(), |job| {
        forest::build_large(given, &build_options, &rows.spill, job)
    })?;
    built.build_seconds = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let (new, bytes) = files::publish(conn, session, index, generation, old, &image)?;
    built.write_seconds = began.elapsed().as_secs_f64();
    built.bytes = bytes;
    Ok(new)
}

/// The catalogue names these parts, and nothing has changed since.
fn settle(conn: &Connection, index: &IndexName, parts: &[PartName], built: &Built) -> Result<()> {
    let current = (!parts.is_empty()).then(|| part::format(parts));
    catalog::put(conn, index, "current", current)?;
    catalog::put(conn, index, "built", serde_json::to_string(built)?)?;
    conn.execute_batch(&format!("DELETE FROM {}", index.changes()))?;
    Ok(())
}
