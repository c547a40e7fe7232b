//! The law of the kernels: every function on every instruction-set level against a plain f64 loop, for dim 0 to 257,
//! unaligned starts and extreme values.
//!
//! Error bounds are derived, not guessed. With u = 2^-24 and gamma(k) = k u / (1 - k u), a sum of n rounded terms in
//! any order, with or without FMA, is off by at most gamma(n - 1 + r) * sum |term|, where r roundings made each term
//! (Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 3.1): r = 1 for a product or an absolute
//! difference, 3 for a squared difference. A product that underflows adds up to 2^-150. The reference's own error has
//! the same form with 2^-53. Where sum |term| exceeds what f32 holds, a sum may be infinite, or NaN; elsewhere not.

use half::f16;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlite_annoy::kernel::{Kernels, Level, Pairwise, scalar};
use sqlite_annoy::vector::exact;

const SEED: u64 = 20_261_122;
const DIMS: std::ops::RangeInclusive<usize> = 0..=257;

/// The kernels of every level this machine has. A missing level is reported, and is a failure when
/// `SQLITE_ANNOY_REQUIRE_ISA` names it or a higher one.
fn levels() -> Vec<&'static Kernels> {
    let required = std::env::var("SQLITE_ANNOY_REQUIRE_ISA").ok().map(|name| {
        let known = Level::ALL.into_iter().find(|l| l.name() == name);
        known.unwrap_or_else(|| panic!("SQLITE_ANNOY_REQUIRE_ISA={name}: no such level"))
    });
    let mut tables = Vec::new();
    for level in Level::ALL {
        match Kernels::at(level) {
            Some(kernels) => tables.push(kernels),
            None if Some(level) <= required => {
                panic!(
                    "level {} is required, and this processor lacks it",
                    level.name()
                )
            }
            None => eprintln!("skipped level {}: this processor lacks it", level.name()),
        }
    }
    tables
}

/// Everything a float kernel may meet: see the arms.
const KINDS: usize = 7;

fn component(kind: usize, rng: &mut StdRng) -> f32 {
    let signed: f32 = rng.random_range(-1.0..1.0);
    match kind {
        0 => signed,
        1 => signed * f32::MAX,
        2 => signed * 1e-39, // subnormal in f32
        3 => 0.0f32.copysign(signed),
        4 => signed * 10f32.powi(rng.random_range(-38..=38)),
        5 => f32::MAX.copysign(signed),
        _ => 1.0 + signed * 1e-6, // differences cancel
    }
}

fn component_f16(kind: usize, rng: &mut StdRng) -> f16 {
    let signed: f32 = rng.random_range(-1.0..1.0);
    match kind {
        0 => f16::from_f32(signed),
        1 => f16::from_f32(signed * 65504.0),
        2 => f16::from_bits(rng.random_range(0..1024u16) | (u16::from(signed < 0.0) << 15)),
        3 => f16::from_f32(0.0f32.copysign(signed)),
        4 => loop {
            let any = f16::from_bits(rng.random());
            if any.is_finite() {
                break any;
            }
        },
        5 => f16::from_f32(65504f32.copysign(signed)),
        _ => f16::from_f32(1.0 + signed * 0.01),
    }
}

/// `k u / (1 - k u)` for unit roundoff `u`.
fn gamma(k: usize, u: f64) -> f64 {
    k as f64 * u / (1.0 - k as f64 * u)
}

/// Holds an f32 sum against the f64 one; `magnitude` is the sum of the terms' absolute values, `roundings` those that
/// made one term.
#[track_caller]
fn check(what: &str, got: f32, want: f64, magnitude: f64, n: usize, roundings: usize) {
    let k = n.saturating_sub(1) + roundings;
    let relative = gamma(k, 2f64.powi(-24)) + gamma(k, 2f64.powi(-53));
    let bound = relative * magnitude + (n as f64) * 2f64.powi(-150) * (1.0 + relative);
    let may_overflow = magnitude * (1.0 + relative) >= f64::from(f32::MAX);
    assert!(
        (f64::from(got) - want).abs() <= bound || (may_overflow && !got.is_finite()),
        "{what}, dim {n}: got {got:e}, want {want:e} +- {bound:e}"
    );
}

fn check_floats<T: Copy + Into<f64>>(what: &str, kernels: &Pairwise<T, f32>, a: &[T], b: &[T]) {
    let n = a.len();
    let abs = |v: &[T]| v.iter().map(|&x| x.into().abs()).collect::<Vec<f64>>();
    let want = scalar::cosine(a, b);
    let magnitude = scalar::dot(&abs(a), &abs(b));
    check(
        &format!("{what} dot"),
        (kernels.dot)(a, b),
        want.dot,
        magnitude,
        n,
        1,
    );
    let parts = (kernels.cosine)(a, b);
    check(
        &format!("{what} cosine.dot"),
        parts.dot,
        want.dot,
        magnitude,
        n,
        1,
    );
    check(
        &format!("{what} cosine.aa"),
        parts.aa,
        want.aa,
        want.aa,
        n,
        1,
    );
    check(
        &format!("{what} cosine.bb"),
        parts.bb,
        want.bb,
        want.bb,
        n,
        1,
    );
    let l2 = scalar::squared_l2(a, b);
    check(
        &format!("{what} squared_l2"),
        (kernels.squared_l2)(a, b),
        l2,
        l2,
        n,
        3,
    );
    let l1 = scalar::l1(a, b);
    check(&format!("{what} l1"), (kernels.l1)(a, b), l1, l1, n, 1);
}

#[test]
fn f32_kernels_stay_within_the_derived_error_on_every_level() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for n in DIMS {
        for kind in 0..KINDS {
            let a: Vec<f32> = (0..n + 3).map(|_| component(kind, &mut rng)).collect();
            let b: Vec<f32> = (0..n + 3).map(|_| component(kind, &mut rng)).collect();
            let (i, j) = (rng.random_range(0..=3), rng.random_range(0..=3));
            for k in levels() {
                let what = format!("f32 {} kind {kind} offsets {i} {j}", k.level.name());
                let (a, b) = (&a[i..i + n], &b[j..j + n]);
                check_floats(&what, &k.f32, a, b);
                let parts = (k.f32.cosine)(a, b);
                assert_eq!(
                    (k.dot_and_norm)(a, b).map(f32::to_bits),
                    [parts.dot, parts.bb].map(f32::to_bits),
                    "{what}"
                );
            }
        }
    }
}

#[test]
fn f16_kernels_stay_within_the_derived_error_on_every_level() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for n in DIMS {
        for kind in 0..KINDS {
            let a: Vec<f16> = (0..n + 3).map(|_| component_f16(kind, &mut rng)).collect();
            let b: Vec<f16> = (0..n + 3).map(|_| component_f16(kind, &mut rng)).collect();
            let (i, j) = (rng.random_range(0..=3), rng.random_range(0..=3));
            for k in levels() {
                let what = format!("f16 {} kind {kind} offsets {i} {j}", k.level.name());
                check_floats(&what, &k.f16, &a[i..i + n], &b[j..j + n]);
            }
        }
    }
}

#[test]
fn every_f16_value_widens_exactly_in_every_lane_and_in_the_tail() {
    for k in levels() {
        for bits in 0..=u16::MAX {
            let value = f16::from_bits(bits);
            let (mut a, mut b) = ([f16::ZERO; 67], [f16::ZERO; 67]);
            let place = usize::from(bits) % 67;
            (a[place], b[place]) = (value, f16::ONE);
            let got = (k.f16.dot)(&a, &b);
            if value.is_nan() || value.is_infinite() {
                // The zeros around it turn infinity into NaN only where they meet it: they do not here.
                assert_eq!(
                    got.is_nan(),
                    value.is_nan(),
                    "{} {bits:04x}",
                    k.level.name()
                );
                assert!(!got.is_finite(), "{} {bits:04x}", k.level.name());
            } else {
                assert_eq!(got, value.to_f32(), "{} {bits:04x}", k.level.name());
            }
        }
    }
}

#[test]
fn nan_and_infinity_anywhere_reach_the_result() {
    for k in levels() {
        for n in [1, 7, 8, 16, 31, 33, 64, 100, 131] {
            for place in 0..n {
                let (mut a, b) = (vec![1f32; n], vec![2f32; n]);
                a[place] = f32::NAN;
                let what = format!("{} dim {n} place {place}", k.level.name());
                for f in [k.f32.dot, k.f32.squared_l2, k.f32.l1] {
                    assert!(f(&a, &b).is_nan(), "{what}");
                }
                assert!((k.f32.cosine)(&a, &b).aa.is_nan(), "{what}");
                a[place] = f32::NEG_INFINITY;
                assert_eq!((k.f32.dot)(&a, &b), f32::NEG_INFINITY, "{what}");
                assert_eq!((k.f32.squared_l2)(&a, &b), f32::INFINITY, "{what}");
                assert_eq!((k.f32.l1)(&a, &b), f32::INFINITY, "{what}");
            }
        }
    }
}

fn check_i8(what: &str, kernels: &Pairwise<i8, i64>, a: &[i8], b: &[i8]) {
    // Sums below 2^53 are exact in the f64 reference.
    assert_eq!((kernels.dot)(a, b) as f64, scalar::dot(a, b), "{what} dot");
    assert_eq!(
        (kernels.squared_l2)(a, b) as f64,
        scalar::squared_l2(a, b),
        "{what} squared_l2"
    );
    assert_eq!((kernels.l1)(a, b) as f64, scalar::l1(a, b), "{what} l1");
    let (got, want) = ((kernels.cosine)(a, b), scalar::cosine(a, b));
    let got = [got.dot, got.aa, got.bb].map(|x| x as f64);
    assert_eq!(got, [want.dot, want.aa, want.bb], "{what} cosine");
}

#[test]
fn i8_kernels_are_exact_on_every_level() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for n in DIMS {
        for kind in 0..3 {
            let mut draw = || -> i8 {
                match kind {
                    0 => rng.random(),
                    1 => [i8::MIN, i8::MAX][rng.random_range(0..2)],
                    _ => i8::MIN,
                }
            };
            let a: Vec<i8> = (0..n + 3).map(|_| draw()).collect();
            let b: Vec<i8> = (0..n + 3).map(|_| draw()).collect();
            let (i, j) = (rng.random_range(0..=3), rng.random_range(0..=3));
            for k in levels() {
                let what = format!("i8 {} dim {n} kind {kind}", k.level.name());
                check_i8(&what, &k.i8, &a[i..i + n], &b[j..j + n]);
            }
        }
    }
}

#[test]
fn i8_sums_do_not_overflow_at_the_largest_dimension_nor_beyond() {
    for n in [32_767, 32_768, 32_769, 65_535, 65_536, 1_000_003] {
        let (low, high) = (vec![i8::MIN; n], vec![i8::MAX; n]);
        for k in levels() {
            let what = format!("i8 {} dim {n}", k.level.name());
            check_i8(&what, &k.i8, &low, &high);
            check_i8(&what, &k.i8, &high, &low);
            check_i8(&what, &k.i8, &low, &low);
        }
    }
}

#[test]
fn hamming_counts_every_bit_on_every_level() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for n in DIMS {
        let a: Vec<u8> = (0..n + 3).map(|_| rng.random()).collect();
        let b: Vec<u8> = (0..n + 3).map(|_| rng.random()).collect();
        let (i, j) = (rng.random_range(0..=3), rng.random_range(0..=3));
        for k in levels() {
            let (a, b) = (&a[i..i + n], &b[j..j + n]);
            let what = format!("{} bytes {n}", k.level.name());
            assert_eq!((k.hamming)(a, b), scalar::hamming(a, b), "{what}");
            let flipped: Vec<u8> = a.iter().map(|x| !x).collect();
            assert_eq!((k.hamming)(a, &flipped), 8 * n as u64, "{what}");
        }
    }
}

fn bits(scores: &[f64]) -> Vec<u64> {
    scores.iter().map(|s| s.to_bits()).collect()
}

fn check_rerank(what: &str, k: &Kernels, query: &[f32], rows: &[&[f32]]) {
    let want = |f: fn(&[f32], &[f32]) -> f64| -> Vec<f64> {
        rows.iter().map(|row| f(query, row)).collect()
    };
    let (mut scores, mut norms) = (vec![f64::NAN; rows.len()], vec![f64::NAN; rows.len()]);
    (k.rerank.dot)(query, rows, &mut scores);
    assert_eq!(bits(&scores), bits(&want(exact::dot)), "{what} dot");
    (k.rerank.squared_l2)(query, rows, &mut scores);
    assert_eq!(
        bits(&scores),
        bits(&want(exact::squared_l2)),
        "{what} squared_l2"
    );
    (k.rerank.l1)(query, rows, &mut scores);
    assert_eq!(bits(&scores), bits(&want(exact::l1)), "{what} l1");
    (k.rerank.dot_and_norm)(query, rows, &mut scores, &mut norms);
    assert_eq!(
        bits(&scores),
        bits(&want(exact::dot)),
        "{what} dot_and_norm"
    );
    assert_eq!(
        bits(&norms),
        bits(&want(|_, row| exact::dot(row, row))),
        "{what} norm"
    );
}

#[test]
fn rerank_has_the_bits_of_the_plain_loop_on_every_level() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for n in DIMS {
        for kind in 0..KINDS {
            let mut draw = |n| {
                (0..n)
                    .map(|_| component(kind, &mut rng))
                    .collect::<Vec<f32>>()
            };
            let query = draw(n + 1);
            let rows: Vec<Vec<f32>> = (0..8).map(|_| draw(n + 3)).collect();
            let rows: Vec<&[f32]> = rows
                .iter()
                .enumerate()
                .map(|(i, r)| &r[i % 4..][..n])
                .collect();
            for k in levels() {
                let what = format!("rerank {} dim {n} kind {kind}", k.level.name());
                check_rerank(&what, k, &query[1..], &rows);
            }
        }
    }
}

#[test]
fn rerank_takes_any_number_of_rows() {
    eprintln!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for n in [0, 1, 3, 4, 5, 100, 131] {
        for count in 0..=25 {
            let mut draw = || (0..n).map(|_| component(4, &mut rng)).collect::<Vec<f32>>();
            let query = draw();
            let rows: Vec<Vec<f32>> = (0..count).map(|_| draw()).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            for k in levels() {
                let what = format!("rerank {} dim {n} rows {count}", k.level.name());
                check_rerank(&what, k, &query, &rows);
            }
        }
    }
}
