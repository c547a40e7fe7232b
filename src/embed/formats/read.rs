//! Vectors out of a file.

use std::io::{BufRead, Read};

use anyhow::{Context, Result, bail};

use super::npy::{self, Element};
use super::{Format, npy::Header};
use crate::vector::MAX_DIM;

/// Bytes of a line: a vector of the longest kind with 30 characters a number, and its word.
const MAX_LINE: usize = 30 * MAX_DIM + MAX_WORD;

/// Bytes of a word.
const MAX_WORD: usize = 1 << 16;

/// One vector of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its word, where the format has words.
    pub word: Option<String>,
    /// Its components, all finite.
    pub vector: Vec<f32>,
}

/// Reads a file of vectors: an iterator of entries.
#[derive(Debug)]
pub struct Reader<R> {
    source: Source<R>,
    format: Format,
    element: Element,
    /// Vectors that the file says it has.
    promised: Option<u64>,
    dim: Option<usize>,
    n_read: u64,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Begins to read. Without a format the first bytes tell it; `fvecs` has nothing to be known by, and must be given.
    ///
    /// # Errors
    /// A file that is not of that format, with the line or byte.
    pub fn new(reader: R, format: Option<Format>) -> Result<Reader<R>> {
        let mut source = Source {
            reader,
            offset: 0,
            line: 0,
            bytes: Vec::new(),
        };
        let format = match format {
            Some(format) => format,
            None => source.detect()?,
        };
        let mut reader = Reader {
            source,
            format,
            element: Element::F32,
            promised: None,
            dim: None,
            n_read: 0,
            ended: false,
        };
        match format {
            Format::Word2vec | Format::Word2vecBinary => reader.header()?,
            Format::Npy => {
                let Header {
                    element,
                    n_rows,
                    dim,
                } = npy::read(&mut reader.source)?;
                reader.element = element;
                reader.promised = Some(n_rows);
                reader.dim = Some(dim);
            }
            Format::Glove | Format::Fvecs => {}
        }
        Ok(reader)
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The line `count dim`.
    fn header(&mut self) -> Result<()> {
        if !self.source.next_line()? {
            bail!("line 1: expected a header 'count dim', got an empty file");
        }
        match header_of(&self.source.bytes) {
            Some((n, dim)) if (1..=MAX_DIM as u64).contains(&dim) => {
                self.promised = Some(n);
                self.dim = Some(dim as usize);
                Ok(())
            }
            Some((_, dim)) => {
                bail!("line 1: expected vectors of 1 to {MAX_DIM} components, got {dim}")
            }
            None => bail!(
                "line 1: expected a header 'count dim', got '{}'",
                shown(&self.source.bytes)
            ),
        }
    }

    fn read(&mut self) -> Result<Option<Entry>> {
        let entry = match self.format {
            Format::Word2vec | Format::Glove => self.text()?,
            _ if self.promised == Some(self.n_read) => self.end()?,
            Format::Word2vecBinary => Some(self.binary()?),
            Format::Npy => Some(Entry {
                word: None,
                vector: self.components()?,
            }),
            Format::Fvecs => self.fvecs()?,
        };
        if entry.is_some() {
            self.n_read += 1;
        }
        Ok(entry)
    }

    /// What must stand behind the last vector of a binary file: at most a line end.
    fn end(&mut self) -> Result<Option<Entry>> {
        let mut rest = Vec::new();
        let at = self.source.offset;
        (&mut self.source.reader).take(2).read_to_end(&mut rest)?;
        match rest.as_slice() {
            b"" | b"\n" | b"\r\n" => Ok(None),
            _ => bail!(
                "byte {at}: expected the end of the file after {} vectors, got more bytes",
                self.n_read
            ),
        }
    }

    fn text(&mut self) -> Result<Option<Entry>> {
        if !self.source.next_line()? {
            return match self.promised {
                Some(n) if n != self.n_read => bail!(
                    "line {}: the file ends after {} vectors, expected {n} as its first line says",
                    self.source.line,
                    self.n_read
                ),
                _ => Ok(None),
            };
        }
        let line = self.source.line;
        let bytes = &self.source.bytes;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            // Nothing but empty lines may follow.
            while self.source.next_line()? {
                if !self.source.bytes.iter().all(u8::is_ascii_whitespace) {
                    bail!("line {line}: expected a word and its vector, got an empty line");
                }
            }
            return self.text();
        }
        if self.promised == Some(self.n_read) {
            bail!(
                "line {line}: expected the end of the file after {} vectors, got another line",
                self.n_read
            );
        }
        let is_blank = |b: &u8| *b == b' ' || *b == b'\t';
        let bytes = bytes.trim_ascii_end();
        let dim = match self.dim {
            Some(dim) => dim,
            None => {
                let fields = bytes.split(is_blank).filter(|f| !f.is_empty()).count();
                if !(2..=MAX_DIM + 1).contains(&fields) {
                    bail!(
                        "line {line}: expected a word and 1 to {MAX_DIM} numbers, got '{}'",
                        shown(bytes)
                    );
                }
                fields - 1
            }
        };
        self.dim = Some(dim);
        // From the right: a word may have blanks in it, as some of GloVe's have.
        let mut vector = vec![0.0; dim];
        let mut rest = bytes;
        for i in (0..dim).rev() {
            let start = rest.iter().rposition(is_blank).map_or(0, |p| p + 1);
            let (before, field) = rest.split_at(start);
            let number = std::str::from_utf8(field).ok().and_then(|f| f.parse().ok());
            let Some(number) = number.filter(|_| start > 0) else {
                bail!(
                    "line {line}: expected a word and {dim} numbers, got '{}' as number {}",
                    shown(field),
                    i + 1
                );
            };
            vector[i] = number;
            rest = before.trim_ascii_end();
        }
        if let Some(i) = vector.iter().position(|x: &f32| !x.is_finite()) {
            bail!(
                "line {line}: expected finite numbers, got {} as number {}",
                vector[i],
                i + 1
            );
        }
        let Ok(word) = std::str::from_utf8(rest) else {
            bail!("line {line}: the word is not UTF-8; convert the file first (iconv -t UTF-8)");
        };
        if word.is_empty() {
            bail!("line {line}: expected a word and {dim} numbers, got {dim} numbers alone");
        }
        Ok(Some(Entry {
            word: Some(word.to_owned()),
            vector,
        }))
    }

    fn binary(&mut self) -> Result<Entry> {
        let mut word = Vec::new();
        let start = self.source.offset;
        loop {
            let [byte] = self
                .source
                .array()
                .with_context(|| self.short("in a word"))?;
            match byte {
                b' ' => break,
                // What word2vec.c writes after each vector.
                b'\n' if word.is_empty() => {}
                _ if word.len() >= MAX_WORD => bail!(
                    "byte {start}: expected a word and a blank, got {MAX_WORD} bytes without a blank"
                ),
                byte => word.push(byte),
            }
        }
        let Ok(word) = String::from_utf8(word) else {
            bail!("byte {start}: the word is not UTF-8");
        };
        if word.is_empty() {
            bail!("byte {start}: expected a word, got a blank");
        }
        Ok(Entry {
            word: Some(word),
            vector: self.components()?,
        })
    }

    fn fvecs(&mut self) -> Result<Option<Entry>> {
        if self.source.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let at = self.source.offset;
        let dim = i32::from_le_bytes(
            self.source
                .array()
                .with_context(|| self.short("in a dimension"))?,
        );
        match (usize::try_from(dim), self.dim) {
            (Ok(dim), Some(expected)) if dim == expected => {}
            (Ok(dim), None) if (1..=MAX_DIM).contains(&dim) => self.dim = Some(dim),
            (_, Some(expected)) => bail!(
                "byte {at}: expected the dimension {expected} of the vectors before, got {dim}"
            ),
            (_, None) => bail!(
                "byte {at}: expected a dimension from 1 to {MAX_DIM}, got {dim}; is it an .fvecs file?"
            ),
        }
        Ok(Some(Entry {
            word: None,
            vector: self.components()?,
        }))
    }

    /// The next vector's components.
    fn components(&mut self) -> Result<Vec<f32>> {
        let dim = self.dim.unwrap_or(0);
        let mut vector = Vec::with_capacity(dim);
        for i in 0..dim {
            let at = self.source.offset;
            let x = self
                .element
                .read(&mut self.source)
                .with_context(|| self.short(&format!("in component {}", i + 1)))?;
            if !x.is_finite() {
                bail!(
                    "byte {at}: expected finite components, got {x} as component {} of vector {}",
                    i + 1,
                    self.n_read + 1
                );
            }
            vector.push(x);
        }
        Ok(vector)
    }

    fn short(&self, place: &str) -> String {
        let of = match self.promised {
            Some(n) => format!(" of {n}"),
            None => String::new(),
        };
        format!(
            "byte {}: the file ends {place} of vector {}{of}",
            self.source.offset,
            self.n_read + 1
        )
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = self.read().transpose();
        self.ended = !matches!(entry, Some(Ok(_)));
        entry
    }
}

/// Count and dim, if that is what a line has.
fn header_of(line: &[u8]) -> Option<(u64, u64)> {
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let header = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    fields.next().is_none().then_some(header)
}

/// At most 40 characters of what was found, for a message.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]);
    let text = text.trim_end();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Bytes, and how far they were read.
#[derive(Debug)]
pub(super) struct Source<R> {
    reader: R,
    offset: u64,
    line: u64,
    /// The line that was read last.
    bytes: Vec<u8>,
}

impl<R: BufRead> Source<R> {
    /// The next N bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills a buffer.
    pub(super) fn exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Reads the next line, without its end; false at the end of the file.
    fn next_line(&mut self) -> Result<bool> {
        self.line += 1;
        self.bytes.clear();
        let limit = MAX_LINE as u64 + 1;
        let n = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.bytes)?;
        self.offset += n as u64;
        if n as u64 == limit {
            bail!(
                "line {}: longer than {MAX_LINE} bytes; is it a text file?",
                self.line
            );
        }
        while matches!(self.bytes.last(), Some(b'\n' | b'\r')) {
            self.bytes.pop();
        }
        Ok(n > 0)
    }

    /// What the first bytes say.
    fn detect(&mut self) -> Result<Format> {
        let start = self.reader.fill_buf()?;
        if start.starts_with(npy::MAGIC) {
            return Ok(Format::Npy);
        }
        if start.starts_with(&[0x1f, 0x8b]) {
            bail!("byte 0: the file is compressed by gzip; unpack it first (gunzip)");
        }
        let line_end = start.iter().position(|&b| b == b'\n');
        let (line, rest) = start.split_at(line_end.unwrap_or(start.len()));
        if header_of(line).is_none() {
            return Ok(Format::Glove);
        }
        // Behind the first word of a text there is nothing but numbers up to the end of the line.
        let rest = rest.get(1..).unwrap_or_default();
        let word_end = rest
            .iter()
            .skip_while(|&&b| b == b'\n')
            .position(|&b| b == b' ' || b == b'\t');
        let numbers = rest.get(word_end.unwrap_or(0)..).unwrap_or_default();
        let is_text = numbers
            .iter()
            .take_while(|&&b| b != b'\n')
            .take(64)
            .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
        Ok(if is_text {
            Format::Word2vec
        } else {
            Format::Word2vecBinary
        })
    }
}
