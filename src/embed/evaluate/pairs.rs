//! Pairs of words that people have judged, as WordSim-353 and SimLex-999: how well the cosines agree with them.

use anyhow::{Result, bail};

use super::Subject;
use super::statistics::{correlation, p_value, ranks};

/// The judgements of a file.
#[derive(Debug, Default)]
pub struct Judgements {
    pairs: Vec<(String, String, f64)>,
}

impl Judgements {
    /// Reads lines of two words and a number; `#` begins a comment. Other lines are left out, as gensim does.
    ///
    /// # Errors
    /// When no line is a judgement.
    pub fn parse(text: &str, delimiter: &str) -> Result<Judgements> {
        let pairs: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut fields = line.split(delimiter);
                let (a, b, judgement) = (fields.next()?, fields.next()?, fields.next()?);
                let judgement: f64 = judgement.trim().parse().ok()?;
                (fields.next().is_none() && judgement.is_finite())
                    .then(|| (a.to_owned(), b.to_owned(), judgement))
            })
            .collect();
        if pairs.is_empty() {
            bail!(
                "expected lines of two words and a number, separated by '{}', got none; the option delimiter says what \
                 separates them",
                delimiter.escape_debug()
            );
        }
        Ok(Judgements { pairs })
    }
}

/// How well cosines agree with judgements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Pearson's correlation, and the probability of one as large by chance.
    pub pearson: (f64, f64),
    /// Spearman's correlation of the ranks, and the probability of one as large by chance.
    pub spearman: (f64, f64),
    /// Pairs with an unknown word, in percent as gensim counts them.
    pub oov_ratio: f64,
    /// Pairs that were compared.
    pub n_pairs: u64,
}

/// Compares cosines with judgements.
///
/// # Errors
/// When fewer than two pairs are known.
pub fn pairs(subject: &Subject, judgements: &Judgements, dummy4unknown: bool) -> Result<Agreement> {
    let (mut gold, mut model) = (Vec::new(), Vec::new());
    let mut unknown = 0u64;
    for (a, b, judgement) in &judgements.pairs {
        let cosine = match (subject.find(a), subject.find(b)) {
            (Some(a), Some(b)) => subject
                .vectors
                .row(a as usize)
                .iter()
                .zip(subject.vectors.row(b as usize))
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum(),
            _ => {
                unknown += 1;
                if !dummy4unknown {
                    continue;
                }
                0.0
            }
        };
        gold.push(*judgement);
        model.push(cosine);
    }
    let n = gold.len();
    if n < 2 {
        bail!(
            "expected at least two pairs whose words the model has, got {n} of {}",
            judgements.pairs.len()
        );
    }
    let of = if dummy4unknown {
        n as u64
    } else {
        n as u64 + unknown
    };
    let pearson = correlation(&gold, &model);
    let spearman = correlation(&ranks(&gold), &ranks(&model));
    Ok(Agreement {
        pearson: (pearson, p_value(pearson, n)),
        spearman: (spearman, p_value(spearman, n)),
        oov_ratio: 100.0 * unknown as f64 / of as f64,
        n_pairs: n as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perfect_agreement_is_one_and_unknown_words_are_counted() {
        let words: Vec<(String, Vec<f32>)> = [("a", 0.0), ("b", 0.3), ("c", 0.7), ("d", 1.2)]
            .map(|(w, x): (&str, f32)| (w.to_owned(), vec![x.cos(), x.sin()]))
            .into();
        let subject = Subject::new(words, true).unwrap();
        let text = "# comment\nA\tb\t9\na\tc\t7\na\td\t1\na\tzebra\t5\nno judgement\n";
        let judgements = Judgements::parse(text, "\t").unwrap();
        let agreement = pairs(&subject, &judgements, false).unwrap();
        assert!((agreement.spearman.0 - 1.0).abs() < 1e-12);
        assert_eq!((agreement.oov_ratio, agreement.n_pairs), (25.0, 3));
        let agreement = pairs(&subject, &judgements, true).unwrap();
        assert_eq!((agreement.oov_ratio, agreement.n_pairs), (25.0, 4));
        assert!(Judgements::parse("a,b,1\n", "\t").is_err());
        let judgements = Judgements::parse("a,b,1\n", ",").unwrap();
        assert!(pairs(&subject, &judgements, false).is_err());
    }
}
