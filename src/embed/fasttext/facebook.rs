//! The `.bin` files of the original program, versions before and since 2017 (which begin with a magic number).
//!
//! ```text
//! [magic, version] dim, window, epochs, min_count, negative, word_ngrams, loss, model, bucket, min_n, max_n, rate (i32), sample (f64)
//! n_entries, n_words, n_labels (i32), n_tokens (i64) [, pruned (i64)]
//! n_entries times: word, 0, count (i64), type (i8)
//! [quantised (u8)] n_words + bucket, dim (i64), rows of f32      words, then n-grams
//! [quantised (u8)] n, dim (i64), rows of f32                     output vectors
//! ```
//!
//! Numbers are little-endian. What a file claims is compared with its length before anything is allocated; an error names
//! the byte. Models of the classifier, quantised and pruned ones are refused.

use std::io::{BufRead, Read};

use anyhow::{Context, Result, bail, ensure};

use super::{Fasttext, FasttextOptions, ngrams};
use crate::embed::matrix::Matrix;
use crate::embed::options::Options;
use crate::embed::tokenize::{Splitter, Tokenizer};
use crate::embed::vocab::Vocabulary;
use crate::vector::MAX_DIM;

const MAGIC: [u8; 4] = 793_712_314i32.to_le_bytes();

/// What the original takes for the end of a line: since 2017 a word without n-grams.
const END_OF_LINE: &str = "</s>";

/// Whether a file begins as such a file does.
#[must_use]
pub fn is_facebook(start: &[u8]) -> bool {
    // Without the magic number there is the dimension, whose upper bytes no text has.
    start.starts_with(&MAGIC)
        || start
            .first_chunk::<8>()
            .is_some_and(|[a, b, c, d, e, f, g, h]| {
                [*c, *d, *f, *g, *h] == [0; 5] && (*a, *b) != (0, 0) && *e != 0
            })
}

/// Reads a model of `length` bytes.
///
/// # Errors
/// A file that is not such a model, with the byte where that shows.
pub fn read(reader: impl BufRead, length: u64) -> Result<Fasttext> {
    let mut source = Source {
        reader,
        offset: 0,
        length,
    };
    let mut dim = source.i32()?;
    let is_new = dim.to_le_bytes() == MAGIC;
    if is_new {
        let version = source.i32()?;
        ensure!(
            version == 12 || version == 11,
            "byte 4: expected version 11 or 12 of fastText's format, got {version}"
        );
        dim = source.i32()?;
    }
    ensure!(
        (1..=MAX_DIM as i32).contains(&dim),
        "byte {}: expected a dimension from 1 to {MAX_DIM}, got {dim}; is it a fastText model?",
        source.offset - 4
    );
    let dim = dim as usize;
    let mut field = |name: &str, low: i32, high: i32| -> Result<i32> {
        let at = source.offset;
        let value = source.i32()?;
        ensure!(
            (low..=high).contains(&value),
            "byte {at}: expected {name} from {low} to {high}, got {value}; is it a fastText model?"
        );
        Ok(value)
    };
    let most = i32::MAX;
    let window = field("a window", 0, most)?;
    let epochs = field("epochs", 0, most)?;
    let min_count = field("min_count", 0, most)?;
    let negative = field("negative", 0, most)?;
    field("word_ngrams", 0, most)?;
    let loss = field("a loss", 1, 4)?;
    let kind = field("a kind of model", 1, 3)?;
    let bucket = field("buckets", 0, most)? as u32;
    let min_n = field("min_n", 0, 1000)? as usize;
    let max_n = field("max_n", 0, 1000)? as usize;
    field("an update rate", 0, most)?;
    ensure!(
        kind != 3,
        "the file is a model of fastText's classifier: expected one of words (skipgram or cbow)"
    );
    let sample = f64::from_le_bytes(source.array()?);

    let n_entries = source.i32()?;
    let n_words = source.i32()?;
    let n_labels = source.i32()?;
    ensure!(
        n_labels == 0 && n_words > 0 && n_words == n_entries,
        "byte {}: expected words and no labels, got {n_entries} entries, {n_words} words, {n_labels} labels",
        source.offset - 12
    );
    source.i64()?;
    if is_new {
        let pruned = source.i64()?;
        ensure!(
            pruned <= 0,
            "byte {}: the model is pruned, which can't be read; expected the .bin file it was made of",
            source.offset - 8
        );
    }
    let n_words = n_words as u64;
    // The shortest entry: one byte, its end, a count, a type.
    source.expect(n_words.saturating_mul(11), "words")?;
    let (mut words, mut raw) = (Vec::new(), Vec::new());
    for i in 0..n_words {
        let bytes = source.word()?;
        let count = source.i64()?;
        let [kind] = source.array()?;
        ensure!(
            kind == 0 && count >= 0,
            "byte {}: expected the count and the type of word {i}, got {count} and {kind}",
            source.offset - 9
        );
        words.push((shown(&bytes).into(), count as u64));
        raw.push(bytes);
    }

    let n_rows = n_words + u64::from(bucket);
    let [words_matrix, ngrams] =
        source.matrix(&[n_words, u64::from(bucket)], n_rows, dim, is_new)?;
    let [output] = source.matrix(&[n_words], n_words, dim, is_new)?;
    ensure!(
        source.offset == length,
        "byte {}: expected the end of the file, got {} bytes more",
        source.offset,
        length - source.offset
    );

    let mut rows = Vec::new();
    let mut ends = Vec::with_capacity(raw.len());
    for word in &raw {
        if !is_new || word != END_OF_LINE.as_bytes() {
            rows.extend(ngrams::buckets(word, min_n.max(1), max_n, bucket));
        }
        ends.push(rows.len());
    }
    let vocabulary = Vocabulary::from_words(words).context("the model has no words")?;
    let is_tree = loss == 1;
    let base = Options {
        vector_size: dim,
        window: window.clamp(1, 10_000) as usize,
        epochs: epochs.max(1) as usize,
        min_count: min_count as u64,
        negative: if is_tree {
            0
        } else {
            negative.clamp(1, 1000) as usize
        },
        hs: is_tree,
        sg: kind == 2,
        sample: if sample.is_finite() {
            sample.clamp(0.0, 1e15)
        } else {
            0.0
        },
        tokenizer: Tokenizer {
            splitter: Splitter::Whitespace,
            lowercase: false,
        },
        ..Options::default()
    };
    Ok(Fasttext {
        options: FasttextOptions {
            base,
            min_n: min_n.max(1),
            max_n,
            bucket,
        },
        vocabulary,
        words: words_matrix,
        rows,
        ends,
        buckets: (0..bucket).collect(),
        ngrams,
        output: (!is_tree).then_some(output),
        nodes: None,
        losses: Vec::new(),
    })
}

/// A word of any bytes as text: what is not UTF-8 in hexadecimal, as gensim shows it.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

struct Source<R> {
    reader: R,
    offset: u64,
    length: u64,
}

impl<R: BufRead> Source<R> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let at = self.offset;
        self.reader
            .read_exact(bytes)
            .with_context(|| format!("byte {at}: the file ends early"))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// The bytes up to a zero.
    fn word(&mut self) -> Result<Vec<u8>> {
        const MOST: u64 = 1 << 16;
        let mut bytes = Vec::new();
        let at = self.offset;
        self.offset += (&mut self.reader).take(MOST).read_until(0, &mut bytes)? as u64;
        match bytes.pop() {
            Some(0) => Ok(bytes),
            _ => {
                bail!("byte {at}: expected a word of less than {MOST} bytes that ends with a zero")
            }
        }
    }

    /// Checks that the file can hold what it says it holds.
    fn expect(&self, n_bytes: u64, what: &str) -> Result<()> {
        ensure!(
            n_bytes <= self.length.saturating_sub(self.offset),
            "byte {}: the file ends early: expected {n_bytes} bytes of {what}, got {}",
            self.offset,
            self.length.saturating_sub(self.offset)
        );
        Ok(())
    }

    /// A matrix of n rows, cut into several.
    fn matrix<const N: usize>(
        &mut self,
        parts: &[u64; N],
        n: u64,
        dim: usize,
        is_new: bool,
    ) -> Result<[Matrix; N]> {
        let at = self.offset;
        if is_new {
            let [quantised] = self.array()?;
            ensure!(
                quantised == 0,
                "byte {at}: the model is quantised (.ftz), which can't be read; expected the .bin file it was made of"
            );
        }
        let (rows, columns) = (self.i64()?, self.i64()?);
        ensure!(
            u64::try_from(rows) == Ok(n) && columns == dim as i64,
            "byte {at}: expected a matrix of {n} x {dim}, got {rows} x {columns}"
        );
        self.expect(n.saturating_mul(dim as u64 * 4), "vectors")?;
        let mut matrices = Vec::with_capacity(N);
        let mut bytes = vec![0; 4 * dim];
        for &n in parts {
            let mut matrix = Matrix::zeros(usize::try_from(n)?, dim)?;
            for i in 0..matrix.n_rows() {
                let at = self.offset;
                self.fill(&mut bytes)?;
                let floats = bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b));
                for (to, x) in matrix.row_mut(i).iter_mut().zip(floats) {
                    ensure!(
                        x.is_finite(),
                        "byte {at}: expected finite components, got {x}"
                    );
                    *to = x;
                }
            }
            matrices.push(matrix);
        }
        match matrices.try_into() {
            Ok(matrices) => Ok(matrices),
            Err(_) => bail!("a matrix of {N} parts"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::random::Random;

    /// A model of two words and three buckets, in either form.
    fn file(is_new: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if is_new {
            bytes.extend(MAGIC);
            bytes.extend(12i32.to_le_bytes());
        }
        for field in [2, 5, 5, 1, 5, 1, 2, 2, 3, 3, 6, 100] {
            bytes.extend(i32::to_le_bytes(field));
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
            for i in 0..n * 2 {
                bytes.extend((i as f32).to_le_bytes());
            }
        }
        bytes
    }

    fn message(bytes: &[u8]) -> Option<String> {
        read(bytes, bytes.len() as u64)
            .err()
            .map(|e| format!("{e:#}"))
    }

    #[test]
    fn both_forms_are_read_and_known_by_their_first_bytes() {
        for is_new in [false, true] {
            let bytes = file(is_new);
            assert!(is_facebook(&bytes));
            let model = read(bytes.as_slice(), bytes.len() as u64).unwrap();
            assert_eq!(model.vocabulary.word(1), "h\\xfct");
            assert_eq!(model.vocabulary.counts(), [4, 5]);
            if is_new {
                assert_eq!(model.vector(0), [0.0, 1.0]);
            }
            let rows = ngrams::buckets(b"h\xfct", 3, 6, 3);
            assert_eq!(rows.len(), 3 + 2 + 1);
            let sum: u32 = rows.iter().map(|r| 2 * (2 + r)).sum();
            assert_eq!(model.vector(1)[0], (2 + sum) as f32 / 7.0);
            assert_eq!(model.ngrams.row(2), [8.0, 9.0]);
            assert_eq!(model.output.unwrap().row(1), [2.0, 3.0]);
        }
        for other in [
            &b"3 2\na 1 2\n"[..],
            b"12 100\nabc",
            b"",
            b"\0\0\0\0\0\0\0\0",
        ] {
            assert!(!is_facebook(other));
        }
    }

    #[test]
    fn cut_and_damaged_files_are_errors_and_never_panics() {
        for is_new in [false, true] {
            let bytes = file(is_new);
            for n in 0..bytes.len() {
                let message = message(&bytes[..n]).unwrap();
                assert!(message.starts_with("byte "), "cut at {n}: {message}");
            }
            let mut random = Random::new(3, [0, 0]);
            for _ in 0..20_000 {
                let mut damaged = bytes.clone();
                for _ in 0..1 + random.below(3) {
                    damaged[random.below(bytes.len() as u32) as usize] = random.bits() as u8;
                }
                message(&damaged);
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(
                message(&longer)
                    .unwrap()
                    .contains("expected the end of the file")
            );
        }
    }
}
