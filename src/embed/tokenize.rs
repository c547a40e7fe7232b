//! From text to tokens.
//!
//! | splitter | a token is | for |
//! |---|---|---|
//! | `whitespace` | what stands between white space | text that is tokenised already, one space between tokens |
//! | `simple` | gensim's `simple_preprocess`: a run of letters and `_`, 2 to 15 characters long, not beginning with `_` | comparing with gensim |
//! | `unicode` | a run of letters and digits of any script | raw text |
//!
//! Lower-casing is Unicode's, of the whole text before it is split (so a final sigma knows its word), as Python does it.
//! One difference from gensim on purpose: vowel signs of Indic scripts belong to their word; Python's `\w` breaks there.

/// Where one token ends and the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Splitter {
    /// Between white space.
    Whitespace,
    /// gensim's `simple_preprocess`.
    Simple,
    /// Runs of letters and digits.
    Unicode,
}

impl Splitter {
    /// All of them, in the order they are listed to users.
    pub const ALL: [Splitter; 3] = [Splitter::Whitespace, Splitter::Simple, Splitter::Unicode];

    /// The value of the option `tokenizer`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Splitter::Whitespace => "whitespace",
            Splitter::Simple => "simple",
            Splitter::Unicode => "unicode",
        }
    }
}

/// How text becomes tokens. By default `whitespace`, lower-cased: what `text.lower().split()` is in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokenizer {
    /// Where tokens end.
    pub splitter: Splitter,
    /// Whether the text is lower-cased first.
    pub lowercase: bool,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Tokenizer {
            splitter: Splitter::Whitespace,
            lowercase: true,
        }
    }
}

impl Tokenizer {
    /// Calls `each` with the tokens of the text, in order.
    pub fn for_each(&self, text: &str, mut each: impl FnMut(&str)) {
        let lower;
        let text = if self.lowercase {
            lower = text.to_lowercase();
            lower.as_str()
        } else {
            text
        };
        match self.splitter {
            Splitter::Whitespace => text
                .split(is_space)
                .filter(|t| !t.is_empty())
                .for_each(each),
            Splitter::Unicode => text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|t| !t.is_empty())
                .for_each(each),
            Splitter::Simple => text.split(|c| !is_simple(c)).for_each(|t| {
                // 15 characters are at most 60 bytes: no long run is counted to its end.
                let fits = t.len() <= 60 && (2..=15).contains(&t.chars().count());
                if fits && !t.starts_with('_') {
                    each(t);
                }
            }),
        }
    }
}

/// Python's white space: Unicode's, and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `\w` without `\d` in Python: letters, `_`, and numerals that are no decimal digits (such as the superscript two).
fn is_simple(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '_' => true,
        '\0'..='\x7f' => false,
        _ => c.is_alphanumeric() && !is_decimal_digit(c),
    }
}

/// Unicode's general category Nd. Its characters come in runs of ten, from zero to nine.
fn is_decimal_digit(c: char) -> bool {
    // The zeros of Unicode 14, from the Unicode Character Database.
    const ZEROS: [u32; 66] = [
        0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66,
        0xDE6, 0xE50, 0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90,
        0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0,
        0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0, 0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0,
        0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50, 0x11D50, 0x11DA0, 0x16A60, 0x16AC0,
        0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6, 0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
    ];
    let c = c as u32;
    let below = ZEROS.partition_point(|&zero| zero <= c);
    below > 0 && c - ZEROS[below - 1] < 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(splitter: Splitter, lowercase: bool, text: &str) -> Vec<String> {
        let mut all = Vec::new();
        Tokenizer {
            splitter,
            lowercase,
        }
        .for_each(text, |t| all.push(t.to_string()));
        all
    }

    #[test]
    fn whitespace_keeps_punctuation_and_knows_pythons_separators() {
        assert_eq!(
            tokens(
                Splitter::Whitespace,
                true,
                " The cat,\u{a0}sat\x1fon\u{2003}IT. \n"
            ),
            ["the", "cat,", "sat", "on", "it."]
        );
        assert_eq!(
            tokens(Splitter::Whitespace, false, "The Cat"),
            ["The", "Cat"]
        );
        assert!(tokens(Splitter::Whitespace, true, " \t ").is_empty());
    }

    #[test]
    fn simple_does_what_gensims_simple_preprocess_does() {
        // Expected lists are the output of gensim 4.4's simple_preprocess.
        for (text, expected) in [
            ("It's 3 o'clock, x2y!", vec!["it", "clock"]),
            ("_hidden snake_case a__", vec!["snake_case", "a__"]),
            (
                "fifteenletters1 abcdefghijklmno abcdefghijklmnop",
                vec!["fifteenletters", "abcdefghijklmno"],
            ),
            ("25 m² and Ⅷth ½cup", vec!["m²", "and", "ⅷth", "½cup"]),
            (
                "ΟΔΟΣ straße ПРИВЕТ 漢字 ١٢٣اب",
                vec!["οδος", "straße", "привет", "漢字", "اب"],
            ),
            ("İstanbul", vec!["stanbul"]),
        ] {
            assert_eq!(tokens(Splitter::Simple, true, text), expected, "{text}");
        }
    }

    #[test]
    fn unicode_takes_letters_and_digits_of_any_script() {
        assert_eq!(
            tokens(Splitter::Unicode, true, "Don't panic: 42 Größen, हिन्दी? x"),
            ["don", "t", "panic", "42", "größen", "हिन", "दी", "x"]
        );
    }

    #[test]
    fn digits_are_the_decimal_ones_only() {
        for c in ['0', '9', '٣', '９', '𝟗'] {
            assert!(is_decimal_digit(c), "{c}");
        }
        for c in ['/', ':', 'a', '²', '½', 'Ⅷ', '漢'] {
            assert!(!is_decimal_digit(c), "{c}");
        }
    }
}
