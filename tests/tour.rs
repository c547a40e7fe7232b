//! The tour runs from its first line to its last, on a corpus of made-up documents: what it shows is right whatever the
//! text, and no network is needed. On the real corpus it runs in `.ci/run`.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// 300 documents about six topics, each with words of its own, and two words that the tour asks for.
fn corpus() -> String {
    let mut text = String::new();
    let mut state = 1_u64;
    let mut random = |n: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    for document in 0..300 {
        let topic = document % 6;
        for _ in 0..60 {
            match random(10) {
                0 => text.push_str("the "),
                1 if topic == 0 => text.push_str("science "),
                1 if topic == 1 => text.push_str("army "),
                _ => write!(text, "t{topic}w{} ", random(150)).unwrap(),
            }
        }
        text.push('\n');
    }
    text
}

/// The example that `cargo test` has built beside this test (`cargo test --test tour` alone does not build it).
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    deps.with_file_name("examples").join("tour")
}

#[test]
fn the_tour_runs_to_its_end_and_its_claims_hold() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("corpus.txt"), corpus()).unwrap();
    let output = Command::new(example())
        .arg("corpus.txt")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");

    // Reopened in a new connection, the index gives identical rows, in both directions.
    let same = "│ differences │\n├─────────────┤\n│ 0           │\n";
    assert_eq!(text.matches(same).count(), 2, "{text}");
    // The second process gives the answer of the first.
    let line = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start));
        let cells = line.unwrap_or_else(|| panic!("{start}: {text}"));
        cells.trim_matches(['│', ' ']).to_string()
    };
    let first = line("│ science │ 500 trees │");
    let answer = first.rsplit("│ ").next().unwrap().trim();
    assert!(answer.starts_with("science, "), "{answer}");
    let second = line("│ science, t");
    assert_eq!(second, answer);
    // What it has of the index for itself is nothing.
    #[cfg(target_os = "linux")]
    {
        let memory = line("│ second  │");
        let private = memory.rsplit("│ ").next().unwrap().trim();
        assert_eq!(private, "0", "{memory}");
    }
    for chart in ["build-time.svg", "recall.svg"] {
        let svg = std::fs::read_to_string(folder.path().join("target/tour").join(chart)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("trees"), "{chart}");
    }
}

#[test]
fn without_a_corpus_the_tour_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example())
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for advice in [
        "pip install gensim",
        "cargo run --release --example tour -- path/to/lee_background.cor",
    ] {
        assert!(errors.contains(advice), "{errors}");
    }
}
