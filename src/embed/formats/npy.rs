//! The header of a NumPy array: a magic, a version, a length, and a Python dictionary in ASCII
//! (numpy.lib.format's description).

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};
use half::f16;

use super::read::Source;
use crate::vector::MAX_DIM;

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// Bytes of a header: NumPy's own are of a few hundred.
const MAX_HEADER: usize = 1 << 16;

/// The type of a component in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F16,
    F32,
    /// Rounded to the nearest f32.
    F64,
    U8,
    I8,
}

impl Element {
    /// One component.
    pub(super) fn read(self, source: &mut Source<impl BufRead>) -> Result<f32> {
        Ok(match self {
            Element::F16 => f16::from_le_bytes(source.array()?).to_f32(),
            Element::F32 => f32::from_le_bytes(source.array()?),
            Element::F64 => f64::from_le_bytes(source.array()?) as f32,
            Element::U8 => f32::from(u8::from_le_bytes(source.array()?)),
            Element::I8 => f32::from(i8::from_le_bytes(source.array()?)),
        })
    }
}

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) element: Element,
    pub(super) n_rows: u64,
    pub(super) dim: usize,
}

/// Reads a header to its end.
pub(super) fn read(source: &mut Source<impl BufRead>) -> Result<Header> {
    let short = "byte 0: expected a NumPy array (.npy), got a file that ends in its header";
    let magic: [u8; 6] = source.array().context(short)?;
    if magic != MAGIC {
        bail!("byte 0: expected a NumPy array (.npy), which begins with \\x93NUMPY");
    }
    let [major, minor] = source.array().context(short)?;
    let length = match major {
        1 => usize::from(u16::from_le_bytes(source.array().context(short)?)),
        2 | 3 => u32::from_le_bytes(source.array().context(short)?) as usize,
        _ => bail!("byte 6: expected version 1, 2 or 3 of the format, got {major}.{minor}"),
    };
    if length > MAX_HEADER {
        bail!("byte 8: expected a header of at most {MAX_HEADER} bytes, got {length}");
    }
    let mut text = vec![0; length];
    source.exact(&mut text).context(short)?;
    let text = String::from_utf8_lossy(&text);

    let element = match value(&text, "descr")?.trim_matches(['\'', '"']) {
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        "<f2" => Element::F16,
        "|u1" => Element::U8,
        "|i1" => Element::I8,
        other => bail!(
            "byte 10: expected components of type <f4, <f8, <f2, |u1 or |i1, got {other}; save array.astype('<f4')"
        ),
    };
    let shape: Option<Vec<u64>> = value(&text, "shape")?
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().ok())
        .collect();
    let [n_rows, dim] = shape.as_deref().unwrap_or_default() else {
        bail!("byte 10: expected an array of shape (count, dim), got {text}");
    };
    if value(&text, "fortran_order")? != "False" && *n_rows > 1 {
        bail!(
            "byte 10: expected rows one after the other, got Fortran's order; save numpy.ascontiguousarray(array)"
        );
    }
    if !(1..=MAX_DIM as u64).contains(dim) {
        bail!("byte 10: expected vectors of 1 to {MAX_DIM} components, got {dim}");
    }
    Ok(Header {
        element,
        n_rows: *n_rows,
        dim: *dim as usize,
    })
}

/// The value of a name in the dictionary, up to the comma or the closing parenthesis that ends it.
fn value<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let found = ['\'', '"']
        .iter()
        .find_map(|q| text.split_once(&format!("{q}{name}{q}:")));
    let Some((_, rest)) = found else {
        bail!("byte 10: expected '{name}' in the header, got {text}");
    };
    let rest = rest.trim_start();
    let end = if rest.starts_with('(') {
        rest.find(')').map(|p| p + 1)
    } else {
        rest.find([',', '}'])
    };
    Ok(rest[..end.unwrap_or(rest.len())].trim())
}

/// Writes the header of n vectors of f32.
pub(super) fn write(out: &mut impl Write, n: u64, dim: usize) -> std::io::Result<()> {
    let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n}, {dim}), }}");
    // The data begins at a multiple of 64, as NumPy has it.
    let padded = (10 + dictionary.len() + 1).next_multiple_of(64) - 10;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&(padded as u16).to_le_bytes())?;
    writeln!(out, "{dictionary:<width$}", width = padded - 1)
}
