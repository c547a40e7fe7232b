//! One thread of a training: documents in, steps out.

use anyhow::Result;

use super::{Outcome, Training, diverged};
use crate::embed::epochs::Loss;
use crate::embed::hogwild::Shared;
use crate::embed::options::Options;
use crate::embed::random::Random;
use crate::embed::vocab::WordId;
use crate::kernel::window::{Block, INPUTS, OUTPUTS, Pairs, Paths, Row, Span, Target};

mod cbow;
mod skip_gram;

/// Positions for which windows and noise are drawn at once: enough to look ahead, few enough to stay in cache.
const SLICE: usize = 256;

/// Positions whose CBOW means are trained together, with common noise.
const GROUP: usize = INPUTS;

/// CBOW draws this many times `negative` noise words for a group, each of weight one over this. Less would be faster
/// and is worse: 1.6 times took analogies from .236 to .225.
const CBOW_NOISE: usize = 2;

/// The loss is measured on one step in so many: its exponentials would cost a tenth of the time. A prime, so that words
/// which come round in step are not always left out.
const LOSS_EVERY: u32 = 61;

/// No word.
const NOBODY: WordId = WordId::MAX;

pub(super) struct Worker<'a> {
    shared: &'a Training<'a>,
    means: [Row<'a>; GROUP],
    errors: [Row<'a>; GROUP],
    block: Block<'a>,
    pairs: Pairs<'a>,
    paths: Option<Paths<'a>>,
    span: Span<'a>,
    /// The document without the tokens that subsampling removed, and the input vectors of what is left, with some more
    /// behind them as [`Block::window`] wants.
    kept: Vec<WordId>,
    rows: Vec<Row<'a>>,
    /// Of the current slice: the window of each position, and the noise words.
    windows: Vec<u32>,
    noise: Vec<WordId>,
    /// Skip-gram: of each position of the slice the output vectors of word and noise, with some more behind them.
    outputs: Vec<Row<'a>>,
    /// CBOW with hierarchical softmax: the paths to the words of the slice, and some behind them.
    tree_paths: Vec<&'a [Target]>,
    /// Where in the drawn noise the next slice begins.
    next_noise: u64,
    /// Distinct noise words of the current step, and how often each was drawn.
    drawn: Vec<(WordId, f32)>,
    /// The centres of the current CBOW group that have a context, then none.
    centers: [WordId; GROUP],
    steps_done: u32,
    epoch: usize,
    effective_words: u64,
    losses: Vec<Loss>,
}

impl<'a> Worker<'a> {
    /// `means` and `errors` have a row for each position of a group.
    pub(super) fn new(
        shared: &'a Training<'a>,
        means: Shared<'a>,
        errors: Shared<'a>,
    ) -> Worker<'a> {
        let stride = shared.input.stride();
        let rows = |matrix: Shared<'a>| std::array::from_fn(|m| matrix.row(m as u32));
        Worker {
            shared,
            means: rows(means),
            errors: rows(errors),
            block: Block::new(stride),
            pairs: Pairs::new(stride),
            paths: shared.nodes.map(|nodes| Paths::new(nodes.rows())),
            span: Span::new(stride),
            kept: Vec::new(),
            rows: Vec::new(),
            windows: Vec::new(),
            noise: Vec::new(),
            outputs: Vec::new(),
            tree_paths: Vec::new(),
            next_noise: 0,
            drawn: Vec::new(),
            centers: [NOBODY; GROUP],
            steps_done: 0,
            epoch: 0,
            effective_words: 0,
            losses: vec![Loss::default(); shared.options.epochs],
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
        self.next_noise = random.bits();
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
                if let Some(paths) = &mut self.paths {
                    paths.alpha = alpha;
                }
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
        let keep = &self.shared.keep;
        self.kept.clear();
        self.kept.resize(piece.len(), 0);
        let mut n = 0;
        for two in piece.chunks(2) {
            for (&id, draw) in two.iter().zip(random.halves()) {
                self.kept[n] = id;
                n += usize::from(draw <= keep[id as usize]);
            }
        }
        self.kept.truncate(n);
        let input = self.shared.input;
        self.rows.clear();
        self.rows.extend(self.kept.iter().map(|&id| input.row(id)));
        self.rows.resize(n + INPUTS, input.row(0));
    }

    /// Draws windows and noise for the next n positions.
    fn draw(&mut self, n: usize, random: &mut Random) {
        let options = self.shared.options;
        let window = options.window as u32;
        self.windows.clear();
        if options.shrink_windows {
            while self.windows.len() < n {
                let two = random.halves();
                self.windows
                    .extend(two.map(|bits| 1 + scaled(bits, window)));
            }
        } else {
            self.windows.resize(n, window);
        }
        let n_noise = noise_of(options, n);
        self.shared
            .noise
            .read(&mut self.next_noise, n_noise, &mut self.noise);
    }

    /// The window around a position of the kept document: its own position is in it.
    fn window(&self, position: usize, from: usize) -> (usize, usize) {
        let b = self.windows[position - from] as usize;
        (
            position.saturating_sub(b),
            (position + b + 1).min(self.kept.len()),
        )
    }

    /// Hierarchical softmax: the inputs of the block against the nodes on the path to a word.
    fn tree_steps(&mut self, center: WordId, measured: bool) -> Result<()> {
        let shared = self.shared;
        let Some(nodes) = &shared.nodes else {
            return Ok(());
        };
        let path = shared.tree.path(center);
        for part in path.chunks(even(path.len())) {
            for step in part {
                self.block.output(nodes.row(step.row()), step.label(), 1.0);
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
        if let Some(center) = center {
            self.block.output(output.row(center), true, 1.0);
        }
        let most = even(self.drawn.len() + usize::from(center.is_some()));
        for i in 0..self.drawn.len() {
            if self.block.n_outputs() == most {
                self.step(measured)?;
            }
            let (id, times) = self.drawn[i];
            // Seldom, and without a branch for each.
            let is_center = self.centers.iter().fold(false, |any, &c| any | (c == id));
            if center.is_none() && is_center {
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
        self.block.clear_outputs();
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

/// How many of n outputs a block takes, so that as few blocks as possible have about as many each.
fn even(n: usize) -> usize {
    n.div_ceil(n.div_ceil(OUTPUTS).max(1)).max(1)
}

/// How many noise words are drawn for n positions.
pub(super) fn noise_of(options: &Options, n: usize) -> usize {
    if options.sg {
        n * options.negative
    } else {
        n.div_ceil(GROUP) * CBOW_NOISE * options.negative
    }
}

/// The distinct words among those drawn, without the centre, and how often each was.
fn collect(distinct: &mut Vec<(WordId, f32)>, drawn: &[WordId], center: WordId) {
    distinct.clear();
    if !any_twice(drawn, center) {
        distinct.extend(drawn.iter().map(|&id| (id, 1.0)));
        return;
    }
    for &id in drawn.iter().filter(|&&id| id != center) {
        match distinct.iter_mut().find(|(other, _)| *other == id) {
            Some((_, times)) => *times += 1.0,
            None => distinct.push((id, 1.0)),
        }
    }
}

/// Whether a word comes twice or is the centre.
#[inline]
fn any_twice(drawn: &[WordId], center: WordId) -> bool {
    // The usual numbers, for which the loops unroll.
    if let Ok(five) = <&[WordId; 5]>::try_from(drawn) {
        any_twice_of(five, center)
    } else if let Ok(ten) = <&[WordId; 10]>::try_from(drawn) {
        any_twice_of(ten, center)
    } else {
        any_twice_of(drawn, center)
    }
}

/// Two of a few words are seldom the same: this looks at all of them without a branch for each.
#[inline(always)]
fn any_twice_of(drawn: impl AsRef<[WordId]> + Copy, center: WordId) -> bool {
    let drawn = drawn.as_ref();
    let mut any = false;
    for (i, &id) in drawn.iter().enumerate() {
        any |= id == center;
        for &other in &drawn[..i] {
            any |= other == id;
        }
    }
    any
}

/// An integer below n from 32 random bits; see [`Random::below`].
fn scaled(bits: u32, n: u32) -> u32 {
    ((u64::from(bits) * u64::from(n)) >> 32) as u32
}
