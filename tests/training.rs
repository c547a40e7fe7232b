//! `word2vec_train` and what is asked of its models, in SQL.

mod common;

use common::{error, memory, one, open, rows};
use rusqlite::Connection;
use rusqlite::types::Value;
use serde_json::Value as Json;

/// Documents about animals and documents about tools, with words in common. Generated: xorshift with a fixed seed.
fn corpus(conn: &Connection, n: usize) {
    conn.execute_batch("CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT)")
        .unwrap();
    let topics = [
        ["cat", "dog", "horse", "cow", "sheep", "goat"],
        ["hammer", "saw", "drill", "nail", "screw", "pliers"],
    ];
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    let mut insert = conn.prepare("INSERT INTO docs(body) VALUES(?1)").unwrap();
    for d in 0..n {
        let words: Vec<&str> = (0..20)
            .map(|_| match below(4) {
                0 => ["the", "and", "of"][below(3)],
                _ => topics[d % 2][below(6)],
            })
            .collect();
        insert.execute([words.join(" ")]).unwrap();
    }
}

fn trained(options: &str) -> Connection {
    let conn = memory();
    corpus(&conn, 300);
    train(&conn, options);
    conn
}

fn train(conn: &Connection, options: &str) -> Json {
    let sql = format!("SELECT word2vec_train('words', 'docs', 'body', '{options}')");
    serde_json::from_str(&one::<String>(conn, &sql)).unwrap()
}

const SMALL: &str = r#"{"vector_size":12, "sample":0, "epochs":10}"#;

fn texts(conn: &Connection, sql: &str) -> Vec<String> {
    rows(conn, sql)
        .into_iter()
        .map(|row| match &row[0] {
            Value::Text(text) => text.clone(),
            other => panic!("{sql}: {other:?}"),
        })
        .collect()
}

/// Everything the database holds.
fn everything(conn: &Connection) -> Vec<Vec<Value>> {
    let mut all = rows(conn, "SELECT name, sql FROM sqlite_schema ORDER BY name");
    for name in texts(
        conn,
        "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
    ) {
        all.extend(rows(
            conn,
            &format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")),
        ));
    }
    all
}

#[test]
fn training_makes_the_two_tables_and_tells_what_it_did() {
    let conn = memory();
    corpus(&conn, 300);
    let summary = train(&conn, SMALL);
    assert_eq!(summary["vocabulary"], 15);
    assert_eq!(summary["vector_size"], 12);
    assert_eq!(summary["documents"], 300);
    assert_eq!(summary["tokens"], 6000);
    assert_eq!(summary["tokens_in_vocabulary"], 6000);
    assert_eq!(summary["epochs"], 10);
    assert_eq!(summary["effective_words"], 60_000);
    assert!(summary["seconds"].as_f64().unwrap() > 0.0);
    assert!(summary["words_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(summary["losses"].as_array().unwrap().len(), 10);
    assert_eq!(summary["losses"][9], summary["loss"]);

    assert_eq!(
        rows(&conn, "SELECT name FROM pragma_table_info('words')").len(),
        4
    );
    assert_eq!(one::<i64>(&conn, "SELECT min(id) FROM words"), 0);
    assert_eq!(one::<i64>(&conn, "SELECT max(id) FROM words"), 14);
    assert_eq!(one::<i64>(&conn, "SELECT sum(count) FROM words"), 6000);
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT count(*) FROM words a JOIN words b ON b.id = a.id + 1 WHERE b.count > a.count"
        ),
        0,
        "ids follow the counts"
    );
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT count(*) FROM words WHERE length(vector) <> 48"
        ),
        0
    );
    assert_eq!(
        texts(&conn, "SELECT key || part FROM words_model ORDER BY key"),
        ["format0", "options0", "output0", "summary0"]
    );
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT length(value) FROM words_model WHERE key = 'output'"
        ),
        15 * 48
    );
    let options: Json = serde_json::from_str(&one::<String>(
        &conn,
        "SELECT value FROM words_model WHERE key = 'options'",
    ))
    .unwrap();
    assert_eq!(options["vector_size"], 12);
    assert_eq!(options["negative"], 5);
}

#[test]
fn words_of_one_kind_are_most_similar_in_every_mode() {
    for mode in [
        r#""sg":1"#,
        r#""sg":0"#,
        r#""sg":1, "hs":1, "negative":0"#,
        r#""sg":0, "hs":1, "negative":0"#,
    ] {
        let conn = trained(&format!(
            r#"{{{mode}, "vector_size":12, "sample":0, "epochs":20}}"#
        ));
        let mut nearest = texts(
            &conn,
            "SELECT word FROM most_similar('words', 'cat', NULL, 5)",
        );
        nearest.sort();
        assert_eq!(nearest, ["cow", "dog", "goat", "horse", "sheep"], "{mode}");
    }
}

#[test]
fn most_similar_takes_words_arrays_and_vectors() {
    let conn = trained(SMALL);
    let all = rows(
        &conn,
        "SELECT word, similarity FROM most_similar('words', 'cat')",
    );
    assert_eq!(all.len(), 14, "all words but the one given");
    let similarities: Vec<f64> = all
        .iter()
        .map(|row| {
            if let Value::Real(s) = row[1] {
                s
            } else {
                panic!("{row:?}")
            }
        })
        .collect();
    assert!(similarities.is_sorted_by(|a, b| a >= b));
    assert!(
        (one::<f64>(&conn, "SELECT similarity('words', 'cat', 'dog')")
            - one::<f64>(
                &conn,
                "SELECT similarity FROM most_similar('words', 'cat') WHERE word = 'dog'"
            ))
        .abs()
            < 1e-6
    );

    // An array of one word is the word; a vector leaves nothing out.
    let same = "SELECT word, similarity FROM most_similar('words', '[\"cat\"]')";
    assert_eq!(rows(&conn, same), all);
    let by_blob = "SELECT s.word FROM words w, most_similar('words', w.vector, NULL, 1) s WHERE w.word = 'cat'";
    assert_eq!(texts(&conn, by_blob), ["cat"]);
    let json: String = one(
        &conn,
        "SELECT '[' || group_concat(CASE n WHEN 3 THEN 1.0 ELSE 0.0 END) || ']'
         FROM (WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 12) SELECT n FROM c)",
    );
    assert_eq!(
        rows(
            &conn,
            &format!("SELECT * FROM most_similar('words', '{json}')")
        )
        .len(),
        15
    );
    let mixed = format!("SELECT * FROM most_similar('words', '[\"cat\", {json}]', 'saw', 3)");
    assert_eq!(rows(&conn, &mixed).len(), 3);

    // cat + hammer - dog: the mean of the unit vectors.
    let expected = rows(
        &conn,
        "SELECT word FROM most_similar('words', '[\"cat\",\"hammer\"]', '[\"dog\"]')",
    );
    assert_eq!(expected.len(), 12);
    assert_eq!(
        rows(&conn, "SELECT * FROM most_similar('words', NULL, 'cat')").len(),
        14
    );
    assert_eq!(
        rows(&conn, "SELECT * FROM most_similar('words', 'cat', NULL, 0)").len(),
        0
    );
    assert_eq!(
        rows(
            &conn,
            "SELECT * FROM most_similar('words', 'cat', NULL, 1000000)"
        )
        .len(),
        14
    );
    assert_eq!(
        rows(
            &conn,
            "SELECT * FROM most_similar('words', 'cat', NULL, NULL) LIMIT 2"
        )
        .len(),
        2
    );
}

#[test]
fn the_direction_is_the_mean_of_unit_vectors_as_in_gensim() {
    let conn = memory();
    // A model made by hand: what most_similar reads is two ordinary tables.
    conn.execute_batch(
        "CREATE TABLE docs(body); INSERT INTO docs VALUES('a b c d');
         SELECT word2vec_train('m', 'docs', 'body', '{\"vector_size\":2, \"min_count\":1}');",
    )
    .unwrap();
    for (word, x, y) in [
        ("a", 3.0f32, 0.0f32),
        ("b", 0.0, 1.0),
        ("c", 1.0, 1.0),
        ("d", 1.0, -1.0),
    ] {
        let blob: Vec<u8> = [x, y].iter().flat_map(|v| v.to_le_bytes()).collect();
        conn.execute(
            "UPDATE m SET vector = ?1 WHERE word = ?2",
            rusqlite::params![blob, word],
        )
        .unwrap();
    }
    let half = std::f64::consts::FRAC_1_SQRT_2;
    // Unit vectors (1,0) + (0,1): along c, although a is three times as long.
    let found = rows(
        &conn,
        "SELECT word, similarity FROM most_similar('m', '[\"a\",\"b\"]')",
    );
    assert_eq!(found[0][0], Value::Text("c".into()));
    assert!(matches!(found[0][1], Value::Real(s) if (s - 1.0).abs() < 1e-6));
    // (1,0) - (0,1): along d.
    let found = rows(
        &conn,
        "SELECT word, similarity FROM most_similar('m', 'a', 'b')",
    );
    assert_eq!(found[0][0], Value::Text("d".into()));
    assert!(
        matches!(found[1][1], Value::Real(s) if s.abs() < 1e-6),
        "{found:?}"
    );
    // A vector counts with its length: 4 * (0,1) + (1,0).
    let found = rows(
        &conn,
        "SELECT word, similarity FROM most_similar('m', '[\"a\", [0, 4]]')",
    );
    assert_eq!(found[0][0], Value::Text("b".into()));
    assert!(matches!(found[0][1], Value::Real(s) if (s - 4.0 / 17f64.sqrt()).abs() < 1e-6));
    assert!((one::<f64>(&conn, "SELECT similarity('m', 'a', 'c')") - half).abs() < 1e-6);
    assert_eq!(
        one::<String>(
            &conn,
            "SELECT doesnt_match('m', '[\"a\",\"d\",\"b\",\"no such\"]')"
        ),
        "b"
    );
}

#[test]
fn the_odd_one_out_is_found() {
    let conn = trained(SMALL);
    let sql = r#"SELECT doesnt_match('words', '["cat","dog","hammer","cow"]')"#;
    assert_eq!(one::<String>(&conn, sql), "hammer");
    assert_eq!(
        one::<Option<String>>(&conn, "SELECT doesnt_match('words', NULL)"),
        None
    );
}

#[test]
fn a_texts_vector_is_the_mean_of_its_words() {
    let conn = trained(SMALL);
    let sql =
        "SELECT word FROM most_similar('words', text_vector('words', 'CAT unknown cat'), NULL, 1)";
    assert_eq!(texts(&conn, sql), ["cat"]);
    let mean: Vec<u8> = one(&conn, "SELECT text_vector('words', 'cat dog dog')");
    let of = |word: &str| -> Vec<u8> {
        one(
            &conn,
            &format!("SELECT vector FROM words WHERE word = '{word}'"),
        )
    };
    let floats = |b: Vec<u8>| -> Vec<f32> {
        b.chunks(4)
            .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
            .collect()
    };
    for ((m, c), d) in floats(mean)
        .iter()
        .zip(floats(of("cat")))
        .zip(floats(of("dog")))
    {
        assert!((m - (c + 2.0 * d) / 3.0).abs() < 1e-6);
    }
    assert_eq!(
        one::<Option<Vec<u8>>>(&conn, "SELECT text_vector('words', 'nothing known')"),
        None
    );
    assert_eq!(
        one::<Option<Vec<u8>>>(&conn, "SELECT text_vector('words', NULL)"),
        None
    );
}

#[test]
fn one_thread_writes_the_same_bytes_every_time() {
    for mode in [r#""sg":1"#, r#""sg":0, "hs":1"#] {
        let content = || {
            let conn = trained(&format!(r#"{{{mode}, "vector_size":10}}"#));
            let mut all = rows(&conn, "SELECT * FROM words");
            all.extend(rows(
                &conn,
                "SELECT * FROM words_model WHERE key <> 'summary'",
            ));
            all
        };
        assert_eq!(content(), content());
    }
}

#[test]
fn several_threads_learn_as_well() {
    let conn = trained(r#"{"vector_size":12, "sample":0, "epochs":20, "threads":3}"#);
    let mut nearest = texts(
        &conn,
        "SELECT word FROM most_similar('words', 'saw', NULL, 5)",
    );
    nearest.sort();
    assert_eq!(nearest, ["drill", "hammer", "nail", "pliers", "screw"]);
}

#[test]
fn any_name_any_schema_any_kind_of_table_will_do() {
    let conn = memory();
    corpus(&conn, 50);
    conn.execute_batch(
        "ATTACH ':memory:' AS other;
         CREATE TABLE \"we\"\"ird näme\"(\"co l\"\"\" TEXT, PRIMARY KEY(\"co l\"\"\")) WITHOUT ROWID;
         INSERT INTO \"we\"\"ird näme\" SELECT DISTINCT body FROM docs;
         CREATE VIEW v AS SELECT upper(body) AS b FROM docs;
         CREATE TEMP TABLE t AS SELECT body FROM docs;
         CREATE TABLE generated(a TEXT, b TEXT GENERATED ALWAYS AS (a || ' ' || a));
         INSERT INTO generated(a) SELECT body FROM docs;
         CREATE TABLE strict_one(body TEXT) STRICT; INSERT INTO strict_one SELECT body FROM docs;
         CREATE VIRTUAL TABLE plain USING text_lines_of_nothing;",
    )
    .unwrap_err();
    let small = r#"{"vector_size":4, "epochs":1}"#;
    for (model, table, column) in [
        ("other.words", "docs", "body"),
        ("a \"quoted\" ''näme", "we\"ird näme", "co l\""),
        ("dotted.name", "v", "b"),
        ("temp.words", "temp.t", "BODY"),
        ("MAIN.caps", "generated", "b"),
        ("strict", "main.strict_one", "body"),
    ] {
        let summary: Json = serde_json::from_str(&one::<String>(
            &conn,
            &format!("SELECT word2vec_train('{model}', '{table}', '{column}', '{small}')"),
        ))
        .unwrap();
        assert_eq!(summary["vocabulary"], 15, "{model}");
        assert_eq!(
            rows(
                &conn,
                &format!("SELECT * FROM most_similar('{model}', 'cat', NULL, 3)")
            )
            .len(),
            3
        );
        assert!(
            one::<Option<Vec<u8>>>(&conn, &format!("SELECT text_vector('{model}', 'cat')"))
                .is_some()
        );
    }
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM other.words"), 15);
    assert_eq!(
        one::<i64>(
            &conn,
            "SELECT count(*) FROM temp.words_model WHERE key = 'options'"
        ),
        1
    );
}

#[test]
fn nulls_are_no_documents_and_other_values_are_refused_by_row() {
    let conn = memory();
    corpus(&conn, 20);
    conn.execute_batch("INSERT INTO docs(body) VALUES(NULL), (''), ('cat')")
        .unwrap();
    assert_eq!(train(&conn, r#"{"vector_size":4}"#)["documents"], 22);

    conn.execute_batch("INSERT INTO docs(id, body) VALUES(-7, x'00')")
        .unwrap();
    let call = "SELECT word2vec_train('m', 'docs', 'body')";
    assert_eq!(
        error(&conn, call),
        "the value in docs.body of row -7 is a BLOB: expected text or NULL; cast it, or leave the row out by a view"
    );
    conn.execute_batch("UPDATE docs SET body = CAST(x'61ff' AS TEXT) WHERE id = -7")
        .unwrap();
    assert_eq!(
        error(&conn, call),
        "the text in docs.body of row -7 is not UTF-8 at byte 2: correct it, or leave the row out by a view"
    );
    conn.execute_batch("CREATE VIEW numbers AS SELECT 1 AS n")
        .unwrap();
    assert_eq!(
        error(&conn, "SELECT word2vec_train('m', 'numbers', 'n')"),
        "the value in numbers.n of row number 1 is an integer: expected text or NULL; cast it, or leave the row out by a \
         view"
    );
}

#[test]
fn an_existing_table_stays_unless_it_is_a_model_to_be_replaced() {
    let conn = trained(r#"{"vector_size":4}"#);
    let before = everything(&conn);
    assert_eq!(
        error(&conn, "SELECT word2vec_train('words', 'docs', 'body')"),
        "the model words exists: give the option \"replace\": true to train it anew, or choose another name"
    );
    for taken in ["docs", "DOCS"] {
        assert_eq!(
            error(
                &conn,
                &format!(
                    "SELECT word2vec_train('{taken}', 'docs', 'body', '{{\"replace\":true}}')"
                )
            ),
            "docs exists in 'main' and is not part of a model: choose another name for the model, or drop or rename it"
        );
    }
    assert_eq!(everything(&conn), before);

    train(&conn, r#"{"vector_size":6, "replace":true}"#);
    assert_eq!(
        one::<i64>(&conn, "SELECT max(length(vector)) FROM words"),
        24
    );
    conn.execute_batch("CREATE TABLE half_model(x)").unwrap();
    assert_eq!(
        error(
            &conn,
            "SELECT word2vec_train('half', 'docs', 'body', '{\"replace\":1}')"
        ),
        "half_model exists in 'main' and is not part of a model: choose another name for the model, or drop or rename it"
    );
}

#[test]
fn every_refusal_says_what_to_do_and_changes_nothing() {
    let conn = trained(r#"{"vector_size":4}"#);
    let before = everything(&conn);
    for (sql, message) in [
        (
            "SELECT word2vec_train('m', 'nothing', 'body')",
            "no such table: nothing",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'text')",
            "no such column: text in docs; its columns are id, body",
        ),
        (
            "SELECT word2vec_train(NULL, 'docs', 'body')",
            "word2vec_train: expected the name of a model as argument 1, got Null",
        ),
        (
            "SELECT word2vec_train('', 'docs', 'body')",
            "'' can't name a model: expected a table name",
        ),
        (
            "SELECT word2vec_train('sqlite_m', 'docs', 'body')",
            "'sqlite_m' can't name a model: SQLite keeps names that begin with sqlite_ for itself",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'body', '{\"min_count\":1000}')",
            "no word is left: 6000 tokens of 15 words were read, the most frequent, ",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'body', '{\"window\":0}')",
            "option 'window': expected an integer from 1 to 10000, got 0",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'body', '{\"windw\":2}')",
            "unknown option 'windw'; did you mean 'window'? Valid options: vector_size, alpha, ",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'body', '{window:2}')",
            "options: expected a JSON object such as {\"name\": 1}, got '{window:2}': key must be a string at line 1 \
             column 2",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'body', '{\"replace\":\"yes\"}')",
            "option 'replace': expected false or true, got \"yes\"",
        ),
        (
            "SELECT word2vec_train('m', 'docs', 'body', '{\"progress\":\"radio\"}')",
            "option 'progress': expected \"stderr\" or \"off\", got \"radio\"",
        ),
        (
            "SELECT * FROM most_similar('docs', 'cat')",
            "no such model: docs; expected the name of a model that word2vec_train made (tables docs and docs_model)",
        ),
        (
            "SELECT * FROM most_similar('words', 'Cat')",
            "the word 'Cat' is not in the model words; did you mean 'cat'? Expected a word that occurs at least 5 times \
             (min_count) in its corpus",
        ),
        (
            "SELECT * FROM most_similar('words', '[\"unheard\"]')",
            "the word 'unheard' is not in the model words. Expected a word that occurs at least 5 times (min_count) in \
             its corpus",
        ),
        (
            "SELECT * FROM most_similar('words', NULL)",
            "most_similar: expected at least one word or vector as positive or negative, got none",
        ),
        (
            "SELECT * FROM most_similar('words', '[1, 2, 3]')",
            "Dimension mismatch for a vector compared with the model words. Expected 4 dimensions but received 3.",
        ),
        (
            "SELECT * FROM most_similar('words', x'000000')",
            "invalid float32 vector BLOB length. Must be divisible by 4, found 3",
        ),
        (
            "SELECT * FROM most_similar('words', '[cat]')",
            "positive: expected a word, a JSON array of words, or a vector: expected value at line 1 column 2",
        ),
        (
            "SELECT * FROM most_similar('words', 'cat', NULL, -1)",
            "k must be 0 or more, got -1",
        ),
        (
            "SELECT * FROM most_similar('words', 'cat', NULL, 'many')",
            "k must be an integer, got Text",
        ),
        (
            "SELECT similarity('words', 'cat', '[\"cat\",\"dog\"]')",
            "similarity: expected two words or vectors, got a list",
        ),
        (
            "SELECT doesnt_match('words', '[\"unheard\"]')",
            "doesnt_match: none of the words is in the model words",
        ),
        (
            "SELECT doesnt_match('words', 'cat dog')",
            "doesnt_match: expected a JSON array of words such as [\"a\",\"b\"]: expected value at line 1 column 1",
        ),
        (
            "SELECT text_vector('words', 5)",
            "expected a text, got Integer",
        ),
    ] {
        let got = error(&conn, sql);
        assert!(
            got.starts_with(message),
            "{sql}\n     got {got}\nexpected {message}"
        );
        assert_eq!(everything(&conn), before, "{sql}");
    }
}

#[test]
fn a_read_only_database_is_refused_before_anything_is_trained() {
    let folder = std::env::temp_dir().join(format!("annoy-train-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("read-only.db");
    corpus(&open(&path), 50);
    let conn = open(&path);
    conn.execute_batch("PRAGMA query_only = on").unwrap();
    assert_eq!(
        error(&conn, "SELECT word2vec_train('m', 'docs', 'body')"),
        "PRAGMA query_only is on: expected a connection that may write the model; turn it off first"
    );
    drop(conn);
    let uri = format!("file:{}?mode=ro", path.display());
    let conn = open(uri);
    assert_eq!(
        error(&conn, "SELECT word2vec_train('m', 'docs', 'body')"),
        "the database 'main' is read-only: expected one that a model can be written to; attach another and name the \
         model other.m"
    );
    // temp can be written all the same.
    one::<String>(
        &conn,
        "SELECT word2vec_train('temp.m', 'docs', 'body', '{\"vector_size\":4}')",
    );
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM m"), 15);
    drop(conn);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn inside_of_a_statement_that_writes_it_is_refused_before_anything_is_trained() {
    let conn = memory();
    corpus(&conn, 30);
    train(&conn, SMALL);
    conn.execute_batch("CREATE TABLE log(what)").unwrap();
    let before = everything(&conn);
    // Would take minutes.
    let options = r#"{"epochs":1000000}"#;
    for call in [
        format!("word2vec_train('other', 'docs', 'body', '{options}')"),
        format!("doc2vec_train('other', 'docs', 'body', '{options}')"),
        format!("word2vec_update('words', 'docs', 'body', '{options}')"),
    ] {
        for sql in [
            format!("INSERT INTO log SELECT {call}"),
            format!("CREATE TABLE new AS SELECT {call} AS summary"),
            format!("UPDATE docs SET body = {call}"),
        ] {
            let error = common::error(&conn, &sql);
            assert!(
                error.contains("expected a SELECT of its own"),
                "{sql}: {error}"
            );
            assert_eq!(everything(&conn), before, "{sql}");
        }
    }
}

#[test]
fn an_interrupt_stops_within_a_second_and_leaves_nothing() {
    let conn = memory();
    corpus(&conn, 300);
    for threads in [1, 2] {
        let before = everything(&conn);
        let sql = format!(
            "SELECT word2vec_train('m', 'docs', 'body', '{{\"epochs\":1000000, \"threads\":{threads}}}')"
        );
        common::stops_soon(|| {
            let (outcome, late) =
                common::interrupted(&conn, std::time::Duration::from_millis(300), || {
                    conn.query_row(&sql, [], |_| Ok(()))
                });
            assert_eq!(
                outcome.unwrap_err().sqlite_error_code(),
                Some(rusqlite::ErrorCode::OperationInterrupted)
            );
            late
        });
        assert!(conn.is_autocommit());
        assert_eq!(everything(&conn), before);
    }
}

#[test]
fn an_interrupt_at_any_moment_leaves_all_or_nothing() {
    // Many words: most of the time goes into writing.
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE docs(body TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO docs SELECT 'word' || i || ' common' FROM n;",
    )
    .unwrap();
    let sql = r#"SELECT word2vec_train('m', 'docs', 'body', '{"min_count":1, "epochs":1, "vector_size":50}')"#;
    let began = std::time::Instant::now();
    one::<String>(&conn, sql);
    // As long as the shortest whole run so far: a busy machine may have been slow once.
    let mut whole = began.elapsed();
    conn.execute_batch("DROP TABLE m; DROP TABLE m_model")
        .unwrap();
    let before = everything(&conn);
    let mut interrupted = 0;
    for i in 1..=20 {
        let handle = conn.get_interrupt_handle();
        let interrupter = std::thread::spawn(move || {
            std::thread::sleep(whole * i / 20);
            handle.interrupt();
        });
        let began = std::time::Instant::now();
        let outcome = conn.query_row(sql, [], |_| Ok(()));
        let took = began.elapsed();
        interrupter.join().unwrap();
        assert!(conn.is_autocommit());
        match outcome {
            Ok(()) => {
                whole = whole.min(took);
                conn.execute_batch("DROP TABLE m; DROP TABLE m_model")
                    .unwrap();
            }
            Err(e) => {
                assert_eq!(
                    e.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::OperationInterrupted)
                );
                interrupted += 1;
            }
        }
        assert_eq!(everything(&conn), before);
    }
    assert!(interrupted > 0, "no interrupt came in time");
}

#[test]
fn a_rollback_takes_the_model_back_and_an_outer_transaction_goes_on() {
    let conn = memory();
    corpus(&conn, 50);
    let before = everything(&conn);
    conn.execute_batch("BEGIN; INSERT INTO docs(body) VALUES('inside')")
        .unwrap();
    train(&conn, r#"{"vector_size":4}"#);
    error(&conn, "SELECT word2vec_train('words', 'docs', 'body')");
    assert!(
        !conn.is_autocommit(),
        "an error of ours leaves the user's transaction alone"
    );
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM docs"), 51);
    conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(everything(&conn), before);
}

#[test]
fn training_can_not_be_called_from_a_view() {
    let conn = memory();
    corpus(&conn, 50);
    conn.execute_batch("CREATE VIEW trap AS SELECT word2vec_train('m', 'docs', 'body')")
        .unwrap();
    assert!(error(&conn, "SELECT * FROM trap").contains("unsafe use of word2vec_train"));
}

#[test]
fn an_index_gives_the_same_words() {
    let conn = trained(SMALL);
    conn.execute_batch(
        "CREATE VIRTUAL TABLE words_index USING annoy(words, vector, metric=cosine, trees=5)",
    )
    .unwrap();
    for (positive, negative) in [("'cat'", "NULL"), ("'[\"cat\",\"saw\"]'", "'drill'")] {
        let exact = rows(
            &conn,
            &format!("SELECT * FROM most_similar('words', {positive}, {negative}, 4)"),
        );
        let sql = format!(
            "SELECT * FROM most_similar('words', {positive}, {negative}, 4, 'words_index')"
        );
        assert_eq!(rows(&conn, &sql), exact);
        assert_eq!(exact.len(), 4);
    }
    assert!(
        error(
            &conn,
            "SELECT * FROM most_similar('words', 'cat', NULL, 4, 'nothing')"
        )
        .contains("nothing")
    );
}
