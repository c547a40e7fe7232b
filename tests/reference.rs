//! docs/reference.md is made of what is registered (names, numbers of arguments, columns) and of what README's tables say. So
//! neither can say what the other does not. `GOLDEN=update cargo test --test reference` writes it anew.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use common::{memory, rows};
use rusqlite::Connection;
use rusqlite::types::Value;

/// What README says of one name.
struct Said {
    chapter: String,
    signature: String,
    text: String,
    /// Numbers of arguments.
    arguments: std::ops::RangeInclusive<i64>,
}

/// The arguments that `(a, b [, c, d])` or `([a,] b)` allows.
fn arguments(list: &str) -> std::ops::RangeInclusive<i64> {
    let count = |part: &str| part.split(',').filter(|one| !one.trim().is_empty()).count() as i64;
    let (mut required, mut depth) = (String::new(), 0);
    for c in list.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if depth == 0 => required.push(c),
            _ => {}
        }
    }
    count(&required)..=count(&list.replace(['[', ']'], ""))
}

/// The names in README's tables of functions: spans of code in the first cell, `name(arguments)`, `name` or
/// `name name (arguments)`.
fn said(readme: &str) -> BTreeMap<String, Said> {
    let mut found = BTreeMap::new();
    let mut chapter = String::new();
    for line in readme.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            chapter = title.to_owned();
        }
        let Some((first, rest)) = line
            .strip_prefix("| `")
            .and_then(|row| row.split_once("` | "))
        else {
            continue;
        };
        for span in first.split('`').step_by(2) {
            let (names, list) = span.split_once('(').unwrap_or((span, ")"));
            let list = list.strip_suffix(')').unwrap_or_default();
            for name in names.split_whitespace() {
                let signature = if span.contains('(') {
                    format!("{name}({list})")
                } else {
                    name.to_owned()
                };
                found.entry(name.to_owned()).or_insert(Said {
                    chapter: chapter.clone(),
                    signature,
                    text: rest.trim_end_matches(" |").to_owned(),
                    arguments: arguments(list),
                });
            }
        }
    }
    found
}

/// Names of functions with their numbers of arguments and whether they are DIRECTONLY, and names of tables.
type Registered = (BTreeMap<String, (BTreeSet<i64>, bool)>, Vec<String>);

/// What is registered: that `names.expected` has it all is another test's business (golden).
fn registered() -> Registered {
    let mut functions: BTreeMap<String, (BTreeSet<i64>, bool)> = BTreeMap::new();
    let (list, tables) = include_str!("../sql/names.expected")
        .split_once("-- table functions and virtual tables\n")
        .unwrap();
    for line in list.lines().skip(1) {
        let (name, rest) = line.split_once('(').unwrap();
        let (n, rest) = rest.split_once(')').unwrap();
        let entry = functions.entry(name.to_owned()).or_default();
        entry.0.insert(n.parse().unwrap());
        entry.1 |= rest.contains("direct");
    }
    (functions, tables.lines().map(str::to_owned).collect())
}

/// Columns and arguments of a table function.
fn columns(conn: &Connection, table: &str) -> (Vec<String>, Vec<String>) {
    let (mut shown, mut hidden) = (Vec::new(), Vec::new());
    for row in rows(
        conn,
        &format!("SELECT name, hidden FROM pragma_table_xinfo('{table}')"),
    ) {
        match &row[..] {
            [Value::Text(name), Value::Integer(0)] => shown.push(name.clone()),
            [Value::Text(name), _] => hidden.push(name.clone()),
            other => panic!("{other:?}"),
        }
    }
    (shown, hidden)
}

/// Nothing that a user calls by its name: the index's ear for transactions, what `knn_exact` runs, and the virtual table, which has
/// a table of its own in README.
const APART: [&str; 3] = ["annoy_files", "annoy_scan", "annoy"];

#[test]
fn the_reference_is_what_is_registered_and_what_the_readme_says() {
    let conn = memory();
    let said = said(include_str!("../README.md"));
    let (functions, tables) = registered();
    let mut chapters: Vec<(String, String)> = Vec::new();
    let names = functions.keys().chain(&tables);
    for name in names.filter(|name| !APART.contains(&name.as_str())) {
        let said = said
            .get(name)
            .unwrap_or_else(|| panic!("README's tables do not have {name}"));
        let mut entry = format!("### {name}\n\n    {}\n\n{}\n", said.signature, said.text);
        if let Some((numbers, direct)) = functions.get(name) {
            let promised: BTreeSet<i64> = said.arguments.clone().collect();
            assert_eq!(
                numbers, &promised,
                "arguments of {name}: registered, and in README"
            );
            if *direct {
                entry += "\nReads or writes files, writes tables, or takes long: not in views and triggers (DIRECTONLY).\n";
            }
        } else {
            let (shown, hidden) = columns(&conn, name);
            assert_eq!(
                hidden.len() as i64,
                *said.arguments.end(),
                "arguments of {name}: {hidden:?}, and in README"
            );
            let _ = writeln!(entry, "\nColumns: `{}`.", shown.join("`, `"));
            if !hidden.is_empty() {
                let _ = writeln!(
                    entry,
                    "Arguments, which may also be given in WHERE: `{}`.",
                    hidden.join("`, `")
                );
            }
        }
        match chapters
            .iter_mut()
            .find(|(title, _)| *title == said.chapter)
        {
            Some((_, text)) => *text += &format!("\n{entry}"),
            None => chapters.push((said.chapter.clone(), entry)),
        }
    }
    let order = include_str!("../README.md");
    chapters.sort_by_key(|(title, _)| order.find(&format!("\n## {title}\n")));
    let mut page = String::from(
        "# Reference\n\nMade from what the library registers and from README's tables, by `tests/reference.rs`: don't edit it. The statements\n\
         of an index (`CREATE VIRTUAL TABLE i USING annoy(...)`, `'rebuild'`, ...) are in README's chapter \"Index\".\n",
    );
    for (title, text) in chapters {
        let _ = write!(page, "\n## {title}\n\n{text}");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    if std::env::var("GOLDEN").as_deref() == Ok("update") {
        std::fs::write(file, page).unwrap();
        return;
    }
    let there = std::fs::read_to_string(file).unwrap();
    assert!(
        there == page,
        "docs/reference.md is not what the library has: GOLDEN=update cargo test --test reference"
    );
}

#[test]
fn all_packages_have_the_version_of_the_crate() {
    let version = env!("CARGO_PKG_VERSION");
    let node = include_str!("../packages/node/package.json");
    assert!(
        node.contains(&format!("\"version\": \"{version}\"")),
        "packages/node/package.json: expected {version}"
    );
    // Python's is read from Cargo.toml.
    assert!(include_str!("../packages/python/pyproject.toml").contains("dynamic = [\"version\"]"));
}
