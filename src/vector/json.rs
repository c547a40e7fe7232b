//! Vectors as JSON text: `[1, 2.5, -3e-2]`.
//!
//! Reading is strict (RFC 8259, one flat array of numbers, nothing before or after but white space), independent of the
//! locale, and streams: no more than [`MAX_DIM`] components are ever held, and no depth is followed.
//! Decimal numbers are rounded to f64 and then to f32, as sqlite-vec does. A number beyond f32 is refused, as infinity.
//!
//! Writing prints what sqlite-vec's `vec_to_json` prints: floats with six decimals, halves rounded up, and no more than
//! 16 significant digits. Small components lose digits that way: a BLOB is the format that keeps them.

use std::borrow::Cow;
use std::fmt::Write;
use std::marker::PhantomData;

use anyhow::{Result, anyhow, bail};
use serde::Deserializer as _;
use serde::de::{Deserialize, Error, SeqAccess, Visitor};

use crate::spelling::plain;

use super::value::{Element, Vector, check_dim, pack_bits, to_bit, to_f16, to_f32, to_i8};
use super::{EMPTY, MAX_DIM};

/// Parses the text of a vector with components of type `element`. For int8: whole numbers from -128 to 127; for bit: 0
/// and 1, in a number divisible by 8.
///
/// # Errors
/// What is wrong, and at which line and column.
pub fn parse(element: Element, text: &[u8]) -> Result<Vector<'static>> {
    Ok(match element {
        Element::F32 => Vector::F32(Cow::Owned(array(text, to_f32)?)),
        Element::F16 => Vector::F16(Cow::Owned(array(text, to_f16)?)),
        Element::Int8 => Vector::Int8(Cow::Owned(array(text, to_i8)?)),
        Element::Bit => pack_bits(&array(text, to_bit)?)?,
    })
}

/// Parses the text of a float32 vector.
///
/// # Errors
/// As [`parse`].
pub fn parse_f32(text: &[u8]) -> Result<Vec<f32>> {
    array(text, to_f32)
}

/// Reads a whole text as one array, number by number.
fn array<N: for<'de> Deserialize<'de>, T>(
    text: &[u8],
    convert: fn(N) -> Result<T, &'static str>,
) -> Result<Vec<T>> {
    if text.is_empty() {
        bail!(EMPTY);
    }
    if text.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'[') {
        bail!("JSON array parsing error: Input does not start with '['");
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let components = reader
        .deserialize_seq(Numbers {
            convert,
            number: PhantomData,
        })
        .and_then(|components| reader.end().map(|()| components))
        .map_err(|e| anyhow!("JSON parsing error: {}", plain(&e.to_string())))?;
    check_dim(components.len())?;
    Ok(components)
}

/// Parses the text of an array of arrays of numbers, and gives one after the other to `each`: no more than one of them is
/// held, nor more than [`MAX_DIM`] numbers.
///
/// # Errors
/// What is wrong with the text, and where; the first error of `each`.
pub fn rows(text: &[u8], each: &mut dyn FnMut(&[f64]) -> Result<()>) -> Result<()> {
    let mut failed = None;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = reader
        .deserialize_seq(Rows {
            each,
            failed: &mut failed,
        })
        .and_then(|()| reader.end());
    match failed {
        Some(error) => Err(error),
        None => read.map_err(|e| anyhow!("expected a JSON array of arrays: {e}")),
    }
}

struct Rows<'a> {
    each: &'a mut dyn FnMut(&[f64]) -> Result<()>,
    failed: &'a mut Option<anyhow::Error>,
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of arrays of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(Row(row)) = array.next_element()? {
            if let Err(error) = (self.each)(&row) {
                *self.failed = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

struct Row(Vec<f64>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        let numbers = Numbers {
            convert: Ok,
            number: PhantomData,
        };
        deserializer.deserialize_seq(numbers).map(Row)
    }
}

struct Numbers<N, T> {
    convert: fn(N) -> Result<T, &'static str>,
    number: PhantomData<N>,
}

impl<'de, N: Deserialize<'de>, T> Visitor<'de> for Numbers<N, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<T>, A::Error> {
        let mut components = Vec::new();
        while let Some(number) = array.next_element()? {
            if components.len() == MAX_DIM {
                return Err(A::Error::custom(format_args!(
                    "a vector has at most {MAX_DIM} components"
                )));
            }
            components.push((self.convert)(number).map_err(A::Error::custom)?);
        }
        Ok(components)
    }
}

/// Prints a vector as sqlite-vec does: see the module page.
#[must_use]
pub fn print(vector: &Vector<'_>) -> String {
    let mut text = String::with_capacity(2 + 10 * vector.dim());
    text.push('[');
    for i in 0..vector.dim() {
        if i > 0 {
            text.push(',');
        }
        let component = vector.component(i).unwrap_or_default();
        // Writing to a String can't fail.
        let _ = match vector.element() {
            Element::F32 | Element::F16 => print_float(&mut text, component),
            Element::Int8 | Element::Bit => write!(text, "{component}"),
        };
    }
    text.push(']');
    text
}

/// Prints `x`, which is exact in f32, like SQLite's `%f`.
fn print_float(text: &mut String, x: f64) -> std::fmt::Result {
    if x < 0.0 {
        text.push('-');
    }
    let x = x.abs();
    if x < 1e10 {
        // 24 significant bits times the 14 of 5^6 are exact, and so is half added below 2^52.
        let millionths = (x * 1e6 + 0.5).floor() as u64;
        return write!(
            text,
            "{}.{:06}",
            millionths / 1_000_000,
            millionths % 1_000_000
        );
    }
    // From here on every f32 is a whole number: 16 digits of it, and zeros in place of the rest.
    let digits = format!("{x}");
    if digits.len() <= 16 {
        return write!(text, "{digits}.000000");
    }
    let scientific = format!("{x:.15e}");
    let leading: String = scientific.chars().take(17).filter(|c| *c != '.').collect();
    let width = scientific
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse::<usize>().ok())
        .unwrap_or(0)
        + 1;
    write!(text, "{leading:0<width$}.000000")
}
