//! The arithmetic of word2vec: small blocks of input vectors against small blocks of output vectors.
//!
//! A [`Block`] has m inputs x_i and k outputs o_j, a label y_j in {0, 1} and a weight w_j for each output. Its loss is
//!
//! ```text
//! L = - sum_ij w_j log sigma((2 y_j - 1) <x_i, o_j>),        sigma(s) = 1 / (1 + exp(-s))
//! ```
//!
//! and because d/ds log sigma(s) = 1 - sigma(s), the derivative by the score s_ij = <x_i, o_j> is -w_j (y_j - sigma(s_ij))
//! whichever the label. One step of gradient descent at rate alpha, from the values before the step, is therefore
//!
//! ```text
//! g_ij = alpha w_j (y_j - sigma(s_ij));      x_i += sum_j g_ij o_j;      o_j += sum_i g_ij x_i
//! ```
//!
//! Skip-gram: inputs are the context words of one centre; outputs the centre (y = 1) and the noise words (y = 0), shared
//! by the window (Ji et al. 2016: "Parallelizing word2vec in shared and distributed memory"). Hierarchical softmax:
//! outputs are inner nodes, y = 1 - code. CBOW: inputs are means of contexts ([`Span`]), their errors are added up apart.
//! An input whose outputs no other has (a mean and the nodes on the path to its word, a document) is a [`Path`].
//!
//! Speed: the vectors of a block stay in the nearest cache, its scores in registers: 2 x 6 sums at a time, one sigmoid
//! for all 16 lanes, then both updates column by column. The algorithm stands once in `lanes`, with one thin instance
//! for each [`Level`]; `reference` is the same in plain f64, and the tests compare. Where AVX-512 comes with products of
//! bf16, `bf16` makes the step of a block: factors of 8 bits, everything else as before.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;

use crate::kernel::Level;

mod ahead;
mod bag;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod lanes;
mod paths;
mod portable;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod x86;

use ahead::Ahead;
pub use bag::Bags;
pub use paths::{Path, Paths, Rows, Target};

/// Most inputs of a block.
pub const INPUTS: usize = 16;
/// Most outputs of a block: with the inputs of two rows and one product they fill the registers of AVX2.
pub const OUTPUTS: usize = 6;
/// Lanes of one input's scores: [`OUTPUTS`], rounded up.
const LANES: usize = 8;
/// Rows are padded to a multiple of this many floats, a cache line; what pads is zero and stays zero.
pub const PAD: usize = 16;

/// A row of `stride` floats that a step reads and writes. Several rows may be the same one.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    start: *mut f32,
    lives: PhantomData<&'a Cell<f32>>,
}

impl<'a> Row<'a> {
    /// No row: what stands in the unused places of a block.
    const NONE: Row<'a> = Row {
        start: std::ptr::null_mut(),
        lives: PhantomData,
    };

    /// A row that begins at `start`.
    ///
    /// # Safety
    /// For the lifetime `'a`, `start` must be valid for reads and writes of as many floats as the stride of every block
    /// the row is put into. Other threads may write the same floats only as `embed::hogwild` allows.
    #[must_use]
    #[inline]
    pub unsafe fn new(start: *mut f32) -> Row<'a> {
        Row {
            start,
            lives: PhantomData,
        }
    }
}

/// Inputs, outputs and what the step makes of them. See the module page.
#[derive(Debug)]
pub struct Block<'a> {
    stride: usize,
    /// The step size alpha.
    pub alpha: f32,
    n_inputs: usize,
    n_outputs: usize,
    /// Behind the inputs there is room for what [`Block::window`] copies too much.
    inputs: [Row<'a>; 2 * INPUTS],
    /// Where the error of each input is added; the input itself, except in CBOW.
    sinks: [Row<'a>; 2 * INPUTS],
    outputs: [Row<'a>; OUTPUTS],
    /// Labels and weights of the outputs.
    labels: [f32; LANES],
    weights: [f32; LANES],
    /// For each input, the outputs (bits) that it has nothing to do with.
    excluded: [u8; INPUTS],
    any_excluded: bool,
    /// What is to be fetched meanwhile.
    ahead: Ahead<'a>,
    /// By input, then output: s_ij, and after the step g_ij.
    scores: Aligned<[[f32; LANES]; INPUTS]>,
    errors: Aligned<[[f32; LANES]; INPUTS]>,
    /// For `bf16`: g in pairs, of two outputs and of two inputs; outputs with two columns in a lane.
    g_of_outputs: Aligned<[[u32; LANES / 2]; INPUTS]>,
    g_of_inputs: Aligned<[[u32; LANES]; INPUTS / 2]>,
    packed: Vec<Aligned<[f32; PAD]>>,
}

/// What begins at a cache line, so that no register of it crosses one.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Aligned<T>(T);

impl<'a> Block<'a> {
    /// An empty block of rows of `stride` floats.
    ///
    /// # Panics
    /// When `stride` is not a multiple of [`PAD`].
    #[must_use]
    pub fn new(stride: usize) -> Block<'a> {
        assert!(
            stride.is_multiple_of(PAD),
            "rows are padded to a multiple of {PAD} floats"
        );
        Block {
            stride,
            alpha: 0.0,
            n_inputs: 0,
            n_outputs: 0,
            inputs: [Row::NONE; 2 * INPUTS],
            sinks: [Row::NONE; 2 * INPUTS],
            outputs: [Row::NONE; OUTPUTS],
            labels: [0.0; LANES],
            weights: [0.0; LANES],
            excluded: [0; INPUTS],
            any_excluded: false,
            ahead: Ahead::new(),
            scores: Aligned([[0.0; LANES]; INPUTS]),
            errors: Aligned([[0.0; LANES]; INPUTS]),
            g_of_outputs: Aligned([[0; LANES / 2]; INPUTS]),
            g_of_inputs: Aligned([[0; LANES]; INPUTS / 2]),
            packed: vec![Aligned([0.0; PAD]); OUTPUTS * stride.div_ceil(2 * PAD)],
        }
    }

    /// Floats of a row.
    #[must_use]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Removes the inputs.
    #[inline]
    pub fn clear_inputs(&mut self) {
        self.n_inputs = 0;
    }

    /// Removes the outputs, and what they exclude.
    #[inline]
    pub fn clear_outputs(&mut self) {
        self.n_outputs = 0;
        if self.any_excluded {
            self.excluded = [0; INPUTS];
            self.any_excluded = false;
        }
    }

    /// Adds an input, whose error goes to `sink`.
    ///
    /// # Panics
    /// When there are [`INPUTS`] already.
    #[inline]
    pub fn input(&mut self, row: Row<'a>, sink: Row<'a>) {
        assert!(self.n_inputs < INPUTS, "more than {INPUTS} inputs");
        self.inputs[self.n_inputs] = row;
        self.sinks[self.n_inputs] = sink;
        self.n_inputs += 1;
    }

    /// Replaces the inputs by the first n of these rows and sinks.
    ///
    /// # Panics
    /// When n is larger than [`INPUTS`].
    #[inline]
    pub fn inputs(&mut self, rows: &[Row<'a>; INPUTS], sinks: &[Row<'a>; INPUTS], n: usize) {
        assert!(n <= INPUTS, "more than {INPUTS} inputs");
        self.inputs[..INPUTS].copy_from_slice(rows);
        self.sinks[..INPUTS].copy_from_slice(sinks);
        self.n_inputs = n;
    }

    /// Replaces the inputs by the rows `low..high` without that of the `center`; the error of each goes to itself. As
    /// many as a block may have are copied, whatever is needed: a loop would end where no processor can guess. So
    /// `rows` must go on behind `high` for [`INPUTS`] rows more, which don't matter.
    ///
    /// # Panics
    /// Unless `low <= center < high`, when there are more than [`INPUTS`], or `rows` ends too early.
    #[inline]
    pub fn window(&mut self, rows: &[Row<'a>], low: usize, center: usize, high: usize) {
        assert!(low <= center && center < high && high - low <= INPUTS + 1);
        let n_left = center - low;
        let (left, right) = (&rows[low..][..INPUTS], &rows[center + 1..][..INPUTS]);
        for to in [&mut self.inputs, &mut self.sinks] {
            to[..INPUTS].copy_from_slice(left);
            to[n_left..][..INPUTS].copy_from_slice(right);
        }
        self.n_inputs = high - low - 1;
    }

    /// Adds an output. All outputs of a block must be different rows: a step stores each once.
    ///
    /// # Panics
    /// When there are [`OUTPUTS`] already.
    #[inline]
    pub fn output(&mut self, row: Row<'a>, label: bool, weight: f32) {
        let k = self.n_outputs;
        debug_assert!(
            self.outputs[..k].iter().all(|o| o.start != row.start),
            "an output is given twice"
        );
        self.outputs[k] = row;
        self.labels[k] = f32::from(u8::from(label));
        self.weights[k] = weight;
        self.n_outputs += 1;
    }

    /// Replaces the outputs by the first n of these different rows, each of weight 1: a word, and noise.
    ///
    /// # Panics
    /// When n is larger than [`OUTPUTS`].
    #[inline]
    pub fn word_and_noise(&mut self, rows: &[Row<'a>; OUTPUTS], n: usize) {
        assert!(n <= OUTPUTS, "more than {OUTPUTS} outputs");
        self.clear_outputs();
        self.outputs = *rows;
        self.labels = [0.0; LANES];
        self.labels[0] = 1.0;
        self.weights = [1.0; LANES];
        self.n_outputs = n;
    }

    /// Has this many steps share what is to be fetched: one, unless said otherwise.
    #[inline]
    pub fn fetch_during(&mut self, steps: usize) {
        self.ahead.during(steps);
    }

    /// Has the next step fetch a row that a later one needs; beyond some fifty rows it does nothing.
    #[inline]
    pub fn fetch(&mut self, row: Row<'a>) {
        self.ahead.push(row);
    }

    /// Takes the pair of an input and an output out of the loss.
    #[inline]
    pub fn exclude(&mut self, input: usize, output: usize) {
        self.excluded[input] |= 1 << output;
        self.any_excluded = true;
    }

    /// Number of inputs.
    #[must_use]
    #[inline]
    pub fn n_inputs(&self) -> usize {
        self.n_inputs
    }

    /// Number of outputs.
    #[must_use]
    #[inline]
    pub fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    /// The loss L before the last step, from the scores it computed.
    #[must_use]
    pub fn loss(&self) -> f64 {
        let of_output = |k: usize| {
            let sign = if self.labels[k] == 1.0 { -1.0 } else { 1.0 };
            let wanted = (0..self.n_inputs).filter(|&i| self.excluded[i] & (1 << k) == 0);
            f64::from(self.weights[k]) * softplus(wanted.map(|i| sign * self.scores.0[i][k]))
        };
        (0..self.n_outputs).map(of_output).sum()
    }
}

/// The sum of log(1 + exp(x)) = -log sigma(-x), without overflow: one logarithm of many a product, because logarithms of
/// all would cost more than the step.
fn softplus(scores: impl Iterator<Item = f32>) -> f64 {
    let (mut product, mut sum) = (1.0, 0.0);
    for x in scores {
        if x > 20.0 {
            // To 2e-9.
            sum += f64::from(x);
        } else {
            product *= 1.0 + f64::from(x.exp());
            if product > 1e290 {
                sum += product.ln();
                product = 1.0;
            }
        }
    }
    sum + product.ln()
}
/// Pairs of one input and one positive output each: the words that CBOW predicts from up to [`INPUTS`] means. The same
/// step as a [`Block`]'s, with label 1, weight 1 and nothing off the diagonal, except that the errors of the inputs are
/// written, not added: it is the first of a group's steps. An output may come several times.
#[derive(Debug)]
pub struct Pairs<'a> {
    stride: usize,
    /// The step size alpha.
    pub alpha: f32,
    n: usize,
    inputs: [Row<'a>; INPUTS],
    errors_of: [Row<'a>; INPUTS],
    outputs: [Row<'a>; INPUTS],
    scores: [f32; INPUTS],
    errors: [f32; INPUTS],
}

impl<'a> Pairs<'a> {
    /// No pairs of rows of `stride` floats.
    ///
    /// # Panics
    /// When `stride` is not a multiple of [`PAD`].
    #[must_use]
    pub fn new(stride: usize) -> Pairs<'a> {
        assert!(
            stride.is_multiple_of(PAD),
            "rows are padded to a multiple of {PAD} floats"
        );
        Pairs {
            stride,
            alpha: 0.0,
            n: 0,
            inputs: [Row::NONE; INPUTS],
            errors_of: [Row::NONE; INPUTS],
            outputs: [Row::NONE; INPUTS],
            scores: [0.0; INPUTS],
            errors: [0.0; INPUTS],
        }
    }

    /// Removes all pairs.
    pub fn clear(&mut self) {
        self.n = 0;
    }

    /// Adds a pair; the input's error is written to `error`.
    ///
    /// # Panics
    /// When there are [`INPUTS`] already.
    #[inline]
    pub fn push(&mut self, input: Row<'a>, error: Row<'a>, output: Row<'a>) {
        self.inputs[self.n] = input;
        self.errors_of[self.n] = error;
        self.outputs[self.n] = output;
        self.n += 1;
    }

    /// The loss before the last step.
    #[must_use]
    pub fn loss(&self) -> f64 {
        softplus(self.scores[..self.n].iter().map(|s| -s))
    }
}

/// One mean that CBOW needs: of the rows `from..to` of a span without `own`, times a factor.
#[derive(Debug, Clone, Copy)]
pub struct Mean<'a> {
    /// First row of the window.
    pub from: usize,
    /// One past its last row.
    pub to: usize,
    /// The centre, in `from..to`, which is left out.
    pub own: usize,
    /// What the sum is multiplied with: 1/n for a mean of n rows.
    pub factor: f32,
    /// What the error is multiplied with before each row receives it.
    pub share: f32,
    /// Where the mean is written.
    pub mean: Row<'a>,
    /// Where its error is.
    pub error: Row<'a>,
}

/// Consecutive tokens whose windows overlap, and up to [`INPUTS`] means over those windows. The sums come from prefix sums
/// over the rows; on the way back a running sum of errors changes where windows begin and end. So each row is read once
/// and written once, whatever the window.
#[derive(Debug)]
pub struct Span<'a> {
    stride: usize,
    rows: Vec<Row<'a>>,
    means: Vec<Mean<'a>>,
    /// By row, the means whose windows begin with it, and, [`INPUTS`] bits higher, those whose windows end before it.
    changes: Vec<u32>,
    /// Prefix sums: (rows + 1) x stride.
    sums: Vec<f32>,
}

impl<'a> Span<'a> {
    /// An empty span of rows of `stride` floats.
    ///
    /// # Panics
    /// When `stride` is not a multiple of [`PAD`].
    #[must_use]
    pub fn new(stride: usize) -> Span<'a> {
        assert!(
            stride.is_multiple_of(PAD),
            "rows are padded to a multiple of {PAD} floats"
        );
        Span {
            stride,
            rows: Vec::new(),
            means: Vec::new(),
            changes: vec![0],
            sums: Vec::new(),
        }
    }

    /// Removes rows and means.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.means.clear();
        self.changes.clear();
        self.changes.push(0);
    }

    /// Adds rows.
    #[inline]
    pub fn rows(&mut self, rows: &[Row<'a>]) {
        self.rows.extend_from_slice(rows);
        self.changes.resize(self.rows.len() + 1, 0);
    }

    /// Adds a mean over rows that were added before.
    ///
    /// # Panics
    /// Unless from <= own < to <= number of rows, and own comes after that of the mean before; when there are [`INPUTS`]
    /// already.
    #[inline]
    pub fn mean(&mut self, mean: Mean<'a>) {
        assert!(
            mean.from <= mean.own && mean.own < mean.to && mean.to <= self.rows.len(),
            "a mean outside its span"
        );
        assert!(
            self.means.last().is_none_or(|last| last.own < mean.own),
            "means are added in the order of their centres"
        );
        let m = self.means.len();
        assert!(m < INPUTS, "more than {INPUTS} means");
        self.changes[mean.from] |= 1 << m;
        self.changes[mean.to] |= 1 << (INPUTS + m);
        self.means.push(mean);
    }

    fn make_room(&mut self) {
        let n = (self.rows.len() + 1) * self.stride;
        if self.sums.len() < n {
            self.sums.resize(n, 0.0);
        }
    }
}

/// The steps at one instruction-set level.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    level: Level,
    block: unsafe fn(&mut Block<'_>),
    pairs: unsafe fn(&mut Pairs<'_>),
    path: unsafe fn(&mut Paths<'_>, &Path<'_, '_>),
    gather: unsafe fn(&mut Span<'_>),
    scatter: unsafe fn(&mut Span<'_>),
}

impl Steps {
    /// The steps at this level, or at the best one below it that the processor has.
    #[must_use]
    pub fn at(level: Level) -> Steps {
        #[cfg(target_arch = "x86_64")]
        {
            if level >= Level::Avx512 && bf16::is_available() {
                return bf16::STEPS;
            }
            if level >= Level::Avx512 && Level::Avx512.is_available() {
                return x86::AVX512;
            }
            if level >= Level::Avx2 && Level::Avx2.is_available() {
                return x86::AVX2;
            }
        }
        let _ = level;
        portable::STEPS
    }

    /// The level these steps are for.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// One step of gradient descent on a block.
    #[inline]
    pub fn block(&self, block: &mut Block<'_>) {
        if block.n_inputs > 0 && block.n_outputs > 0 {
            // SAFETY: the rows are valid by the promise of `Row::new`, the counts are bounded where rows are added, and
            // `at` hands out only instances the processor can run.
            unsafe { (self.block)(block) }
        }
    }

    /// One step of gradient descent on pairs.
    #[inline]
    pub fn pairs(&self, pairs: &mut Pairs<'_>) {
        // SAFETY: as for `block`.
        unsafe { (self.pairs)(pairs) }
    }

    /// One step of gradient descent on a path.
    #[inline]
    pub fn path<'a>(&self, scratch: &mut Paths<'a>, path: &Path<'_, 'a>) {
        scratch.prepare(path);
        // SAFETY: as for `block`; the rows of targets are checked, and there is room for scores.
        unsafe { (self.path)(scratch, path) }
    }

    /// Writes the means of a span.
    pub fn gather(&self, span: &mut Span<'_>) {
        span.make_room();
        // SAFETY: as for `block`; windows lie within the span by the check in `Span::mean`, and there is room for sums.
        unsafe { (self.gather)(span) }
    }

    /// Adds to each row of a span its share of the errors of all means it is part of.
    pub fn scatter(&self, span: &mut Span<'_>) {
        // SAFETY: as for `gather`.
        unsafe { (self.scatter)(span) }
    }
}

#[cfg(test)]
mod tests;
