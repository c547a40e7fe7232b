//! `a` is to `b` as `c` is to what? Files of sections (`: name`) and lines of four words, as Google's questions-words.txt.
//!
//! 3CosAdd asks for the word nearest to b - a + c, 3CosMul (Levy, Goldberg 2014: "Linguistic regularities in sparse and
//! explicit word representations") for the largest cos(b) cos(c) / (cos(a) + 1e-6), cosines shifted to 0..1; both among
//! all words but the three. Cost: one inner product (three) for each question and word, questions taken 16 at a time so
//! that a vector is fetched once for all of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use super::Subject;
use crate::job::Job;
use crate::kernel::kernels;

/// How the answer is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The largest cos(b) - cos(a) + cos(c).
    Add,
    /// The largest cos(b) cos(c) / (cos(a) + 1e-6).
    Mul,
}

/// The questions of a file.
#[derive(Debug, Default)]
pub struct Questions {
    sections: Vec<(String, Vec<[String; 4]>)>,
}

impl Questions {
    /// Reads the text of a file. Lines that are not four words are left out, as gensim does.
    ///
    /// # Errors
    /// A question before the first section, or no question at all.
    pub fn parse(text: &str) -> Result<Questions> {
        let mut questions = Questions::default();
        for (i, line) in text.lines().enumerate() {
            if let Some(name) = line.strip_prefix(": ") {
                let name = name.trim_start_matches([':', ' ']).trim();
                questions.sections.push((name.to_owned(), Vec::new()));
                continue;
            }
            let mut fields = line.split_whitespace().map(str::to_owned);
            let four = [(); 4].map(|()| fields.next());
            let [Some(a), Some(b), Some(c), Some(d)] = four else {
                continue;
            };
            if fields.next().is_some() {
                continue;
            }
            let Some((_, section)) = questions.sections.last_mut() else {
                bail!(
                    "line {}: expected the name of a section (': name') before the first question",
                    i + 1
                );
            };
            section.push([a, b, c, d]);
        }
        if questions.sections.iter().all(|(_, q)| q.is_empty()) {
            bail!("expected lines of four words under sections ': name', got none");
        }
        Ok(questions)
    }
}

/// How a section went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Score {
    /// Its name.
    pub section: String,
    /// Questions answered rightly.
    pub correct: u64,
    /// Questions answered wrongly.
    pub incorrect: u64,
    /// Questions with a word that is not known.
    pub unknown: u64,
}

/// Questions that are asked of a vector while it is in the cache.
const BLOCK: usize = 16;

/// A question whose words are known, by the section it belongs to.
struct Asked {
    section: usize,
    ids: [u32; 3],
    expected: u32,
    /// b - a + c, for 3CosAdd.
    direction: Vec<f32>,
}

/// Answers the questions: a score for each section, in order, and `Total accuracy` last.
///
/// # Errors
/// [`Interrupted`](crate::job::Interrupted) through `job`, or no threads.
pub fn analogies(
    subject: &Subject,
    questions: &Questions,
    method: Method,
    dummy4unknown: bool,
    threads: usize,
    job: &Job,
) -> Result<Vec<Score>> {
    let mut scores: Vec<Score> = Vec::new();
    let mut asked = Vec::new();
    for (section, (name, questions)) in questions.sections.iter().enumerate() {
        scores.push(Score {
            section: name.clone(),
            ..Score::default()
        });
        for question in questions {
            let found = question.each_ref().map(|word| subject.find(word));
            let [Some(a), Some(b), Some(c), Some(expected)] = found else {
                scores[section].unknown += 1;
                scores[section].incorrect += u64::from(dummy4unknown);
                continue;
            };
            let row = |id: u32| subject.vectors.row(id as usize);
            let direction = row(a)
                .iter()
                .zip(row(b))
                .zip(row(c))
                .map(|((a, b), c)| b - a + c)
                .collect();
            asked.push(Asked {
                section,
                ids: [a, b, c],
                expected,
                direction,
            });
        }
    }
    job.phase("analogies", asked.len() as u64);
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, bool)>> {
        let mut outcomes = Vec::new();
        loop {
            let from = next.fetch_add(BLOCK, Ordering::Relaxed);
            let Some(block) = asked.get(from..(from + BLOCK).min(asked.len())) else {
                return Ok(outcomes);
            };
            let answers = answer(subject, block, method, job)?;
            for (question, answer) in block.iter().zip(answers) {
                outcomes.push((question.section, answer == Some(question.expected)));
            }
            job.advance(block.len() as u64);
        }
    };
    let outcomes: Vec<Result<Vec<(usize, bool)>>> = if threads == 1 {
        vec![work()]
    } else {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .with_context(|| format!("can't start {threads} threads"))?
            .broadcast(|_| work())
    };
    for outcome in outcomes {
        for (section, is_right) in outcome? {
            match is_right {
                true => scores[section].correct += 1,
                false => scores[section].incorrect += 1,
            }
        }
    }
    let sum = |of: fn(&Score) -> u64| scores.iter().map(of).sum();
    scores.push(Score {
        section: "Total accuracy".to_owned(),
        correct: sum(|s| s.correct),
        incorrect: sum(|s| s.incorrect),
        unknown: sum(|s| s.unknown),
    });
    Ok(scores)
}

/// The best word for each question, by the spelling that stands for it.
fn answer(
    subject: &Subject,
    block: &[Asked],
    method: Method,
    job: &Job,
) -> Result<Vec<Option<u32>>> {
    let dot = kernels().f32.dot;
    let mut best = vec![(f32::NEG_INFINITY, None); block.len()];
    for (i, &spelling) in subject.spelling.iter().enumerate() {
        if i.is_multiple_of(4096) {
            job.check()?;
        }
        let row = subject.vectors.row(i);
        for (question, best) in block.iter().zip(&mut best) {
            let score = match method {
                Method::Add => dot(row, &question.direction),
                Method::Mul => {
                    let [a, b, c] = question
                        .ids
                        .map(|id| (1.0 + dot(row, subject.vectors.row(id as usize))) / 2.0);
                    b * c / (a + 1e-6)
                }
            };
            if score > best.0 && !question.ids.contains(&spelling) {
                *best = (score, Some(spelling));
            }
        }
    }
    Ok(best.into_iter().map(|(_, id)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words whose vectors are made of a kingdom and a sex.
    fn subject() -> Subject {
        let words = [
            ("man", [1.0, 0.0, 1.0, 0.1]),
            ("woman", [1.0, 0.0, -1.0, 0.1]),
            ("king", [0.0, 1.0, 1.0, 0.2]),
            ("queen", [0.0, 1.0, -1.0, 0.2]),
            ("Queen", [0.0, 1.0, -0.9, 0.2]),
            ("table", [-1.0, -1.0, 0.0, 0.0]),
        ];
        let words = words.map(|(w, v)| (w.to_owned(), v.to_vec()));
        Subject::new(words.into(), true).unwrap()
    }

    #[test]
    fn questions_are_answered_by_both_methods_and_counted_by_section() {
        let text = ": sex\nman king woman QUEEN\nman woman king queen\nman woman king table\nnot a line\n: other\n\
                    man woman uncle aunt\n";
        let questions = Questions::parse(text).unwrap();
        for method in [Method::Add, Method::Mul] {
            for threads in [1, 2] {
                for dummy in [false, true] {
                    let job = Job::new();
                    let scores =
                        analogies(&subject(), &questions, method, dummy, threads, &job).unwrap();
                    let found: Vec<_> = scores
                        .iter()
                        .map(|s| (s.section.as_str(), s.correct, s.incorrect, s.unknown))
                        .collect();
                    let wrong = u64::from(dummy);
                    let expected = [
                        ("sex", 2, 1, 0),
                        ("other", 0, wrong, 1),
                        ("Total accuracy", 2, 1 + wrong, 1),
                    ];
                    assert_eq!(found, expected);
                }
            }
        }
    }

    #[test]
    fn questions_without_section_and_files_without_questions_are_refused() {
        assert_eq!(
            Questions::parse("a b c d\n").unwrap_err().to_string(),
            "line 1: expected the name of a section (': name') before the first question"
        );
        assert!(Questions::parse(": empty\n\n").is_err());
    }

    #[test]
    fn an_interrupt_ends_it() {
        let job = Job::new();
        job.stop();
        let questions = Questions::parse(": s\nman king woman queen\n").unwrap();
        assert!(analogies(&subject(), &questions, Method::Add, false, 1, &job).is_err());
    }
}
