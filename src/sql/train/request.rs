//! What a training function is asked: `name(model, table, column [, options])`.

use anyhow::{Result, bail};
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use serde_json::Value;

use crate::embed::strict_json;
use crate::sql::Session;
use crate::sql::work::Display;

/// The arguments of a training function.
pub(super) struct Request<'a> {
    pub(super) model: &'a str,
    pub(super) table: &'a str,
    pub(super) column: &'a str,
    /// The options of the training itself.
    pub(super) pairs: Vec<(String, Value)>,
    pub(super) surface: Surface,
}

impl<'a> Request<'a> {
    /// Reads the arguments of a call of `function`.
    ///
    /// # Errors
    /// An argument that is no text, or options that are no JSON object.
    pub(super) fn new(ctx: &'a Context<'_>, function: &str) -> Result<Request<'a>> {
        let mut pairs = options(ctx, 3, function)?;
        let surface = Surface::take(&mut pairs)?;
        Ok(Request {
            model: text(ctx, 0, function, "the name of a model")?,
            table: text(ctx, 1, function, "the name of a table")?,
            column: text(ctx, 2, function, "the name of a column")?,
            pairs,
            surface,
        })
    }
}

/// Argument `i` of a call of `function`, which must be a text.
pub(crate) fn text<'a>(
    ctx: &'a Context<'_>,
    i: usize,
    function: &str,
    what: &str,
) -> Result<&'a str> {
    match ctx.get_raw(i) {
        ValueRef::Text(text) => Ok(std::str::from_utf8(text)?),
        other => bail!(
            "{function}: expected {what} as argument {}, got {}",
            i + 1,
            other.data_type()
        ),
    }
}

/// The options in argument `i`; none if it is NULL or missing.
pub(crate) fn options(ctx: &Context<'_>, i: usize, function: &str) -> Result<Vec<(String, Value)>> {
    if ctx.len() <= i || ctx.get_raw(i) == ValueRef::Null {
        return Ok(Vec::new());
    }
    strict_json::object(text(ctx, i, function, "options as JSON text")?)
}

/// What is asked for beside the training itself.
#[derive(Debug, Default)]
pub(crate) struct Surface {
    /// Train a model of that name anew, write over a file.
    pub(crate) replace: bool,
    /// Where progress is shown, if not where `annoy_progress` says.
    progress: Option<Display>,
}

impl Surface {
    /// Where progress is shown.
    pub(crate) fn display(&self, session: &Session) -> Display {
        self.progress.unwrap_or_else(|| session.display())
    }

    /// The names of its options.
    pub(crate) const NAMES: [&'static str; 2] = ["replace", "progress"];

    /// Takes its own options out of those given.
    pub(crate) fn take(pairs: &mut Vec<(String, Value)>) -> Result<Surface> {
        let mut surface = Surface::default();
        let mut rest = Vec::new();
        for (name, value) in pairs.drain(..) {
            match name.as_str() {
                "replace" => match (&value, value.as_u64()) {
                    (Value::Bool(flag), _) => surface.replace = *flag,
                    (_, Some(n @ 0..=1)) => surface.replace = n == 1,
                    _ => bail!("option 'replace': expected false or true, got {value}"),
                },
                "progress" => match value.as_str().map(Display::parse) {
                    Some(Ok(display)) => surface.progress = Some(display),
                    _ => bail!("option 'progress': expected \"stderr\" or \"off\", got {value}"),
                },
                _ => rest.push((name, value)),
            }
        }
        *pairs = rest;
        Ok(surface)
    }
}
