//! What a vector is: `dim` components of one element type, and a metric that compares two of them.
//!
//! [`Vector`] is the value and its BLOB format, [`json`] its text, [`math`] its arithmetic; [`exact`] defines the f64
//! distances that searches return.

pub mod exact;
pub mod json;
pub mod math;
mod value;

pub use value::{Element, Vector, check_f32, f32_from_blob, f32_in};

use anyhow::{Result, bail};

use crate::spelling::did_you_mean;

/// The largest dimension that is accepted anywhere. A larger one is a mistake or an attack on memory.
pub const MAX_DIM: usize = 65_536;

/// The error for a vector without components, in sqlite-vec's words.
const EMPTY: &str = "zero-length vectors are not supported.";

/// How two vectors are compared. A distance is smaller when the vectors are nearer, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// 1 - cos, in [0, 2]; 1 when either vector is zero.
    Cosine,
    /// Euclidean distance: the true root.
    L2,
    /// The negated inner product.
    Dot,
    /// Sum of absolute differences.
    L1,
    /// Number of bits that differ.
    Hamming,
}

impl Metric {
    /// All metrics, in the order their names are listed to users.
    pub const ALL: [Metric; 5] = [
        Metric::Cosine,
        Metric::L2,
        Metric::Dot,
        Metric::L1,
        Metric::Hamming,
    ];

    /// The name used in SQL, in options and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Metric::Cosine => "cosine",
            Metric::L2 => "l2",
            Metric::Dot => "dot",
            Metric::L1 => "l1",
            Metric::Hamming => "hamming",
        }
    }

    /// The metric of this name among those `allowed`.
    ///
    /// # Errors
    /// When the name is not one of the allowed ones; the message lists them.
    pub fn parse(name: &str, allowed: &[Metric]) -> Result<Metric> {
        match allowed.iter().find(|m| m.name().eq_ignore_ascii_case(name)) {
            Some(&m) => Ok(m),
            None => {
                let names: Vec<_> = allowed.iter().map(|m| m.name()).collect();
                bail!(
                    "unknown metric '{name}': expected one of {}{}",
                    names.join(", "),
                    did_you_mean(name, names.iter().copied())
                )
            }
        }
    }
}
