//! The steps of [`window`](super), written once over [`Lanes`]: a register of 8 or 16 floats.
//!
//! Everything is `inline(always)`: an instance is a function with the right `target_feature` into which all of this is
//! inlined, so that the intrinsics become instructions.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over constant bounds, which unroll; several arrays share each index"
)]

use super::ahead::Soon;
use super::{Block, INPUTS, LANES, Pairs, Span};

/// A register of N floats. N divides [`PAD`](super::PAD).
///
/// # Safety
/// Every method may only be called where the instruction set of the implementation is there. `load` and `store` need N
/// valid floats, of any alignment.
pub(super) trait Lanes: Copy {
    const N: usize;
    /// Whether there are 32 registers, so that two columns of all outputs fit at a time.
    const MANY: bool;
    /// Asks for the cache line at an address, to be written by a step that comes soon. Any address will do.
    fn fetch(line: *const f32);
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Eight floats, as often as they fit.
    unsafe fn load_eight(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self * a + b
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The numbers brought into -bound..=bound; NaN may become anything.
    unsafe fn clamp(self, bound: f32) -> Self;
    /// To the nearest integer.
    unsafe fn round(self) -> Self;
    /// 2^n for integers of at most 126 in magnitude.
    unsafe fn exp2_of_integer(self) -> Self;
    /// 1/x to 2e-7 of its value, for x from 1 to 1e38.
    unsafe fn reciprocal(self) -> Self;
    /// Stores at `to` the sums over the lanes of each of 8 registers.
    unsafe fn store_sums(registers: [Self; 8], to: *mut f32);
    /// The same for four registers.
    #[inline(always)]
    unsafe fn store_four_sums(registers: [Self; 4], to: *mut f32) {
        let [a, b, c, d] = registers;
        let mut sums = [0.0; 8];
        // SAFETY: passed on from the caller.
        unsafe {
            let none = Self::splat(0.0);
            Self::store_sums([a, b, c, d, none, none, none, none], sums.as_mut_ptr());
            to.cast::<[f32; 4]>()
                .write([sums[0], sums[1], sums[2], sums[3]]);
        }
    }
    /// The same for twice 8 registers: 16 sums, as one store where a register holds them, so that they can be loaded
    /// again at once.
    #[inline(always)]
    unsafe fn store_sums_of_two(registers: [[Self; 8]; 2], to: *mut f32) {
        // SAFETY: passed on from the caller.
        unsafe {
            Self::store_sums(registers[0], to);
            Self::store_sums(registers[1], to.add(8));
        }
    }
}

/// sigma(x) = 1 / (1 + exp(-x)), to 4e-7; saturates beyond +-60.
///
/// exp(-x) = 2^t with t = -x log2(e) = n + f, n an integer and |f| <= 1/2; 2^f = exp(f ln 2) by its Taylor series, whose
/// remainder after the sixth power is (ln 2 / 2)^7 / 7! = 1.2e-7.
///
/// Several registers take each step together: one alone would wait four cycles for each, and fill the scheduler with
/// what waits.
#[inline(always)]
pub(super) unsafe fn sigmoid<V: Lanes, const R: usize>(x: [V; R]) -> [V; R] {
    const LN2: f64 = std::f64::consts::LN_2;
    // The coefficients (ln 2)^k / k! of f^k, from the highest down.
    const SERIES: [f32; 7] = {
        let mut series = [0.0; 7];
        let (mut c, mut k) = (1.0, 0);
        while k < 7 {
            series[6 - k] = c as f32;
            k += 1;
            c *= LN2 / k as f64;
        }
        series
    };
    // SAFETY: the caller has the instruction set of V; so has everything below.
    unsafe {
        let mut n = x;
        let mut f = x;
        let mut p = [V::splat(SERIES[0]); R];
        for r in 0..R {
            f[r] = x[r].mul(V::splat(-std::f32::consts::LOG2_E)).clamp(87.0);
        }
        for r in 0..R {
            n[r] = f[r].round();
            f[r] = f[r].sub(n[r]);
        }
        for c in &SERIES[1..] {
            for r in 0..R {
                p[r] = p[r].mul_add(f[r], V::splat(*c));
            }
        }
        for r in 0..R {
            // exp(87) is below 1e38.
            p[r] = p[r].mul_add(n[r].exp2_of_integer(), V::splat(1.0));
        }
        for r in 0..R {
            p[r] = p[r].reciprocal();
        }
        p
    }
}

/// The step of a [`Block`] with 1 to 6 outputs and 1 to 16 inputs.
#[inline(always)]
pub(super) unsafe fn block<V: Lanes>(b: &mut Block<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        match b.n_outputs {
            1 => block_of::<V, 1>(b),
            2 => block_of::<V, 2>(b),
            3 => block_of::<V, 3>(b),
            4 => block_of::<V, 4>(b),
            5 => block_of::<V, 5>(b),
            _ => block_of::<V, 6>(b),
        }
    }
}

#[inline(always)]
unsafe fn block_of<V: Lanes, const K: usize>(b: &mut Block<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        // An odd last input is paired with itself: its second scores are computed for nobody.
        b.inputs[b.n_inputs] = b.inputs[b.n_inputs - 1];
        let places = b.n_inputs.div_ceil(2) + b.stride.div_ceil(pieces::<V>() * V::N);
        let mut soon = Soon::of(&b.ahead, b.stride, places);
        let mut i = 0;
        while i < b.n_inputs {
            soon.fetch::<V>(&b.ahead, b.stride);
            scores::<V, K>(b, i);
            i += 2;
        }
        errors::<V>(b);
        if b.any_excluded {
            exclude(b);
        }
        update::<V, K>(b, &mut soon);
        soon.done(&mut b.ahead);
    }
}

/// How many registers of columns are updated at a time: with 32 registers two columns of six outputs fit.
const fn pieces<V: Lanes>() -> usize {
    if V::MANY { 2 } else { 1 }
}

/// The scores of two inputs with all K outputs: 2 x K sums in registers.
#[inline(always)]
unsafe fn scores<V: Lanes, const K: usize>(b: &mut Block<'_>, first: usize) {
    // SAFETY: every pointer is a row of `stride` floats, a multiple of V::N.
    unsafe {
        let mut sums = [[V::splat(0.0); LANES]; 2];
        let inputs = [b.inputs[first].start, b.inputs[first + 1].start];
        let mut column = 0;
        while column < b.stride {
            let x = [
                V::load(inputs[0].add(column)),
                V::load(inputs[1].add(column)),
            ];
            for k in 0..K {
                let o = V::load(b.outputs[k].start.add(column));
                for r in 0..2 {
                    sums[r][k] = x[r].mul_add(o, sums[r][k]);
                }
            }
            column += V::N;
        }
        V::store_sums_of_two(
            sums,
            b.scores.0.as_mut_ptr().cast::<f32>().add(first * LANES),
        );
    }
}

/// No error for the pairs that are excluded: a few.
#[cold]
#[inline(never)]
pub(super) fn exclude(b: &mut Block<'_>) {
    for (errors, mut mask) in b.errors.0.iter_mut().zip(b.excluded) {
        while mask != 0 {
            errors[mask.trailing_zeros() as usize] = 0.0;
            mask &= mask - 1;
        }
    }
}

/// From scores to g: lane by lane. An odd last input is paired with leftovers that nobody reads; nor does anybody read
/// the lanes of outputs that are not there.
#[inline(always)]
unsafe fn errors<V: Lanes>(b: &mut Block<'_>) {
    const { assert!(INPUTS.is_multiple_of(2) && (2 * LANES).is_multiple_of(V::N)) };
    // SAFETY: both arrays hold INPUTS x LANES floats.
    unsafe {
        let label = V::load_eight(b.labels.as_ptr());
        let rate = V::load_eight(b.weights.as_ptr()).mul(V::splat(b.alpha));
        let from = b.scores.0.as_ptr().cast::<f32>();
        let to = b.errors.0.as_mut_ptr().cast::<f32>();
        let n = b.n_inputs.next_multiple_of(2) * LANES / V::N;
        let mut first = 0;
        while first < n {
            let (from, to) = (from.add(first * V::N), to.add(first * V::N));
            match n - first {
                1 => errors_of::<V, 1>(from, to, label, rate),
                2 => errors_of::<V, 2>(from, to, label, rate),
                3 => errors_of::<V, 3>(from, to, label, rate),
                _ => errors_of::<V, 4>(from, to, label, rate),
            }
            first += 4;
        }
    }
}

/// The same for R registers.
#[inline(always)]
unsafe fn errors_of<V: Lanes, const R: usize>(from: *const f32, to: *mut f32, label: V, rate: V) {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut scores = [label; R];
        for r in 0..R {
            scores[r] = V::load(from.add(r * V::N));
        }
        let sigma = sigmoid(scores);
        for r in 0..R {
            label.sub(sigma[r]).mul(rate).store(to.add(r * V::N));
        }
    }
}

/// Both updates, column by column: outputs, before and after, stay in registers while the inputs pass by.
#[inline(always)]
unsafe fn update<V: Lanes, const K: usize>(b: &mut Block<'_>, soon: &mut Soon) {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut column = 0;
        while pieces::<V>() == 2 && column + 2 * V::N <= b.stride {
            soon.fetch::<V>(&b.ahead, b.stride);
            update_columns::<V, K, 2>(b, column);
            column += 2 * V::N;
        }
        while column < b.stride {
            soon.fetch::<V>(&b.ahead, b.stride);
            update_columns::<V, K, 1>(b, column);
            column += V::N;
        }
    }
}

/// The update of C registers of columns.
#[inline(always)]
unsafe fn update_columns<V: Lanes, const K: usize, const C: usize>(
    b: &mut Block<'_>,
    first: usize,
) {
    // SAFETY: as for `scores`; a sink is such a row, too.
    unsafe {
        let mut before = [[V::splat(0.0); C]; K];
        for k in 0..K {
            for c in 0..C {
                before[k][c] = V::load(b.outputs[k].start.add(first + c * V::N));
            }
        }
        let mut after = before;
        for i in 0..b.n_inputs {
            let (input, to) = (b.inputs[i].start.add(first), b.sinks[i].start.add(first));
            let mut x = [V::splat(0.0); C];
            let mut sink = [V::splat(0.0); C];
            for c in 0..C {
                x[c] = V::load(input.add(c * V::N));
                sink[c] = V::load(to.add(c * V::N));
            }
            for k in 0..K {
                let g = V::splat(b.errors.0[i][k]);
                for c in 0..C {
                    after[k][c] = g.mul_add(x[c], after[k][c]);
                    sink[c] = g.mul_add(before[k][c], sink[c]);
                }
            }
            for c in 0..C {
                sink[c].store(to.add(c * V::N));
            }
        }
        for k in 0..K {
            for c in 0..C {
                after[k][c].store(b.outputs[k].start.add(first + c * V::N));
            }
        }
    }
}

/// The step of [`Pairs`].
#[inline(always)]
pub(super) unsafe fn pairs<V: Lanes>(p: &mut Pairs<'_>) {
    // SAFETY: every pointer is a row of `stride` floats, a multiple of V::N; scores and errors hold 16.
    unsafe {
        let mut first = 0;
        while first < p.n {
            let n = (p.n - first).min(8);
            let mut sums = [V::splat(0.0); 8];
            if n == 8 {
                // The usual case, with the sums in registers.
                let mut column = 0;
                while column < p.stride {
                    for r in 0..8 {
                        let x = V::load(p.inputs[first + r].start.add(column));
                        sums[r] =
                            x.mul_add(V::load(p.outputs[first + r].start.add(column)), sums[r]);
                    }
                    column += V::N;
                }
            } else {
                for (r, sum) in sums.iter_mut().enumerate().take(n) {
                    let mut column = 0;
                    while column < p.stride {
                        let x = V::load(p.inputs[first + r].start.add(column));
                        *sum = x.mul_add(V::load(p.outputs[first + r].start.add(column)), *sum);
                        column += V::N;
                    }
                }
            }
            V::store_sums(sums, p.scores.as_mut_ptr().add(first));
            first += 8;
        }
        let mut lane = 0;
        while lane < INPUTS {
            let [sigma] = sigmoid([V::load(p.scores.as_ptr().add(lane))]);
            let error = V::splat(1.0).sub(sigma).mul(V::splat(p.alpha));
            error.store(p.errors.as_mut_ptr().add(lane));
            lane += V::N;
        }
        for i in 0..p.n {
            let g = V::splat(p.errors[i]);
            let mut column = 0;
            while column < p.stride {
                let x = V::load(p.inputs[i].start.add(column));
                let o = V::load(p.outputs[i].start.add(column));
                g.mul(o).store(p.errors_of[i].start.add(column));
                g.mul_add(x, o).store(p.outputs[i].start.add(column));
                column += V::N;
            }
        }
    }
}

/// Prefix sums over the rows of a span, and the means from them.
#[inline(always)]
pub(super) unsafe fn gather<V: Lanes>(span: &mut Span<'_>) {
    let mut column = 0;
    // SAFETY: passed on from the caller.
    unsafe {
        while column + 4 * V::N <= span.stride {
            gather_columns::<V, 4>(span, column);
            column += 4 * V::N;
        }
        match (span.stride - column) / V::N {
            1 => gather_columns::<V, 1>(span, column),
            2 => gather_columns::<V, 2>(span, column),
            3 => gather_columns::<V, 3>(span, column),
            _ => {}
        }
    }
}

/// The same for C registers of columns.
#[inline(always)]
unsafe fn gather_columns<V: Lanes, const C: usize>(span: &mut Span<'_>, first: usize) {
    // SAFETY: `sums` has one row more than the span, each window lies within it, and all rows have `stride` floats.
    unsafe {
        let sums = span.sums.as_mut_ptr();
        let mut sum = [V::splat(0.0); C];
        for c in 0..C {
            sum[c].store(sums.add(c * V::N));
        }
        for r in 0..span.rows.len() {
            let (row, to) = (span.rows[r].start.add(first), sums.add((r + 1) * C * V::N));
            for c in 0..C {
                sum[c] = sum[c].add(V::load(row.add(c * V::N)));
                sum[c].store(to.add(c * V::N));
            }
        }
        for m in 0..span.means.len() {
            let mean = &span.means[m];
            let factor = V::splat(mean.factor);
            let (from, to) = (sums.add(mean.from * C * V::N), sums.add(mean.to * C * V::N));
            let own = span.rows[mean.own].start.add(first);
            let mean = mean.mean.start.add(first);
            for c in 0..C {
                let all = V::load(to.add(c * V::N)).sub(V::load(from.add(c * V::N)));
                let own = V::load(own.add(c * V::N));
                all.sub(own).mul(factor).store(mean.add(c * V::N));
            }
        }
    }
}

/// Registers of columns that go through a span at a time: they and as much of a row fill 16. With 16 floats each they hold
/// a row of 100 dimensions.
const COLUMNS: usize = 7;

/// The errors of all means, summed up on the way through the rows.
#[inline(always)]
pub(super) unsafe fn scatter<V: Lanes>(span: &mut Span<'_>) {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut column = 0;
        while column < span.stride {
            match (span.stride - column) / V::N {
                1 => scatter_columns::<V, 1>(span, column),
                2 => scatter_columns::<V, 2>(span, column),
                3 => scatter_columns::<V, 3>(span, column),
                4 => scatter_columns::<V, 4>(span, column),
                5 => scatter_columns::<V, 5>(span, column),
                6 => scatter_columns::<V, 6>(span, column),
                _ => scatter_columns::<V, COLUMNS>(span, column),
            }
            column += COLUMNS * V::N;
        }
    }
}

/// The same for C registers of columns.
#[inline(always)]
unsafe fn scatter_columns<V: Lanes, const C: usize>(span: &mut Span<'_>, first: usize) {
    const { assert!(2 * INPUTS <= u32::BITS as usize) };
    // SAFETY: each bit of `changes` is a mean's, and all rows have `stride` floats.
    unsafe {
        let mut sum = [V::splat(0.0); C];
        let mut m = 0;
        for r in 0..span.rows.len() {
            let mut changes = *span.changes.get_unchecked(r);
            while changes != 0 {
                let bit = changes.trailing_zeros() as usize;
                changes &= changes - 1;
                let mean = span.means.get_unchecked(bit % INPUTS);
                let share = if bit < INPUTS {
                    mean.share
                } else {
                    -mean.share
                };
                let (share, error) = (V::splat(share), mean.error.start.add(first));
                for c in 0..C {
                    sum[c] = share.mul_add(V::load(error.add(c * V::N)), sum[c]);
                }
            }
            let row = span.rows[r].start.add(first);
            let mut total = sum;
            if m < span.means.len() && span.means[m].own == r {
                // A centre is no context of its own window.
                let share = V::splat(-span.means[m].share);
                let error = span.means[m].error.start.add(first);
                for c in 0..C {
                    total[c] = share.mul_add(V::load(error.add(c * V::N)), total[c]);
                }
                m += 1;
            }
            for c in 0..C {
                let at = row.add(c * V::N);
                total[c].add(V::load(at)).store(at);
            }
        }
    }
}
