//! Rows that a later step needs: fetched while this one computes, evenly, because a burst of requests would wait for free
//! fill buffers.

use super::lanes::Lanes;
use super::{PAD, Row};

/// Most rows that are waiting to be fetched.
const MOST: usize = 48;

/// The rows that are to be fetched.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    rows: [Row<'a>; MOST],
    n: usize,
    /// The first of them that was not fetched yet, and how many steps have time for them.
    next: usize,
    steps: usize,
}

impl<'a> Ahead<'a> {
    pub(super) fn new() -> Ahead<'a> {
        Ahead {
            rows: [Row::NONE; MOST],
            n: 0,
            next: 0,
            steps: 1,
        }
    }

    /// Has this many steps share what is to be fetched: one, unless said otherwise.
    #[inline]
    pub(super) fn during(&mut self, steps: usize) {
        self.steps = steps.max(1);
    }

    /// Adds a row; beyond [`MOST`] it does nothing.
    #[inline]
    pub(super) fn push(&mut self, row: Row<'a>) {
        if self.n < MOST {
            self.rows[self.n] = row;
            self.n += 1;
        }
    }
}

/// What one step has to fetch yet: from a column of a row on.
pub(super) struct Soon {
    /// Cache lines at a time.
    lines: usize,
    row: usize,
    column: usize,
    to: usize,
}

impl Soon {
    /// What one step fetches, in so many places of it. A short row as a whole, of long ones not too much at once.
    #[inline(always)]
    pub(super) fn of(ahead: &Ahead<'_>, stride: usize, places: usize) -> Soon {
        let row = stride / PAD;
        let n_soon = match ahead.steps {
            1 => ahead.n - ahead.next,
            steps => (ahead.n - ahead.next).div_ceil(steps),
        };
        Soon {
            lines: (n_soon * row).div_ceil(places).max(row.min(8)),
            row: ahead.next,
            column: 0,
            to: ahead.next + n_soon,
        }
    }

    /// Asks for the next cache lines.
    #[inline(always)]
    pub(super) fn fetch<V: Lanes>(&mut self, ahead: &Ahead<'_>, stride: usize) {
        let mut floats = self.lines * PAD;
        while floats > 0 && self.row < self.to {
            let row = ahead.rows[self.row].start;
            let end = stride.min(self.column + floats);
            floats -= end - self.column;
            while self.column < end {
                V::fetch(row.wrapping_add(self.column));
                self.column += PAD;
            }
            if end == stride {
                self.row += 1;
                self.column = 0;
            }
        }
    }

    /// Leaves the rest to the next step, or makes room for new rows.
    #[inline(always)]
    pub(super) fn done(self, ahead: &mut Ahead<'_>) {
        ahead.next = self.to;
        ahead.steps = ahead.steps.max(2) - 1;
        if ahead.next == ahead.n {
            (ahead.n, ahead.next) = (0, 0);
        }
    }
}
