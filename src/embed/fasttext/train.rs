//! Learning the vectors of words and n-grams.
//!
//! As word2vec, with the mean of a word's rows in place of its vector. Gathering the rows of a word is most of the work (a
//! word has some 25 n-grams), so each word's are gathered once for several examples:
//!
//! * Skip-gram: a word's mean learns to predict each word of its window, one after the other, each with noise of its own;
//!   then its rows receive the sum of the errors.
//! * CBOW: for 16 positions at a time the rows of each word of the windows are added up once; the mean of all rows of a
//!   window's words learns to predict its centre; then each word's rows receive the sum of the errors of its windows.
//!
//! As in the original program each row receives the whole error, not its share of the mean; `cbow_gradient` =
//! `corrected` gives shares.

use anyhow::Result;
use rustc_hash::FxHashMap;

use super::{Fasttext, FasttextOptions, ngrams};
use crate::embed::documents::Documents;
use crate::embed::epochs::{Loss, alpha_at, means, on_threads};
use crate::embed::hogwild::Shared;
use crate::embed::matrix::Matrix;
use crate::embed::options::{CbowGradient, Options};
use crate::embed::predict::{Predictor, Targets, window};
use crate::embed::random::Random;
use crate::embed::train::{Weights, initial};
use crate::embed::vocab::{Vocabulary, WordId};
use crate::job::Job;
use crate::kernel::Level;
use crate::kernel::window::{Bags, Row};

/// Trains vectors for the words of a corpus and their n-grams.
///
/// # Errors
/// As [`embed::train`](crate::embed::train::train).
pub fn train(
    vocabulary: Vocabulary,
    documents: &Documents,
    options: &FasttextOptions,
    level: Level,
    job: &Job,
) -> Result<Fasttext> {
    let base = &options.base;
    let Weights {
        input: words,
        output,
        nodes,
    } = Weights::new(vocabulary.len(), base)?;

    let (min_n, max_n) = (options.min_n, options.max_n);
    let mut buckets_of: Vec<Vec<u32>> = Vec::with_capacity(vocabulary.len());
    let mut buckets: Vec<u32> = Vec::new();
    for id in 0..vocabulary.len() as WordId {
        job.check()?;
        let word = vocabulary.word(id).as_bytes();
        let own = ngrams::buckets(word, min_n, max_n, options.bucket);
        buckets.extend(&own);
        buckets_of.push(own);
        if buckets.len() > 1 << 24 {
            buckets.sort_unstable();
            buckets.dedup();
        }
    }
    buckets.sort_unstable();
    buckets.dedup();
    let row_of: FxHashMap<u32, u32> = buckets.iter().copied().zip(0u32..).collect();
    let mut rows = Vec::new();
    let mut ends = Vec::with_capacity(vocabulary.len());
    for own in buckets_of {
        rows.extend(own.iter().map(|bucket| row_of[bucket]));
        ends.push(rows.len());
    }
    let mut start = base.clone();
    // Not the stream of the words.
    start.seed = base.seed.wrapping_add(1);
    let mut model = Fasttext {
        options: options.clone(),
        ngrams: initial(buckets.len(), &start)?,
        vocabulary,
        words,
        rows,
        ends,
        buckets,
        output,
        nodes,
        losses: Vec::new(),
    };
    model.losses = learn(&mut model, documents, level, job)?;
    if !model.words.is_finite() || !model.ngrams.is_finite() {
        anyhow::bail!(
            "training diverged: the vectors left the range of numbers; lower alpha (now {})",
            base.alpha
        );
    }
    Ok(model)
}

fn learn(
    model: &mut Fasttext,
    documents: &Documents,
    level: Level,
    job: &Job,
) -> Result<Vec<Option<f64>>> {
    let options = model.options.base.clone();
    let (rows, ends) = (
        std::mem::take(&mut model.rows),
        std::mem::take(&mut model.ends),
    );
    let counts = model.vocabulary.counts();
    let (output, nodes) = (model.output.as_mut(), model.nodes.as_mut());
    let targets = Targets::new(counts, &options, output, nodes, false, level)?;
    let (words, ngrams) = (
        Shared::new(&mut model.words),
        Shared::new(&mut model.ngrams),
    );
    let chunks = documents.chunks();
    let n_chunks = chunks.len() as u64;
    let total = options.epochs as f64 * documents.n_tokens() as f64;
    job.phase("train", (options.epochs * documents.n_tokens()) as u64);

    let training = Training {
        options: &options,
        documents,
        targets: &targets,
        words,
        ngrams,
        rows: &rows,
        ends: &ends,
        level,
        job,
        total,
    };
    let outcomes = on_threads(options.threads, options.epochs as u64 * n_chunks, |next| {
        let span = (GROUP + 2 * options.window).min(documents.longest() + 1);
        let mut sums = Matrix::zeros(span, options.vector_size)?;
        let mut errors = sums.clone();
        let mut means = Matrix::zeros(2, options.vector_size)?;
        let scratch = [
            Shared::new(&mut sums),
            Shared::new(&mut errors),
            Shared::new(&mut means),
        ];
        let mut worker = Worker::new(&training, scratch);
        let mut losses = vec![Loss::default(); options.epochs];
        while let Some(task) = next() {
            let (epoch, chunk) = ((task / n_chunks) as usize, (task % n_chunks) as usize);
            let random = Random::new(options.seed, [epoch as u64, chunk as u64]);
            losses[epoch].add(worker.chunk(epoch, chunks[chunk].clone(), random)?);
        }
        Ok(losses)
    })?;
    (model.rows, model.ends) = (rows, ends);
    Ok(means(options.epochs, outcomes))
}

/// Positions of CBOW whose words are gathered together.
const GROUP: usize = 16;

/// What all threads share.
struct Training<'a> {
    options: &'a Options,
    documents: &'a Documents,
    targets: &'a Targets<'a>,
    words: Shared<'a>,
    ngrams: Shared<'a>,
    /// As in [`Fasttext`].
    rows: &'a [u32],
    ends: &'a [usize],
    level: Level,
    job: &'a Job,
    /// Tokens of all epochs.
    total: f64,
}

impl<'a> Training<'a> {
    /// The rows that a word is the mean of.
    fn bag(&self, id: WordId, bag: &mut Vec<Row<'a>>) {
        let i = id as usize;
        let first = if i == 0 { 0 } else { self.ends[i - 1] };
        bag.clear();
        bag.push(self.words.row(id));
        bag.extend(
            self.rows[first..self.ends[i]]
                .iter()
                .map(|&row| self.ngrams.row(row)),
        );
    }

    /// How many rows a word is the mean of.
    fn n_rows(&self, id: WordId) -> usize {
        let i = id as usize;
        1 + self.ends[i] - if i == 0 { 0 } else { self.ends[i - 1] }
    }
}

/// One thread.
struct Worker<'a> {
    training: &'a Training<'a>,
    predictor: Predictor<'a>,
    bags: Bags,
    /// For each word of the windows: the sum of its rows, and of the errors of its windows.
    sums: Shared<'a>,
    errors: Shared<'a>,
    /// A mean, and its error.
    mean: Row<'a>,
    error: Row<'a>,
    /// The document without the tokens that subsampling removed.
    kept: Vec<WordId>,
    bag: Vec<Row<'a>>,
    window: Vec<Row<'a>>,
}

impl<'a> Worker<'a> {
    fn new(training: &'a Training<'a>, [sums, errors, means]: [Shared<'a>; 3]) -> Worker<'a> {
        Worker {
            training,
            predictor: Predictor::new(training.targets, sums.stride()),
            bags: Bags::at(training.level, sums.stride()),
            sums,
            errors,
            mean: means.row(0),
            error: means.row(1),
            kept: Vec::new(),
            bag: Vec::new(),
            window: Vec::new(),
        }
    }

    /// Trains some documents once; returns the loss.
    fn chunk(
        &mut self,
        epoch: usize,
        documents: std::ops::Range<usize>,
        mut random: Random,
    ) -> Result<Loss> {
        let training = self.training;
        let options = training.options;
        self.predictor.loss = Loss::default();
        for document in documents {
            let (start, tokens) = training.documents.document(document);
            training.targets.thin(tokens, &mut random, &mut self.kept);
            let before = epoch as f64 * training.documents.n_tokens() as f64 + start as f64;
            let n = self.kept.len();
            for first in (0..n).step_by(GROUP) {
                training.job.check()?;
                let done = before + tokens.len() as f64 * first as f64 / n as f64;
                let alpha = alpha_at(options, done, training.total);
                let last = (first + GROUP).min(n);
                if options.sg {
                    for position in first..last {
                        self.skip_gram(position, alpha, &mut random)?;
                    }
                } else {
                    self.cbow(first, last, alpha, &mut random)?;
                }
            }
            training.job.advance(tokens.len() as u64);
        }
        Ok(self.predictor.loss)
    }

    fn skip_gram(&mut self, position: usize, alpha: f32, random: &mut Random) -> Result<()> {
        let options = self.training.options;
        let (low, high) = window(options, position, self.kept.len(), random);
        self.training.bag(self.kept[position], &mut self.bag);
        let n = self.bag.len() as f32;
        self.bags.sum(&self.bag, 1.0 / n, self.mean);
        self.bags.clear(self.error);
        for other in (low..high).filter(|&other| other != position) {
            let inputs = [(self.mean, self.error)];
            self.predictor.announce(self.kept[other], random);
            self.predictor.predict(&inputs, alpha)?;
        }
        let corrected = options.cbow_gradient == CbowGradient::Corrected;
        let share = if corrected { 1.0 / n } else { 1.0 };
        self.bags.share(&self.bag, share, self.error);
        Ok(())
    }

    fn cbow(&mut self, first: usize, last: usize, alpha: f32, random: &mut Random) -> Result<()> {
        let training = self.training;
        let options = training.options;
        let span_low = first.saturating_sub(options.window);
        let span_high = (last + options.window).min(self.kept.len());
        for i in span_low..span_high {
            training.bag(self.kept[i], &mut self.bag);
            let row = (i - span_low) as u32;
            self.bags.sum(&self.bag, 1.0, self.sums.row(row));
            self.bags.clear(self.errors.row(row));
        }
        let corrected = options.cbow_gradient == CbowGradient::Corrected;
        for position in first..last {
            let (low, high) = window(options, position, self.kept.len(), random);
            let others = || (low..high).filter(|&other| other != position);
            let n: usize = others().map(|i| training.n_rows(self.kept[i])).sum();
            if n == 0 {
                continue;
            }
            self.predictor.announce(self.kept[position], random);
            let inverse = 1.0 / n as f32;
            self.window.clear();
            self.window
                .extend(others().map(|i| self.sums.row((i - span_low) as u32)));
            let factor = if options.cbow_mean { inverse } else { 1.0 };
            self.bags.sum(&self.window, factor, self.mean);
            self.bags.clear(self.error);
            let inputs = [(self.mean, self.error)];
            self.predictor.predict(&inputs, alpha)?;
            self.window.clear();
            self.window
                .extend(others().map(|i| self.errors.row((i - span_low) as u32)));
            let share = if options.cbow_mean == corrected {
                inverse
            } else {
                1.0
            };
            self.bags.share(&self.window, share, self.error);
        }
        for i in span_low..span_high {
            training.bag(self.kept[i], &mut self.bag);
            let error = self.errors.row((i - span_low) as u32);
            self.bags.share(&self.bag, 1.0, error);
        }
        Ok(())
    }
}
