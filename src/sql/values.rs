//! Vectors among SQL values.

use std::borrow::Cow;

use anyhow::{Result, anyhow, bail};
use rusqlite::types::ValueRef;

use crate::spelling::{did_you_mean, plain};
use crate::vector::{f32_from_blob, json};

/// The f32 vector in a BLOB of little-endian floats or in JSON text.
///
/// # Errors
/// When it is neither, empty or too long, or has a component that is NaN or infinite.
pub(crate) fn vector(value: ValueRef<'_>) -> Result<Cow<'_, [f32]>> {
    match value {
        ValueRef::Blob(blob) => f32_from_blob(blob),
        ValueRef::Text(text) => Ok(Cow::Owned(json::parse_f32(text)?)),
        other => bail!(
            "Input must have type BLOB (compact format) or TEXT (JSON), found {}",
            type_name(other)
        ),
    }
}

/// The error of a JSON object of options: serde's words, and for a name that is none the nearest that is one.
pub(crate) fn options_error(function: &str, error: &serde_json::Error) -> anyhow::Error {
    let said = plain(&error.to_string());
    // unknown field `searchk`, expected one of `search_k`, `recall` at line 1 column 10
    let mut names = said.split('`').skip(1).step_by(2);
    let hint = match names.next() {
        Some(name) if said.starts_with("unknown field") => did_you_mean(name, names),
        _ => String::new(),
    };
    anyhow!("{function} options: {said}{hint}")
}

/// A REAL that is a whole number as the INTEGER that it stands for, any other value as it is: a language that has one kind of
/// number, as JavaScript does, binds every number as a REAL.
pub(crate) fn whole(value: ValueRef<'_>) -> ValueRef<'_> {
    // From 2^63 on, `as` would give an integer that is not the same number.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    match value {
        ValueRef::Real(x) if x.fract() == 0.0 && (-BEYOND..BEYOND).contains(&x) => {
            ValueRef::Integer(x as i64)
        }
        other => other,
    }
}

/// The type of a value, as sqlite-vec's errors name it.
pub(crate) fn type_name(value: ValueRef<'_>) -> &'static str {
    match value {
        ValueRef::Null => "NULL",
        ValueRef::Integer(_) => "INTEGER",
        ValueRef::Real(_) => "FLOAT",
        ValueRef::Text(_) => "TEXT",
        ValueRef::Blob(_) => "BLOB",
    }
}
