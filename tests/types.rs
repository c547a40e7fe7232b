//! Indexes over float16, int8 and bit columns: the same rows and the same distances, to the bit, as a search of the table.

mod common;

use common::{error, memory, one, rows, stat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::{Connection, params};

const DIM: usize = 64;

/// A type as a column is declared, the function that makes it, and the metrics an index can have.
const TYPES: [(&str, &str, &[&str]); 3] = [
    ("float16", "vec_f16", &["cosine", "l2", "dot"]),
    ("int8", "vec_int8", &["cosine", "l2", "dot"]),
    ("bit", "vec_bit", &["hamming"]),
];

/// A vector of the type as JSON: near one of ten centres, so that there is something to find.
fn json(rng: &mut StdRng, kind: &str) -> String {
    let centre = rng.random_range(0..10u64);
    let mut at = StdRng::seed_from_u64(centre);
    let components: Vec<String> = (0..DIM)
        .map(|_| {
            let x = at.random_range(-1.0f64..1.0) + 0.4 * rng.random_range(-1.0f64..1.0);
            match kind {
                "float16" => format!("{x}"),
                "int8" => format!("{}", (90.0 * x).round() as i8),
                _ => format!("{}", u8::from(x > 0.0)),
            }
        })
        .collect();
    format!("[{}]", components.join(","))
}

fn make(function: &str) -> String {
    match function {
        // vec_bit and vec_int8 take JSON of their own components.
        "vec_bit" => "vec_bit(?1)".to_owned(),
        other => format!("{other}(?1)"),
    }
}

/// Tables `t` and `copy` with the same rows, and an index over `t`.
fn tables(
    rng: &mut StdRng,
    kind: &str,
    function: &str,
    metric: &str,
    declared: bool,
    n: usize,
) -> Connection {
    let conn = memory();
    let (column, option) = if declared {
        (format!("v {kind}[{DIM}]"), String::new())
    } else {
        ("v BLOB".to_owned(), format!(", type={kind}"))
    };
    conn.execute_batch(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, {column}); CREATE TABLE copy(id INTEGER PRIMARY KEY, {column}); BEGIN"
    ))
    .unwrap();
    let sql = format!("INSERT INTO t(v) VALUES({})", make(function));
    for _ in 0..n {
        conn.prepare_cached(&sql)
            .unwrap()
            .execute([json(rng, kind)])
            .unwrap();
    }
    conn.execute_batch(&format!(
        "COMMIT; INSERT INTO copy SELECT * FROM t;
         CREATE VIRTUAL TABLE i USING annoy(t, v, metric={metric}{option})"
    ))
    .unwrap();
    conn
}

type Answer = Vec<(i64, f64)>;

fn answer(conn: &Connection, sql: &str, query: &str, options: &str) -> Answer {
    conn.prepare_cached(sql)
        .unwrap()
        .query_map(params![query, options], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

#[test]
fn an_index_has_the_rows_and_distances_of_its_column_in_every_type() {
    let seed: u64 = 20_261_129;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for (kind, function, metrics) in TYPES {
        for metric in metrics {
            for declared in [true, false] {
                let conn = tables(&mut rng, kind, function, metric, declared, 500);
                let what = format!("{kind}, {metric}, declared: {declared}");
                let options = format!("{{\"metric\":\"{metric}\"}}");
                let v = make(function);
                for step in 0..40 {
                    let query = json(&mut rng, kind);
                    let check = |truth: &str, sql: &str| {
                        let truth = answer(&conn, &truth.replace("$q", &v), &query, &options);
                        let found = answer(&conn, &sql.replace("$q", &v), &query, &options);
                        assert!(!truth.is_empty());
                        assert_eq!(found, truth, "{what}, step {step}: {sql}");
                    };
                    let all = "SELECT rowid, distance FROM knn_exact('copy', 'v', $q, 12, ?2)";
                    check(
                        all,
                        "SELECT rowid, distance FROM knn_exact('t', 'v', $q, 12, ?2)",
                    );
                    let by: String = stat(&conn, "answered_by");
                    assert_eq!(by, "index, exactly", "{what}");
                    check(
                        all,
                        "SELECT rowid, distance FROM knn_annoy('i', $q, 12) WHERE ?2 IS NOT 0",
                    );
                    check(
                        all,
                        "SELECT rowid, distance FROM i WHERE v MATCH $q AND k = 12 AND ?2 IS NOT 0",
                    );
                    if declared {
                        // JSON is read as the column's type.
                        check(
                            all,
                            "SELECT rowid, distance FROM knn_annoy('i', ?1, 12) WHERE ?2 IS NOT 0",
                        );
                    }
                    let near = "(SELECT distance FROM knn_exact('copy', 'v', $q, 1, ?2) ORDER BY distance LIMIT 1)";
                    for bound in [
                        format!("<= {near}"),
                        format!("< {near} + 5.5"),
                        format!("BETWEEN {near} AND {near} + 9"),
                    ] {
                        let within = |from: &str| {
                            format!(
                                "SELECT rowid, distance FROM {from} WHERE distance {bound} ORDER BY 2, 1"
                            )
                        };
                        check(
                            &within("knn_exact('copy', 'v', $q, NULL, ?2)"),
                            &within("knn_exact('t', 'v', $q, NULL, ?2)"),
                        );
                    }
                    let some = "WHERE rowid IN (SELECT id FROM copy WHERE id % 3 = 1)";
                    check(
                        &format!(
                            "SELECT rowid, distance FROM knn_exact('copy', 'v', $q, 7, ?2) {some}"
                        ),
                        &format!(
                            "SELECT rowid, distance FROM knn_annoy('i', $q, 7) {some} AND ?2 IS NOT 0"
                        ),
                    );
                    check(
                        "SELECT rowid, distance FROM knn_exact('copy', 'v', $q, 5, ?2)",
                        "SELECT rowid, distance FROM knn_annoy_batch('i', (SELECT vec_pack($q)), 5) WHERE ?2 IS NOT 0",
                    );
                    if declared {
                        check(
                            "SELECT rowid, distance FROM knn_exact('copy', 'v', $q, 5, ?2)",
                            "SELECT rowid, distance FROM knn_exact_batch('copy', 'v', (SELECT vec_pack($q)), 5, ?2)",
                        );
                    }
                    match step % 8 {
                        1 => {
                            for table in ["t", "copy"] {
                                let sql =
                                    format!("UPDATE {table} SET v = {v} WHERE id = {}", 10 + step);
                                conn.execute(&sql, [&query]).unwrap();
                            }
                        }
                        3 => {
                            for table in ["t", "copy"] {
                                conn.execute_batch(&format!(
                                    "DELETE FROM {table} WHERE id = {step}"
                                ))
                                .unwrap();
                            }
                        }
                        5 => conn
                            .execute_batch("INSERT INTO i(i) VALUES('refresh')")
                            .unwrap(),
                        7 => conn
                            .execute_batch("INSERT INTO i(i) VALUES('integrity-check')")
                            .unwrap(),
                        _ => {}
                    }
                }
                // A scan gives the column's own bytes.
                assert_eq!(
                    rows(&conn, "SELECT rowid, v FROM i ORDER BY rowid"),
                    rows(&conn, "SELECT id, v FROM copy ORDER BY id")
                );
                assert_eq!(
                    one::<String>(
                        &conn,
                        "SELECT value FROM annoy_info('i') WHERE key = 'type'"
                    ),
                    kind
                );
                assert_eq!(
                    one::<String>(
                        &conn,
                        "SELECT value FROM annoy_info('i') WHERE key = 'metric'"
                    ),
                    *metric
                );
            }
        }
    }
}

#[test]
fn an_approximate_search_keeps_its_recall_in_every_type() {
    let seed: u64 = 20_261_130;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for (kind, function, metrics) in TYPES {
        let metric = metrics[0];
        let conn = tables(&mut rng, kind, function, metric, true, 12_000);
        let (mut hits, mut all) = (0, 0);
        for _ in 0..60 {
            let query = json(&mut rng, kind);
            let v = make(function);
            let options = format!("{{\"metric\":\"{metric}\"}}");
            let truth = answer(
                &conn,
                &format!("SELECT rowid, distance FROM knn_exact('copy', 'v', {v}, 10, ?2)"),
                &query,
                &options,
            );
            let found = answer(
                &conn,
                &format!("SELECT rowid, distance FROM knn_annoy('i', {v}, 10, ?2)"),
                &query,
                r#"{"recall":0.95}"#,
            );
            assert_eq!(found.len(), 10);
            let last = truth[9].1;
            hits += found.iter().filter(|hit| hit.1 <= last).count();
            all += 10;
        }
        let leaves: i64 = stat(&conn, "leaves");
        assert!(leaves > 0, "{kind}: the lists were searched");
        let recall = f64::from(hits as u32) / f64::from(all);
        assert!(recall >= 0.93, "{kind}: {recall}");
        let judged: f64 = one(
            &conn,
            r#"SELECT recall FROM annoy_recall('i', 10, 100, '{"recall":0.95}')"#,
        );
        assert!(judged >= 0.93, "{kind}: annoy_recall {judged}");
    }
}

#[test]
fn types_that_do_not_fit_are_refused_in_words() {
    let conn = memory();
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b bit[8], i int8[2], f BLOB);
         INSERT INTO t VALUES(1, vec_bit('[1,0,1,0,1,0,1,0]'), vec_int8('[1,-2]'), vec_f32('[1,2]'));
         CREATE VIRTUAL TABLE bits USING annoy(t, b);
         CREATE VIRTUAL TABLE bytes USING annoy(t, i)",
    )
    .unwrap();
    for (sql, message) in [
        (
            "CREATE VIRTUAL TABLE x USING annoy(t, i, type=bit)",
            "column i is declared to be of type int8, and type=bit says otherwise; leave the option out",
        ),
        (
            "CREATE VIRTUAL TABLE x USING annoy(t, b, metric=cosine)",
            "an index over bit vectors has metric=hamming, got cosine",
        ),
        (
            "CREATE VIRTUAL TABLE x USING annoy(t, i, metric=hamming)",
            "metric=hamming needs bit vectors, and column i has int8; make them with vec_quantize_binary, or declare type=bit",
        ),
        (
            "SELECT * FROM knn_annoy('bytes', vec_f32('[1,2]'), 1)",
            "Query vector for the \"i\" column is expected to be of type int8, but a float32 vector was provided.",
        ),
        (
            "SELECT * FROM knn_annoy('bits', vec_bit(x'0101'), 1)",
            "Dimension mismatch for query vector for the \"b\" column. Expected 8 dimensions but received 16.",
        ),
        (
            "SELECT * FROM knn_exact('t', 'b', vec_bit(x'01'), 1, '{\"metric\":\"l2\"}')",
            "Cannot calculate l2 distance between two bitvectors.",
        ),
        (
            "SELECT vec_pack(iif(value, vec_f32('[1]'), vec_int8('[1]'))) FROM json_each('[1,0]')",
            "vec_pack: expected vectors of type float32, as in the rows before, found int8",
        ),
    ] {
        assert_eq!(error(&conn, sql), message, "{sql}");
    }
}
