//! What surrounds word2vec: files of models, evaluation, phrases, doc2vec, fastText.

mod common;

use std::path::Path;

use common::{error, memory, one, rows};
use rusqlite::Connection;
use rusqlite::types::Value;

/// A model `words` of documents about animals and documents about tools.
fn model() -> Connection {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO docs(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
           SELECT CASE i % 2 WHEN 0 THEN 'cat dog horse cow the ' || CASE i % 3 WHEN 0 THEN 'goat' ELSE 'dog' END
                             ELSE 'saw drill nail the hammer ' || CASE i % 3 WHEN 0 THEN 'pliers' ELSE 'saw' END END FROM n",
    )
    .unwrap();
    one::<String>(
        &conn,
        r#"SELECT word2vec_train('words', 'docs', 'body', '{"vector_size":9, "sample":0}')"#,
    );
    conn
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().replace('\'', "''")
}

#[test]
fn a_model_survives_the_way_through_every_kind_of_file() {
    let conn = model();
    let folder = tempfile::tempdir().unwrap();
    let before = rows(
        &conn,
        "SELECT id, word, count, vector FROM words ORDER BY id",
    );
    for (name, to, from) in [
        ("m.txt", "{}", "{}"),
        ("m.bin", "{}", "{}"),
        ("m.glove", r#"{"format":"glove"}"#, "{}"),
        ("m.npy", r#"{"words":"W"}"#, r#"{"words":"W"}"#),
        ("m.fvecs", r#"{"words":"W"}"#, r#"{"words":"W"}"#),
    ] {
        let vocab = file(folder.path(), "vocab");
        let list = file(folder.path(), "words");
        let options = |text: &str| {
            text.replace('W', &list)
                .replacen('{', &format!(r#"{{"replace":true, "vocab":"{vocab}","#), 1)
                .replace(",}", "}")
        };
        let path = file(folder.path(), name);
        one::<String>(
            &conn,
            &format!("SELECT model_export('words', '{path}', '{}')", options(to)),
        );
        one::<String>(
            &conn,
            &format!(
                "SELECT model_import('other', '{path}', '{}')",
                options(from)
            ),
        );
        let after = rows(
            &conn,
            "SELECT id, word, count, vector FROM other ORDER BY id",
        );
        assert_eq!(before, after, "{name}");
        // What is asked of a trained model can be asked of this one.
        let near = "SELECT * FROM most_similar('MODEL', 'cat', NULL, 3)";
        assert_eq!(
            rows(&conn, &near.replace("MODEL", "words")),
            rows(&conn, &near.replace("MODEL", "other"))
        );
        let text: Vec<u8> = one(&conn, "SELECT text_vector('other', 'cat dog')");
        assert_eq!(text.len(), 36);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("partial"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_broken_file_imports_nothing_and_a_file_that_exists_is_kept() {
    let conn = model();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "broken.txt");
    std::fs::write(&path, "3 2\na 1 2\nb 3 x\nc 5 6\n").unwrap();
    let message = error(&conn, &format!("SELECT model_import('m', '{path}')"));
    assert!(
        message
            .ends_with("broken.txt': line 3: expected a word and 2 numbers, got 'x' as number 2"),
        "{message}"
    );
    let n: i64 = one(
        &conn,
        "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'm%'",
    );
    assert_eq!(n, 0);
    let message = error(&conn, &format!("SELECT model_import('words', '{path}')"));
    assert!(message.contains("the model words exists"), "{message}");
    let message = error(
        &conn,
        &format!(r#"SELECT model_import('words', '{path}', '{{"replace":true}}')"#),
    );
    assert!(message.contains("line 3"), "{message}");
    assert!(one::<i64>(&conn, "SELECT count(*) FROM words") > 8);
    let message = error(&conn, &format!("SELECT model_export('words', '{path}')"));
    assert!(
        message.contains("exists: give the option \"replace\""),
        "{message}"
    );
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("3 2"));
}

#[test]
fn words_that_repeat_in_a_file_are_counted_and_the_first_one_stays() {
    let conn = memory();
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "twice.txt");
    std::fs::write(&path, "3 1\na 1\na 2\nb 3\n").unwrap();
    let summary: String = one(&conn, &format!("SELECT model_import('m', '{path}')"));
    assert!(summary.contains(r#""repeated_words":1"#), "{summary}");
    let found = rows(&conn, "SELECT id, word, count, vec_to_json(vector) FROM m");
    let row = |id: i64, word: &str, vector: &str| -> Vec<Value> {
        vec![
            id.into(),
            word.to_owned().into(),
            Value::Null,
            vector.to_owned().into(),
        ]
    };
    assert_eq!(
        found,
        [row(0, "a", "[1.000000]"), row(1, "b", "[3.000000]")]
    );
}

#[test]
fn functions_that_touch_files_can_not_hide_in_a_view() {
    let conn = model();
    for (i, call) in [
        "SELECT model_import('m', 'x')",
        "SELECT model_export('words', 'x')",
        "SELECT vectors_write('x', 'words', 'vector')",
        "SELECT * FROM vectors_read('x')",
        "SELECT * FROM evaluate_word_pairs('words', 'x')",
        "SELECT * FROM evaluate_word_analogies('words', 'x')",
    ]
    .iter()
    .enumerate()
    {
        conn.execute_batch(&format!("CREATE VIEW v{i} AS {call}"))
            .unwrap();
        let message = error(&conn, &format!("SELECT * FROM v{i}"));
        assert!(message.contains("unsafe use of"), "{message}");
    }
}

#[test]
fn the_product_of_cosines_ranks_by_its_formula() {
    let conn = model();
    let found = rows(
        &conn,
        r#"SELECT word, similarity FROM most_similar('words', '["cat","saw"]', 'the', 3, NULL, '3cosmul')"#,
    );
    let expected = rows(
        &conn,
        "SELECT word, (1 + similarity('words', word, 'cat')) / 2 * ((1 + similarity('words', word, 'saw')) / 2) /
                ((1 + similarity('words', word, 'the')) / 2 + 1e-6) AS s
         FROM words WHERE word NOT IN ('cat', 'saw', 'the') ORDER BY s DESC LIMIT 3",
    );
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found[0], expected[0]);
        let (Value::Real(a), Value::Real(b)) = (&found[1], &expected[1]) else {
            panic!("{found:?}");
        };
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }
    let message = error(
        &conn,
        "SELECT * FROM most_similar('words', NULL, 'cat', 3, NULL, '3cosmul')",
    );
    assert!(message.contains("at least one positive word"), "{message}");
}

#[test]
fn phrases_are_found_kept_in_a_table_and_joined() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO t(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
           SELECT 'w' || (i % 7) || ' new york w' || (i % 5) || ' bank of america w' || (i % 3) FROM n",
    )
    .unwrap();
    let options = r#"{"threshold":0.5, "connector_words":["of"]}"#;
    let summary: String = one(
        &conn,
        &format!("SELECT phrases_train('p', 't', 'body', '{options}')"),
    );
    assert!(summary.contains(r#""tokens":480"#), "{summary}");
    let found = rows(&conn, "SELECT phrase FROM p ORDER BY id");
    for phrase in ["new_york", "bank_of_america"] {
        assert!(
            found.contains(&vec![Value::Text(phrase.into())]),
            "{found:?}"
        );
    }
    conn.execute_batch(
        "DELETE FROM p WHERE phrase NOT IN ('new_york', 'bank_of_america');
         CREATE VIEW joined AS SELECT id, phrases_apply('p', body) AS body FROM t",
    )
    .unwrap();
    assert_eq!(
        one::<String>(
            &conn,
            "SELECT phrases_apply('p', 'The  BANK of America in new York of')"
        ),
        "the bank_of_america in new_york of"
    );
    assert_eq!(
        rows(&conn, "SELECT phrases_apply('p', NULL)"),
        [[Value::Null]]
    );
    one::<String>(
        &conn,
        r#"SELECT word2vec_train('words', 'joined', 'body', '{"vector_size":4, "min_count":1}')"#,
    );
    let n: i64 = one(
        &conn,
        "SELECT count FROM words WHERE word = 'bank_of_america'",
    );
    assert_eq!(n, 60);
    // A model of another kind is told from one of phrases, and may be replaced by one.
    let message = error(&conn, "SELECT phrases_apply('words', 'x')");
    assert!(
        message.contains("expected one that phrases_train made"),
        "{message}"
    );
    let message = error(&conn, "SELECT word2vec_update('p', 't', 'body')");
    assert!(
        message.contains("expected one that word2vec_train made"),
        "{message}"
    );
    let message = error(&conn, "SELECT phrases_train('p', 't', 'body')");
    assert!(message.contains("the model p exists"), "{message}");
    one::<String>(
        &conn,
        r#"SELECT phrases_train('p', 't', 'body', '{"replace":true}')"#,
    );
}

#[test]
fn an_update_keeps_ids_adds_words_and_learns_from_the_new_text() {
    let conn = model();
    let before = rows(&conn, "SELECT id, word FROM words ORDER BY id");
    let vectors = rows(&conn, "SELECT vector FROM words ORDER BY id");
    conn.execute_batch(
        "CREATE TABLE more(id INTEGER PRIMARY KEY, body TEXT);
         INSERT INTO more(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
           SELECT 'cat dog llama horse cow llama' FROM n;
         INSERT INTO more VALUES (1000, 'rare words'), (1001, NULL);
         CREATE VIRTUAL TABLE i USING annoy(words, vector)",
    )
    .unwrap();
    let count: i64 = one(&conn, "SELECT count FROM words WHERE word = 'cat'");
    let summary: String = one(
        &conn,
        r#"SELECT word2vec_update('words', 'more', 'body', '{"epochs":20, "alpha":0.05}')"#,
    );
    assert!(summary.contains(r#""new_words":1"#), "{summary}");
    let n = before.len() as i64;
    assert_eq!(
        rows(
            &conn,
            &format!("SELECT id, word FROM words WHERE id < {n} ORDER BY id")
        ),
        before
    );
    assert_ne!(
        rows(
            &conn,
            &format!("SELECT vector FROM words WHERE id < {n} ORDER BY id")
        ),
        vectors
    );
    assert_eq!(
        one::<i64>(&conn, "SELECT id FROM words WHERE word = 'llama'"),
        n
    );
    assert_eq!(
        one::<i64>(&conn, "SELECT count FROM words WHERE word = 'cat'"),
        count + 300
    );
    let is_animal: bool = one(
        &conn,
        "SELECT similarity('words', 'llama', 'cat') > similarity('words', 'llama', 'saw')",
    );
    assert!(is_animal);
    // The index follows, and the model can be updated again.
    let id: i64 = one(
        &conn,
        "SELECT rowid FROM knn_annoy('i', (SELECT vector FROM words WHERE word = 'llama'), 1)",
    );
    assert_eq!(id, n);
    one::<String>(&conn, "SELECT word2vec_update('words', 'docs', 'body')");

    for (call, expected) in [
        (
            r#"word2vec_update('words', 'more', 'body', '{"vector_size":5}')"#,
            "can't be given to word2vec_update",
        ),
        (
            "word2vec_update('nothing', 'more', 'body')",
            "no such model",
        ),
    ] {
        let message = error(&conn, &format!("SELECT {call}"));
        assert!(message.contains(expected), "{message}");
    }
    conn.execute_batch("DELETE FROM words WHERE id = 3")
        .unwrap();
    let message = error(&conn, "SELECT word2vec_update('words', 'more', 'body')");
    assert!(message.contains("has no word with id 3"), "{message}");
}

#[test]
fn an_update_that_fails_changes_nothing() {
    let conn = model();
    let all = "SELECT * FROM words, words_model ORDER BY 1, 2, 3, 4, 5, 6";
    let before = rows(&conn, all);
    conn.execute_batch(
        "CREATE TABLE strange(body TEXT); INSERT INTO strange VALUES ('unheard of')",
    )
    .unwrap();
    let message = error(&conn, "SELECT word2vec_update('words', 'strange', 'body')");
    assert!(
        message.starts_with("nothing to train: none of 2 tokens"),
        "{message}"
    );
    let message = error(
        &conn,
        r#"SELECT word2vec_update('words', 'docs', 'body', '{"alpha":100, "epochs":50}')"#,
    );
    assert!(message.contains("diverged"), "{message}");
    assert_eq!(rows(&conn, all), before);
}

#[test]
fn rare_words_count_more_in_a_weighted_text_vector() {
    let conn = model();
    // The logarithm is Rust's: not every SQLite has one.
    let frequency = |word: &str| -> f64 {
        one(
            &conn,
            &format!(
                "SELECT 1.0 * count / (SELECT sum(count) FROM words) FROM words WHERE word = '{word}'"
            ),
        )
    };
    type Weight = fn(f64) -> f64;
    for (options, weight) in [
        ("{}", (|_| 1.0) as Weight),
        (r#"{"weight":"mean"}"#, |_| 1.0),
        (r#"{"weight":"sif"}"#, |f| 0.001 / (0.001 + f)),
        (r#"{"weight":"sif","a":0.5}"#, |f| 0.5 / (0.5 + f)),
        (r#"{"weight":"idf"}"#, |f| -f.ln()),
    ] {
        let [the, goat] = ["the", "goat"].map(|word| weight(frequency(word)));
        let expected: Vec<u8> = one(
            &conn,
            &format!(
                "WITH w AS (SELECT vector, CASE word WHEN 'the' THEN {the} ELSE {goat} END AS x FROM words
                            WHERE word IN ('the', 'goat'))
                 SELECT vec_scale(vec_sum(vec_scale(vector, x)), 1.0 / (SELECT sum(x) FROM w)) FROM w"
            ),
        );
        let found: Vec<u8> = one(
            &conn,
            &format!("SELECT text_vector('words', 'goat the zebra', '{options}')"),
        );
        let floats = |bytes: &[u8]| -> Vec<f32> {
            let chunks = bytes.as_chunks::<4>().0.iter();
            chunks.map(|c| f32::from_le_bytes(*c)).collect()
        };
        for (a, b) in floats(&found).iter().zip(floats(&expected)) {
            assert!((a - b).abs() < 1e-5, "{options}: {a} {b}");
        }
    }
    // Options that change from row to row.
    let n: i64 = one(
        &conn,
        r#"SELECT count(DISTINCT text_vector('words', 'goat the', column1))
           FROM (VALUES ('{"weight":"sif"}'), ('{"weight":"idf"}'), ('{"weight":"sif"}'), (NULL))"#,
    );
    assert_eq!(n, 3);
    let message = error(
        &conn,
        r#"SELECT text_vector('words', 'goat', '{"weight":"idf", "a":1}')"#,
    );
    assert!(message.contains("expected weight \"sif\""), "{message}");
}

#[test]
fn fasttext_gives_vectors_to_words_it_never_saw() {
    let conn = model();
    for sg in [0, 1] {
        let summary: String = one(
            &conn,
            &format!(
                r#"SELECT fasttext_train('f', 'docs', 'body',
                     '{{"vector_size":8, "sample":0, "bucket":5000, "epochs":20, "sg":{sg}, "replace":true}}')"#
            ),
        );
        assert!(summary.contains(r#""vocabulary":11"#), "{summary}");
        let is_near: bool = one(
            &conn,
            "SELECT similarity('f', 'hammers', 'hammer') > similarity('f', 'hammers', 'horse')",
        );
        assert!(is_near);
        // A word of the model is itself; one that shares no n-gram is zero.
        let n: i64 = one(
            &conn,
            "SELECT count(*) FROM f WHERE vector = fasttext_vector('f', word)",
        );
        assert_eq!(n, 11);
        let norm: f64 = one(&conn, "SELECT vec_norm(fasttext_vector('f', 'ξ'))");
        assert_eq!(norm, 0.0);
        assert_eq!(
            rows(&conn, "SELECT fasttext_vector('f', NULL)"),
            [[Value::Null]]
        );
    }
    let first = rows(&conn, "SELECT * FROM f ORDER BY id");
    let again = r#"SELECT fasttext_train('f', 'docs', 'body',
                     '{"vector_size":8, "sample":0, "bucket":5000, "epochs":20, "sg":1, "replace":true}')"#;
    one::<String>(&conn, again);
    assert_eq!(
        rows(&conn, "SELECT * FROM f ORDER BY id"),
        first,
        "repeatable"
    );
    for (call, expected) in [
        (
            "fasttext_vector('words', 'unheard')",
            "model of another kind",
        ),
        (
            r#"fasttext_train('g', 'docs', 'body', '{"bucked":1}')"#,
            "did you mean 'bucket'",
        ),
        (
            "word2vec_update('f', 'docs', 'body')",
            "expected one that word2vec_train made",
        ),
        ("fasttext_train('f', 'docs', 'body')", "the model f exists"),
    ] {
        let message = error(&conn, &format!("SELECT {call}"));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn documents_have_vectors_by_their_rowid_and_new_ones_are_inferred_the_same_every_time() {
    let conn = model();
    conn.execute_batch(
        "UPDATE docs SET id = id * 1000;
         INSERT INTO docs VALUES (7, 'nothing known'), (8, NULL);
         CREATE VIEW half AS SELECT id, body FROM docs WHERE id % 3000 = 0",
    )
    .unwrap();
    for options in [
        r#"{"dm":0}"#,
        r#"{"dm":1}"#,
        r#"{"dm_concat":1, "window":2}"#,
        r#"{"dm":0, "hs":1, "negative":0}"#,
    ] {
        let options = options.replace(
            '{',
            r#"{"replace":true, "vector_size":12, "epochs":30, "sample":0, "alpha":0.05, "#,
        );
        one::<String>(
            &conn,
            &format!("SELECT doc2vec_train('d', 'docs', 'body', '{options}')"),
        );
        // Every row that is a document has a vector, also one without a word of the vocabulary.
        assert_eq!(
            rows(&conn, "SELECT id FROM d ORDER BY id"),
            rows(
                &conn,
                "SELECT id FROM docs WHERE body IS NOT NULL ORDER BY id"
            )
        );
        let near: i64 = one(
            &conn,
            "SELECT count(*) FROM knn_exact('d', 'vector', doc2vec_infer('d', 'a cat and a horse and a cow and a dog'), 20) n
               JOIN docs ON docs.id = n.rowid WHERE body LIKE '%cat%'",
        );
        assert!(near > 15, "{options}: {near}");
        let n: i64 = one(
            &conn,
            "SELECT count(DISTINCT doc2vec_infer('d', 'cat dog')) FROM docs",
        );
        assert_eq!(n, 1);
        let (first, again): (Vec<u8>, Vec<u8>) = (
            one(&conn, "SELECT doc2vec_infer('d', 'cat dog')"),
            one(&conn, "SELECT doc2vec_infer('d', 'Cat zebra dog', NULL)"),
        );
        assert_eq!(first, again);
        let more: Vec<u8> = one(
            &conn,
            r#"SELECT doc2vec_infer('d', 'cat dog', '{"epochs":3}')"#,
        );
        assert_ne!(first, more);
        assert_eq!(
            rows(&conn, "SELECT doc2vec_infer('d', NULL)"),
            [[Value::Null]]
        );
        // Its words are a model.
        assert_eq!(
            rows(
                &conn,
                "SELECT * FROM most_similar('d_words', 'cat', NULL, 3)"
            )
            .len(),
            3
        );
    }
    one::<String>(
        &conn,
        r#"SELECT doc2vec_train('h', 'half', 'body', '{"vector_size":4}')"#,
    );
    assert_eq!(
        rows(&conn, "SELECT id FROM h ORDER BY id"),
        rows(&conn, "SELECT id FROM half ORDER BY id")
    );
    for (call, expected) in [
        (
            "doc2vec_train('d', 'docs', 'body')",
            "the model d_words exists",
        ),
        (
            r#"doc2vec_train('docs', 'docs', 'body', '{"replace":true}')"#,
            "is not part of a model of documents",
        ),
        (
            r#"doc2vec_train('e', 'docs', 'body', '{"sg":1}')"#,
            "doc2vec calls it dm",
        ),
        (
            "doc2vec_infer('words', 'cat')",
            "no such model of documents: words",
        ),
        (
            r#"doc2vec_infer('d', 'cat', '{"window":3}')"#,
            "unknown option 'window'",
        ),
        (
            "word2vec_update('d_words', 'docs', 'body')",
            "expected one that word2vec_train made",
        ),
    ] {
        let message = error(&conn, &format!("SELECT {call}"));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_recipe_for_items_finds_what_belongs_together() {
    let conn = memory();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/item2vec.sql");
    conn.execute_batch(&std::fs::read_to_string(script).unwrap())
        .unwrap();
    let rates = rows(&conn, "SELECT hits_in_10 FROM hit_rate");
    let [popular, together, item2vec] = [0, 1, 2].map(|i| match rates[i][0] {
        Value::Real(rate) => rate,
        ref other => panic!("{other:?}"),
    });
    assert!(
        item2vec > 2.0 * popular && item2vec > 0.8 * together,
        "{popular} {together} {item2vec}"
    );
    let n: i64 = one(
        &conn,
        "SELECT count(*) FROM most_similar('items', 'kind7-3', NULL, 7) WHERE word LIKE 'kind7-%'",
    );
    assert!(n >= 5, "{n}");
}
