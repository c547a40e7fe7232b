//! The arguments of `CREATE VIRTUAL TABLE i USING annoy(table, column, name=value, ...)`.

use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::forest::{MAX_TREES, VectorStore};
use crate::spelling::did_you_mean;
use crate::sql::source::{Combine, element_named};
use crate::vector::{Element, Metric};

/// The metrics of forests.
pub(crate) const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

/// The metrics an index can have: over bits also hamming, and nothing else.
const ALL: [Metric; 4] = [Metric::Cosine, Metric::L2, Metric::Dot, Metric::Hamming];

/// Trees of an index that is not told otherwise. A search that is given a recall (or nothing) scans the first tree's
/// lists, which hold each row where a second tree would have to look for it; further trees cost build time and space
/// and serve only searches that give `search_k`.
const DEFAULT_TREES: u32 = 1;

const NAMES: [&str; 12] = [
    "metric",
    "trees",
    "seed",
    "threads",
    "auto_refresh",
    "type",
    "where",
    "group",
    "combine",
    "storage",
    "store",
    "max_memory",
];

/// Most MiB that may be allowed: a terabyte.
const MAX_MEMORY: u64 = 1 << 20;

/// Most threads that may be asked for.
const MAX_THREADS: usize = 1024;

/// Part of the rows that must have changed for `auto-refresh` to do anything, unless told otherwise.
const DEFAULT_AUTO_REFRESH: f64 = 0.05;

/// How an index is built. Kept in its catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexOptions {
    /// Name of the metric.
    pub(crate) metric: String,
    /// Number of trees.
    pub(crate) trees: u32,
    /// Seed of everything random in the build.
    pub(crate) seed: u64,
    /// Threads of the build; 0: all there are. The file does not depend on it.
    pub(crate) threads: usize,
    /// Part of the rows, 0..=1, that must have changed for the command `auto-refresh` to do anything.
    pub(crate) auto_refresh: f64,
    /// Element type of the column; `None`: as it is declared, float32 if it is not.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) element: Option<String>,
    /// What a row must satisfy to be in the index, as it was written; names may have changed since.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) filter: Option<String>,
    /// The column that says which rows belong together, as it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// What stands for such rows: `best` or `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) combine: Option<String>,
    /// Whether the files are kept in the database, instead of beside it.
    #[serde(default)]
    pub(crate) inline: bool,
    /// How the files hold the vectors: `f16` or `none`; `None`: as float32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// MiB that a build may keep in memory; `None`: as many as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_memory: Option<usize>,
}

impl Default for IndexOptions {
    fn default() -> Self {
        IndexOptions {
            metric: Metric::Cosine.name().to_owned(),
            trees: DEFAULT_TREES,
            seed: 1,
            threads: 0,
            auto_refresh: DEFAULT_AUTO_REFRESH,
            element: None,
            filter: None,
            group: None,
            combine: None,
            inline: false,
            store: None,
            max_memory: None,
        }
    }
}

impl IndexOptions {
    /// As a catalogue keeps them.
    ///
    /// # Errors
    /// What CREATE would have refused: the catalogue may be anybody's.
    pub(crate) fn from_json(json: &str) -> Result<IndexOptions> {
        let options: IndexOptions = serde_json::from_str(json)?;
        if !(1..=MAX_TREES).contains(&options.trees) || options.threads > MAX_THREADS {
            bail!("trees must be 1 to {MAX_TREES}, and threads 0 to {MAX_THREADS}");
        }
        options.metric()?;
        options.element()?;
        options.combine()?;
        options.store()?;
        Ok(options)
    }

    /// The metric.
    pub(crate) fn metric(&self) -> Result<Metric> {
        Metric::parse(&self.metric, &ALL)
    }

    /// The metric of the forests, which hold bits as numbers 0 and 1: hamming is the square of l2 among them.
    pub(crate) fn forest_metric(&self) -> Result<Metric> {
        Ok(match self.metric()? {
            Metric::Hamming => Metric::L2,
            metric => metric,
        })
    }

    /// What stands for rows that belong together.
    pub(crate) fn combine(&self) -> Result<Combine> {
        match self.combine.as_deref() {
            None | Some("best") => Ok(Combine::Best),
            Some("mean") => Ok(Combine::Mean),
            Some(other) => bail!("combine must be best or mean, got {other}"),
        }
    }

    /// How the files hold the vectors.
    pub(crate) fn store(&self) -> Result<VectorStore> {
        let store = self.store.as_deref();
        store.map_or(Ok(VectorStore::F32), VectorStore::parse)
    }

    /// The element type, if it was given.
    pub(crate) fn element(&self) -> Result<Option<Element>> {
        self.element.as_deref().map(parse_element).transpose()
    }
}

fn parse_element(name: &str) -> Result<Element> {
    element_named(name).ok_or_else(|| {
        anyhow!("unknown type '{name}': expected one of float32, float16, int8, bit")
    })
}

/// What CREATE VIRTUAL TABLE says.
#[derive(Debug, PartialEq)]
pub(crate) struct Declaration {
    pub(crate) table: String,
    pub(crate) column: String,
    /// `None`: not given.
    metric: Option<Metric>,
    options: IndexOptions,
}

impl Declaration {
    /// Reads the arguments as SQLite passes them: raw text, quotes included.
    pub(crate) fn parse(args: &[&str]) -> Result<Declaration> {
        let (&[table, column], rest) = args.split_first_chunk::<2>().ok_or_else(|| {
            anyhow!(
                "annoy needs a table and a column: CREATE VIRTUAL TABLE i USING annoy(table, column, metric=cosine, \
                 trees=10)"
            )
        })?;
        let (mut options, mut metric) = (IndexOptions::default(), None);
        let mut given = Vec::new();
        for arg in rest {
            let Some((name, value)) = arg.split_once('=') else {
                bail!(
                    "expected name=value, got '{}'; the options are {}",
                    arg.trim(),
                    NAMES.join(", ")
                );
            };
            let (name, value) = (name.trim(), unquote(value));
            if given.contains(&name.to_ascii_lowercase()) {
                bail!("the option {name} is given twice; leave one out");
            }
            given.push(name.to_ascii_lowercase());
            match name.to_ascii_lowercase().as_str() {
                "metric" => {
                    metric = Some(Metric::parse(&value, &ALL)?);
                }
                "trees" => options.trees = number(name, &value, 1, u64::from(MAX_TREES))? as u32,
                "seed" => options.seed = number(name, &value, 0, i64::MAX as u64)?,
                "threads" => {
                    options.threads = number(name, &value, 0, MAX_THREADS as u64)? as usize;
                }
                "auto_refresh" => {
                    options.auto_refresh = match value.parse::<f64>() {
                        Ok(part) if (0.0..=1.0).contains(&part) => part,
                        _ => bail!("auto_refresh must be a number from 0 to 1, got {value}"),
                    }
                }
                "type" => options.element = Some(parse_element(&value)?.name().to_owned()),
                "where" if value.trim().is_empty() => bail!(
                    "where needs an expression over the table's columns, as in where='lang = ''en'''"
                ),
                "where" => options.filter = Some(value),
                "group" => options.group = Some(value),
                "combine" => {
                    options.combine = Some(value.to_ascii_lowercase());
                    options.combine()?;
                }
                "storage" => {
                    options.inline = match value.to_ascii_lowercase().as_str() {
                        "file" => false,
                        "inline" => true,
                        _ => bail!("storage must be 'file' or 'inline', got '{value}'"),
                    }
                }
                "store" => {
                    let store = VectorStore::parse(&value)?;
                    options.store = (store != VectorStore::F32).then(|| store.name().to_owned());
                }
                "max_memory" => {
                    options.max_memory = Some(number(name, &value, 1, MAX_MEMORY)? as usize);
                }
                _ => bail!(
                    "unknown option '{name}': the options are {}{}",
                    NAMES.join(", "),
                    did_you_mean(name, NAMES)
                ),
            }
        }
        Ok(Declaration {
            table: unquote(table),
            column: unquote(column),
            metric,
            options,
        })
    }

    /// The options, for a column that is declared to be of this element type.
    pub(crate) fn options(&self, declared: Option<Element>) -> Result<IndexOptions> {
        let mut options = self.options.clone();
        let element = match (options.element()?, declared) {
            (Some(given), Some(declared)) if given != declared => bail!(
                "column {} is declared to be of type {}, and type={} says otherwise; leave the option out",
                self.column,
                declared.name(),
                given.name()
            ),
            (given, declared) => given.or(declared).unwrap_or(Element::F32),
        };
        let of_bits = element == Element::Bit;
        if options.combine.is_some() && options.group.is_none() {
            bail!("combine says what stands for rows that belong together: give group=column, too");
        }
        if options.combine()? == Combine::Mean && element != Element::F32 {
            bail!(
                "combine=mean needs float32 vectors, and column {} has {}",
                self.column,
                element.name()
            );
        }
        let metric = match self.metric {
            None if of_bits => Metric::Hamming,
            None => Metric::Cosine,
            Some(metric) if (metric == Metric::Hamming) == of_bits => metric,
            Some(metric) if of_bits => bail!(
                "an index over bit vectors has metric=hamming, got {}",
                metric.name()
            ),
            Some(_) => bail!(
                "metric=hamming needs bit vectors, and column {} has {}; make them with vec_quantize_binary, or declare \
                 type=bit",
                self.column,
                element.name()
            ),
        };
        options.metric = metric.name().to_owned();
        Ok(options)
    }
}

fn number(name: &str, value: &str, least: u64, most: u64) -> Result<u64> {
    match value.parse::<u64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => bail!("{name} must be an integer from {least} to {most}, got {value}"),
    }
}

/// A name or value without the quotes SQL allows around it.
fn unquote(text: &str) -> String {
    let text = text.trim();
    for (open, close) in [('"', '"'), ('\'', '\''), ('`', '`'), ('[', ']')] {
        if let Some(inner) = text
            .strip_prefix(open)
            .and_then(|rest| rest.strip_suffix(close))
        {
            let double: String = [close, close].iter().collect();
            return if open == '[' {
                inner.to_owned()
            } else {
                inner.replace(&double, &close.to_string())
            };
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_quoted_or_bare() {
        let d =
            Declaration::parse(&["\"my \"\"table\"", " [v] ", "Metric = 'L2'", "trees=3"]).unwrap();
        assert_eq!(d.table, "my \"table");
        assert_eq!(d.column, "v");
        assert_eq!(d.options(None).unwrap().metric, "l2");
        assert_eq!(d.options.trees, 3);
    }

    #[test]
    fn bad_options_say_what_is_expected() {
        let message = |args: &[&str]| Declaration::parse(args).unwrap_err().to_string();
        for bad in ["0", "-5", "NULL", "ten", "1.5", "10001", ""] {
            let arg = format!("trees={bad}");
            assert_eq!(
                message(&["t", "v", &arg]),
                format!("trees must be an integer from 1 to 10000, got {bad}")
            );
        }
        assert_eq!(
            message(&["t", "v", "tree=5"]),
            "unknown option 'tree': the options are metric, trees, seed, threads, auto_refresh, type, where, group, combine, storage, store, max_memory; did you mean 'trees'?"
        );
        assert_eq!(
            message(&["t", "v", "metric=manhattan"]),
            "unknown metric 'manhattan': expected one of cosine, l2, dot, hamming"
        );
        assert_eq!(
            message(&["t", "v", "10"]),
            "expected name=value, got '10'; the options are metric, trees, seed, threads, auto_refresh, type, where, group, combine, storage, store, max_memory"
        );
        assert!(message(&["t"]).starts_with("annoy needs a table and a column"));
    }
}
