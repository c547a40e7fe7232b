//! The page of guarantees has the format as the source has it, and a file of this version, kept in `fixtures`, is read.
//!
//! `GOLDEN=update cargo test --test format` writes both anew.

use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{
    Budget, BuildOptions, Bytes, Forest, Scratch, VectorStore, Vectors, build,
};
use sqlite_annoy::job::Job;
use sqlite_annoy::vector::Metric;

fn root(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn update() -> bool {
    std::env::var_os("GOLDEN").is_some_and(|v| v == "update")
}

#[test]
fn the_page_of_guarantees_has_the_format_of_the_source() {
    let source = std::fs::read_to_string(root("src/forest/format.rs")).unwrap();
    let lines = source.lines().filter_map(|l| l.strip_prefix("//!"));
    let lines: Vec<_> = lines.map(|l| l.strip_prefix(' ').unwrap_or(l)).collect();
    let format = lines.join("\n");
    let from = format.find("```text").expect("format.rs shows its bytes");
    let page = std::fs::read_to_string(root("docs/guarantees.md")).unwrap();
    let (before, rest) = page.split_once("<!-- format -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    let expected = format!(
        "{before}<!-- format -->\n{}\n<!-- end -->{after}",
        format[from..].trim_end()
    );
    if update() {
        std::fs::write(root("docs/guarantees.md"), &expected).unwrap();
    } else {
        assert!(
            page == expected,
            "docs/guarantees.md is behind: GOLDEN=update cargo test --test format"
        );
    }
}

/// A set without randomness: 70 rows of 5 dimensions.
fn image() -> Vec<u8> {
    let ids: Vec<i64> = (0..70).map(|i| i * 3 - 20).collect();
    let rows: Vec<f32> = (0..350i64)
        .map(|i| ((i * i * 37 + i * 11) % 101) as f32 / 50.0 - 1.0)
        .collect();
    let vectors = Vectors {
        dim: 5,
        ids: &ids,
        rows: &rows,
    };
    let options = BuildOptions {
        metric: Metric::L2,
        trees: 2,
        seed: 1,
        threads: 1,
        store: VectorStore::F32,
    };
    build(&vectors, &options, &Job::new())
        .unwrap()
        .to_bytes()
        .as_ref()
        .to_vec()
}

#[test]
fn a_file_of_this_version_is_read_and_written_as_ever() {
    let new = image();
    let version = u32::from_le_bytes(new[8..12].try_into().unwrap());
    let path = root(&format!("tests/fixtures/forest-{version}.file"));
    if update() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &new).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_else(|e| {
        panic!(
            "{}: {e}: GOLDEN=update cargo test --test format",
            path.display()
        )
    });
    let forest = Forest::open(Bytes::new(&kept)).unwrap();
    forest.verify().unwrap();
    let query = [0.1, -0.2, 0.3, 0.0, 0.5];
    let (none, mut scratch) = (FxHashSet::default(), Scratch::default());
    let fresh = Forest::open(Bytes::new(&new)).unwrap();
    for k in [1, 7, 70] {
        let ids = |f: &Forest<Bytes>, s: &mut Scratch| -> Vec<i64> {
            f.search(&query, k, Budget::Default, &none, s)
                .iter()
                .map(|h| h.rowid)
                .collect()
        };
        assert_eq!(ids(&forest, &mut scratch), ids(&fresh, &mut scratch));
    }
    assert!(
        kept == new,
        "the same rows give other bytes than in the version {version} that is kept: give the format a new number, or, before a \
         release, GOLDEN=update cargo test --test format"
    );
}
