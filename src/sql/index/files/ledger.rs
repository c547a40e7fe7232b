//! How files come and go with transactions: what a transaction does to files is settled when it ends.
//!
//! * A file it published goes when it is rolled back (to a savepoint, or whole),
//! * a file it retired goes when it has committed.
//!
//! SQLite tells a virtual table when transactions end, if it is written to in them. The index itself won't do: after
//! DROP TABLE it is gone before the commit. So there is a table for this alone, `annoy_files`, always empty: whoever
//! publishes or retires inserts into it, and the connection's [`Ledger`] says what was done.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use rusqlite::Connection;

use super::step;
use crate::sql::Session;
use crate::sql::vtab::{Args, Change, Cursor, Origin, Output, Plan, Table};

/// The files of one connection.
#[derive(Default)]
pub(crate) struct Ledger {
    /// What the open transaction did, in order.
    done: Vec<Deed>,
    /// Savepoints: (number, length of `done` when it began).
    savepoints: Vec<(i32, usize)>,
}

/// What a transaction did to a file.
struct Deed {
    act: Act,
    to: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Made it.
    Published,
    /// Meant it to go.
    Retired,
    /// Meant it to stay after all.
    Revived,
}

impl Ledger {
    pub(super) fn note(&mut self, act: Act, to: PathBuf) {
        self.done.push(Deed { act, to });
    }

    /// Whether the open transaction has published or retired a file of this name.
    pub(super) fn concerns(&self, name: &std::ffi::OsStr) -> bool {
        self.done
            .iter()
            .any(|deed| deed.to.file_name() == Some(name))
    }

    /// What the open transaction did to it last.
    pub(super) fn last(&self, to: &Path) -> Option<Act> {
        let deed = self.done.iter().rev().find(|deed| deed.to == *to);
        deed.map(|deed| deed.act)
    }

    /// A copy of `from` is at `to`, new or there again.
    pub(super) fn settle_rename(&mut self, from: PathBuf, to: PathBuf) {
        self.note(self.act_of_making(&to), to);
        self.note(Act::Retired, from);
    }

    fn act_of_making(&self, it: &Path) -> Act {
        match self.last(it) {
            None => Act::Published,
            Some(_) => Act::Revived,
        }
    }

    /// The transaction has committed.
    fn commit(&mut self) {
        self.savepoints.clear();
        while let Some(deed) = self.done.pop() {
            if deed.act == Act::Retired {
                remove(&deed.to);
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
                remove(&to);
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

/// The ledger of this connection.
pub(super) fn ledger(session: &Session) -> MutexGuard<'_, Ledger> {
    session.files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the end of the open transaction known to the ledger.
pub(super) fn join(conn: &Connection) -> Result<()> {
    conn.execute_batch("INSERT INTO annoy_files DEFAULT VALUES")?;
    Ok(())
}

/// Removes a file. One that stays costs disk space and nothing else; the next build sweeps it.
pub(super) fn remove(path: &Path) {
    if let Err(error) = step("remove").and_then(|()| fs::remove_file(path))
        && error.kind() != io::ErrorKind::NotFound
    {
        crate::sql::work::log(&format!("cannot remove {}: {error}", path.display()));
    }
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
