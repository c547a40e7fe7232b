//! Which leaves are near a query, without a look at every leaf.
//!
//! Leaves come in the order in which a tree was cut, so sixteen in a row lie close together. Their mean stands for
//! them: where there are many leaves the means (one for each block of sixteen) are ranked first, and only the leaves
//! of the nearest blocks are ranked themselves. A search, its calibration and the build ask the same directory, so what
//! the first step overlooks is part of the recall that was measured.
//!
//! A build asks for the leaves around each leaf. It has a third step above these two ([`Directory::rank_near`]), or its time would
//! grow with the square of the rows where there are millions.
//!
//! Cost: a multiply-add of bytes for each dimension of a mean, and of each leaf in the blocks that are left.

use crate::kernel::codes::{self, Blocks, LANES};
use crate::kernel::{level, select};

/// Up to this many blocks all leaves are ranked.
const FEW: usize = 16;
/// A build ranks the means of this many times as many blocks as it wants, or of all if they are fewer.
const MANY: usize = 4;

/// The leaves of one tree and the means of their blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Directory<'a> {
    pub(crate) leaves: Blocks<'a>,
    /// One for each block of `leaves`, padded to whole blocks again.
    pub(crate) groups: Blocks<'a>,
}

/// Leaves that were ranked for one query: candidates, numbered in the order of the leaves.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    /// Blocks whose leaves are candidates, ascending.
    blocks: Vec<u32>,
    /// Blocks of means that were looked at, ascending.
    groups: Vec<u32>,
    scores: Vec<f32>,
    means: Vec<f32>,
    places: Vec<u32>,
    order: Vec<u64>,
}

impl Directory<'_> {
    /// Ranks leaves for the code of a row or query; `factor` is twice its scale.
    pub(crate) fn rank(&self, code: &[u8], factor: f32, out: &mut Ranking) {
        self.choose(code, factor, usize::MAX, out);
        self.rank_chosen(code, factor, out);
    }

    /// The same, with the leaves of about `most` blocks at most, for builds, which ask for each of their leaves. `over` has
    /// the mean of each block of means: where there are many of them too, only those of the nearest such blocks are ranked.
    pub(crate) fn rank_near(
        &self,
        over: &Blocks,
        code: &[u8],
        factor: f32,
        most: usize,
        out: &mut Ranking,
    ) {
        if self.leaves.leaves() / LANES <= MANY * most {
            self.choose(code, factor, most, out);
        } else {
            self.choose_near(over, code, factor, most, out);
        }
        self.rank_chosen(code, factor, out);
    }

    /// Nearly half of all blocks, or `most`.
    fn choose(&self, code: &[u8], factor: f32, most: usize, out: &mut Ranking) {
        let all = self.leaves.leaves() / LANES;
        out.blocks.clear();
        if all <= FEW {
            out.blocks.extend(0..all as u32);
            return;
        }
        let keep = (FEW / 2 + all * 45 / 100).min(most);
        out.means.resize(self.groups.leaves(), 0.0);
        codes::leaf_scores(level(), &self.groups, code, factor, &mut out.means);
        smallest(&out.means[..all], keep, &mut out.blocks);
    }

    /// `most` blocks out of the nearest [`MANY`] times as many.
    fn choose_near(&self, over: &Blocks, code: &[u8], factor: f32, most: usize, out: &mut Ranking) {
        let all = self.leaves.leaves() / LANES;
        out.means.resize(over.leaves(), 0.0);
        codes::leaf_scores(level(), over, code, factor, &mut out.means);
        let groups = self.groups.leaves() / LANES;
        smallest(&out.means[..groups], MANY * most / LANES, &mut out.groups);
        out.means.resize(out.groups.len() * LANES, 0.0);
        codes::block_scores(
            level(),
            &self.groups,
            &out.groups,
            code,
            factor,
            &mut out.means,
        );
        smallest(&out.means, most, &mut out.places);
        let (groups, lanes) = (&out.groups, LANES as u32);
        let block = |&mean: &u32| groups[(mean / lanes) as usize] * lanes + mean % lanes;
        out.blocks.clear();
        // Means that pad are infinitely far, and not among the blocks.
        let chosen = out.places.iter().map(block);
        out.blocks.extend(chosen.filter(|&b| (b as usize) < all));
    }

    fn rank_chosen(&self, code: &[u8], factor: f32, out: &mut Ranking) {
        out.scores.resize(out.blocks.len() * LANES, 0.0);
        codes::block_scores(
            level(),
            &self.leaves,
            &out.blocks,
            code,
            factor,
            &mut out.scores,
        );
    }
}

/// The places of the `least` smallest scores or somewhat more, ascending.
fn smallest(scores: &[f32], least: usize, out: &mut Vec<u32>) {
    let limit = select::limit_for(level(), scores, least, least + least / 8);
    out.clear();
    select::places(level(), scores, limit, 0, out);
}

impl Ranking {
    /// Leaves that were ranked, with those that pad.
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }

    /// The leaf that a candidate is.
    pub(crate) fn leaf(&self, candidate: u32) -> usize {
        self.blocks[candidate as usize / LANES] as usize * LANES + candidate as usize % LANES
    }

    /// The score of a candidate: its squared distance, less what all have in common.
    pub(crate) fn score(&self, candidate: u32) -> f32 {
        self.scores[candidate as usize]
    }

    /// The `least` nearest candidates (or somewhat more, or all), nearest first, the first of equals first.
    pub(crate) fn nearest(&mut self, least: usize, out: &mut Vec<u32>) {
        self.order = nearest(
            &self.scores,
            least,
            std::mem::take(&mut self.order),
            &mut self.places,
        );
        out.clear();
        out.extend(self.order.iter().map(|&key| key as u32));
    }
}

/// The `least` places with the smallest scores (or somewhat more, or all), nearest first, the first of equals first.
/// The low half of an entry is the place.
pub(crate) fn nearest(
    scores: &[f32],
    least: usize,
    mut order: Vec<u64>,
    places: &mut Vec<u32>,
) -> Vec<u64> {
    let limit = select::limit_for(level(), scores, least, least + least / 2 + 8);
    places.clear();
    select::places(level(), scores, limit, 0, places);
    order.clear();
    order.extend(
        places
            .iter()
            .map(|&j| u64::from(ordered(scores[j as usize])) << 32 | u64::from(j)),
    );
    order.sort_unstable();
    order
}

/// A score as an integer that orders the same way; NaN last.
fn ordered(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}
