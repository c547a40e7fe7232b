//! Builds whose arrays lie in files: the same bytes as in memory, nothing left behind.

mod common;

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use common::words::Folder;
use rusqlite::Connection;
use sqlite_annoy::forest::{BuildOptions, Input, VectorStore, Vectors, build, build_large};
use sqlite_annoy::job::{Interrupted, Job};
use sqlite_annoy::spill::Spill;
use sqlite_annoy::vector::Metric;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Clusters, copies among them (a tenth are one row), all components such that float16 holds them.
fn rows(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    let centres: Vec<f32> = (0..40 * dim)
        .map(|_| rng.random_range(-64i32..=64) as f32 / 16.0)
        .collect();
    let mut rows = Vec::with_capacity(n * dim);
    for i in 0..n {
        let centre = rng.random_range(0..40) * dim;
        if i % 10 == 9 {
            rows.extend((0..dim).map(|k| k as f32 / 64.0));
            continue;
        }
        if i % 7 == 3 && i < n / 3 {
            rows.extend_from_slice(&centres[centre..centre + dim]);
            continue;
        }
        rows.extend(
            centres[centre..centre + dim]
                .iter()
                .map(|c| c + rng.random_range(-16i32..=16) as f32 / 16.0),
        );
    }
    rows
}

#[test]
fn the_bytes_are_those_of_a_build_in_memory() {
    let folder = Folder::new("spill-bytes");
    let seed = 7;
    let cases = [
        // Spans of a hundred rows and of thousands; few leaves and many; one tree and three.
        (20_000, 24, Metric::Cosine, 1, VectorStore::F32, 1 << 16),
        (40_000, 16, Metric::L2, 1, VectorStore::F16, 1 << 20),
        (9_000, 33, Metric::Dot, 3, VectorStore::None, 1 << 18),
        (700, 5, Metric::L2, 2, VectorStore::F32, 1),
        (1, 3, Metric::Cosine, 1, VectorStore::F32, 1),
        (0, 3, Metric::Cosine, 1, VectorStore::F32, 1),
    ];
    for (n, dim, metric, trees, store, memory) in cases {
        let (ids, rows) = (
            (0..n as i64).map(|i| i * 3).collect::<Vec<_>>(),
            rows(n, dim, seed),
        );
        let options = |threads| BuildOptions {
            metric,
            trees,
            seed: 42,
            threads,
            store,
        };
        let vectors = Vectors {
            dim,
            ids: &ids,
            rows: &rows,
        };
        let expected = build(&vectors, &options(2), &Job::new())
            .unwrap()
            .to_bytes();
        for threads in [1, 3] {
            let spill = Spill::files(folder.0.clone(), memory);
            let mut given = Input {
                dim,
                ids: spill.reserve(n).unwrap(),
                rows: spill.reserve(n * dim).unwrap(),
            };
            given.ids.extend(&ids).unwrap();
            given.rows.extend(&rows).unwrap();
            let image = build_large(given, &options(threads), &spill, &Job::new()).unwrap();
            let got = image.to_bytes();
            assert!(
                got.as_ref() == expected.as_ref(),
                "seed {seed}: {n} x {dim}, {metric:?}, {trees} trees, {store:?}, {threads} threads"
            );
        }
    }
    assert_eq!(files(&folder), [""; 0]);
}

/// A table `t` of 20,000 x 48; memory for an index of it is 13 MiB.
fn table(conn: &Connection) {
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB); BEGIN")
        .unwrap();
    {
        let mut insert = conn.prepare("INSERT INTO t(v) VALUES(?1)").unwrap();
        for row in rows(20_000, 48, 3).chunks(48) {
            insert
                .execute([bytemuck::cast_slice::<f32, u8>(row)])
                .unwrap();
        }
    }
    conn.execute_batch("COMMIT").unwrap();
}

/// What `annoy_info` says of an index.
fn info(conn: &Connection, index: &str, key: &str) -> String {
    let sql = format!("SELECT CAST(value AS TEXT) FROM annoy_info('{index}') WHERE key = '{key}'");
    common::one(conn, &sql)
}

fn files(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(&folder.0).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_index_with_max_memory_is_the_same_file_and_leaves_no_other() {
    let folder = Folder::new("spill-sql");
    let conn = common::open(folder.database());
    table(&conn);
    for options in ["metric=l2", "store=none", "storage=inline, trees=2"] {
        conn.execute_batch(&format!(
            "CREATE VIRTUAL TABLE free USING annoy(t, v, {options});
             CREATE VIRTUAL TABLE small USING annoy(t, v, max_memory=8, {options})"
        ))
        .unwrap();
        let checksums = ["free", "small"].map(|index| info(&conn, index, "checksum"));
        assert_eq!(checksums[0], checksums[1], "{options}");
        // Kept for what comes later.
        for command in ["refresh", "rebuild"] {
            conn.execute_batch(&format!(
                "UPDATE t SET v = (SELECT v FROM t WHERE id = 77) WHERE id % 3 = 1 AND id < 20000;
                 INSERT INTO free(free) VALUES('{command}'); INSERT INTO small(small) VALUES('{command}');
                 INSERT INTO small(small) VALUES('integrity-check')"
            ))
            .unwrap();
            let checksums = ["free", "small"].map(|index| info(&conn, index, "checksum"));
            assert_eq!(checksums[0], checksums[1], "{options}, {command}");
        }
        conn.execute_batch("DROP TABLE free; DROP TABLE small")
            .unwrap();
        assert_eq!(files(&folder), ["app.db"], "{options}");
    }
}

#[test]
fn too_little_memory_is_refused_with_what_it_takes() {
    let folder = Folder::new("spill-little");
    let conn = common::open(folder.database());
    table(&conn);
    let create = |mib: &str| {
        let sql = format!("CREATE VIRTUAL TABLE ix USING annoy(t, v, max_memory={mib})");
        conn.execute_batch(&sql).map_err(|error| error.to_string())
    };
    let said = create("2").unwrap_err();
    let expected = "max_memory=2 (MiB) is too little to build an index of 20000 vectors of 48 dimensions: expected at least 7;";
    assert!(said.contains(expected), "{said}");
    for bad in ["0", "-1", "many", "1.5", ""] {
        let said = create(bad).unwrap_err();
        let expected = format!("max_memory must be an integer from 1 to 1048576, got {bad}");
        assert!(said.contains(&expected), "{said}");
    }
    assert_eq!(files(&folder), ["app.db"]);
    create("7").unwrap();
}

#[test]
fn an_interrupt_at_any_phase_ends_the_build_and_the_old_file_counts() {
    let folder = Folder::new("spill-interrupt");
    let conn = common::open(folder.database());
    table(&conn);
    conn.execute_batch("CREATE VIRTUAL TABLE ix USING annoy(t, v, max_memory=8)")
        .unwrap();
    let (mut before, mut generation) = (files(&folder), info(&conn, "ix", "generation"));
    let whole = Instant::now();
    conn.execute_batch("BEGIN; INSERT INTO ix(ix) VALUES('rebuild'); ROLLBACK")
        .unwrap();
    let whole = whole.elapsed();
    let mut delays = Vec::new();
    for part in 0..12 {
        let handle = conn.get_interrupt_handle();
        let (finished, wait) = std::sync::mpsc::channel::<()>();
        let interrupter = std::thread::spawn(move || {
            // Whatever the build is doing then, or nothing any more. Again and again: an interrupt before the statement has
            // begun is none.
            let mut time = whole * part / 12;
            let mut first = None;
            while wait.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                first.get_or_insert_with(Instant::now);
                handle.interrupt();
                time = Duration::from_millis(1);
            }
            first
        });
        let outcome = conn.execute_batch("INSERT INTO ix(ix) VALUES('rebuild')");
        let ended = Instant::now();
        drop(finished);
        let first = interrupter.join().unwrap();
        match outcome {
            Err(error) => {
                assert_eq!(error.to_string(), "interrupted");
                delays.push(ended - first.unwrap());
                assert_eq!(files(&folder), before);
                assert_eq!(info(&conn, "ix", "generation"), generation);
            }
            // It was faster this time.
            Ok(()) => (before, generation) = (files(&folder), info(&conn, "ix", "generation")),
        }
    }
    // A busy machine may delay some of them.
    assert!(delays.iter().min().unwrap() < &Duration::from_secs(1));
    conn.execute_batch("INSERT INTO ix(ix) VALUES('integrity-check')")
        .unwrap();
}

#[test]
fn a_stopped_build_in_files_leaves_none() {
    let folder = Folder::new("spill-stop");
    let spill = Spill::files(folder.0.clone(), 1 << 16);
    let (n, dim) = (5000, 8);
    let mut input = Input {
        dim,
        ids: spill.reserve(n).unwrap(),
        rows: spill.reserve(n * dim).unwrap(),
    };
    input
        .ids
        .extend(&(0..n as i64).collect::<Vec<_>>())
        .unwrap();
    input.rows.extend(&rows(n, dim, 5)).unwrap();
    // More than was reserved does not go in.
    assert!(input.ids.extend(&[7]).is_err());
    let job = Job::new();
    job.stop();
    let options = BuildOptions {
        metric: Metric::L2,
        trees: 1,
        seed: 1,
        threads: 1,
        store: VectorStore::F32,
    };
    let error = build_large(input, &options, &spill, &job).unwrap_err();
    assert!(error.is::<Interrupted>());
    assert_eq!(files(&folder), [""; 0]);
}
