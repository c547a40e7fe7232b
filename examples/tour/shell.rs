//! As much of the sqlite3 shell as the tour needs, so that the same file runs there and here.
//!
//! SQL, with results as boxes, and the dot commands `.bail on`, `.echo on|off`, `.load` (ignored: the extension is
//! there), `.mode box`, `.open`, `.print` and `.shell`. What it prints is what the shell of SQLite 3.40 prints,
//! character for character.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, anyhow, bail, ensure};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, Connection, Statement};

/// Opens a connection that has the extension.
pub type Open = fn(&str) -> rusqlite::Result<Connection>;

/// A shell with one open database.
pub struct Shell<'a> {
    open: Open,
    conn: Connection,
    echo: bool,
    out: &'a mut dyn Write,
}

impl<'a> Shell<'a> {
    /// A shell that prints to `out`.
    pub fn new(open: Open, database: &str, out: &'a mut dyn Write) -> Result<Self> {
        Ok(Shell {
            conn: connect(open, database)?,
            open,
            echo: false,
            out,
        })
    }

    /// Runs a script up to the first error, which names the line that it is near.
    pub fn run(&mut self, script: &str) -> Result<()> {
        let mut sql = String::new();
        let mut began = 0;
        for (number, line) in (1..).zip(script.lines()) {
            if sql.is_empty() {
                began = number;
                if line.starts_with('.') || is_blank(line) {
                    self.echo(line)?;
                    self.command(line)
                        .map_err(|e| anyhow!("near line {number}: {e}"))?;
                    continue;
                }
            }
            sql.push_str(line);
            if is_complete(&sql) {
                self.sql(&std::mem::take(&mut sql))
                    .map_err(|e| anyhow!("near line {began}: {e}"))?;
            } else {
                sql.push('\n');
            }
        }
        ensure!(
            sql.is_empty(),
            "near line {began}: a statement without its semicolon"
        );
        Ok(())
    }

    fn echo(&mut self, text: &str) -> Result<()> {
        if self.echo {
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    /// Runs statements, prints their rows.
    fn sql(&mut self, sql: &str) -> Result<()> {
        self.echo(sql)?;
        let mut batch = Batch::new(&self.conn, sql);
        while let Some(mut statement) = batch.next()? {
            let shown = boxed(&self.conn, &mut statement)?;
            self.out.write_all(shown.as_bytes())?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// Runs a dot command; a line that is no command does nothing.
    fn command(&mut self, line: &str) -> Result<()> {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            [".bail", "on"] | [".load", _] | [".mode", "box"] => {}
            [".echo", switch @ ("on" | "off")] => self.echo = *switch == "on",
            [".open", database] => self.conn = connect(self.open, database)?,
            [".print", text @ ..] => writeln!(self.out, "{}", text.join(" "))?,
            [".shell", parts @ ..] => {
                let quoted = |part: &&str| match part.contains(' ') {
                    true => format!("\"{part}\""),
                    false => part.to_string(),
                };
                let command: Vec<String> = parts.iter().map(quoted).collect();
                self.out.flush()?;
                // A script that wants a second process starts this variable's program, or sqlite3 where it is unset.
                let status = Command::new("sh")
                    .args(["-c", &command.join(" ")])
                    .env("TOUR_HOST", this_program()?)
                    .status()?;
                ensure!(status.success(), "{}: {status}", command.join(" "));
            }
            [command, ..] if command.starts_with('.') => {
                bail!("the tour's shell does not understand: {line}")
            }
            _ => {}
        }
        Ok(())
    }
}

/// A connection with `writefile`, which the sqlite3 shell has built in.
fn connect(open: Open, database: &str) -> Result<Connection> {
    let conn = open(database)?;
    conn.create_scalar_function(
        "writefile",
        2,
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DIRECTONLY,
        |ctx| {
            let path: String = ctx.get(0)?;
            let content = match ctx.get_raw(1) {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
                _ => &[],
            };
            std::fs::write(&path, content)
                .map_err(|e| rusqlite::Error::UserFunctionError(format!("{path}: {e}").into()))?;
            Ok(content.len() as i64)
        },
    )?;
    Ok(conn)
}

/// This program as seen from the working directory: a script can't quote a path that has spaces above it.
fn this_program() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let here = std::env::current_dir()?;
    Ok(program
        .strip_prefix(here)
        .map_or(program.clone(), |path| PathBuf::from(".").join(path)))
}

/// Whether SQLite takes a text for one or more complete statements.
fn is_complete(sql: &str) -> bool {
    let Ok(text) = CString::new(sql) else {
        return false;
    };
    // SAFETY: a C string that lives during the call.
    unsafe { rusqlite::ffi::sqlite3_complete(text.as_ptr()) != 0 }
}

/// Whether a line is empty or a comment.
fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with("--")
}

/// The words of a dot command: separated by spaces, or in quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '\'' | '"' => rest[1..].split_once(first).unwrap_or((&rest[1..], "")),
            _ => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_string());
        rest = after.trim_start();
    }
    words
}

/// All rows of a statement as a box; an empty text when there are none.
fn boxed(conn: &Connection, statement: &mut Statement<'_>) -> Result<String> {
    let header: Vec<String> = statement.column_names().map(str::to_string).collect();
    let mut table: Vec<Vec<String>> = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let cells = (0..header.len()).map(|i| text(conn, row.get(i)?));
        table.push(cells.collect::<Result<_>>()?);
    }
    if table.is_empty() {
        return Ok(String::new());
    }
    let widths: Vec<usize> = (0..header.len())
        .map(|i| {
            let cells = table.iter().chain([&header]);
            cells
                .map(|row| row[i].chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let rule = |left: char, middle: &str, right: char| {
        let lines: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let line = |cells: Vec<String>| format!("│ {} │\n", cells.join(" │ "));
    let mut shown = rule('┌', "┬", '┐');
    let centred = header.iter().zip(&widths).map(|(h, &w)| format!("{h:^w$}"));
    shown += &line(centred.collect());
    shown += &rule('├', "┼", '┤');
    for row in &table {
        let padded = row.iter().zip(&widths).map(|(c, &w)| format!("{c:<w$}"));
        shown += &line(padded.collect());
    }
    shown += &rule('└', "┴", '┘');
    Ok(shown)
}

/// A value as the shell prints it.
fn text(conn: &Connection, value: Value) -> Result<String> {
    Ok(match value {
        Value::Null => String::new(),
        Value::Integer(n) => n.to_string(),
        Value::Text(text) => text,
        // SQLite knows best how it writes a real number.
        Value::Real(_) => conn.query_row("SELECT CAST(?1 AS TEXT)", [value], |row| row.get(0))?,
        Value::Blob(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    })
}
