//! Vectors into files: `model_export(model, path [, options])` and `vectors_write(path, table, column [, options])`.
//!
//! The file is written beside its place under another name and renamed when it is complete: an error or an interrupt
//! leaves nothing. A file that exists is kept unless `"replace": true` says otherwise. Both return a JSON summary, and are
//! DIRECTONLY, because they write files.
//!
//! | option | is |
//! |---|---|
//! | `format` | as in `model_import`; without it the file's name tells: `.txt` and `.vec`, `.bin`, `.npy`, `.fvecs` |
//! | `vocab` | also writes a file of lines `word count`, which gensim calls fvocab |
//! | `words` | also writes a file of one word a line: for formats without words |
//! | `replace` | whether files of these names may be replaced |

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use rusqlite::Connection;
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::caller::connection;
use super::place::Place;
use super::request::{Surface, options, text};
use crate::embed::formats::{Format, Writer};
use crate::embed::options::Given;
use crate::sql::source::Source;
use crate::sql::values::vector as vector_of;
use crate::sql::{DIRECT, function_error, quote};

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for n_arguments in [2, 3] {
        conn.create_scalar_function("model_export", n_arguments, DIRECT, |ctx| {
            model_export(ctx).map_err(function_error)
        })?;
    }
    for n_arguments in [3, 4] {
        conn.create_scalar_function("vectors_write", n_arguments, DIRECT, |ctx| {
            vectors_write(ctx).map_err(function_error)
        })?;
    }
    Ok(())
}

/// Options of an export.
#[derive(Default)]
struct Wanted {
    format: Option<String>,
    vocab: Option<String>,
    words: Option<String>,
    replace: bool,
}

impl Wanted {
    fn new(mut pairs: Vec<(String, Value)>, names: &[&str]) -> Result<Wanted> {
        let mut wanted = Wanted {
            replace: Surface::take(&mut pairs)?.replace,
            ..Wanted::default()
        };
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                _ if !names.contains(&name.as_str()) => bail!(
                    "unknown option '{name}'. Valid options: {}, replace",
                    names.join(", ")
                ),
                "format" => wanted.format = Some(given.text()?),
                "vocab" => wanted.vocab = Some(given.text()?),
                _ => wanted.words = Some(given.text()?),
            }
        }
        Ok(wanted)
    }

    /// The format to write to `path`, one of `allowed`.
    fn format(&self, path: &str, allowed: &[Format]) -> Result<Format> {
        let format = match &self.format {
            Some(name) => Format::named(name),
            None => Format::of_name(path),
        };
        match format.filter(|f| allowed.contains(f)) {
            Some(format) => Ok(format),
            None => bail!(
                "'{}' tells no format to write: expected the option \"format\" to be one of {}",
                self.format.as_deref().unwrap_or(path),
                allowed
                    .iter()
                    .map(|f| f.name())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }
    }
}

/// A file that appears when it is complete.
pub(crate) struct Pending {
    path: PathBuf,
    partial: PathBuf,
    is_done: bool,
}

impl Pending {
    /// Begins a file that is to appear under `path`.
    pub(crate) fn create(path: &str, replace: bool) -> Result<(Pending, BufWriter<File>)> {
        let path = PathBuf::from(path);
        if !replace && path.symlink_metadata().is_ok() {
            bail!(
                "{} exists: give the option \"replace\": true to write it anew, or choose another name",
                path.display()
            );
        }
        let mut partial = path.clone().into_os_string();
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = PathBuf::from(partial);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .with_context(|| format!("cannot write {}", partial.display()))?;
        let pending = Pending {
            path,
            partial,
            is_done: false,
        };
        Ok((pending, BufWriter::with_capacity(1 << 18, file)))
    }

    /// Lets the file appear; returns its bytes.
    pub(crate) fn publish(mut self, out: BufWriter<File>) -> Result<u64> {
        let file = out.into_inner()?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        std::fs::rename(&self.partial, &self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.is_done = true;
        Ok(bytes)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_done {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

fn model_export(ctx: &Context<'_>) -> Result<String> {
    let conn = connection(ctx)?;
    let model = text(ctx, 0, "model_export", "the name of a model")?;
    let path = text(ctx, 1, "model_export", "the path of a file")?;
    let wanted = Wanted::new(
        options(ctx, 2, "model_export")?,
        &["format", "vocab", "words"],
    )?;
    let format = wanted.format(path, &Format::ALL)?;
    let place = Place::find(&conn, model)?;
    let rows = format!(
        "SELECT word, vector, count FROM {} WHERE vector IS NOT NULL ORDER BY id",
        place.words()
    );
    let mut lists = Vec::new();
    for (path, with_count) in [(&wanted.vocab, true), (&wanted.words, false)] {
        if let Some(path) = path {
            let (pending, out) = Pending::create(path, wanted.replace)?;
            lists.push((pending, out, with_count));
        }
    }
    let summary = write(&conn, &rows, path, format, wanted.replace, |word, count| {
        for (_, out, with_count) in &mut lists {
            match (*with_count, count) {
                (false, _) if word.contains(['\n', '\r']) => {
                    bail!("the word '{}' is no line", word.escape_debug())
                }
                (false, _) => writeln!(out, "{word}")?,
                (true, ValueRef::Integer(n)) => writeln!(out, "{word} {n}")?,
                (true, _) => bail!("the word '{word}' has no count: leave the option vocab out"),
            }
        }
        Ok(())
    })?;
    for (pending, out, _) in lists {
        pending.publish(out)?;
    }
    Ok(summary)
}

fn vectors_write(ctx: &Context<'_>) -> Result<String> {
    let conn = connection(ctx)?;
    let path = text(ctx, 0, "vectors_write", "the path of a file")?;
    let table = text(ctx, 1, "vectors_write", "the name of a table")?;
    let column = text(ctx, 2, "vectors_write", "the name of a column")?;
    let wanted = Wanted::new(options(ctx, 3, "vectors_write")?, &["format"])?;
    let format = wanted.format(path, &[Format::Npy, Format::Fvecs])?;
    let source = Source::find(&conn, table, column)?;
    let (key, vector) = (source.quoted_key(), quote(&source.column));
    let rows = format!(
        "SELECT CAST({key} AS TEXT), {vector}, NULL FROM {} WHERE {vector} IS NOT NULL ORDER BY {key}",
        source.quoted_table()
    );
    write(&conn, &rows, path, format, wanted.replace, |_, _| Ok(()))
}

/// Writes the rows (word, vector, count) of a statement; `each` is told of every word and count.
fn write(
    conn: &Connection,
    sql: &str,
    path: &str,
    format: Format,
    replace: bool,
    mut each: impl FnMut(&str, ValueRef<'_>) -> Result<()>,
) -> Result<String> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut row = rows.next()?;
    // The open statement holds the snapshot that is counted.
    let n: i64 = conn.query_row(&format!("SELECT count(*) FROM ({sql})"), [], |row| {
        row.get(0)
    })?;
    let mut writer = None;
    let mut dim = 0;
    while let Some(found) = row {
        let ValueRef::Text(word) = found.get_ref(0)? else {
            bail!(
                "expected a text as word, got {}",
                found.get_ref(0)?.data_type()
            );
        };
        let word = std::str::from_utf8(word)?;
        let vector =
            vector_of(found.get_ref(1)?).map_err(|e| anyhow!("the vector of '{word}': {e}"))?;
        if writer.is_none() {
            dim = vector.len();
            let (pending, out) = Pending::create(path, replace)?;
            writer = Some((pending, Writer::new(out, format, n as u64, dim)?));
        }
        if let Some((_, writer)) = &mut writer {
            writer.entry(word, &vector)?;
        }
        each(word, found.get_ref(2)?)?;
        row = rows.next()?;
    }
    let Some((pending, writer)) = writer else {
        bail!("there is no vector to write to {path}");
    };
    let bytes = pending.publish(writer.finish()?)?;
    let summary = json!({
        "format": format.name(),
        "vectors": n,
        "vector_size": dim,
        "bytes": bytes,
    });
    Ok(summary.to_string())
}
