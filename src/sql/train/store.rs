//! The two tables of a model.
//!
//! `m(id INTEGER PRIMARY KEY, word TEXT UNIQUE, count, vector)`: id 0 is the most frequent word, the vector a BLOB of
//! little-endian f32. `m_model(key, part, value)` has one row for each of these, several for the matrices:
//!
//! | key | value |
//! |---|---|
//! | `format` | `word2vec 1` |
//! | `options` | the options as JSON, as `word2vec_train` takes them |
//! | `summary` | the JSON that `word2vec_train` returned |
//! | `output` | output vectors of negative sampling, row after row in id order; parts of up to 1 MiB of whole rows |
//! | `nodes` | vectors of the inner nodes of hierarchical softmax, likewise |

use anyhow::{Context, Result, bail};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use serde_json::Value;

use super::place::Place;
use crate::embed::matrix::Matrix;
use crate::embed::model::Model;
use crate::embed::options::{NAMES, Options};
use crate::embed::strict_json;
use crate::embed::vocab::{Vocabulary, WordId};
use crate::sql::values::vector as vector_of;

/// What stands under `format`: changes when an older program could misread the tables.
pub(super) const WORD2VEC: &str = "word2vec 1";

/// Likewise, of phrases, fastText and the words of doc2vec.
pub(super) const PHRASES: &str = "phrases 1";
pub(super) const FASTTEXT: &str = "fasttext 1";
pub(super) const DOC2VEC: &str = "doc2vec 1";

/// The first words of the formats there are, and a column that tells their first table.
const FORMATS: [(&str, &str); 4] = [
    ("doc2vec ", "vector"),
    ("word2vec ", "vector"),
    ("fasttext ", "vector"),
    ("phrases ", "score"),
];

/// The columns of the first table of a model of words.
pub(super) const WORDS: &str = "word TEXT NOT NULL UNIQUE, count INTEGER NOT NULL, vector BLOB";

/// Bytes of a part of a matrix, unless a single row is longer.
const PART: usize = 1 << 20;

/// Makes sure that a model can be made at a place: nothing of that name is there, or a model that may be replaced.
/// Returns whether there is one.
pub(super) fn check_free(conn: &Connection, place: &Place, replace: bool) -> Result<bool> {
    let [words, parts] = place.names();
    let taken: Option<String> = conn
        .prepare_cached(
            "SELECT name FROM pragma_table_list WHERE schema = ?1 AND (name = ?2 COLLATE NOCASE OR name = ?3 COLLATE NOCASE)",
        )?
        .query_row([place.schema(), &words, &parts], |row| row.get(0))
        .optional()?;
    let Some(taken) = taken else { return Ok(false) };
    if !is_model(conn, place) {
        bail!(
            "{taken} exists in '{}' and is not part of a model: choose another name for the model, or drop or rename it",
            place.schema()
        );
    }
    if !replace {
        bail!(
            "the model {} exists: give the option \"replace\": true to train it anew, or choose another name",
            place.shown()
        );
    }
    Ok(true)
}

/// Whether both tables are there and are a model's.
fn is_model(conn: &Connection, place: &Place) -> bool {
    let parts = place.parts();
    let format: rusqlite::Result<String> = conn.query_row(
        &format!("SELECT value FROM {parts} WHERE key = 'format'"),
        [],
        |row| row.get(0),
    );
    format.is_ok_and(|format| {
        FORMATS.iter().any(|(name, column)| {
            format.starts_with(name)
                && conn
                    .prepare(&format!(
                        "SELECT w.id, w.{column} FROM {} AS w",
                        place.words()
                    ))
                    .is_ok()
        })
    })
}

/// Writes a model; drops the one that is there, if any. To be called within a savepoint.
pub(super) fn write(
    conn: &Connection,
    place: &Place,
    model: &Model,
    summary: &Value,
) -> Result<()> {
    create(conn, place, WORDS)?;
    put_words(conn, place, &model.vocabulary, |id| {
        bytes_of(model.vector(id))
    })?;
    describe(conn, place, WORD2VEC, &model.options.to_json(), summary)?;
    put_outputs(conn, place, model.output.as_ref(), model.nodes.as_ref())
}

/// Writes the words of a model with these vectors; a word whose id is there already gets a new count and vector.
pub(super) fn put_words(
    conn: &Connection,
    place: &Place,
    vocabulary: &Vocabulary,
    vector: impl Fn(WordId) -> Vec<u8>,
) -> Result<()> {
    let mut write = conn.prepare(&format!(
        "INSERT INTO {}(id, word, count, vector) VALUES(?1, ?2, ?3, ?4)
         ON CONFLICT(id) DO UPDATE SET count = excluded.count, vector = excluded.vector",
        place.words()
    ))?;
    for (id, &count) in (0..).zip(vocabulary.counts()) {
        let word = vocabulary.word(id);
        write
            .execute(params![id, word, count as i64, vector(id)])
            .with_context(|| format!("the word '{word}'"))?;
    }
    Ok(())
}

/// Writes the output vectors that a model has.
pub(super) fn put_outputs(
    conn: &Connection,
    place: &Place,
    output: Option<&Matrix>,
    nodes: Option<&Matrix>,
) -> Result<()> {
    for (key, matrix) in [("output", output), ("nodes", nodes)] {
        if let Some(matrix) = matrix {
            put_matrix(conn, place, key, matrix)?;
        }
    }
    Ok(())
}

/// Makes the empty tables of a model, the first with these columns beside its id; drops those that are there.
pub(super) fn create(conn: &Connection, place: &Place, columns: &str) -> Result<()> {
    let (words, parts) = (place.words(), place.parts());
    Ok(conn.execute_batch(&format!(
        "DROP TABLE IF EXISTS {words};
         DROP TABLE IF EXISTS {parts};
         CREATE TABLE {words}(id INTEGER PRIMARY KEY, {columns});
         CREATE TABLE {parts}(key TEXT NOT NULL, part INTEGER NOT NULL, value, PRIMARY KEY(key, part));"
    ))?)
}

/// Says what a model is and how it was made.
pub(super) fn describe(
    conn: &Connection,
    place: &Place,
    format: &str,
    options: &Value,
    summary: &Value,
) -> Result<()> {
    put(conn, place, "format", 0, format)?;
    put(conn, place, "options", 0, options.to_string())?;
    put(conn, place, "summary", 0, summary.to_string())
}

/// Writes one part; what stood there goes.
pub(super) fn put(
    conn: &Connection,
    place: &Place,
    key: &str,
    part: i64,
    value: impl ToSql,
) -> Result<()> {
    let parts = place.parts();
    conn.prepare_cached(&format!(
        "INSERT OR REPLACE INTO {parts}(key, part, value) VALUES(?1, ?2, ?3)"
    ))?
    .execute(params![key, part, value])?;
    Ok(())
}

/// Writes a matrix in parts of whole rows.
pub(super) fn put_matrix(
    conn: &Connection,
    place: &Place,
    key: &str,
    matrix: &Matrix,
) -> Result<()> {
    let step = rows_of_part(matrix);
    for (part, first) in (0..matrix.n_rows()).step_by(step).enumerate() {
        let rows = first..(first + step).min(matrix.n_rows());
        let rows: Vec<Vec<u8>> = rows.map(|i| bytes_of(matrix.row(i))).collect();
        let bytes = rows.concat();
        put(conn, place, key, part as i64, bytes)?;
    }
    Ok(())
}

fn rows_of_part(matrix: &Matrix) -> usize {
    (PART / (4 * matrix.dim())).max(1)
}

/// A vector as a BLOB: little-endian whatever the machine is.
pub(super) fn bytes_of(vector: &[f32]) -> Vec<u8> {
    if cfg!(target_endian = "little") {
        // At once: byte after byte took a tenth of a short training.
        return bytemuck::cast_slice(vector).to_vec();
    }
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The options of a model, as JSON, if it is of a format.
pub(super) fn options_if(conn: &Connection, place: &Place, format: &str) -> Result<Option<String>> {
    Ok(conn
        .prepare_cached(&format!(
            "SELECT o.value FROM {0} AS f JOIN {0} AS o
             ON f.key = 'format' AND f.value = ?1 AND o.key = 'options'",
            place.parts()
        ))?
        .query_row([format], |row| row.get(0))
        .optional()?)
}

/// As [`options_if`], an error for another format; `maker` is the function that makes such models.
pub(super) fn of_format(
    conn: &Connection,
    place: &Place,
    format: &str,
    maker: &str,
) -> Result<String> {
    options_if(conn, place, format)?.with_context(|| {
        format!(
            "{} is a model of another kind: expected one that {maker} made",
            place.shown()
        )
    })
}

/// The words and counts of a model, whose ids must be 0, 1, 2, ... as training made them.
pub(super) fn vocabulary(conn: &Connection, place: &Place) -> Result<Vocabulary> {
    let mut statement = conn.prepare(&format!(
        "SELECT id, word, count FROM {} ORDER BY id",
        place.words()
    ))?;
    let mut rows = statement.query([])?;
    let mut words = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if id != words.len() as i64 {
            bail!(
                "the model {} has no word with id {}: expected ids 0, 1, 2, ... without a gap, as training made them",
                place.shown(),
                words.len()
            );
        }
        // A word without count, as files have them, counts as one that was seen once.
        let count = row.get::<_, Option<i64>>(2)?.unwrap_or(1);
        words.push((
            row.get::<_, Box<str>>(1)?,
            u64::try_from(count).unwrap_or(0),
        ));
    }
    Vocabulary::from_words(words)
        .with_context(|| format!("the model {} has no words", place.shown()))
}

/// The vectors of all words of a model.
pub(super) fn vectors(
    conn: &Connection,
    place: &Place,
    n_words: usize,
    dim: usize,
) -> Result<Matrix> {
    let mut matrix = Matrix::zeros(n_words, dim)?;
    let mut statement = conn.prepare(&format!(
        "SELECT id, vector FROM {} ORDER BY id",
        place.words()
    ))?;
    let mut rows = statement.query([])?;
    for i in 0..n_words {
        let row = rows.next()?;
        let vector = row.map(|row| row.get_ref(1)).transpose()?;
        let vector = vector
            .map(vector_of)
            .transpose()
            .with_context(|| format!("the vector of id {i} in {}", place.shown()))?;
        match vector {
            Some(vector) if vector.len() == dim => matrix.row_mut(i).copy_from_slice(&vector),
            _ => bail!(
                "the vector of id {i} in {}: expected {dim} components as the model's options say",
                place.shown()
            ),
        }
    }
    Ok(matrix)
}

/// Reads a matrix that [`put_matrix`] wrote.
pub(super) fn matrix(
    conn: &Connection,
    place: &Place,
    key: &str,
    n_rows: usize,
    dim: usize,
) -> Result<Matrix> {
    let mut matrix = Matrix::zeros(n_rows, dim)?;
    let mut statement = conn.prepare(&format!(
        "SELECT value FROM {} WHERE key = ?1 ORDER BY part",
        place.parts()
    ))?;
    let mut rows = statement.query([key])?;
    let mut next = 0;
    while let Some(row) = rows.next()? {
        let ValueRef::Blob(bytes) = row.get_ref(0)? else {
            bail!("'{key}' of the model {} is no BLOB", place.shown());
        };
        let (vectors, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty()
            || !vectors.len().is_multiple_of(dim)
            || next + vectors.len() / dim > n_rows
        {
            break;
        }
        for vector in vectors.chunks_exact(dim) {
            for (to, from) in matrix.row_mut(next).iter_mut().zip(vector) {
                *to = f32::from_le_bytes(*from);
            }
            next += 1;
        }
    }
    if next != n_rows || !matrix.is_finite() {
        bail!(
            "the model {} can't be trained further: expected {n_rows} vectors of {dim} components under '{key}' of {}",
            place.shown(),
            place.parts()
        );
    }
    Ok(matrix)
}

/// The options a model was trained with.
pub(super) fn options(conn: &Connection, place: &Place) -> Result<Options> {
    let text: String = conn
        .query_row(
            &format!("SELECT value FROM {} WHERE key = 'options'", place.parts()),
            [],
            |row| row.get(0),
        )
        .with_context(|| {
            format!(
                "{} is not a model of this extension: it has no options",
                place.shown()
            )
        })?;
    // Those of other kinds of model contain word2vec's.
    let mut pairs = strict_json::object(&text)?;
    pairs.retain(|(name, _)| NAMES.contains(&name.as_str()));
    Options::from_pairs(pairs, &[]).with_context(|| {
        format!(
            "the model {} has options this version can't read",
            place.shown()
        )
    })
}
