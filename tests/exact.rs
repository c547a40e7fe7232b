//! Exact search against a plain loop, over sets made to break it: whatever is asked (k, a distance, threads, many queries
//! at once), rows and distances are those of the loop, bit for bit.
//!
//! `EXACT_QUERIES=100000 cargo test --release --test exact` is the long run; without the variable some hundred queries.

use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{
    Ask, BuildOptions, Bytes, Forest, Hit, Scratch, Stats, TopK, VectorStore, Vectors, build,
};
use sqlite_annoy::job::Job;
use sqlite_annoy::vector::{Metric, exact};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::Dot];

fn normal(rng: &mut StdRng, dim: usize) -> Vec<f32> {
    (0..dim)
        .map(|_| (0..12).map(|_| rng.random_range(-0.5f32..0.5)).sum())
        .collect()
}

/// A random turn: reflections in random directions (Householder), the same for all rows.
fn turn(rows: &mut [Vec<f32>], rng: &mut StdRng) {
    for _ in 0..3 {
        let dim = rows[0].len();
        let v = normal(rng, dim);
        let square = exact::dot(&v, &v).max(1e-9);
        for row in rows.iter_mut() {
            let by = 2.0 * exact::dot(row, &v) / square;
            for (x, v) in row.iter_mut().zip(&v) {
                *x = (f64::from(*x) - by * f64::from(*v)) as f32;
            }
        }
    }
}

/// A set of one of many kinds, and its name.
fn set(kind: usize, n: usize, dim: usize, rng: &mut StdRng) -> (&'static str, Vec<Vec<f32>>) {
    let base = normal(rng, dim);
    let centers: Vec<Vec<f32>> = (0..8).map(|_| normal(rng, dim)).collect();
    let name = [
        "noise",
        "all equal",
        "copies",
        "one ulp apart",
        "norms 1e+-30",
        "tiny",
        "denormal",
        "huge",
        "one huge dimension",
        "far away",
        "zeros among others",
        "clusters",
        "one direction",
        "small integers",
        "halves of the unit cube",
        "nearly collinear",
    ][kind % 16];
    let rows = (0..n)
        .map(|i| {
            let x = normal(rng, dim);
            let by = |f: f32| x.iter().map(|x| x * f).collect::<Vec<f32>>();
            match kind % 16 {
                0 => x,
                1 => base.clone(),
                2 => centers[i % 5].clone(),
                3 => base
                    .iter()
                    .map(|b| f32::from_bits(b.to_bits() + rng.random_range(0..3)))
                    .collect(),
                4 => by([1e30, 1.0, 1e-30][i % 3]),
                5 => by(1e-30),
                6 => by(1e-40),
                7 => by(1e30),
                8 => x
                    .iter()
                    .enumerate()
                    .map(|(k, x)| if k == 0 { x * 1e6 } else { *x })
                    .collect(),
                9 => x.iter().map(|x| x + 1e5).collect(),
                10 => by(if i % 4 == 0 { 0.0 } else { 1.0 }),
                11 => x
                    .iter()
                    .zip(&centers[i % 8])
                    .map(|(x, c)| c + 0.05 * x)
                    .collect(),
                12 => base.iter().map(|b| b * (1 + i % 7) as f32).collect(),
                13 => x.iter().map(|x| x.round()).collect(),
                14 => x
                    .iter()
                    .map(|x| if *x > 0.0 { 0.5 } else { -0.5 })
                    .collect(),
                _ => base
                    .iter()
                    .zip(&x)
                    .map(|(b, x)| b * i as f32 + 1e-6 * x)
                    .collect(),
            }
        })
        .collect();
    (name, rows)
}

fn plain(metric: Metric, rows: &[Vec<f32>], query: &[f32], k: usize, within: f64) -> Vec<Hit> {
    let mut best = TopK::within(k, within);
    for (i, row) in rows.iter().enumerate() {
        best.push(Hit {
            rowid: i as i64,
            distance: exact::distance(metric, query, row),
        });
    }
    best.into_sorted()
}

fn bits(hits: &[Hit]) -> Vec<(i64, u64)> {
    hits.iter()
        .map(|h| (h.rowid, h.distance.to_bits()))
        .collect()
}

#[test]
fn whatever_is_asked_the_answer_is_that_of_a_plain_loop_bit_for_bit() {
    let wanted: usize = std::env::var("EXACT_QUERIES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1500);
    let seed = 20_261_126;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut scratch, none) = (Scratch::default(), FxHashSet::default());
    let (mut asked, mut round) = (0, 0);
    let mut total = Stats::default();
    while asked < wanted {
        let dim = [1, 2, 3, 4, 7, 8, 16, 31, 50, 64, 100, 129][rng.random_range(0..12)];
        let n = rng.random_range(1..700);
        let (name, mut rows) = set(round, n, dim, &mut rng);
        if rng.random_range(0..2) == 0 && !matches!(round % 16, 4 | 6 | 7) {
            turn(&mut rows, &mut rng);
        }
        let metric = METRICS[rng.random_range(0..3)];
        let (ids, flat): (Vec<i64>, Vec<f32>) = ((0..n as i64).collect(), rows.concat());
        let vectors = Vectors {
            dim,
            ids: &ids,
            rows: &flat,
        };
        let options = BuildOptions {
            metric,
            trees: 1,
            seed: 1,
            threads: 1,
            store: VectorStore::F32,
        };
        let image = build(&vectors, &options, &Job::new()).expect(name);
        let forest: Forest<Bytes> = Forest::open(image.to_bytes()).expect(name);
        let queries: Vec<Vec<f32>> = (0..20)
            .map(|i| {
                let row = &rows[rng.random_range(0..n)];
                match i % 5 {
                    0 | 1 => row.clone(),
                    2 => row.iter().map(|x| x * 1.5 + 1e-3).collect(),
                    3 => row
                        .iter()
                        .map(|x| f32::from_bits(x.to_bits() ^ 1))
                        .collect(),
                    _ => normal(&mut rng, dim),
                }
            })
            .collect();
        let k = [1, 2, 10, 100, n + 1][rng.random_range(0..5)];
        let threads = rng.random_range(1..4);
        for query in &queries {
            // Sometimes within the distance of some row, exactly: a tie with the limit counts.
            let within = if rng.random_range(0..3) == 0 {
                exact::distance(metric, query, &rows[rng.random_range(0..n)])
            } else {
                f64::INFINITY
            };
            let ask = Ask {
                k: if within.is_finite() && rng.random_range(0..2) == 0 {
                    usize::MAX
                } else {
                    k
                },
                within,
                threads,
                hidden: &none,
                among: None,
                scan_lists: false,
                originals: None,
            };
            let got = forest.exact_with(query, &ask, &mut scratch, &mut total);
            let want = plain(metric, &rows, query, ask.k, within);
            assert_eq!(
                bits(&got),
                bits(&want),
                "{name}, {metric:?}, {n} x {dim}, {ask:?}, round {round}, seed {seed}"
            );
        }
        let some: Vec<&[f32]> = queries[..rng.random_range(1..=20)]
            .iter()
            .map(Vec::as_slice)
            .collect();
        let ask = Ask {
            k,
            within: f64::INFINITY,
            threads,
            hidden: &none,
            among: None,
            scan_lists: false,
            originals: None,
        };
        let got = forest.exact_many(&some, &ask, &mut total);
        for (query, got) in some.iter().zip(&got) {
            let want = plain(metric, &rows, query, k, f64::INFINITY);
            assert_eq!(
                bits(got),
                bits(&want),
                "{name}, {metric:?}, together, round {round}, seed {seed}"
            );
        }
        asked += queries.len() + some.len();
        round += 1;
    }
    eprintln!("{asked} queries, {total:?}, seed {seed}");
    // The bounds were at work.
    assert!(
        total.left_out_by_nibbles > 0
            && total.left_out_by_bytes > 0
            && total.left_out_by_radius > 0
    );
    assert_eq!(
        total.rows,
        total.left_out_by_radius
            + total.left_out_by_nibbles
            + total.left_out_by_bytes
            + total.reranked
    );
}
