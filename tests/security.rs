//! A hostile database gains nothing: what its schema can call, where its names lead, what its numbers cost.

#![cfg(unix)]

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{error, one};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use xxhash_rust::xxh3::xxh3_64;

/// A table of 40 rows with an index, and a model of words.
fn prepare(folder: &Path) -> Connection {
    let conn = common::open(folder.join("app.db"));
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, keep INTEGER, body TEXT, v BLOB);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40)
         INSERT INTO t SELECT i, 1, 'a b c a b c', vec_f32('[' || i || ',' || (i * 7 % 11) || ']') FROM c;
         CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2);
         SELECT word2vec_train('words', 't', 'body', '{\"vector_size\":4, \"min_count\":1, \"epochs\":1}');",
    )
    .unwrap();
    conn
}

const SEARCH: &str = "SELECT group_concat(rowid) FROM knn_annoy('ix', '[3,4]', 5)";
const TRUTH: &str = "SELECT group_concat(rowid) FROM (SELECT id AS rowid FROM t
                     ORDER BY vec_distance_l2(v, '[3,4]'), id LIMIT 5)";

/// Everything in a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn no_view_and_no_trigger_can_call_what_writes_or_reads_files() {
    let folder = tempfile::tempdir().unwrap();
    let conn = prepare(folder.path());
    let names = include_str!("../sql/names.expected");
    let functions = names
        .lines()
        .filter_map(|line| line.strip_suffix(" direct"));
    let mut calls: Vec<String> = functions
        .map(|f| {
            let (name, n) = f.strip_suffix(')').unwrap().split_once('(').unwrap();
            let nulls = vec!["NULL"; n.parse().unwrap()];
            format!("SELECT {name}({})", nulls.join(", "))
        })
        .collect();
    assert!(calls.len() > 15, "{calls:?}");
    calls.extend(
        [
            "vectors_read('x')",
            "text_lines('x')",
            "annoy_read('x', 2, 'angular')",
            "annoy_time('SELECT 1')",
            "evaluate_word_pairs('words', 'x')",
            "evaluate_word_analogies('words', 'x')",
        ]
        .map(|call| format!("SELECT * FROM {call}")),
    );
    let before = files(folder.path());
    for trusted in ["on", "off"] {
        conn.execute_batch(&format!("PRAGMA trusted_schema = {trusted}"))
            .unwrap();
        for call in &calls {
            conn.execute_batch(&format!(
                "CREATE VIEW trap AS {call};
                 CREATE TABLE bait(x);
                 CREATE TRIGGER spring AFTER INSERT ON bait BEGIN {call}; END;"
            ))
            .unwrap();
            for touch in ["SELECT * FROM trap", "INSERT INTO bait VALUES(1)"] {
                let said = error(&conn, touch);
                assert!(
                    said.contains("unsafe use of"),
                    "{trusted}, {call}, {touch}: {said}"
                );
            }
            conn.execute_batch("DROP VIEW trap; DROP TABLE bait")
                .unwrap();
        }
    }
    assert_eq!(files(folder.path()), before);
    // A command to an index works in a trigger that is trusted, and in no other.
    conn.execute_batch(
        "CREATE TABLE bait(x);
         CREATE TRIGGER spring AFTER INSERT ON bait BEGIN INSERT INTO ix(ix) VALUES('rebuild'); END",
    )
    .unwrap();
    let said = error(&conn, "INSERT INTO bait VALUES(1)");
    assert!(said.contains("unsafe use of virtual table"), "{said}");
    conn.execute_batch("PRAGMA trusted_schema = on; INSERT INTO bait VALUES(1)")
        .unwrap();
}

#[test]
fn the_expression_of_a_partial_index_can_do_no_more_than_a_schema_may() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    let conn = prepare(folder.path());
    conn.execute_batch(
        "DROP TABLE ix; CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, where='keep = 1')",
    )
    .unwrap();
    let options: String = one(&conn, "SELECT value FROM ix_catalog WHERE key = 'options'");
    let schema: Vec<(String, String)> = conn
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
        .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
        .unwrap();
    let write = format!(
        "model_export('words', '{}', '{{\"format\":\"word2vec\"}}')",
        victim.display()
    );
    for evil in [
        format!("{write} IS NOT NULL"),
        format!("(SELECT {write}) IS NOT NULL"),
        format!("1) UNION ALL SELECT {write}, NULL FROM (SELECT 1 WHERE (1"),
        format!("1 UNION ALL SELECT {write}, NULL"),
        format!("1); SELECT ({write}"),
        format!("EXISTS(SELECT 1 FROM vectors_read('{}'))", victim.display()),
    ] {
        // As an attacker makes a database: by whatever means, of whatever SQLite lets stand there.
        conn.execute_batch("PRAGMA writable_schema = on").unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&options).unwrap();
        json["where"] = evil.clone().into();
        conn.execute(
            "UPDATE ix_catalog SET value = ?1 WHERE key = 'options'",
            [json.to_string()],
        )
        .unwrap();
        for (name, sql) in &schema {
            // In a comment, so that the trigger itself stays harmless.
            let sql = sql
                .replace("/* where: */", "")
                .replace("/* :where */", "")
                .replacen(
                    "BEGIN",
                    &format!("BEGIN -- /* where: */ {evil}\n/* :where */\n"),
                    1,
                );
            conn.execute(
                "UPDATE sqlite_schema SET sql = ?2 WHERE name = ?1",
                (name, sql),
            )
            .unwrap();
        }
        conn.execute_batch("PRAGMA writable_schema = reset")
            .unwrap();
        for trusted in ["on", "off"] {
            let host = common::open(folder.path().join("app.db"));
            host.execute_batch(&format!("PRAGMA trusted_schema = {trusted}"))
                .unwrap();
            for sql in [
                SEARCH,
                "SELECT group_concat(rowid) FROM ix WHERE v MATCH '[3,4]' AND k = 5",
                "SELECT group_concat(value) FROM annoy_info('ix')",
                "INSERT INTO ix(ix) VALUES('rebuild') RETURNING 1",
                "INSERT INTO ix(ix) VALUES('refresh') RETURNING 1",
                "INSERT INTO ix(ix) VALUES('integrity-check') RETURNING 1",
                "SELECT count(*) FROM knn_exact('t', 'v', '[3,4]', 5)",
            ] {
                // Answer or error: what counts is what it does.
                let _ = host.query_row(sql, [], |row| row.get::<_, Value>(0));
                assert!(!victim.exists(), "{trusted}: {sql} ran {evil}");
            }
        }
    }
}

#[test]
fn no_name_leads_out_of_the_folder_of_the_database() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let conn = prepare(&folder);
    for name in [
        "../up",
        "/tmp/absolute",
        "..",
        ".",
        "a/../../b",
        "ü\u{202e} \t%2f",
        "nul\u{1}",
    ] {
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE \"{name}\" USING annoy(t, v, metric=l2);
             ALTER TABLE \"{name}\" RENAME TO \"{name}/../x\";
             INSERT INTO \"{name}/../x\"(\"{name}/../x\") VALUES('rebuild')"
        ))
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    assert_eq!(files(around.path()), ["data"]);
    let all = files(&folder);
    assert_eq!(all.len(), 1 + 8, "{all:?}");
    assert!(all.iter().all(|f| f.starts_with("app.db")), "{all:?}");
}

#[test]
fn planted_links_and_pipes_are_neither_followed_nor_waited_for() {
    let around = tempfile::tempdir().unwrap();
    let folder = around.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let victim = around.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let conn = prepare(&folder);
    let path = |name: &str| folder.join(format!("app.db-ix-{name}"));
    let untouched = |when: &str| {
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious", "{when}");
        assert_eq!(files(around.path()), ["data", "victim"], "{when}");
    };
    let rebuild = || {
        conn.execute_batch("INSERT INTO ix(ix) VALUES('rebuild')")
            .unwrap();
        let state: String = one(
            &conn,
            "SELECT value FROM annoy_info('ix') WHERE key = 'state'",
        );
        assert_eq!(state, "current");
    };
    let truth: String = one(&conn, TRUTH);

    // Where the next build writes, first to exactly its temporary name.
    symlink(
        &victim,
        path(&format!("2.annoy.tmp-{}", std::process::id())),
    )
    .unwrap();
    rebuild();
    untouched("a link at the temporary name");
    for n in 3..6 {
        symlink(around.path().join("created"), path(&format!("{n}.annoy"))).unwrap();
    }
    symlink(&victim, path("6.annoy")).unwrap();
    std::fs::create_dir(path("7.annoy")).unwrap();
    rebuild();
    untouched("links at names to come");

    // What a search opens.
    let current: String = one(&conn, "SELECT value FROM ix_catalog WHERE key = 'current'");
    let file = path(&format!("{}.annoy", current.split(':').next().unwrap()));
    let elsewhere = around.path().join("data/elsewhere");
    std::fs::rename(&file, &elsewhere).unwrap();
    type Plant<'a> = &'a dyn Fn();
    let plants: [(&str, Plant<'_>); 3] = [
        ("a link", &|| symlink(&elsewhere, &file).unwrap()),
        ("a pipe", &|| {
            let made = std::process::Command::new("mkfifo").arg(&file).status();
            assert!(made.unwrap().success());
        }),
        ("a folder", &|| std::fs::create_dir(&file).unwrap()),
    ];
    for (what, plant) in plants {
        plant();
        let began = Instant::now();
        let other = common::open(folder.join("app.db"));
        assert_eq!(one::<String>(&other, SEARCH), truth, "{what}");
        let state: String = one(
            &other,
            "SELECT value FROM annoy_info('ix') WHERE key = 'state'",
        );
        assert!(state.contains("not a regular file"), "{what}: {state}");
        other
            .execute_batch("ALTER TABLE ix RENAME TO jx; ALTER TABLE jx RENAME TO ix")
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        untouched(what);
        let _ = std::fs::remove_file(&file);
        let _ = std::fs::remove_dir(&file);
    }
    rebuild();
    untouched("repaired");
}

#[test]
fn the_file_has_the_permissions_of_the_database() {
    for mode in [0o600, 0o640, 0o664, 0o666] {
        let folder = tempfile::tempdir().unwrap();
        let conn = prepare(folder.path());
        std::fs::set_permissions(
            folder.path().join("app.db"),
            std::fs::Permissions::from_mode(mode),
        )
        .unwrap();
        conn.execute_batch(
            "INSERT INTO ix(ix) VALUES('rebuild'); UPDATE t SET v = zeroblob(8) WHERE id = 3;
             INSERT INTO ix(ix) VALUES('refresh'); ALTER TABLE ix RENAME TO jx",
        )
        .unwrap();
        let all = files(folder.path());
        assert!(all.len() >= 2, "{all:?}");
        for name in all {
            let got = std::fs::metadata(folder.path().join(&name))
                .unwrap()
                .permissions();
            assert_eq!(got.mode() & 0o777, mode, "{name}");
        }
    }
}

#[test]
fn a_catalogue_of_nonsense_is_an_error_or_the_answer_of_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let conn = prepare(folder.path());
    let truth: String = one(&conn, TRUTH);
    let keys = common::CATALOGUE.into_iter().chain(["hides:1"]);
    let many: String = (1..5000)
        .map(|i| format!("{i}:{i:016x}:{i:016x} "))
        .collect();
    let values = [
        Value::Null,
        Value::Integer(-1),
        Value::Integer(i64::MAX),
        Value::Real(f64::INFINITY),
        Value::Blob(vec![0xff; 1000]),
        Value::Text(String::new()),
        Value::Text("../../x".into()),
        Value::Text("sqlite_schema".into()),
        Value::Text("{}".into()),
        Value::Text("[[[[".into()),
        Value::Text(r#"{"metric":"l2","trees":4000000000,"seed":1,"threads":9999999999999,"auto_refresh":1e308}"#.into()),
        Value::Text("9223372036854775807:0123456789abcdef".into()),
        Value::Text("-5:0123456789abcdef 1:-:0123456789abcdef".into()),
        Value::Text(many.trim_end().into()),
    ];
    let before = files(folder.path());
    for key in keys {
        let saved: Option<Value> = conn
            .query_row("SELECT value FROM ix_catalog WHERE key = ?1", [key], |r| {
                r.get(0)
            })
            .ok();
        for value in &values {
            conn.execute("REPLACE INTO ix_catalog VALUES(?1, ?2)", (key, value))
                .unwrap();
            let began = Instant::now();
            let host = common::open(folder.path().join("app.db"));
            for sql in [
                SEARCH,
                "SELECT group_concat(value) FROM annoy_info('ix')",
                "SELECT group_concat(name) FROM annoy_indexes",
                "BEGIN; INSERT INTO ix(ix) VALUES('refresh')",
                "ROLLBACK",
                "BEGIN; INSERT INTO ix(ix) VALUES('rebuild')",
                "ROLLBACK",
                "INSERT INTO ix(ix) VALUES('integrity-check')",
                "PRAGMA integrity_check",
                "UPDATE t SET body = body WHERE id = 1",
            ] {
                let outcome = if sql.starts_with("SELECT") {
                    host.query_row(sql, [], |row| row.get::<_, Option<String>>(0))
                } else {
                    host.execute_batch(sql).map(|()| None)
                };
                match outcome {
                    Ok(Some(answer)) if sql == SEARCH => {
                        assert_eq!(answer, truth, "{key} = {value:?}");
                    }
                    Ok(_) => {}
                    Err(error) => assert!(
                        !error.to_string().contains("internal error"),
                        "{key} = {value:?}: {sql}: {error}"
                    ),
                }
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{key} = {value:?}"
            );
        }
        match saved {
            Some(value) => conn.execute("REPLACE INTO ix_catalog VALUES(?1, ?2)", (key, value)),
            None => conn.execute("DELETE FROM ix_catalog WHERE key = ?1", [key]),
        }
        .unwrap();
    }
    // A file that no catalogue named for a while may have been swept: the table answers, then.
    assert!(files(folder.path()).iter().all(|f| before.contains(f)));
    assert_eq!(one::<String>(&conn, SEARCH), truth);
}

const BOMBS: &str = "SQLITE_ANNOY_TEST_BOMBS";

/// Runs itself as a child that may have two gigabytes of addresses: an allocation beyond them ends it.
#[test]
fn numbers_that_promise_too_much_are_errors_in_little_time_and_memory() {
    if std::env::var_os(BOMBS).is_some() {
        bombs();
        return;
    }
    let child = std::process::Command::new("sh")
        // `tests/sanitize` says `unlimited`: AddressSanitizer's shadow takes terabytes of addresses.
        .args([
            "-c",
            "ulimit -v ${BOMB_ADDRESSES:-2000000}; exec \"$0\" \"$@\"",
        ])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "numbers_that_promise_too_much_are_errors_in_little_time_and_memory",
            "--nocapture",
        ])
        .env(BOMBS, "1")
        // On a machine of many processors each thread would reserve addresses of its own.
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}\n{said}", child.status);
    assert!(said.contains("all bombs are duds"), "{said}");
}

/// The processor's time that this process has had: unlike a clock, it does not go on while others run.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: user and system time, in hundredths of seconds.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n| fields.split_whitespace().nth(n)?.parse::<u64>().ok();
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Duration::from_millis(10 * (user + system)),
        // Not Linux: the clock, then.
        _ => {
            static BEGAN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
            BEGAN.elapsed()
        }
    }
}

fn bombs() {
    let folder = tempfile::tempdir().unwrap();
    let conn = prepare(folder.path());
    let wrong = std::cell::RefCell::new(Vec::new());
    let refuses = |sql: &str, value: &Value, part: &str| {
        let began = processor_time();
        let outcome = conn.prepare(sql).and_then(|mut statement| {
            let n = statement.parameter_count();
            statement.query_row(params_from_iter([value].into_iter().take(n)), |row| {
                row.get::<_, Value>(0)
            })
        });
        let took = processor_time() - began;
        eprintln!("{took:?} {sql}");
        match outcome {
            Err(error) if error.to_string().contains(part) && took < Duration::from_secs(10) => {}
            outcome => wrong
                .borrow_mut()
                .push(format!("{took:?} {sql}: {outcome:?}")),
        }
    };
    let none = Value::Null;
    let answers = |sql: &str, expected: i64| {
        let began = processor_time();
        assert_eq!(one::<i64>(&conn, sql), expected, "{sql}");
        let took = processor_time() - began;
        assert!(took < Duration::from_secs(10), "{sql}: {took:?}");
    };

    // More neighbours than there are rows: all rows.
    for k in [1u64 << 40, i64::MAX as u64] {
        answers(
            &format!("SELECT count(*) FROM knn_exact('t', 'v', '[1,2]', {k})"),
            40,
        );
        answers(
            &format!("SELECT count(*) FROM knn_annoy('ix', '[1,2]', {k})"),
            40,
        );
        answers(
            &format!("SELECT count(*) FROM knn_annoy('ix', '[1,2]', 5, {k})"),
            5,
        );
        answers(
            &format!("SELECT count(*) FROM ix WHERE v MATCH '[1,2]' AND k = {k}"),
            40,
        );
        answers(
            &format!("SELECT count(*) FROM knn_exact_batch('t', 'v', '[[1,2]]', {k})"),
            40,
        );
        answers(
            &format!("SELECT count(*) FROM knn_annoy_batch('ix', '[[1,2]]', {k})"),
            40,
        );
        answers(
            &format!("SELECT count(*) FROM (SELECT 1 FROM knn_exact('t', 'v', '[1,2]') LIMIT {k})"),
            40,
        );
        answers(&format!("SELECT count(*) FROM mmr('ix', '[1,2]', {k})"), 40);
        answers(
            &format!("SELECT count(*) FROM most_similar('words', 'a', NULL, {k})"),
            2,
        );
    }
    for (options, part) in [
        (
            "trees=1000000000",
            "trees must be an integer from 1 to 10000",
        ),
        (
            "threads=1000000000",
            "threads must be an integer from 0 to 1024",
        ),
    ] {
        let said = error(
            &conn,
            &format!("CREATE VIRTUAL TABLE big USING annoy(t, v, {options})"),
        );
        assert!(said.contains(part), "{said}");
    }
    for (option, part) in [
        ("\"vector_size\":1000000000", "vector_size"),
        ("\"negative\":1000000000", "negative"),
        ("\"threads\":1000000000", "threads"),
    ] {
        refuses(
            &format!("SELECT word2vec_train('big', 't', 'body', '{{{option}}}')"),
            &none,
            part,
        );
    }
    refuses(
        "SELECT * FROM annoy_sweep('t', 'v', '1000000000', 3)",
        &none,
        "expected numbers from 1 to 10000",
    );
    refuses(
        "SELECT * FROM annoy_sweep('t', 'v', '1..1000000000', 3)",
        &none,
        "expected numbers from 1 to 10000",
    );

    // A hundred million numbers.
    let mut long = String::with_capacity(200_000_010);
    long.push('[');
    for _ in 0..100_000 {
        long.push_str(&"1,".repeat(1000));
    }
    long.push_str("1]");
    let numbers = Value::Text(long);
    refuses("SELECT vec_f32(?1)", &numbers, "at most 65536 components");
    refuses(
        "SELECT * FROM knn_exact('t', 'v', ?1, 3)",
        &numbers,
        "at most 65536 components",
    );
    refuses(
        "SELECT * FROM knn_annoy('ix', ?1, 3)",
        &numbers,
        "at most 65536 components",
    );
    refuses(
        "SELECT * FROM most_similar('words', ?1, NULL, 3)",
        &numbers,
        "bytes of JSON",
    );
    refuses(
        "SELECT doesnt_match('words', ?1)",
        &numbers,
        "bytes of JSON",
    );
    refuses(
        "SELECT * FROM knn_exact_batch('t', 'v', '[' || ?1 || ']', 3)",
        &numbers,
        "at most 65536 components",
    );
    refuses(
        "SELECT word2vec_train('big', 't', 'body', '{\"stop_words\":' || ?1 || '}')",
        &numbers,
        "bytes of JSON",
    );
    refuses(
        "SELECT * FROM knn_annoy('ix', '[1,2]', 3, '{\"recall\":' || ?1 || '}')",
        &numbers,
        "expected a number",
    );
    drop(numbers);

    // Files that claim more than they hold.
    let mut npy = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 65536), }".to_vec();
    npy.resize(8 + 2 + 0x76 - 1, b' ');
    npy.push(b'\n');
    let mut fasttext = 793_712_314i32.to_le_bytes().to_vec();
    for field in [12i32, 65536, 5, 5, 1, 5, 1, 2, 2, i32::MAX, 3, 6, 100] {
        fasttext.extend(field.to_le_bytes());
    }
    fasttext.extend(1e-4f64.to_le_bytes());
    for n in [i32::MAX, i32::MAX, 0] {
        fasttext.extend(n.to_le_bytes());
    }
    fasttext.extend([0xff; 7]);
    fasttext.extend([0x7f; 9]);
    for (name, bytes) in [
        ("bomb.npy", npy),
        ("bomb.fvecs", [i32::MAX.to_le_bytes(), [0; 4]].concat()),
        ("bomb.txt", b"18446744073709551615 65536\na 1".to_vec()),
        (
            "bomb.bin",
            b"18446744073709551615 65536\na \0\0\0\0".to_vec(),
        ),
        ("model.bin", fasttext),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let path = Value::Text(path.display().to_string());
        if name != "model.bin" {
            let format = match name {
                "bomb.bin" => "word2vec-binary",
                "bomb.txt" => "word2vec",
                _ => name.strip_prefix("bomb.").unwrap(),
            };
            refuses(
                &format!("SELECT * FROM vectors_read(?1, '{format}')"),
                &path,
                "bomb",
            );
        }
        refuses("SELECT model_import('imported', ?1)", &path, "");
        refuses(
            "SELECT count(*) FROM annoy_read(?1, 2000000000, 'angular')",
            &path,
            "",
        );
    }

    // An index file with a true checksum and untrue numbers: the table answers.
    let truth: String = one(&conn, TRUTH);
    let file = folder.path().join("app.db-ix-1.annoy");
    let good = std::fs::read(&file).unwrap();
    for (at, bytes) in [
        (36, &(1u32 << 31).to_le_bytes()[..]),
        (36, &65_536u32.to_le_bytes()),
        (48, &(1u64 << 60).to_le_bytes()),
        (48, &u64::from(u32::MAX).to_le_bytes()),
        (56, &1_000_000_000u32.to_le_bytes()),
        (56, &10_000u32.to_le_bytes()),
        (60, &u32::MAX.to_le_bytes()),
        (128 + 16, &(1u64 << 60).to_le_bytes()),
        (128 + 8, &u64::MAX.to_le_bytes()),
    ] {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let table_end = (128 + 32 * u32::from_le_bytes(good[60..64].try_into().unwrap()) as usize)
            .next_multiple_of(64);
        bad[24..32].fill(0);
        let checksum = xxh3_64(&bad[..table_end]);
        bad[24..32].copy_from_slice(&checksum.to_le_bytes());
        std::fs::write(&file, &bad).unwrap();
        // Whoever writes the file writes the catalogue, too.
        conn.execute(
            "UPDATE ix_catalog SET value = ?1 WHERE key = 'current'",
            [format!("1:{checksum:016x}")],
        )
        .unwrap();
        let host = common::open(folder.path().join("app.db"));
        assert_eq!(one::<String>(&host, SEARCH), truth, "at {at}: {bytes:?}");
        let state: String = one(
            &host,
            "SELECT value FROM annoy_info('ix') WHERE key = 'state'",
        );
        assert!(state.starts_with("fallback"), "at {at}: {bytes:?}: {state}");
    }
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("all bombs are duds");
}
