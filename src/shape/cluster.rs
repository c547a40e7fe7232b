//! k-means: `k` centroids, each row with the nearest (Lloyd, "Least squares quantization in PCM", 1982).
//!
//! The start is k-means++ (Arthur and Vassilvitskii, 2007): each centroid a row, chosen with a probability that grows with
//! the square of its distance from those chosen before; on a sample of the rows when there are many. For cosine
//! the centroids have length 1 (spherical k-means: Dhillon and Modha, 2001). A centroid that lost all of its rows moves to
//! the row that is farthest from its own. It ends when no row changes its centroid, or after `rounds`.
//!
//! Cost of a round: `n k dim` products.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::job::Job;
use crate::kernel::kernels;
use crate::vector::{Metric, exact};

/// Rows that the start is chosen from, for each centroid.
const START_EACH: usize = 256;
/// Rows that a thread takes at a time.
const CHUNK: usize = 256;

/// How to cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Cosine or l2.
    pub metric: Metric,
    /// Of the start.
    pub seed: u64,
    /// At most so many.
    pub rounds: usize,
    /// Threads, at least 1. The result does not depend on it.
    pub threads: usize,
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// `[k, dim]`.
    pub centroids: Vec<f32>,
    /// The cluster of each row.
    pub of: Vec<u32>,
    /// Its distance to that centroid, as [`exact::distance`] has it.
    pub distances: Vec<f64>,
}

/// What the nearest centroid is found by: the least `square - 2 <x, c>`. For cosine the squares are all alike.
struct Nearest<'a> {
    centroids: &'a [f32],
    squares: &'a [f32],
    dim: usize,
}

impl Nearest<'_> {
    /// The nearest centroid of a row and its score; of equals the first.
    fn of(&self, row: &[f32]) -> (u32, f32) {
        let dot = kernels().f32.dot;
        let mut best = (0, f32::INFINITY);
        for (c, (centroid, square)) in self
            .centroids
            .chunks_exact(self.dim)
            .zip(self.squares)
            .enumerate()
        {
            let score = square - 2.0 * dot(row, centroid);
            if score < best.1 {
                best = (c as u32, score);
            }
        }
        best
    }
}

/// Clusters `rows`, `[n, dim]` of finite components, into at most `k` groups; fewer when there are fewer rows.
///
/// # Errors
/// [`crate::job::Interrupted`], or that no threads can be made.
pub fn cluster(
    rows: &[f32],
    dim: usize,
    k: usize,
    options: &ClusterOptions,
    job: &Job,
) -> Result<Clusters> {
    let n = rows.len() / dim.max(1);
    let k = k.min(n);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    let row = |i: usize| &rows[i * dim..][..dim];
    let mut centroids = pool.install(|| start(rows, dim, k, options, job))?;
    let mut of = vec![u32::MAX; n];
    job.phase("cluster", options.rounds as u64);
    for _ in 0..options.rounds {
        job.check()?;
        let squares = squares(&centroids, dim, options.metric);
        let nearest = Nearest {
            centroids: &centroids,
            squares: &squares,
            dim,
        };
        let now: Vec<u32> = pool.install(|| {
            rows.par_chunks(CHUNK * dim.max(1))
                .flat_map_iter(|rows| {
                    let stopped = job.is_stopped();
                    rows.chunks_exact(dim)
                        .map(|row| if stopped { 0 } else { nearest.of(row).0 })
                        .collect::<Vec<_>>()
                })
                .collect()
        });
        job.check()?;
        let still = now == of;
        of = now;
        if still {
            break;
        }
        centroids = means(rows, dim, k, &of, options.metric);
        job.advance(1);
    }
    let distances = of
        .iter()
        .enumerate()
        .map(|(i, &c)| {
            exact::distance(
                options.metric,
                row(i),
                &centroids[c as usize * dim..][..dim],
            )
        })
        .collect();
    Ok(Clusters {
        centroids,
        of,
        distances,
    })
}

fn squares(centroids: &[f32], dim: usize, metric: Metric) -> Vec<f32> {
    centroids
        .chunks_exact(dim)
        .map(|c| match metric {
            Metric::L2 => exact::dot(c, c) as f32,
            _ => 0.0,
        })
        .collect()
}

/// A vector of length 1, where there is a direction.
fn unit(v: &mut [f32]) {
    let norm = exact::dot(v, v).sqrt();
    if norm > 0.0 {
        v.iter_mut()
            .for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// k-means++ on a sample.
fn start(
    rows: &[f32],
    dim: usize,
    k: usize,
    options: &ClusterOptions,
    job: &Job,
) -> Result<Vec<f32>> {
    let n = rows.len() / dim.max(1);
    let mut rng = StdRng::seed_from_u64(options.seed);
    let mut chosen = sample(&mut rng, n, n.min(k.saturating_mul(START_EACH))).into_vec();
    chosen.sort_unstable();
    let points: Vec<f32> = chosen
        .iter()
        .flat_map(|&i| {
            let mut point = rows[i * dim..][..dim].to_vec();
            if options.metric != Metric::L2 {
                unit(&mut point);
            }
            point
        })
        .collect();
    let mut centroids: Vec<f32> = Vec::with_capacity(k * dim);
    let mut least = vec![f64::INFINITY; chosen.len()];
    while centroids.len() < k * dim {
        job.check()?;
        let total: f64 = least.iter().sum();
        let next = if total.is_finite() && total > 0.0 {
            let mut left = rng.random_range(0.0..total);
            least
                .iter()
                .position(|&d| {
                    left -= d;
                    left < 0.0
                })
                .unwrap_or(0)
        } else {
            // The first; or all that are left equal one that was chosen.
            rng.random_range(0..chosen.len())
        };
        let point = &points[next * dim..][..dim];
        centroids.extend_from_slice(point);
        let squared = kernels().f32.squared_l2;
        points
            .par_chunks(dim)
            .zip(&mut least)
            .with_min_len(CHUNK)
            .for_each(|(other, least)| *least = least.min(f64::from(squared(point, other))));
    }
    Ok(centroids)
}

/// The means of the clusters.
fn means(rows: &[f32], dim: usize, k: usize, of: &[u32], metric: Metric) -> Vec<f32> {
    let mut sums = vec![0.0f64; k * dim];
    let mut counts = vec![0u64; k];
    for (row, &c) in rows.chunks_exact(dim).zip(of) {
        let scale = match metric {
            Metric::L2 => 1.0,
            _ => match exact::dot(row, row).sqrt() {
                0.0 => 0.0,
                norm => 1.0 / norm,
            },
        };
        counts[c as usize] += 1;
        for (sum, &x) in sums[c as usize * dim..][..dim].iter_mut().zip(row) {
            *sum += f64::from(x) * scale;
        }
    }
    let mut centroids: Vec<f32> = sums
        .chunks_exact(dim)
        .zip(&counts)
        .flat_map(|(sum, &count)| sum.iter().map(move |s| (s / count.max(1) as f64) as f32))
        .collect();
    if metric != Metric::L2 {
        centroids.chunks_exact_mut(dim).for_each(unit);
    }
    let empty: Vec<usize> = (0..k).filter(|&c| counts[c] == 0).collect();
    if !empty.is_empty() {
        // Rows far from their own centroid found new clusters.
        let mut far: Vec<(f64, usize)> = rows
            .chunks_exact(dim)
            .zip(of)
            .enumerate()
            .map(|(i, (row, &c))| {
                let centroid = &centroids[c as usize * dim..][..dim];
                (exact::distance(metric, row, centroid), i)
            })
            .collect();
        far.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (c, (_, i)) in empty.into_iter().zip(far) {
            let centroid = &mut centroids[c * dim..][..dim];
            centroid.copy_from_slice(&rows[i * dim..][..dim]);
            if metric != Metric::L2 {
                unit(centroid);
            }
        }
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_groups_are_found_and_threads_do_not_matter() {
        let mut rng = StdRng::seed_from_u64(5);
        let (dim, groups, each) = (16, 9, 60);
        let rows: Vec<f32> = (0..groups * each)
            .flat_map(|i| {
                let group = i % groups;
                (0..dim)
                    .map(|d| if d == group { 10.0 } else { 0.0 } + rng.random_range(-1.0..1.0f32))
                    .collect::<Vec<_>>()
            })
            .collect();
        for metric in [Metric::L2, Metric::Cosine] {
            let run = |threads| {
                let options = ClusterOptions {
                    metric,
                    seed: 3,
                    rounds: 50,
                    threads,
                };
                cluster(&rows, dim, groups, &options, &Job::new()).unwrap()
            };
            let found = run(1);
            assert_eq!(found, run(3));
            for (i, &c) in found.of.iter().enumerate() {
                assert_eq!(c, found.of[i % groups], "{metric:?}, row {i}");
            }
            let mut distinct = found.of[..groups].to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), groups);
        }
    }

    #[test]
    fn equal_rows_and_few_rows_are_clustered_too() {
        let options = ClusterOptions {
            metric: Metric::Cosine,
            seed: 1,
            rounds: 10,
            threads: 2,
        };
        let job = Job::new();
        let equal = cluster(&[0.0; 30], 3, 4, &options, &job).unwrap();
        assert_eq!(equal.of.len(), 10);
        let few = cluster(&[1.0, 0.0, 0.0, 1.0], 2, 9, &options, &job).unwrap();
        assert_eq!(few.centroids.len(), 4);
        assert_ne!(few.of[0], few.of[1]);
        assert!(cluster(&[], 3, 4, &options, &job).unwrap().of.is_empty());
    }
}
