//! Vectors learn to predict a word: the half of training that doc2vec and fastText have in common.
//!
//! Whatever an input is made of (a document, a context and a document, a word and its n-grams), it is scored against the
//! word that it should predict and against noise words, or along the word's path in the tree of hierarchical softmax;
//! what it should have been goes into its *sink*. The arithmetic is `kernel::window`'s. Inputs that predict the same word
//! share its noise words. Frozen targets stay as they are: steps are made on copies.

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
use crate::kernel::window::{Bags, Block, INPUTS, OUTPUTS, Row, Steps};

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
    level: Level,
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
            level,
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
    bags: Bags,
    /// Copies of frozen rows.
    copies: Shared<'a>,
    /// Distinct noise words, and how often each was drawn.
    drawn: Vec<(WordId, f32)>,
    n_predicted: u64,
    pub(super) loss: Loss,
}

impl<'a> Predictor<'a> {
    /// `copies`: a matrix of [`OUTPUTS`] rows of the targets' stride.
    pub(super) fn new(targets: &'a Targets<'a>, copies: Shared<'a>) -> Predictor<'a> {
        let stride = copies.stride();
        Predictor {
            targets,
            block: Block::new(stride),
            bags: Bags::at(targets.level, stride),
            copies,
            drawn: Vec::new(),
            n_predicted: 0,
            loss: Loss::default(),
        }
    }

    /// Each input (the row, and where its error is added) learns to predict a word.
    ///
    /// # Errors
    /// When a score is no number any more.
    pub(super) fn predict(
        &mut self,
        inputs: &[(Row<'a>, Row<'a>)],
        word: WordId,
        alpha: f32,
        random: &mut Random,
    ) -> Result<()> {
        let targets = self.targets;
        let is_measured = self.n_predicted.is_multiple_of(LOSS_EVERY);
        self.n_predicted += 1;
        if is_measured {
            self.loss.n += inputs.len() as u64;
        }
        self.drawn.clear();
        if targets.output.is_some() {
            for _ in 0..targets.negative {
                let id = targets.noise.draw(random);
                match self.drawn.iter_mut().find(|(other, _)| *other == id) {
                    _ if id == word => {}
                    Some((_, times)) => *times += 1.0,
                    None => self.drawn.push((id, 1.0)),
                }
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
                    self.block.clear_outputs();
                    for step in part {
                        self.output(nodes.row(step.node), !step.code, 1.0);
                    }
                    self.step(is_measured)?;
                }
            }
            if let Some(output) = targets.output {
                self.block.clear_outputs();
                self.output(output.row(word), true, 1.0);
                for i in 0..self.drawn.len() {
                    if self.block.n_outputs() == OUTPUTS {
                        self.step(is_measured)?;
                        self.block.clear_outputs();
                    }
                    let (id, times) = self.drawn[i];
                    self.output(output.row(id), false, times);
                }
                self.step(is_measured)?;
            }
        }
        Ok(())
    }

    fn output(&mut self, row: Row<'a>, label: bool, weight: f32) {
        let row = if self.targets.is_frozen {
            let copy = self.copies.row(self.block.n_outputs() as u32);
            self.bags.sum(&[row], 1.0, copy);
            copy
        } else {
            row
        };
        self.block.output(row, label, weight);
    }

    fn step(&mut self, is_measured: bool) -> Result<()> {
        self.targets.steps.block(&mut self.block);
        if is_measured {
            let loss = self.block.loss();
            if !loss.is_finite() {
                bail!("training diverged: the vectors left the range of numbers; lower alpha");
            }
            self.loss.sum += loss;
        }
        Ok(())
    }
}
