//! The rows of one search, nearest first, as many as the statement takes.
//!
//! With a distance and neither `k` nor LIMIT, an exact search gives all rows within it in one pass. With `k` there is one
//! search. Without, a first batch is searched (as large as LIMIT says, when SQLite tells), and whenever the statement wants
//! more, a larger one: a join or filter that drops rows gets its full number in the end, and a statement that stops early
//! has paid for little more than it took. A statement that takes all rows has paid for a few searches of everything
//! ([`growth`]).
//!
//! Exact batches are prefixes of each other, so the rows come in order. An approximate search that looks further may
//! find a row that belonged before those already given; it is given then, late but not lost. A statement that asks for
//! ORDER BY distance is searched exactly after its first batch, where rows do come in order.

use std::sync::Arc;

use anyhow::Result;
use rustc_hash::FxHashSet;

use super::targets::{Target, Targets, Way};
use crate::forest::{Hit, RowSet};
use crate::sql::index::reader::Wanted;
use crate::vector::Vector;

/// Rows of the first batch when nothing tells how many are wanted.
const FIRST_BATCH: usize = 64;
/// A set with up to so many rows is answered in one batch.
const FEW: usize = 4096;
/// A batch of so many rows takes about as long as SQLite takes to look at them.
const LARGE: usize = 4096;

/// How much larger a batch is than the one before of `batch` rows. One of an index costs about as much as SQLite's look at its
/// rows, so it should not be much larger than what is wanted; if that is many, few searches matter more. A table is read as
/// a whole for each.
fn growth(target: &Target, batch: usize) -> usize {
    match target {
        Target::Table(..) => 64,
        Target::Index(reader) if reader.borrow().answering().is_none() => 64,
        Target::Index(_) if batch >= LARGE => 16,
        Target::Index(_) => 4,
    }
}

/// What is asked.
pub(crate) struct Request {
    pub(crate) target: Target,
    pub(crate) way: Way,
    pub(crate) query: Vector<'static>,
    /// How many rows; `None`: until the statement has enough.
    pub(crate) k: Option<usize>,
    /// How many the statement will take, as far as SQLite tells. A hint.
    pub(crate) limit: Option<usize>,
    /// No row beyond this distance is wanted.
    pub(crate) bound: f64,
    /// Nor one nearer than this.
    pub(crate) floor: f64,
    /// Rowids of which the rows must be, if not all may be.
    pub(crate) among: Option<Arc<RowSet>>,
    /// Whether these are met by a scan of lists even where that is not the cheapest way.
    pub(crate) scan_lists: bool,
    /// Threads; `None`: as many as have enough to do.
    pub(crate) threads: Option<usize>,
    /// SQLite relies on the order.
    pub(crate) ordered: bool,
}

/// A search under way.
#[derive(Default)]
pub(crate) struct Stream {
    request: Option<Request>,
    hits: Vec<Hit>,
    at: usize,
    /// Rows asked for in this batch.
    batch: usize,
    /// Whether nothing can follow this batch.
    last: bool,
    /// Rows given in earlier batches. Rowids, not their number: the statement's owner may change rows between two steps.
    given: FxHashSet<i64>,
    /// Rows still to be given; `None`: all.
    left: Option<usize>,
}

impl Stream {
    /// Begins a search.
    pub(crate) fn start(&mut self, targets: &Targets, mut request: Request) -> Result<()> {
        self.given.clear();
        self.left = None;
        let has_floor = request.floor > f64::NEG_INFINITY;
        let wanted = match (request.k, request.limit) {
            (Some(k), Some(limit)) => Some(k.min(limit)),
            (k, limit) => k.or(limit),
        };
        self.batch = match wanted {
            // Nobody knows how many rows lie below the floor.
            Some(n) if has_floor => n.max(FIRST_BATCH).saturating_mul(2),
            Some(n) => n,
            // A range: all rows within the distance, in one pass.
            None if request.way == Way::Exact && request.bound < f64::INFINITY => usize::MAX,
            None => FIRST_BATCH,
        };
        if request.k.is_none() {
            self.batch = self.batch.max(1);
        }
        if let Some(among) = &request.among {
            let few = among.len() <= FEW && wanted.is_none();
            self.batch = if few {
                among.len()
            } else {
                self.batch.min(among.len())
            };
        }
        if has_floor {
            // Rows below the floor do not count, so there is more than one batch, and they must come in order.
            self.left = request.k.take();
            request.ordered = true;
            // No row may fall between one page and the next.
            request.way = Way::Exact;
            if self.left == Some(0) {
                self.batch = 0;
                self.last = true;
                return Ok(());
            }
        }
        if request.k.is_none() && request.ordered && request.limit.is_none() && self.left.is_none()
        {
            // Later batches must continue where this one ends.
            request.way = Way::Exact;
        }
        self.fetch(targets, request)?;
        self.settle(targets)
    }

    /// Searches the next batch.
    fn fetch(&mut self, targets: &Targets, mut request: Request) -> Result<()> {
        self.at = 0;
        let wanted = Wanted {
            k: self.batch,
            within: request.bound,
            among: request.among.clone(),
            scan_lists: request.scan_lists,
            threads: request.threads,
        };
        self.hits = targets.search_one(&request.target, request.way, &request.query, &wanted)?;
        let short = self.hits.len() < self.batch;
        let beyond = self.hits.last().is_some_and(|h| h.distance > request.bound);
        let all = request
            .among
            .as_ref()
            .is_some_and(|among| self.hits.len() >= among.len());
        self.last = request.k.is_some() || beyond || all || (short && request.way == Way::Exact);
        if short || request.ordered || self.batch >= LARGE {
            // The leaves hold no more, the rows must come in order, or nearly everything is looked at anyway: look at
            // everything from now on.
            request.way = Way::Exact;
        }
        let given = &self.given;
        let fresh = |h: &Hit| given.is_empty() || !given.contains(&h.rowid);
        self.hits
            .retain(|h| h.distance >= request.floor && fresh(h));
        self.request = Some(request);
        Ok(())
    }

    /// Ends the search.
    pub(crate) fn stop(&mut self) {
        *self = Stream::default();
    }

    /// The current row; `None` after the last.
    pub(crate) fn current(&self) -> Option<Hit> {
        let bound = self.request.as_ref()?.bound;
        self.hits
            .get(self.at)
            .copied()
            .filter(|h| h.distance <= bound && self.left != Some(0))
    }

    /// Moves on.
    pub(crate) fn advance(&mut self, targets: &Targets) -> Result<()> {
        self.at += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.settle(targets)
    }

    /// Fetches batches until there is a current row or nothing more.
    fn settle(&mut self, targets: &Targets) -> Result<()> {
        while self.at >= self.hits.len() && !self.last && self.left != Some(0) {
            let Some(request) = self.request.take() else {
                break;
            };
            self.given.extend(self.hits.iter().map(|h| h.rowid));
            let growth = growth(&request.target, self.batch);
            self.batch = self.batch.max(1).saturating_mul(growth);
            self.fetch(targets, request)?;
        }
        Ok(())
    }
}
