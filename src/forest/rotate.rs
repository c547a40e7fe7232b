//! A seeded orthonormal turn of space that costs d log d.
//!
//! Byte codes give every dimension the same grid, so a vector with one large component would lose the small ones.
//! After a random turn all components have the same spread. One round flips signs and applies a Walsh-Hadamard
//! transform to the first 2^m components and then to the last 2^m (2^m <= d < 2^(m+1)); the two overlap, so two
//! rounds mix everything with everything, for any d and without padding.
//!
//! All arithmetic is f32 additions and multiplications in a fixed order, the same on every machine. Each step is
//! orthonormal up to rounding, so the norm of the error is at most (number of steps) * 2^-24 of the vector's norm.

use super::random::Random;

const ROUNDS: usize = 2;

/// The turn for one dimension and seed.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    dim: usize,
    /// 1 or -1, `ROUNDS * dim`.
    signs: Vec<f32>,
}

impl Rotation {
    pub(crate) fn new(dim: usize, seed: u64) -> Self {
        let mut random = Random::new(seed, 0x0074_7572_6e00);
        let signs = (0..ROUNDS * dim)
            .map(|_| if random.next() >> 63 == 0 { 1.0 } else { -1.0 })
            .collect();
        Rotation { dim, signs }
    }

    /// Turns `v` in place.
    #[inline(always)]
    pub(crate) fn apply(&self, v: &mut [f32]) {
        debug_assert_eq!(v.len(), self.dim);
        if self.dim < 2 {
            return;
        }
        let block = 1usize << self.dim.ilog2();
        for signs in self.signs.chunks_exact(self.dim) {
            for (x, s) in v.iter_mut().zip(signs) {
                *x *= s;
            }
            hadamard(&mut v[..block]);
            if block < self.dim {
                hadamard(&mut v[self.dim - block..]);
            }
        }
    }
}

#[cfg(test)]
impl Rotation {
    /// The true turn, as near as f64 comes to it.
    pub(crate) fn apply_in_f64(&self, v: &mut [f64]) {
        if self.dim < 2 {
            return;
        }
        let block = 1usize << self.dim.ilog2();
        let hadamard = |v: &mut [f64]| {
            let mut h = 1;
            while h < v.len() {
                for two in v.chunks_exact_mut(2 * h) {
                    let (a, b) = two.split_at_mut(h);
                    for (a, b) in a.iter_mut().zip(b) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                h *= 2;
            }
            let scale = (v.len() as f64).sqrt();
            v.iter_mut().for_each(|x| *x /= scale);
        };
        for signs in self.signs.chunks_exact(self.dim) {
            for (x, s) in v.iter_mut().zip(signs) {
                *x *= f64::from(*s);
            }
            hadamard(&mut v[..block]);
            if block < self.dim {
                hadamard(&mut v[self.dim - block..]);
            }
        }
    }
}

/// Elements that are transformed side by side in one register.
const WIDE: usize = 16;

/// Walsh-Hadamard transform, scaled to keep the norm. The length is a power of two.
#[inline(always)]
fn hadamard(v: &mut [f32]) {
    let n = v.len();
    let mut h = 1;
    if n >= WIDE {
        let (blocks, _) = v.as_chunks_mut::<WIDE>();
        for block in blocks {
            *block = stage::<8>(stage::<4>(stage::<2>(stage::<1>(*block))));
        }
        h = WIDE;
    }
    // Two levels a sweep while they last, then one: fewer passes over memory.
    while h * 4 <= n {
        for four in v.chunks_exact_mut(4 * h) {
            let (ab, cd) = four.split_at_mut(2 * h);
            let (a, b) = ab.split_at_mut(h);
            let (c, d) = cd.split_at_mut(h);
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (s, t, u, w) = (*a + *b, *a - *b, *c + *d, *c - *d);
                (*a, *b, *c, *d) = (s + u, t + w, s - u, t - w);
            }
        }
        h *= 4;
    }
    if h < n {
        let (a, b) = v.split_at_mut(h);
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }
    let scale = (1.0 / (n as f64).sqrt()) as f32;
    for x in v {
        *x *= scale;
    }
}

/// One level between elements `H` apart.
#[inline(always)]
fn stage<const H: usize>(v: [f32; WIDE]) -> [f32; WIDE] {
    let other: [f32; WIDE] = std::array::from_fn(|i| v[i ^ H]);
    let sign: [f32; WIDE] = std::array::from_fn(|i| if i & H == 0 { 1.0 } else { -1.0 });
    std::array::from_fn(|i| other[i] + sign[i] * v[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_lengths_and_angles() {
        for dim in [1, 2, 3, 4, 5, 7, 8, 50, 100, 101, 128, 784] {
            let r = Rotation::new(dim, 7);
            let mut random = Random::new(dim as u64, 1);
            let mut a: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            let mut b: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            let dot = |a: &[f32], b: &[f32]| crate::vector::exact::dot(a, b);
            let before = (dot(&a, &a), dot(&a, &b));
            r.apply(&mut a);
            r.apply(&mut b);
            let tolerance = 1e-5 * before.0.max(dot(&b, &b));
            assert!((dot(&a, &a) - before.0).abs() < tolerance, "dim {dim}");
            assert!((dot(&a, &b) - before.1).abs() < tolerance, "dim {dim}");
        }
    }

    #[test]
    fn one_large_component_is_spread_over_all() {
        for dim in [64, 100, 384] {
            let mut v = vec![0.0f32; dim];
            v[dim / 2] = 1.0;
            Rotation::new(dim, 3).apply(&mut v);
            let largest = v.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!(largest < 0.6, "dim {dim}: {largest}");
        }
    }
}
