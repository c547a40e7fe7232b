//! `text_lines(path)`: the lines of a text file as rows (line, text), to import a corpus of one document a line.
//!
//! ```sql
//! INSERT INTO corpus(id, body) SELECT line, text FROM text_lines('corpus.txt');
//! ```
//!
//! Lines end with LF or CRLF, which is not part of them; the last one may lack it. Lines count from 1. The file must be
//! UTF-8; a byte-order mark at its start is skipped. DIRECTONLY, because it reads files.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, bail};
use rusqlite::types::Value;

use super::vtab::function::{Function, Scope};

/// The largest text that SQLite takes unless it was built otherwise (SQLITE_MAX_LENGTH).
const MAX_LINE: u64 = 1_000_000_000;

pub(super) struct TextLines;

impl Function for TextLines {
    const NAME: &'static str = "text_lines";
    const COLUMNS: &'static [&'static str] = &["line INTEGER", "text TEXT"];
    const ARGUMENTS: &'static [&'static str] = &["path"];
    const REQUIRED: usize = 1;
    const DIRECT_ONLY: bool = true;
    const ROWS: i64 = 100_000;
    type Rows = Lines<BufReader<File>>;

    fn call(_scope: &Scope, args: &[Value]) -> Result<Self::Rows> {
        let Some(Value::Text(path)) = args.first() else {
            bail!("text_lines: expected the path of a text file, got no text");
        };
        let file = File::open(path).with_context(|| {
            let here = std::env::current_dir().unwrap_or_default();
            format!(
                "text_lines: cannot open '{path}' (give a full path, or one relative to {})",
                here.display()
            )
        })?;
        Ok(Lines {
            name: path.clone(),
            reader: BufReader::with_capacity(1 << 16, file),
            line: 0,
        })
    }
}

/// The lines of a reader.
pub(super) struct Lines<R> {
    name: String,
    reader: R,
    line: i64,
}

impl<R: BufRead> Lines<R> {
    /// The next line; None after the last.
    fn read(&mut self) -> Result<Option<String>> {
        self.line += 1;
        let place = || format!("text_lines: '{}', line {}", self.name, self.line);
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(MAX_LINE + 2);
        if limited.read_until(b'\n', &mut bytes).with_context(place)? == 0 {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.len() as u64 > MAX_LINE {
            bail!(
                "{}: longer than {MAX_LINE} bytes; is it a text file?",
                place()
            );
        }
        if self.line == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => bail!(
                "{}: not UTF-8 at byte {}; convert the file first (iconv -t UTF-8)",
                place(),
                error.utf8_error().valid_up_to() + 1
            ),
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Vec<Value>>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.read().transpose()?;
        Some(text.map(|text| vec![self.line.into(), text.into()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<String>> {
        let mut lines = Lines {
            name: "x".to_string(),
            reader: bytes,
            line: 0,
        };
        std::iter::from_fn(|| lines.read().transpose()).collect()
    }

    #[test]
    fn every_way_to_end_a_line_is_understood() {
        for (bytes, expected) in [
            (&b""[..], &[][..]),
            (b"a", &["a"]),
            (b"a\n", &["a"]),
            (b"a\r\nb\n\nc", &["a", "b", "", "c"]),
            (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", &["a", "\u{feff}b"]),
            (b"a\rb\n", &["a\rb"]),
            (b"a\0b\n", &["a\0b"]),
        ] {
            assert_eq!(lines(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named_by_line_and_place() {
        assert_eq!(
            lines(b"good\nb\xc3\xa4\xffd\n").unwrap_err().to_string(),
            "text_lines: 'x', line 2: not UTF-8 at byte 4; convert the file first (iconv -t UTF-8)"
        );
    }
}
