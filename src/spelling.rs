//! What somebody who misspelt a name probably meant, and what Rust calls things in the words of everybody. Every message about
//! an unknown name, or about JSON that is not as expected, asks here.

/// A message of serde's without Rust's names of types.
#[must_use]
pub(crate) fn plain(said: &str) -> String {
    let mut said = said.to_owned();
    for (rust, plain) in [
        ("usize", "a whole number from 0 up"),
        ("u64", "a whole number from 0 up"),
        ("u32", "a whole number from 0 up"),
        ("i64", "a whole number"),
        ("f64", "a number"),
        ("f32", "a number"),
    ] {
        said = said.replace(&format!("expected {rust}"), &format!("expected {plain}"));
    }
    said
}

/// `; did you mean 'words'?` for the known name that is nearest to `name`, empty when none is near: at most a third of its
/// letters are put in, left out, replaced, or swapped with their neighbour; one may always be. Upper and lower case are the same.
#[must_use]
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(known) => format!("; did you mean '{known}'?"),
        None => String::new(),
    }
}

fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    // Nobody types a name of this length, and the table below is quadratic.
    if name.len() > 200 {
        return None;
    }
    known
        .into_iter()
        .filter_map(|known| {
            let other = known.to_lowercase();
            if other.len() > 200 {
                return None;
            }
            let changes = strsim::osa_distance(&name, &other);
            // One name in the other (`search` for `search_k`) counts as near, too.
            let within = name.len() >= 3 && (other.starts_with(&name) || name.starts_with(&other));
            let letters = name.chars().count().max(other.chars().count());
            let near = changes <= (letters / 3).max(1) || within && other.len() > 2;
            (changes < letters && near).then_some((changes, known))
        })
        .min_by_key(|&(changes, _)| changes)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let known = [
            "metric",
            "trees",
            "seed",
            "threads",
            "search_k",
            "words_index",
        ];
        for (typed, meant) in [
            ("metrik", "metric"),
            ("tree", "trees"),
            ("TREES", "trees"),
            ("tress", "trees"),
            ("tresh", ""),
            ("haerds", ""),
            ("searchk", "search_k"),
            ("search", "search_k"),
            ("esed", "seed"),
            ("word_index", "words_index"),
            ("", ""),
            ("zzz", ""),
            ("t", ""),
        ] {
            let said = match meant {
                "" => String::new(),
                meant => format!("; did you mean '{meant}'?"),
            };
            assert_eq!(did_you_mean(typed, known), said, "{typed}");
        }
        assert_eq!(did_you_mean(&"a".repeat(100_000), known), "");
    }
}
