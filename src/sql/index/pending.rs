//! The rows that have changed since the youngest part of an index was made, kept from one query to the next.
//!
//! `<index>_changes` is a log: each rowid stands in it once, at the place of its last change, with a random stamp. If its
//! last entry is the one that was last when we looked, nothing has changed: whoever wrote, and whatever was rolled back.
//! Otherwise the youngest entry that we know and that still stands there is a moment which both histories share, and what
//! has changed since then on either side is among the entries behind it: ours, which may have been undone, and the
//! table's. Those rows are read again, and no others. So a query costs what has changed since the one before.
//!
//! Entries made by a statement that is still running are not relied on: a trigger before an INSERT notes a row that
//! REPLACE has yet to remove.
//!
//! Rows that wait are scanned. When there are many, they become a forest in memory, which is searched like a file's and
//! costs a fraction of a scan.

use anyhow::{Context, Result};
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use rustc_hash::{FxHashMap, FxHashSet};

use super::files::Store;
use super::names::IndexName;
use super::part::Part;
use crate::forest::{
    self, Ask, Budget, BuildOptions, Forest, RowScan, RowSet, Scratch, Stats, TopK, VectorStore,
    Vectors,
};
use crate::sql::source::Source;
use crate::sql::{Session, work};
use crate::vector::Metric;

/// Bytes of rows that are scanned at most: as long as they stay in the second cache, a scan costs less than all else.
const SCANNED: usize = 512 << 10;
/// More rows than this are worth lists for approximate search: as a file's they take half the time of an exact search, and
/// twice the time to make.
const LISTED: usize = 4096;
/// More rows than this part of those in the forest are worth another.
const AGAIN: usize = 4;

/// The stamp of an entry, also of one that no trigger wrote. Such an entry whose `id` is no integer names no row.
pub(crate) const STAMP: &str = "CAST(ifnull(stamp, 0) AS INTEGER)";

/// One entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) seq: i64,
    pub(crate) stamp: i64,
    id: i64,
}

/// See the module page.
#[derive(Default)]
pub(crate) struct Pending {
    /// What we know of the log, by `seq`. Each rowid's last entry is here; older ones of the same may be.
    log: Vec<Entry>,
    /// Entries up to this `seq` were made by statements that have ended.
    settled: i64,
    /// Rowids that stand in the log.
    changed: FxHashSet<i64>,
    /// Where in `ids` a row that waits is.
    places: FxHashMap<i64, usize>,
    /// Rows that wait, and their vectors one after the other.
    ids: Vec<i64>,
    rows: Vec<f32>,
    /// The others.
    coded: Option<Coded>,
}

/// A forest of rows that have changed, and those of them that have changed again.
struct Coded {
    forest: Forest<Store>,
    hidden: FxHashSet<i64>,
}

/// What is needed to follow the log.
pub(crate) struct Place<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) session: &'a Session,
    pub(crate) index: &'a IndexName,
    pub(crate) source: &'a Source,
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
}

impl Pending {
    /// Whether no row waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.coded.is_none()
    }

    /// Rowids of the rows that wait, in no order.
    pub(crate) fn rowids(&self) -> impl Iterator<Item = i64> + '_ {
        let coded = self.coded.iter().flat_map(|coded| {
            let all = coded.forest.ids().iter();
            all.filter(|id| !coded.hidden.contains(id))
        });
        self.ids.iter().chain(coded).copied()
    }

    /// Brings everything up to the state of the log, whose last entry is `last` (seq and stamp). The parts hide what has
    /// changed.
    pub(crate) fn follow(
        &mut self,
        place: &Place<'_>,
        last: Option<(i64, i64)>,
        parts: &mut [Part],
    ) -> Result<()> {
        let known = self.log.last().map(|e| (e.seq, e.stamp));
        if known == last && known.is_none_or(|(seq, _)| seq <= self.settled) {
            return Ok(());
        }
        let outcome = self.catch_up(place, parts);
        if outcome.is_err() {
            // Half of it is done: begin again next time.
            let changed = std::mem::take(self).changed;
            for id in changed {
                parts.iter_mut().for_each(|part| part.show(id));
            }
        }
        outcome
    }

    fn catch_up(&mut self, place: &Place<'_>, parts: &mut [Part]) -> Result<()> {
        let conn = place.conn;
        let unsettled = work::is_writing(conn);
        let changes = place.index.changes();
        let shared = self.shared(conn, &changes)?;
        let from = shared.checked_sub(1).map_or(i64::MIN, |i| self.log[i].seq);
        let ours = self.log.split_off(shared);

        let mut again: Vec<i64> = Vec::new();
        let mut entries = conn.prepare_cached(&format!(
            "SELECT seq, {STAMP}, id FROM {changes} WHERE seq > ?1 AND typeof(id) = 'integer' ORDER BY seq"
        ))?;
        let mut entries = entries.query([from])?;
        while let Some(row) = entries.next()? {
            let entry = Entry {
                seq: row.get(0)?,
                stamp: row.get(1)?,
                id: row.get(2)?,
            };
            again.push(entry.id);
            self.log.push(entry);
        }
        let theirs: FxHashSet<i64> = again.iter().copied().collect();
        // Entries of ours that are gone: moved to a younger place, or undone; then an older one may stand there again.
        let mut entry_of =
            conn.prepare_cached(&format!("SELECT seq, {STAMP} FROM {changes} WHERE id = ?1"))?;
        let mut undone = FxHashSet::default();
        let mut moved_back = false;
        for id in ours.into_iter().map(|e| e.id) {
            if theirs.contains(&id) || !undone.insert(id) {
                continue;
            }
            again.push(id);
            let older = entry_of
                .query_row([id], |row| {
                    Ok(Entry {
                        seq: row.get(0)?,
                        stamp: row.get(1)?,
                        id,
                    })
                })
                .optional()?;
            if let Some(entry) = older {
                undone.remove(&id);
                self.log.push(entry);
                moved_back = true;
            }
        }
        if moved_back {
            self.log.sort_unstable_by_key(|e| e.seq);
            self.log.dedup();
        }

        again.sort_unstable();
        again.dedup();
        let mut one_row = conn.prepare_cached(&place.source.one_row())?;
        for id in again {
            self.forget(id, place.dim);
            if undone.contains(&id) {
                self.changed.remove(&id);
                parts.iter_mut().for_each(|part| part.show(id));
            } else {
                self.changed.insert(id);
                parts.iter_mut().for_each(|part| part.hide(id));
            }
            // Also one that is as it was: whether a part still answers for it, only the parts know.
            if self.changed.contains(&id) {
                self.read(place, &mut one_row, id)?;
            }
        }
        if self.log.len() > 2 * self.changed.len() + 64 {
            self.compact();
        }
        self.settled = if unsettled { from } else { i64::MAX };
        self.code(place)
    }

    /// How many entries of ours lie at or before the youngest one that still stands in the log.
    fn shared(&self, conn: &Connection, changes: &str) -> Result<usize> {
        let mut stamp_at =
            conn.prepare_cached(&format!("SELECT {STAMP} FROM {changes} WHERE seq = ?1"))?;
        let mut shared = self.log.partition_point(|e| e.seq <= self.settled);
        while shared > 0 {
            let entry = self.log[shared - 1];
            let stamp: Option<i64> = stamp_at
                .query_row([entry.seq], |row| row.get(0))
                .optional()?;
            if stamp == Some(entry.stamp) {
                break;
            }
            shared -= 1;
        }
        Ok(shared)
    }

    /// Keeps the last entry of each rowid.
    fn compact(&mut self) {
        let mut seen = FxHashSet::default();
        let mut kept: Vec<Entry> = Vec::with_capacity(self.changed.len());
        kept.extend(self.log.iter().rev().filter(|e| seen.insert(e.id)));
        kept.reverse();
        self.log = kept;
    }

    /// Takes a row out of those that are known.
    fn forget(&mut self, id: i64, dim: usize) {
        if let Some(at) = self.places.remove(&id) {
            self.ids.swap_remove(at);
            if let Some(moved) = self.ids.get(at) {
                self.places.insert(*moved, at);
                let end = self.ids.len() * dim;
                self.rows.copy_within(end..end + dim, at * dim);
            }
            self.rows.truncate(self.ids.len() * dim);
        }
        if let Some(coded) = &mut self.coded
            && coded.forest.contains(id)
        {
            coded.hidden.insert(id);
        }
    }

    /// Reads a row; one that is not there, or has no vector, does not wait.
    fn read(
        &mut self,
        place: &Place<'_>,
        one_row: &mut CachedStatement<'_>,
        id: i64,
    ) -> Result<()> {
        let (ids, rows, places) = (&mut self.ids, &mut self.rows, &mut self.places);
        place.source.read_one(one_row, id, place.dim, |row| {
            places.insert(id, ids.len());
            ids.push(id);
            rows.extend_from_slice(row);
        })
    }

    /// Makes a forest of the rows when it costs too much to scan them.
    fn code(&mut self, place: &Place<'_>) -> Result<()> {
        let kept = self
            .coded
            .as_ref()
            .map_or(0, |c| c.forest.len() - c.hidden.len());
        if self.rows.len() * size_of::<f32>()
            <= SCANNED.max(kept / AGAIN * place.dim * size_of::<f32>())
        {
            return Ok(());
        }
        let n = self.ids.len() + kept;
        let mut order: Vec<(i64, Option<usize>)> = Vec::with_capacity(n);
        order.extend(self.ids.iter().zip(0..).map(|(&id, at)| (id, Some(at))));
        if let Some(coded) = &self.coded {
            let rest = coded
                .forest
                .ids()
                .iter()
                .filter(|id| !coded.hidden.contains(id));
            order.extend(rest.map(|&id| (id, None)));
        }
        order.sort_unstable();
        let mut rows: Vec<f32> = Vec::new();
        rows.try_reserve_exact(n * place.dim)
            .context("not enough memory for the rows that have changed; refresh the index")?;
        for &(id, at) in &order {
            match (at, &self.coded) {
                (Some(at), _) => rows.extend_from_slice(&self.rows[at * place.dim..][..place.dim]),
                (None, Some(coded)) => rows.extend_from_slice(
                    &coded
                        .forest
                        .vector_of(id)
                        .context("a row of the forest is not in it")?,
                ),
                (None, None) => {}
            }
        }
        let ids: Vec<i64> = order.into_iter().map(|(id, _)| id).collect();
        let vectors = Vectors {
            dim: place.dim,
            ids: &ids,
            rows: &rows,
        };
        let options = BuildOptions {
            metric: place.metric,
            trees: 1,
            seed: 1,
            threads: work::threads(0),
            store: VectorStore::F32,
        };
        let bytes = work::run(place.conn, place.session.display(), |job| {
            let build = if n > LISTED {
                forest::build
            } else {
                forest::build_exact
            };
            Ok(build(&vectors, &options, job)?.to_bytes())
        })?;
        self.coded = Some(Coded {
            forest: Forest::open(Store::Memory(bytes))?,
            hidden: FxHashSet::default(),
        });
        self.ids = Vec::new();
        self.rows = Vec::new();
        self.places = FxHashMap::default();
        Ok(())
    }

    /// Adds the rows nearest to `query` to `best`; without a budget, exactly.
    pub(crate) fn search(
        &self,
        (metric, query): (Metric, &[f32]),
        among: Option<&RowSet>,
        budget: Option<Budget>,
        best: &mut TopK,
        scratch: &mut Scratch,
        stats: &mut Stats,
    ) {
        if !self.ids.is_empty() {
            let scan = RowScan::new(metric, query);
            let rows = self.rows.chunks_exact(query.len());
            for (&rowid, row) in self.ids.iter().zip(rows) {
                if among.is_some_and(|among| !among.contains(rowid)) {
                    continue;
                }
                let finite = scan.push(rowid, row, best);
                debug_assert!(finite, "checked when it was read");
            }
            stats.rows += self.ids.len() as u64;
            stats.reranked += scan.scored();
            stats.left_out_by_floats += self.ids.len() as u64 - scan.scored();
            stats.bytes_read += size_of_val(&self.rows[..]) as u64;
        }
        if let Some(coded) = &self.coded {
            if let Some(budget) = budget.filter(|_| coded.forest.len() > LISTED) {
                let ask = Ask {
                    among,
                    ..Ask::nearest(best.k(), &coded.hidden)
                };
                let found = coded
                    .forest
                    .search_with(query, budget, &ask, scratch, stats);
                found.into_iter().for_each(|hit| best.push(hit));
                return;
            }
            let ask = Ask {
                k: best.k(),
                within: best.limit(),
                threads: 1,
                hidden: &coded.hidden,
                among,
                scan_lists: false,
                originals: None,
            };
            let found = coded.forest.exact_with(query, &ask, scratch, stats);
            found.into_iter().for_each(|hit| best.push(hit));
        }
    }
}
