//! A text through every tokenizer, phrase finding, the corpus and the n-grams of fastText.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sqlite_annoy::embed::corpus::CorpusBuilder;
use sqlite_annoy::embed::fasttext::ngrams;
use sqlite_annoy::embed::options::Options;
use sqlite_annoy::embed::phrases::{PhraseCounter, PhraseOptions};
use sqlite_annoy::embed::tokenize::{Splitter, Tokenizer};

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    lowercase: bool,
    threads: bool,
    min_n: u8,
    max_n: u8,
    word: &'a [u8],
    text: &'a str,
}

fuzz_target!(|case: Case| {
    for splitter in Splitter::ALL {
        let tokenizer = Tokenizer {
            splitter,
            lowercase: case.lowercase,
        };
        let mut tokens = Vec::new();
        tokenizer.for_each(case.text, |token| tokens.push(token.to_owned()));
        assert!(
            tokens
                .iter()
                .all(|t| !t.is_empty() && !t.contains(char::is_whitespace))
        );
        if splitter == Splitter::Whitespace {
            let text = if case.lowercase {
                case.text.to_lowercase()
            } else {
                case.text.to_owned()
            };
            let separators = |c: char| c.is_whitespace() || matches!(c, '\x1c'..='\x1f');
            let truth: Vec<&str> = text.split(separators).filter(|t| !t.is_empty()).collect();
            assert_eq!(tokens, truth);
        }

        let options = Options {
            tokenizer,
            min_count: 0,
            threads: 1 + usize::from(case.threads),
            ..Options::default()
        };
        let mut corpus = CorpusBuilder::new(&options);
        corpus.add_document(case.text).unwrap();
        corpus.add_document(case.text).unwrap();
        if let Ok((vocabulary, corpus)) = corpus.finish() {
            assert_eq!(corpus.n_tokens(), 2 * tokens.len());
            let words: Vec<Vec<&str>> = corpus
                .documents()
                .map(|d| d.iter().map(|&id| vocabulary.word(id)).collect())
                .collect();
            assert!(words.iter().all(|words| *words == tokens));
        } else {
            assert!(tokens.is_empty());
        }

        let phrases = PhraseOptions {
            tokenizer,
            min_count: 1,
            threshold: 0.0,
            ..PhraseOptions::default()
        };
        let mut counter = PhraseCounter::new(&phrases);
        counter.add(case.text, || Ok(())).unwrap();
        counter.add(case.text, || Ok(())).unwrap();
        let found = counter.finish();
        let mut joined = Vec::new();
        let is_phrase = |candidate: &str| Ok(found.iter().any(|p| &*p.phrase == candidate));
        phrases
            .apply(case.text, is_phrase, |token| joined.push(token.to_owned()))
            .unwrap();
        let glue = |tokens: &[String]| tokens.join(&phrases.delimiter);
        assert_eq!(glue(&joined), glue(&tokens));
    }
    let (low, high) = (usize::from(case.min_n), usize::from(case.max_n % 16));
    let mut n = 0;
    ngrams::for_each(case.word, low, high, |ngram| {
        assert!(!ngram.is_empty());
        n += 1;
    });
    assert_eq!(ngrams::buckets(case.word, low, high, 7).len(), n);
    assert!(ngrams::buckets(case.word, low, high, 0).is_empty());
});
