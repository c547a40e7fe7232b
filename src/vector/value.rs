//! A vector as a value: components of one element type, borrowed from where SQLite keeps them whenever possible.
//!
//! In storage a vector is its components, little-endian, without a header:
//!
//! | element | bytes for dim d | component |
//! |---|---|---|
//! | float32 | 4 d | IEEE 754 binary32 |
//! | float16 | 2 d | IEEE 754 binary16 |
//! | int8 | d | two's complement |
//! | bit | d / 8 | bit i is bit i mod 8 (lowest first) of byte i / 8 |
//!
//! A vector has 1 to [`MAX_DIM`] components, all finite. [`Vector::decode`] checks lengths alone, so that a distance
//! need not read its vectors twice: NaN and infinity reach every sum, and whoever computes one calls
//! [`Vector::check_finite`] only when the result is not finite. Everybody else starts from [`Vector::from_blob`].

use std::borrow::Cow;

use anyhow::{Result, anyhow, bail, ensure};
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::MAX_DIM;

#[cfg(not(target_endian = "little"))]
compile_error!("vectors are little-endian in storage and read in place");

/// The type of a vector's components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// Signed byte.
    Int8,
    /// One bit.
    Bit,
}

impl Element {
    /// All element types.
    pub const ALL: [Element; 4] = [Element::F32, Element::F16, Element::Int8, Element::Bit];

    /// The name that `vec_type()` gives and errors use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "float32",
            Element::F16 => "float16",
            Element::Int8 => "int8",
            Element::Bit => "bit",
        }
    }

    /// The bytes of a vector of `dim` components.
    #[must_use]
    pub fn bytes(self, dim: usize) -> usize {
        match self {
            Element::F32 => 4 * dim,
            Element::F16 => 2 * dim,
            Element::Int8 => dim,
            Element::Bit => dim.div_ceil(8),
        }
    }

    /// The element type of this name.
    ///
    /// # Errors
    /// When there is none; the message lists them.
    pub fn parse(name: &str) -> Result<Element> {
        match Element::ALL.into_iter().find(|e| e.name() == name) {
            Some(element) => Ok(element),
            None => {
                bail!("unknown vector type '{name}': expected one of float32, float16, int8, bit")
            }
        }
    }
}

/// A vector of any element type.
#[derive(Debug, Clone, PartialEq)]
pub enum Vector<'a> {
    /// f32 components.
    F32(Cow<'a, [f32]>),
    /// f16 components.
    F16(Cow<'a, [f16]>),
    /// Signed bytes.
    Int8(Cow<'a, [i8]>),
    /// Eight components a byte, lowest bit first.
    Bit(Cow<'a, [u8]>),
}

impl<'a> Vector<'a> {
    /// Reads a BLOB as a vector, in place where its alignment allows it. Components may be NaN or infinite: see the
    /// module page.
    ///
    /// # Errors
    /// When the BLOB is empty, no whole number of components, or too long.
    pub fn decode(element: Element, blob: &'a [u8]) -> Result<Vector<'a>> {
        check_length(element, blob)?;
        let vector = match element {
            Element::F32 => Vector::F32(components(blob)),
            Element::F16 => Vector::F16(components(blob)),
            Element::Int8 => Vector::Int8(components(blob)),
            Element::Bit => Vector::Bit(Cow::Borrowed(blob)),
        };
        Ok(vector)
    }

    /// [`Vector::decode`] with every component checked.
    ///
    /// # Errors
    /// Those of `decode`, and when a component is NaN or infinite.
    pub fn from_blob(element: Element, blob: &'a [u8]) -> Result<Vector<'a>> {
        let vector = Vector::decode(element, blob)?;
        vector.check_finite()?;
        Ok(vector)
    }

    /// A vector of these components, floats rounded to the element type.
    ///
    /// # Errors
    /// When there are none or too many, and when one is not finite or not in the range of the element type.
    pub fn from_components(element: Element, components: &[f64]) -> Result<Vector<'static>> {
        check_dim(components.len())?;
        let floats = components.iter().copied();
        let integers = components.iter().map(|&x| {
            // A number that is no integer is out of every range; `as` keeps those that are.
            if x.fract() == 0.0 { x as i64 } else { i64::MAX }
        });
        Ok(match element {
            Element::F32 => Vector::F32(Cow::Owned(convert(floats, to_f32)?)),
            Element::F16 => Vector::F16(Cow::Owned(convert(floats, to_f16)?)),
            Element::Int8 => Vector::Int8(Cow::Owned(convert(integers, to_i8)?)),
            Element::Bit => pack_bits(&convert(integers, to_bit)?)?,
        })
    }

    /// The type of the components.
    #[must_use]
    pub fn element(&self) -> Element {
        match self {
            Vector::F32(_) => Element::F32,
            Vector::F16(_) => Element::F16,
            Vector::Int8(_) => Element::Int8,
            Vector::Bit(_) => Element::Bit,
        }
    }

    /// The number of components.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self {
            Vector::F32(v) => v.len(),
            Vector::F16(v) => v.len(),
            Vector::Int8(v) => v.len(),
            Vector::Bit(v) => 8 * v.len(),
        }
    }

    /// The bytes as stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Vector::F32(v) => bytemuck::cast_slice(v),
            Vector::F16(v) => bytemuck::cast_slice(v),
            Vector::Int8(v) => bytemuck::cast_slice(v),
            Vector::Bit(v) => v,
        }
    }

    /// Component `i`, which is exact in f64; `None` beyond the end. A bit is 0 or 1.
    #[must_use]
    pub fn component(&self, i: usize) -> Option<f64> {
        match self {
            Vector::F32(v) => v.get(i).map(|&x| f64::from(x)),
            Vector::F16(v) => v.get(i).map(|&x| f64::from(x)),
            Vector::Int8(v) => v.get(i).map(|&x| f64::from(x)),
            Vector::Bit(v) => v.get(i / 8).map(|byte| f64::from(byte >> (i % 8) & 1)),
        }
    }

    /// The components in float32, which has all values of the other types; a bit is 0 or 1. What was in `out` goes.
    pub fn write_f32(&self, out: &mut Vec<f32>) {
        out.clear();
        match self {
            Vector::F32(v) => out.extend_from_slice(v),
            Vector::F16(v) => {
                out.resize(v.len(), 0.0);
                v.convert_to_f32_slice(out);
            }
            Vector::Int8(v) => out.extend(v.iter().map(|&x| f32::from(x))),
            Vector::Bit(v) => {
                let bits = v.iter().flat_map(|byte| (0..8).map(move |i| byte >> i & 1));
                out.extend(bits.map(f32::from));
            }
        }
    }

    /// Checks that every component is a finite number.
    ///
    /// # Errors
    /// The index of the first that is not.
    pub fn check_finite(&self) -> Result<()> {
        match self {
            Vector::F32(v) => check_f32(v),
            // A half with the highest exponent is NaN or infinity.
            Vector::F16(v) => match v.iter().position(|x| !x.is_finite()) {
                Some(i) => not_finite(i, v[i].to_f32()),
                None => Ok(()),
            },
            Vector::Int8(_) | Vector::Bit(_) => Ok(()),
        }
    }

    /// The same vector, borrowed from nothing.
    #[must_use]
    pub fn into_owned(self) -> Vector<'static> {
        match self {
            Vector::F32(v) => Vector::F32(Cow::Owned(v.into_owned())),
            Vector::F16(v) => Vector::F16(Cow::Owned(v.into_owned())),
            Vector::Int8(v) => Vector::Int8(Cow::Owned(v.into_owned())),
            Vector::Bit(v) => Vector::Bit(Cow::Owned(v.into_owned())),
        }
    }
}

/// Reads a BLOB as a float32 vector, in place where its alignment allows it.
///
/// # Errors
/// When it is empty, no multiple of 4 bytes, too long, or a component is NaN or infinite.
pub fn f32_from_blob(blob: &[u8]) -> Result<Cow<'_, [f32]>> {
    match Vector::from_blob(Element::F32, blob)? {
        Vector::F32(v) => Ok(v),
        other => bail!("expected a float32 vector, got {}", other.element().name()),
    }
}

/// Reads a BLOB as a float32 vector like [`Vector::decode`], without an allocation for each: where its alignment does
/// not fit, it is copied to `buffer`. For loops over rows: SQLite hands out BLOBs wherever they lie in a page.
///
/// # Errors
/// Those of [`Vector::decode`].
#[inline]
pub fn f32_in<'a>(blob: &'a [u8], buffer: &'a mut Vec<f32>) -> Result<&'a [f32]> {
    check_length(Element::F32, blob)?;
    if let Ok(vector) = bytemuck::try_cast_slice(blob) {
        return Ok(vector);
    }
    buffer.resize(blob.len() / 4, 0.0);
    bytemuck::cast_slice_mut(buffer).copy_from_slice(blob);
    Ok(buffer)
}

/// Refuses a BLOB that can't be a vector of this element type.
#[inline]
fn check_length(element: Element, blob: &[u8]) -> Result<()> {
    ensure!(!blob.is_empty(), super::EMPTY);
    let (size, components) = match element {
        Element::F32 => (4, blob.len() / 4),
        Element::F16 => (2, blob.len() / 2),
        Element::Int8 => (1, blob.len()),
        Element::Bit => (1, blob.len().saturating_mul(8)),
    };
    if !blob.len().is_multiple_of(size) {
        bail!(
            "invalid {} vector BLOB length. Must be divisible by {size}, found {}",
            element.name(),
            blob.len()
        );
    }
    check_dim(components)
}

/// The components of a BLOB whose length fits: cast, or copied when the alignment does not fit.
fn components<T: bytemuck::Pod>(blob: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(blob) {
        Ok(slice) => Cow::Borrowed(slice),
        Err(_) => Cow::Owned(bytemuck::allocation::pod_collect_to_vec(blob)),
    }
}

/// Narrows a component, or says that it does not fit; so below.
pub(super) fn to_f32(x: f64) -> Result<f32, &'static str> {
    let narrow = x as f32;
    if narrow.is_finite() {
        Ok(narrow)
    } else {
        Err("value out of range for float32")
    }
}

pub(super) fn to_f16(x: f64) -> Result<f16, &'static str> {
    let narrow = f16::from_f64(x);
    if narrow.is_finite() {
        Ok(narrow)
    } else {
        Err("value out of range for float16")
    }
}

pub(super) fn to_i8(x: i64) -> Result<i8, &'static str> {
    i8::try_from(x).map_err(|_| "value out of range for int8")
}

pub(super) fn to_bit(x: i64) -> Result<u8, &'static str> {
    match x {
        0 => Ok(0),
        1 => Ok(1),
        _ => Err("value out of range for bit"),
    }
}

/// A bit vector of components 0 and 1.
pub(super) fn pack_bits(components: &[u8]) -> Result<Vector<'static>> {
    let (bytes, rest) = components.as_chunks::<8>();
    ensure!(
        rest.is_empty(),
        "a bit vector has a number of components divisible by 8, found {}",
        components.len()
    );
    let byte = |bits: &[u8; 8]| (0..8).fold(0, |byte, i| byte | bits[i] << i);
    Ok(Vector::Bit(bytes.iter().map(byte).collect()))
}

/// Converts every component, or names the first that does not fit.
fn convert<T, U>(
    components: impl Iterator<Item = T>,
    each: impl Fn(T) -> Result<U, &'static str>,
) -> Result<Vec<U>> {
    components
        .enumerate()
        .map(|(i, x)| each(x).map_err(|what| anyhow!("component {i}: {what}")))
        .collect()
}

/// Refuses a dimension that no vector may have.
pub(super) fn check_dim(dim: usize) -> Result<()> {
    ensure!(dim > 0, super::EMPTY);
    ensure!(
        dim <= MAX_DIM,
        "a vector has at most {MAX_DIM} components, found {dim}"
    );
    Ok(())
}

/// Checks that every component is a finite number.
///
/// # Errors
/// The index of the first that is not.
pub fn check_f32(components: &[f32]) -> Result<()> {
    // The largest magnitude as an integer first, without a branch for each component: the loop vectorises.
    let highest = components
        .iter()
        .fold(0, |max, x| (x.to_bits() & 0x7fff_ffff).max(max));
    if highest < 0x7f80_0000 {
        return Ok(());
    }
    match components.iter().position(|x| !x.is_finite()) {
        Some(i) => not_finite(i, components[i]),
        None => Ok(()),
    }
}

/// The error for component `i`.
pub(super) fn not_finite<T>(i: usize, component: f32) -> Result<T> {
    let what = if component.is_nan() {
        "NaN"
    } else {
        "infinite"
    };
    bail!("component {i} of the vector is {what}: expected a finite number")
}
