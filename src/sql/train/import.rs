//! Vectors from files: `model_import(model, path [, options])` and `vectors_read(path [, format])`.
//!
//! A file of words and vectors becomes a model: `SELECT model_import('glove', 'glove.6B.50d.txt')`. Ids count from 0 in
//! the file's order, which is the order of frequency in the files that people share. Of a word that comes twice the first
//! counts, as in gensim; the summary tells how many were left out. Formats and what tells them apart: `embed::formats`.
//!
//! | option | is |
//! |---|---|
//! | `format` | `word2vec`, `word2vec-binary`, `glove`, `npy`, `fvecs`, or `fasttext`, the original program's `.bin`; without it the file's name and first bytes tell |
//! | `vocab` | a file of lines `word count` (gensim's fvocab): the counts; without it they are NULL |
//! | `words` | a file of one word a line: for formats without words |
//! | `limit` | at most so many vectors |
//! | `tokenizer`, `lowercase` | how `text_vector` splits a text; by default at white space, letters as they are |
//! | `replace` | whether a model of that name may be replaced |
//!
//! One transaction: a broken file leaves nothing. Both are DIRECTONLY, because they read files.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use rusqlite::functions::Context;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params};
use rustc_hash::FxHashMap;
use serde_json::{Value, json};

use super::caller::connection;
use super::fasttext;
use super::place::Place;
use super::request::{Surface, options, text};
use super::savepoint::all_or_nothing;
use super::store::{self, bytes_of};
use crate::embed::fasttext::facebook;
use crate::embed::formats::{Entry, Format, Reader};
use crate::embed::options::{Given, Options};
use crate::sql::vtab::function::{Function, Scope};
use crate::sql::{DIRECT, function_error};

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    for n_arguments in [2, 3] {
        conn.create_scalar_function("model_import", n_arguments, DIRECT, |ctx| {
            import(ctx).map_err(function_error)
        })?;
    }
    Ok(())
}

/// Opens a file, or says where it was looked for.
pub(super) fn open(path: &str) -> Result<BufReader<File>> {
    let file = File::open(path).with_context(|| {
        let here = std::env::current_dir().unwrap_or_default();
        format!(
            "cannot open '{path}' (give a full path, or one relative to {})",
            here.display()
        )
    })?;
    Ok(BufReader::with_capacity(1 << 18, file))
}

/// The format of this name, or that a file's name ends with; for `.txt`, `.vec` and `.bin` the content decides.
fn format_of(name: Option<&str>, path: &str) -> Result<Option<Format>> {
    match name {
        Some(name) => match Format::named(name) {
            Some(format) => Ok(Some(format)),
            None => bail!(
                "unknown format '{name}': expected one of {} (or {FASTTEXT}, for model_import)",
                Format::ALL.map(Format::name).join(", ")
            ),
        },
        None => Ok(Format::of_name(path).filter(|f| !f.has_words())),
    }
}

/// Options of an import.
#[derive(Default)]
struct Wanted {
    format: Option<String>,
    vocab: Option<String>,
    words: Option<String>,
    limit: Option<usize>,
    /// Those of the tokenizer, for [`Options`].
    rest: Vec<(String, Value)>,
}

impl Wanted {
    const NAMES: &'static str =
        "format, vocab, words, limit, tokenizer, lowercase, replace, progress";

    fn new(pairs: Vec<(String, Value)>) -> Result<Wanted> {
        let mut wanted = Wanted::default();
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                "format" => wanted.format = Some(given.text()?),
                "vocab" => wanted.vocab = Some(given.text()?),
                "words" => wanted.words = Some(given.text()?),
                "limit" => wanted.limit = given.limit()?,
                "tokenizer" | "lowercase" => wanted.rest.push((name, value)),
                _ => bail!("unknown option '{name}'. Valid options: {}", Wanted::NAMES),
            }
        }
        if !wanted.rest.iter().any(|(name, _)| name == "lowercase") {
            wanted.rest.push(("lowercase".to_owned(), json!(0)));
        }
        Ok(wanted)
    }
}

fn import(ctx: &Context<'_>) -> Result<String> {
    let began = Instant::now();
    let conn = connection(ctx)?;
    let model = text(ctx, 0, "model_import", "the name of a model")?;
    let path = text(ctx, 1, "model_import", "the path of a file")?;
    let mut pairs = options(ctx, 2, "model_import")?;
    let surface = Surface::take(&mut pairs)?;
    let wanted = Wanted::new(pairs)?;
    let place = Place::for_new(&conn, model)?;
    store::check_free(&conn, &place, surface.replace)?;

    let in_file = || format!("model_import: '{path}'");
    let mut file = open(path).context("model_import")?;
    let is_fasttext = match wanted.format.as_deref() {
        Some(name) => name == FASTTEXT,
        None => format_of(None, path)?.is_none() && facebook::is_facebook(file.fill_buf()?),
    };
    if is_fasttext {
        return import_fasttext(&conn, &place, file, &wanted, surface.replace)
            .with_context(in_file);
    }
    let format = format_of(wanted.format.as_deref(), path)?;
    let reader = Reader::new(file, format).with_context(in_file)?;
    let format = reader.format();
    let counts = wanted
        .vocab
        .as_deref()
        .map(|path| counts(path).with_context(|| format!("model_import: '{path}'")))
        .transpose()?;
    let mut words = match &wanted.words {
        Some(path) if !format.has_words() => Some((path, open(path)?.lines())),
        Some(_) => bail!(
            "option 'words': expected a format without words, got {}; leave the option out",
            format.name()
        ),
        None if !format.has_words() => bail!(
            "{} has no words: expected the option \"words\" with the path of a file of one word a line; or read the \
             vectors alone by vectors_read('{path}')",
            format.name()
        ),
        None => None,
    };

    all_or_nothing(&conn, place.schema(), || {
        store::check_free(&conn, &place, surface.replace)?;
        store::create(
            &conn,
            &place,
            "word TEXT NOT NULL UNIQUE, count INTEGER, vector BLOB",
        )?;
        let mut insert = conn.prepare(&format!(
            "INSERT INTO {}(id, word, count, vector) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(word) DO NOTHING",
            place.words()
        ))?;
        let (mut n, mut n_double, mut dim) = (0u64, 0u64, 0);
        for entry in reader.take(wanted.limit.unwrap_or(usize::MAX)) {
            let Entry { word, vector } = entry.with_context(in_file)?;
            let word = match (word, &mut words) {
                (Some(word), _) => word,
                (None, Some((path, lines))) => match lines.next() {
                    Some(line) => line.with_context(|| format!("model_import: '{path}'"))?,
                    None => bail!(
                        "model_import: '{path}' ends after {} words, expected one for each vector",
                        n + n_double
                    ),
                },
                (None, None) => bail!("model_import: a vector without word"),
            };
            let count = counts.as_ref().and_then(|counts| counts.get(&*word));
            dim = vector.len();
            match insert.execute(params![n as i64, word, count, bytes_of(&vector)])? {
                0 => n_double += 1,
                _ => n += 1,
            }
        }
        drop(insert);
        if let Some((path, lines)) = &mut words
            && wanted.limit.is_none()
            && lines.next().is_some()
        {
            bail!("model_import: '{path}' goes on after {n} words, expected one for each vector");
        }
        if n == 0 {
            bail!("{}: expected at least one vector, got none", in_file());
        }
        let mut options = wanted.rest.clone();
        options.push(("vector_size".to_owned(), json!(dim)));
        let options = Options::from_pairs(options, &[])?;
        let summary = json!({
            "format": format.name(),
            "words": n,
            "vector_size": dim,
            "repeated_words": n_double,
            "seconds": began.elapsed().as_secs_f64(),
        });
        store::describe(&conn, &place, store::WORD2VEC, &options.to_json(), &summary)?;
        Ok(summary.to_string())
    })
}

/// The format that is no file of vectors alone.
const FASTTEXT: &str = "fasttext";

/// A model of the original fastText, with its n-grams.
fn import_fasttext(
    conn: &Connection,
    place: &Place,
    file: BufReader<File>,
    wanted: &Wanted,
    replace: bool,
) -> Result<String> {
    let began = Instant::now();
    if wanted.limit.is_some() || wanted.vocab.is_some() || wanted.words.is_some() {
        bail!("a fastText model is read as a whole: leave the options limit, vocab and words out");
    }
    let length = file.get_ref().metadata()?.len();
    let mut model = facebook::read(file, length)?;
    let tokenizer = Options::from_pairs(wanted.rest.clone(), &[])?.tokenizer;
    model.options.base.tokenizer = tokenizer;
    let summary = json!({
        "format": FASTTEXT,
        "words": model.vocabulary.len(),
        "ngrams": model.buckets.len(),
        "vector_size": model.options.base.vector_size,
        "seconds": began.elapsed().as_secs_f64(),
    });
    fasttext::write(conn, place, &model, &summary, replace)?;
    Ok(summary.to_string())
}

/// The counts in a file of lines `word count`.
fn counts(path: &str) -> Result<FxHashMap<Box<str>, i64>> {
    let mut counts = FxHashMap::default();
    for (i, line) in open(path)?.lines().enumerate() {
        let line = line.with_context(|| format!("line {}", i + 1))?;
        let found = line
            .trim_end()
            .rsplit_once([' ', '\t'])
            .and_then(|(word, count)| Some((word, count.parse().ok().filter(|&c: &i64| c >= 0)?)));
        let Some((word, count)) = found else {
            bail!("line {}: expected 'word count'", i + 1);
        };
        counts.insert(word.into(), count);
    }
    Ok(counts)
}

/// `vectors_read(path [, format])`: rows (id, word, vector); ids count from 0, the word is NULL where the format has none.
pub(super) struct VectorsRead;

impl Function for VectorsRead {
    const NAME: &'static str = "vectors_read";
    const COLUMNS: &'static [&'static str] = &["id INTEGER", "word TEXT", "vector BLOB"];
    const ARGUMENTS: &'static [&'static str] = &["path", "format"];
    const REQUIRED: usize = 1;
    const DIRECT_ONLY: bool = true;
    const ROWS: i64 = 100_000;
    type Rows = Box<dyn Iterator<Item = Result<Vec<SqlValue>>>>;

    fn call(_scope: &Scope, args: &[SqlValue]) -> Result<Self::Rows> {
        let SqlValue::Text(path) = &args[0] else {
            bail!(
                "vectors_read: expected the path of a file, got {}",
                args[0].data_type()
            );
        };
        let name = match &args[1] {
            SqlValue::Null => None,
            SqlValue::Text(name) => Some(name.as_str()),
            other => bail!("vectors_read: expected a format, got {}", other.data_type()),
        };
        let format = format_of(name, path)?;
        let place = format!("vectors_read: '{path}'");
        let file = open(path).context("vectors_read")?;
        let reader = Reader::new(file, format).context(place.clone())?;
        Ok(Box::new((0i64..).zip(reader).map(move |(id, entry)| {
            let entry = entry.map_err(|e| anyhow!("{place}: {e:#}"))?;
            Ok(vec![
                id.into(),
                entry.word.into(),
                bytes_of(&entry.vector).into(),
            ])
        })))
    }
}
