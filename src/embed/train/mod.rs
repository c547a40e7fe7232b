//! Training: the loop over the corpus.
//!
//! Threads take chunks of the corpus in turn, epoch after epoch. Of each document the frequent words are thinned first;
//! then windows and noise words are drawn for the next positions, so that the rows they need are known, and fetched,
//! before the arithmetic asks for them. The step itself is [`kernel::window`](crate::kernel::window)'s.
//!
//! * Skip-gram: for each centre, its context words are the inputs, the centre and `negative` noise words the outputs;
//!   the noise is shared by the window.
//! * CBOW: 16 positions at a time; the means of their contexts are the inputs. They share twice `negative` noise words
//!   of half weight: as much noise for each as if it had its own, and a better sample of it than `negative` shared ones.
//! * Hierarchical softmax: the outputs are the inner nodes on the centre's path; CBOW takes one mean after the other.
//!
//! A noise word drawn twice counts twice; one that is the centre itself is skipped, as in gensim.
//!
//! What is drawn depends on seed, epoch and chunk only, and the learning rate on the place in the corpus: so one thread
//! gives the same bytes every run (on one kind of processor), and more threads differ by the order of updates only.

use anyhow::Result;

use crate::embed::corpus::{Chunk, Corpus};
use crate::embed::epochs::{Loss, alpha_at, means, on_threads};
use crate::embed::hogwild::Shared;
use crate::embed::huffman::Huffman;
use crate::embed::matrix::Matrix;
use crate::embed::model::{Model, Summary};
use crate::embed::options::Options;
use crate::embed::random::Random;
use crate::embed::sampling::{DrawnNoise, Noise, keep_probabilities};
use crate::embed::vocab::Vocabulary;
use crate::job::Job;
use crate::kernel::Level;
use crate::kernel::window::Steps;
use worker::{Worker, noise_of};

mod worker;

#[cfg(test)]
mod tests;

/// The coordinates of the random streams that make the initial vectors; epochs count from 0.
const INITIAL: u64 = u64::MAX;
/// Those of the stream that draws the noise words.
const NOISE: u64 = u64::MAX - 1;

/// Trains vectors for the words of a corpus.
///
/// `level` is the instruction set to use: [`kernel::level`](crate::kernel::level), unless a test wants another.
///
/// # Errors
/// No memory for the matrices, numbers that leave the range of floats (the learning rate is too high), or
/// [`Interrupted`](crate::job::Interrupted) through `job`.
pub fn train(
    vocabulary: Vocabulary,
    corpus: &Corpus,
    options: &Options,
    level: Level,
    job: &Job,
) -> Result<Model> {
    let weights = Weights::new(vocabulary.len(), options)?;
    train_from(weights, vocabulary, corpus, options, level, job)
}

/// The matrices of a model.
#[derive(Debug, Clone)]
pub struct Weights {
    /// As [`Model::input`].
    pub input: Matrix,
    /// As [`Model::output`].
    pub output: Option<Matrix>,
    /// As [`Model::nodes`].
    pub nodes: Option<Matrix>,
}

impl Weights {
    /// The matrices that training begins with.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn new(n_words: usize, options: &Options) -> Result<Weights> {
        let dim = options.vector_size;
        Ok(Weights {
            input: initial(n_words, options)?,
            output: match options.negative {
                0 => None,
                _ => Some(Matrix::zeros(n_words, dim)?),
            },
            nodes: match options.hs {
                false => None,
                true => Some(Matrix::zeros(n_words.max(2) - 1, dim)?),
            },
        })
    }
}

/// As [`train`], from matrices that may have been trained before. The vocabulary may count more than the corpus holds:
/// its counts thin frequent words and weigh noise.
///
/// # Errors
/// As [`train`].
pub fn train_from(
    weights: Weights,
    vocabulary: Vocabulary,
    corpus: &Corpus,
    options: &Options,
    level: Level,
    job: &Job,
) -> Result<Model> {
    let Weights {
        mut input,
        mut output,
        mut nodes,
    } = weights;
    let chunks = corpus.chunks();
    let counts = vocabulary.counts();
    let training = Training {
        options,
        corpus,
        chunks: &chunks,
        keep: keep_probabilities(counts, options.sample)
            .into_iter()
            .map(keep_threshold)
            .collect(),
        noise: DrawnNoise::new(
            &Noise::new(counts, options.ns_exponent)?,
            noise_of(options, corpus.n_tokens()) as u64,
            &mut Random::new(options.seed, [NOISE, 0]),
        ),
        tree: Huffman::new(if options.hs { counts } else { &[] }),
        input: Shared::new(&mut input),
        output: output.as_mut().map(Shared::new),
        nodes: nodes.as_mut().map(Shared::new),
        steps: Steps::at(level),
        job,
    };
    let raw_words = options.epochs as u64 * corpus.n_tokens() as u64;
    job.phase("train", raw_words);
    let threads = match options.deterministic {
        true => 1,
        false => options.threads,
    };
    let n_tasks = options.epochs as u64 * chunks.len() as u64;
    let outcomes = on_threads(threads, n_tasks, |next| training.run(next))?;

    let summary = Summary {
        raw_words,
        effective_words: outcomes.iter().map(|o| o.effective_words).sum(),
        losses: means(options.epochs, outcomes.into_iter().map(|o| o.losses)),
    };
    if !input.is_finite() {
        return Err(diverged(options));
    }
    Ok(Model {
        options: options.clone(),
        vocabulary,
        input,
        output,
        nodes,
        summary,
    })
}

/// Input vectors at the start: components uniform in -1/dim..1/dim as in gensim, each word's from a stream of its own.
pub(super) fn initial(n_words: usize, options: &Options) -> Result<Matrix> {
    let mut matrix = Matrix::zeros(n_words, options.vector_size)?;
    let scale = 1.0 / options.vector_size as f32;
    for id in 0..n_words {
        let mut random = Random::new(options.seed, [INITIAL, id as u64]);
        matrix
            .row_mut(id)
            .fill_with(|| (2.0 * random.unit() - 1.0) * scale);
    }
    Ok(matrix)
}

/// The largest u32 for which a token is kept.
fn keep_threshold(probability: f32) -> u32 {
    (f64::from(probability) * (1u64 << 32) as f64 - 1.0) as u32
}

fn diverged(options: &Options) -> anyhow::Error {
    anyhow::anyhow!(
        "training diverged: the vectors left the range of numbers; lower alpha (now {}){}",
        options.alpha,
        if options.sg || options.cbow_mean {
            ""
        } else {
            " or set cbow_mean to 1"
        }
    )
}

/// Everything the threads of one training share.
struct Training<'a> {
    options: &'a Options,
    corpus: &'a Corpus,
    chunks: &'a [Chunk],
    /// By word: a token is kept if 32 random bits do not exceed this.
    keep: Vec<u32>,
    noise: DrawnNoise,
    tree: Huffman,
    input: Shared<'a>,
    output: Option<Shared<'a>>,
    nodes: Option<Shared<'a>>,
    steps: Steps,
    job: &'a Job,
}

/// What one thread reports.
struct Outcome {
    effective_words: u64,
    losses: Vec<Loss>,
}

impl Training<'_> {
    /// One thread's part: tasks as long as `next` has one.
    fn run(&self, next: &mut dyn FnMut() -> Option<u64>) -> Result<Outcome> {
        // Means and their errors, for CBOW.
        let mut means = Matrix::zeros(crate::kernel::window::INPUTS, self.options.vector_size)?;
        let mut errors = means.clone();
        let mut worker = Worker::new(self, Shared::new(&mut means), Shared::new(&mut errors));
        let n_chunks = self.chunks.len() as u64;
        while let Some(task) = next() {
            worker.chunk((task / n_chunks) as usize, (task % n_chunks) as usize)?;
        }
        Ok(worker.outcome())
    }

    /// The learning rate once `done` of all tokens of all epochs are behind.
    fn alpha(&self, done: f64) -> f32 {
        let total = self.options.epochs as f64 * self.corpus.n_tokens() as f64;
        alpha_at(self.options, done, total)
    }
}
