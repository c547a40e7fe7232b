//! The names of everything that belongs to an index: shadow tables, triggers, files.

use std::path::{Path, PathBuf};

use crate::sql::quote;

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
        let mut name = self.file_prefix(database);
        name.push_str(&generation.to_string());
        name.push_str(".annoy");
        database.with_file_name(name)
    }

    /// What the names of all files of this index begin with.
    pub(crate) fn file_prefix(&self, database: &Path) -> String {
        let database = database
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        format!("{database}-{}-", file_safe(&self.name))
    }
}

/// A name as part of a file name: letters, digits, `_` and `.` stay, all else becomes `%` and hexadecimal digits. So no
/// name can lead out of the database's folder, two names never meet, and `-` can separate.
fn file_safe(name: &str) -> String {
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
}
