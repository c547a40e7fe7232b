//! The law of the bound: at the limit of its own exact distance no row may be left out, by either code. And each term of
//! the bound is needed: without it, rows are lost.

use super::super::space::{Role, Space};
use super::super::{BuildOptions, Bytes, VectorStore, Vectors, build};
use super::*;
use crate::job::Job;
use crate::kernel::bound::{Bound, Slack};
use crate::kernel::nibble::{groups, shift, wide};
use crate::vector::{Metric, exact};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SEED: u64 = 20_261_125;
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

/// A bound with some of its terms left out.
#[derive(Debug, Clone, Copy)]
struct Terms {
    slack: Slack,
    /// What F is multiplied with.
    query: f32,
    /// What the rounding of exact distances is multiplied with.
    rounding: f64,
}

const WHOLE: Terms = Terms {
    slack: Slack::PROVEN,
    query: 1.0,
    rounding: 1.0,
};

fn normal(rng: &mut StdRng, dim: usize) -> Vec<f32> {
    (0..dim)
        .map(|_| (0..12).map(|_| rng.random_range(-0.5f32..0.5)).sum())
        .collect()
}

/// Rows that try the bound, of one kind.
fn rows(kind: usize, dim: usize, rng: &mut StdRng) -> Vec<Vec<f32>> {
    let base = normal(rng, dim);
    let n = 24;
    (0..n)
        .map(|i| {
            let x = normal(rng, dim);
            let by = |f: f32| x.iter().map(|x| x * f).collect::<Vec<f32>>();
            match kind {
                0 => x,
                // Copies and opposites: on the grid wherever there are few dimensions.
                1 => base
                    .iter()
                    .map(|b| if i % 2 == 0 { *b } else { -b })
                    .collect(),
                2 => {
                    let ulp = |b: &f32| f32::from_bits(b.to_bits() + i as u32 % 3);
                    base.iter().map(ulp).collect()
                }
                3 => by([1e30, 1.0, 1e-30][i % 3]),
                4 => by(1e-40),
                5 => by(if i % 3 == 0 { 0.0 } else { 1.0 }),
                6 => x
                    .iter()
                    .enumerate()
                    .map(|(k, x)| if k == 0 { x * 1e6 } else { *x })
                    .collect(),
                7 => x.iter().map(|x| x + 1e5).collect(),
                // The same direction in many lengths: cosine distances are rounding alone.
                8 => base.iter().map(|b| b * (1.0 + i as f32)).collect(),
                // Two far away, the others so near the mean that squares underflow.
                9 => match i {
                    0 => vec![1.0; dim],
                    1 => vec![-1.0; dim],
                    _ => base
                        .iter()
                        .map(|b| b.signum() * if i % 2 == 0 { 1e-22 } else { -1e-22 })
                        .collect(),
                },
                // Powers of two along the axes: few dimensions, exact codes.
                _ => (0..dim)
                    .map(|k| {
                        if k == i % dim {
                            2f32.powi(i as i32 % 5 - 2)
                        } else {
                            0.0
                        }
                    })
                    .collect(),
            }
        })
        .collect()
}

const KINDS: usize = 11;

/// How many rows a bound with these terms loses, by byte code and by four-bit code, over all kinds of sets.
fn lost(terms: Terms) -> [u64; 2] {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut lost = [0; 2];
    for dim in [1, 2, 3, 4, 8, 16, 33] {
        for kind in 0..KINDS {
            let rows = rows(kind, dim, &mut rng);
            let flat: Vec<f32> = rows.concat();
            let ids: Vec<i64> = (0..rows.len() as i64).collect();
            for metric in METRICS {
                let vectors = Vectors {
                    dim,
                    ids: &ids,
                    rows: &flat,
                };
                let options = BuildOptions {
                    metric,
                    trees: 1,
                    seed: 7,
                    threads: 1,
                    store: VectorStore::F32,
                };
                let Ok(image) = build(&vectors, &options, &Job::new()) else {
                    panic!("{metric:?} kind {kind} dim {dim} is refused");
                };
                let forest = Forest::open(image.to_bytes()).expect("a file just built");
                let mut queries = rows.clone();
                queries.push(normal(&mut rng, dim));
                for query in &queries {
                    let [bytes, nibbles] = lost_by(&forest, &rows, query, terms);
                    lost[0] += bytes;
                    lost[1] += nibbles;
                }
            }
        }
    }
    lost
}

fn lost_by(forest: &Forest<Bytes>, rows: &[Vec<f32>], query: &[f32], terms: Terms) -> [u64; 2] {
    let mut space = forest.space.clone();
    space.rounding = terms.rounding;
    let stride = space.stride();
    let (mut point, mut code, mut g) = (Vec::new(), vec![0u8; stride], vec![0u8; stride]);
    let norm = Space::query_norm(query);
    let Some(f) = space.encode(query, Role::Query, &mut point, &mut g) else {
        return [0; 2];
    };
    if space.metric != Metric::L2 && norm == 0.0 {
        return [0; 2];
    }
    let work = space.work();
    let mut nibbles = vec![[0u8; 4]; groups(work)];
    let mut lost = [0; 2];
    for row in rows {
        let tau = exact::distance(space.metric, query, row);
        let bound = Bound {
            slack: terms.slack,
            square: f.norm,
            twice_scale: 2.0 * f.scale,
            reach: space.reach(tau, norm) + terms.query * f.error,
        };
        let Some(x) = space.encode(row, Role::Item, &mut point, &mut code) else {
            panic!("a row of the index has no code");
        };
        let signed = |k: usize| i32::from(g[k]) - 128;
        let dot = (0..stride)
            .map(|k| signed(k) * (i32::from(code[k]) - 128))
            .sum();
        lost[0] += u64::from(bound.excess(dot, x.scale, x.norm, x.error) > 0.0);
        let y = space.encode_nibbles(&point, &mut nibbles);
        let value = |k: usize| 2 * i32::from(nibbles[k / 8][k % 4] >> (k % 8 / 4 * 4) & 15) - 15;
        let dot = (0..work).map(|k| signed(k) * value(k)).sum();
        let s = wide(y.scale);
        let squares = f32::from(y.squares) * (1u32 << shift(work)) as f32;
        let excess = bound.excess(dot, s, s * s * squares, wide(y.error));
        lost[1] += u64::from(excess > 0.0);
    }
    lost
}

#[test]
fn no_row_is_left_out_at_the_limit_of_its_own_distance() {
    assert_eq!(lost(WHOLE), [0, 0], "seed {SEED}");
}

#[test]
fn without_any_one_term_of_the_bound_rows_are_lost() {
    let slack = Slack::PROVEN;
    let without = [
        (
            "E",
            Terms {
                slack: Slack {
                    error: 0.0,
                    ..slack
                },
                ..WHOLE
            },
        ),
        (
            "F",
            Terms {
                query: 0.0,
                ..WHOLE
            },
        ),
        (
            "the roundings of the bound",
            Terms {
                slack: Slack {
                    squares: 0.0,
                    ..slack
                },
                ..WHOLE
            },
        ),
        (
            "underflow",
            Terms {
                slack: Slack { tiny: 0.0, ..slack },
                ..WHOLE
            },
        ),
        (
            "the roundings of distances",
            Terms {
                rounding: 0.0,
                ..WHOLE
            },
        ),
    ];
    for (term, terms) in without {
        let [bytes, nibbles] = lost(terms);
        eprintln!("without {term}: {bytes} rows lost by byte codes, {nibbles} by four-bit codes");
        assert!(
            bytes + nibbles > 0,
            "{term} is not needed, or not tested; seed {SEED}"
        );
    }
}

/// How many codes of points are farther from the true point, turned by the true turn, than their error says, when the
/// allowance for floats is multiplied with `float`.
fn farther_than_said(float: f64) -> u64 {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut farther = 0;
    for dim in [1, 2, 3, 4, 8, 16, 33, 64, 100] {
        for kind in (0..KINDS).filter(|kind| *kind != 3) {
            let rows = rows(kind, dim, &mut rng);
            let largest = rows
                .iter()
                .map(|r| exact::dot(r, r))
                .fold(0.0, f64::max)
                .sqrt();
            let mean = rows[0]
                .iter()
                .map(|x| (f64::from(*x) / (3.0 * largest.max(1e-40))) as f32);
            let mut space = Space::new(Metric::L2, dim, largest, mean.collect(), 7);
            space.float = float;
            for row in &rows {
                let (mut point, mut code) = (Vec::new(), vec![0u8; space.stride()]);
                let Some(f) = space.encode(row, Role::Item, &mut point, &mut code) else {
                    panic!("a row of norm 1 has no code");
                };
                let mut nibbles = vec![[0u8; 4]; groups(dim)];
                let y = space.encode_nibbles(&point, &mut nibbles);
                let value =
                    |k: usize| 2 * i32::from(nibbles[k / 8][k % 4] >> (k % 8 / 4 * 4) & 15) - 15;
                let mut truth: Vec<f64> = row
                    .iter()
                    .zip(&space.mean)
                    .map(|(x, m)| f64::from(*x) * space.unit - f64::from(*m))
                    .collect();
                space.rotation.apply_in_f64(&mut truth);
                let distance = |s: f32, c: &dyn Fn(usize) -> i32| {
                    let square =
                        |(k, p): (usize, &f64)| (p - f64::from(s) * f64::from(c(k))).powi(2);
                    truth.iter().enumerate().map(square).sum::<f64>().sqrt()
                };
                let bytes = distance(f.scale, &|k| i32::from(code[k]) - 128);
                farther += u64::from(bytes > f64::from(f.error));
                farther += u64::from(distance(wide(y.scale), &value) > f64::from(wide(y.error)));
            }
        }
    }
    farther
}

#[test]
fn a_code_is_no_farther_from_its_true_point_than_its_error_says_and_floats_need_their_part() {
    assert_eq!(farther_than_said(1.0), 0, "seed {SEED}");
    assert!(farther_than_said(0.0) > 0, "seed {SEED}");
}
