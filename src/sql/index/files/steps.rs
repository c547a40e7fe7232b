//! Tests that fail every step on the way of a file to the disk, or look at what a crash there would leave.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::sql::testing;

type Hook = Box<dyn FnMut(&str) -> io::Result<()>>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

pub(super) fn step(what: &str) -> io::Result<()> {
    HOOK.with_borrow_mut(|hook| hook.as_mut().map_or(Ok(()), |hook| hook(what)))
}

/// Runs `body` with every step going through `hook`.
fn with_hook<T>(hook: impl FnMut(&str) -> io::Result<()> + 'static, body: impl FnOnce() -> T) -> T {
    HOOK.set(Some(Box::new(hook)));
    let outcome = body();
    HOOK.set(None);
    outcome
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sqlite-annoy-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.contains(".annoy"))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Path) -> Connection {
    testing::install();
    let conn = Connection::open(folder.join("app.db")).unwrap();
    #[cfg(not(feature = "loadable"))]
    crate::register(&conn).unwrap();
    conn
}

const PREPARE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60)
    INSERT INTO t SELECT i, vec_f32('[' || i || ',' || (i * i % 17) || ']') FROM c;
    CREATE VIEW bare AS SELECT id, v FROM t;
    CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2);
    UPDATE t SET v = vec_f32('[3, 3]') WHERE id < 4;
    INSERT INTO ix(ix) VALUES('refresh');
    DELETE FROM t WHERE id = 9;";

/// The same with the index in the database.
fn inline(sql: &str) -> String {
    sql.replace("annoy(t, v", "annoy(t, v, storage=inline")
}

/// What a user does that touches files.
const WORK: [&str; 6] = [
    "INSERT INTO ix(ix) VALUES('refresh')",
    "INSERT INTO ix(ix) VALUES('rebuild')",
    "CREATE VIRTUAL TABLE other USING annoy(t, v)",
    "ALTER TABLE ix RENAME TO jx",
    "DROP TABLE ix",
    "BEGIN; DROP TABLE ix; CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2); ROLLBACK",
];

/// The answers of whichever indexes there are agree with the table, and nothing is out of order.
fn check(conn: &Connection, what: &str) {
    let text = |sql: &str| -> String {
        conn.query_row(sql, [], |row| row.get(0))
            .unwrap_or_else(|e| panic!("{what}: {sql}: {e}"))
    };
    assert_eq!(text("PRAGMA integrity_check"), "ok", "{what}");
    let answer = |source: &str| {
        text(&format!(
            "SELECT json_group_array(json_array(rowid, distance)) FROM {source}"
        ))
    };
    let truth = answer("knn_exact('bare', 'v', '[3, 3.1]', 12, '{\"metric\":\"l2\"}')");
    for index in ["ix", "jx"] {
        let there =
            format!("SELECT CAST(count(*) AS TEXT) FROM sqlite_schema WHERE name = '{index}'");
        if text(&there) == "1" {
            assert_eq!(
                answer(&format!("knn_annoy('{index}', '[3, 3.1]', 12)")),
                truth,
                "{what}"
            );
        }
    }
}

/// What to begin with, and what to do then.
fn works() -> impl Iterator<Item = (String, String)> {
    let files = WORK.map(|work| (PREPARE.to_owned(), work.to_owned()));
    let rows = WORK.map(|work| (inline(PREPARE), inline(work)));
    files.into_iter().chain(rows)
}

#[test]
fn a_step_that_fails_undoes_the_statement_and_the_next_one_works() {
    for (prepare, work) in works() {
        let work = &work[..];
        for nth in 0.. {
            let folder = Folder::new("steps-fail");
            let conn = open(&folder.0);
            conn.execute_batch(&prepare).unwrap();
            let before = folder.files();
            let mut left = nth;
            let failed = std::rc::Rc::new(std::cell::Cell::new(false));
            let seen = std::rc::Rc::clone(&failed);
            let hook = move |what: &str| {
                left -= 1;
                if left != -1 {
                    return Ok(());
                }
                // A file that can't be removed is no failure: it is swept later.
                seen.set(true);
                Err(io::Error::other(format!("{what}: disk full")))
            };
            let outcome = with_hook(hook, || conn.execute_batch(work));
            if conn.is_autocommit() && outcome.is_err() {
                assert_eq!(folder.files(), before, "{work}, step {nth}");
            }
            if let Err(error) = &outcome {
                assert!(error.to_string().contains("disk full"), "{work}: {error}");
                let _ = conn.execute_batch("ROLLBACK");
            }
            check(&conn, work);
            check(&open(&folder.0), work);
            if !failed.get() {
                assert!(nth > 0 || prepare.contains("inline"), "{work} has no step");
                break;
            }
            let _ = conn.execute_batch("INSERT INTO ix(ix) VALUES('rebuild')");
            check(&conn, work);
        }
    }
}

#[test]
fn a_disk_without_room_is_noticed_before_a_build_begins() {
    let folder = Folder::new("steps-room");
    let conn = open(&folder.0);
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 4000)
         INSERT INTO t SELECT i, vec_f32('[' || (i % 97) || replace(hex(zeroblob(255)), '00', ',1') || ']') FROM c;
         CREATE VIRTUAL TABLE ix USING annoy(t, v, max_memory=6)",
    )
    .unwrap();
    let before = folder.files();
    let no_room = |what: &str| match what {
        "room" => Err(io::Error::other("none")),
        _ => Ok(()),
    };
    let error = with_hook(no_room, || {
        conn.execute_batch("INSERT INTO ix(ix) VALUES('rebuild')")
            .unwrap_err()
    });
    let (said, place) = (error.to_string(), folder.0.display().to_string());
    // Two to three times the vectors, which have 4 MB.
    let told = (8..=12).any(|mib| {
        said.contains(&format!("needs {mib} MiB of disk in {place} for"))
            && said.contains(&format!(
                "and 0 MiB are free there: free {mib} more, or move"
            ))
    });
    assert!(told, "{said}");
    assert_eq!(folder.files(), before);
    conn.execute_batch("INSERT INTO ix(ix) VALUES('integrity-check')")
        .unwrap();
}

#[test]
fn a_crash_at_any_step_leaves_the_old_answer_or_the_new() {
    for journal in ["wal", "delete"] {
        for (prepare, work) in works() {
            let work = &work[..];
            let folder = Folder::new("steps-crash");
            let conn = open(&folder.0);
            let _: String = conn
                .query_row(&format!("PRAGMA journal_mode = {journal}"), [], |r| {
                    r.get(0)
                })
                .unwrap();
            conn.execute_batch(&prepare).unwrap();
            let (from, crashes) = (folder.0.clone(), Folder::new("steps-crashes"));
            let (to, mut n) = (crashes.0.clone(), 0);
            // What lies in the folder now is what the next start finds.
            let hook = move |_: &str| {
                let to = to.join(n.to_string());
                n += 1;
                std::fs::create_dir(&to)?;
                for entry in std::fs::read_dir(&from)? {
                    let entry = entry?;
                    // Shared memory is made anew.
                    if !entry.file_name().to_string_lossy().ends_with("-shm") {
                        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
                    }
                }
                Ok(())
            };
            with_hook(hook, || conn.execute_batch(work)).unwrap();
            let mut crashed = 0;
            for entry in std::fs::read_dir(&crashes.0).unwrap() {
                let copy = entry.unwrap().path();
                let conn = open(&copy);
                let files = Folder(copy);
                check(&conn, work);
                // Whatever is built or dropped later sweeps what the crash left of any index, but of one that lives.
                conn.execute_batch("CREATE VIRTUAL TABLE later USING annoy(t, v)")
                    .unwrap();
                let living = |file: &String| {
                    ["ix", "jx", "other", "later"].iter().any(|index| {
                        let sql = format!("SELECT 1 FROM sqlite_schema WHERE name = '{index}'");
                        file.starts_with(&format!("app.db-{index}-"))
                            && file.ends_with(".annoy")
                            && conn.prepare(&sql).unwrap().exists([]).unwrap()
                    })
                };
                assert!(
                    files.files().iter().all(living),
                    "{work}: {:?}",
                    files.files()
                );
                conn.execute_batch("DROP TABLE later").unwrap();
                check(&conn, work);
                // And of that, its own next build.
                if conn
                    .execute_batch("INSERT INTO ix(ix) VALUES('rebuild')")
                    .is_ok()
                {
                    check(&conn, work);
                    let ours = files
                        .files()
                        .into_iter()
                        .filter(|f| f.contains("-ix-"))
                        .count();
                    let expected = usize::from(!prepare.contains("inline"));
                    assert_eq!(ours, expected, "{work}: {:?}", files.files());
                }
                crashed += 1;
            }
            assert!(
                crashed > 0 || prepare.contains("inline"),
                "{work} has no step"
            );
        }
    }
}

#[test]
fn a_progress_handler_that_counts_in_thousands_ends_the_writing_of_a_file() {
    let folder = Folder::new("handler");
    let conn = open(&folder.0);
    let (ids, rows) = ([1, 2, 3], [0.0, 1.0, 2.0]);
    let vectors = crate::forest::Vectors {
        dim: 1,
        ids: &ids,
        rows: &rows,
    };
    let options = crate::forest::BuildOptions {
        metric: crate::vector::Metric::L2,
        trees: 1,
        seed: 1,
        threads: 1,
        store: crate::forest::VectorStore::F32,
    };
    let image = crate::forest::build(&vectors, &options, &crate::job::Job::new()).unwrap();
    let path = |name: &str| folder.0.join(name);
    let (database, temporary, file) = (path("app.db"), path("ix.tmp"), path("ix.annoy"));
    let write = || super::write(&conn, (&database, &temporary, &file), &image);
    let written = testing::with_handler(&conn, 1000, 0, write);
    assert!(written.unwrap_err().is::<crate::job::Interrupted>());
    write().unwrap();
}
