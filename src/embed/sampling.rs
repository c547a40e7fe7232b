//! Which tokens are trained, and which words serve as noise.

use anyhow::{Result, bail};

use crate::embed::random::Random;
use crate::embed::vocab::WordId;

/// The probability with which a token of each word is trained, at most 1.
///
/// With T = `sample` * N for N tokens in all, a word that occurs c times stays with probability
/// min(1, (sqrt(c/T) + 1) * T/c): what word2vec.c and gensim compute, not the 1 - sqrt(T/c) printed in Mikolov et al.
/// 2013. From 1 up, `sample` is a count: words above it are thinned, and T = floor(sample * (3 + sqrt 5) / 2), where the
/// probability reaches 1. 0 keeps every token.
#[must_use]
pub fn keep_probabilities(counts: &[u64], sample: f64) -> Vec<f32> {
    let n_tokens: u64 = counts.iter().sum();
    let threshold = if sample == 0.0 {
        return vec![1.0; counts.len()];
    } else if sample < 1.0 {
        sample * n_tokens as f64
    } else {
        (sample * (3.0 + 5f64.sqrt()) / 2.0).floor()
    };
    let keep = |&c: &u64| ((c as f64 / threshold).sqrt() + 1.0) * threshold / c as f64;
    counts.iter().map(|c| keep(c).min(1.0) as f32).collect()
}

/// Draws words with probability proportional to count^ns_exponent, in constant time (Walker's alias method, 1977, built
/// as Vose did, 1991).
#[derive(Debug, Clone)]
pub struct Noise {
    cells: Vec<Cell>,
}

/// One of n equally likely cells: its own word below the threshold, another word from there on.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Of 2^32.
    threshold: u32,
    other: WordId,
}

impl Noise {
    /// The distribution over the words with these counts.
    ///
    /// # Errors
    /// When the exponent takes a count out of the range of numbers.
    pub fn new(counts: &[u64], ns_exponent: f64) -> Result<Noise> {
        // By the largest logarithm, so that no exponent that is allowed overflows.
        let logs: Vec<f64> = counts
            .iter()
            .map(|&c| (c.max(1) as f64).ln() * ns_exponent)
            .collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut share: Vec<f64> = logs.iter().map(|l| (l - largest).exp()).collect();
        let sum: f64 = share.iter().sum();
        if !sum.is_normal() {
            bail!(
                "ns_exponent {ns_exponent}: expected an exponent for which count^ns_exponent is a finite number"
            );
        }
        let n = share.len();
        share.iter_mut().for_each(|s| *s *= n as f64 / sum);

        let mut cells: Vec<Cell> = (0..n as u32)
            .map(|id| Cell {
                threshold: u32::MAX,
                other: id,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..n).partition(|&i| share[i] < 1.0);
        while let (Some(s), Some(&l)) = (small.pop(), large.last()) {
            cells[s] = Cell {
                threshold: (share[s] * (1u64 << 32) as f64) as u32,
                other: l as WordId,
            };
            share[l] -= 1.0 - share[s];
            if share[l] < 1.0 {
                large.pop();
                small.push(l);
            }
        }
        Ok(Noise { cells })
    }

    /// One word.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> WordId {
        // The high half chooses the cell, the low half decides within it.
        let bits = random.bits();
        let id = (((bits >> 32) * self.cells.len() as u64) >> 32) as u32;
        let cell = self.cells[id as usize];
        // By a mask: a branch would be guessed wrong half the time.
        let is_other = u32::from(bits as u32 >= cell.threshold).wrapping_neg();
        id ^ ((id ^ cell.other) & is_other)
    }
}

/// Noise words drawn beforehand, to be read over and over from places that the reader chooses at random: reading on in a
/// row takes a tenth of the time of drawing, which looks into a table of the whole vocabulary.
///
/// A tempting step further costs quality: noise from an eighth of the vocabulary for some 10,000 tokens at a time, whose
/// vectors stay in a core's cache, took analogies from .238 to .199.
#[derive(Debug, Clone)]
pub struct DrawnNoise {
    words: Vec<WordId>,
}

impl DrawnNoise {
    /// Most words that are drawn, 16 MB: the same neighbours are met again after millions of others.
    const MOST: u64 = 1 << 22;

    /// Draws as many words as are `wanted`, at most 4 million.
    #[must_use]
    pub fn new(noise: &Noise, wanted: u64, random: &mut Random) -> DrawnNoise {
        let n = wanted.clamp(1, Self::MOST);
        DrawnNoise {
            words: (0..n).map(|_| noise.draw(random)).collect(),
        }
    }

    /// Replaces `into` with the next n words from a place, any number, which moves on behind them.
    pub fn read(&self, place: &mut u64, n: usize, into: &mut Vec<WordId>) {
        into.clear();
        while into.len() < n {
            let first = (*place % self.words.len() as u64) as usize;
            let some = (n - into.len()).min(self.words.len() - first);
            into.extend_from_slice(&self.words[first..first + some]);
            *place = (first + some) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_probabilities_are_those_of_gensim() {
        // From gensim 4.4: int(wv.get_vecattr(w, "sample_int")) / 2**32 for counts 1000, 100, 10, 1.
        let counts = [1000, 100, 10, 1];
        for (sample, expected) in [
            (1e-3, [0.034_443, 0.116_515, 0.444_417, 1.0]),
            (0.1, [0.444_417, 1.0, 1.0, 1.0]),
            (0.0, [1.0, 1.0, 1.0, 1.0]),
            (50.0, [0.490_555, 1.0, 1.0, 1.0]),
        ] {
            let keep = keep_probabilities(&counts, sample);
            for (k, e) in keep.iter().zip(expected) {
                assert!(
                    (f64::from(*k) - e).abs() < 2e-6,
                    "sample {sample}: {keep:?}, expected {expected:?}"
                );
            }
        }
    }

    #[test]
    fn noise_follows_the_counts_to_the_power() {
        let counts: Vec<u64> = (1..=200).map(|i| 1 + 100_000 / (i * i)).collect();
        for ns_exponent in [0.75, 0.0, -0.5, 1.0] {
            let seed = 7;
            let mut random = Random::new(seed, [0, 0]);
            let noise = Noise::new(&counts, ns_exponent).unwrap();
            let n = 1_000_000;
            let mut drawn = vec![0u64; counts.len()];
            for _ in 0..n {
                drawn[noise.draw(&mut random) as usize] += 1;
            }
            let weights: Vec<f64> = counts
                .iter()
                .map(|&c| (c as f64).powf(ns_exponent))
                .collect();
            let sum: f64 = weights.iter().sum();
            let mut chi2 = 0.0;
            for (&d, w) in drawn.iter().zip(&weights) {
                let expected = f64::from(n) * w / sum;
                assert!(expected > 5.0, "too rare for the test: {expected}");
                chi2 += (d as f64 - expected).powi(2) / expected;
            }
            // 199 degrees of freedom: mean 199, standard deviation 20; five of them above.
            assert!(
                chi2 < 300.0,
                "ns_exponent {ns_exponent}, seed {seed}: chi-square {chi2}"
            );
        }
    }

    #[test]
    fn drawn_noise_is_read_in_a_row_and_from_the_start_again() {
        let noise = Noise::new(&[9, 3, 1], 1.0).unwrap();
        let drawn = DrawnNoise::new(&noise, 7, &mut Random::new(2, [0, 0]));
        assert_eq!(drawn.words.len(), 7);
        let (mut place, mut all, mut some) = (6 + 7, Vec::new(), Vec::new());
        for n in [0, 1, 20, 3] {
            drawn.read(&mut place, n, &mut some);
            assert_eq!(some.len(), n);
            all.append(&mut some);
        }
        for (i, word) in all.iter().enumerate() {
            assert_eq!(*word, drawn.words[(6 + i) % 7], "word {i}");
        }
        let mut random = Random::new(2, [0, 0]);
        assert!(drawn.words.iter().all(|&w| w == noise.draw(&mut random)));
    }

    #[test]
    fn noise_of_one_word_and_of_extreme_exponents_draws_words_that_exist() {
        for (counts, ns_exponent) in [
            (vec![3], 0.75),
            (vec![u64::MAX, 1], 10.0),
            (vec![u64::MAX, 1, 1], -10.0),
        ] {
            let noise = Noise::new(&counts, ns_exponent).unwrap();
            let mut random = Random::new(1, [0, 0]);
            for _ in 0..100 {
                assert!((noise.draw(&mut random) as usize) < counts.len());
            }
        }
    }
}
