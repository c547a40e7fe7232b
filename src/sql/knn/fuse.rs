//! Several rankings made one, and a ranking made diverse.
//!
//! `rrf(rank [, k [, weight]])` is an aggregate: reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009), the sum of
//! `weight / (k + rank)` over the rankings a row is in; rank 1 is the best, `k` is 60. A row that a ranking does not have
//! (NULL) gets nothing from it. It looks at ranks alone, so rankings whose scores mean different things can be fused.
//!
//! `mmr(index, query, k [, options])` is a table function: maximal marginal relevance (Carbonell and Goldstein, 1998). Of the
//! nearest `candidates` it takes, one after the other, the row with the least `lambda * d(query, row) - (1 - lambda) *
//! d(row, the nearest one taken)`; `lambda` 1 is the plain search. With cosine distance that is the paper's formula.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context};
use rusqlite::types::{Value, ValueRef};
use serde::Deserialize;

use super::request::whole_number;
use super::targets::{Target, Targets, Way};
use crate::forest::Budget;
use crate::sql::index::reader::Wanted;
use crate::sql::values::{self, options_error};
use crate::sql::vtab::function::{Function, Scope};
use crate::sql::{PURE, function_error};
use crate::vector::exact;

/// The constant of the paper, which found that its value matters little.
const K: f64 = 60.0;

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for arguments in 1..=3 {
        conn.create_aggregate_function("rrf", arguments, PURE, Rrf)?;
    }
    Ok(())
}

struct Rrf;

impl Rrf {
    fn number(ctx: &Context<'_>, i: usize, what: &str) -> Result<Option<f64>> {
        if i >= ctx.len() {
            return Ok(None);
        }
        match ctx.get_raw(i) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(n) => Ok(Some(n as f64)),
            ValueRef::Real(x) => Ok(Some(x)),
            other => bail!(
                "rrf: {what} must be a number, got {}",
                values::type_name(other)
            ),
        }
    }

    fn add(ctx: &Context<'_>, sum: &mut f64) -> Result<()> {
        let Some(rank) = Self::number(ctx, 0, "rank")? else {
            return Ok(());
        };
        let k = Self::number(ctx, 1, "k")?.unwrap_or(K);
        let weight = Self::number(ctx, 2, "weight")?.unwrap_or(1.0);
        ensure!(
            rank >= 1.0 && k >= 0.0,
            "rrf: expected a rank from 1 up and a k from 0 up, got rank {rank} and k {k}; row_number() gives ranks"
        );
        *sum += weight / (k + rank);
        Ok(())
    }
}

impl Aggregate<f64, f64> for Rrf {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<f64> {
        Ok(0.0)
    }

    fn step(&self, ctx: &mut Context<'_>, sum: &mut f64) -> rusqlite::Result<()> {
        Rrf::add(ctx, sum).map_err(function_error)
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<f64>) -> rusqlite::Result<f64> {
        Ok(sum.unwrap_or(0.0))
    }
}

/// The options of [`Mmr`].
#[derive(Deserialize)]
#[serde(
    default,
    deny_unknown_fields,
    expecting = "a JSON object such as {\"lambda\":0.5, \"candidates\":100}"
)]
struct Options {
    lambda: f64,
    candidates: Option<usize>,
    recall: Option<f32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lambda: 0.5,
            candidates: None,
            recall: None,
        }
    }
}

/// See the module page.
pub(crate) struct Mmr;

impl Function for Mmr {
    const NAME: &'static str = "mmr";
    const COLUMNS: &'static [&'static str] = &["id INTEGER", "distance REAL", "rank INTEGER"];
    const ARGUMENTS: &'static [&'static str] = &["index_name", "query", "k", "options"];
    const REQUIRED: usize = 3;
    const ROWID: Option<usize> = Some(0);
    const ROWS: i64 = 10;
    type Rows = std::vec::IntoIter<Result<Vec<Value>>>;

    fn call(scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let Value::Text(name) = &args[0] else {
            bail!("mmr(index, query, k, options) needs the name of an index as a text");
        };
        let k = whole_number((&args[2]).into())?
            .context("mmr(index, query, k, options) needs k, the number of rows")?;
        let options: Options = match &args[3] {
            Value::Null => Options::default(),
            Value::Text(text) => {
                serde_json::from_str(text).map_err(|e| options_error("mmr", &e))?
            }
            other => bail!("mmr options must be JSON, got {}", other.data_type()),
        };
        ensure!(
            (0.0..=1.0).contains(&options.lambda),
            "mmr: lambda must be from 0 (all different) to 1 (all near), got {}",
            options.lambda
        );
        let budget = match options.recall {
            None => Budget::Default,
            Some(recall) if (0.0..=1.0).contains(&recall) => Budget::Recall(recall),
            Some(recall) => bail!("recall must be from 0 to 1, got {recall}"),
        };
        if matches!(args[1], Value::Null) {
            return Ok(Vec::new().into_iter());
        }
        let targets = Targets::of(&scope.conn, &scope.session)?;
        let reader = targets.index(name)?;
        let target = Target::Index(reader.clone());
        let column = || target.column();
        let query = crate::sql::vector::query((&args[1]).into(), 0, target.element(), column)?;
        let wanted = Wanted {
            k: options
                .candidates
                .unwrap_or(k.saturating_mul(5).max(50))
                .max(k),
            within: f64::INFINITY,
            among: None,
            scan_lists: false,
            threads: None,
        };
        let hits = targets.search_one(&target, Way::Within(budget), &query, &wanted)?;
        let reader = reader.borrow();
        ensure!(
            reader.source().best().is_none(),
            "mmr compares rows by their one vector, and a group of index {name} has several"
        );
        let mut one_row = scope.conn.prepare_cached(reader.one_row())?;
        let vectors = hits
            .iter()
            .map(|hit| {
                let mut vector = Vec::new();
                let source = reader.source();
                source.read_one(&mut one_row, hit.rowid, query.dim(), |v| {
                    vector.extend_from_slice(v);
                })?;
                ensure!(
                    !vector.is_empty(),
                    "row {} has gone while the search ran",
                    hit.rowid
                );
                Ok(vector)
            })
            .collect::<Result<Vec<_>>>()?;
        // The distance of each candidate to the nearest one taken.
        let mut nearest = vec![f64::INFINITY; hits.len()];
        let mut left: Vec<usize> = (0..hits.len()).collect();
        let mut rows = Vec::with_capacity(k.min(hits.len()));
        while rows.len() < k && !left.is_empty() {
            let score = |i: usize| {
                let apart = if rows.is_empty() { 0.0 } else { nearest[i] };
                options.lambda * hits[i].distance - (1.0 - options.lambda) * apart
            };
            let best = (0..left.len())
                .min_by(|&a, &b| score(left[a]).total_cmp(&score(left[b])))
                .ok_or_else(|| anyhow!("mmr: no candidate"))?;
            // The order of those left is that of their distances, which decides between equals.
            let i = left.remove(best);
            for &other in &left {
                let apart = exact::distance(reader.metric(), &vectors[i], &vectors[other]);
                nearest[other] = nearest[other].min(apart);
            }
            rows.push(Ok(vec![
                hits[i].rowid.into(),
                hits[i].distance.into(),
                (rows.len() as i64 + 1).into(),
            ]));
        }
        Ok(rows.into_iter())
    }
}
