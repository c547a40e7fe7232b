//! What the catalogue calls the files of an index, and a file as a query sees it.
//!
//! The catalogue's `current` lists the parts an index consists of, oldest first, with a space between: a main file, and
//! what `refresh` has added to it since.
//!
//! ```text
//! 3:89abcdef01234567 5:76543210fedcba98:00112233aabbccdd 6:-:8877665544332211
//! generation:checksum of the file, '-' without one [:checksum of the list of rowids]
//! ```
//!
//! The list is in the catalogue under `hides:<generation>`: rowids, eight bytes each, little-endian, ascending, whose rows
//! in all older parts count no more. So in a row's newest part that does not hide it is what the table had when that
//! part was made.

use std::fmt;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use rustc_hash::FxHashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::catalog;
use super::files::{self, Open};
use super::names::IndexName;
use crate::sql::Session;

/// A part, as the catalogue names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PartName {
    /// Number of the build; counts up.
    pub(crate) generation: i64,
    /// Of its file; `None`: it only hides.
    pub(crate) checksum: Option<u64>,
    /// Of the list of rowids that it hides.
    pub(crate) hides: Option<u64>,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.generation)?;
        match self.checksum {
            Some(checksum) => write!(f, "{checksum:016x}")?,
            None => f.write_str("-")?,
        }
        match self.hides {
            Some(hides) => write!(f, ":{hides:016x}"),
            None => Ok(()),
        }
    }
}

impl PartName {
    fn parse(text: &str) -> Option<PartName> {
        let mut fields = text.split(':');
        let part = PartName {
            generation: fields.next()?.parse().ok()?,
            checksum: match fields.next()? {
                "-" => None,
                hex => Some(u64::from_str_radix(hex, 16).ok()?),
            },
            hides: match fields.next() {
                Some(hex) => Some(u64::from_str_radix(hex, 16).ok()?),
                None => None,
            },
        };
        fields.next().is_none().then_some(part)
    }
}

/// The parts that a catalogue's `current` names.
pub(crate) fn parse(current: &str) -> Result<Vec<PartName>> {
    let parts: Option<Vec<PartName>> = current.split(' ').map(PartName::parse).collect();
    parts
        .filter(|parts| parts.is_sorted_by(|a, b| a.generation < b.generation))
        .with_context(|| format!("the catalogue names no generation: '{current}'"))
}

/// As the catalogue has it.
pub(crate) fn format(parts: &[PartName]) -> String {
    let names: Vec<_> = parts.iter().map(ToString::to_string).collect();
    names.join(" ")
}

/// A part that is open.
pub(crate) struct Part {
    pub(crate) name: PartName,
    pub(crate) forest: Option<Open>,
    /// Rowids of its file that a younger part hides.
    pub(crate) outdated: FxHashSet<i64>,
    /// The same, and those of its file that have changed since the youngest part was made.
    pub(crate) hidden: FxHashSet<i64>,
}

impl Part {
    /// The row of this rowid may differ from the file's.
    pub(crate) fn hide(&mut self, rowid: i64) {
        if self.forest.as_ref().is_some_and(|f| f.contains(rowid)) {
            self.hidden.insert(rowid);
        }
    }

    /// It doesn't any more.
    pub(crate) fn show(&mut self, rowid: i64) {
        if !self.outdated.contains(&rowid) {
            self.hidden.remove(&rowid);
        }
    }

    /// Rows that count.
    pub(crate) fn live(&self) -> usize {
        let all = self.forest.as_ref().map_or(0, |f| f.len());
        all.saturating_sub(self.hidden.len())
    }
}

fn key(generation: i64) -> String {
    format!("hides:{generation}")
}

/// Writes the list of a part; `ids` ascending. Returns its checksum.
pub(crate) fn put_list(
    conn: &Connection,
    index: &IndexName,
    generation: i64,
    ids: &[i64],
) -> Result<u64> {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let checksum = xxh3_64(&bytes);
    catalog::put(conn, index, &key(generation), bytes)?;
    Ok(checksum)
}

/// Reads the list of a part.
pub(crate) fn list(conn: &Connection, index: &IndexName, part: &PartName) -> Result<Vec<i64>> {
    let Some(checksum) = part.hides else {
        return Ok(Vec::new());
    };
    let bytes: Vec<u8> = catalog::get(conn, index, &key(part.generation))?.unwrap_or_default();
    ensure!(
        xxh3_64(&bytes) == checksum && bytes.len().is_multiple_of(8),
        "the catalogue's list of rows that generation {} has outdated is damaged",
        part.generation
    );
    Ok(bytes
        .as_chunks()
        .0
        .iter()
        .map(|id| i64::from_le_bytes(*id))
        .collect())
}

/// Removes the lists of these parts.
pub(crate) fn remove_lists(conn: &Connection, index: &IndexName, parts: &[PartName]) -> Result<()> {
    for part in parts {
        conn.execute(
            &format!("DELETE FROM {} WHERE key = ?1", index.catalog()),
            [key(part.generation)],
        )?;
    }
    Ok(())
}

/// Opens all parts.
///
/// # Errors
/// Why one of them can't be used.
pub(crate) fn open(
    conn: &Connection,
    session: &Session,
    index: &IndexName,
    current: &str,
) -> Result<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for name in parse(current)? {
        let forest = name
            .checksum
            .map(|_| files::open(conn, session, index, &name))
            .transpose()?;
        if let (Some(forest), Some(first)) =
            (&forest, parts.first().and_then(|p| p.forest.as_ref()))
        {
            ensure!(
                forest.dim() == first.dim() && forest.metric() == first.metric(),
                "the file of generation {} does not fit the main file",
                name.generation
            );
        }
        for id in list(conn, index, &name)? {
            for older in &mut parts {
                if older.forest.as_ref().is_some_and(|f| f.contains(id)) {
                    older.outdated.insert(id);
                }
            }
        }
        parts.push(Part {
            name,
            forest,
            outdated: FxHashSet::default(),
            hidden: FxHashSet::default(),
        });
    }
    ensure!(
        parts.first().is_some_and(|main| main.forest.is_some()),
        "the catalogue names no main file: '{current}'"
    );
    for part in &mut parts {
        part.hidden.clone_from(&part.outdated);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_survive_writing_and_reading_and_nothing_else_is_read() {
        let names = "3:89abcdef01234567 5:76543210fedcba98:00112233aabbccdd 6:-:8877665544332211";
        let parts = parse(names).unwrap();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[2].checksum, None);
        assert_eq!(format(&parts), names);
        for bad in [
            "", "3", "3:", "3:x", "4:1 3:1", "3:1 3:1", "3:1:2:3", "3:1  4:1", "x:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
