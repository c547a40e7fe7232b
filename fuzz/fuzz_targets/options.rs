//! Option texts: those of trainings through the core, which must survive their own JSON; those of CREATE and of
//! searches through SQL.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use serde_json::Value;
use sqlite_annoy::embed::doc2vec::Doc2vecOptions;
use sqlite_annoy::embed::fasttext::FasttextOptions;
use sqlite_annoy::embed::options::{NAMES, Options};
use sqlite_annoy::embed::phrases::PhraseOptions;
use sqlite_annoy::embed::strict_json;

#[derive(Debug, Arbitrary)]
enum Case<'a> {
    Training(&'a str),
    /// A name that exists, so that the fuzzer need not guess it.
    Named(u8, &'a str),
    Create(&'a str),
    CreateNamed(u8, &'a str),
    Search(u8, &'a str),
    /// As `search_k` or `k`.
    Number(u8, i64),
    Command(&'a str),
}

/// Names beside those of words' trainings.
const OTHERS: [&str; 16] = [
    "bucket",
    "min_n",
    "max_n",
    "word_ngrams",
    "dm",
    "dm_mean",
    "dm_concat",
    "dm_tag_count",
    "dbow_words",
    "threshold",
    "scoring",
    "delimiter",
    "connector_words",
    "batch_words",
    "iter",
    "Alpha",
];

const INDEX_NAMES: [&str; 6] = [
    "metric",
    "trees",
    "seed",
    "threads",
    "auto_refresh",
    "storage",
];

const SEARCHES: [&str; 8] = [
    "SELECT count(*) FROM knn_exact('t', 'v', '[1,2]', 3, ?1)",
    "SELECT count(*) FROM knn_annoy('ix', '[1,2]', 3, ?1)",
    "SELECT count(*) FROM knn_annoy('ix', '[1,2]', ?1)",
    "SELECT count(*) FROM knn_exact('t', 'v', ?1, 3)",
    "SELECT count(*) FROM knn_annoy_batch('ix', '[[1,2],[3,4]]', 3, ?1)",
    "SELECT count(*) FROM knn_exact_batch('t', 'v', ?1, 3)",
    "SELECT count(*) FROM ix WHERE v MATCH ?1 AND k = 2",
    "SELECT count(*) FROM annoy_info(?1)",
];

fn training(text: &str) {
    let Ok(pairs) = strict_json::object(text) else {
        return;
    };
    let again = |json: Value| strict_json::object(&json.to_string()).unwrap();
    if let Ok(o) = Options::from_pairs(pairs.clone(), &[]) {
        assert_eq!(Options::from_pairs(again(o.to_json()), &[]).unwrap(), o);
        let _ = o.with(pairs.clone());
    }
    if let Ok(o) = Doc2vecOptions::from_pairs(pairs.clone(), &["replace"]) {
        let json = o.to_json();
        assert_eq!(
            Doc2vecOptions::from_pairs(again(json.clone()), &[])
                .unwrap()
                .to_json(),
            json
        );
    }
    if let Ok(o) = FasttextOptions::from_pairs(pairs.clone(), &[]) {
        let json = o.to_json();
        assert_eq!(
            FasttextOptions::from_pairs(again(json.clone()), &[])
                .unwrap()
                .to_json(),
            json
        );
    }
    if let Ok(o) = PhraseOptions::from_pairs(pairs) {
        // Connectors are a set: their order is free.
        PhraseOptions::from_pairs(again(o.to_json())).unwrap();
    }
}

fn connect() -> Connection {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         INSERT INTO t VALUES(1, vec_f32('[1,2]')), (2, vec_f32('[0,1]')), (3, vec_f32('[3,1]'));
         CREATE VIRTUAL TABLE ix USING annoy(t, v);",
    )
    .unwrap();
    conn
}

fn create(conn: &Connection, arguments: &str) {
    conn.execute_batch("SAVEPOINT s").unwrap();
    let sql = format!("CREATE VIRTUAL TABLE fuzz USING annoy(t, v, {arguments})");
    if conn.execute(&sql, []).is_ok() {
        let _: i64 = common::one(conn, "SELECT count(*) FROM knn_annoy('fuzz', '[1,2]', 3)");
        let _: i64 = common::one(conn, "SELECT count(*) FROM annoy_info('fuzz')");
    }
    conn.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
}

thread_local! {
    static CONN: Connection = connect();
}

fuzz_target!(|case: Case| CONN.with(|conn| match case {
    Case::Training(text) => training(text),
    Case::Named(name, value) => {
        let name = usize::from(name) % (NAMES.len() + OTHERS.len());
        let name = NAMES.iter().chain(&OTHERS).nth(name).unwrap_or(&"");
        training(&format!("{{\"{name}\": {value}}}"));
    }
    Case::Create(arguments) => create(conn, arguments),
    Case::CreateNamed(name, value) => {
        create(
            conn,
            &format!(
                "{}={value}",
                INDEX_NAMES[usize::from(name) % INDEX_NAMES.len()]
            ),
        );
    }
    Case::Search(which, text) => {
        let sql = SEARCHES[usize::from(which) % SEARCHES.len()];
        let _ = conn.query_row(sql, [text], |row| row.get::<_, i64>(0));
    }
    Case::Number(which, number) => {
        let sql = SEARCHES[usize::from(which) % SEARCHES.len()];
        let _ = conn.query_row(sql, [number], |row| row.get::<_, i64>(0));
    }
    Case::Command(text) => {
        let _ = conn.execute("INSERT INTO ix(ix) VALUES(?1)", [text]);
    }
}));
