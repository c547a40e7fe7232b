//! The files of indexes: where they lie, how they come and go with transactions, and the maps over them.
//!
//! A file is written whole under a temporary name, synced, renamed, its folder synced, and only then named in the
//! catalogue, in the same transaction. Nothing ever writes to a published file. Which one counts is the catalogue's
//! word alone, so what a transaction does to files is settled when it ends:
//!
//! * a file it published goes when it is rolled back (to a savepoint, or whole),
//! * a file it retired goes when it has committed.
//!
//! SQLite tells a virtual table when transactions end, if it is written to in them. The index itself won't do: after
//! DROP TABLE it is gone before the commit. So there is a table for this alone, `annoy_files`, always empty: whoever
//! publishes or retires inserts into it, and the connection's [`Ledger`] says what was done.
//!
//! A database in memory has no folder: its images are kept by the connection.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;
use rusqlite::Connection;

use super::names::IndexName;
use crate::forest::{Bytes, Forest, Image};
use crate::sql::Session;
use crate::sql::vtab::{Args, Change, Cursor, Origin, Output, Plan, Table};

/// The bytes of an index: a map of a published file, or memory.
pub(crate) enum Store {
    /// A published file.
    Map(Mmap),
    /// The image of an index in a database without a file.
    Memory(Bytes),
}

impl Store {
    /// Brings parts of a map near, as far as the system lets itself be asked: each page that is touched first in a
    /// search costs as much as scoring some rows.
    pub(crate) fn bring_near(&self, parts: &[Range<usize>]) {
        /// More than this is only announced: it need not fit in memory.
        const MOST: usize = 1 << 30;
        #[cfg(target_os = "linux")]
        if let Store::Map(map) = self {
            let advice = if parts.iter().map(Range::len).sum::<usize>() <= MOST {
                memmap2::Advice::PopulateRead
            } else {
                memmap2::Advice::WillNeed
            };
            for part in parts {
                // Before Linux 5.14 there is no such advice; a search works without.
                let _ = map.advise_range(advice, part.start, part.len());
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (parts, MOST);
    }
}

impl AsRef<[u8]> for Store {
    fn as_ref(&self) -> &[u8] {
        match self {
            Store::Map(map) => map,
            Store::Memory(bytes) => bytes.as_ref(),
        }
    }
}

/// A forest that is open, shared by all tables of a connection that use it.
pub(crate) type Open = Arc<Forest<Store>>;

/// What identifies the bytes of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    index: IndexName,
    current: String,
}

/// The files of one connection.
#[derive(Default)]
pub(crate) struct Ledger {
    /// What the open transaction did, in order.
    done: Vec<Deed>,
    /// Savepoints: (number, length of `done` when it began).
    savepoints: Vec<(i32, usize)>,
    /// Images of databases without a file.
    images: HashMap<Key, Open>,
    /// What is open.
    open: HashMap<Key, Weak<Forest<Store>>>,
}

enum Deed {
    Published(PathBuf),
    Retired(PathBuf),
    PublishedImage(Key),
    RetiredImage(Key),
}

impl Ledger {
    /// Whether the open transaction has published or retired a file of this name.
    fn concerns(&self, name: &std::ffi::OsStr) -> bool {
        self.done.iter().any(|deed| match deed {
            Deed::Published(path) | Deed::Retired(path) => path.file_name() == Some(name),
            Deed::PublishedImage(_) | Deed::RetiredImage(_) => false,
        })
    }

    /// The transaction has committed.
    fn commit(&mut self) {
        self.savepoints.clear();
        for deed in std::mem::take(&mut self.done) {
            match deed {
                Deed::Retired(path) => remove(&path),
                Deed::RetiredImage(key) => {
                    self.images.remove(&key);
                }
                Deed::Published(_) | Deed::PublishedImage(_) => {}
            }
        }
    }

    /// What was done after the first `keep` deeds is undone.
    fn undo(&mut self, keep: usize) {
        for deed in self.done.drain(keep.min(self.done.len())..).rev() {
            match deed {
                Deed::Published(path) => remove(&path),
                Deed::PublishedImage(key) => {
                    self.images.remove(&key);
                }
                Deed::Retired(_) | Deed::RetiredImage(_) => {}
            }
        }
    }

    fn savepoint(&mut self, n: i32) {
        self.savepoints.push((n, self.done.len()));
    }

    fn release(&mut self, n: i32) {
        self.savepoints.retain(|&(number, _)| number < n);
    }

    fn rollback_to(&mut self, n: i32) {
        // The savepoint itself stays open; those above it are gone. SQLite begins to count when this table is first
        // written, so `n` itself may be missing: then the next one above marks the place.
        if let Some(at) = self.savepoints.iter().position(|&(number, _)| number >= n) {
            let (number, keep) = self.savepoints[at];
            self.savepoints.truncate(at + usize::from(number == n));
            self.undo(keep);
        }
    }
}

/// Removes a file. One that stays costs disk space and nothing else; the next build sweeps it.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        crate::sql::work::log(&format!("cannot remove {}: {error}", path.display()));
    }
}

fn ledger(session: &Session) -> std::sync::MutexGuard<'_, Ledger> {
    session.files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The database file of a schema; `None` for one in memory or temporary.
pub(crate) fn database(conn: &Connection, schema: &str) -> Result<Option<PathBuf>> {
    let mut statement =
        conn.prepare_cached("SELECT file FROM pragma_database_list WHERE name = ?1")?;
    let file: Option<String> = statement.query_row([schema], |row| row.get(0))?;
    Ok(file.filter(|f| !f.is_empty()).map(PathBuf::from))
}

/// Makes the end of the open transaction known to the ledger.
fn join(conn: &Connection) -> Result<()> {
    conn.execute_batch("INSERT INTO annoy_files DEFAULT VALUES")?;
    Ok(())
}

/// Publishes `image` as a generation of the index, beside the `old` one. Returns what the catalogue calls it, and its
/// size.
pub(crate) fn publish(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    generation: i64,
    old: Option<&str>,
    image: &Image<'_>,
) -> Result<(String, u64)> {
    join(conn)?;
    let Some(database) = database(conn, &index.schema)? else {
        let forest = Forest::open(Store::Memory(image.to_bytes()))?;
        let current = current_name(generation, forest.checksum());
        let key = Key {
            index: index.clone(),
            current: current.clone(),
        };
        let mut ledger = ledger(session);
        ledger.images.insert(key.clone(), Arc::new(forest));
        ledger.done.push(Deed::PublishedImage(key));
        return Ok((current, image.len() as u64));
    };
    let old = old.map(|old| parse_current(old).map(|(generation, _)| generation));
    sweep(session, &database, index, old.transpose()?);
    let path = index.file(&database, generation);
    let mut temporary = path.clone().into_os_string();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = write(&database, &temporary, &path, image);
    if written.is_err() {
        // What could not be written whole must not stay.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| {
        format!(
            "cannot write the index file {}: the folder of the database must be writable and have room",
            path.display()
        )
    })?;
    ledger(session).done.push(Deed::Published(path.clone()));
    let checksum = map(&path)?.checksum();
    Ok((current_name(generation, checksum), image.len() as u64))
}

/// Write, sync, rename, sync the folder.
fn write(database: &Path, temporary: &Path, path: &Path, image: &Image<'_>) -> Result<()> {
    // Never follows a link that somebody planted: an existing name is removed, and the new one must not exist.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(temporary)?;
    if let Ok(metadata) = fs::metadata(database) {
        file.set_permissions(metadata.permissions())?;
    }
    let mut out = BufWriter::with_capacity(1 << 20, file);
    image.write_to(&mut out)?;
    out.flush()?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(temporary, path)?;
    if let Some(folder) = path.parent() {
        // A folder cannot be opened everywhere; where it can, the new name must reach the disk before the catalogue.
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        if let Ok(folder) = File::open(folder) {
            folder.sync_all()?;
        }
    }
    Ok(())
}

/// Removes what crashes have left: temporary files, and every generation but the `current` one and those that the open
/// transaction may still return to. The caller holds the write lock, so nobody else is about to publish.
fn sweep(session: &Session, database: &Path, index: &IndexName, current: Option<i64>) {
    let prefix = index.file_prefix(database);
    let folder = match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let ledger = ledger(session);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
            continue;
        };
        let stray = match rest.split_once(".annoy") {
            Some((number, "")) => number.parse::<i64>().is_ok_and(|n| Some(n) != current),
            Some((number, end)) => number.parse::<i64>().is_ok() && end.starts_with(".tmp-"),
            None => false,
        };
        if stray && !ledger.concerns(&name) {
            remove(&entry.path());
        }
    }
}

/// Retires what `current` names, if anything: its bytes go when the transaction has committed.
pub(crate) fn retire(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    current: Option<&str>,
) -> Result<()> {
    let Some(current) = current else {
        return Ok(());
    };
    join(conn)?;
    let deed = match database(conn, &index.schema)? {
        Some(database) => Deed::Retired(index.file(&database, parse_current(current)?.0)),
        None => Deed::RetiredImage(Key {
            index: index.clone(),
            current: current.to_owned(),
        }),
    };
    ledger(session).done.push(deed);
    Ok(())
}

/// Gives the file that `current` names to the index under its new name; the old name goes when the transaction has
/// committed.
pub(crate) fn rename(
    conn: &Connection,
    session: &Session,
    old: &IndexName,
    new: &IndexName,
    current: &str,
) -> Result<()> {
    join(conn)?;
    let Some(database) = database(conn, &old.schema)? else {
        let mut ledger = ledger(session);
        let key = |index: &IndexName| Key {
            index: index.clone(),
            current: current.to_owned(),
        };
        if let Some(image) = ledger.images.get(&key(old)).cloned() {
            ledger.images.insert(key(new), image);
            ledger.done.push(Deed::PublishedImage(key(new)));
            ledger.done.push(Deed::RetiredImage(key(old)));
        }
        return Ok(());
    };
    let generation = parse_current(current)?.0;
    let (from, to) = (
        old.file(&database, generation),
        new.file(&database, generation),
    );
    if !from.exists() {
        // The index answers from its table already, and goes on to.
        return Ok(());
    }
    match fs::remove_file(&to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if fs::hard_link(&from, &to).is_err() {
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        File::open(&to)?.sync_all()?;
    }
    let mut ledger = ledger(session);
    ledger.done.push(Deed::Published(to));
    ledger.done.push(Deed::Retired(from));
    Ok(())
}

/// The forest that `current` names.
///
/// # Errors
/// Why the file can't be used: missing, truncated, damaged, or not the one the catalogue means.
pub(crate) fn open(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    current: &str,
) -> Result<Open> {
    let key = Key {
        index: index.clone(),
        current: current.to_owned(),
    };
    {
        let ledger = ledger(session);
        if let Some(open) = ledger.open.get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        if let Some(image) = ledger.images.get(&key) {
            return Ok(Arc::clone(image));
        }
    }
    let Some(database) = database(conn, &index.schema)? else {
        bail!(
            "the index of a database in memory lives in the connection that built it, and this is another one"
        );
    };
    let (generation, checksum) = parse_current(current)?;
    let path = index.file(&database, generation);
    let forest = map(&path)?;
    if forest.checksum() != checksum {
        bail!(
            "{} is not the file that was built here: its checksum is {:016x}, expected {checksum:016x}",
            path.display(),
            forest.checksum()
        );
    }
    let open = Arc::new(forest);
    let mut ledger = ledger(session);
    ledger.open.retain(|_, forest| forest.strong_count() > 0);
    ledger.open.insert(key, Arc::downgrade(&open));
    Ok(open)
}

/// Maps a published file.
#[allow(unsafe_code)]
fn map(path: &Path) -> Result<Forest<Store>> {
    let describe = || format!("cannot open the index file {}", path.display());
    let file = File::open(path).with_context(describe)?;
    if !file.metadata().with_context(describe)?.is_file() {
        bail!("the index file {} is not a regular file", path.display());
    }
    // SAFETY: a published file is never written again: it is replaced by rename, and old maps keep the old bytes. What
    // a hostile process with write access to the database's folder does to a map is beyond any check here; the docs
    // say so.
    let map = unsafe { Mmap::map(&file) }.with_context(describe)?;
    Forest::open(Store::Map(map)).with_context(describe)
}

/// What the catalogue calls a generation.
fn current_name(generation: i64, checksum: u64) -> String {
    format!("{generation}:{checksum:016x}")
}

/// Generation and checksum.
pub(crate) fn parse_current(current: &str) -> Result<(i64, u64)> {
    current
        .split_once(':')
        .and_then(|(g, c)| Some((g.parse().ok()?, u64::from_str_radix(c, 16).ok()?)))
        .with_context(|| format!("the catalogue names no generation: '{current}'"))
}

/// `annoy_files`: the ear that hears transactions end.
pub(crate) struct Files {
    session: Arc<Session>,
}

impl Table for Files {
    type Cursor = NoRows;
    const WRITABLE: bool = true;
    const DIRECT_ONLY: bool = true;

    fn connect(origin: Origin<'_>) -> Result<(Self, String)> {
        Ok((
            Files {
                session: origin.session,
            },
            "CREATE TABLE x(deed)".to_owned(),
        ))
    }

    fn best_index(&self, plan: &mut Plan<'_>) -> Result<bool> {
        plan.cost(1.0, 1);
        Ok(true)
    }

    fn open(&self) -> Result<NoRows> {
        Ok(NoRows)
    }

    fn update(&self, change: Change<'_>) -> Result<i64> {
        match change {
            Change::Insert(..) => Ok(1),
            Change::Update | Change::Delete => bail!("annoy_files has no rows"),
        }
    }

    fn commit(&self) {
        ledger(&self.session).commit();
    }

    fn rollback(&self) {
        let mut ledger = ledger(&self.session);
        ledger.savepoints.clear();
        ledger.undo(0);
    }

    fn savepoint(&self, n: i32) {
        ledger(&self.session).savepoint(n);
    }

    fn release(&self, n: i32) {
        ledger(&self.session).release(n);
    }

    fn rollback_to(&self, n: i32) {
        ledger(&self.session).rollback_to(n);
    }
}

/// The scan of a table without rows.
pub(crate) struct NoRows;

impl Cursor for NoRows {
    type Table = Files;

    fn filter(&mut self, _: &Files, _: i32, _: &str, _: &Args<'_>) -> Result<()> {
        Ok(())
    }

    fn next(&mut self, _: &Files) -> Result<()> {
        Ok(())
    }

    fn eof(&self) -> bool {
        true
    }

    fn column(&self, _: &Files, _: usize, _: &mut Output<'_>) -> Result<()> {
        Ok(())
    }

    fn rowid(&self) -> i64 {
        0
    }
}

/// For the session.
pub(crate) type SharedLedger = Mutex<Ledger>;
