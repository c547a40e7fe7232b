//! Principal components: the two directions in which vectors differ most, and where each vector lies along them.
//!
//! Orthogonal iteration with the covariance (Golub and Van Loan, "Matrix Computations", section 8.2.4), which is never
//! formed: each pass adds up `(x - m) <x - m, b>` over the rows for a few more directions than are wanted, which settles the
//! first two sooner (Halko, Martinsson and Tropp, 2011). Cost: [`PASSES`] times `2 n dim` [`DIRECTIONS`] products.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::job::Job;

/// Directions that are followed, of which two are kept.
const DIRECTIONS: usize = 6;
/// Passes over the rows. With six directions the first two have settled unless the third explains as much as they do.
const PASSES: usize = 12;
/// Rows that a thread adds up at a time; the sums of the pieces are added in order.
const PIECE: usize = 4096;

/// Where each of `rows`, `[n, dim]` of finite components, lies along the first two principal components, and what part of
/// the variance these explain. The sign of a direction is that of its largest component: plus. Fewer than two
/// directions with any variance give zeros.
///
/// # Errors
/// [`crate::job::Interrupted`], or that no threads can be made.
pub fn project(
    rows: &[f32],
    dim: usize,
    seed: u64,
    threads: usize,
    job: &Job,
) -> Result<(Vec<[f64; 2]>, [f64; 2])> {
    let n = rows.len() / dim.max(1);
    if n == 0 {
        return Ok((Vec::new(), [0.0; 2]));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    let mut mean = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, &x)| *m += f64::from(x));
    }
    mean.iter_mut().for_each(|m| *m /= n as f64);
    let variance: f64 = rows
        .chunks_exact(dim)
        .map(|row| centred(row, &mean).map(|x| x * x).sum::<f64>())
        .sum();

    let mut rng = StdRng::seed_from_u64(seed);
    let count = DIRECTIONS.min(dim);
    let mut basis: Vec<Vec<f64>> = (0..count)
        .map(|_| (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect())
        .collect();
    orthonormalise(&mut basis);
    job.phase("project", PASSES as u64);
    for _ in 0..PASSES {
        job.check()?;
        let sums: Vec<Vec<f64>> = pool.install(|| {
            rows.par_chunks(PIECE * dim)
                .map(|rows| {
                    let mut sums = vec![0.0; count * dim];
                    for row in rows.chunks_exact(dim) {
                        for (b, sum) in basis.iter().zip(sums.chunks_exact_mut(dim)) {
                            let along = dot(centred(row, &mean), b);
                            sum.iter_mut()
                                .zip(centred(row, &mean))
                                .for_each(|(s, x)| *s += along * x);
                        }
                    }
                    sums
                })
                .collect()
        });
        let mut next = vec![0.0; count * dim];
        for sum in sums {
            next.iter_mut().zip(sum).for_each(|(a, b)| *a += b);
        }
        basis = next.chunks_exact(dim).map(<[f64]>::to_vec).collect();
        orthonormalise(&mut basis);
        job.advance(1);
    }
    for b in &mut basis {
        let largest = b.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
        if largest.is_some_and(|x| x < 0.0) {
            b.iter_mut().for_each(|x| *x = -*x);
        }
    }
    let mut explained = [0.0; 2];
    let places = rows
        .chunks_exact(dim)
        .map(|row| {
            let mut place = [0.0; 2];
            for ((x, b), sum) in place.iter_mut().zip(&basis).zip(&mut explained) {
                *x = dot(centred(row, &mean), b);
                *sum += *x * *x;
            }
            place
        })
        .collect();
    if variance > 0.0 {
        explained.iter_mut().for_each(|e| *e /= variance);
    }
    Ok((places, explained))
}

fn centred<'a>(row: &'a [f32], mean: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    row.iter().zip(mean).map(|(&x, m)| f64::from(x) - m)
}

fn dot(a: impl Iterator<Item = f64>, b: &[f64]) -> f64 {
    a.zip(b).map(|(x, y)| x * y).sum()
}

/// Gram and Schmidt, twice for the sake of rounding. A direction that lies among those before becomes zero.
fn orthonormalise(basis: &mut [Vec<f64>]) {
    for i in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(i);
        let b = &mut rest[0];
        let length = dot(b.iter().copied(), b).sqrt();
        for _ in 0..2 {
            for other in &*before {
                let along = dot(b.iter().copied(), other);
                b.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let left = dot(b.iter().copied(), b).sqrt();
        let scale = if left > 1e-12 * length && left > 0.0 {
            1.0 / left
        } else {
            0.0
        };
        b.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_set_is_laid_out_as_it_is() {
        // Points of a plane in ten dimensions, wider one way than the other.
        let mut rng = StdRng::seed_from_u64(2);
        let dim = 10;
        let u: Vec<f64> = (0..dim)
            .map(|d| if d % 2 == 0 { 1.0 } else { -1.0 } / (dim as f64).sqrt())
            .collect();
        let w: Vec<f64> = (0..dim).map(|_| 1.0 / (dim as f64).sqrt()).collect();
        let plane: Vec<[f64; 2]> = (0..500)
            .map(|_| [rng.random_range(-5.0..5.0), rng.random_range(-1.0..1.0)])
            .collect();
        let rows: Vec<f32> = plane
            .iter()
            .flat_map(|p| {
                (0..dim)
                    .map(|d| (p[0] * u[d] + p[1] * w[d] + 3.0) as f32)
                    .collect::<Vec<_>>()
            })
            .collect();
        let (places, explained) = project(&rows, dim, 1, 2, &Job::new()).unwrap();
        assert!(explained[0] > 0.9 && explained[0] + explained[1] > 0.999_99);
        for (i, j) in [(0, 1), (7, 300), (42, 499)] {
            let far = |p: &[[f64; 2]]| (p[i][0] - p[j][0]).hypot(p[i][1] - p[j][1]);
            assert!((far(&places) - far(&plane)).abs() < 1e-4);
        }
        assert_eq!(project(&rows, dim, 1, 1, &Job::new()).unwrap().0, places);
    }

    #[test]
    fn a_set_without_an_extent_lies_in_one_place() {
        for (rows, dim) in [
            (vec![2.0f32; 30], 3),
            (vec![1.0, 2.0, 3.0], 1),
            (vec![5.0], 1),
        ] {
            let (places, explained) = project(&rows, dim, 1, 1, &Job::new()).unwrap();
            assert_eq!(places.len(), rows.len() / dim);
            assert!(places.iter().flatten().all(|x| x.is_finite()));
            assert!(explained.iter().all(|e| (0.0..=1.000_001).contains(e)));
        }
        assert!(project(&[], 3, 1, 1, &Job::new()).unwrap().0.is_empty());
    }
}
