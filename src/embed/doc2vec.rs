//! doc2vec (Le, Mikolov 2014: "Distributed representations of sentences and documents"): a vector for each document.
//!
//! | | options | the input that learns to predict a word |
//! |---|---|---|
//! | PV-DBOW | `dm` 0 | the document's vector, for each of its words |
//! | PV-DBOW with words | `dm` 0, `dbow_words` 1 | likewise, and each word of the window around it (skip-gram) |
//! | PV-DM, mean or sum | `dm` 1, `dm_mean` 1 or 0 | the mean or the sum of the document's vector and the window's |
//! | PV-DM, concatenated | `dm_concat` 1 | the document's vector and those of `window` words on either side, one behind the other |
//!
//! As gensim has them, also in who receives which share of an error (see [`CbowGradient`]). Beyond the ends of a document
//! the concatenation has the vector of a word that does not exist. A document that is inferred is trained in the same way,
//! with words and output vectors as they are: the same text gives the same vector, always.
//!
//! ```
//! use sqlite_annoy::embed::{doc2vec::{Doc2vec, Doc2vecOptions}, documents::DocumentReader, strict_json};
//! use sqlite_annoy::{job::Job, kernel};
//!
//! let given = strict_json::object(r#"{"vector_size": 16, "min_count": 1, "epochs": 20, "dm": 0}"#)?;
//! let options = Doc2vecOptions::from_pairs(given, &[])?;
//! let mut reader = DocumentReader::new(&options.base);
//! for (key, text) in [(7, "the moon at night"), (8, "a star at night"), (9, "bread and butter")] {
//!     reader.add(key, text, || Ok(()))?;
//! }
//! let (vocabulary, documents) = reader.finish()?;
//! let mut model = Doc2vec::new(vocabulary, &options)?;
//! let vectors = model.train(&documents, kernel::level(), &Job::new())?;
//! assert_eq!((vectors.n_rows(), vectors.dim(), documents.keys()), (3, 16, &[7, 8, 9][..]));
//!
//! let words: Vec<_> = "moon and star".split(' ').filter_map(|word| model.vocabulary.find(word)).collect();
//! let vector = model.infer(&words, &options.base, kernel::level(), &Job::new())?;
//! assert_eq!(vector, model.infer(&words, &options.base, kernel::level(), &Job::new())?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::embed::documents::Documents;
use crate::embed::epochs::{Loss, alpha_at, means, on_threads};
use crate::embed::hogwild::Shared;
use crate::embed::matrix::Matrix;
use crate::embed::options::{CbowGradient, Given, Options};
use crate::embed::predict::{Predictor, Targets, window};
use crate::embed::random::Random;
use crate::embed::train::initial;
use crate::embed::vocab::{Vocabulary, WordId};
use crate::job::Job;
use crate::kernel::Level;
use crate::kernel::window::{Bags, Row};

/// The coordinate of the random streams of inference; those of training are epochs.
const INFER: u64 = u64::MAX - 2;

/// The parameters of a doc2vec training. Names and defaults are gensim's.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc2vecOptions {
    /// What it has in common with word2vec; `sg` has no meaning, `cbow_mean` is `dm_mean`.
    pub base: Options,
    /// PV-DM instead of PV-DBOW.
    pub dm: bool,
    /// PV-DM concatenates.
    pub dm_concat: bool,
    /// PV-DBOW trains the words, too.
    pub dbow_words: bool,
}

impl Doc2vecOptions {
    /// The names of its own options.
    pub const NAMES: [&'static str; 4] = ["dm", "dm_mean", "dm_concat", "dbow_words"];

    /// Reads options; `more` are names that the surface understands.
    ///
    /// # Errors
    /// As [`Options::from_pairs`]; `sg` and `cbow_mean`, which are called otherwise here.
    pub fn from_pairs(pairs: Vec<(String, Value)>, more: &[&str]) -> Result<Doc2vecOptions> {
        let (mut dm, mut dm_concat, mut dbow_words) = (true, false, false);
        let mut rest = Vec::new();
        for (name, value) in pairs {
            let given = Given {
                name: &name,
                value: &value,
            };
            match name.as_str() {
                "dm" => dm = given.flag()?,
                "dm_mean" => rest.push(("cbow_mean".to_owned(), u8::from(given.flag()?).into())),
                "dm_concat" => dm_concat = given.flag()?,
                "dbow_words" => dbow_words = given.flag()?,
                "dm_tag_count" => {
                    bail!("option 'dm_tag_count' has no meaning here: a document has one vector")
                }
                "sg" => bail!("option 'sg': doc2vec calls it dm (0 is PV-DBOW, 1 is PV-DM)"),
                "cbow_mean" => bail!("option 'cbow_mean': doc2vec calls it dm_mean"),
                _ => rest.push((name, value)),
            }
        }
        if !rest.iter().any(|(name, _)| name == "epochs") {
            rest.push(("epochs".to_owned(), 10.into()));
        }
        let more: Vec<&str> = Doc2vecOptions::NAMES.iter().chain(more).copied().collect();
        let options = Doc2vecOptions {
            base: Options::from_pairs(rest, &more)?,
            dm,
            dm_concat: dm_concat && dm,
            dbow_words: dbow_words && !dm,
        };
        options.base.check_plain()?;
        let n = options.input_size();
        if n > 1 << 20 {
            bail!(
                "dm_concat makes inputs of (2 window + 1) vector_size = {n} numbers: expected at most {}; lower window \
                 or vector_size",
                1 << 20
            );
        }
        Ok(options)
    }

    /// The options as a JSON object that [`Doc2vecOptions::from_pairs`] reads back unchanged.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut all = self.base.to_json();
        if let Value::Object(all) = &mut all {
            all.remove("sg");
            all.remove("cbow_mean");
        }
        all["dm"] = json!(u8::from(self.dm));
        all["dm_mean"] = json!(u8::from(self.base.cbow_mean));
        all["dm_concat"] = json!(u8::from(self.dm_concat));
        all["dbow_words"] = json!(u8::from(self.dbow_words));
        all
    }

    /// Vectors that an input consists of, one behind the other.
    fn segments(&self) -> usize {
        if self.dm_concat {
            2 * self.base.window + 1
        } else {
            1
        }
    }

    /// Numbers of an input.
    #[must_use]
    pub fn input_size(&self) -> usize {
        self.segments().saturating_mul(self.base.vector_size)
    }

    /// Rows of the matrix of words: with `dm_concat` the last is the word beyond the ends.
    #[must_use]
    pub fn n_word_rows(&self, n_words: usize) -> usize {
        n_words + usize::from(self.dm_concat)
    }
}

/// A doc2vec model without its documents: what inference needs.
#[derive(Debug, Clone)]
pub struct Doc2vec {
    /// What was asked for.
    pub options: Doc2vecOptions,
    /// The words.
    pub vocabulary: Vocabulary,
    /// The words' vectors: [n_word_rows, vector_size].
    pub words: Matrix,
    /// Output vectors of negative sampling: [vocabulary, input_size].
    pub output: Option<Matrix>,
    /// Vectors of the inner nodes of hierarchical softmax, likewise.
    pub nodes: Option<Matrix>,
    /// Mean loss of each epoch.
    pub losses: Vec<Option<f64>>,
}

impl Doc2vec {
    /// The matrices that training begins with.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn new(vocabulary: Vocabulary, options: &Doc2vecOptions) -> Result<Doc2vec> {
        let base = &options.base;
        let n_words = vocabulary.len();
        let words = initial(options.n_word_rows(n_words), base)?;
        let dim = options.input_size();
        Ok(Doc2vec {
            options: options.clone(),
            output: match base.negative {
                0 => None,
                _ => Some(Matrix::zeros(n_words, dim)?),
            },
            nodes: match base.hs {
                false => None,
                true => Some(Matrix::zeros(n_words.max(2) - 1, dim)?),
            },
            vocabulary,
            words,
            losses: Vec::new(),
        })
    }

    /// Trains words and documents; returns the documents' vectors, in order.
    ///
    /// # Errors
    /// As [`embed::train`](crate::embed::train::train).
    pub fn train(&mut self, documents: &Documents, level: Level, job: &Job) -> Result<Matrix> {
        let mut start = self.options.base.clone();
        // Not the stream of the words.
        start.seed = start.seed.wrapping_add(1);
        let mut vectors = initial(documents.len(), &start)?;
        let base = self.options.base.clone();
        let total = base.epochs as f64 * documents.n_tokens() as f64;
        job.phase("train", (base.epochs * documents.n_tokens()) as u64);
        let chunks = documents.chunks();
        let n_chunks = chunks.len() as u64;
        let outcomes = self.with_targets(&mut vectors, false, level, |training| {
            on_threads(base.threads, base.epochs as u64 * n_chunks, |next| {
                training.with_worker(|worker| {
                    let mut losses = vec![Loss::default(); base.epochs];
                    while let Some(task) = next() {
                        let (epoch, chunk) = (task / n_chunks, (task % n_chunks) as usize);
                        let mut random = Random::new(base.seed, [epoch, chunk as u64]);
                        worker.predictor.loss = Loss::default();
                        for document in chunks[chunk].clone() {
                            job.check()?;
                            let (first, tokens) = documents.document(document);
                            let before = epoch as f64 * documents.n_tokens() as f64 + first as f64;
                            let alpha = |share: f64| {
                                alpha_at(&base, before + share * tokens.len() as f64, total)
                            };
                            worker.document(document as u32, tokens, alpha, &mut random, job)?;
                            job.advance(tokens.len() as u64);
                        }
                        losses[epoch as usize].add(worker.predictor.loss);
                    }
                    Ok(losses)
                })
            })
        })?;
        self.losses = means(base.epochs, outcomes);
        if !self.words.is_finite() || !vectors.is_finite() {
            bail!(
                "training diverged: the vectors left the range of numbers; lower alpha (now {})",
                base.alpha
            );
        }
        Ok(vectors)
    }

    /// The vector of a document that was not trained. The model is borrowed mutably and not changed.
    ///
    /// `schedule` has the epochs and learning rates; tokens whose word is not in the vocabulary are left out before.
    ///
    /// # Errors
    /// [`Interrupted`](crate::job::Interrupted) through `job`, no memory, or numbers that leave the range of floats.
    pub fn infer(
        &mut self,
        tokens: &[WordId],
        schedule: &Options,
        level: Level,
        job: &Job,
    ) -> Result<Vec<f32>> {
        let options = self.options.base.clone();
        let mut vector = Matrix::zeros(1, options.vector_size)?;
        let mut random = Random::new(options.seed, [INFER, u64::MAX]);
        let scale = 1.0 / options.vector_size as f32;
        vector
            .row_mut(0)
            .fill_with(|| (2.0 * random.unit() - 1.0) * scale);
        let total = schedule.epochs as f64 * tokens.len() as f64;
        self.with_targets(&mut vector, true, level, |training| {
            training.with_worker(|worker| {
                for epoch in 0..schedule.epochs {
                    let before = epoch as f64 * tokens.len() as f64;
                    let alpha = |share: f64| {
                        alpha_at(schedule, before + share * tokens.len() as f64, total)
                    };
                    let mut random = Random::new(options.seed, [INFER, epoch as u64]);
                    worker.document(0, tokens, alpha, &mut random, job)?;
                }
                Ok(())
            })
        })?;
        let vector = vector.row(0).to_vec();
        if !vector.iter().all(|x| x.is_finite()) {
            bail!("inference diverged: lower alpha (now {})", schedule.alpha);
        }
        Ok(vector)
    }

    fn with_targets<T>(
        &mut self,
        documents: &mut Matrix,
        is_frozen: bool,
        level: Level,
        run: impl FnOnce(&Training<'_>) -> Result<T>,
    ) -> Result<T> {
        let (output, nodes) = (self.output.as_mut(), self.nodes.as_mut());
        let base = &self.options.base;
        let counts = self.vocabulary.counts();
        let targets = Targets::new(counts, base, output, nodes, is_frozen, level)?;
        run(&Training {
            options: &self.options,
            nobody: self.vocabulary.len() as WordId,
            words: Shared::new(&mut self.words),
            documents: Shared::new(documents),
            targets: &targets,
            is_frozen,
            level,
        })
    }
}

/// What all threads share.
struct Training<'a> {
    options: &'a Doc2vecOptions,
    /// The id of the word beyond the ends.
    nobody: WordId,
    words: Shared<'a>,
    documents: Shared<'a>,
    targets: &'a Targets<'a>,
    is_frozen: bool,
    level: Level,
}

impl Training<'_> {
    fn with_worker<T>(&self, run: impl FnOnce(&mut Worker<'_>) -> Result<T>) -> Result<T> {
        let mut scratch = Matrix::zeros(2, self.options.input_size())?;
        let scratch = Shared::new(&mut scratch);
        let stride = scratch.stride();
        run(&mut Worker {
            training: self,
            predictor: Predictor::new(self.targets, stride),
            bags: Bags::at(self.level, self.words.stride()),
            whole: Bags::at(self.level, stride),
            scratch,
            kept: Vec::new(),
            bag: Vec::new(),
            inputs: Vec::new(),
        })
    }
}

/// One thread.
struct Worker<'a> {
    training: &'a Training<'a>,
    predictor: Predictor<'a>,
    /// Steps on vectors, and on whole inputs.
    bags: Bags,
    whole: Bags,
    /// An input that is made of several vectors, and its error.
    scratch: Shared<'a>,
    /// The document without the tokens that subsampling removed.
    kept: Vec<WordId>,
    bag: Vec<Row<'a>>,
    inputs: Vec<(Row<'a>, Row<'a>)>,
}

impl<'a> Worker<'a> {
    /// Trains a document once. `alpha` gives the learning rate when a share of the document is behind.
    fn document(
        &mut self,
        document: u32,
        tokens: &[WordId],
        alpha: impl Fn(f64) -> f32,
        random: &mut Random,
        job: &Job,
    ) -> Result<()> {
        let training = self.training;
        let vector = training.documents.row(document);
        training.targets.thin(tokens, random, &mut self.kept);
        let n = self.kept.len();
        let mut rate = alpha(0.0);
        for position in 0..n {
            if position.is_multiple_of(64) {
                job.check()?;
                rate = alpha(position as f64 / n as f64);
            }
            if training.options.dm_concat {
                self.predictor.announce(self.kept[position], random);
                self.concatenated(vector, position, rate)?;
            } else if training.options.dm {
                self.mean(vector, position, rate, random)?;
            } else {
                self.bag_of_words(vector, position, rate, random)?;
            }
        }
        Ok(())
    }

    fn bag_of_words(
        &mut self,
        vector: Row<'a>,
        position: usize,
        alpha: f32,
        random: &mut Random,
    ) -> Result<()> {
        let training = self.training;
        self.inputs.clear();
        self.inputs.push((vector, vector));
        if training.options.dbow_words && !training.is_frozen {
            let base = &training.options.base;
            let (low, high) = window(base, position, self.kept.len(), random);
            for other in (low..high).filter(|&other| other != position) {
                let row = training.words.row(self.kept[other]);
                self.inputs.push((row, row));
            }
        }
        self.predictor.announce(self.kept[position], random);
        self.predictor.predict(&self.inputs, alpha)
    }

    fn mean(
        &mut self,
        vector: Row<'a>,
        position: usize,
        alpha: f32,
        random: &mut Random,
    ) -> Result<()> {
        let training = self.training;
        let options = &training.options.base;
        let (low, high) = window(options, position, self.kept.len(), random);
        self.predictor.announce(self.kept[position], random);
        self.bag.clear();
        self.bag.push(vector);
        for other in (low..high).filter(|&other| other != position) {
            self.bag.push(training.words.row(self.kept[other]));
        }
        let inverse = 1.0 / self.bag.len() as f32;
        let (input, error) = (self.scratch.row(0), self.scratch.row(1));
        let factor = if options.cbow_mean { inverse } else { 1.0 };
        self.bags.sum(&self.bag, factor, input);
        self.bags.clear(error);
        self.predictor.predict(&[(input, error)], alpha)?;
        let corrected = options.cbow_gradient == CbowGradient::Corrected;
        let share = if options.cbow_mean == corrected {
            inverse
        } else {
            1.0
        };
        let learns = if training.is_frozen {
            1
        } else {
            self.bag.len()
        };
        self.bags.share(&self.bag[..learns], share, error);
        Ok(())
    }

    fn concatenated(&mut self, vector: Row<'a>, position: usize, alpha: f32) -> Result<()> {
        let training = self.training;
        let window = training.options.base.window as isize;
        self.bag.clear();
        self.bag.push(vector);
        for offset in (-window..=window).filter(|&offset| offset != 0) {
            let other = position.checked_add_signed(offset);
            let id = other.and_then(|i| self.kept.get(i)).copied();
            self.bag
                .push(training.words.row(id.unwrap_or(training.nobody)));
        }
        let n = training.options.base.vector_size;
        let (input, error) = (self.scratch.row(0), self.scratch.row(1));
        self.scratch.join(0, &self.bag, n, &self.bags);
        self.whole.clear(error);
        self.predictor.predict(&[(input, error)], alpha)?;
        let learns = if training.is_frozen {
            1
        } else {
            self.bag.len()
        };
        self.scratch.part(1, &self.bag[..learns], n, &self.bags);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::documents::DocumentReader;
    use crate::embed::strict_json;

    fn options(text: &str) -> Result<Doc2vecOptions> {
        Doc2vecOptions::from_pairs(strict_json::object(text)?, &["replace"])
    }

    const KINDS: [&str; 5] = [
        r#""dm":0"#,
        r#""dm":0, "dbow_words":1"#,
        r#""dm":1"#,
        r#""dm":1, "dm_mean":0"#,
        r#""dm_concat":1"#,
    ];

    /// Documents of two topics in turn. Every other word is the same in all, so that its neighbours do not tell what a
    /// word may be, only its document does.
    fn trained(kind: &str, more: &str) -> (Doc2vec, Matrix) {
        let text = format!(
            r#"{{"vector_size":10, "min_count":1, "sample":0, "window":1, "epochs":40, "alpha":0.05, {kind} {more}}}"#
        );
        let options = options(&text).unwrap();
        let mut reader = DocumentReader::new(&options.base);
        let mut random = Random::new(4, [0, 0]);
        for d in 0..40 {
            let topic = ["a b c d e f", "u v w x y z"][d % 2];
            let words: Vec<&str> = topic.split(' ').collect();
            let text: Vec<&str> = (0..15)
                .flat_map(|_| ["m", words[random.below(6) as usize]])
                .collect();
            reader.add(d as i64, &text.join(" "), || Ok(())).unwrap();
        }
        let (vocabulary, documents) = reader.finish().unwrap();
        let mut model = Doc2vec::new(vocabulary, &options).unwrap();
        let level = crate::kernel::level();
        let vectors = model.train(&documents, level, &Job::new()).unwrap();
        (model, vectors)
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        use crate::vector::exact;
        1.0 - exact::cosine_from(exact::dot(a, b), exact::dot(a, a), exact::dot(b, b))
    }

    #[test]
    fn documents_of_one_topic_come_together_in_every_kind_of_model() {
        for kind in KINDS {
            for more in ["", r#", "hs":1, "negative":0"#, r#", "threads":2"#] {
                let (mut model, vectors) = trained(kind, more);
                let mean = |parity: usize| -> f64 {
                    let others = (1..40).filter(|d| d % 2 == parity);
                    others
                        .map(|d| cosine(vectors.row(0), vectors.row(d)))
                        .sum::<f64>()
                        / 20.0
                };
                assert!(
                    mean(0) > mean(1) + 0.1,
                    "{kind}{more}: {} {}",
                    mean(0),
                    mean(1)
                );
                let (first, last) = (model.losses[0].unwrap(), model.losses[39].unwrap());
                assert!(last < first, "{kind}{more}: {first} {last}");

                // Inference: the same topic, the same bytes every time, and a model that stays as it is.
                let before = (model.words.clone(), model.output.clone());
                let find = |w: &str| model.vocabulary.find(w).unwrap();
                let tokens: Vec<WordId> = "a c b e d f a b".split(' ').map(find).collect();
                let schedule = Options {
                    epochs: 50,
                    ..model.options.base.clone()
                };
                let level = crate::kernel::level();
                let inferred = model.infer(&tokens, &schedule, level, &Job::new()).unwrap();
                let near = (0..40).map(|d| (d, cosine(&inferred, vectors.row(d))));
                let best = near.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
                assert_eq!(best.0 % 2, 0, "{kind}{more}");
                let again = model.infer(&tokens, &schedule, level, &Job::new()).unwrap();
                assert_eq!(inferred, again);
                assert_eq!(before.0.floats(), model.words.floats());
                let floats = |m: &Option<Matrix>| m.as_ref().map(|m| m.floats().to_vec());
                assert_eq!(floats(&before.1), floats(&model.output));
            }
        }
    }

    #[test]
    fn one_thread_gives_the_same_bytes_every_run() {
        for kind in KINDS {
            let (first, second) = (trained(kind, ""), trained(kind, ""));
            assert_eq!(first.1.floats(), second.1.floats(), "{kind}");
            assert_eq!(first.0.words.floats(), second.0.words.floats(), "{kind}");
        }
    }

    #[test]
    fn options_survive_the_way_through_json_and_those_of_word2vec_are_told_their_names() {
        for kind in KINDS {
            let read = options(&format!(r#"{{{kind}, "window":3}}"#)).unwrap();
            assert_eq!(options(&read.to_json().to_string()).unwrap(), read);
            assert_eq!(read.base.epochs, 10);
        }
        for (text, part) in [
            (r#"{"sg":1}"#, "calls it dm "),
            (r#"{"cbow_mean":1}"#, "calls it dm_mean"),
            (r#"{"dm_tag_count":2}"#, "one vector"),
            (r#"{"dbow_word":1}"#, "did you mean 'dbow_words'"),
            (r#"{"dm_concat":1, "window":10000}"#, "lower window"),
        ] {
            let message = options(text).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn an_empty_document_stays_where_it_began() {
        let (mut model, _) = trained(KINDS[0], "");
        let schedule = model.options.base.clone();
        let vector = model
            .infer(&[], &schedule, crate::kernel::level(), &Job::new())
            .unwrap();
        assert!(vector.iter().all(|x| x.abs() <= 0.1) && vector.iter().any(|&x| x != 0.0));
    }
}
