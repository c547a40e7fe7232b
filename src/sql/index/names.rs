//! The names of everything that belongs to an index: shadow tables, triggers, files.

use std::path::{Path, PathBuf};

use crate::sql::quote;
use crate::sql::schema::Object;

/// An index, by schema and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct IndexName {
    /// The schema it is in.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
}

/// The triggers of an index: name suffix and event. Those that run before a change note the rows which REPLACE is about
/// to remove; their delete triggers do not run when `recursive_triggers` is off.
pub(crate) const TRIGGERS: [&str; 5] = [
    "_annoy_insert",
    "_annoy_update",
    "_annoy_delete",
    "_annoy_before_insert",
    "_annoy_before_update",
];

impl From<Object> for IndexName {
    fn from(Object { schema, name, .. }: Object) -> Self {
        IndexName { schema, name }
    }
}

impl IndexName {
    /// `"schema"."name_suffix"`.
    pub(crate) fn quoted(&self, suffix: &str) -> String {
        format!(
            "{}.{}",
            quote(&self.schema),
            quote(&format!("{}{suffix}", self.name))
        )
    }

    /// `"name_suffix"`, for places where SQL takes no schema.
    pub(crate) fn bare(&self, suffix: &str) -> String {
        quote(&format!("{}{suffix}", self.name))
    }

    /// The shadow table of settings and of the current generation.
    pub(crate) fn catalog(&self) -> String {
        self.quoted("_catalog")
    }

    /// The table of rowids changed since the current generation was built.
    pub(crate) fn changes(&self) -> String {
        self.quoted("_changes")
    }

    /// The shadow table of parts that lie in the database.
    pub(crate) fn parts(&self) -> String {
        self.quoted("_parts")
    }

    /// The file of one generation: `app.db-words_index-3.annoy` beside `app.db`.
    pub(crate) fn file(&self, database: &Path, generation: i64) -> PathBuf {
        let of = database.file_name().unwrap_or_default().to_string_lossy();
        database.with_file_name(format!("{of}-{}-{generation}.annoy", self.in_files()))
    }

    /// Its name, as names of files have it.
    pub(crate) fn in_files(&self) -> String {
        file_safe(&self.name)
    }
}

/// What the name of a file says, if it is one that an index of a database may have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileName<'a> {
    /// The index, as [`IndexName::in_files`] has it.
    pub(crate) index: &'a str,
    pub(crate) generation: i64,
    /// Whether it is still being written.
    pub(crate) is_temporary: bool,
}

impl<'a> FileName<'a> {
    /// Takes a name apart. Neither an index nor a number has a `-` in it, so what stands before the last two is the
    /// database: no name belongs to two databases.
    pub(crate) fn parse(database: &Path, name: &'a str) -> Option<FileName<'a>> {
        let rest = name
            .strip_prefix(&*database.file_name()?.to_string_lossy())?
            .strip_prefix('-')?;
        let (index, rest) = rest.split_once('-')?;
        let (number, end) = rest.split_once(".annoy")?;
        let is_temporary = match end.strip_prefix(".tmp-") {
            Some(process) => process.parse::<u32>().is_ok(),
            None if end.is_empty() => false,
            None => return None,
        };
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        (is_number && (end.is_empty() || is_temporary)).then_some(())?;
        Some(FileName {
            index,
            generation: number.parse().ok()?,
            is_temporary,
        })
    }
}

/// A name as part of a file name: letters, digits, `_` and `.` stay, all else becomes `%` and hexadecimal digits. So no
/// name can lead out of the database's folder, two names never meet, and `-` can separate.
pub(crate) fn file_safe(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02x}"));
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_folder_of_the_database() {
        let index = IndexName {
            schema: "main".into(),
            name: "../../etc/pass wd-1".into(),
        };
        let file = index.file(Path::new("/data/app.db"), 3);
        assert_eq!(
            file,
            Path::new("/data/app.db-..%2f..%2fetc%2fpass%20wd%2d1-3.annoy")
        );
    }

    #[test]
    fn a_name_tells_its_database_index_and_generation_and_no_name_belongs_to_two() {
        let (database, index) = (
            Path::new("/data/a.db-x"),
            IndexName {
                schema: "main".into(),
                name: "i-1.annoy".into(),
            },
        );
        let file = index.file(database, 12);
        let file = file.file_name().unwrap().to_str().unwrap();
        let parsed = FileName::parse(database, file).unwrap();
        assert_eq!(
            parsed,
            FileName {
                index: "i%2d1.annoy",
                generation: 12,
                is_temporary: false
            }
        );
        assert!(
            FileName::parse(database, &format!("{file}.tmp-77"))
                .unwrap()
                .is_temporary
        );
        for other in [
            "/data/a.db",
            "/data/a",
            "/data/a.db-x-i%2d1.annoy",
            "/data/a.db-",
            "/data/A.db-x",
        ] {
            assert_eq!(FileName::parse(Path::new(other), file), None, "{other}");
        }
        for other in [
            "a.db-x-i.annoy",
            "a.db-x-i-.annoy",
            "a.db-x-i--1.annoy",
            "a.db-x-i-+1.annoy",
            "a.db-x-i-1.ann",
            "a.db-x",
            "a.db-x-i-1.annoy.tmp-",
            "a.db-x-i-1.annoy.tmp-x",
            "a.db-x-i-1.annoy-wal",
            "a.db-x-i-99999999999999999999.annoy",
        ] {
            assert_eq!(FileName::parse(database, other), None, "{other}");
        }
    }
}
