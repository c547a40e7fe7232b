use super::*;
use crate::embed::random::Random;

/// Floats of every size, also denormal ones and a negative zero.
fn vectors(seed: u64, n: usize, dim: usize) -> Vec<Vec<f32>> {
    let mut random = Random::new(seed, [0, 0]);
    let mut float = || loop {
        let x = f32::from_bits(random.bits() as u32);
        if x.is_finite() {
            return x;
        }
    };
    let mut all: Vec<Vec<f32>> = (0..n)
        .map(|_| (0..dim).map(|_| float()).collect())
        .collect();
    all[0][0] = -0.0;
    all
}

fn written(format: Format, words: &[String], vectors: &[Vec<f32>]) -> Vec<u8> {
    let mut writer =
        Writer::new(Vec::new(), format, vectors.len() as u64, vectors[0].len()).unwrap();
    for (word, vector) in words.iter().zip(vectors) {
        writer.entry(word, vector).unwrap();
    }
    writer.finish().unwrap()
}

fn read(format: Option<Format>, bytes: &[u8]) -> Result<Vec<Entry>, String> {
    Reader::new(bytes, format)
        .and_then(Iterator::collect)
        .map_err(|e| format!("{e:#}"))
}

#[test]
fn every_format_gives_back_the_same_bits() {
    let seed = 5;
    for dim in [1, 3, 100] {
        let vectors = vectors(seed, 50, dim);
        let words: Vec<String> = (0..50).map(|i| format!("wört{i}")).collect();
        for format in Format::ALL {
            let bytes = written(format, &words, &vectors);
            for given in [Some(format), None] {
                if given.is_none() && format == Format::Fvecs {
                    continue;
                }
                let entries = read(given, &bytes).unwrap();
                assert_eq!(entries.len(), 50);
                for ((entry, word), vector) in entries.iter().zip(&words).zip(&vectors) {
                    assert_eq!(entry.word.as_ref(), format.has_words().then_some(word));
                    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(
                        bits(&entry.vector),
                        bits(vector),
                        "{} dim {dim} seed {seed}",
                        format.name()
                    );
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error_or_a_shorter_file_and_never_a_panic() {
    let vectors = vectors(6, 4, 3);
    let words: Vec<String> = (0..4).map(|i| format!("w{i}")).collect();
    for format in Format::ALL {
        let bytes = written(format, &words, &vectors);
        for n in 0..bytes.len() {
            let outcome = read(Some(format), &bytes[..n]);
            match (format, outcome) {
                // Text whose last number lost digits is still text; a whole number of vectors is a file.
                (Format::Glove | Format::Fvecs, _) => {}
                (Format::Word2vec, Ok(entries)) => assert_eq!(entries.len(), 4),
                (_, Ok(_)) => panic!("{} cut at {n}", format.name()),
                (_, Err(message)) => assert!(
                    message.starts_with("byte ") || message.starts_with("line "),
                    "{message}"
                ),
            }
        }
        let mut random = Random::new(7, [0, 0]);
        for _ in 0..20_000 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len() as u32) as usize;
            damaged[at] = random.bits() as u8;
            for entry in read(Some(format), &damaged).unwrap_or_default() {
                assert!(entry.vector.iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn errors_name_line_or_byte() {
    for (format, bytes, message) in [
        (
            Format::Word2vec,
            &b""[..],
            "line 1: expected a header 'count dim', got an empty file",
        ),
        (
            Format::Word2vec,
            b"a 1 2\n",
            "line 1: expected a header 'count dim', got 'a 1 2'",
        ),
        (
            Format::Word2vec,
            b"2 0\n",
            "line 1: expected vectors of 1 to 65536 components, got 0",
        ),
        (
            Format::Word2vec,
            b"2 2\na 1 2\n",
            "line 3: the file ends after 1 vectors, expected 2 as its first line says",
        ),
        (
            Format::Word2vec,
            b"1 2\na 1 2\nb 1 2\n",
            "line 3: expected the end of the file after 1 vectors, got another line",
        ),
        (
            Format::Word2vec,
            b"2 2\na 1 2\nb 1 x\n",
            "line 3: expected a word and 2 numbers, got 'x' as number 2",
        ),
        (
            Format::Word2vec,
            b"1 2\na 1\n",
            "line 2: expected a word and 2 numbers, got 'a' as number 1",
        ),
        (
            Format::Word2vec,
            b"1 2\n1 2\n",
            "line 2: expected a word and 2 numbers, got '1' as number 1",
        ),
        (
            Format::Word2vec,
            b"1 2\na 1 NaN\n",
            "line 2: expected finite numbers, got NaN as number 2",
        ),
        (
            Format::Word2vec,
            b"2 1\na 1\n\nb 2\n",
            "line 3: expected a word and its vector, got an empty line",
        ),
        (
            Format::Word2vec,
            b"1 1\n\xff 1\n",
            "line 2: the word is not UTF-8; convert the file first (iconv -t UTF-8)",
        ),
        (
            Format::Glove,
            b"word\n",
            "line 1: expected a word and 1 to 65536 numbers, got 'word'",
        ),
        (
            Format::Glove,
            b"a 1 2\nb 3\n",
            "line 2: expected a word and 2 numbers, got 'b' as number 1",
        ),
        (
            Format::Word2vecBinary,
            b"2 1\na \0\0\0\0b \0\0",
            "byte 12: the file ends in component 1 of vector 2 of 2: failed to fill whole buffer",
        ),
        (
            Format::Word2vecBinary,
            b"1 1\na \0\0\xc0\x7f",
            "byte 6: expected finite components, got NaN as component 1 of vector 1",
        ),
        (
            Format::Word2vecBinary,
            b"1 1\na \0\0\0\0more",
            "byte 10: expected the end of the file after 1 vectors, got more bytes",
        ),
        (
            Format::Fvecs,
            b"\xff\xff\xff\x7f",
            "byte 0: expected a dimension from 1 to 65536, got 2147483647; is it an .fvecs file?",
        ),
        (
            Format::Fvecs,
            b"\x01\0\0\0\0\0\0\0\x02\0\0\0",
            "byte 8: expected the dimension 1 of the vectors before, got 2",
        ),
        (
            Format::Npy,
            b"\x93NUMPZ",
            "byte 0: expected a NumPy array (.npy), which begins with \\x93NUMPY",
        ),
    ] {
        assert_eq!(read(Some(format), bytes).unwrap_err(), message);
    }
}

#[test]
fn words_with_blanks_are_read_where_only_the_numbers_tell_and_never_written() {
    let entries = read(None, b"a 1 2\n. . . 3 4\n").unwrap();
    assert_eq!(entries[1].word.as_deref(), Some(". . ."));
    let mut writer = Writer::new(Vec::new(), Format::Glove, 1, 1).unwrap();
    assert!(writer.entry("new york", &[1.0]).is_err());
    assert!(writer.entry("", &[1.0]).is_err());
}

#[test]
fn a_text_whose_words_are_numbers_is_told_from_one_without_header() {
    assert_eq!(read(None, b"1 2\n7 0.5 1\n").unwrap()[0].vector, [0.5, 1.0]);
    assert_eq!(read(None, b"7 0.5 1\n8 2 3\n").unwrap().len(), 2);
}

#[test]
fn arrays_of_other_types_become_f32() {
    let header = |descr: &str, shape: &str| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.bytes());
        bytes
    };
    for (descr, data) in [
        ("<f8", [1f64.to_le_bytes(), 2f64.to_le_bytes()].concat()),
        ("<f2", vec![0, 0x3c, 0, 0x40]),
        ("|u1", vec![1, 2]),
        ("|i1", vec![1, 2]),
    ] {
        let bytes = [header(descr, "(1, 2)"), data].concat();
        assert_eq!(read(None, &bytes).unwrap()[0].vector, [1.0, 2.0], "{descr}");
    }
    for (bytes, start) in [
        (
            header(">f4", "(1, 2)"),
            "byte 10: expected components of type",
        ),
        (
            header("<f4", "(1,)"),
            "byte 10: expected an array of shape (count, dim)",
        ),
        (
            header("<f4", "(1, 0)"),
            "byte 10: expected vectors of 1 to 65536 components, got 0",
        ),
    ] {
        let message = read(None, &bytes).unwrap_err();
        assert!(message.starts_with(start), "{message}");
    }
}
