//! Annoy's files: what is written is read again, and nothing in a damaged file does harm. The real annoy package is met in
//! `tests/hosts/annoy_files.py`.

mod common;

use common::{error, ids, memory, one, open};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlite_annoy::annoy::{self, AnnoyFile, AnnoyMetric, Trees};
use sqlite_annoy::forest::Vectors;
use sqlite_annoy::job::Job;

/// A file of `ids` with `dim` components each, and the rows in it.
fn file(
    ids: &[i64],
    dim: usize,
    metric: AnnoyMetric,
    trees: u32,
    threads: usize,
) -> (Vec<u8>, Vec<f32>) {
    let mut random = StdRng::seed_from_u64(7);
    let rows: Vec<f32> = (0..ids.len() * dim)
        .map(|_| match metric {
            AnnoyMetric::Hamming => f32::from(random.random_bool(0.5)),
            _ => random.random_range(-1.0..1.0),
        })
        .collect();
    let vectors = Vectors {
        dim,
        ids,
        rows: &rows,
    };
    let options = Trees {
        metric,
        trees,
        seed: 1,
        threads,
    };
    let mut out = Vec::new();
    let bytes = annoy::write(&vectors, &options, &mut out, &Job::new()).unwrap();
    assert_eq!(bytes, out.len() as u64);
    (out, rows)
}

#[test]
fn what_is_written_is_read_again_with_every_metric_and_holes() {
    for metric in AnnoyMetric::ALL {
        // Fewer rows than a list holds, more, one alone, and numbers without an item.
        let cases: [Vec<i64>; 5] = [
            (0..3).collect(),
            (0..500).collect(),
            vec![0],
            vec![40],
            (0..500).filter(|i| i % 7 != 3).collect(),
        ];
        for numbers in cases {
            for dim in [1, 3, 70] {
                let (bytes, rows) = file(&numbers, dim, metric, 4, 2);
                let read = AnnoyFile::open(&bytes, dim, metric)
                    .unwrap_or_else(|e| panic!("{metric:?} {dim} {numbers:?}: {e}"));
                assert_eq!(read.len(), numbers.len());
                assert_eq!(read.trees(), 4, "{metric:?} {dim} {}", numbers.len());
                let found: Vec<(i64, Vec<f32>)> = (0..read.numbers())
                    .filter_map(|i| Some((i as i64, read.vector(i)?)))
                    .collect();
                for ((id, vector), (wanted, row)) in
                    found.iter().zip(numbers.iter().zip(rows.chunks(dim)))
                {
                    assert_eq!((id, &vector[..]), (wanted, row));
                }
            }
        }
    }
}

#[test]
fn the_bytes_depend_on_the_seed_and_not_on_the_threads() {
    let numbers: Vec<i64> = (0..2000).collect();
    for metric in AnnoyMetric::ALL {
        let (one_thread, _) = file(&numbers, 20, metric, 5, 1);
        assert!(
            one_thread == file(&numbers, 20, metric, 5, 3).0,
            "{metric:?}"
        );
    }
}

#[test]
fn no_prefix_and_no_longer_file_is_taken_for_whole() {
    for metric in AnnoyMetric::ALL {
        for n in [2, 60] {
            let numbers: Vec<i64> = (0..n).collect();
            let (bytes, _) = file(&numbers, 5, metric, 3, 1);
            for end in 0..bytes.len() {
                let found = AnnoyFile::open(&bytes[..end], 5, metric);
                // Whoever cuts off copies of roots only leaves a whole file, at most with fewer trees; of two items
                // all trees are the same node.
                if let Ok(found) = found {
                    assert!(
                        found.len() == n as usize && (n == 2 || found.trees() <= 3),
                        "{metric:?} {end}"
                    );
                }
            }
            let mut longer = bytes.clone();
            longer.extend_from_slice(&[1; 36]);
            assert!(AnnoyFile::open(&longer, 5, metric).is_err(), "{metric:?}");
        }
    }
}

#[test]
fn flipped_bytes_give_errors_or_other_numbers_and_never_a_panic() {
    let mut random = StdRng::seed_from_u64(11);
    for metric in AnnoyMetric::ALL {
        let numbers: Vec<i64> = (0..200).collect();
        let (bytes, _) = file(&numbers, 5, metric, 3, 1);
        let mut refused = 0;
        for _ in 0..3000 {
            let mut damaged = bytes.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..damaged.len());
                damaged[at] ^= random.random_range(1..=255u8);
            }
            match AnnoyFile::open(&damaged, 5, metric) {
                Ok(file) => {
                    for item in 0..file.numbers() {
                        if let Some(vector) = file.vector(item) {
                            assert!(vector.iter().all(|x| x.is_finite()));
                        }
                    }
                }
                Err(_) => refused += 1,
            }
        }
        // Counts and children are noticed, components that stay finite can't be.
        assert!(refused > 500, "{metric:?}: {refused} of 3000 noticed");
    }
}

#[test]
fn the_wrong_metric_or_dimension_is_an_error_that_names_the_right_metric() {
    let numbers: Vec<i64> = (0..200).collect();
    let (bytes, _) = file(&numbers, 8, AnnoyMetric::Angular, 2, 1);
    let message = AnnoyFile::open(&bytes, 8, AnnoyMetric::Hamming)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("it can be one of metric angular"),
        "{message}"
    );
    let message = AnnoyFile::open(&bytes, 9, AnnoyMetric::Angular)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("not a whole file of Annoy with 9 components"),
        "{message}"
    );
}

#[test]
fn import_makes_a_table_and_an_index_and_export_gives_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let numbers: Vec<i64> = (0..300).filter(|i| i % 5 != 2).collect();
    for metric in AnnoyMetric::ALL {
        let name = metric.name();
        let (bytes, _) = file(&numbers, 6, metric, 3, 1);
        std::fs::write(path(name), &bytes).unwrap();
        let conn = open(path(&format!("{name}.db")));
        let summary: String = one(
            &conn,
            &format!("SELECT annoy_import('{}', 6, '{name}')", path(name)),
        );
        assert!(summary.contains("\"items\":240"), "{summary}");
        assert_eq!(
            ids(&conn, &format!("SELECT id FROM \"{name}\" ORDER BY 1")),
            numbers
        );
        if metric == AnnoyMetric::Manhattan {
            assert!(summary.contains("\"index\":null"), "{summary}");
            continue;
        }
        assert!(summary.contains("\"trees_in_file\":3"), "{summary}");
        let of_table = format!(
            "SELECT n.rowid FROM knn_exact('{name}', 'vector', (SELECT vector FROM \"{name}\" WHERE id = 4), 5,
             '{{\"metric\":\"{}\"}}') n",
            metric.of_index().name()
        );
        let of_index = format!(
            "SELECT n.rowid FROM knn_annoy('{name}_index', (SELECT vector FROM \"{name}\" WHERE id = 4), 5) n"
        );
        assert_eq!(ids(&conn, &of_table), ids(&conn, &of_index), "{name}");
        // The index has l2 where bits were: the export must be told.
        let written = path(&format!("{name}.again"));
        let summary: String = one(
            &conn,
            &format!(
                "SELECT annoy_export('{name}_index', '{written}', '{{\"metric\":\"{name}\", \"trees\":3}}')"
            ),
        );
        assert!(summary.contains("\"items\":240"), "{summary}");
        // The same rows, seed and trees.
        assert!(std::fs::read(&written).unwrap() == bytes, "{name}");
        assert_eq!(
            ids(
                &conn,
                &format!("SELECT id FROM annoy_read('{written}', 6, '{name}')")
            ),
            numbers
        );
        let again = error(
            &conn,
            &format!("SELECT annoy_export('{name}_index', '{written}')"),
        );
        assert!(again.contains("exists: give the option"), "{again}");
    }
}

#[test]
fn a_failed_import_leaves_nothing_and_a_failed_export_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open(folder.path().join("a.db"));
    let path = folder.path().join("x.ann").to_str().unwrap().to_owned();
    let (bytes, _) = file(&[0, 1, 2], 2, AnnoyMetric::Angular, 1, 1);
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let message = error(
        &conn,
        &format!("SELECT annoy_import('{path}', 2, 'angular')"),
    );
    assert!(message.contains("not a whole file of Annoy"), "{message}");
    std::fs::write(&path, &bytes).unwrap();
    conn.execute_batch("CREATE TABLE x_index(a)").unwrap();
    let message = error(
        &conn,
        &format!("SELECT annoy_import('{path}', 2, 'angular')"),
    );
    assert!(
        message.contains("there is a table x_index already"),
        "{message}"
    );
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM sqlite_schema"), 1);

    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); INSERT INTO t VALUES (-1, vec_f32('[1,2]')), (5, vec_f32('[2,1]'));
         CREATE VIRTUAL TABLE i USING annoy(t, v)",
    )
    .unwrap();
    let to = folder.path().join("y.ann").to_str().unwrap().to_owned();
    let message = error(&conn, &format!("SELECT annoy_export('i', '{to}')"));
    assert!(message.contains("Annoy numbers items from 0"), "{message}");
    conn.execute_batch("UPDATE t SET id = 1000000000 WHERE id = -1")
        .unwrap();
    let message = error(&conn, &format!("SELECT annoy_export('i', '{to}')"));
    assert!(message.contains("a node for each number"), "{message}");
    assert_eq!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .filter(|f| f.file_name().to_string_lossy().starts_with("y.ann"))
            .count(),
        0
    );
    one::<String>(
        &conn,
        &format!("SELECT annoy_export('i', '{to}', '{{\"renumber\":true}}')"),
    );
    assert_eq!(
        ids(
            &conn,
            &format!("SELECT id FROM annoy_read('{to}', 2, 'angular')")
        ),
        [0, 1]
    );
}

#[test]
fn rolled_back_with_its_transaction_an_import_was_never_there() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open(folder.path().join("a.db"));
    let path = folder.path().join("x.ann").to_str().unwrap().to_owned();
    let (bytes, _) = file(&[0, 1, 2], 2, AnnoyMetric::Dot, 1, 1);
    std::fs::write(&path, &bytes).unwrap();
    conn.execute_batch("BEGIN").unwrap();
    one::<String>(
        &conn,
        &format!("SELECT annoy_import('{path}', 2, 'dot', '{{\"table\":\"t\"}}')"),
    );
    conn.execute_batch("ROLLBACK").unwrap();
    assert_eq!(one::<i64>(&conn, "SELECT count(*) FROM sqlite_schema"), 0);
    one::<String>(
        &conn,
        &format!("SELECT annoy_import('{path}', 2, 'dot', '{{\"table\":\"t\"}}')"),
    );
    assert_eq!(
        ids(&conn, "SELECT rowid FROM knn_annoy('t_index', '[1,1]', 9)").len(),
        3
    );
}

#[test]
fn only_the_top_level_reads_and_writes_files() {
    let conn = memory();
    conn.execute_batch("CREATE VIEW v AS SELECT annoy_import('x.ann', 2, 'dot'); CREATE VIEW w AS SELECT annoy_export('i', 'x')")
        .unwrap();
    for view in ["v", "w"] {
        let message = error(&conn, &format!("SELECT * FROM {view}"));
        assert!(message.contains("unsafe use of annoy_"), "{message}");
    }
    let message = conn
        .execute_batch(
            "CREATE VIEW x AS SELECT * FROM annoy_read('x.ann', 2, 'dot'); SELECT * FROM x",
        )
        .unwrap_err()
        .to_string();
    assert!(message.contains("unsafe use of virtual table"), "{message}");
}

#[test]
fn an_export_has_the_rows_of_the_index_whatever_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let conn = open(folder.path().join("a.db"));
    conn.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB, g INTEGER); CREATE INDEX t_g ON t(g);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)
         INSERT INTO t SELECT i, vec_f32(json_array(i % 7, i % 11, i % 13)), i / 4 FROM n;
         CREATE TABLE b(id INTEGER PRIMARY KEY, v bit[8]);
         INSERT INTO b SELECT id, vec_quantize_binary(vec_f32(json_array(g - 9, 1, -1, id - 50, 1, 1, 1, 1))) FROM t;
         CREATE VIRTUAL TABLE part USING annoy(t, v, metric=l2, where='id < 10');
         CREATE VIRTUAL TABLE documents USING annoy(t, v, metric=l2, group=g);
         CREATE VIRTUAL TABLE bits USING annoy(b, v, metric=hamming);
         DELETE FROM t WHERE id = 3",
    )
    .unwrap();
    for (index, dim, metric, rows) in [
        // Rows that satisfy the expression, as the table is now.
        ("part", 3, "euclidean", 9),
        // Rows, not the documents they make up.
        ("documents", 3, "euclidean", 99),
        ("bits", 8, "hamming", 100),
    ] {
        let path = folder.path().join(index).to_str().unwrap().to_owned();
        let summary: String = one(&conn, &format!("SELECT annoy_export('{index}', '{path}')"));
        assert!(
            summary.contains(&format!("\"metric\":\"{metric}\"")),
            "{summary}"
        );
        let read = format!("SELECT count(*) FROM annoy_read('{path}', {dim}, '{metric}')");
        assert_eq!(one::<i64>(&conn, &read), rows, "{index}");
        assert_eq!(
            one::<i64>(&conn, &format!("{read} WHERE id = 3")),
            i64::from(index == "bits")
        );
    }
}
