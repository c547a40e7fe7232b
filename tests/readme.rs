//! Every SQL block of README.md runs, in order, on one database, and so does every one of sql/coming_from.md and of docs/howto; a line `--> a|b` is the next row of the statement
//! before it, as the sqlite3 shell would print it. A statement without such lines may give any rows.

mod common;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;

/// The README's blocks of this language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(fence.as_str())
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .collect()
}

/// The statements of a block, each with the rows that it promises.
fn statements(block: &str) -> Vec<(String, Vec<&str>)> {
    let mut found: Vec<(String, Vec<&str>)> = Vec::new();
    let mut sql = String::new();
    for line in block.lines() {
        if let Some(row) = line.strip_prefix("--> ") {
            found.last_mut().unwrap().1.push(row);
            continue;
        }
        sql += line;
        sql += "\n";
        // The statements of a trigger are part of it.
        let inside = sql.contains("CREATE TRIGGER") && line != "END;";
        if line.trim_end().ends_with(';') && !inside {
            found.push((std::mem::take(&mut sql), Vec::new()));
        }
    }
    assert_eq!(sql.trim(), "", "a statement without its semicolon");
    found
}

fn shown(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Real(x) => format!("{x:?}"),
        Value::Text(text) => text,
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// A corpus of 12 words about two things.
fn corpus() -> String {
    let sky = "the moon and star at night in the dark sky with moon star night\n";
    let kitchen = "the bread and flour in the oven with dough bread oven flour\n";
    sky.repeat(30) + &kitchen.repeat(30)
}

/// As the sqlite3 shell has it.
fn add_writefile(conn: &Connection) {
    conn.create_scalar_function("writefile", 2, FunctionFlags::SQLITE_UTF8, |ctx| {
        let content: String = ctx.get(1)?;
        std::fs::write(ctx.get::<String>(0)?, &content).unwrap();
        Ok(content.len() as i64)
    })
    .unwrap();
}

/// Runs every SQL block of a page on one database; returns how many rows it promises.
fn run(page: &str, database: &str) -> usize {
    let conn = common::open(database);
    add_writefile(&conn);
    let blocks = blocks(page, "sql");
    assert!(blocks.len() >= 3, "{}", blocks.len());
    let mut promised = 0;
    for (sql, expected) in blocks.iter().flat_map(|block| statements(block)) {
        let found: Vec<String> = common::rows(&conn, &sql)
            .into_iter()
            .map(|row| row.into_iter().map(shown).collect::<Vec<_>>().join("|"))
            .collect();
        if !expected.is_empty() {
            assert_eq!(found, expected, "{sql}");
            promised += expected.len();
        }
    }
    promised
}

#[test]
fn every_sql_block_of_our_pages_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    // The other test of this process reads no file.
    std::env::set_current_dir(folder.path()).unwrap();
    std::fs::write("corpus.txt", corpus()).unwrap();
    let promised = run(include_str!("../README.md"), "app.db");
    assert!(promised >= 15, "{promised}");
    let promised = run(include_str!("../sql/coming_from.md"), "other.db");
    assert!(promised >= 25, "{promised}");
    for (page, name, least) in [
        (include_str!("../docs/howto/notes.md"), "notes.db", 2),
        (
            include_str!("../docs/howto/duplicates.md"),
            "duplicates.db",
            5,
        ),
        (include_str!("../docs/howto/images.md"), "images.db", 4),
    ] {
        let promised = run(page, name);
        assert!(promised >= least, "{name}: {promised}");
    }
}

#[test]
fn every_registered_name_is_in_the_readme() {
    let readme = include_str!("../README.md");
    let names = include_str!("../sql/names.expected");
    let names = names.lines().filter(|line| !line.starts_with("--"));
    for line in names {
        let name = line.split(['(', ' ']).next().unwrap();
        // The index's own ear for the end of transactions: nothing that a user calls.
        if name != "annoy_files" {
            assert!(readme.contains(name), "{name}");
        }
    }
}
