//! `annoy_stats()`: what the last search of this connection did, as rows (key, value).
//!
//! A search notes its numbers when it ends; the function shows those of the one before it. Each call of a search counts, and
//! so does each batch of one without `k`.

use std::time::Duration;

use anyhow::Result;
use rusqlite::types::Value;

use crate::forest::Stats;
use crate::sql::vtab::function::{Function, Scope};

/// A search that has ended.
#[derive(Debug, Clone)]
pub(crate) struct LastSearch {
    /// What answered: `index`, `index, exactly`, or `table`; `index, rows of the filter` or `table, rows of the filter` when
    /// the rows of a filter were looked up one by one.
    pub(crate) by: &'static str,
    /// How many query vectors.
    pub(crate) queries: usize,
    /// Rows of the answer.
    pub(crate) answers: usize,
    pub(crate) stats: Stats,
    /// From the arguments to the answer, without what SQLite does around it.
    pub(crate) took: Duration,
}

impl LastSearch {
    fn rows(&self) -> Vec<(&'static str, Value)> {
        let count = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let s = &self.stats;
        vec![
            ("answered_by", Value::Text(self.by.to_owned())),
            ("queries", count(self.queries as u64)),
            ("answers", count(self.answers as u64)),
            ("rows", count(s.rows)),
            ("left_out_by_radius", count(s.left_out_by_radius)),
            ("left_out_by_4_bits", count(s.left_out_by_nibbles)),
            ("left_out_by_8_bits", count(s.left_out_by_bytes)),
            ("left_out_by_floats", count(s.left_out_by_floats)),
            ("left_out_by_filter", count(s.left_out_by_filter)),
            ("rows_of_the_filter", count(s.by_position)),
            ("leaves", count(s.leaves)),
            ("codes", count(s.codes)),
            ("second_looks", count(s.by_code)),
            ("reranked", count(s.reranked)),
            ("bytes_read", count(s.bytes_read)),
            ("microseconds", Value::Real(self.took.as_secs_f64() * 1e6)),
        ]
    }
}

/// The table function.
pub(crate) struct LastStats;

impl Function for LastStats {
    const NAME: &'static str = "annoy_stats";
    const COLUMNS: &'static [&'static str] = &["key TEXT", "value"];
    const ARGUMENTS: &'static [&'static str] = &[];
    const REQUIRED: usize = 0;
    const ROWS: i64 = 16;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, _args: &[Value]) -> Result<Self::Rows> {
        let rows: Vec<_> = scope
            .session
            .last_search()
            .map_or_else(Vec::new, |search| search.rows())
            .into_iter()
            .map(|(key, value)| Ok(vec![Value::Text(key.to_owned()), value]))
            .collect();
        Ok(rows.into_iter())
    }
}
