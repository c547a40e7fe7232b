//! Vectors among SQL values.

use std::borrow::Cow;

use anyhow::{Result, bail};
use rusqlite::types::ValueRef;

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
