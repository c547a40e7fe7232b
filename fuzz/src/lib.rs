//! What the fuzz targets share: edits of bytes, and the index file taken apart and put together again.
//!
//! Targets work on edits of valid files, not on whole files: so a fuzzer needs no corpus to get past the door, and the
//! checksums can be made right again after the damage.

use std::ops::Range;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use xxhash_rust::xxh3::xxh3_64;

/// One edit. Places are taken modulo the length.
#[derive(Debug, Arbitrary)]
pub enum Edit {
    /// Writes a byte.
    Byte(u32, u8),
    /// Writes four bytes.
    Word(u32, u32),
    /// Writes eight bytes.
    Long(u32, u64),
    /// Writes a float that is likely to be trouble.
    Float(u32, Trouble),
    /// Ends here.
    Cut(u32),
    /// Copies eight bytes from one place to another.
    Copy(u32, u32),
    /// Puts bytes in between.
    Insert(u32, Vec<u8>),
    /// Takes bytes out.
    Remove(u32, u8),
}

/// Floats that break arithmetic.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Trouble {
    Nan,
    Infinity,
    Negative,
    Huge,
    Tiny,
    Zero,
}

impl Trouble {
    fn float(self) -> f32 {
        match self {
            Trouble::Nan => f32::NAN,
            Trouble::Infinity => f32::INFINITY,
            Trouble::Negative => -1.0,
            Trouble::Huge => f32::MAX,
            Trouble::Tiny => f32::from_bits(1),
            Trouble::Zero => 0.0,
        }
    }
}

impl Edit {
    /// Changes `bytes`.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let n = bytes.len();
        let place = |at: u32| if n == 0 { 0 } else { at as usize % n };
        let mut put = |at: u32, new: &[u8]| {
            let at = place(at);
            let end = n.min(at + new.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        };
        match self {
            Edit::Byte(at, to) => put(*at, &[*to]),
            // Numbers lie at multiples of four.
            Edit::Word(at, to) => put(at & !3, &to.to_le_bytes()),
            Edit::Long(at, to) => put(at & !3, &to.to_le_bytes()),
            Edit::Float(at, to) => put(at & !3, &to.float().to_le_bytes()),
            Edit::Cut(at) => bytes.truncate(place(*at)),
            Edit::Copy(from, to) => {
                let from = place(*from);
                let some = bytes[from..n.min(from + 8)].to_vec();
                let to = place(*to);
                let end = n.min(to + some.len());
                bytes[to..end].copy_from_slice(&some[..end - to]);
            }
            Edit::Insert(at, some) => {
                let at = place(*at);
                bytes.splice(at..at, some.iter().copied());
            }
            Edit::Remove(at, many) => {
                let at = place(*at);
                bytes.drain(at..n.min(at + usize::from(*many)));
            }
        }
    }
}

const HEADER: usize = 128;
const ENTRY: usize = 32;
const ALIGN: usize = 64;

/// An index file in its parts, as `docs/guarantees.md` describes it: the header, then the sections.
pub struct Parts(pub Vec<Vec<u8>>);

impl Parts {
    /// Takes a valid file apart.
    pub fn of(file: &[u8]) -> Parts {
        let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
        let sections = u32::from_le_bytes(file[60..64].try_into().unwrap()) as usize;
        let range = |i: usize| -> Range<usize> {
            let entry = HEADER + ENTRY * i;
            number(entry + 8)..number(entry + 8) + number(entry + 16)
        };
        let parts = (0..sections).map(|i| file[range(i)].to_vec());
        Parts(
            std::iter::once(file[..HEADER].to_vec())
                .chain(parts)
                .collect(),
        )
    }

    /// Puts them together: offsets, lengths and checksums are right whatever the parts hold.
    pub fn file(&self) -> Vec<u8> {
        let (header, sections) = self.0.split_first().unwrap();
        let mut out = header.clone();
        out.resize(HEADER, 0);
        let table = (HEADER + ENTRY * sections.len()).next_multiple_of(ALIGN);
        let mut at = table;
        let mut bodies = Vec::new();
        for (i, section) in sections.iter().enumerate() {
            let mut padded = section.clone();
            padded.resize(section.len().next_multiple_of(ALIGN), 0);
            out.extend((i as u32 + 1).to_le_bytes());
            out.extend([0; 4]);
            out.extend((at as u64).to_le_bytes());
            out.extend((section.len() as u64).to_le_bytes());
            out.extend(xxh3_64(&padded).to_le_bytes());
            at += padded.len();
            bodies.extend(padded);
        }
        out.resize(table, 0);
        out[16..24].copy_from_slice(&(at as u64).to_le_bytes());
        out[24..32].fill(0);
        let checksum = xxh3_64(&out).to_le_bytes();
        out[24..32].copy_from_slice(&checksum);
        out.extend(bodies);
        out
    }
}
