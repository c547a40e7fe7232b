//! An input that has outputs of its own: a mean and the inner nodes on the path to the word that it predicts, a document
//! and a word with its noise. Loss and step are those of a [`Block`](super::Block) with this input and weights of one.
//! As no other input shares the outputs, the work is reading these, twice, and writing them.
//!
//! All scores come first, then their sigmoids. Then both updates: the input and its error stay in registers while the
//! outputs pass by.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over constant bounds, which unroll; several arrays share each index"
)]

use super::lanes::{Lanes, sigmoid};
use super::{Aligned, PAD, Row, softplus};

/// Outputs whose scores are summed up at a time.
const FOUR: usize = 4;
/// Registers of columns that are updated at a time: with input and error, an output and a factor they fill 16 registers.
/// With 16 floats each they hold a row of 100 dimensions.
const COLUMNS: usize = 7;
/// Room for scores comes in this many at a time: two registers.
const ROOM: usize = 2 * PAD;

/// The rows of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    first: Row<'a>,
    n: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// n rows, the first of which begins at `start`.
    ///
    /// # Safety
    /// As for [`Row::new`], for `n * stride` floats.
    ///
    /// # Panics
    /// When `stride` is not a multiple of [`PAD`].
    #[must_use]
    pub unsafe fn new(start: *mut f32, n: usize, stride: usize) -> Rows<'a> {
        assert!(
            stride.is_multiple_of(PAD),
            "rows are padded to a multiple of {PAD} floats"
        );
        // SAFETY: passed on to the caller.
        let first = unsafe { Row::new(start) };
        Rows { first, n, stride }
    }

    /// Where a row begins, if there is one of this number.
    #[inline(always)]
    fn at(&self, row: u32) -> *mut f32 {
        self.first.start.wrapping_add(row as usize * self.stride)
    }
}

/// An output: the number of its row, and its label. In four bytes, as those of all words of a vocabulary do not fit the
/// near caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::NoUninit)]
#[repr(transparent)]
pub struct Target(u32);

impl Target {
    /// The output in this of the [`Rows`], with label 1 or 0.
    ///
    /// # Panics
    /// From row 2^31 on.
    #[must_use]
    #[inline]
    pub fn new(row: u32, label: bool) -> Target {
        assert!(row < 1 << 31, "more than 2^31 rows");
        Target(row << 1 | u32::from(label))
    }

    /// The number of the row.
    #[must_use]
    #[inline]
    pub fn row(self) -> u32 {
        self.0 >> 1
    }

    /// Whether its label is 1.
    #[must_use]
    #[inline]
    pub fn label(self) -> bool {
        self.0 & 1 == 1
    }
}

/// An input with its outputs.
#[derive(Debug, Clone, Copy)]
pub struct Path<'p, 'a> {
    /// x
    pub input: Row<'a>,
    /// Where the input's error goes.
    pub sink: Row<'a>,
    /// Whether the error is written there, instead of added to what is there.
    pub is_first: bool,
    /// The outputs. A row that comes twice is updated twice, one after the other.
    pub targets: &'p [Target],
    /// An input and outputs that a later step needs: they are fetched meanwhile.
    pub soon: (Option<Row<'a>>, &'p [Target]),
}

/// What the steps on paths need besides them.
#[derive(Debug)]
pub struct Paths<'a> {
    rows: Rows<'a>,
    /// The step size alpha.
    pub alpha: f32,
    /// Whether outputs are updated, too: they are, unless said otherwise.
    pub outputs_learn: bool,
    /// By output: its score, and after the step alpha sigma(s).
    scores: Vec<Aligned<[f32; ROOM]>>,
    sigmas: Vec<Aligned<[f32; ROOM]>>,
}

impl<'a> Paths<'a> {
    /// Paths to some of these rows, whose stride is that of the inputs.
    #[must_use]
    pub fn new(rows: Rows<'a>) -> Paths<'a> {
        Paths {
            rows,
            alpha: 0.0,
            outputs_learn: true,
            scores: Vec::new(),
            sigmas: Vec::new(),
        }
    }

    /// Asks for the rows of outputs that are wanted soon.
    pub fn fetch(&self, targets: &[Target]) {
        for target in targets {
            let row = self.rows.at(target.row());
            for column in (0..self.rows.stride).step_by(PAD) {
                <wide::f32x8 as Lanes>::fetch(row.wrapping_add(column));
            }
        }
    }

    /// The loss before the last step, which was on this path, from the scores it computed.
    #[must_use]
    pub fn loss(&self, path: &Path<'_, '_>) -> f64 {
        let scores = self.scores.iter().flat_map(|s| s.0);
        let signed = path.targets.iter().zip(scores);
        softplus(signed.map(|(t, s)| if t.label() { -s } else { s }))
    }

    /// Checks what the step relies on, and makes room for scores.
    ///
    /// # Panics
    /// When there is no row of a target's number.
    #[inline]
    pub(super) fn prepare(&mut self, path: &Path<'_, '_>) {
        let rows = self.rows.n;
        let all = path.targets.iter().all(|t| (t.row() as usize) < rows);
        assert!(all, "a target beyond the {rows} rows");
        let n = path.targets.len().div_ceil(ROOM);
        if self.scores.len() < n {
            self.scores.resize(n, Aligned([0.0; ROOM]));
            self.sigmas.resize(n, Aligned([0.0; ROOM]));
        }
    }
}

/// The step.
///
/// # Safety
/// The instruction set of `V`, valid rows, and that [`Paths::prepare`] has seen the path. So for all below.
#[inline(always)]
pub(super) unsafe fn path<V: Lanes>(p: &mut Paths<'_>, path: &Path<'_, '_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        let to = p.scores.as_mut_ptr().cast::<f32>();
        match p.rows.stride / V::N {
            1 => scores_of_short::<V, 1>(&p.rows, path, to),
            2 => scores_of_short::<V, 2>(&p.rows, path, to),
            3 => scores_of_short::<V, 3>(&p.rows, path, to),
            4 => scores_of_short::<V, 4>(&p.rows, path, to),
            5 => scores_of_short::<V, 5>(&p.rows, path, to),
            6 => scores_of_short::<V, 6>(&p.rows, path, to),
            COLUMNS => scores_of_short::<V, COLUMNS>(&p.rows, path, to),
            _ => scores_of_long::<V>(&p.rows, path, to),
        }
        sigmas::<V>(p, path.targets.len());
        let mut column = 0;
        while column < p.rows.stride {
            if p.outputs_learn {
                update_columns::<V, true>(p, path, column);
            } else {
                update_columns::<V, false>(p, path, column);
            }
            column += COLUMNS * V::N;
        }
    }
}

/// Where four outputs begin, from number k on; behind the last one it comes again.
///
/// # Safety
/// There are more than k outputs.
#[inline(always)]
unsafe fn four(rows: &Rows<'_>, targets: &[Target], k: usize) -> [*mut f32; FOUR] {
    let last = targets.len() - 1;
    // SAFETY: promised by the caller.
    let at = |j: usize| unsafe { rows.at(targets.get_unchecked((k + j).min(last)).row()) };
    [at(0), at(1), at(2), at(3)]
}

/// The scores of a path whose input fits C registers.
///
/// # Safety
/// There is room for whole fours of scores.
#[inline(always)]
unsafe fn scores_of_short<V: Lanes, const C: usize>(
    rows: &Rows<'_>,
    path: &Path<'_, '_>,
    to: *mut f32,
) {
    // SAFETY: within the rows.
    unsafe {
        let mut x = [V::splat(0.0); C];
        for c in 0..C {
            x[c] = V::load(path.input.start.add(c * V::N));
        }
        let mut k = 0;
        while k < path.targets.len() {
            let outputs = four(rows, path.targets, k);
            let mut sums = [V::splat(0.0); FOUR];
            for c in 0..C {
                for j in 0..FOUR {
                    sums[j] = x[c].mul_add(V::load(outputs[j].add(c * V::N)), sums[j]);
                }
            }
            V::store_four_sums(sums, to.add(k));
            k += FOUR;
        }
    }
}

/// The scores of a path whose input is longer.
#[inline(always)]
unsafe fn scores_of_long<V: Lanes>(rows: &Rows<'_>, path: &Path<'_, '_>, to: *mut f32) {
    // SAFETY: within the rows.
    unsafe {
        let mut k = 0;
        while k < path.targets.len() {
            let outputs = four(rows, path.targets, k);
            let mut sums = [V::splat(0.0); FOUR];
            let mut column = 0;
            while column < rows.stride {
                let x = V::load(path.input.start.add(column));
                for j in 0..FOUR {
                    sums[j] = x.mul_add(V::load(outputs[j].add(column)), sums[j]);
                }
                column += V::N;
            }
            V::store_four_sums(sums, to.add(k));
            k += FOUR;
        }
    }
}

/// From n scores to alpha sigma.
#[inline(always)]
unsafe fn sigmas<V: Lanes>(p: &mut Paths<'_>, n: usize) {
    const { assert!(ROOM.is_multiple_of(2 * V::N)) };
    // SAFETY: there is room for twice two registers.
    unsafe {
        let from = p.scores.as_ptr().cast::<f32>();
        let to = p.sigmas.as_mut_ptr().cast::<f32>();
        let alpha = V::splat(p.alpha);
        let mut at = 0;
        while at + V::N < n {
            let [a, b] = sigmoid([V::load(from.add(at)), V::load(from.add(at + V::N))]);
            a.mul(alpha).store(to.add(at));
            b.mul(alpha).store(to.add(at + V::N));
            at += 2 * V::N;
        }
        if at < n {
            let [a] = sigmoid([V::load(from.add(at))]);
            a.mul(alpha).store(to.add(at));
        }
    }
}

/// The update of the next [`COLUMNS`] registers, or as many as are left.
#[inline(always)]
unsafe fn update_columns<V: Lanes, const LEARN: bool>(
    p: &Paths<'_>,
    path: &Path<'_, '_>,
    column: usize,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        match (p.rows.stride - column) / V::N {
            1 => update::<V, LEARN, 1>(p, path, column),
            2 => update::<V, LEARN, 2>(p, path, column),
            3 => update::<V, LEARN, 3>(p, path, column),
            4 => update::<V, LEARN, 4>(p, path, column),
            5 => update::<V, LEARN, 5>(p, path, column),
            6 => update::<V, LEARN, 6>(p, path, column),
            _ => update::<V, LEARN, COLUMNS>(p, path, column),
        }
    }
}

/// The update of C registers from a column on, and the fetching of that part of rows that are needed soon.
#[inline(always)]
unsafe fn update<V: Lanes, const LEARN: bool, const C: usize>(
    p: &Paths<'_>,
    path: &Path<'_, '_>,
    column: usize,
) {
    // SAFETY: within the rows.
    unsafe {
        let fetch = |row: *mut f32| {
            let mut line = 0;
            while line < C * V::N {
                V::fetch(row.wrapping_add(column + line));
                line += PAD;
            }
        };
        let (input, to) = (path.input.start.add(column), path.sink.start.add(column));
        let mut x = [V::splat(0.0); C];
        let mut sink = [V::splat(0.0); C];
        for c in 0..C {
            x[c] = V::load(input.add(c * V::N));
            if !path.is_first {
                sink[c] = V::load(to.add(c * V::N));
            }
        }
        let labels = [0.0, p.alpha];
        let sigmas = p.sigmas.as_ptr().cast::<f32>();
        if let Some(row) = path.soon.0 {
            fetch(row.start);
        }
        let mut soon = path.soon.1.iter();
        for (k, target) in path.targets.iter().enumerate() {
            if let Some(target) = soon.next() {
                fetch(p.rows.at(target.row()));
            }
            let g = V::splat(labels[usize::from(target.label())] - *sigmas.add(k));
            let output = p.rows.at(target.row()).add(column);
            for c in 0..C {
                let o = V::load(output.add(c * V::N));
                sink[c] = g.mul_add(o, sink[c]);
                if LEARN {
                    g.mul_add(x[c], o).store(output.add(c * V::N));
                }
            }
        }
        for c in 0..C {
            sink[c].store(to.add(c * V::N));
        }
    }
}
