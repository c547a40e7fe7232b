//! Finds the `sqlite3.c` that libsqlite3-sys ships and compiles it with every symbol private, so that the tests bring
//! their own SQLite without a clash with one that a host or another crate links.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = sqlite_source();
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=private.c");
    println!("cargo:rerun-if-changed={}", source.display());
    cc::Build::new()
        .file("private.c")
        .include(&source)
        .define("SQLITE_API", "static")
        .define("SQLITE_THREADSAFE", "1")
        .define("SQLITE_ENABLE_FTS5", None)
        .define("SQLITE_ENABLE_RTREE", None)
        .define("SQLITE_ENABLE_MATH_FUNCTIONS", None)
        .define("SQLITE_ENABLE_DBSTAT_VTAB", None)
        .define("SQLITE_MAX_EXPR_DEPTH", "0")
        .flag_if_supported("-Wno-unused-function")
        .flag_if_supported("-Wno-unused-variable")
        .warnings(false)
        .opt_level(2)
        .compile("private_sqlite");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-lib=dl");
        println!("cargo:rustc-link-lib=pthread");
        println!("cargo:rustc-link-lib=m");
    }
}

/// The folder of `sqlite3.c` in the libsqlite3-sys that this workspace's lock file names.
fn sqlite_source() -> PathBuf {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let output = Command::new(env::var("CARGO").unwrap())
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--locked",
            "--filter-platform",
        ])
        .arg(env::var("TARGET").unwrap())
        .current_dir(&root)
        .output()
        .expect("cargo metadata");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["name"] == "libsqlite3-sys")
        .and_then(|p| p["manifest_path"].as_str())
        .expect("libsqlite3-sys among the packages");
    PathBuf::from(manifest).with_file_name("sqlite3")
}
