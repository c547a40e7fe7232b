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
use crate::spill::{Array, Spill};

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
pub(super) fn moved<T: Pod>(
    all: &Array<T>,
    width: usize,
    from: &[u32],
    to: &[u32],
    spill: &Spill,
    job: &Job,
) -> Result<Array<'static, T>> {
    let mut out = spill.zeros(all.len())?;
    all.scatter(true);
    out.scatter(true);
    let some = spill.batch(to.len(), width * size_of::<T>());
    let mut places = Vec::new();
    for (first, to) in (0usize..).step_by(some).zip(to.chunks(some)) {
        if from.is_empty() {
            all.bring(first * width..(first + to.len()) * width);
        } else {
            places.clear();
            places.extend_from_slice(&from[first..first + to.len()]);
            places.sort_unstable();
            all.bring_rows(&places, width);
        }
        let numbers: &mut [T] = &mut out;
        for (row, &to) in (first..).zip(to) {
            if row.is_multiple_of(1024) {
                job.check()?;
            }
            let from = from.get(row).map_or(row, |&place| place as usize);
            numbers[to as usize * width..][..width].copy_from_slice(&all[from * width..][..width]);
        }
        out.flush()?;
    }
    all.scatter(false);
    out.scatter(false);
    Ok(out)
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
