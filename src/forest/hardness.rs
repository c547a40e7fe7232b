//! How much more than others a query needs, told by nothing but how far the leaves are.
//!
//! A query in a dense place finds its neighbours in a leaf or two; one that is about as far from many leaves may find them
//! in any of these. The distances of the nearest, the fourth and the 21st leaf tell the two apart. Calibration knows
//! for its sample how many slots a neighbour took; a least-squares fit of that number to the three distances, all
//! as logarithms, gives each query its own share of the work that a promise takes on average (after Li et al. 2020, "Learned
//! adaptive early termination", whose trees are no better here than this line). Measured: a quarter fewer slots for the same
//! recall on sentence embeddings, an eighth on words and pictures, and queries that are hard keep their recall.

/// Which leaves are asked, in order of distance.
const RANKS: [usize; 3] = [0, 3, 20];
/// Leaves that must be in order for [`Hardness::share`].
pub(super) const LEAVES: usize = RANKS[2] + 1;
/// A query gets at most this many times the mean, and at least one part in so many.
pub(super) const MOST: f32 = 8.0;

/// The fit: a constant and a weight for each rank. Zeros: every query is as hard as any.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Hardness(pub(crate) [f32; 4]);

/// What is known of one query of the sample: logarithms of its distances, and of the slots its neighbours took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) at: [f32; RANKS.len()],
    pub(super) took: f32,
}

/// The binary logarithm, linear between powers of two: the same on every machine, and [`power`] undoes it.
pub(super) fn logarithm(x: f32) -> f32 {
    x.max(f32::MIN_POSITIVE).to_bits() as f32 / (1 << 23) as f32 - 127.0
}

/// Undoes [`logarithm`].
pub(super) fn power(x: f32) -> f32 {
    f32::from_bits(((x + 127.0) * (1 << 23) as f32) as u32)
}

/// The distances asked for: `squared` gives those of the leaves `0..n`, nearest first.
pub(super) fn at(n: usize, squared: impl Fn(usize) -> f32) -> [f32; RANKS.len()] {
    if n == 0 {
        return Default::default();
    }
    let far = squared(RANKS[2].min(n - 1));
    // A query that is a centroid says no more than that it is near.
    let least = (far * 1e-3).max(f32::MIN_POSITIVE);
    RANKS.map(|rank| logarithm(squared(rank.min(n - 1)).max(least)))
}

impl Hardness {
    /// Fits the sample. Fewer than a few dozen say nothing.
    pub(super) fn fit(sample: &[Known]) -> Self {
        if sample.len() < 64 {
            return Self::default();
        }
        // Normal equations, with a little weight on zero so that they always have a solution.
        let mut m = [[0.0f64; 5]; 4];
        for known in sample {
            let x = [1.0, known.at[0], known.at[1], known.at[2]].map(f64::from);
            for (row, &a) in m.iter_mut().zip(&x) {
                for (sum, &b) in row.iter_mut().zip(&x) {
                    *sum += a * b;
                }
                row[4] += a * f64::from(known.took);
            }
        }
        for (k, row) in m.iter_mut().enumerate() {
            row[k] += 1e-3 * sample.len() as f64;
        }
        let w = solve(m).map(|w| w as f32);
        if w.iter().any(|w| !w.is_finite()) {
            return Self::default();
        }
        // The constant makes the mean share 1.
        let mut fit = Hardness(w);
        let mean: f32 = sample
            .iter()
            .map(|k| power(fit.sum(&k.at).clamp(-60.0, 60.0)))
            .sum();
        fit.0[0] -= logarithm(mean / sample.len() as f32);
        fit
    }

    fn sum(&self, at: &[f32; RANKS.len()]) -> f32 {
        let w = &self.0;
        w[0] + (w[1] * at[0] + (w[2] * at[1] + w[3] * at[2]))
    }

    /// How many slots a query at these distances gets when they get `slots` on average.
    pub(super) fn share(&self, slots: usize, at: &[f32; RANKS.len()]) -> usize {
        let most = logarithm(MOST);
        (slots as f32 * power(self.sum(at).clamp(-most, most))) as usize
    }
}

/// Solves four positive definite equations by elimination.
fn solve(mut m: [[f64; 5]; 4]) -> [f64; 4] {
    for k in 0..4 {
        for i in k + 1..4 {
            let (pivot, by) = (m[k], m[i][k] / m[k][k]);
            for (x, p) in m[i].iter_mut().zip(pivot) {
                *x -= by * p;
            }
        }
    }
    let mut x = [0.0; 4];
    for k in (0..4).rev() {
        let rest: f64 = (k + 1..4).map(|j| m[k][j] * x[j]).sum();
        x[k] = (m[k][4] - rest) / m[k][k];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fit_finds_the_line_that_made_the_sample_and_shares_work_around_one() {
        let mut random = crate::forest::random::Random::new(5, 0);
        let sample: Vec<Known> = (0..500)
            .map(|_| {
                let at: [f32; 3] = std::array::from_fn(|_| random.below(1000) as f32 / 500.0);
                let took = 7.0 + 2.0 * at[0] - 0.5 * at[1] - 1.5 * at[2];
                Known { at, took }
            })
            .collect();
        let fit = Hardness::fit(&sample);
        for (got, expected) in fit.0[1..].iter().zip([2.0, -0.5, -1.5]) {
            assert!((got - expected).abs() < 0.05, "{:?}", fit.0);
        }
        let mean = sample.iter().map(|k| fit.share(1000, &k.at)).sum::<usize>() / 500;
        assert!((900..1100).contains(&mean), "{mean}");
        let hard = fit.share(1000, &[2.0, 0.0, 0.0]);
        let easy = fit.share(1000, &[0.0, 1.0, 2.0]);
        assert!(hard > 4000 && easy < 250, "{hard} {easy}");
    }

    #[test]
    fn nonsense_and_small_samples_leave_every_query_as_hard_as_any() {
        let known = |x: f32| Known {
            at: [x; 3],
            took: x,
        };
        assert_eq!(Hardness::fit(&[known(1.0); 10]), Hardness::default());
        assert_eq!(Hardness::fit(&[known(f32::NAN); 100]), Hardness::default());
        assert_eq!(Hardness::default().share(100, &[3.0, 9.0, -5.0]), 100);
        assert_eq!(Hardness::fit(&[known(0.0); 100]).share(100, &[0.0; 3]), 100);
    }

    #[test]
    fn logarithm_and_power_undo_each_other_and_bear_any_number() {
        for x in [1e-37f32, 0.3, 1.0, 1.5, 7e9] {
            assert!((power(logarithm(x)) / x - 1.0).abs() < 1e-4, "{x}");
        }
        assert!(logarithm(0.0).is_finite() && logarithm(-1.0).is_finite());
        let at = at(2, |i| if i == 0 { -1e-9 } else { 1.0 });
        assert_eq!(at[1], 0.0);
        assert!(at[0] < -9.0 && at[0] > -11.0);
    }
}
