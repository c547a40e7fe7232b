//! Files of vectors, as other programs write and read them. Nothing is kept in memory but one vector.
//!
//! | format | a file is | from |
//! |---|---|---|
//! | `word2vec` | a line `count dim`, then lines `word x1 x2 ...` | word2vec.c, gensim, fastText's `.vec` |
//! | `word2vec-binary` | a line `count dim`, then `word`, a blank, and dim little-endian f32 | word2vec.c, gensim |
//! | `glove` | lines `word x1 x2 ...` | GloVe |
//! | `npy` | a NumPy array of shape (count, dim); no words | `numpy.save` |
//! | `fvecs` | for each vector its dim as i32 and dim f32, little-endian; no words | TEXMEX, faiss |
//!
//! [`Reader`] gives one [`Entry`] after the other, [`Writer`] takes them. A float survives the way through each format
//! bit for bit: text has the shortest decimal number that reads back as the same float. An error of the reader names the
//! line (text) or the byte (the others) where the file is not what its format promises. Lengths that a file claims are
//! compared with the bounds of this library before anything is allocated.

mod npy;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::{Entry, Reader};
pub use write::Writer;

/// A format. See the module page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text with a header.
    Word2vec,
    /// Words and floats with a header.
    Word2vecBinary,
    /// Text without a header.
    Glove,
    /// An array of NumPy.
    Npy,
    /// Vectors that each begin with their dim.
    Fvecs,
}

impl Format {
    /// All of them, in the order they are listed to users.
    pub const ALL: [Format; 5] = [
        Format::Word2vec,
        Format::Word2vecBinary,
        Format::Glove,
        Format::Npy,
        Format::Fvecs,
    ];

    /// The name that users give.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Word2vec => "word2vec",
            Format::Word2vecBinary => "word2vec-binary",
            Format::Glove => "glove",
            Format::Npy => "npy",
            Format::Fvecs => "fvecs",
        }
    }

    /// The format of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.name() == name)
    }

    /// The format that a file's name ends with, if that says it.
    #[must_use]
    pub fn of_name(path: &str) -> Option<Format> {
        match path.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "txt" | "vec" => Some(Format::Word2vec),
            "bin" => Some(Format::Word2vecBinary),
            "npy" => Some(Format::Npy),
            "fvecs" => Some(Format::Fvecs),
            _ => None,
        }
    }

    /// Whether the format has words.
    #[must_use]
    pub fn has_words(self) -> bool {
        !matches!(self, Format::Npy | Format::Fvecs)
    }
}
