//! The bytes of indexes: where they lie, and the maps over them.
//!
//! With `storage=file` each part is a file beside the database. It is written whole under a temporary name, synced,
//! renamed, its folder synced, and only then named in the catalogue, in the same transaction. Nothing ever writes to a
//! published file. Which one counts is the catalogue's word alone, so what a transaction does to files is settled when
//! it ends ([`mod@ledger`]), and what a crash leaves is swept later ([`mod@sweep`]).
//!
//! With `storage=inline`, and in a database that has no file, each part is rows of the database ([`mod@inline`]), which
//! SQLite itself publishes and retires with the transaction.

pub(crate) mod inline;
mod ledger;
#[cfg(test)]
mod steps;
mod sweep;

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::Hash;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memmap2::Mmap;
use rusqlite::Connection;

use self::ledger::{Act, join, ledger, remove};
pub(crate) use self::ledger::{Files, Ledger};
use super::names::{FileName, IndexName};
use super::part::PartName;
use crate::forest::{Bytes, Forest, Image};
use crate::job::Interrupted;
use crate::spill;
use crate::sql::Session;
use crate::sql::work::Look;

/// Sections up to this size are checked whenever a file is opened, in a tenth of a millisecond each; larger ones by
/// `integrity-check`.
const CHECKED: usize = 1 << 20;

/// Bytes that a file's name may have on all but a few file systems.
const MOST_OF_A_NAME: usize = 255;

/// The bytes of a forest: a map, or memory.
pub(crate) enum Store {
    /// Of a published file, or the copy of a part that lies in the database.
    Map(Mmap),
    /// Of rows that have changed.
    Memory(Bytes),
}

impl Store {
    /// Brings parts of a map near, as far as the system lets itself be asked: each page that is touched first in a
    /// search costs as much as scoring some rows. No more than may fit in memory, and for no longer than somebody waits gladly:
    /// where the limit of a container throws out what has just been read, a second read is no better than the first.
    pub(crate) fn bring_near(&self, parts: &[Range<usize>]) {
        const MOST: usize = 1 << 30;
        const LONGEST: Duration = Duration::from_millis(500);
        const AT_ONCE: usize = 8 << 20;
        #[cfg(target_os = "linux")]
        if let Store::Map(map) = self {
            let (began, mut brought) = (Instant::now(), 0);
            for part in parts {
                for at in part.clone().step_by(AT_ONCE) {
                    if brought > MOST || began.elapsed() > LONGEST {
                        return;
                    }
                    let some = at..part.end.min(at + AT_ONCE);
                    brought += some.len();
                    // In large reads first: what is only found missing comes page by page.
                    for piece in spill::pieces(some.clone()) {
                        let _ =
                            map.advise_range(memmap2::Advice::WillNeed, piece.start, piece.len());
                    }
                    // Before Linux 5.14 there is no such advice; a search works without.
                    let _ = map.advise_range(memmap2::Advice::PopulateRead, some.start, some.len());
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (parts, MOST, LONGEST, AT_ONCE);
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

/// A forest that is open, shared by all tables of a connection that use it, and by connections of one process if it is a
/// copy of what lies in a database.
pub(crate) type Open = Arc<Forest<Store>>;

/// Forests that are open somewhere: whoever wants one finds it by `K`.
pub(crate) struct Opened<K = Key>(Mutex<HashMap<K, Weak<Forest<Store>>>>);

impl<K> Default for Opened<K> {
    fn default() -> Self {
        Opened(Mutex::default())
    }
}

impl<K: Eq + Hash> Opened<K> {
    /// The forest of this key, from `read` if nobody has it open. Nobody waits while it is read: of two that come at once,
    /// both read, and share what the first has read.
    fn get(&self, key: K, read: impl FnOnce() -> Result<Open>) -> Result<Open> {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all().get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let open = read()?;
        let mut all = all();
        if let Some(open) = all.get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        all.retain(|_, forest| forest.strong_count() > 0);
        all.insert(key, Arc::downgrade(&open));
        Ok(open)
    }
}

/// What identifies the bytes of one generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
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

/// Every step that changes a file goes through here, where tests fail it or look at what a crash would leave.
fn step(_what: &str) -> io::Result<()> {
    #[cfg(test)]
    return steps::step(_what);
    #[cfg(not(test))]
    Ok(())
}

/// Where the parts of an index lie.
pub(crate) enum Storage {
    /// As files beside this one.
    Beside(PathBuf),
    /// As rows of the database.
    Inline,
}

/// Where the parts of an index lie; `None`: in files, and the database has none beside which they could be.
pub(crate) fn storage(conn: &Connection, index: &IndexName) -> Result<Option<Storage>> {
    if inline::is_used(conn, index)? {
        return Ok(Some(Storage::Inline));
    }
    Ok(database(conn, &index.schema)?.map(Storage::Beside))
}

/// The database file of a schema; `None` for one in memory or temporary.
fn database(conn: &Connection, schema: &str) -> Result<Option<PathBuf>> {
    let mut statement =
        conn.prepare_cached("SELECT file FROM pragma_database_list WHERE name = ?1")?;
    let file: Option<String> = statement.query_row([schema], |row| row.get(0))?;
    // Some file systems of SQLite's give names to what is no file.
    Ok(file.map(PathBuf::from).filter(|file| file.is_file()))
}

/// Settles where the parts of an index that is about to be built anew shall lie: in the database if they lie there, if the
/// user wants them there, or if it has no file.
pub(crate) fn settle_storage(conn: &Connection, index: &IndexName, inline: bool) -> Result<()> {
    if inline || inline::is_used(conn, index)? || database(conn, &index.schema)?.is_none() {
        inline::begin(conn, index)?;
    }
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
    let part = PartName {
        generation,
        checksum: Some(image.checksum()),
        hides: None,
    };
    let size = image.len() as u64;
    let database = match storage(conn, index)? {
        Some(Storage::Beside(database)) => database,
        Some(Storage::Inline) => {
            if let Some(database) = database(conn, &index.schema)? {
                sweep::sweep(conn, session, &database, index, &[])?;
            }
            inline::write(conn, index, generation, image)?;
            return Ok((part, size));
        }
        None => bail!(
            "the database has no file beside which that of index {} could be",
            index.name
        ),
    };
    join(conn)?;
    sweep::sweep(conn, session, &database, index, old)?;
    let path = index.file(&database, generation);
    let mut temporary = path.clone().into_os_string();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let bytes = Path::new(&temporary).file_name().unwrap_or_default().len();
    ensure!(
        bytes <= MOST_OF_A_NAME,
        "the file of index {} would have a name of {bytes} bytes, and {MOST_OF_A_NAME} are possible (a byte that is no letter, \
         digit, '_' or '.' takes three): give the index a shorter name, or storage=inline",
        index.name
    );
    let temporary = PathBuf::from(temporary);
    let written = write(conn, (&database, &temporary, &path), image);
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
    ledger(session).note(Act::Published, path);
    Ok((part, size))
}

/// Write, sync, rename, sync the folder.
fn write(
    conn: &Connection,
    (database, temporary, path): (&Path, &Path, &Path),
    image: &Image<'_>,
) -> Result<()> {
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
    belong_to(database, &file)?;
    let mut stepping = Stepping {
        file,
        look: Look::new(conn)?,
        interrupted: false,
        unsynced: 0,
    };
    let mut out = Pieces::new(PIECE, |piece: &[u8]| stepping.write(piece));
    let written = image.write_to(&mut out).and_then(|()| out.flush());
    if stepping.interrupted {
        return Err(Interrupted.into());
    }
    written?;
    step("sync")?;
    stepping.file.sync_all()?;
    step("rename")?;
    fs::rename(temporary, path)?;
    // A folder cannot be opened everywhere; where it can, the new name must reach the disk before the catalogue.
    if let Ok(folder) = File::open(folder_of(path)) {
        step("sync folder")?;
        folder.sync_all()?;
    }
    Ok(())
}

/// Gives a new file the permissions of the database, and its owner where root builds for somebody: as SQLite does it
/// for a journal.
fn belong_to(database: &Path, file: &File) -> io::Result<()> {
    let Ok(metadata) = fs::metadata(database) else {
        return Ok(());
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        // Nobody but root can.
        let _ = fchown(file, Some(metadata.uid()), Some(metadata.gid()));
    }
    step("permissions")?;
    file.set_permissions(metadata.permissions())
}

/// Bytes that are written at a time, from a multiple of them on: a huge page. What a file system writes in one piece it keeps in one
/// piece if it can (Linux: XFS since 5.18, ext4 since 6.16), and then a map of the file has huge pages: a search that reads
/// here and there, or all of the plane, looks up one address where it would look up 512.
const PIECE: usize = 2 << 20;

/// A file whose writes are steps, and stop when the connection is interrupted.
struct Stepping<'a> {
    file: File,
    look: Look<'a>,
    interrupted: bool,
    /// Bytes written since the last sync: one sync of a large file at its end would take minutes.
    unsynced: usize,
}

impl Stepping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = step("write") {
            // As a full disk does it: a part fits.
            let _ = self.file.write(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        if self.look.now().is_err() {
            self.interrupted = true;
            return Err(io::Error::other("interrupted"));
        }
        if self.unsynced >= 64 << 20 {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        self.file.write_all(bytes)?;
        self.unsynced += bytes.len();
        Ok(())
    }
}

/// Cuts what is written into pieces of one size, of which the last may be smaller.
struct Pieces<F> {
    size: usize,
    /// What is to be put yet: less than a piece.
    piece: Vec<u8>,
    put: F,
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Pieces<F> {
    fn new(size: usize, put: F) -> Self {
        Pieces {
            size,
            piece: Vec::with_capacity(size),
            put,
        }
    }
}

impl<F: FnMut(&[u8]) -> io::Result<()>> Write for Pieces<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.size - self.piece.len());
        self.piece.extend_from_slice(&bytes[..n]);
        if self.piece.len() == self.size {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            (self.put)(&self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }
}

/// The folder for the temporary files of a build: where the index file will lie, or that for temporary files.
pub(crate) fn folder(conn: &Connection, index: &IndexName) -> Result<PathBuf> {
    let database = database(conn, &index.schema)?;
    Ok(database.map_or_else(spill::temporary_folder, |database| {
        folder_of(&database).to_owned()
    }))
}

/// Refuses work that needs more room in a folder than there is.
pub(crate) fn check_room(folder: &Path, needed: u64) -> Result<()> {
    let free = match step("room") {
        Ok(()) => fs4::available_space(folder),
        Err(_) => Ok(0),
    };
    // A file system that does not say how much there is will say when there is no more.
    let Ok(free) = free else { return Ok(()) };
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    ensure!(
        needed <= free,
        "an index of these vectors, built with max_memory, needs {} MiB of disk in {} for temporary files and its own, and {} MiB \
         are free there: free {} more, or move the database to a larger disk",
        mib(needed),
        folder.display(),
        free >> 20,
        mib(needed - free)
    );
    Ok(())
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
    let parts = parts.iter().filter(|part| part.checksum.is_some());
    match storage(conn, index)? {
        Some(Storage::Beside(database)) => {
            join(conn)?;
            let mut ledger = ledger(session);
            for part in parts {
                ledger.note(Act::Retired, index.file(&database, part.generation));
            }
        }
        Some(Storage::Inline) => {
            for part in parts {
                inline::remove(conn, index, part.generation)?;
            }
        }
        None => {}
    }
    Ok(())
}

/// Retires all there is of an index that goes, whatever its catalogue says.
pub(crate) fn drop(conn: &Connection, session: &Session, index: &IndexName) -> Result<()> {
    if inline::is_used(conn, index)? {
        inline::drop(conn, index)?;
    }
    retire_all(conn, session, index)
}

/// Retires all there is of an index that is made again.
pub(crate) fn empty(conn: &Connection, session: &Session, index: &IndexName) -> Result<()> {
    if inline::is_used(conn, index)? {
        inline::empty(conn, index)?;
    }
    retire_all(conn, session, index)
}

fn retire_all(conn: &Connection, session: &Session, index: &IndexName) -> Result<()> {
    let Some(database) = database(conn, &index.schema)? else {
        return Ok(());
    };
    join(conn)?;
    // What can't be found stays, and costs room alone.
    for file in sweep::files_of(&database, index).unwrap_or_default() {
        ledger(session).note(Act::Retired, file);
    }
    sweep::sweep(conn, session, &database, index, &[])
}

/// Gives the files of these parts to the index under its new name; the old names go when the transaction has committed.
pub(crate) fn rename(
    conn: &Connection,
    session: &Session,
    old: &IndexName,
    new: &IndexName,
    parts: &[PartName],
) -> Result<()> {
    let database = match storage(conn, old)? {
        Some(Storage::Beside(database)) => database,
        Some(Storage::Inline) => return inline::rename(conn, old, new),
        None => return Ok(()),
    };
    join(conn)?;
    for part in parts.iter().filter(|part| part.checksum.is_some()) {
        let mut ledger = ledger(session);
        let (from, to) = (
            old.file(&database, part.generation),
            new.file(&database, part.generation),
        );
        if !fs::symlink_metadata(&from).is_ok_and(|from| from.is_file()) {
            // The index answers from its table already, and goes on to.
            continue;
        }
        if ledger.last(&to).is_none() {
            match fs::remove_file(&to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            step("link")?;
            if fs::hard_link(&from, &to).is_err() {
                copy(&database, &from, &to).with_context(|| {
                    format!("cannot copy {} to {}", from.display(), to.display())
                })?;
            }
        } else if Some(map(&to)?.checksum()) != part.checksum {
            bail!(
                "{} belongs to an index that was dropped or renamed in this transaction: COMMIT first",
                to.display()
            );
        }
        ledger.settle_rename(from, to);
    }
    Ok(())
}

/// A copy of a file under a name that must be free.
fn copy(database: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)?;
    belong_to(database, &copy)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// The largest generation of an index that has a file, whoever left it there.
pub(crate) fn largest_generation(conn: &Connection, index: &IndexName) -> Result<i64> {
    let Some(database) = database(conn, &index.schema)? else {
        return Ok(0);
    };
    let files = sweep::files_of(&database, index)?;
    let numbers = files.iter().filter_map(|file| {
        let name = file.file_name()?.to_str()?;
        let name = FileName::parse(&database, name)?;
        (!name.is_temporary).then_some(name.generation)
    });
    // No build counts that far; whoever planted such a name must not stop the counting.
    Ok(numbers.filter(|&n| n < 1 << 62).max().unwrap_or(0))
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
    session.opened.get(Key::new(index, part), || {
        let database = database(conn, &index.schema)?;
        match database {
            Some(database) if inline::is_used(conn, index)? => {
                inline::open(conn, &database, index, part)
            }
            _ => Ok(Arc::new(read(conn, index, part)?)),
        }
    })
}

/// Opens a part, whoever else has it open, and checks what costs next to nothing.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(conn: &Connection, index: &IndexName, part: &PartName) -> Result<Forest<Store>> {
    let (forest, what, most) = match storage(conn, index)? {
        Some(Storage::Beside(database)) => {
            let path = index.file(&database, part.generation);
            (map(&path)?, path.display().to_string(), CHECKED)
        }
        // All of it has been read already.
        Some(Storage::Inline) => (
            inline::read(conn, index, part.generation)?,
            format!("what the database has of generation {}", part.generation),
            usize::MAX,
        ),
        None => bail!(
            "its files lay beside another database, and this one has none: it is in memory, temporary, or was moved \
             while it was open"
        ),
    };
    if Some(forest.checksum()) != part.checksum {
        bail!(
            "{what} is not the file that was built here: its checksum is {:016x}, expected {:016x}",
            forest.checksum(),
            part.checksum.unwrap_or_default()
        );
    }
    // Page by page they would come from the disk, too.
    forest
        .bytes()
        .bring_near(&forest.small_parts(most.min(CHECKED)));
    forest
        .verify_sections(most)
        .with_context(|| format!("the index file {what}"))?;
    Ok(forest)
}

/// Maps a published file.
#[allow(unsafe_code)]
fn map(path: &Path) -> Result<Forest<Store>> {
    let describe = || format!("cannot open the index file {}", path.display());
    // Before it is opened: opening a pipe would wait, and a link may lead anywhere.
    if !fs::symlink_metadata(path).with_context(describe)?.is_file() {
        bail!("the index file {} is not a regular file", path.display());
    }
    let file = File::open(path).with_context(describe)?;
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
        // Whole pages of it: a page at its end that is touched for what comes next would bring megabytes of the plane along.
        const PAGES: usize = 64 << 10;
        let plane = forest.streamed_part();
        let (from, to) = (
            plane.start.next_multiple_of(PAGES),
            plane.end / PAGES * PAGES,
        );
        if from < to {
            let _ = map.advise_range(memmap2::Advice::Normal, from, to - from);
        }
    }
    Ok(forest)
}
