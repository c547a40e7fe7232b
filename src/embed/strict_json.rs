//! A JSON object as its names and values in order, where a name given twice is an error: a map would silently keep one.

use std::fmt;

use anyhow::{Result, anyhow, ensure};
use rustc_hash::FxHashSet;
use serde::Deserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde_json::Value;

/// Bytes of a JSON text that becomes values: each takes 16 times the two bytes that a number and its comma need.
pub const MAX_TEXT: usize = 16 << 20;

/// Refuses a text that would take too much memory as values.
///
/// # Errors
/// When it is longer than [`MAX_TEXT`].
pub fn check_length(text: &str, what: &str) -> Result<()> {
    ensure!(
        text.len() <= MAX_TEXT,
        "{what}: expected at most {MAX_TEXT} bytes of JSON, got {}",
        text.len()
    );
    Ok(())
}

/// Parses the text of one JSON object.
///
/// # Errors
/// Anything else, with the line and column where it went wrong; a text longer than [`MAX_TEXT`].
pub fn object(text: &str) -> Result<Vec<(String, Value)>> {
    check_length(text, "options")?;
    let mut reader = serde_json::Deserializer::from_str(text);
    reader
        .deserialize_map(Pairs)
        .and_then(|pairs| reader.end().map(|()| pairs))
        .map_err(|e| {
            anyhow!(
                "options: expected a JSON object such as {{\"name\": 1}}, got {}: {e}",
                shown(text)
            )
        })
}

/// At most 40 characters of a text, quoted.
fn shown(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("'{}...'", &text[..end]),
        None => format!("'{text}'"),
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs: Vec<(String, Value)> = Vec::new();
        let mut names = FxHashSet::default();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("'{name}' is given twice")));
            }
            pairs.push((name, value));
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order() {
        let pairs = object(r#" {"b": 1, "a": [2]} "#).unwrap();
        assert_eq!(
            pairs,
            [
                ("b".to_string(), Value::from(1)),
                ("a".to_string(), Value::from(vec![2]))
            ]
        );
    }

    #[test]
    fn everything_but_one_object_is_refused_with_its_place() {
        for (text, place) in [
            ("", "line 1 column 0"),
            ("[1]", "line 1 column 0"),
            ("{\"a\": 1,}", "line 1 column 9"),
            ("{\"a\": 1} x", "line 1 column 10"),
            ("{\"a\": NaN}", "line 1 column 7"),
            ("{\"a\": 1, \"a\": 2}", "'a' is given twice"),
        ] {
            let message = object(text).unwrap_err().to_string();
            assert!(message.contains(place), "{message}");
        }
    }
}
