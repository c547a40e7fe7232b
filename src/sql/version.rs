//! `annoy_version()`: the version, the instruction set in use, and how the library was built.

use rusqlite::Connection;

use crate::kernel;

/// The text of `annoy_version()`.
fn version() -> String {
    format!(
        "{} {} ({}, {}, SQLite {})",
        env!("CARGO_PKG_VERSION"),
        kernel::level().name(),
        std::env::consts::ARCH,
        if cfg!(feature = "loadable") {
            "loadable"
        } else {
            "static"
        },
        version_text(crate::entry::host_version()),
    )
}

/// 3040001 as 3.40.1.
fn version_text(version: i32) -> String {
    format!(
        "{}.{}.{}",
        version / 1_000_000,
        version / 1_000 % 1_000,
        version % 1_000
    )
}

pub(super) fn register(conn: &Connection) -> rusqlite::Result<()> {
    conn.create_scalar_function("annoy_version", 0, super::PURE, |_| Ok(version()))
}
