//! What SQL adds to a search: prepared statements through the C API, inside a transaction, beside the same search
//! without SQL; and a scan of a bare table beside SQLite's own reading of its rows.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::Connection;
use rustc_hash::FxHashSet;
use sqlite_annoy::forest::{Budget, BuildOptions, Forest, Scratch, VectorStore, Vectors, build};
use sqlite_annoy::job::Job;
use sqlite_annoy::vector::Metric;

const DIM: usize = 100;
const ROWS: usize = 10_000;

fn open() -> Connection {
    #[cfg(feature = "loadable")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| private_sqlite::install(sqlite_annoy::entry::sqlite3_extension_init));
    }
    let conn = Connection::open_in_memory().unwrap();
    #[cfg(not(feature = "loadable"))]
    sqlite_annoy::register(&conn).unwrap();
    conn
}

fn searches(c: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(1);
    let rows: Vec<f32> = (0..ROWS * DIM)
        .map(|_| rng.random_range(-1.0..1.0))
        .collect();
    let ids: Vec<i64> = (0..ROWS as i64).collect();
    let conn = open();
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL); BEGIN")
        .unwrap();
    for (id, row) in ids.iter().zip(rows.chunks(DIM)) {
        conn.execute(
            "INSERT INTO t VALUES(?1, ?2)",
            (id, bytemuck::cast_slice::<f32, u8>(row)),
        )
        .unwrap();
    }
    conn.execute_batch("COMMIT; CREATE VIRTUAL TABLE ix USING annoy(t, v, trees=1)")
        .unwrap();
    conn.execute_batch("BEGIN").unwrap();

    let options = BuildOptions {
        metric: Metric::Cosine,
        trees: 1,
        seed: 1,
        threads: 1,
        store: VectorStore::F32,
    };
    let vectors = Vectors {
        dim: DIM,
        ids: &ids,
        rows: &rows,
    };
    let image = build(&vectors, &options, &Job::new()).unwrap();
    let forest = Forest::open(image.to_bytes()).unwrap();
    let (mut scratch, hidden) = (Scratch::default(), FxHashSet::default());
    let query = &rows[..DIM];
    let blob: &[u8] = bytemuck::cast_slice(query);

    let mut group = c.benchmark_group("10 of 10,000 x 100");
    group.bench_function("one leaf, no SQL", |b| {
        b.iter(|| {
            forest.search(
                black_box(query),
                10,
                Budget::SearchK(1),
                &hidden,
                &mut scratch,
            )
        });
    });
    let mut statement = conn
        .prepare("SELECT rowid, distance FROM knn_annoy('ix', ?1, 10, 1)")
        .unwrap();
    group.bench_function("one leaf, SQL", |b| {
        b.iter(|| {
            let mut rows = statement.query([black_box(blob)]).unwrap();
            let mut sum = 0;
            while let Some(row) = rows.next().unwrap() {
                sum += row.get_ref(0).unwrap().as_i64().unwrap();
            }
            sum
        });
    });
    group.bench_function("exact by the index, no SQL", |b| {
        b.iter(|| forest.exact(black_box(query), 10, &hidden, &mut scratch));
    });
    for (name, sql) in [
        (
            "exact by the index, SQL",
            "SELECT rowid, distance FROM knn_exact('t', 'v', ?1, 10)",
        ),
        (
            "exact over the bare table, SQL",
            "SELECT rowid, distance FROM knn_exact('t', 'v', ?1, 10, '{\"metric\":\"l2\"}')",
        ),
    ] {
        let mut statement = conn.prepare(sql).unwrap();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut rows = statement.query([black_box(blob)]).unwrap();
                while rows.next().unwrap().is_some() {}
            });
        });
    }
    let mut statement = conn.prepare("SELECT id, v FROM t").unwrap();
    group.bench_function("SQLite reads the rows", |b| {
        b.iter(|| {
            let mut rows = statement.query([]).unwrap();
            let mut sum = 0u64;
            while let Some(row) = rows.next().unwrap() {
                let blob = row.get_ref(1).unwrap().as_blob().unwrap();
                sum += u64::from(blob[0]) + u64::from(blob[blob.len() - 1]);
            }
            sum
        });
    });
    group.finish();
}

criterion_group!(benches, searches);
criterion_main!(benches);
