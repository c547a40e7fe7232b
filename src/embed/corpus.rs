//! The text to train on, as word ids: 4 bytes a token.
//!
//! [`CorpusBuilder`] reads it. Documents stay apart: no window crosses from one into the next. No token is lost, however
//! long a document is. With the option `max_memory` a large corpus lies in a temporary file (`tokens`).
//!
//! For training the corpus is cut into *chunks* of about [`CHUNK`] tokens: the unit that one thread takes, with a random
//! stream of its own, so that what is drawn does not depend on which thread takes it.

use std::ops::Range;

pub use crate::embed::reading::CorpusBuilder;
use crate::embed::tokens::Tokens;
use crate::embed::vocab::WordId;

/// A chunk ends with the first document that reaches this many tokens: small enough that the last chunk of a training
/// keeps no thread waiting, large enough that taking one costs nothing.
const CHUNK: usize = 16_384;

/// A longer document is cut here. The windows of its pieces do not overlap: of 65,536 positions the outermost ones see
/// a shorter window, and every token is trained.
const LONGEST_PIECE: usize = 65_536;

/// An encoded corpus: the ids of the words in the vocabulary, document after document.
#[derive(Debug)]
pub struct Corpus {
    tokens: Tokens,
    /// Where each document that has tokens ends; strictly ascending, the last is the number of tokens.
    ends: Vec<usize>,
    n_read: u64,
    n_documents: u64,
}

/// A run of tokens that one thread trains at a time: whole documents, or a piece of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The document of the first token.
    document: usize,
    pub(super) tokens: Range<usize>,
}

impl Corpus {
    /// A corpus of tokens that are ids already; `ends` as in the field of that name.
    pub(super) fn new(tokens: Tokens, ends: Vec<usize>, n_read: u64, n_documents: u64) -> Corpus {
        Corpus {
            tokens,
            ends,
            n_read,
            n_documents,
        }
    }

    /// The same, of tokens in memory.
    pub(super) fn from_ids(
        tokens: Vec<WordId>,
        ends: Vec<usize>,
        n_read: u64,
        n_documents: u64,
    ) -> Corpus {
        Corpus::new(Tokens::Memory(tokens), ends, n_read, n_documents)
    }

    /// Tokens that were read, whether their word is in the vocabulary or not.
    #[must_use]
    pub fn n_read(&self) -> u64 {
        self.n_read
    }

    /// Documents that were read, empty ones included.
    #[must_use]
    pub fn n_documents(&self) -> u64 {
        self.n_documents
    }

    /// Tokens of words in the vocabulary.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.tokens.ids().len()
    }

    /// The documents that have tokens, in order.
    pub fn documents(&self) -> impl Iterator<Item = &[WordId]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.tokens.ids()[start..end])
    }

    /// The corpus cut into chunks; every token is in exactly one.
    pub(super) fn chunks(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let (mut start, mut document) = (0, 0);
        while start < self.tokens.ids().len() {
            let mut last = document;
            while self.ends[last] < start + CHUNK && last + 1 < self.ends.len() {
                last += 1;
            }
            let end = self.ends[last].min(start + LONGEST_PIECE);
            chunks.push(Chunk {
                document,
                tokens: start..end,
            });
            document = if end == self.ends[last] {
                last + 1
            } else {
                last
            };
            start = end;
        }
        chunks
    }

    /// The documents of a chunk: where each begins in the corpus, and its tokens.
    pub(super) fn pieces<'a>(
        &'a self,
        chunk: &Chunk,
    ) -> impl Iterator<Item = (usize, &'a [WordId])> {
        let Range { mut start, end } = chunk.tokens;
        self.ends[chunk.document..]
            .iter()
            .map_while(move |&document_end| {
                let piece = start..document_end.min(end);
                start = piece.end;
                (!piece.is_empty()).then(|| (piece.start, &self.tokens.ids()[piece]))
            })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Result, bail};

    use super::*;
    use crate::embed::options::Options;
    use crate::embed::vocab::Vocabulary;

    /// More than one piece of a document.
    const PIECE: usize = 1 << 20;

    fn built(options: &str, documents: &[&str]) -> Result<(Vocabulary, Corpus)> {
        let mut builder = CorpusBuilder::new(&Options::from_json(options).unwrap());
        for text in documents {
            builder.add_document(text)?;
        }
        builder.finish()
    }

    #[test]
    fn a_document_read_in_pieces_is_the_same_document() {
        let text = "wört \u{2003}xyz\n".repeat(PIECE / 4);
        let mut builder = CorpusBuilder::new(&Options::default());
        let mut pauses = 0;
        let pause = || {
            pauses += 1;
            Ok(())
        };
        builder.add_document_in_pieces(&text, pause).unwrap();
        let (vocabulary, corpus) = builder.finish().unwrap();
        assert!(pauses > 2, "{pauses}");
        assert_eq!(vocabulary.counts(), [PIECE as u64 / 4; 2]);
        assert_eq!(corpus.documents().count(), 1);
        assert!(
            corpus
                .tokens
                .ids()
                .iter()
                .enumerate()
                .all(|(i, &id)| id as usize == i % 2)
        );

        let mut builder = CorpusBuilder::new(&Options::default());
        assert!(
            builder
                .add_document_in_pieces(&text, || bail!("enough"))
                .is_err()
        );
    }

    #[test]
    fn words_are_sorted_by_count_and_ties_by_first_appearance() {
        let (vocabulary, corpus) =
            built(r#"{"min_count":1}"#, &["z b a", "", "a b y z a"]).unwrap();
        let words: Vec<_> = (0..4).map(|id| vocabulary.word(id)).collect();
        assert_eq!(words, ["a", "z", "b", "y"]);
        assert_eq!(vocabulary.counts(), [3, 2, 2, 1]);
        assert_eq!(
            corpus.documents().collect::<Vec<_>>(),
            [&[1, 2, 0][..], &[0, 2, 3, 1, 0]]
        );
        assert_eq!(
            (corpus.n_documents(), corpus.n_read(), corpus.n_tokens()),
            (3, 8, 8)
        );
    }

    #[test]
    fn rare_words_leave_and_documents_stay_apart() {
        let (vocabulary, corpus) =
            built(r#"{"min_count":2}"#, &["x", "a b", "y a", "q", "b"]).unwrap();
        assert_eq!(
            (vocabulary.len(), vocabulary.n_tokens(), corpus.n_read()),
            (2, 4, 7)
        );
        assert_eq!(
            corpus.documents().collect::<Vec<_>>(),
            [&[0, 1][..], &[0], &[1]]
        );
    }

    #[test]
    fn max_final_vocab_raises_min_count_until_the_words_fit() {
        let text = ["a a a a b b b c c d d e"];
        for (max, n) in [(5, 5), (4, 4), (3, 2), (2, 2), (1, 1)] {
            let (vocabulary, _) = built(
                &format!(r#"{{"min_count":1, "max_final_vocab":{max}}}"#),
                &text,
            )
            .unwrap();
            assert_eq!(vocabulary.len(), n, "at most {max}");
        }
    }

    #[test]
    fn max_vocab_size_forgets_the_rarest_words_while_counting() {
        let text: String = (0..1000)
            .map(|i| format!("often{} rare{i} ", i % 3))
            .collect();
        let (vocabulary, corpus) =
            built(r#"{"min_count":1, "max_vocab_size":10}"#, &[&text]).unwrap();
        assert!(vocabulary.len() <= 10, "{}", vocabulary.len());
        assert_eq!(vocabulary.counts()[..3], [334, 333, 333]);
        assert_eq!(corpus.n_tokens() as u64, vocabulary.n_tokens());
        assert_eq!(corpus.n_read(), 2000);
    }

    #[test]
    fn stop_words_leave_whatever_their_count() {
        let (vocabulary, corpus) = built(
            r#"{"min_count":1, "stop_words":["the", "none", "of"]}"#,
            &["the cat of the house", "of the", "the the cat"],
        )
        .unwrap();
        assert_eq!(
            (vocabulary.word(0), vocabulary.word(1), vocabulary.len()),
            ("cat", "house", 2)
        );
        assert_eq!(corpus.documents().collect::<Vec<_>>(), [&[0, 1][..], &[0]]);
        assert_eq!(corpus.n_read(), 10);
        let all = built(r#"{"stop_words":["the"]}"#, &["the the"]).unwrap_err();
        assert!(
            all.to_string().contains("all of them are stop_words"),
            "{all}"
        );
    }

    #[test]
    fn threads_and_memory_do_not_change_what_is_read() {
        // Three megabytes, documents of all lengths, words whose ties only their first places decide.
        let mut random = crate::embed::random::Random::new(11, [0, 0]);
        let mut documents = Vec::new();
        let mut n_bytes = 0;
        while n_bytes < 3 << 20 {
            let n = [0, 1, 7, 300, 60_000][random.below(5) as usize];
            let words: Vec<String> = (0..n)
                .map(|_| {
                    let rank = (f64::from(random.unit()) * 12.0).exp();
                    format!("W{}", rank as u32 * 7919 % 200_003)
                })
                .collect();
            documents.push(words.join([" ", "\n", "  "][random.below(3) as usize]));
            n_bytes += documents[documents.len() - 1].len();
        }
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let (words, corpus) = built(r#"{"min_count":2, "threads":1}"#, &documents).unwrap();
        assert!(corpus.n_tokens() > 1 << 18, "no file would be needed");
        for options in [
            r#"{"min_count":2, "threads":1, "max_memory":1}"#,
            r#"{"min_count":2, "threads":2}"#,
            r#"{"min_count":2, "threads":5, "max_memory":1}"#,
        ] {
            let (other_words, other) = built(options, &documents).unwrap();
            assert_eq!(words, other_words, "{options}");
            assert_eq!(corpus.ends, other.ends, "{options}");
            assert!(corpus.tokens.ids() == other.tokens.ids(), "{options}");
            assert_eq!(
                (corpus.n_read, corpus.n_documents),
                (other.n_read, other.n_documents)
            );
            let in_file = matches!(other.tokens, Tokens::File(..));
            assert_eq!(in_file, options.contains("max_memory"), "{options}");
        }
    }

    #[test]
    fn an_empty_vocabulary_says_why() {
        let message = built("{}", &["the cat the dog"]).unwrap_err().to_string();
        assert_eq!(
            message,
            "no word is left: 4 tokens of 3 words were read, the most frequent, 'the', occurs 2 times, and words that \
             occur less than 5 times are left out; lower min_count (now 5) or give more text"
        );
        for documents in [&[][..], &["", " "]] {
            let message = built(r#"{"min_count":0}"#, documents)
                .unwrap_err()
                .to_string();
            assert!(message.starts_with("the corpus has no words"), "{message}");
        }
    }

    #[test]
    fn chunks_cover_every_token_once_and_keep_documents_apart() {
        let documents: Vec<String> = [1, 5, 20_000, 3, 16_384, 200_000, 2, 65_536, 7]
            .into_iter()
            .map(|n| "w ".repeat(n))
            .collect();
        let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
        let (_, corpus) = built(r#"{"min_count":1}"#, &texts).unwrap();
        let starts: Vec<usize> = std::iter::once(0)
            .chain(corpus.ends.iter().copied())
            .collect();
        let mut next = 0;
        for chunk in corpus.chunks() {
            assert_eq!(chunk.tokens.start, next);
            for (start, piece) in corpus.pieces(&chunk) {
                assert_eq!(start, next);
                assert!(piece.len() <= LONGEST_PIECE);
                let document = starts.partition_point(|&s| s <= start) - 1;
                assert!(
                    start + piece.len() <= starts[document + 1],
                    "a piece crosses a document"
                );
                next += piece.len();
            }
            assert_eq!(chunk.tokens.end, next);
        }
        assert_eq!(next, corpus.n_tokens());
    }
}
