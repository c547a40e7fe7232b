//! One thread of a training: documents in, steps out.

use anyhow::Result;

use super::{Outcome, Training, diverged};
use crate::embed::hogwild::Shared;
use crate::embed::random::Random;
use crate::embed::vocab::WordId;
use crate::kernel::window::{Block, INPUTS, Mean, OUTPUTS, Pairs, SOON, Span};

/// Positions for which windows and noise are drawn at once: enough to look ahead, few enough to stay in cache.
const SLICE: usize = 256;

/// Positions whose CBOW means are trained together, with common noise.
const GROUP: usize = INPUTS;

/// CBOW draws this many times `negative` noise words for a group, each of weight one over this.
const CBOW_NOISE: usize = 2;

/// Skip-gram fetches the rows of the window this many positions ahead.
const AHEAD: usize = 2;

/// The loss is measured on every 32nd step: its logarithms would cost a tenth of the time.
const LOSS_EVERY: u32 = 32;

/// Sum and number of the losses measured in an epoch.
#[derive(Debug, Clone, Default)]
pub(super) struct EpochLoss {
    pub(super) sum: f64,
    pub(super) n: u64,
}

impl EpochLoss {
    pub(super) fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

pub(super) struct Worker<'a> {
    shared: &'a Training<'a>,
    means: Shared<'a>,
    errors: Shared<'a>,
    block: Block<'a>,
    pairs: Pairs<'a>,
    span: Span<'a>,
    /// The document without the tokens that subsampling removed.
    kept: Vec<WordId>,
    /// Of the current slice: the window of each position, and the noise words.
    windows: Vec<u32>,
    noise: Vec<WordId>,
    /// Distinct noise words of the current step, and how often each was drawn.
    drawn: Vec<(WordId, f32)>,
    /// The centres of the current CBOW group that have a context.
    centers: Vec<WordId>,
    steps_done: u32,
    epoch: usize,
    effective_words: u64,
    losses: Vec<EpochLoss>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        shared: &'a Training<'a>,
        means: Shared<'a>,
        errors: Shared<'a>,
    ) -> Worker<'a> {
        let stride = shared.input.stride();
        Worker {
            shared,
            means,
            errors,
            block: Block::new(stride),
            pairs: Pairs::new(stride),
            span: Span::new(stride),
            kept: Vec::new(),
            windows: Vec::new(),
            noise: Vec::new(),
            drawn: Vec::new(),
            centers: Vec::new(),
            steps_done: 0,
            epoch: 0,
            effective_words: 0,
            losses: vec![EpochLoss::default(); shared.options.epochs],
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        Outcome {
            effective_words: self.effective_words,
            losses: self.losses,
        }
    }

    /// Trains one chunk of the corpus once.
    pub(super) fn chunk(&mut self, epoch: usize, chunk: usize) -> Result<()> {
        let shared = self.shared;
        let mut random = Random::new(shared.options.seed, [epoch as u64, chunk as u64]);
        self.epoch = epoch;
        self.steps_done = 0;
        let before = epoch as f64 * shared.corpus.n_tokens() as f64;
        for (start, piece) in shared.corpus.pieces(&shared.chunks[chunk]) {
            self.thin(piece, &mut random);
            let n = self.kept.len();
            self.effective_words += n as u64;
            for from in (0..n).step_by(SLICE) {
                let to = (from + SLICE).min(n);
                let alpha = shared
                    .alpha(before + start as f64 + piece.len() as f64 * from as f64 / n as f64);
                self.block.alpha = alpha;
                self.pairs.alpha = alpha;
                self.draw(to - from, &mut random);
                if shared.options.sg {
                    self.skip_gram(from, to)?;
                } else {
                    self.cbow(from, to)?;
                }
            }
            shared.job.advance(piece.len() as u64);
        }
        Ok(())
    }

    /// Keeps each token with its word's probability.
    fn thin(&mut self, piece: &[WordId], random: &mut Random) {
        self.kept.clear();
        self.kept.resize(piece.len(), 0);
        let mut n = 0;
        for &id in piece {
            self.kept[n] = id;
            n += usize::from((random.bits() >> 32) as u32 <= self.shared.keep[id as usize]);
        }
        self.kept.truncate(n);
    }

    /// Draws windows and noise for the next n positions.
    fn draw(&mut self, n: usize, random: &mut Random) {
        let options = self.shared.options;
        let window = options.window as u32;
        self.windows.clear();
        self.windows.extend((0..n).map(|_| {
            if options.shrink_windows {
                1 + random.below(window)
            } else {
                window
            }
        }));
        let n_noise = if options.sg {
            n * options.negative
        } else {
            n.div_ceil(GROUP) * CBOW_NOISE * options.negative
        };
        self.noise.clear();
        self.noise
            .extend((0..n_noise).map(|_| self.shared.noise.draw(random)));
    }

    /// The window around a position of the kept document: its own position is in it.
    fn window(&self, position: usize, from: usize) -> (usize, usize) {
        let b = self.windows[position - from] as usize;
        (
            position.saturating_sub(b),
            (position + b + 1).min(self.kept.len()),
        )
    }

    /// Trains the positions `from..to` of the kept document.
    fn skip_gram(&mut self, from: usize, to: usize) -> Result<()> {
        let shared = self.shared;
        let n_noise = shared.options.negative;
        for position in from..to {
            self.fetch_window(position + AHEAD, from, to);
            let (low, high) = self.window(position, from);
            let center = self.kept[position];
            let first = (position - from) * n_noise;
            collect(&mut self.drawn, &self.noise[first..first + n_noise], |id| {
                id != center
            });
            let measured = high - low > 1 && self.is_measured();
            let mut next = low;
            while next < high {
                self.block.clear_inputs();
                while next < high && self.block.n_inputs() < INPUTS {
                    if next != position {
                        let row = shared.input.row(self.kept[next]);
                        self.block.input(row, row);
                    }
                    next += 1;
                }
                if self.block.n_inputs() == 0 {
                    continue;
                }
                if measured {
                    self.losses[self.epoch].n += self.block.n_inputs() as u64;
                }
                self.tree_steps(center, measured)?;
                self.noise_steps(Some(center), 1.0, measured)?;
            }
        }
        Ok(())
    }

    /// Asks for the rows of a window that comes soon: the word that enters it, the centre's and the noise words'.
    fn fetch_window(&mut self, position: usize, from: usize, to: usize) {
        if position >= to {
            return;
        }
        let shared = self.shared;
        if let Some(&entering) = self
            .kept
            .get(position + self.windows[position - from] as usize)
        {
            self.block.fetch(shared.input.row(entering));
        }
        if let Some(output) = &shared.output {
            self.block.fetch(output.row(self.kept[position]));
            let n = shared.options.negative;
            let first = (position - from) * n;
            for &id in &self.noise[first..first + n] {
                self.block.fetch(output.row(id));
            }
        }
    }

    /// Trains the positions `from..to` of the kept document, a group at a time.
    fn cbow(&mut self, from: usize, to: usize) -> Result<()> {
        let shared = self.shared;
        let options = shared.options;
        let n_noise = CBOW_NOISE * options.negative;
        for first in (from..to).step_by(GROUP) {
            let last = (first + GROUP).min(to);
            self.means_of(first, last, from);
            if self.centers.is_empty() {
                continue;
            }
            shared.steps.gather(&mut self.span);
            let measured = self.is_measured();
            if measured {
                self.losses[self.epoch].n += self.centers.len() as u64;
            }
            if shared.nodes.is_some() {
                for m in 0..self.centers.len() {
                    self.block.clear_inputs();
                    self.block
                        .input(self.means.row(m as u32), self.errors.row(m as u32));
                    self.tree_steps(self.centers[m], measured)?;
                }
            }
            if let Some(output) = &shared.output {
                self.block.clear_inputs();
                self.pairs.clear();
                for (m, &center) in self.centers.iter().enumerate() {
                    let (mean, error) = (self.means.row(m as u32), self.errors.row(m as u32));
                    self.block.input(mean, error);
                    self.pairs.push(mean, error, output.row(center));
                }
                let drawn = (first - from) / GROUP * n_noise;
                self.fetch_group(last, drawn + n_noise);
                shared.steps.pairs(&mut self.pairs);
                if measured {
                    self.add_loss(self.pairs.loss())?;
                }
                collect(&mut self.drawn, &self.noise[drawn..drawn + n_noise], |_| {
                    true
                });
                self.noise_steps(None, 1.0 / CBOW_NOISE as f32, measured)?;
            }
            shared.steps.scatter(&mut self.span);
        }
        Ok(())
    }

    /// Asks for the rows of the group that begins at a position: the words that enter its windows, its centres, and its
    /// noise words, which begin at `drawn`.
    fn fetch_group(&mut self, first: usize, drawn: usize) {
        let shared = self.shared;
        let Some(output) = &shared.output else { return };
        let n = self.kept.len();
        let entering = first + shared.options.window;
        for &id in &self.kept[entering.min(n)..(entering + GROUP).min(n)] {
            self.pairs.fetch(shared.input.row(id));
        }
        for &id in &self.kept[first.min(n)..(first + GROUP).min(n)] {
            self.pairs.fetch(output.row(id));
        }
        for &id in self.noise.iter().skip(drawn).take(SOON) {
            self.block.fetch(output.row(id));
        }
    }

    /// Lays out the span of the positions `first..last`, the means of their contexts, and the centres.
    fn means_of(&mut self, first: usize, last: usize, from: usize) {
        let shared = self.shared;
        let options = shared.options;
        self.span.clear();
        self.centers.clear();
        let low = (first..last)
            .map(|p| self.window(p, from).0)
            .min()
            .unwrap_or(first);
        let high = (first..last)
            .map(|p| self.window(p, from).1)
            .max()
            .unwrap_or(last);
        for &id in &self.kept[low..high] {
            self.span.row(shared.input.row(id));
        }
        for position in first..last {
            let (window_low, window_high) = self.window(position, from);
            let n_context = window_high - window_low - 1;
            if n_context == 0 {
                continue;
            }
            let m = self.centers.len() as u32;
            let inverse = 1.0 / n_context as f32;
            let corrected = options.cbow_gradient == crate::embed::options::CbowGradient::Corrected;
            self.span.mean(Mean {
                from: window_low - low,
                to: window_high - low,
                own: position - low,
                factor: if options.cbow_mean { inverse } else { 1.0 },
                // See `CbowGradient`: gensim has it the other way round.
                share: if options.cbow_mean == corrected {
                    inverse
                } else {
                    1.0
                },
                mean: self.means.row(m),
                error: self.errors.row(m),
            });
            self.centers.push(self.kept[position]);
        }
    }

    /// Hierarchical softmax: the inputs of the block against the nodes on the path to a word.
    fn tree_steps(&mut self, center: WordId, measured: bool) -> Result<()> {
        let shared = self.shared;
        let Some(nodes) = &shared.nodes else {
            return Ok(());
        };
        for part in shared.tree.path(center).chunks(OUTPUTS) {
            self.block.clear_outputs();
            for step in part {
                self.block.output(nodes.row(step.node), !step.code, 1.0);
            }
            self.step(measured)?;
        }
        Ok(())
    }

    /// Negative sampling: the inputs of the block against the noise words that were collected, each draw with a weight,
    /// and against the centre if it is common to all inputs.
    fn noise_steps(&mut self, center: Option<WordId>, weight: f32, measured: bool) -> Result<()> {
        let shared = self.shared;
        let Some(output) = &shared.output else {
            return Ok(());
        };
        self.block.clear_outputs();
        if let Some(center) = center {
            self.block.output(output.row(center), true, 1.0);
        }
        for i in 0..self.drawn.len() {
            if self.block.is_full() {
                self.step(measured)?;
                self.block.clear_outputs();
            }
            let (id, times) = self.drawn[i];
            if center.is_none() {
                // A noise word is no noise for the positions it is the centre of.
                let k = self.block.n_outputs();
                for (m, &other) in self.centers.iter().enumerate() {
                    if other == id {
                        self.block.exclude(m, k);
                    }
                }
            }
            self.block.output(output.row(id), false, times * weight);
        }
        if self.block.n_outputs() > 0 {
            self.step(measured)?;
        }
        Ok(())
    }

    fn step(&mut self, measured: bool) -> Result<()> {
        self.shared.job.check()?;
        self.shared.steps.block(&mut self.block);
        if measured {
            self.add_loss(self.block.loss())?;
        }
        Ok(())
    }

    fn is_measured(&mut self) -> bool {
        let measured = self.steps_done.is_multiple_of(LOSS_EVERY);
        self.steps_done = self.steps_done.wrapping_add(1);
        measured
    }

    fn add_loss(&mut self, loss: f64) -> Result<()> {
        if !loss.is_finite() {
            return Err(diverged(self.shared.options));
        }
        self.losses[self.epoch].sum += loss;
        Ok(())
    }
}

/// The distinct words among those drawn, and how often each was.
fn collect(distinct: &mut Vec<(WordId, f32)>, drawn: &[WordId], wanted: impl Fn(WordId) -> bool) {
    distinct.clear();
    for &id in drawn {
        if !wanted(id) {
            continue;
        }
        match distinct.iter_mut().find(|(other, _)| *other == id) {
            Some((_, times)) => *times += 1.0,
            None => distinct.push((id, 1.0)),
        }
    }
}
