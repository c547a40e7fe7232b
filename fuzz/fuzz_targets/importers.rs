//! Files of vectors and fastText models, whole or damaged: read, and what was read written and read again.
#![no_main]

use std::io::BufReader;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sqlite_annoy::embed::fasttext::facebook;
use sqlite_annoy::embed::formats::{Entry, Format, Reader, Writer};
use sqlite_annoy_fuzz::Edit;

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    format: Option<u8>,
    /// Edits of a valid file of that format; otherwise the bytes are the file.
    edits: Option<Vec<Edit>>,
    bytes: &'a [u8],
    buffer: u8,
}

/// The original's model of two words and three buckets.
fn fasttext(is_new: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if is_new {
        bytes.extend(793_712_314i32.to_le_bytes());
        bytes.extend(12i32.to_le_bytes());
    }
    for field in [2i32, 5, 5, 1, 5, 1, 2, 2, 3, 3, 6, 100] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(1e-4f64.to_le_bytes());
    for n in [2i32, 2, 0] {
        bytes.extend(n.to_le_bytes());
    }
    bytes.extend(9i64.to_le_bytes());
    if is_new {
        bytes.extend((-1i64).to_le_bytes());
    }
    for (word, count) in [(&b"</s>\0"[..], 4i64), (b"h\xfct\0", 5)] {
        bytes.extend(word);
        bytes.extend(count.to_le_bytes());
        bytes.push(0);
    }
    for n in [5i64, 2] {
        if is_new {
            bytes.push(0);
        }
        bytes.extend(n.to_le_bytes());
        bytes.extend(2i64.to_le_bytes());
        (0..n * 2).for_each(|i| bytes.extend((i as f32).to_le_bytes()));
    }
    bytes
}

fn valid(format: u8) -> Vec<u8> {
    match Format::ALL.get(usize::from(format % 7)) {
        Some(&format) => {
            let mut writer = Writer::new(Vec::new(), format, 3, 2).unwrap();
            for (word, vector) in [
                ("a", [1.0, -2.5]),
                ("bär", [0.0, 1e-30]),
                ("c", [3e30, 1.0]),
            ] {
                writer.entry(word, &vector).unwrap();
            }
            writer.finish().unwrap()
        }
        None => fasttext(format % 7 == 6),
    }
}

fn read(bytes: &[u8], buffer: usize, format: Option<Format>) -> Option<(Format, Vec<Entry>)> {
    let reader = Reader::new(BufReader::with_capacity(1 + buffer, bytes), format).ok()?;
    let format = reader.format();
    let entries: Result<Vec<Entry>, _> = reader.collect();
    Some((format, entries.ok()?))
}

fuzz_target!(|case: Case| {
    let mut edited;
    let bytes = match (&case.edits, case.format) {
        (Some(edits), format) => {
            edited = valid(format.unwrap_or(0));
            edits.iter().for_each(|edit| edit.apply(&mut edited));
            edited.as_slice()
        }
        (None, _) => case.bytes,
    };
    if let Ok(model) = facebook::read(bytes, bytes.len() as u64) {
        for id in 0..model.vocabulary.len() {
            let _ = model.vector(id as u32);
        }
    }
    let format = case
        .format
        .and_then(|f| Format::ALL.get(usize::from(f % 7)).copied());
    let Some((format, entries)) = read(bytes, case.buffer.into(), format) else {
        return;
    };
    let Some(first) = entries.first() else { return };
    let dim = first.vector.len();
    assert!(
        entries
            .iter()
            .all(|e| e.vector.len() == dim && e.vector.iter().all(|x| x.is_finite()))
    );
    let mut writer = Writer::new(Vec::new(), format, entries.len() as u64, dim).unwrap();
    for entry in &entries {
        // A word with a blank can be read (GloVe has some) and not written.
        if writer
            .entry(entry.word.as_deref().unwrap_or(""), &entry.vector)
            .is_err()
        {
            return;
        }
    }
    let written = writer.finish().unwrap();
    let (_, again) = read(&written, 4096, Some(format)).unwrap();
    assert_eq!(again, entries);
});
