use super::super::bound::Slack;
use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn bound(reach: f32) -> Bound {
    Bound {
        slack: Slack::PROVEN,
        square: 1.0,
        twice_scale: 0.02,
        reach,
    }
}

#[test]
fn every_level_keeps_the_rows_that_one_by_one_are_kept() {
    let seed = 20_261_123;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for dim in (1..=40).chain([63, 64, 100, 257, 384]) {
        let n = 3 * ROWS;
        let points: Vec<Vec<f32>> = (0..n)
            .map(|_| (0..dim).map(|_| rng.random_range(-1.0f32..1.0)).collect())
            .collect();
        let mut codes = vec![vec![[0u8; 4]; groups(dim)]; n];
        let mut factors = vec![Factors::default(); n];
        for ((p, code), f) in points.iter().zip(&mut codes).zip(&mut factors) {
            let (made, rest) = encode(Level::Portable, p, code);
            *f = Factors {
                error: narrow_up(rest.sqrt() as f32),
                ..made
            };
            for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
                let mut again = code.clone();
                assert_eq!(encode(level, p, &mut again), (made, rest), "{level:?}");
                assert_eq!(&again, code, "{level:?}");
            }
        }
        factors[7].error = (f32::NAN.to_bits() >> 16) as u16;
        let size = block_bytes(dim);
        let mut blocks = vec![0u8; 3 * size];
        for (b, block) in blocks.chunks_exact_mut(size).enumerate() {
            pack(block, ROWS, |i| {
                (&codes[b * ROWS + i], factors[b * ROWS + i])
            });
        }
        let queries: Vec<NibbleQuery> = (0..TOGETHER)
            .map(|i| {
                let code: Vec<i8> = (0..dim).map(|_| rng.random_range(-127..=127)).collect();
                let reach = [0.0, 0.5, 1.0, 2.0, 3.0, f32::INFINITY][i % 6];
                NibbleQuery::new(dim, &code, bound(reach))
            })
            .collect();
        let want: Vec<Vec<u32>> = queries
            .iter()
            .map(|q| {
                (0..n)
                    .filter(|&i| {
                        let value = |k: usize| {
                            let byte = codes[i][k / 8][k % 4];
                            2 * i32::from(byte >> (k % 8 / 4 * 4) & 15) - 15
                        };
                        let dot = (0..dim).map(|k| i32::from(q.code[k]) * value(k)).sum();
                        let s = wide(factors[i].scale);
                        let unit = (1u32 << shift(dim)) as f32;
                        let norm = s * s * (f32::from(factors[i].squares) * unit);
                        let e = q.bound.excess(dot, s, norm, wide(factors[i].error));
                        e.is_nan() || e <= 0.0
                    })
                    .map(|i| 5 + i as u32)
                    .collect()
            })
            .collect();
        for level in Level::ALL.into_iter().filter(|l| l.is_available()) {
            for many in 1..=TOGETHER {
                let mut got = vec![Vec::new(); many];
                let some: Vec<&NibbleQuery> = queries[..many].iter().collect();
                let mut out: Vec<&mut Vec<u32>> = got.iter_mut().collect();
                scan(level, dim, &blocks, 5, &some, &mut out);
                assert_eq!(got, want[..many], "{level:?} {dim} {many}");
            }
        }
    }
}

#[test]
fn a_code_is_as_near_as_its_error_says_and_no_longer_than_its_squares() {
    let seed = 20_261_124;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for round in 0..2000 {
        let dim = rng.random_range(1..300);
        let size = 10f32.powi(rng.random_range(-28..14));
        let mut p: Vec<f32> = (0..dim)
            .map(|_| rng.random_range(-1.0f32..1.0) * size)
            .collect();
        if round % 3 == 0 {
            p[0] *= 50.0;
        }
        let mut code = vec![[0u8; 4]; groups(dim)];
        let (f, rest) = encode(Level::Portable, &p, &mut code);
        let s = f64::from(wide(f.scale));
        let value = |k: usize| {
            let byte = code[k / 8][k % 4];
            f64::from(2 * i32::from(byte >> (k % 8 / 4 * 4) & 15) - 15)
        };
        let true_rest: f64 = (0..dim)
            .map(|k| (f64::from(p[k]) - s * value(k)).powi(2))
            .sum();
        let squares: f64 = (0..dim).map(|k| value(k) * value(k)).sum();
        let stored = f64::from(f.squares) * f64::from(1u32 << shift(dim));
        assert!((true_rest - rest).abs() <= 1e-9 * true_rest, "{dim}");
        assert!(stored <= squares && stored > squares - f64::from(1u32 << shift(dim)));
        let norm: f64 = p.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        // A point whose squares f32 can hold, spread over its dimensions.
        let spread = round % 3 > 0 && size > 1e-15;
        assert!(!spread || rest <= 0.03 * norm, "{dim}: {rest} of {norm}");
    }
}

#[test]
fn rounding_up_never_rounds_down() {
    for x in [
        0.0f32,
        1e-45,
        1e-39,
        1.0,
        1.0 + f32::EPSILON,
        3.3,
        1e30,
        f32::INFINITY,
    ] {
        let up = wide(narrow_up(x));
        assert!(up >= x && (up <= x * 1.01 || x < 1e-37), "{x} {up}");
    }
}
