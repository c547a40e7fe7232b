//! Groups of rows, each as near as its nearest row (`annoy(chunks, v, group=doc_id)`).
//!
//! Rows are searched, and the first of each group counts. If that leaves fewer groups than wanted, more rows are searched:
//! documents are often near with several of their parts. Which group a row belongs to is looked up in the table, in the
//! snapshot of the statement, so nothing else has to follow when it changes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use rusqlite::OptionalExtension;
use rusqlite::types::Value;
use rustc_hash::FxHashSet;

use super::targets::{Target, Targets, Way};
use crate::forest::{Hit, RowSet};
use crate::sql::index::Reader;
use crate::sql::index::reader::Wanted;

/// Rows searched for each group wanted, at first.
const ROWS_EACH: usize = 3;
/// How many times more are searched when they were too few.
const GROWTH: usize = 4;

impl Targets {
    /// The nearest groups; hits have the group in place of the rowid. Ties by group.
    pub(super) fn search_groups(
        &self,
        target: &Target,
        reader: &Rc<RefCell<Reader>>,
        mut way: Way,
        query: &[f32],
        wanted: &Wanted,
    ) -> Result<Vec<Hit>> {
        let [group_of, rows_of] = {
            let reader = reader.borrow();
            let source = reader.source();
            match source.best() {
                Some(group) => source.of_groups(group),
                None => return Ok(Vec::new()),
            }
        };
        if wanted.k == 0 {
            return Ok(Vec::new());
        }
        let conn = self.connection();
        let among = match &wanted.among {
            Some(groups) => {
                let mut rows_of = conn.prepare_cached(&rows_of)?;
                let mut rows: Vec<i64> = Vec::new();
                for group in groups.ids() {
                    for row in rows_of.query_map([group], |row| row.get(0))? {
                        rows.push(row?);
                    }
                }
                Some(Arc::new(RowSet::new(rows)))
            }
            None => None,
        };
        let mut group_of = conn.prepare_cached(&group_of)?;
        let mut of_rows = Wanted {
            k: wanted.k.saturating_mul(ROWS_EACH),
            among,
            ..wanted.clone()
        };
        loop {
            let mut found = self.search_rows(target, way, &[query], &of_rows)?;
            let rows = found.pop().unwrap_or_default();
            let mut groups: Vec<Hit> = Vec::new();
            let mut seen = FxHashSet::default();
            for hit in &rows {
                let group: Option<Value> = group_of
                    .query_row([hit.rowid], |row| row.get(0))
                    .optional()?;
                if let Some(Value::Integer(group)) = group
                    && seen.insert(group)
                {
                    groups.push(Hit {
                        rowid: group,
                        distance: hit.distance,
                    });
                }
            }
            // A row as far away as the last group may belong to one that comes before it.
            let last = groups.get(wanted.k - 1).map(|hit| hit.distance);
            let whole = last
                .zip(rows.last())
                .is_some_and(|(last, row)| row.distance > last);
            let no_more = rows.len() < of_rows.k;
            if whole || (no_more && way == Way::Exact) {
                groups.sort_by(|a, b| {
                    a.distance
                        .total_cmp(&b.distance)
                        .then(a.rowid.cmp(&b.rowid))
                });
                groups.truncate(wanted.k);
                return Ok(groups);
            }
            if no_more {
                way = Way::Exact;
            } else {
                of_rows.k = of_rows.k.saturating_mul(GROWTH);
            }
        }
    }
}
