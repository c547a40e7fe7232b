//! The `vec_*` functions: sqlite-vec's names with sqlite-vec's meaning and results, and a few of ours.
//!
//! What is a vector: a BLOB is float32 unless its subtype says otherwise (223 float32, 224 bit, 225 int8, as in
//! sqlite-vec; 226 float16). SQLite keeps a subtype only from one function to the next, never in a table, so a stored
//! int8, bit or float16 vector is tagged where it is used: `vec_distance_l2(vec_int8(v), vec_int8(:q))`. TEXT is JSON.
//!
//! - `vec_int8`, `vec_bit` and `vec_f16` tag a BLOB; they do not convert. The one conversion is between float types:
//!   `vec_f16(vec_f32(x))` rounds, `vec_f32(vec_f16(x))` widens.
//! - NULL is not a vector: an error, as in sqlite-vec. Aggregates skip it, as SQL's do.
//! - NaN and infinity are refused with the index of the component, in arguments and in results. sqlite-vec lets them in.
//! - JSON is strict. sqlite-vec takes unfinished arrays, missing commas, `nan` and hexadecimal numbers.
//! - A zero vector has cosine distance 1 to everything, and normalises to itself. sqlite-vec gives NULL and NaN.
//! - A result out of range for int8 is refused. sqlite-vec wraps around.
//! - Indexes of `vec_slice` are integers. sqlite-vec makes 0 of NULL and of any other text.
//! - Component i of a bit vector is the same in `vec_each` and `vec_to_json`: bit i mod 8, lowest first, of byte i / 8.
//!   sqlite-vec's `vec_each` reads each byte from its highest bit, its other functions from the lowest.
//!
//! `tests/hosts/sqlite_vec_differential.py` compares both, and knows no other differences.
//!
//! A constant TEXT argument is parsed once in a statement; a BLOB is read in place.

mod aggregate;
mod each;
mod scalar;

use std::ops::Deref;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags, SubType};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::values::{self, type_name};
use super::{PURE, Session, function_error};
use crate::vector::{Element, Vector, json};

/// Flags of a function that reads the subtypes of its arguments.
const READS: FunctionFlags = PURE.union(FunctionFlags::SQLITE_SUBTYPE);

/// Flags of a function that returns a vector, too.
const RETURNS: FunctionFlags = READS.union(FunctionFlags::SQLITE_RESULT_SUBTYPE);

/// What a function gives to rusqlite.
type Output = (ToSqlOutput<'static>, SubType);

/// Registers the functions and tables of this module.
pub(super) fn register(conn: &Connection, session: &Arc<Session>) -> rusqlite::Result<()> {
    scalar::register(conn)?;
    aggregate::register(conn)?;
    each::register(conn, session)
}

/// The element type of a BLOB with this subtype.
fn element_of(subtype: u32) -> Element {
    match subtype {
        224 => Element::Bit,
        225 => Element::Int8,
        226 => Element::F16,
        _ => Element::F32,
    }
}

/// The element type that a BLOB says it is of, if that is not float32.
pub(crate) fn element_of_blob(value: ValueRef<'_>, subtype: u32) -> Option<Element> {
    let element = element_of(subtype);
    (matches!(value, ValueRef::Blob(_)) && element != Element::F32).then_some(element)
}

/// The subtype that marks a BLOB as a vector of this element type.
fn subtype_of(element: Element) -> u32 {
    match element {
        Element::F32 => 223,
        Element::Bit => 224,
        Element::Int8 => 225,
        Element::F16 => 226,
    }
}

/// A vector as the result of a function.
fn output(vector: &Vector<'_>) -> Output {
    let blob = ToSqlOutput::Owned(Value::Blob(vector.bytes().to_vec()));
    (blob, Some(subtype_of(vector.element())))
}

/// A value of a column of this element type as a vector. Components may be NaN or infinite when it is a BLOB.
pub(crate) fn row(value: ValueRef<'_>, element: Element) -> Result<Vector<'_>> {
    match value {
        ValueRef::Blob(blob) => Vector::decode(element, blob),
        ValueRef::Text(text) => json::parse(element, text),
        other => decode(other, 0),
    }
}

/// A value with its subtype as a vector. Components may be NaN or infinite when it is a BLOB.
fn decode(value: ValueRef<'_>, subtype: u32) -> Result<Vector<'_>> {
    match value {
        ValueRef::Blob(blob) => Vector::decode(element_of(subtype), blob),
        ValueRef::Text(text) => json::parse(Element::F32, text),
        other => bail!(
            "Input must have type BLOB (compact format) or TEXT (JSON), found {}",
            type_name(other)
        ),
    }
}

/// A query vector for a column; `column` names it in errors, in sqlite-vec's words. `wanted` is the element type of the
/// column; `None`: that of the query, float32 where nothing says otherwise.
pub(crate) fn query(
    value: ValueRef<'_>,
    subtype: u32,
    wanted: Option<Element>,
    column: impl Fn() -> String,
) -> Result<Vector<'static>> {
    let given = (matches!(value, ValueRef::Blob(_)) && subtype != 0).then(|| element_of(subtype));
    let element = wanted.or(given).unwrap_or(Element::F32);
    if let Some(given) = given
        && given != element
    {
        bail!(
            "Query vector for the \"{}\" column is expected to be of type {}, but a {} vector was provided.",
            column(),
            element.name(),
            given.name()
        );
    }
    let vector = match (element, value) {
        (Element::F32, _) => values::vector(value).map(|v| Vector::F32(v.into_owned().into())),
        (_, ValueRef::Blob(blob)) => Vector::from_blob(element, blob).map(Vector::into_owned),
        (_, ValueRef::Text(text)) => json::parse(element, text),
        (_, other) => decode(other, 0).map(Vector::into_owned),
    };
    match vector {
        Ok(vector) => Ok(vector),
        Err(error) => bail!(
            "Query vector on the \"{}\" column is invalid: {error}",
            column()
        ),
    }
}

/// Many query vectors for a column of this element type: a BLOB of vectors of `dim` components, one after the other, or a
/// JSON array of arrays. Gives their dimension and the components. `dim` is that of the column, `None` when it has no
/// vector; NULL is no query.
pub(crate) fn queries(
    value: ValueRef<'_>,
    subtype: u32,
    wanted: Element,
    dim: Option<usize>,
    column: &str,
) -> Result<(usize, Vec<f32>)> {
    let invalid = || format!("Query vectors for the \"{column}\" column are invalid");
    match value {
        ValueRef::Null => Ok((0, Vec::new())),
        ValueRef::Blob(blob) => {
            let element = element_of(subtype);
            if subtype != 0 && element != wanted {
                bail!(
                    "{}: expected {}, found {}",
                    invalid(),
                    wanted.name(),
                    element.name()
                );
            }
            let Some(dim) = dim else {
                return Ok((0, Vec::new()));
            };
            let each = wanted.bytes(dim);
            if !blob.len().is_multiple_of(each) {
                bail!(
                    "{}: a blob of {} bytes is no whole number of vectors of {dim} dimensions, {each} bytes each; make it \
                     with vec_pack(vector)",
                    invalid(),
                    blob.len(),
                );
            }
            let (mut components, mut query) = (Vec::new(), Vec::new());
            for (i, bytes) in blob.chunks_exact(each).enumerate() {
                let vector = Vector::from_blob(wanted, bytes)
                    .with_context(|| format!("{}: query {i}", invalid()))?;
                vector.write_f32(&mut query);
                components.extend_from_slice(&query);
            }
            Ok((dim, components))
        }
        ValueRef::Text(text) => {
            let (mut components, mut query) = (Vec::new(), Vec::new());
            let (mut dim, mut i) = (0, 0);
            json::rows(text, &mut |row| {
                if i == 0 {
                    dim = row.len();
                }
                if row.len() != dim {
                    bail!(
                        "query {i} has {} dimensions, expected {dim} as in query 0",
                        row.len()
                    );
                }
                Vector::from_components(wanted, row)
                    .with_context(|| format!("query {i}"))?
                    .write_f32(&mut query);
                components.extend_from_slice(&query);
                i += 1;
                Ok(())
            })
            .with_context(invalid)?;
            Ok((dim, components))
        }
        other => bail!(
            "{}: expected a BLOB of vectors or a JSON array of arrays, found {}",
            invalid(),
            type_name(other)
        ),
    }
}

/// A vector among the arguments of a function.
enum Argument<'a> {
    /// Read from a BLOB, in place.
    Read(Vector<'a>),
    /// Parsed from a text, and kept by SQLite as long as the text is the same.
    Parsed(Arc<Vector<'static>>),
}

impl<'a> Deref for Argument<'a> {
    type Target = Vector<'a>;

    fn deref(&self) -> &Vector<'a> {
        match self {
            Argument::Read(vector) => vector,
            Argument::Parsed(vector) => vector,
        }
    }
}

/// Argument `i` of a function. Components may be NaN or infinite when it is a BLOB: whoever computes a sum from it
/// need not read it twice.
fn argument<'a>(ctx: &'a Context<'_>, i: usize) -> Result<Argument<'a>> {
    let value = ctx.get_raw(i);
    if !matches!(value, ValueRef::Text(_)) {
        return Ok(Argument::Read(decode(value, ctx.get_subtype(i))?));
    }
    let known: Option<Arc<Vector<'static>>> = ctx.get_aux(i as i32)?;
    match known {
        Some(vector) => Ok(Argument::Parsed(vector)),
        None => {
            let vector = decode(value, 0)?.into_owned();
            Ok(Argument::Parsed(ctx.set_aux(i as i32, vector)?))
        }
    }
}

/// The first two arguments of a function.
fn two_arguments<'a>(ctx: &'a Context<'_>) -> Result<(Argument<'a>, Argument<'a>)> {
    Ok((
        argument(ctx, 0).context("Error reading 1st vector")?,
        argument(ctx, 1).context("Error reading 2nd vector")?,
    ))
}
