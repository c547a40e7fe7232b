//! The rows of a build as codes, and where each of them lies.
//!
//! In memory the code of a row lies at the number of the row, whatever is done with it. In files ([`crate::spill`]) a build that
//! looked for the rows of a leaf all over them would wait for the disk at each row. So the rows lie in *spans*: each span has
//! the rows of some leaves that come one after the other, in order of row number, and is small enough to be in memory
//! as a whole. Work that goes from leaf to leaf goes from span to span ([`Rows::spans`]), and reads the files once, in order.
//! When rows have changed their leaves, [`Shelf::arrange`] copies them to new places: a pass over all rows in order of
//! row number, which reads each span in order and writes each new span in order.
//!
//! Nothing that is computed depends on where a row lies: sums go by the row numbers.

use std::ops::Range;

use anyhow::Result;
use bytemuck::Pod;

use super::partition::Rows;
use super::space::{Factors, Space};
use crate::job::Job;
use crate::spill::{Array, Spill, WRITTEN};

/// Spans at most: an arrangement writes to all of them at the same time.
const MOST_SPANS: usize = 1024;

/// Codes by place.
pub(super) struct Shelf<'a, 'c> {
    pub(super) space: &'a Space,
    pub(super) spill: &'a Spill,
    pub(super) codes: Array<'c, u8>,
    pub(super) factors: Array<'c, Factors>,
    /// `[n, dim]`, by row number.
    pub(super) vectors: &'a [f32],
    /// Place by row number; empty: the row number.
    pub(super) place: Vec<u32>,
    /// The ends of spans, in places and in positions alike: 0 comes first, n last.
    pub(super) bounds: Vec<u32>,
}

impl<'a> Shelf<'a, '_> {
    /// The rows, as all the work takes them.
    pub(super) fn rows(&self) -> Rows<'_> {
        Rows {
            space: self.space,
            stride: self.space.stride(),
            codes: &self.codes,
            factors: &self.factors,
            vectors: self.vectors,
            place: &self.place,
            shelf: self,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.factors.len()
    }

    /// Whether rows lie where they do for good: in memory.
    pub(super) fn is_fixed(&self) -> bool {
        self.spill.limit().is_none()
    }

    /// The same rows for somebody who may arrange them for himself.
    pub(super) fn lend(&self) -> Shelf<'a, '_> {
        Shelf {
            space: self.space,
            spill: self.spill,
            codes: Array::Borrowed(&self.codes),
            factors: Array::Borrowed(&self.factors),
            vectors: self.vectors,
            place: self.place.clone(),
            bounds: self.bounds.clone(),
        }
    }

    /// Rows of a span, at most (one leaf may have more).
    pub(super) fn span(&self) -> usize {
        let Some(limit) = self.spill.limit() else {
            return self.len().max(1);
        };
        // Several threads are in several spans, and what they hold themselves has its share.
        let rows = limit / 16 / self.space.record();
        rows.max(self.len() / MOST_SPANS).max(1)
    }

    /// Brings the rows into the order of these leaves: leaf `j` has `order[starts[j]..starts[j + 1]]`.
    pub(super) fn arrange(&mut self, order: &[u32], starts: &[u32], job: &Job) -> Result<()> {
        if self.is_fixed() {
            return Ok(());
        }
        let bounds = bounds(starts, self.span());
        let to = places(order, &bounds);
        (self.codes, self.factors) = self.moved(&to, job)?;
        (self.place, self.bounds) = (to, bounds);
        Ok(())
    }

    /// A copy of the rows in another order, its spans ending at these positions; no copy where rows are fixed.
    pub(super) fn arranged(
        &self,
        order: &[u32],
        bounds: Vec<u32>,
        job: &Job,
    ) -> Result<Shelf<'a, '_>> {
        let mut copy = self.lend();
        if !self.is_fixed() {
            copy.place = places(order, &bounds);
            (copy.codes, copy.factors) = self.moved(&copy.place, job)?;
            copy.bounds = bounds;
        }
        Ok(copy)
    }

    /// Codes and factors at other places.
    fn moved(
        &self,
        to: &[u32],
        job: &Job,
    ) -> Result<(Array<'static, u8>, Array<'static, Factors>)> {
        let (stride, from) = (self.space.stride(), &self.place);
        Ok((
            moved(&self.codes, stride, from, to, self.spill, job)?,
            moved(&self.factors, 1, from, to, self.spill, job)?,
        ))
    }

    /// The leaves of each span, given the first position of every leaf. Leaves without rows at the end belong to the last.
    pub(super) fn leaves_of_spans<'s>(
        &'s self,
        starts: &'s [u32],
    ) -> impl Iterator<Item = Range<usize>> + 's {
        let (leaves, many) = (starts.len() - 1, self.bounds.len() - 1);
        let first = |bound: u32| starts.partition_point(|&start| start < bound);
        (0..many).map(move |span| {
            let end = if span + 1 == many {
                leaves
            } else {
                first(self.bounds[span + 1])
            };
            first(self.bounds[span])..end
        })
    }

    /// Has these rows read, which are about to be used in any order.
    pub(super) fn bring_rows(&self, rows: Range<usize>) {
        let stride = self.space.stride();
        if self.place.is_empty() {
            self.factors.bring(rows.clone());
            self.codes.bring(rows.start * stride..rows.end * stride);
        } else {
            let mut places = self.place[rows].to_vec();
            places.sort_unstable();
            self.factors.bring_rows(&places, 1);
            self.codes.bring_rows(&places, stride);
        }
    }

    /// Has the rows of a span read, which are about to be used in any order.
    pub(super) fn bring(&self, span: usize) {
        if let Some(&[from, to]) = self.bounds.get(span..span + 2) {
            let (places, stride) = (from as usize..to as usize, self.space.stride());
            self.factors.bring(places.clone());
            self.codes.bring(places.start * stride..places.end * stride);
        }
    }
}

/// Cuts leaves into spans of at most `most` rows, each of whole leaves.
fn bounds(starts: &[u32], most: usize) -> Vec<u32> {
    let mut bounds = vec![0];
    for leaf in starts.windows(2) {
        if (leaf[1] - bounds[bounds.len() - 1]) as usize > most
            && leaf[0] > bounds[bounds.len() - 1]
        {
            bounds.push(leaf[0]);
        }
    }
    bounds.push(starts[starts.len() - 1]);
    bounds
}

/// The place of every row when each span has the rows of its part of `order`, ascending.
fn places(order: &[u32], bounds: &[u32]) -> Vec<u32> {
    debug_assert_eq!(bounds.last(), Some(&(order.len() as u32)));
    let mut to = vec![0u32; order.len()];
    for (span, range) in bounds.windows(2).enumerate() {
        for &row in &order[range[0] as usize..range[1] as usize] {
            to[row as usize] = span as u32;
        }
    }
    let mut next = bounds.to_vec();
    for place in &mut to {
        let next = &mut next[*place as usize];
        *place = *next;
        *next += 1;
    }
    to
}

/// Copies rows of `width` numbers from their places to others.
///
/// Some rows at a time, in order of row number, which lie together in a few runs (one in each span) and will again: they are read
/// run by run, brought into the new order in memory, and written run by run.
pub(super) fn moved<T: Pod>(
    all: &Array<T>,
    width: usize,
    from: &[u32],
    to: &[u32],
    spill: &Spill,
    job: &Job,
) -> Result<Array<'static, T>> {
    let mut out = spill.zeros(all.len())?;
    let bytes = width * size_of::<T>();
    let most = spill.limit().map_or(WRITTEN, |limit| limit / 32);
    let some = (most.min(WRITTEN) / bytes.max(1)).clamp(1, to.len().max(1));
    let (mut old, mut new) = (vec![T::zeroed(); some * width], Vec::new());
    let (mut lies, mut goes, mut at) = (Vec::new(), Vec::new(), vec![0u32; some]);
    let mut written = 0;
    for (first, to) in (0usize..).step_by(some).zip(to.chunks(some)) {
        job.check()?;
        let place = |row: usize| from.get(row).map_or(row as u32, |&place| place);
        ascending((first..first + to.len()).map(place), &mut lies);
        let mut done = 0;
        for run in lies.chunk_by(|a, b| b.0 == a.0 + 1) {
            let old = &mut old[done * width..][..run.len() * width];
            all.read(run[0].0 as usize * width, old)?;
            for &(_, row) in run {
                at[row as usize] = done as u32;
                done += 1;
            }
        }
        ascending(to.iter().copied(), &mut goes);
        for run in goes.chunk_by(|a, b| b.0 == a.0 + 1) {
            job.check()?;
            new.clear();
            for &(_, row) in run {
                new.extend_from_slice(&old[at[row as usize] as usize * width..][..width]);
            }
            out.write(run[0].0 as usize * width, &new)?;
        }
        written += to.len() * bytes;
        if written >= WRITTEN {
            out.flush()?;
            written = 0;
        }
    }
    out.flush()?;
    Ok(out)
}

/// (place, number) of some rows, in order of place.
fn ascending(places: impl Iterator<Item = u32>, out: &mut Vec<(u32, u32)>) {
    out.clear();
    out.extend(places.zip(0..));
    out.sort_unstable();
}

impl<'a> Rows<'a> {
    /// (span, its leaves), one after the other; the rows of a span are read when its turn comes.
    pub(super) fn spans<'s>(
        &'s self,
        starts: &'s [u32],
    ) -> impl Iterator<Item = (usize, Range<usize>)> {
        let shelf = self.shelf;
        let spans = shelf.leaves_of_spans(starts).enumerate();
        spans.inspect(|(span, _)| shelf.bring(*span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::random::Random;

    #[test]
    fn rows_move_from_any_place_to_any_other() {
        let (n, width) = (5000, 3);
        let mut random = Random::new(7, 0);
        let mut shuffled = || {
            let mut places: Vec<u32> = (0..n).collect();
            for i in (1..places.len()).rev() {
                places.swap(i, random.below(i + 1));
            }
            places
        };
        let (from, to) = (shuffled(), shuffled());
        // Batches of a few hundred rows, and all at once.
        for limit in [1 << 17, 1 << 30] {
            let spill = Spill::files(std::env::temp_dir(), limit);
            for from in [&from[..], &[]] {
                let mut all = spill.zeros::<u32>(n as usize * width).unwrap();
                let place = |row: u32| from.get(row as usize).map_or(row, |&place| place);
                for row in 0..n {
                    all.write(place(row) as usize * width, &[row, row + 1, row + 2])
                        .unwrap();
                }
                let there = moved(&all, width, from, &to, &spill, &Job::new()).unwrap();
                for row in 0..n {
                    let at = to[row as usize] as usize * width;
                    assert_eq!(there[at..at + width], [row, row + 1, row + 2]);
                }
            }
        }
    }

    #[test]
    fn spans_have_whole_leaves_and_their_rows_ascend() {
        let order = [5, 1, 3, 0, 4, 2, 6];
        let starts = [0, 2, 3, 3, 6, 7];
        assert_eq!(bounds(&starts, 3), [0, 3, 6, 7]);
        // A leaf that is too large is a span of its own.
        assert_eq!(bounds(&starts, 1), [0, 2, 3, 6, 7]);
        assert_eq!(bounds(&starts, 100), [0, 7]);
        assert_eq!(places(&order, &[0, 3, 6, 7]), [3, 0, 4, 1, 5, 2, 6]);
    }
}
