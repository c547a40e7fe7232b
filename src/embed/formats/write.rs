//! Vectors into a file.

use std::io::Write;

use anyhow::{Result, bail};

use super::{Format, npy};

/// Writes a file of vectors.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    format: Format,
    dim: usize,
}

impl<W: Write> Writer<W> {
    /// Begins a file of `n` vectors of `dim` components.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new(mut out: W, format: Format, n: u64, dim: usize) -> Result<Writer<W>> {
        match format {
            Format::Word2vec | Format::Word2vecBinary => writeln!(out, "{n} {dim}")?,
            Format::Npy => npy::write(&mut out, n, dim)?,
            Format::Glove | Format::Fvecs => {}
        }
        Ok(Writer { out, format, dim })
    }

    /// Adds a vector, with its word where the format has words.
    ///
    /// # Errors
    /// A vector of another dimension, a word that the format can't hold, or a failing write.
    pub fn entry(&mut self, word: &str, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dim {
            bail!(
                "the vector of '{word}' has {} components, expected {} as the others have",
                vector.len(),
                self.dim
            );
        }
        if self.format.has_words() && (word.is_empty() || word.contains([' ', '\n', '\r', '\t'])) {
            bail!(
                "the word '{}' can't be written: in this format a word ends with a blank; export to npy, or replace \
                 the blanks",
                word.escape_debug()
            );
        }
        match self.format {
            Format::Word2vec | Format::Glove => {
                self.out.write_all(word.as_bytes())?;
                for x in vector {
                    write!(self.out, " {x}")?;
                }
                self.out.write_all(b"\n")?;
            }
            Format::Word2vecBinary => {
                write!(self.out, "{word} ")?;
                self.floats(vector)?;
            }
            Format::Npy => self.floats(vector)?,
            Format::Fvecs => {
                self.out.write_all(&(self.dim as i32).to_le_bytes())?;
                self.floats(vector)?;
            }
        }
        Ok(())
    }

    fn floats(&mut self, vector: &[f32]) -> Result<()> {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        Ok(self.out.write_all(&bytes)?)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
