//! gensim's Annoy tutorial in SQL: runs `sql/tour.sql` on a SQLite of its own.
//!
//! ```sh
//! cargo run --release --example tour                              # finds or downloads the corpus
//! cargo run --release --example tour -- path/lee_background.cor   # takes it from there
//! sqlite3 < sql/tour.sql                                          # the same, once the corpus is in target/tour
//! ```
//!
//! What it makes lies in target/tour of the current folder. The tour shows two processes with one index. Here the second one is this program again, called as the sqlite3 shell
//! would be: `tour -box DATABASE COMMAND ...`.

#![allow(clippy::print_stdout, reason = "it is a program for a terminal")]

mod corpus;
mod shell;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use rusqlite::Connection;

use shell::Shell;

const FOLDER: &str = "target/tour";
const CORPUS: &str = "target/tour/lee_background.cor";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.as_slice() {
        [mode, database, commands @ ..] if mode == "-box" => run(database, &commands.join("\n")),
        [] => tour(None),
        [path] if !path.starts_with('-') => tour(Some(path)),
        _ => {
            eprintln!("usage: tour [path/to/lee_background.cor]");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tour: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tour(given: Option<&str>) -> Result<()> {
    std::fs::create_dir_all(FOLDER)?;
    let source = corpus::provide(given.map(Path::new), Path::new(CORPUS))?;
    println!("corpus: {source}\n");
    let outcome = run(":memory:", include_str!("../../sql/tour.sql"));
    if given.is_some() {
        // The next tour shall not take somebody's own text for the Lee corpus.
        std::fs::remove_file(CORPUS)?;
    }
    outcome?;
    println!("\nThe charts are in {FOLDER}: build-time.svg and recall.svg.");
    Ok(())
}

/// Runs a script as the sqlite3 shell would.
fn run(database: &str, script: &str) -> Result<()> {
    #[cfg(feature = "loadable")]
    private_sqlite::install(sqlite_annoy::entry::sqlite3_extension_init);
    Shell::new(open, database, &mut std::io::stdout())?.run(script)
}

fn open(database: &str) -> rusqlite::Result<Connection> {
    let conn = Connection::open(database)?;
    #[cfg(not(feature = "loadable"))]
    sqlite_annoy::register(&conn)?;
    Ok(conn)
}
