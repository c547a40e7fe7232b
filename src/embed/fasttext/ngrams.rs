//! The n-grams of a word: runs of min_n to max_n characters of `<word>`, each hashed into one of many buckets.
//!
//! As the original program does it, also where it is odd: the hash is FNV-1a of 32 bits over the bytes, each extended with
//! its sign; characters are counted by UTF-8's leading bytes; and a lone `<` or `>` is no n-gram.

/// Calls `each` with the bytes of every n-gram of a word.
pub fn for_each(word: &[u8], min_n: usize, max_n: usize, mut each: impl FnMut(&[u8])) {
    let bytes = [b"<", word, b">"].concat();
    let is_start = |i: usize| bytes[i] & 0xc0 != 0x80;
    for i in (0..bytes.len()).filter(|&i| is_start(i)) {
        let mut end = i;
        for n in 1..=max_n {
            if end >= bytes.len() {
                break;
            }
            end += 1;
            while end < bytes.len() && !is_start(end) {
                end += 1;
            }
            if n >= min_n && !(n == 1 && (i == 0 || end == bytes.len())) {
                each(&bytes[i..end]);
            }
        }
    }
}

/// The buckets of a word's n-grams, in order, with repetitions.
#[must_use]
pub fn buckets(word: &[u8], min_n: usize, max_n: usize, n_buckets: u32) -> Vec<u32> {
    let mut all = Vec::new();
    if n_buckets > 0 {
        for_each(word, min_n, max_n, |ngram| {
            all.push(hash(ngram) % n_buckets);
        });
    }
    all
}

/// FNV-1a of 32 bits, bytes extended with their sign.
#[must_use]
pub fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(2_166_136_261, |h, &b| {
        (h ^ b as i8 as u32).wrapping_mul(16_777_619)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ngrams(word: &str, min_n: usize, max_n: usize) -> Vec<String> {
        let mut all = Vec::new();
        for_each(word.as_bytes(), min_n, max_n, |n| {
            all.push(String::from_utf8(n.to_vec()).unwrap());
        });
        all
    }

    #[test]
    fn ngrams_are_runs_of_characters_of_the_word_in_brackets() {
        assert_eq!(ngrams("tür", 3, 4), ["<tü", "<tür", "tür", "tür>", "ür>"]);
        assert_eq!(ngrams("ab", 1, 2), ["<a", "a", "ab", "b", "b>"]);
        assert_eq!(ngrams("", 3, 6), [""; 0]);
        assert_eq!(ngrams("a", 3, 6), ["<a>"]);
    }

    #[test]
    fn hashes_are_those_of_gensim() {
        // gensim.models.fasttext_inner.ft_hash_bytes
        for (text, expected) in [
            ("", 2_166_136_261),
            ("<te", 1_669_484_008),
            ("größe", 576_799_898),
            ("привет", 4_033_455_999),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text}");
        }
    }
}
