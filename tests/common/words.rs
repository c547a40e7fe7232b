//! A table `words` with an index `words_index`, in a folder of its own, and the truth about its nearest rows.

use std::path::PathBuf;

use rand::RngExt;
use rand::rngs::StdRng;
use rusqlite::Connection;

/// A folder that goes when the test ends.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sqlite-annoy-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn database(&self) -> PathBuf {
        self.0.join("app.db")
    }

    /// Names of index files, sorted.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n.contains(".annoy"))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn vector(rng: &mut StdRng, dim: usize) -> Vec<u8> {
    (0..dim)
        .flat_map(|_| rng.random_range(-1.0f32..1.0).to_le_bytes())
        .collect()
}

/// `words(id INTEGER PRIMARY KEY, word TEXT UNIQUE, vector BLOB)` with `n` rows.
pub fn words(conn: &Connection, n: usize, rng: &mut StdRng) {
    conn.execute_batch(
        "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT UNIQUE, vector BLOB); BEGIN",
    )
    .unwrap();
    for i in 0..n {
        conn.execute(
            "INSERT INTO words VALUES(?1, ?2, ?3)",
            (i as i64 * 3 - 20, format!("w{i}"), vector(rng, 8)),
        )
        .unwrap();
    }
    conn.execute_batch("COMMIT").unwrap();
}

/// Compares what the index answers with the table's own truth.
pub fn check(conn: &Connection, rng: &mut StdRng, what: &str) {
    for metric in ["cosine", "l2"] {
        let query = vector(rng, 8);
        let truth = truth(conn, &query, metric);
        let exact: Vec<(i64, f64)> = select(
            conn,
            "SELECT rowid, distance FROM knn_exact('words', 'vector', ?1, 12, ?2)",
            (&query, format!("{{\"metric\":\"{metric}\"}}")),
        );
        assert_eq!(exact, truth, "{what}: knn_exact, {metric}");
        if metric == "cosine" {
            let all = select(
                conn,
                "SELECT rowid, distance FROM knn_annoy('words_index', ?1, 12, ?2)",
                (&query, 1_000_000),
            );
            assert_eq!(all, truth, "{what}: knn_annoy");
        }
    }
}

pub fn select(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Vec<(i64, f64)> {
    let mut statement = conn.prepare(sql).unwrap();
    statement
        .query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))
        .and_then(Iterator::collect)
        .unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// The 12 nearest by a loop over the table.
pub fn truth(conn: &Connection, query: &[u8], metric: &str) -> Vec<(i64, f64)> {
    let floats = |blob: &[u8]| -> Vec<f32> {
        blob.chunks_exact(4)
            .map(|c| f32::from_le_bytes(c.try_into().unwrap()))
            .collect()
    };
    let query = floats(query);
    let mut rows: Vec<(i64, f64)> = Vec::new();
    let mut statement = conn
        .prepare("SELECT id, vector FROM words WHERE vector IS NOT NULL")
        .unwrap();
    let mut scan = statement.query([]).unwrap();
    while let Some(row) = scan.next().unwrap() {
        let x = floats(row.get_ref(1).unwrap().as_blob().unwrap());
        let sum = |f: fn(f64, f64) -> f64| {
            let mut sum = 0.0;
            for (&a, &b) in query.iter().zip(&x) {
                sum += f(f64::from(a), f64::from(b));
            }
            sum
        };
        let distance = if metric == "l2" {
            sum(|a, b| (a - b) * (a - b)).sqrt()
        } else {
            let norms = (sum(|a, _| a * a) * sum(|_, b| b * b)).sqrt();
            if norms == 0.0 {
                1.0
            } else {
                (1.0 - sum(|a, b| a * b) / norms).clamp(0.0, 2.0)
            }
        };
        rows.push((row.get(0).unwrap(), distance));
    }
    rows.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    rows.truncate(12);
    rows
}

/// The index.
pub const INDEX: &str =
    "CREATE VIRTUAL TABLE words_index USING annoy(words, vector, metric=cosine, trees=3)";

/// What `annoy_info` says of `words_index`.
pub fn info(conn: &Connection, key: &str) -> String {
    super::one(
        conn,
        &format!("SELECT CAST(value AS TEXT) FROM annoy_info('words_index') WHERE key = '{key}'"),
    )
}
