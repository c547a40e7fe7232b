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

#[cfg(test)]
mod steps;

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
use super::part::PartName;
use crate::forest::{Bytes, Forest, Image};
use crate::sql::Session;
use crate::sql::vtab::{Args, Change, Cursor, Origin, Output, Plan, Table};

/// Sections up to this size are checked whenever a file is opened, in a tenth of a millisecond each; larger ones by
/// `integrity-check`.
const CHECKED: usize = 1 << 20;

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
    part: PartName,
}

impl Key {
    /// The bytes of a part, whatever it hides.
    fn new(index: &IndexName, part: &PartName) -> Key {
        Key {
            index: index.clone(),
            part: PartName {
                hides: None,
                ..*part
            },
        }
    }
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

/// What a transaction did to a file or an image.
struct Deed {
    act: Act,
    to: Thing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Made it.
    Published,
    /// Meant it to go.
    Retired,
    /// Meant it to stay after all.
    Revived,
}

#[derive(Clone, PartialEq, Eq)]
enum Thing {
    File(PathBuf),
    Image(Key),
}

impl Ledger {
    fn note(&mut self, act: Act, to: Thing) {
        self.done.push(Deed { act, to });
    }

    /// Whether the open transaction has published or retired a file of this name.
    fn concerns(&self, name: &std::ffi::OsStr) -> bool {
        self.done
            .iter()
            .any(|deed| matches!(&deed.to, Thing::File(path) if path.file_name() == Some(name)))
    }

    /// What the open transaction did to it last.
    fn last(&self, to: &Thing) -> Option<Act> {
        let deed = self.done.iter().rev().find(|deed| deed.to == *to);
        deed.map(|deed| deed.act)
    }

    /// A copy of `from` is at `to`, new or there again.
    fn settle_rename(&mut self, from: Thing, to: Thing) {
        self.note(self.act_of_making(&to), to);
        self.note(Act::Retired, from);
    }

    fn act_of_making(&self, it: &Thing) -> Act {
        match self.last(it) {
            None => Act::Published,
            Some(_) => Act::Revived,
        }
    }

    fn remove(&mut self, it: &Thing) {
        match it {
            Thing::File(path) => remove(path),
            Thing::Image(key) => {
                self.images.remove(key);
            }
        }
    }

    /// The transaction has committed.
    fn commit(&mut self) {
        self.savepoints.clear();
        while let Some(deed) = self.done.pop() {
            if deed.act == Act::Retired {
                self.remove(&deed.to);
            }
            // What was done to it before does not count.
            self.done.retain(|earlier| earlier.to != deed.to);
        }
    }

    /// What was done after the first `keep` deeds is undone.
    fn undo(&mut self, keep: usize) {
        while self.done.len() > keep {
            if let Some(Deed {
                act: Act::Published,
                to,
            }) = self.done.pop()
            {
                self.remove(&to);
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
        // The savepoint itself stays open; those above it are gone. One that we were not told of began before this
        // transaction first wrote here, and with it all is undone.
        let at = self.savepoints.iter().position(|&(number, _)| number == n);
        let (open, keep) = at.map_or((0, 0), |at| (at + 1, self.savepoints[at].1));
        self.savepoints.truncate(open);
        self.undo(keep);
    }
}

/// Every step that changes a file goes through here, where tests fail it or look at what a crash would leave.
fn step(_what: &str) -> io::Result<()> {
    #[cfg(test)]
    return steps::step(_what);
    #[cfg(not(test))]
    Ok(())
}

/// Removes a file. One that stays costs disk space and nothing else; the next build sweeps it.
fn remove(path: &Path) {
    if let Err(error) = step("remove").and_then(|()| fs::remove_file(path))
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

/// Publishes `image` as a generation of the index, beside the `old` ones. Returns what the catalogue calls it, and its
/// size.
pub(crate) fn publish(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    generation: i64,
    old: &[PartName],
    image: &Image<'_>,
) -> Result<(PartName, u64)> {
    let named = |checksum| PartName {
        generation,
        checksum: Some(checksum),
        hides: None,
    };
    join(conn)?;
    let Some(database) = database(conn, &index.schema)? else {
        let forest = Forest::open(Store::Memory(image.to_bytes()))?;
        let part = named(forest.checksum());
        let key = Key::new(index, &part);
        let mut ledger = ledger(session);
        ledger.images.insert(key.clone(), Arc::new(forest));
        let act = ledger.act_of_making(&Thing::Image(key.clone()));
        ledger.note(act, Thing::Image(key));
        return Ok((part, image.len() as u64));
    };
    sweep(session, &database, index, old);
    let path = index.file(&database, generation);
    let mut temporary = path.clone().into_os_string();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = write(&database, &temporary, &path, image);
    if written.is_err() {
        // What could not be written whole must not stay; nor what has its name already, if the folder can't be synced.
        let _ = fs::remove_file(&temporary);
        let _ = fs::remove_file(&path);
    }
    written.with_context(|| {
        format!(
            "cannot write the index file {}: the folder of the database must be writable and have room",
            path.display()
        )
    })?;
    ledger(session).note(Act::Published, Thing::File(path.clone()));
    Ok((named(map(&path)?.checksum()), image.len() as u64))
}

/// Write, sync, rename, sync the folder.
fn write(database: &Path, temporary: &Path, path: &Path, image: &Image<'_>) -> Result<()> {
    // Never follows a link that somebody planted: an existing name is removed, and the new one must not exist.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    step("create")?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(temporary)?;
    if let Ok(metadata) = fs::metadata(database) {
        step("permissions")?;
        file.set_permissions(metadata.permissions())?;
    }
    let mut out = BufWriter::with_capacity(1 << 20, Stepping(file));
    image.write_to(&mut out)?;
    out.flush()?;
    let Stepping(file) = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    step("sync")?;
    file.sync_all()?;
    step("rename")?;
    fs::rename(temporary, path)?;
    // A folder cannot be opened everywhere; where it can, the new name must reach the disk before the catalogue.
    if let Ok(folder) = File::open(folder_of(path)) {
        step("sync folder")?;
        folder.sync_all()?;
    }
    Ok(())
}

/// A file whose writes are steps.
struct Stepping(File);

impl Write for Stepping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = step("write") {
            // As a full disk does it: a part fits.
            let _ = self.0.write(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Removes what crashes have left: temporary files, and every generation but the `current` ones and those that the open
/// transaction may still return to. The caller holds the write lock, so nobody else is about to publish.
fn sweep(session: &Session, database: &Path, index: &IndexName, current: &[PartName]) {
    let counts = |n: i64| current.iter().any(|part| part.generation == n);
    let prefix = index.file_prefix(database);
    let Ok(entries) = fs::read_dir(folder_of(database)) else {
        return;
    };
    let ledger = ledger(session);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) else {
            continue;
        };
        let stray = match rest.split_once(".annoy") {
            Some((number, "")) => number.parse::<i64>().is_ok_and(|n| !counts(n)),
            Some((number, end)) => number.parse::<i64>().is_ok() && end.starts_with(".tmp-"),
            None => false,
        };
        if stray && !ledger.concerns(&name) {
            remove(&entry.path());
        }
    }
}

/// Retires parts: their bytes go when the transaction has committed.
pub(crate) fn retire(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    parts: &[PartName],
) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    join(conn)?;
    let database = database(conn, &index.schema)?;
    for part in parts.iter().filter(|part| part.checksum.is_some()) {
        let thing = match &database {
            Some(database) => Thing::File(index.file(database, part.generation)),
            None => Thing::Image(Key::new(index, part)),
        };
        ledger(session).note(Act::Retired, thing);
    }
    Ok(())
}

/// Gives the files of these parts to the index under its new name; the old names go when the transaction has committed.
pub(crate) fn rename(
    conn: &Connection,
    session: &Session,
    old: &IndexName,
    new: &IndexName,
    parts: &[PartName],
) -> Result<()> {
    join(conn)?;
    let database = database(conn, &old.schema)?;
    for part in parts.iter().filter(|part| part.checksum.is_some()) {
        let mut ledger = ledger(session);
        let Some(database) = &database else {
            let (from, to) = (Key::new(old, part), Key::new(new, part));
            if let Some(image) = ledger.images.get(&from).cloned() {
                ledger.images.insert(to.clone(), image);
                ledger.settle_rename(Thing::Image(from), Thing::Image(to));
            }
            continue;
        };
        let (from, to) = (
            old.file(database, part.generation),
            new.file(database, part.generation),
        );
        if !from.exists() {
            // The index answers from its table already, and goes on to.
            continue;
        }
        if ledger.last(&Thing::File(to.clone())).is_none() {
            match fs::remove_file(&to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            step("link")?;
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).with_context(|| {
                    format!("cannot copy {} to {}", from.display(), to.display())
                })?;
                File::open(&to)?.sync_all()?;
            }
        } else if Some(map(&to)?.checksum()) != part.checksum {
            bail!(
                "{} belongs to an index that was dropped or renamed in this transaction: COMMIT first",
                to.display()
            );
        }
        ledger.settle_rename(Thing::File(from), Thing::File(to));
    }
    Ok(())
}

/// The largest generation of an index that has a file, whoever left it there.
pub(crate) fn largest_generation(conn: &Connection, index: &IndexName) -> Result<i64> {
    let Some(database) = database(conn, &index.schema)? else {
        return Ok(0);
    };
    let prefix = index.file_prefix(&database);
    let mut largest = 0;
    for entry in folder_of(&database).read_dir()?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| {
            name.strip_prefix(&prefix)?
                .strip_suffix(".annoy")?
                .parse()
                .ok()
        });
        // No build counts that far; whoever planted such a name must not stop the counting.
        largest = largest.max(number.filter(|&n: &i64| n < 1 << 62).unwrap_or(0));
    }
    Ok(largest)
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The forest of a part that has a file.
///
/// # Errors
/// Why the file can't be used: missing, truncated, damaged, or not the one the catalogue means.
pub(crate) fn open(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    part: &PartName,
) -> Result<Open> {
    let key = Key::new(index, part);
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
    let path = index.file(&database, part.generation);
    let forest = map(&path)?;
    if Some(forest.checksum()) != part.checksum {
        bail!(
            "{} is not the file that was built here: its checksum is {:016x}, expected {:016x}",
            path.display(),
            forest.checksum(),
            part.checksum.unwrap_or_default()
        );
    }
    forest
        .verify_sections(CHECKED)
        .with_context(|| format!("the index file {}", path.display()))?;
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
    // What is not in memory is to come page by page, instead of many pages around each: for the few hundred places of a
    // search that would be most of the file. Only the plane is read from end to end. (Advice: nothing depends on it.)
    #[cfg(unix)]
    let _ = map.advise(memmap2::Advice::Random);
    let forest = Forest::open(Store::Map(map)).with_context(describe)?;
    #[cfg(unix)]
    if let Store::Map(map) = forest.bytes() {
        let plane = forest.streamed_part();
        let _ = map.advise_range(memmap2::Advice::Normal, plane.start, plane.len());
    }
    Ok(forest)
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
