//! What somebody who misspelt a name probably meant. Every message about an unknown name asks here.

/// `; did you mean 'words'?` for the known name that is nearest to `name`, empty when none is near: at most a third of its
/// letters differ, at least one may. Upper and lower case are the same.
#[must_use]
pub(crate) fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(known) => format!("; did you mean '{known}'?"),
        None => String::new(),
    }
}

fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = letters(name);
    // Nobody types a name of this length, and the table below is quadratic.
    if name.len() > 200 {
        return None;
    }
    known
        .into_iter()
        .filter_map(|known| {
            let other = letters(known);
            if other.len() > 200 {
                return None;
            }
            let changes = changes(&name, &other);
            // One name in the other (`search` for `search_k`) counts as near, too.
            let within = name.len() >= 3 && (other.starts_with(&name) || name.starts_with(&other));
            let most = (name.len().max(other.len()) / 3).max(1);
            (changes < name.len().max(other.len())
                && (changes <= most || within && other.len() > 2))
                .then_some((changes, known))
        })
        .min_by_key(|&(changes, _)| changes)
        .map(|(_, known)| known)
}

fn letters(name: &str) -> Vec<char> {
    name.chars().flat_map(char::to_lowercase).collect()
}

/// Letters put in, left out, replaced, or swapped with their neighbour, to get from one word to the other (Damerau, 1964;
/// each letter takes part in one change).
fn changes(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut table = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = |i: usize, j: usize| table[i * width + j];
            table[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let differ = usize::from(a[i - 1] != b[j - 1]);
                let mut least = (at(i - 1, j - 1) + differ)
                    .min(at(i - 1, j) + 1)
                    .min(at(i, j - 1) + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(at(i - 2, j - 2) + 1);
                }
                least
            };
        }
    }
    table[a.len() * width + b.len()]
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
            ("tresh", "trees"),
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
