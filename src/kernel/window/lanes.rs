//! The steps of [`window`](super), written once over [`Lanes`]: a register of 8 or 16 floats.
//!
//! Everything is `inline(always)`: an instance is a function with the right `target_feature` into which all of this is
//! inlined, so that the intrinsics become instructions.

#![allow(
    clippy::needless_range_loop,
    reason = "loops over constant bounds, which unroll; several arrays share each index"
)]

use super::{Block, INPUTS, LANES, PAD, Pairs, Span, prefetch};

/// A register of N floats. N divides [`PAD`].
///
/// # Safety
/// Every method may only be called where the instruction set of the implementation is there. `load` and `store` need N
/// valid floats, of any alignment.
pub(super) trait Lanes: Copy {
    const N: usize;
    /// Whether there are 32 registers, so that two columns of all outputs fit at a time.
    const MANY: bool;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// self * a + b
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// The numbers brought into -bound..=bound; NaN may become anything.
    unsafe fn clamp(self, bound: f32) -> Self;
    /// To the nearest integer.
    unsafe fn round(self) -> Self;
    /// 2^n for integers of at most 126 in magnitude.
    unsafe fn exp2_of_integer(self) -> Self;
    /// Stores at `to` the sums over the lanes of each of 8 registers.
    unsafe fn store_sums(registers: [Self; 8], to: *mut f32);
}

/// sigma(x) = 1 / (1 + exp(-x)), to 4e-7; saturates beyond +-60.
///
/// exp(-x) = 2^t with t = -x log2(e) = n + f, n an integer and |f| <= 1/2; 2^f by its Taylor series in f ln 2, whose
/// remainder after the sixth power is (ln 2 / 2)^7 / 7! = 1.2e-7.
#[inline(always)]
unsafe fn sigmoid<V: Lanes>(x: V) -> V {
    const LN2: f32 = std::f32::consts::LN_2;
    // SAFETY: the caller has the instruction set of V; so has everything below.
    unsafe {
        let t = x.mul(V::splat(-std::f32::consts::LOG2_E)).clamp(87.0);
        let n = t.round();
        let f = t.sub(n).mul(V::splat(LN2));
        let mut p = V::splat(1.0 / 720.0);
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.mul_add(f, V::splat(c));
        }
        let one = V::splat(1.0);
        one.div(p.mul_add(n.exp2_of_integer(), one))
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
        let half = b.n_soon / 2;
        let mut i = 0;
        while i + 2 <= b.n_inputs {
            scores::<V, K, 2>(b, i, if i == 0 { half } else { 0 });
            i += 2;
        }
        if i < b.n_inputs {
            scores::<V, K, 1>(b, i, if i == 0 { half } else { 0 });
        }
        errors::<V>(b);
        update::<V, K>(b, half);
        b.n_soon = 0;
    }
}

/// Asks for one cache line of each row.
#[inline(always)]
fn fetch<V: Lanes>(rows: &[*const f32], column: usize) {
    if column.is_multiple_of(PAD) {
        for row in rows {
            prefetch(row.wrapping_add(column));
        }
    }
}

/// The scores of R inputs, one or two, with all K outputs: R x K sums in registers.
#[inline(always)]
unsafe fn scores<V: Lanes, const K: usize, const R: usize>(
    b: &mut Block<'_>,
    first: usize,
    n_soon: usize,
) {
    // SAFETY: every pointer is a row of `stride` floats, a multiple of V::N.
    unsafe {
        let mut sums = [[V::splat(0.0); LANES]; R];
        let mut column = 0;
        while column < b.stride {
            fetch::<V>(&b.soon[..n_soon], column);
            let mut x = [V::splat(0.0); R];
            for r in 0..R {
                x[r] = V::load(b.inputs[first + r].add(column));
            }
            for k in 0..K {
                let o = V::load(b.outputs[k].add(column));
                for r in 0..R {
                    sums[r][k] = x[r].mul_add(o, sums[r][k]);
                }
            }
            column += V::N;
        }
        for r in 0..R {
            V::store_sums(sums[r], b.scores[first + r].as_mut_ptr());
        }
    }
}

/// From scores to g: lane by lane, two inputs at a time. An odd last input is paired with leftovers that nobody reads.
#[inline(always)]
unsafe fn errors<V: Lanes>(b: &mut Block<'_>) {
    const { assert!(INPUTS.is_multiple_of(2)) };
    // SAFETY: both arrays hold INPUTS x LANES floats, and labels and weights 2 x LANES.
    unsafe {
        let alpha = V::splat(b.alpha);
        let n = b.n_inputs.next_multiple_of(2) * LANES;
        let (from, to) = (
            b.scores.as_ptr().cast::<f32>(),
            b.errors.as_mut_ptr().cast::<f32>(),
        );
        let mut lane = 0;
        while lane < n {
            let within = lane % (2 * LANES);
            let label = V::load(b.labels.as_ptr().add(within));
            let rate = V::load(b.weights.as_ptr().add(within)).mul(alpha);
            let sigma = sigmoid(V::load(from.add(lane)));
            label.sub(sigma).mul(rate).store(to.add(lane));
            lane += V::N;
        }
    }
    if b.any_excluded {
        for (errors, mask) in b.errors.iter_mut().zip(b.excluded) {
            for (k, error) in errors.iter_mut().enumerate() {
                if mask & (1 << k) != 0 {
                    *error = 0.0;
                }
            }
        }
    }
}

/// Both updates, column by column: outputs, before and after, stay in registers while the inputs pass by.
#[inline(always)]
unsafe fn update<V: Lanes, const K: usize>(b: &mut Block<'_>, soon_done: usize) {
    // SAFETY: passed on from the caller.
    unsafe {
        let mut column = 0;
        while V::MANY && column + 2 * V::N <= b.stride {
            fetch::<V>(&b.soon[soon_done..b.n_soon], column);
            fetch::<V>(&b.soon[soon_done..b.n_soon], column + V::N);
            update_columns::<V, K, 2>(b, column);
            column += 2 * V::N;
        }
        while column < b.stride {
            fetch::<V>(&b.soon[soon_done..b.n_soon], column);
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
                before[k][c] = V::load(b.outputs[k].add(first + c * V::N));
            }
        }
        let mut after = before;
        for i in 0..b.n_inputs {
            let (input, to) = (b.inputs[i].add(first), b.sinks[i].add(first));
            let mut x = [V::splat(0.0); C];
            let mut sink = [V::splat(0.0); C];
            for c in 0..C {
                x[c] = V::load(input.add(c * V::N));
                sink[c] = V::load(to.add(c * V::N));
            }
            for k in 0..K {
                let g = V::splat(b.errors[i][k]);
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
                after[k][c].store(b.outputs[k].add(first + c * V::N));
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
                        let x = V::load(p.inputs[first + r].add(column));
                        sums[r] = x.mul_add(V::load(p.outputs[first + r].add(column)), sums[r]);
                    }
                    column += V::N;
                }
            } else {
                for (r, sum) in sums.iter_mut().enumerate().take(n) {
                    let mut column = 0;
                    while column < p.stride {
                        let x = V::load(p.inputs[first + r].add(column));
                        *sum = x.mul_add(V::load(p.outputs[first + r].add(column)), *sum);
                        column += V::N;
                    }
                }
            }
            V::store_sums(sums, p.scores.as_mut_ptr().add(first));
            first += 8;
        }
        let mut lane = 0;
        while lane < INPUTS {
            let sigma = sigmoid(V::load(p.scores.as_ptr().add(lane)));
            let error = V::splat(1.0).sub(sigma).mul(V::splat(p.alpha));
            error.store(p.errors.as_mut_ptr().add(lane));
            lane += V::N;
        }
        for i in 0..p.n {
            let g = V::splat(p.errors[i]);
            let soon = p.n_soon * i / p.n..p.n_soon * (i + 1) / p.n;
            let mut column = 0;
            while column < p.stride {
                fetch::<V>(&p.soon[soon.clone()], column);
                let x = V::load(p.inputs[i].add(column));
                let o = V::load(p.outputs[i].add(column));
                let sink = V::load(p.sinks[i].add(column));
                g.mul_add(o, sink).store(p.sinks[i].add(column));
                g.mul_add(x, o).store(p.outputs[i].add(column));
                column += V::N;
            }
        }
        p.n_soon = 0;
    }
}

/// Prefix sums over the rows of a span, and the means from them.
#[inline(always)]
pub(super) unsafe fn gather<V: Lanes>(span: &mut Span<'_>) {
    let stride = span.stride;
    // SAFETY: `sums` has one row more than the span, each window lies within it, and all rows have `stride` floats.
    unsafe {
        let sums = span.sums.as_mut_ptr();
        let mut column = 0;
        while column < stride {
            let mut sum = V::splat(0.0);
            sum.store(sums.add(column));
            for (r, row) in span.rows.iter().enumerate() {
                sum = sum.add(V::load(row.add(column)));
                sum.store(sums.add((r + 1) * stride + column));
            }
            column += V::N;
        }
        for mean in &span.means {
            let factor = V::splat(mean.factor);
            let mut column = 0;
            while column < stride {
                let all = V::load(sums.add(mean.to * stride + column))
                    .sub(V::load(sums.add(mean.from * stride + column)));
                let own = V::load(span.rows[mean.own].add(column));
                all.sub(own).mul(factor).store(mean.mean.start.add(column));
                V::splat(0.0).store(mean.error.start.add(column));
                column += V::N;
            }
        }
    }
}

/// The errors of all means as differences, summed up on the way through the rows.
#[inline(always)]
pub(super) unsafe fn scatter<V: Lanes>(span: &mut Span<'_>) {
    const { assert!(PAD.is_multiple_of(V::N)) };
    let stride = span.stride;
    // SAFETY: as for `gather`.
    unsafe {
        let n = (span.rows.len() + 1) * stride;
        span.sums[..n].fill(0.0);
        let sums = span.sums.as_mut_ptr();
        for mean in &span.means {
            let share = V::splat(mean.share);
            let mut column = 0;
            while column < stride {
                let error = V::load(mean.error.start.add(column)).mul(share);
                let (from, to) = (
                    sums.add(mean.from * stride + column),
                    sums.add(mean.to * stride + column),
                );
                V::load(from).add(error).store(from);
                V::load(to).sub(error).store(to);
                column += V::N;
            }
        }
        let mut column = 0;
        while column < stride {
            let mut sum = V::splat(0.0);
            for (r, row) in span.rows.iter().enumerate() {
                sum = sum.add(V::load(sums.add(r * stride + column)));
                V::load(row.add(column)).add(sum).store(row.add(column));
            }
            column += V::N;
        }
        for mean in &span.means {
            let share = V::splat(-mean.share);
            let own = span.rows[mean.own];
            let mut column = 0;
            while column < stride {
                let error = V::load(mean.error.start.add(column));
                share
                    .mul_add(error, V::load(own.add(column)))
                    .store(own.add(column));
                column += V::N;
            }
        }
    }
}
