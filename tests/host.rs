//! The extension starts, and says what it is.

mod common;

#[test]
fn the_version_names_the_instruction_set_in_use() {
    let conn = common::memory();
    let version: String = common::one(&conn, "SELECT annoy_version()");
    assert!(version.starts_with(env!("CARGO_PKG_VERSION")), "{version}");
    assert!(
        version.contains(sqlite_annoy::kernel::level().name()),
        "{version}"
    );
}

#[test]
fn an_unknown_progress_display_is_refused() {
    let conn = common::memory();
    assert_eq!(
        common::error(&conn, "SELECT annoy_progress('radio')"),
        "unknown progress display 'radio': expected 'stderr' or 'off'"
    );
    assert_eq!(
        common::one::<String>(&conn, "SELECT annoy_progress('stderr')"),
        "off"
    );
    assert_eq!(
        common::one::<String>(&conn, "SELECT annoy_progress('off')"),
        "stderr"
    );
}
