//! Documents of several vectors: `annoy(chunks, v, group=doc, combine=best|mean)` answers with documents.
//!
//! The oracles are SQL: the smallest distance of a document's rows by `knn_exact` and GROUP BY, and `knn_exact` over a view
//! of the means.

mod common;

use common::{error, memory, one, rows};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;

const DIM: usize = 8;

fn vector(rng: &mut StdRng) -> Vec<u8> {
    (0..DIM)
        .flat_map(|_| rng.random_range(-1.0f32..1.0).to_le_bytes())
        .collect()
}

/// `chunks(id, doc, slug UNIQUE, v)`, from one to nine a document, and an index of each kind.
fn chunks(conn: &Connection, documents: i64, rng: &mut StdRng) {
    conn.execute_batch(
        "CREATE TABLE chunks(id INTEGER PRIMARY KEY, doc INTEGER, slug TEXT UNIQUE, v BLOB);
         CREATE INDEX chunks_doc ON chunks(doc);
         CREATE VIEW plain AS SELECT id, v FROM chunks;
         CREATE VIEW means AS SELECT doc AS id, vec_avg(v) AS v FROM chunks WHERE typeof(doc) = 'integer' GROUP BY doc",
    )
    .unwrap();
    for doc in 0..documents {
        for _ in 0..rng.random_range(1..10) {
            add(conn, 1000 + 7 * doc, rng);
        }
    }
    conn.execute_batch(
        "CREATE VIRTUAL TABLE best USING annoy(chunks, v, group=doc);
         CREATE VIRTUAL TABLE mean USING annoy(chunks, v, group=doc, combine=mean, metric=l2)",
    )
    .unwrap();
}

fn add(conn: &Connection, doc: i64, rng: &mut StdRng) {
    conn.execute(
        "INSERT OR REPLACE INTO chunks(doc, slug, v) VALUES(?1, ?2, ?3)",
        (doc, rng.random_range(0..10_000), vector(rng)),
    )
    .unwrap();
}

fn answer(conn: &Connection, sql: &str, query: &[u8]) -> Vec<(i64, f64)> {
    conn.prepare_cached(sql)
        .unwrap()
        .query_map([query], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

fn check(conn: &Connection, rng: &mut StdRng, what: &str) {
    let query = &vector(rng);
    let best = |more: &str| {
        format!(
            "SELECT doc, min(distance) AS d FROM knn_exact('plain', 'v', ?1, 1000000) n JOIN chunks c ON c.id = n.rowid
             WHERE typeof(doc) = 'integer' GROUP BY doc {more}"
        )
    };
    let mean = |more: &str| {
        format!(
            "SELECT rowid, distance FROM knn_exact('means', 'v', ?1, 1000000, '{{\"metric\":\"l2\"}}') {more}"
        )
    };
    for (index, oracle) in [("best", &best as &dyn Fn(&str) -> String), ("mean", &mean)] {
        let truth = answer(
            conn,
            &format!("SELECT * FROM ({}) ORDER BY 2, 1 LIMIT 12", oracle("")),
            query,
        );
        for sql in [
            format!("SELECT rowid, distance FROM knn_annoy('{index}', ?1, 12)"),
            format!("SELECT rowid, distance FROM knn_annoy('{index}', ?1) LIMIT 12"),
            format!("SELECT rowid, distance FROM {index} WHERE v MATCH ?1 AND k = 12"),
            format!(
                "SELECT rowid, distance FROM knn_annoy('{index}', ?1) ORDER BY distance LIMIT 12"
            ),
            format!("SELECT rowid, distance FROM knn_annoy_batch('{index}', ?1, 12)"),
        ] {
            assert_eq!(answer(conn, &sql, query), truth, "{what}: {sql}");
        }
        let bound = truth.last().map_or(0.0, |hit| hit.1) * 0.9;
        let within: Vec<_> = truth.iter().copied().filter(|hit| hit.1 <= bound).collect();
        let sql = format!(
            "SELECT rowid, distance FROM knn_annoy('{index}', ?1) WHERE distance <= {bound} ORDER BY 2, 1"
        );
        assert_eq!(answer(conn, &sql, query), within, "{what}: {sql}");
        let some =
            "(SELECT DISTINCT doc FROM chunks WHERE typeof(doc) = 'integer' AND doc % 3 = 0)";
        let truth = answer(
            conn,
            &format!("SELECT * FROM ({}) WHERE 1 ORDER BY 2, 1 LIMIT 5", {
                let having = if index == "best" {
                    "HAVING doc % 3 = 0"
                } else {
                    "WHERE rowid % 3 = 0"
                };
                oracle(having)
            }),
            query,
        );
        let sql = format!(
            "SELECT rowid, distance FROM knn_annoy('{index}', ?1, 5) WHERE rowid IN {some}"
        );
        assert_eq!(answer(conn, &sql, query), truth, "{what}: {sql}");
    }
}

#[test]
fn documents_of_several_vectors_follow_their_rows() {
    let seed: u64 = 20_261_131;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let conn = memory();
    chunks(&conn, 90, &mut rng);
    check(&conn, &mut rng, "after the build");
    for step in 0..300 {
        let rng = &mut rng;
        let (id, doc): (i64, Option<i64>) = conn
            .query_row(
                "SELECT id, CASE typeof(doc) WHEN 'integer' THEN doc END FROM chunks ORDER BY random() LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        let doc = doc.unwrap_or(5000 + step);
        let run = |sql: &str| conn.execute_batch(sql).unwrap();
        let what = rng.random_range(0..13);
        match what {
            0 => add(&conn, doc, rng),
            1 => add(&conn, 3000 + step, rng),
            2 => run(&format!("UPDATE chunks SET doc = doc + 7 WHERE id = {id}")),
            3 => run(&format!("UPDATE chunks SET doc = NULL WHERE id = {id}")),
            4 => run(&format!("DELETE FROM chunks WHERE id = {id}")),
            5 => run(&format!("DELETE FROM chunks WHERE doc = {doc}")),
            6 => {
                conn.execute("UPDATE chunks SET v = ?1 WHERE id = ?2", (vector(rng), id))
                    .unwrap();
            }
            7 => run(&format!(
                "UPDATE OR REPLACE chunks SET id = id + 1 WHERE id = {id}"
            )),
            8 => run(&format!(
                "UPDATE OR REPLACE chunks SET slug = (SELECT slug FROM chunks ORDER BY random() LIMIT 1) WHERE id = {id}"
            )),
            // What is no integer names no document.
            9 => run(&format!("UPDATE chunks SET doc = 'none' WHERE id = {id}")),
            10 => run(&format!(
                "UPDATE chunks SET doc = -2.5 * doc WHERE id = {id}"
            )),
            11 => {
                run("BEGIN");
                run(&format!("UPDATE chunks SET doc = {doc} WHERE id % 9 = 1"));
                check(&conn, rng, "in a transaction");
                run(if rng.random_range(0..2) == 0 {
                    "COMMIT"
                } else {
                    "ROLLBACK"
                });
            }
            _ => run(
                "INSERT INTO best(best) VALUES('refresh'); INSERT INTO mean(mean) VALUES('refresh')",
            ),
        }
        check(&conn, rng, &format!("step {step}, kind {what}"));
        if step % 60 == 59 {
            run(
                "INSERT INTO best(best) VALUES('integrity-check'); INSERT INTO mean(mean) VALUES('integrity-check')",
            );
        }
    }
}

#[test]
fn a_large_index_finds_as_many_documents_as_are_asked_for() {
    let seed: u64 = 20_261_132;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE c(id INTEGER PRIMARY KEY, doc INTEGER, v BLOB); CREATE INDEX c_doc ON c(doc); BEGIN",
    )
    .unwrap();
    // Each document lies in one place: the nearest rows are of few documents.
    for doc in 0..600 {
        let centre: Vec<f32> = (0..32).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        for _ in 0..50 {
            let row: Vec<u8> = centre
                .iter()
                .flat_map(|x| (x + 0.05 * rng.random_range(-1.0f32..1.0)).to_le_bytes())
                .collect();
            conn.prepare_cached("INSERT INTO c(doc, v) VALUES(?1, ?2)")
                .unwrap()
                .execute((doc, row))
                .unwrap();
        }
    }
    conn.execute_batch("COMMIT; CREATE VIRTUAL TABLE i USING annoy(c, v, group=doc)")
        .unwrap();
    let (mut hits, mut all) = (0, 0);
    for _ in 0..30 {
        let query: Vec<u8> = (0..32)
            .flat_map(|_| rng.random_range(-1.0f32..1.0).to_le_bytes())
            .collect();
        let truth = answer(
            &conn,
            "SELECT doc, min(distance) FROM knn_exact('c', 'v', ?1, 30000) n JOIN c ON c.id = n.rowid
             GROUP BY doc ORDER BY 2, 1 LIMIT 10",
            &query,
        );
        let found = answer(
            &conn,
            r#"SELECT rowid, distance FROM knn_annoy('i', ?1, 10, '{"recall":0.95}')"#,
            &query,
        );
        assert_eq!(found.len(), 10);
        hits += found.iter().filter(|hit| truth.contains(hit)).count();
        all += 10;
    }
    assert!(hits * 100 >= all * 93, "{hits} of {all}");
}

#[test]
fn options_of_groups_are_refused_in_words_and_names_are_followed() {
    let mut rng = StdRng::seed_from_u64(4);
    let conn = memory();
    chunks(&conn, 20, &mut rng);
    conn.execute_batch("CREATE TABLE bare(id INTEGER PRIMARY KEY, doc INTEGER, v BLOB, w int8[8])")
        .unwrap();
    for (sql, message) in [
        (
            "CREATE VIRTUAL TABLE x USING annoy(bare, v, group=doc)",
            "group=\"doc\" needs an index by which the rows of a group are found: CREATE INDEX name ON \"bare\"(\"doc\")",
        ),
        (
            "CREATE VIRTUAL TABLE x USING annoy(bare, v, group=dok)",
            "no such column: dok in bare; its columns are id, doc, v, w; did you mean 'doc'?",
        ),
        (
            "CREATE VIRTUAL TABLE x USING annoy(chunks, v, group=doc, combine=max)",
            "combine must be best or mean, got max",
        ),
        (
            "CREATE VIRTUAL TABLE x USING annoy(chunks, v, combine=mean)",
            "combine says what stands for rows that belong together: give group=column, too",
        ),
        (
            "CREATE VIRTUAL TABLE x USING annoy(bare, w, group=doc, combine=mean)",
            "combine=mean needs float32 vectors, and column w has int8",
        ),
        (
            "SELECT * FROM mmr('best', zeroblob(32), 3)",
            "mmr compares rows by their one vector, and a group of index best has several",
        ),
    ] {
        assert_eq!(error(&conn, sql), message, "{sql}");
    }
    // knn_exact over the table answers with rows, whatever groups are indexed.
    let all: i64 = one(&conn, "SELECT count(*) FROM chunks");
    assert_eq!(
        rows(
            &conn,
            "SELECT * FROM knn_exact('chunks', 'v', zeroblob(32), 1000)"
        )
        .len() as i64,
        all
    );
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM best"), all);
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM mean"), 20);
    conn.execute_batch("DROP VIEW means; ALTER TABLE chunks RENAME COLUMN doc TO document")
        .unwrap();
    conn.execute_batch("UPDATE chunks SET document = 5 WHERE id % 4 = 0")
        .unwrap();
    for index in ["best", "mean"] {
        let documents = "SELECT DISTINCT document FROM chunks ORDER BY 1";
        let found =
            format!("SELECT rowid FROM knn_annoy('{index}', zeroblob(32), 1000) ORDER BY 1");
        assert_eq!(rows(&conn, &found), rows(&conn, documents));
        conn.execute_batch(&format!("INSERT INTO {index}({index}) VALUES('rebuild')"))
            .unwrap();
        conn.execute_batch("UPDATE chunks SET document = document + 1 WHERE id % 3 = 0")
            .unwrap();
        assert_eq!(rows(&conn, &found), rows(&conn, documents));
    }
}
