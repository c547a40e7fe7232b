//! The option `store`: files that hold vectors as float32, as float16 or not at all give the same answers, bit for bit.

mod common;

use std::cell::Cell;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{
    Ask, Budget, BuildOptions, Bytes, Forest, Hit, Originals, RowSet, Scratch, Stats, VectorStore,
    Vectors, build,
};
use sqlite_annoy::job::Job;
use sqlite_annoy::vector::Metric;

use common::{error, one, open, rows};

/// Vectors of whole numbers, which every store holds; rowids 10, 13, ...
#[derive(Debug)]
struct Set {
    dim: usize,
    ids: Vec<i64>,
    rows: Vec<f32>,
    fetched: Cell<usize>,
    lacks: i64,
}

impl Set {
    fn new(rng: &mut StdRng, n: usize, dim: usize) -> Set {
        Set {
            dim,
            ids: (0..n as i64).map(|i| 10 + 3 * i).collect(),
            rows: (0..n * dim)
                .map(|_| rng.random_range(-300..300) as f32)
                .collect(),
            fetched: Cell::new(0),
            lacks: -1,
        }
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.dim..][..self.dim]
    }

    fn forest(&self, metric: Metric, store: VectorStore) -> Forest<Bytes> {
        let options = BuildOptions {
            metric,
            trees: 2,
            seed: 3,
            threads: 2,
            store,
        };
        let vectors = Vectors {
            dim: self.dim,
            ids: &self.ids,
            rows: &self.rows,
        };
        let image = build(&vectors, &options, &Job::new()).unwrap();
        Forest::open(image.to_bytes()).unwrap()
    }
}

impl Originals for Set {
    fn fetch(&self, rowid: i64, out: &mut [f32]) -> bool {
        self.fetched.set(self.fetched.get() + 1);
        out.copy_from_slice(self.row((rowid as usize - 10) / 3));
        rowid != self.lacks
    }
}

fn bits(hits: &[Hit]) -> Vec<(i64, u64)> {
    hits.iter()
        .map(|h| (h.rowid, h.distance.to_bits()))
        .collect()
}

/// All that can be asked of a forest: the answers one after the other.
fn answers(forest: &Forest<Bytes>, set: &Set, queries: &[&[f32]]) -> Vec<Vec<(i64, u64)>> {
    let hidden: FxHashSet<i64> = set.ids.iter().step_by(7).copied().collect();
    let few = RowSet::new(set.ids.iter().step_by(50).copied().collect());
    let most = RowSet::new(set.ids.iter().skip(20).copied().collect());
    let (mut scratch, mut stats) = (Scratch::default(), Stats::default());
    let mut found = Vec::new();
    for among in [None, Some(&few), Some(&most)] {
        for (k, threads) in [(1, 1), (10, 3), (70, 3)] {
            let ask = Ask {
                threads,
                among,
                originals: Some(set),
                ..Ask::nearest(k, &hidden)
            };
            for query in queries {
                found.push(forest.exact_with(query, &ask, &mut scratch, &mut stats));
                for budget in [
                    Budget::Default,
                    Budget::Recall(0.8),
                    Budget::Recall(0.99),
                    Budget::SearchK(500),
                ] {
                    found.push(forest.search_with(query, budget, &ask, &mut scratch, &mut stats));
                }
            }
            found.extend(forest.exact_many(queries, &ask, &mut stats));
            found.extend(forest.search_many(queries, Budget::Default, &ask, &mut stats));
        }
    }
    found.iter().map(|hits| bits(hits)).collect()
}

#[test]
fn every_store_gives_the_same_bits() {
    let seed = 20_261_128;
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for (n, dim) in [(300, 3), (3000, 17), (14_000, 64)] {
        let set = Set::new(&mut rng, n, dim);
        let other: Vec<f32> = (0..dim).map(|_| rng.random_range(-1.0..1.0)).collect();
        // The codes say nothing about a query without a direction.
        let zero = vec![0.0; dim];
        let queries: Vec<&[f32]> = if n < 10_000 {
            vec![set.row(5), set.row(n - 1), &other, &zero]
        } else {
            vec![set.row(5), &other]
        };
        for metric in [Metric::Cosine, Metric::L2, Metric::Dot] {
            let want = answers(&set.forest(metric, VectorStore::F32), &set, &queries);
            assert_eq!(set.fetched.get(), 0, "a file with vectors needs no others");
            for store in [VectorStore::F16, VectorStore::None] {
                let forest = set.forest(metric, store);
                forest.verify().unwrap();
                assert_eq!(forest.store(), store);
                let got = answers(&forest, &set, &queries);
                assert!(got == want, "{store:?} {metric:?} {n} x {dim}, seed {seed}");
                let (row, mut changed) = (set.row(7), set.row(7).to_vec());
                assert!(forest.has_row(set.ids[7], row));
                changed[1] += 1.0;
                assert!(!forest.has_row(set.ids[7], &changed));
                assert!(!forest.has_row(set.ids[7] + 1, row));
            }
            // Not more than the bound leaves: most rows are never asked for.
            assert!(set.fetched.replace(0) > 0);
        }
    }
}

#[test]
fn without_originals_a_file_without_vectors_finds_nothing_and_a_row_they_lack_is_left_out() {
    let mut set = Set::new(&mut StdRng::seed_from_u64(1), 200, 6);
    let forest = set.forest(Metric::L2, VectorStore::None);
    let (none, mut scratch) = (FxHashSet::default(), Scratch::default());
    let query = set.row(50).to_vec();
    assert_eq!(forest.exact(&query, 5, &none, &mut scratch), []);
    assert_eq!(
        forest.search(&query, 5, Budget::Default, &none, &mut scratch),
        []
    );
    assert_eq!(forest.vector_of(set.ids[50]), None);
    set.lacks = set.ids[50];
    let ask = Ask {
        originals: Some(&set),
        ..Ask::nearest(5, &none)
    };
    let found = forest.exact_with(&query, &ask, &mut scratch, &mut Stats::default());
    assert!(found.len() == 5 && found.iter().all(|hit| hit.rowid != set.lacks));
}

#[test]
fn float16_is_refused_for_what_it_does_not_hold() {
    let refused = |x: f32| {
        let vectors = Vectors {
            dim: 2,
            ids: &[4, 9],
            rows: &[1.0, 0.0, 2048.0, x],
        };
        let options = BuildOptions {
            metric: Metric::L2,
            trees: 1,
            seed: 1,
            threads: 1,
            store: VectorStore::F16,
        };
        build(&vectors, &options, &Job::new())
            .err()
            .map(|e| e.to_string())
    };
    for held in [0.5, -0.0, 65504.0, 2f32.powi(-24), 0.333_251_95] {
        assert_eq!(refused(held), None, "{held}");
    }
    for not in [0.1, 2049.0, 65520.0, 2f32.powi(-25), 1e-40] {
        assert!(refused(not).is_some(), "{not}");
    }
    assert_eq!(
        refused(0.1).unwrap(),
        "component 1 of the vector of rowid 9 is 0.1, which store=f16 would round: take store=f32, or store=none"
    );
}

#[test]
fn no_damage_to_a_file_goes_unnoticed_or_does_harm() {
    let set = Set::new(&mut StdRng::seed_from_u64(2), 70, 5);
    let none = FxHashSet::default();
    let mut scratch = Scratch::default();
    for store in [VectorStore::F16, VectorStore::None] {
        let whole = set.forest(Metric::L2, store).bytes().as_ref().to_vec();
        let mut use_it = |bytes: &[u8]| {
            let Ok(forest) = Forest::open(Bytes::new(bytes)) else {
                return false;
            };
            let ask = Ask {
                originals: Some(&set),
                ..Ask::nearest(4, &none)
            };
            let stats = &mut Stats::default();
            for budget in [Budget::SearchK(5), Budget::Recall(1.0)] {
                // Damaged rowids are none that a table has.
                if forest.ids().iter().all(|id| set.ids.contains(id)) {
                    let _ = forest.search_with(set.row(3), budget, &ask, &mut scratch, stats);
                }
            }
            let _ = (forest.has_row(16, set.row(2)), forest.vector_of(16));
            forest.verify().is_ok()
        };
        assert!(use_it(&whole));
        for at in 0..whole.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                assert!(!use_it(&bytes), "{store:?}: byte {at} ^ {flip:#x}");
            }
            assert!(!use_it(&whole[..at]), "{store:?}: {at} bytes");
        }
    }
}

#[test]
fn a_file_without_vectors_takes_half_of_them_or_less() {
    let mut rng = StdRng::seed_from_u64(4);
    for (n, dim, most) in [(8000, 100, 0.7), (30_000, 256, 0.5), (8000, 384, 0.5)] {
        let set = Set::new(&mut rng, n, dim);
        let raw = (set.rows.len() * 4) as f64;
        let options = BuildOptions {
            metric: Metric::Cosine,
            trees: 1,
            seed: 1,
            threads: 2,
            store: VectorStore::None,
        };
        let vectors = Vectors {
            dim,
            ids: &set.ids,
            rows: &set.rows,
        };
        let bytes = build(&vectors, &options, &Job::new()).unwrap().len() as f64;
        eprintln!("{n} x {dim}: {:.3} of the vectors' bytes", bytes / raw);
        assert!(bytes <= most * raw, "{dim}: {}", bytes / raw);
    }
}

/// A table for each store, with the same rows, and an index over it.
fn tables(conn: &rusqlite::Connection, columns: &str, n: usize, options: &str) {
    for store in STORES {
        conn.execute_batch(&format!(
            "CREATE TABLE {store}(id INTEGER PRIMARY KEY, g INTEGER, {columns});
             CREATE INDEX {store}_g ON {store}(g);
             INSERT INTO {store}(id, g, v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})
             SELECT i, i % 40, vec_f32(json_array(i * i % 97, i * 7 % 89, i * i % 83 - 40, i % 79, i * 3 % 61, i % 2)) FROM n;
             CREATE VIRTUAL TABLE i_{store} USING annoy({store}, v, store={store}{options});"
        ))
        .unwrap();
    }
}

const STORES: [&str; 3] = ["f32", "f16", "none"];

/// Runs SQL for each table; `$` stands for its name.
fn each(conn: &rusqlite::Connection, sql: &str) {
    for store in STORES {
        let sql = sql.replace('$', store);
        conn.execute_batch(&sql)
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

/// The answers are the same, whichever store.
fn alike(conn: &rusqlite::Connection, metric: &str, when: &str) {
    let q = "'[5,6,-7,8,9,1]'";
    for sql in [
        format!("SELECT rowid, distance FROM knn_annoy('i_$', {q}, 12)"),
        format!("SELECT rowid, distance FROM knn_annoy('i_$', {q}, 12, '{{\"recall\":0.9}}')"),
        format!("SELECT rowid, distance FROM knn_annoy('i_$', {q}, 12, '{{\"search_k\":300}}')"),
        format!(
            "SELECT rowid, distance FROM knn_exact('$', 'v', {q}, 12, '{{\"metric\":\"{metric}\"}}')"
        ),
        format!("SELECT rowid, distance FROM i_$ WHERE v MATCH {q} AND k = 12"),
        format!(
            "SELECT rowid, distance FROM knn_annoy('i_$', {q}) WHERE rowid IN (SELECT id FROM $ WHERE g < 9) LIMIT 9"
        ),
        "SELECT * FROM knn_annoy_batch('i_$', '[[1,2,3,4,5,6],[0,0,9,0,0,0]]', 5)".to_owned(),
        format!(
            "SELECT * FROM knn_exact_batch('$', 'v', '[[1,2,3,4,5,6],[0,0,9,0,0,0]]', 5, '{{\"metric\":\"{metric}\"}}')"
        ),
    ] {
        let [f32, f16, none] = STORES.map(|store| rows(conn, &sql.replace('$', store)));
        assert!(!f32.is_empty(), "{sql}, {when}");
        assert_eq!(f32, f16, "{sql}, {when}");
        assert_eq!(f32, none, "{sql}, {when}");
    }
}

#[test]
fn indexes_of_every_store_answer_alike_whatever_happens_to_the_table() {
    let dir = tempfile::tempdir().unwrap();
    for (round, (metric, options)) in [
        ("l2", ", metric=l2"),
        ("cosine", ", trees=3, storage=inline"),
        ("dot", ", metric=dot, where='g <> 3'"),
    ]
    .into_iter()
    .enumerate()
    {
        let conn = open(dir.path().join(format!("{round}.db")));
        tables(&conn, "v BLOB", 3000, options);
        // A table whose rows are not all in its index is not searched by way of that.
        alike(&conn, metric, "built");
        conn.execute_batch("BEGIN").unwrap();
        each(
            &conn,
            "DELETE FROM $ WHERE id % 10 = 1; UPDATE $ SET v = vec_f32('[5,6,-7,8,9,0]') WHERE id = 2222;",
        );
        alike(&conn, metric, "changed");
        conn.execute_batch("ROLLBACK").unwrap();
        alike(&conn, metric, "rolled back");
        each(
            &conn,
            "INSERT INTO $(id, g, v) VALUES (4000, 1, vec_f32('[5,6,-7,8,9,2]')); DELETE FROM $ WHERE id BETWEEN 50 AND 90",
        );
        alike(&conn, metric, "pending");
        each(&conn, "INSERT INTO i_$(i_$) VALUES('refresh')");
        alike(&conn, metric, "refreshed");
        each(&conn, "INSERT INTO i_$(i_$) VALUES('integrity-check')");
        each(&conn, "INSERT INTO i_$(i_$) VALUES('rebuild')");
        alike(&conn, metric, "rebuilt");
        for store in STORES {
            let sql = format!("SELECT value FROM annoy_info('i_{store}') WHERE key = 'store'");
            assert_eq!(one::<String>(&conn, &sql), store);
            let sql = format!(
                "SELECT recall FROM annoy_recall('i_{store}', 5, 30, '{{\"recall\":0.9}}')"
            );
            assert!(one::<f64>(&conn, &sql) > 0.5, "{sql}");
        }
    }
}

#[test]
fn groups_and_other_element_types_need_no_vectors_in_the_file() {
    let conn = common::memory();
    tables(&conn, "v BLOB", 1000, ", metric=l2, group=g");
    // Means are no whole numbers, which float16 would refuse.
    for store in ["f32", "none"] {
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE m_{store} USING annoy({store}, v, metric=l2, group=g, combine=mean, store={store})"
        ))
        .unwrap();
    }
    for change in [
        "",
        "DELETE FROM $ WHERE id % 10 = 1; UPDATE $ SET v = vec_f32('[5,6,-7,8,9,0]') WHERE g = 7;",
        "INSERT INTO i_$(i_$) VALUES('refresh')",
    ] {
        each(&conn, change);
        for sql in [
            "SELECT rowid, distance FROM knn_annoy('i_$', '[5,6,-7,8,9,1]', 7)",
            "SELECT rowid, distance FROM i_$ WHERE v MATCH '[5,6,-7,8,9,1]' AND k = 7",
        ] {
            let [f32, f16, none] = STORES.map(|store| rows(&conn, &sql.replace('$', store)));
            assert_eq!(f32.len(), 7);
            assert!(f32 == f16 && f32 == none, "{sql}, {change}");
            let [f32, none] = ["m_f32", "m_none"].map(|m| rows(&conn, &sql.replace("i_$", m)));
            assert_eq!(f32.len(), 7);
            assert!(f32 == none, "{sql} of means, {change}");
        }
    }
    for (element, vector, metric) in [
        (
            "int8",
            "vec_int8(json_array(i % 100, i * i % 99 - 40))",
            "l2",
        ),
        (
            "bit",
            "vec_bit(unhex(printf('%04x', i * 77 % 65536)))",
            "hamming",
        ),
    ] {
        for store in STORES {
            conn.execute_batch(&format!(
                "CREATE TABLE {element}_{store}(id INTEGER PRIMARY KEY, v BLOB);
                 INSERT INTO {element}_{store} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
                 SELECT i, {vector} FROM n;
                 CREATE VIRTUAL TABLE i_{element}_{store} USING annoy({element}_{store}, v, type={element}, metric={metric},
                   store={store});"
            ))
            .unwrap();
        }
        let [f32, f16, none] = STORES.map(|store| {
            let query = format!("(SELECT v FROM {element}_{store} WHERE id = 77)");
            let sql =
                format!("SELECT rowid, distance FROM knn_annoy('i_{element}_{store}', {query}, 9)");
            rows(&conn, &sql)
        });
        assert_eq!(f32.len(), 9);
        assert!(f32 == f16 && f32 == none, "{element}");
    }
}

#[test]
fn most_similar_needs_no_vectors_in_the_file() {
    let conn = common::memory();
    conn.execute_batch(
        "CREATE TABLE lines(body TEXT);
         INSERT INTO lines WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
         SELECT group_concat('w' || (i * i % 1511), ' ') FROM n GROUP BY i / 20;
         SELECT word2vec_train('words', 'lines', 'body', '{\"vector_size\":12, \"min_count\":1, \"epochs\":2}');
         CREATE VIRTUAL TABLE i_f32 USING annoy(words, vector);
         CREATE VIRTUAL TABLE i_none USING annoy(words, vector, store=none);",
    )
    .unwrap();
    for word in ["w0", "w4", "w1369"] {
        let [f32, none] = ["i_f32", "i_none"].map(|index| {
            let sql = format!("SELECT * FROM most_similar('words', '{word}', NULL, 9, '{index}')");
            rows(&conn, &sql)
        });
        assert_eq!(f32.len(), 9);
        assert_eq!(f32, none, "{word}");
    }
}

#[test]
fn a_row_that_float16_does_not_hold_waits_and_stops_a_refresh() {
    let conn = common::memory();
    tables(&conn, "v BLOB", 100, ", metric=l2");
    each(
        &conn,
        "INSERT INTO $(id, v) VALUES (500, vec_f32('[0.1,6,-7,8,9,1]'))",
    );
    alike(&conn, "l2", "pending");
    for command in ["refresh", "rebuild"] {
        let said = error(
            &conn,
            &format!("INSERT INTO i_f16(i_f16) VALUES('{command}')"),
        );
        assert!(
            said.contains("rowid 500") && said.contains("store=none"),
            "{said}"
        );
    }
    alike(&conn, "l2", "still");
}

#[test]
fn a_row_that_went_unnoticed_is_an_error_not_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    for (round, (change, said)) in [
        ("DELETE FROM none WHERE id = 1501", "row 1501 of none has no vector"),
        ("UPDATE none SET v = NULL WHERE id = 1501", "row 1501 of none has no vector"),
        (
            "UPDATE none SET v = vec_f32('[1,2]') WHERE id = 1501",
            "row 1501 has 2 dimensions, expected 6",
        ),
        (
            "UPDATE none SET v = x'0000c07f0000c07f0000c07f0000c07f0000c07f0000c07f' WHERE id = 1501",
            "row 1501 is not a vector",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.path().join(format!("{round}.db"));
        let conn = open(&path);
        tables(&conn, "v BLOB", 3000, ", metric=l2");
        conn.execute_batch("CREATE TABLE q AS SELECT v FROM none WHERE id = 1501")
            .unwrap();
        conn.execute_batch(&format!("{change}; DELETE FROM i_none_changes"))
            .unwrap();
        // Another connection opens the index anew, and looks at a few rows of it: this is none of them.
        let conn = open(&path);
        for search in [
            "knn_annoy('i_none', (SELECT v FROM q), 3)",
            "knn_annoy('i_none', (SELECT v FROM q), 3, '{\"recall\":0.9}')",
            "knn_exact('none', 'v', (SELECT v FROM q), 3, '{\"metric\":\"l2\"}')",
        ] {
            let message = conn
                .query_row(&format!("SELECT count(*) FROM {search}"), [], |_| Ok(()))
                .unwrap_err()
                .to_string();
            assert!(
                message.contains(said)
                    && message.contains("INSERT INTO \"i_none\"(\"i_none\") VALUES('rebuild')"),
                "{search}: {message}"
            );
        }
        let message = error(&conn, "INSERT INTO i_none(i_none) VALUES('integrity-check')");
        assert!(message.contains("1501") || message.contains("1 rows"), "{message}");
    }
}

#[test]
fn integrity_check_finds_a_row_whose_vector_changed_unnoticed() {
    let conn = common::memory();
    tables(&conn, "v BLOB", 500, ", metric=l2");
    conn.execute_batch(
        "UPDATE none SET v = vec_f32('[1,2,3,4,5,6]') WHERE id = 250; DELETE FROM i_none_changes;",
    )
    .unwrap();
    let said = error(
        &conn,
        "INSERT INTO i_none(i_none) VALUES('integrity-check')",
    );
    assert!(
        said.contains("row 250 of none is not what the file has"),
        "{said}"
    );
}
