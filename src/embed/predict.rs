//! Vectors learn to predict a word: the half of training that doc2vec and fastText have in common.
//!
//! Whatever an input is made of (a document, a context and a document, a word and its n-grams), it is scored against the
//! word that it should predict and against noise words, or along the word's path in the tree of hierarchical softmax;
//! what it should have been goes into its *sink*. The arithmetic is `kernel::window`'s. Inputs that predict the same word
//! share its noise words. Targets that are frozen stay as they are.

use anyhow::{Result, bail};

use crate::embed::epochs::Loss;
use crate::embed::hogwild::Shared;
use crate::embed::huffman::Huffman;
use crate::embed::matrix::Matrix;
use crate::embed::options::Options;
use crate::embed::random::Random;
use crate::embed::sampling::{Noise, keep_probabilities};
use crate::embed::vocab::WordId;
use crate::kernel::Level;
use crate::kernel::window::{Block, INPUTS, OUTPUTS, Path, Paths, Row, Steps, Target};

/// The loss is measured on one word in so many: a prime, so that words which come round in step are not always left out.
const LOSS_EVERY: u64 = 31;

/// What is predicted.
pub(super) struct Targets<'a> {
    negative: usize,
    keep: Vec<f32>,
    noise: Noise,
    tree: Huffman,
    output: Option<Shared<'a>>,
    nodes: Option<Shared<'a>>,
    steps: Steps,
    is_frozen: bool,
}

impl<'a> Targets<'a> {
    /// The words with these counts. `output` and `nodes` have rows of the inputs' stride.
    pub(super) fn new(
        counts: &[u64],
        options: &Options,
        output: Option<&'a mut Matrix>,
        nodes: Option<&'a mut Matrix>,
        is_frozen: bool,
        level: Level,
    ) -> Result<Targets<'a>> {
        Ok(Targets {
            negative: options.negative,
            keep: keep_probabilities(counts, options.sample),
            noise: Noise::new(counts, options.ns_exponent)?,
            tree: Huffman::new(if options.hs { counts } else { &[] }),
            output: output.map(Shared::new),
            nodes: nodes.map(Shared::new),
            steps: Steps::at(level),
            is_frozen,
        })
    }

    /// Keeps each token with its word's probability.
    pub(super) fn thin(&self, tokens: &[WordId], random: &mut Random, kept: &mut Vec<WordId>) {
        kept.clear();
        kept.extend(
            tokens
                .iter()
                .filter(|&&id| random.unit() < self.keep[id as usize]),
        );
    }
}

/// How far the window around a position of `n` tokens reaches: from, to. The position is in it.
pub(super) fn window(
    options: &Options,
    position: usize,
    n: usize,
    random: &mut Random,
) -> (usize, usize) {
    let b = if options.shrink_windows {
        1 + random.below(options.window as u32) as usize
    } else {
        options.window
    };
    (position.saturating_sub(b), (position + b + 1).min(n))
}

/// One thread's part.
pub(super) struct Predictor<'a> {
    targets: &'a Targets<'a>,
    block: Block<'a>,
    /// Steps of single inputs, on the nodes of the tree and on the words.
    tree_paths: Option<Paths<'a>>,
    word_paths: Option<Paths<'a>>,
    /// The word that was announced; it and its noise, as drawn; and without repetitions, with the number of times.
    word: WordId,
    word_and_noise: Vec<Target>,
    distinct: Vec<(Target, f32)>,
    n_predicted: u64,
    pub(super) loss: Loss,
}

impl<'a> Predictor<'a> {
    /// `stride`: that of the targets.
    pub(super) fn new(targets: &'a Targets<'a>, stride: usize) -> Predictor<'a> {
        let paths = |matrix: Option<Shared<'a>>| {
            let mut paths = Paths::new(matrix?.rows());
            paths.outputs_learn = !targets.is_frozen;
            Some(paths)
        };
        Predictor {
            targets,
            block: Block::new(stride),
            tree_paths: paths(targets.nodes),
            word_paths: paths(targets.output),
            word: 0,
            word_and_noise: Vec::new(),
            distinct: Vec::new(),
            n_predicted: 0,
            loss: Loss::default(),
        }
    }

    /// A word that is to be predicted next: draws its noise, and has the output vectors fetched while the input is made. A
    /// noise word that is the word itself is left out.
    pub(super) fn announce(&mut self, word: WordId, random: &mut Random) {
        self.word = word;
        self.word_and_noise.clear();
        if let Some(paths) = &self.word_paths {
            self.word_and_noise.push(Target::new(word, true));
            for _ in 0..self.targets.negative {
                let id = self.targets.noise.draw(random);
                if id != word {
                    self.word_and_noise.push(Target::new(id, false));
                }
            }
            paths.fetch(&self.word_and_noise);
        }
    }

    /// Each input (the row, and where its error is added) learns to predict the word that was announced. Frozen targets have
    /// one input.
    ///
    /// # Errors
    /// When a score is no number any more.
    pub(super) fn predict(&mut self, inputs: &[(Row<'a>, Row<'a>)], alpha: f32) -> Result<()> {
        let word = self.word;
        let is_measured = self.n_predicted.is_multiple_of(LOSS_EVERY);
        self.n_predicted += 1;
        if is_measured {
            self.loss.n += inputs.len() as u64;
        }
        match inputs {
            &[(input, sink)] => self.single(input, sink, word, alpha, is_measured),
            _ => self.several(inputs, word, alpha, is_measured),
        }
    }

    fn single(
        &mut self,
        input: Row<'a>,
        sink: Row<'a>,
        word: WordId,
        alpha: f32,
        is_measured: bool,
    ) -> Result<()> {
        let targets = self.targets;
        let mut loss = 0.0;
        let tree = (self.tree_paths.as_mut()).map(|paths| (paths, targets.tree.path(word)));
        let words = (self.word_paths.as_mut()).map(|paths| (paths, &self.word_and_noise[..]));
        for (scratch, outputs) in [tree, words].into_iter().flatten() {
            let path = Path {
                input,
                sink,
                is_first: false,
                targets: outputs,
                soon: (None, &[]),
            };
            scratch.alpha = alpha;
            targets.steps.path(scratch, &path);
            if is_measured {
                loss += scratch.loss(&path);
            }
        }
        self.add_loss(loss)
    }

    fn several(
        &mut self,
        inputs: &[(Row<'a>, Row<'a>)],
        word: WordId,
        alpha: f32,
        is_measured: bool,
    ) -> Result<()> {
        let targets = self.targets;
        // A block stores each output once.
        self.distinct.clear();
        for &target in &self.word_and_noise {
            match self.distinct.iter_mut().find(|(other, _)| *other == target) {
                Some((_, times)) => *times += 1.0,
                None => self.distinct.push((target, 1.0)),
            }
        }
        self.block.alpha = alpha;
        for inputs in inputs.chunks(INPUTS) {
            self.block.clear_inputs();
            for &(row, sink) in inputs {
                self.block.input(row, sink);
            }
            if let Some(nodes) = targets.nodes {
                for part in targets.tree.path(word).chunks(OUTPUTS) {
                    for step in part {
                        self.block.output(nodes.row(step.row()), step.label(), 1.0);
                    }
                    self.step(is_measured)?;
                }
            }
            if let Some(output) = targets.output {
                for i in (0..self.distinct.len()).step_by(OUTPUTS) {
                    for (target, times) in self.distinct[i..].iter().take(OUTPUTS) {
                        let row = output.row(target.row());
                        self.block.output(row, target.label(), *times);
                    }
                    self.step(is_measured)?;
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, is_measured: bool) -> Result<()> {
        self.targets.steps.block(&mut self.block);
        let loss = if is_measured { self.block.loss() } else { 0.0 };
        self.block.clear_outputs();
        self.add_loss(loss)
    }

    fn add_loss(&mut self, loss: f64) -> Result<()> {
        if !loss.is_finite() {
            bail!("training diverged: the vectors left the range of numbers; lower alpha");
        }
        self.loss.sum += loss;
        Ok(())
    }
}
