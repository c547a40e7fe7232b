//! The arguments of a search: from SQL values to a request.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use rusqlite::types::{Value, ValueRef};
use serde::Deserialize;

use super::bits;
use super::stream::Request;
use super::targets::{Target, Targets, Way};
use crate::forest::{Budget, RowSet};
use crate::sql::index::Reader;
use crate::sql::values::{options_error, whole};
use crate::sql::vector;
use crate::sql::vtab::Args;
use crate::sql::work;
use crate::vector::{Element, Metric};

/// The values a plan asked for: those of the arguments it has (names of what is searched, query, k, options), in their
/// order, then LIMIT, OFFSET, bounds and sets ([`bits`]).
pub(crate) struct QueryArgs<'a> {
    number: i32,
    args: &'a Args<'a>,
    /// How many arguments are names.
    names: usize,
    /// How the function is called, for messages.
    usage: &'static str,
}

/// Many queries at once.
pub(super) struct Batch {
    pub(super) target: Target,
    pub(super) way: Way,
    pub(super) dim: usize,
    /// The queries, one after the other.
    pub(super) components: Vec<f32>,
    pub(super) k: usize,
    pub(super) threads: Option<usize>,
}

/// `k`: a whole number from 0 on; NULL is the same as none.
pub(super) fn whole_number(value: ValueRef<'_>) -> Result<Option<usize>> {
    match whole(value) {
        ValueRef::Null => Ok(None),
        ValueRef::Integer(n) => match usize::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => bail!("k value in knn queries must be greater than or equal to 0, got {n}"),
        },
        ValueRef::Real(x) => bail!("k value in knn queries must be an integer, got {x}"),
        ValueRef::Text(text) => bail!(
            "k value in knn queries must be an integer, got the text '{}'",
            String::from_utf8_lossy(text)
        ),
        ValueRef::Blob(_) => bail!("k value in knn queries must be an integer, got a blob"),
    }
}

impl<'a> QueryArgs<'a> {
    pub(crate) fn new(number: i32, args: &'a Args<'a>, names: usize, usage: &'static str) -> Self {
        QueryArgs {
            number,
            args,
            names,
            usage,
        }
    }

    /// The value that belongs to a bit of the plan, if the plan has it.
    fn given(&self, bit: i32) -> Option<ValueRef<'a>> {
        (self.number & bit != 0).then(|| self.args.get(self.place(bit)))
    }

    /// Where it is among the values.
    fn place(&self, bit: i32) -> usize {
        (self.number & (bit - 1)).count_ones() as usize
    }

    /// The subtype of the query.
    fn subtype(&self) -> u32 {
        let bit = 1 << self.names;
        self.given(bit)
            .map_or(0, |_| self.args.subtype(self.place(bit)))
    }

    /// Argument `i`; NULL when it is missing.
    fn argument(&self, i: usize) -> ValueRef<'a> {
        self.given(1 << i).unwrap_or(ValueRef::Null)
    }

    /// Copies of all arguments, to be given back: where a WHERE has an OR, SQLite asks for the columns that they are.
    pub(super) fn copies(&self) -> Result<Vec<Value>> {
        (0..self.names + 3)
            .map(|i| Ok(self.argument(i).try_into()?))
            .collect()
    }

    /// A name: a text, or an error that shows how the function is called.
    fn name(&self, i: usize, what: &str) -> Result<&'a str> {
        match self.argument(i) {
            ValueRef::Text(text) => Ok(std::str::from_utf8(text)?),
            ValueRef::Null => bail!("{} needs the name of {what}", self.usage),
            other => bail!(
                "{} needs the name of {what} as a text, got {}",
                self.usage,
                other.data_type()
            ),
        }
    }

    /// The options.
    fn options(&self) -> ValueRef<'a> {
        self.argument(self.names + 2)
    }

    /// The request; `None` for a query vector that is NULL: it has no neighbours.
    fn request(&self, target: Target, way: Way) -> Result<Option<Request>> {
        let k = whole_number(self.argument(self.names + 1))?;
        let query = match self.given(1 << self.names) {
            None => bail!("{} needs a query vector", self.usage),
            Some(ValueRef::Null) => return Ok(None),
            Some(value) => {
                vector::query(value, self.subtype(), target.element(), || target.column())?
            }
        };
        // Every number is smaller than a text or blob, and none than NULL: SQLite checks the terms itself.
        let number = |bit, otherwise| match self.given(bit) {
            Some(ValueRef::Real(x)) => x,
            Some(ValueRef::Integer(n)) => n as f64,
            _ => otherwise,
        };
        let bound = number(bits::BOUND, f64::INFINITY);
        let mut floor = number(bits::FLOOR, f64::NEG_INFINITY);
        if self.number & bits::ABOVE != 0 && floor.is_finite() {
            floor = floor.next_up();
        }
        let mut among: Option<RowSet> = None;
        for i in 0..bits::SETS {
            let bit = bits::SET << i;
            if self.number & bit != 0 {
                let set = RowSet::new(self.args.set(self.place(bit))?);
                among = Some(match among {
                    Some(other) => other.and(&set),
                    None => set,
                });
            }
        }
        let count = |bit| match self.given(bit) {
            Some(ValueRef::Integer(n)) => usize::try_from(n).ok(),
            _ => None,
        };
        let offset = count(bits::OFFSET).unwrap_or(0);
        Ok(Some(Request {
            target,
            way,
            query,
            k,
            limit: count(bits::LIMIT).map(|limit| limit.saturating_add(offset)),
            bound,
            floor,
            among: among.map(Arc::new),
            scan_lists: false,
            threads: None,
            ordered: self.number & bits::ORDERED != 0,
        }))
    }

    /// `knn_exact(table, column, query, k, options)`.
    pub(crate) fn exact(&self, targets: &Targets) -> Result<Option<Request>> {
        let table = self.name(0, "a table")?;
        let column = self.name(1, "a column")?;
        let options = ExactOptions::parse(self.options())?;
        let element = vector::element_of_blob(self.argument(2), self.subtype());
        let target = targets.column(table, column, options.metric, element)?;
        let Some(mut request) = self.request(target, Way::Exact)? else {
            return Ok(None);
        };
        request.threads = options.threads;
        Ok(Some(request))
    }

    /// `knn_annoy(index, query, k, options)`.
    pub(crate) fn annoy(&self, targets: &Targets) -> Result<Option<Request>> {
        let reader = targets.index(self.name(0, "an index")?)?;
        self.index(reader)
    }

    /// The MATCH form: everything but the name of the index.
    pub(crate) fn index(&self, reader: Rc<RefCell<Reader>>) -> Result<Option<Request>> {
        let options = AnnoyOptions::parse(self.options())?;
        let request = self.request(Target::Index(reader), Way::Within(options.budget))?;
        Ok(request.map(|request| Request {
            threads: options.threads,
            scan_lists: options.scan_lists,
            ..request
        }))
    }

    /// `knn_exact_batch(table, column, queries, k, options)`.
    pub(super) fn exact_batch(&self, targets: &Targets) -> Result<Batch> {
        let options = ExactOptions::parse(self.options())?;
        let (table, column) = (self.name(0, "a table")?, self.name(1, "a column")?);
        // Queries packed together do not say what they are: the declaration must.
        let target = targets.column(table, column, options.metric, None)?;
        self.batch(targets, target, Way::Exact, options.threads)
    }

    /// `knn_annoy_batch(index, queries, k, options)`.
    pub(super) fn annoy_batch(&self, targets: &Targets) -> Result<Batch> {
        let AnnoyOptions {
            budget, threads, ..
        } = AnnoyOptions::parse(self.options())?;
        let target = Target::Index(targets.index(self.name(0, "an index")?)?);
        self.batch(targets, target, Way::Within(budget), threads)
    }

    fn batch(
        &self,
        targets: &Targets,
        target: Target,
        way: Way,
        threads: Option<usize>,
    ) -> Result<Batch> {
        let Some(k) = whole_number(self.argument(self.names + 1))? else {
            bail!(
                "{} needs k, the number of neighbours of each query",
                self.usage
            );
        };
        let dim = match self.argument(self.names) {
            ValueRef::Blob(_) => targets.dim(&target)?,
            _ => None,
        };
        let column = target.column();
        let element = target.element().unwrap_or(Element::F32);
        let (dim, components) = vector::queries(
            self.argument(self.names),
            self.subtype(),
            element,
            dim,
            &column,
        )?;
        Ok(Batch {
            target,
            way,
            dim,
            components,
            k,
            threads,
        })
    }
}

/// The options of `knn_exact` and its like.
pub(super) struct ExactOptions {
    pub(super) metric: Option<Metric>,
    /// `None`: as many as have enough to do.
    pub(super) threads: Option<usize>,
}

impl ExactOptions {
    pub(super) fn parse(value: ValueRef<'_>) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(
            deny_unknown_fields,
            expecting = "a JSON object such as {\"metric\":\"l2\"}"
        )]
        struct Json {
            metric: Option<String>,
            threads: Option<i64>,
        }
        let json: Json = match value {
            ValueRef::Null => Json {
                metric: None,
                threads: None,
            },
            ValueRef::Text(text) => {
                serde_json::from_slice(text).map_err(|e| options_error("knn_exact", &e))?
            }
            other => bail!(
                "knn_exact options must be JSON such as {{\"metric\":\"l2\"}}, got {}",
                other.data_type()
            ),
        };
        Ok(ExactOptions {
            metric: match json.metric {
                Some(name) => Some(Metric::parse(&name, &Metric::ALL)?),
                None => None,
            },
            threads: threads(json.threads)?,
        })
    }
}

/// The option `threads`: 1 to 1024; 0 as in an index, all there are.
fn threads(given: Option<i64>) -> Result<Option<usize>> {
    match given {
        None => Ok(None),
        Some(n @ 0..=1024) => Ok(Some(work::threads(n as usize))),
        Some(n) => bail!("threads must be an integer from 0 to 1024, got {n}"),
    }
}

/// The options of `knn_annoy`: a number is `search_k`.
pub(crate) fn budget(value: ValueRef<'_>) -> Result<Budget> {
    Ok(AnnoyOptions::parse(value)?.budget)
}

/// The options of `knn_annoy` and its like.
pub(super) struct AnnoyOptions {
    /// How much to look at.
    pub(super) budget: Budget,
    /// `None`: as many as have enough to do.
    pub(super) threads: Option<usize>,
    /// Whether a set of rowids is met by a scan of lists even where that is not the cheapest way (`"filter":"scan"`).
    pub(super) scan_lists: bool,
}

impl AnnoyOptions {
    /// A number is `search_k`.
    pub(super) fn parse(value: ValueRef<'_>) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(
            deny_unknown_fields,
            expecting = "a JSON object such as {\"search_k\":5000} or {\"recall\":0.99}"
        )]
        struct Json {
            search_k: Option<usize>,
            recall: Option<f32>,
            threads: Option<i64>,
            filter: Option<String>,
        }
        let json: Json = match whole(value) {
            ValueRef::Null => Json::default(),
            ValueRef::Integer(n) => Json {
                search_k: Some(
                    usize::try_from(n)
                        .map_err(|_| anyhow!("search_k must be 0 or more, got {n}"))?,
                ),
                ..Json::default()
            },
            ValueRef::Text(text) => {
                serde_json::from_slice(text).map_err(|e| options_error("knn_annoy", &e))?
            }
            other => bail!(
                "knn_annoy options must be search_k or JSON such as {{\"search_k\":5000}}, got {}",
                other.data_type()
            ),
        };
        let budget = match (json.search_k, json.recall) {
            (Some(_), Some(_)) => bail!("knn_annoy options: give search_k or recall, not both"),
            (Some(n), None) => Budget::SearchK(n),
            (None, Some(r)) if (0.0..=1.0).contains(&r) => Budget::Recall(r),
            (None, Some(r)) => bail!("recall must be from 0 to 1, got {r}"),
            (None, None) => Budget::Default,
        };
        Ok(AnnoyOptions {
            budget,
            threads: threads(json.threads)?,
            scan_lists: match json.filter.as_deref() {
                None | Some("auto") => false,
                Some("scan") => true,
                Some(other) => {
                    bail!("knn_annoy options: filter must be 'auto' or 'scan', got '{other}'")
                }
            },
        })
    }
}
