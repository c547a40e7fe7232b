//! Vectors among SQL values.

use std::borrow::Cow;

use anyhow::{Result, bail};
use rusqlite::types::ValueRef;

/// The f32 vector in a BLOB of little-endian floats or in JSON text.
///
/// # Errors
/// When it is neither, or has a component that is NaN or infinite.
pub(crate) fn vector(value: ValueRef<'_>) -> Result<Cow<'_, [f32]>> {
    let vector = match value {
        ValueRef::Blob(blob) => {
            if blob.is_empty() || blob.len() % 4 != 0 {
                bail!(
                    "invalid float32 vector BLOB length. Must be divisible by 4, found {}",
                    blob.len()
                );
            }
            match bytemuck::try_cast_slice(blob) {
                Ok(floats) => Cow::Borrowed(floats),
                Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(blob)),
            }
        }
        ValueRef::Text(text) => Cow::Owned(serde_json::from_slice::<Vec<f32>>(text)?),
        other => bail!("expected a BLOB or JSON text, got {}", other.data_type()),
    };
    if let Some(i) = vector.iter().position(|x| !x.is_finite()) {
        bail!("component {i} is {}", vector[i]);
    }
    Ok(vector)
}
