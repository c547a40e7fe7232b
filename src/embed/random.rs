//! Random numbers that depend on nothing but a seed and a place: the same on every machine, and in every version of
//! this library, for a model must be repeatable. Hence no generator whose algorithm may change under us.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a counter
//! and a mixing function. It starts in no time, which one stream per chunk and one per word need.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

/// 2^64 divided by the golden ratio, made odd: the increment the paper proves good.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Random {
    /// The stream for this seed and these coordinates, e.g. epoch and chunk.
    #[must_use]
    pub fn new(seed: u64, place: [u64; 2]) -> Random {
        let state = place.iter().fold(mix(seed.wrapping_add(GOLDEN)), |s, &p| {
            mix(s.wrapping_add(GOLDEN) ^ mix(p.wrapping_add(GOLDEN)))
        });
        Random { state }
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Two times 32 random bits.
    #[inline]
    pub fn halves(&mut self) -> [u32; 2] {
        let bits = self.bits();
        [(bits >> 32) as u32, bits as u32]
    }

    /// An integer in `0..n`, n > 0. The bias, below n / 2^32, is far under what training could show.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.bits() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// A number in [0, 1), in steps of 2^-24.
    #[inline]
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 * (1.0 / (1u64 << 24) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_the_published_one() {
        // SplitMix64 from state 0, as in the reference implementation's documentation.
        let mut random = Random { state: 0 };
        assert_eq!(random.bits(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.bits(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn different_places_give_different_streams() {
        let mut first: Vec<u64> = Vec::new();
        for seed in 0..10 {
            for epoch in 0..10 {
                for chunk in 0..10 {
                    first.push(Random::new(seed, [epoch, chunk]).bits());
                }
            }
        }
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 1000);
    }

    #[test]
    fn numbers_are_uniform() {
        let mut random = Random::new(1, [2, 3]);
        let (n, cells) = (100_000, 10);
        let mut below = vec![0f64; cells];
        let mut unit = vec![0f64; cells];
        for _ in 0..n {
            below[random.below(cells as u32) as usize] += 1.0;
            unit[(random.unit() * cells as f32) as usize] += 1.0;
        }
        let expected = f64::from(n) / cells as f64;
        for counts in [below, unit] {
            let chi2: f64 = counts
                .iter()
                .map(|c| (c - expected).powi(2) / expected)
                .sum();
            // The 0.9999 quantile of chi-square with 9 degrees of freedom is 33.7.
            assert!(chi2 < 33.7, "{chi2} {counts:?}");
        }
    }
}
