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
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::place::Place;
use crate::embed::matrix::Matrix;
use crate::embed::model::Model;
use crate::embed::options::Options;

/// What stands under `format`: changes when an older program could misread the tables.
const FORMAT: &str = "word2vec 1";

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
    let format: rusqlite::Result<String> = conn.query_row(
        &format!(
            "SELECT value FROM {} WHERE key = 'format' AND (SELECT count(id) + count(word) + count(vector) FROM {}) >= 0",
            place.parts(),
            place.words()
        ),
        [],
        |row| row.get(0),
    );
    format.is_ok_and(|f| f.starts_with("word2vec "))
}

/// Writes a model; drops the one that is there, if any. To be called within a savepoint.
pub(super) fn write(
    conn: &Connection,
    place: &Place,
    model: &Model,
    summary: &Value,
) -> Result<()> {
    let (words, parts) = (place.words(), place.parts());
    conn.execute_batch(&format!(
        "DROP TABLE IF EXISTS {words};
         DROP TABLE IF EXISTS {parts};
         CREATE TABLE {words}(id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE, count INTEGER NOT NULL, vector BLOB);
         CREATE TABLE {parts}(key TEXT NOT NULL, part INTEGER NOT NULL, value, PRIMARY KEY(key, part));"
    ))?;
    let mut insert = conn.prepare(&format!(
        "INSERT INTO {words}(id, word, count, vector) VALUES(?1, ?2, ?3, ?4)"
    ))?;
    for (id, &count) in model.vocabulary.counts().iter().enumerate() {
        let id = id as u32;
        insert.execute(params![
            id,
            model.vocabulary.word(id),
            count as i64,
            bytes_of(model.vector(id))
        ])?;
    }
    let mut insert = conn.prepare(&format!(
        "INSERT INTO {parts}(key, part, value) VALUES(?1, ?2, ?3)"
    ))?;
    insert.execute(params!["format", 0, FORMAT])?;
    insert.execute(params!["options", 0, model.options.to_json().to_string()])?;
    insert.execute(params!["summary", 0, summary.to_string()])?;
    for (key, matrix) in [("output", &model.output), ("nodes", &model.nodes)] {
        let Some(matrix) = matrix else { continue };
        for (part, first) in (0..matrix.n_rows())
            .step_by(rows_of_part(matrix))
            .enumerate()
        {
            let rows = first..(first + rows_of_part(matrix)).min(matrix.n_rows());
            let bytes: Vec<u8> = rows.flat_map(|i| bytes_of(matrix.row(i))).collect();
            insert.execute(params![key, part as i64, bytes])?;
        }
    }
    Ok(())
}

fn rows_of_part(matrix: &Matrix) -> usize {
    (PART / (4 * matrix.dim())).max(1)
}

/// A vector as a BLOB: little-endian whatever the machine is.
pub(super) fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
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
    Options::from_json(&text).with_context(|| {
        format!(
            "the model {} has options this version can't read",
            place.shown()
        )
    })
}
