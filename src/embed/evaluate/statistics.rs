//! Correlations, and how likely they are by chance.

/// Pearson's correlation; NaN when either side is constant.
pub(super) fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - mean_a, y - mean_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    (ab / (aa.sqrt() * bb.sqrt())).clamp(-1.0, 1.0)
}

/// The rank of each number from 1; equal ones share the mean of their ranks.
pub(super) fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&i, &j| x[i].total_cmp(&x[j]));
    let mut ranks = vec![0.0; x.len()];
    let mut from = 0;
    for run in order.chunk_by(|&i, &j| x[i] == x[j]) {
        let rank = from as f64 + (run.len() + 1) as f64 / 2.0;
        run.iter().for_each(|&i| ranks[i] = rank);
        from += run.len();
    }
    ranks
}

/// The probability that n pairs without correlation show one of at least |r|: Student's t with n - 2 degrees of
/// freedom, which is I_{1 - r^2}((n - 2) / 2, 1/2).
pub(super) fn p_value(r: f64, n: usize) -> f64 {
    if n < 3 {
        return 1.0;
    }
    // 1 - r^2 without cancellation.
    incomplete_beta((n as f64 - 2.0) / 2.0, 0.5, (1.0 - r) * (1.0 + r))
}

/// The regularised incomplete beta function, by its continued fraction (Lentz's method; Abramowitz, Stegun 26.5.8).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x <= 0.0 || x >= 1.0 {
        return f64::from(u8::from(x >= 1.0));
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (a * x.ln() + b * (-x).ln_1p() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp();
    let tiny = 1e-300;
    let safe = |v: f64| if v.abs() < tiny { tiny } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / safe(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / safe(1.0 + even * d);
        c = safe(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / safe(1.0 + odd * d);
        c = safe(1.0 + odd / c);
        fraction *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction / a
}

/// The logarithm of the gamma function for x > 0: Stirling's series from 10 up, the recurrence below.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut product) = (x, 1.0);
    while x < 10.0 {
        product *= x;
        x += 1.0;
    }
    let (inverse, square) = (1.0 / x, 1.0 / (x * x));
    let series = inverse
        * (1.0 / 12.0
            - square
                * (1.0 / 360.0
                    - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    (x - 0.5) * x.ln() - x + (2.0 * std::f64::consts::PI).ln() / 2.0 + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_equal_numbers_are_shared() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
    }

    #[test]
    fn gamma_is_the_factorial() {
        let mut factorial = 0.0f64;
        for n in 1..60u32 {
            assert!((ln_gamma(f64::from(n)) - factorial).abs() < 1e-11 * factorial.max(1.0));
            factorial += f64::from(n).ln();
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-13);
    }

    #[test]
    fn p_values_are_those_of_students_t() {
        // One degree of freedom is Cauchy's distribution: p = 1 - 2/pi atan(t); for two, p = 1 - r.
        for r in [0.01f64, 0.3, 0.9, 0.999] {
            let t = r / (1.0 - r * r).sqrt();
            assert!((p_value(r, 3) - (1.0 - t.atan() * 2.0 / std::f64::consts::PI)).abs() < 1e-12);
            assert!((p_value(r, 4) - (1.0 - r)).abs() < 1e-12);
            assert_eq!(p_value(r, 100), p_value(-r, 100));
        }
        // From scipy 1.17: twice the tail of Student's t for r = 0.6 and n = 200.
        let p = p_value(0.6, 200);
        assert!((p / 6.066_612_201_047_932e-21 - 1.0).abs() < 1e-9, "{p:e}");
    }
}
