//! Which rows may be among an answer.
//!
//! A statement that filters hands its rows over as a set of rowids. A search asks [`Filter::admits`] of those rows only
//! that it is about to look at twice: few of all, so what counts is that making the set is cheap. Rowids that lie close
//! together become bits, others a hash table.

use rustc_hash::FxHashSet;

/// Rowids that a search is confined to.
#[derive(Debug, Clone)]
pub struct RowSet {
    ids: Vec<i64>,
    members: Members,
}

#[derive(Debug, Clone)]
enum Members {
    /// Bit i: the first rowid and i.
    Bits(Vec<u64>),
    Table(FxHashSet<i64>),
}

impl RowSet {
    /// The set of these rowids, in any order, some perhaps several times.
    #[must_use]
    pub fn new(mut ids: Vec<i64>) -> Self {
        if !ids.is_sorted() {
            ids.sort_unstable();
        }
        ids.dedup();
        let span = match ids[..] {
            [] => 0,
            [first, ..] => ids[ids.len() - 1].wrapping_sub(first) as u64,
        };
        // Up to 64 bits a member are no more than a table takes.
        let members = if span / 64 <= ids.len() as u64 {
            let mut bits = vec![0u64; span as usize / 64 + 1];
            for &id in &ids {
                let at = id.wrapping_sub(ids[0]) as u64;
                bits[at as usize / 64] |= 1 << (at % 64);
            }
            Members::Bits(bits)
        } else {
            Members::Table(ids.iter().copied().collect())
        };
        RowSet { ids, members }
    }

    /// How many rowids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The rowids, ascending.
    #[must_use]
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// Whether a rowid is one of them.
    #[must_use]
    pub fn contains(&self, id: i64) -> bool {
        match (&self.members, self.ids.first()) {
            (Members::Bits(bits), Some(&first)) => {
                let at = id.wrapping_sub(first) as u64;
                let word = usize::try_from(at / 64).ok().and_then(|i| bits.get(i));
                id >= first && word.is_some_and(|word| word >> (at % 64) & 1 == 1)
            }
            (Members::Table(table), _) => table.contains(&id),
            (_, None) => false,
        }
    }

    /// The rowids that are in both.
    #[must_use]
    pub fn and(&self, other: &RowSet) -> RowSet {
        let both = self.ids.iter().copied().filter(|&id| other.contains(id));
        RowSet::new(both.collect())
    }
}

/// What a row must be to be among an answer.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// Not one of these.
    pub hidden: &'a FxHashSet<i64>,
    /// One of these, if there are any such.
    pub among: Option<&'a RowSet>,
}

impl Filter<'_> {
    /// Whether every row is admitted.
    #[must_use]
    pub fn admits_all(&self) -> bool {
        self.among.is_none() && self.hidden.is_empty()
    }

    /// Whether a row may be among the answer.
    #[must_use]
    pub fn admits(&self, rowid: i64) -> bool {
        self.among.is_none_or(|among| among.contains(rowid))
            && (self.hidden.is_empty() || !self.hidden.contains(&rowid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_its_members_and_no_others_however_they_lie() {
        for ids in [
            vec![],
            vec![5],
            vec![3, 1, 2, 3, 64, 65],
            vec![i64::MIN, 0, i64::MAX],
            vec![-7, 1_000_000_000_000, -7],
            (0..1000).map(|i| i * 3 - 500).collect(),
        ] {
            let set = RowSet::new(ids.clone());
            for &id in &ids {
                assert!(set.contains(id), "{id} of {ids:?}");
                for other in [id.wrapping_sub(1), id.wrapping_add(1)] {
                    assert_eq!(set.contains(other), ids.contains(&other), "{other}");
                }
            }
            assert!(set.ids().is_sorted());
            let even = RowSet::new((-600..3000).map(|i| i * 2).collect());
            let both = set.and(&even);
            assert!(both.ids().iter().all(|id| id % 2 == 0 && ids.contains(id)));
        }
    }
}
