//! A database with an index, and a model of its table in memory: random steps for both, answers compared in every bit.
//!
//! Where the choices come from is the caller's: a seeded generator (`tests/model.rs`) or a fuzzer's bytes
//! (`fuzz/fuzz_targets/sql_model.rs`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use rusqlite::Connection;
use sqlite_annoy::vector::{Metric, exact};

use crate::common;

/// Key, and (name, vector).
type Rows = BTreeMap<i64, (String, Option<Arc<[f32]>>)>;

/// A database, and what should be in it.
pub struct World {
    /// What is done, and to which rows.
    choices: Box<dyn Rng>,
    /// The components of vectors: apart, so that a step takes few choices.
    components: StdRng,
    dim: usize,
    metric: Metric,
    storage: &'static str,
    pool: Vec<Arc<[f32]>>,
    folder: PathBuf,
    conn: Connection,
    other: Connection,
    rows: Rows,
    committed: Rows,
    /// Open savepoints, the innermost last, each with the rows it began with; the first is BEGIN.
    saved: Vec<Rows>,
    done: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.done.len().saturating_sub(25);
            eprintln!("the last steps:\n{}", self.done[from..].join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The writer's settings. Without a WAL, a transaction whose pages do not fit in SQLite's cache locks readers out, by SQLite's
/// own rule; here all fit.
const SETTINGS: &str = "PRAGMA synchronous = off; PRAGMA cache_spill = off";

fn blob(v: &[f32]) -> Vec<u8> {
    v.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl World {
    /// A new database; `seed` decides dimension, metric, journal mode, storage and the vectors.
    pub fn new(seed: u64, choices: Box<dyn Rng>) -> World {
        let mut components = StdRng::seed_from_u64(seed);
        let dim = [2, 8, 520][seed as usize % 3];
        let metric = [Metric::Cosine, Metric::L2, Metric::Dot][seed as usize / 3 % 3];
        // Few vectors, so that many rows are equally far.
        let pool = (0..60)
            .map(|i| {
                (0..dim)
                    .map(|_| {
                        if i == 0 {
                            0.0
                        } else {
                            components.random_range(-1.0f32..1.0)
                        }
                    })
                    .collect()
            })
            .collect();
        let folder =
            std::env::temp_dir().join(format!("sqlite-annoy-model-{seed}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let database = folder.join("app.db");
        let conn = common::open(&database);
        let journal = if seed.is_multiple_of(2) {
            "wal"
        } else {
            "delete"
        };
        // With each way of keeping the journal, both ways of keeping the index.
        let storage = ["file", "inline"][seed as usize / 2 % 2];
        let _: String = common::one(&conn, &format!("PRAGMA journal_mode = {journal}"));
        conn.execute_batch(&format!(
            "{SETTINGS};
             CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE COLLATE nocase, v BLOB);
             CREATE VIRTUAL TABLE ix USING annoy(t, v, metric={}, trees=2, threads=1, storage={storage})",
            metric.name()
        ))
        .unwrap();
        let other = common::open(&database);
        World {
            choices,
            components,
            dim,
            metric,
            storage,
            pool,
            folder,
            conn,
            other,
            rows: Rows::new(),
            committed: Rows::new(),
            saved: Vec::new(),
            done: Vec::new(),
        }
    }

    fn run(&mut self, sql: &str, params: impl rusqlite::Params) -> usize {
        self.done.push(sql.to_owned());
        self.conn
            .execute(sql, params)
            .unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    fn vector(&mut self) -> Arc<[f32]> {
        if self.choices.random_range(0..3) == 0 {
            (0..self.dim)
                .map(|_| self.components.random_range(-1.0f32..1.0))
                .collect()
        } else {
            Arc::clone(&self.pool[self.choices.random_range(0..self.pool.len())])
        }
    }

    fn id(&mut self) -> i64 {
        self.choices.random_range(-50..400)
    }

    /// Sometimes in capitals: the UNIQUE constraint does not tell them apart.
    fn name(&mut self) -> String {
        let letter = if self.choices.random() { 'n' } else { 'N' };
        format!("{letter}{}", self.choices.random_range(0..400))
    }

    /// As REPLACE does: rows with this name or key go.
    fn replace(&mut self, id: i64, name: String, v: Option<Arc<[f32]>>) {
        self.rows
            .retain(|_, row| !row.0.eq_ignore_ascii_case(&name));
        self.rows.insert(id, (name, v));
    }

    fn free(&self, name: &str, but: Option<i64>) -> bool {
        !self
            .rows
            .iter()
            .any(|(id, row)| Some(*id) != but && row.0.eq_ignore_ascii_case(name))
    }

    /// Does something.
    pub fn step(&mut self) {
        let id = self.id();
        match self.choices.random_range(0..100) {
            0..=19 => {
                let (name, v) = (self.name(), self.vector());
                self.run("REPLACE INTO t VALUES(?1, ?2, ?3)", (id, &name, blob(&v)));
                self.replace(id, name, Some(v));
            }
            20..=29 => {
                let (name, v) = (self.name(), self.vector());
                let inserted = self.run(
                    "INSERT OR IGNORE INTO t VALUES(?1, ?2, ?3)",
                    (id, &name, blob(&v)),
                );
                let free = !self.rows.contains_key(&id) && self.free(&name, None);
                assert_eq!(inserted, usize::from(free));
                if free {
                    self.rows.insert(id, (name, Some(v)));
                }
            }
            30..=39 => {
                let v = self.vector();
                self.run("UPDATE t SET v = ?2 WHERE id = ?1", (id, blob(&v)));
                if let Some(row) = self.rows.get_mut(&id) {
                    row.1 = Some(v);
                }
            }
            40..=44 => {
                let (to, name) = (self.id(), self.name());
                self.run(
                    "UPDATE OR REPLACE t SET id = ?2, name = ?3 WHERE id = ?1",
                    (id, to, &name),
                );
                if let Some((_, v)) = self.rows.remove(&id) {
                    self.replace(to, name, v);
                }
            }
            45..=47 => {
                let v = self.vector();
                let name = format!("up{id}");
                self.run(
                    "INSERT INTO t VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET v = excluded.v",
                    (id, &name, blob(&v)),
                );
                self.rows.entry(id).or_insert((name, None)).1 = Some(v);
            }
            48..=49 => {
                self.run("UPDATE t SET v = NULL WHERE id = ?1", [id]);
                if let Some(row) = self.rows.get_mut(&id) {
                    row.1 = None;
                }
            }
            50..=59 => {
                self.run("DELETE FROM t WHERE id = ?1", [id]);
                self.rows.remove(&id);
            }
            60 => {
                self.run("DELETE FROM t WHERE id BETWEEN ?1 AND ?1 + 20", [id]);
                self.rows.retain(|&i, _| !(id..=id + 20).contains(&i));
            }
            61..=64 => {
                // Many rows at once, some of which REPLACE removes by their names.
                let v = self.vector();
                let (n, name) = (
                    self.choices.random_range(1..150),
                    self.choices.random_range(0..300),
                );
                self.run(
                    "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i + 1 < ?3)
                     INSERT OR REPLACE INTO t SELECT ?1 + i, 'n' || (?2 + i), ?4 FROM c",
                    (id, name, n, blob(&v)),
                );
                for i in 0..n {
                    self.replace(id + i, format!("n{}", name + i), Some(Arc::clone(&v)));
                }
            }
            65 if self.choices.random_range(0..8) == 0 => {
                self.run("DELETE FROM t", []);
                self.rows.clear();
            }
            66..=71 => {
                if self.saved.is_empty() {
                    self.run("BEGIN", []);
                } else {
                    self.run(&format!("SAVEPOINT s{}", self.saved.len()), []);
                }
                self.saved.push(self.rows.clone());
            }
            72..=76 if self.saved.len() > 1 => {
                let to = self.choices.random_range(1..self.saved.len());
                self.run(&format!("ROLLBACK TO s{to}"), []);
                self.rows = self.saved[to].clone();
                self.saved.truncate(to + 1);
            }
            77..=78 if self.saved.len() > 1 => {
                let to = self.choices.random_range(1..self.saved.len());
                self.run(&format!("RELEASE s{to}"), []);
                self.saved.truncate(to);
            }
            79..=80 if !self.saved.is_empty() => {
                self.run("ROLLBACK", []);
                self.rows = self.saved[0].clone();
                self.saved.clear();
            }
            81..=84 if !self.saved.is_empty() => {
                self.run("COMMIT", []);
                self.saved.clear();
            }
            85..=89 => {
                self.run("INSERT INTO ix(ix) VALUES('refresh')", []);
            }
            90 => {
                self.run("INSERT INTO ix(ix) VALUES('rebuild')", []);
            }
            91 if self.saved.is_empty() => {
                self.run("VACUUM", []);
            }
            92..=94 if self.saved.is_empty() => {
                let v = self.vector();
                self.done
                    .push(format!("another connection updates row {id}"));
                self.other
                    .execute(
                        "UPDATE t SET v = ?2 WHERE id >= ?1 AND id < ?1 + 3",
                        (id, blob(&v)),
                    )
                    .unwrap();
                for (_, row) in self.rows.range_mut(id..id + 3) {
                    row.1 = Some(Arc::clone(&v));
                }
            }
            95 if self.saved.is_empty() => {
                self.done.push("another connection refreshes".to_owned());
                self.other
                    .execute_batch("INSERT INTO ix(ix) VALUES('refresh')")
                    .unwrap();
            }
            96 if self.saved.is_empty() => {
                self.done.push("reopened".to_owned());
                self.conn = common::open(self.folder.join("app.db"));
                self.conn.execute_batch(SETTINGS).unwrap();
            }
            97 => {
                let to = self.choices.random_range(0..100);
                self.run(&format!("ALTER TABLE ix RENAME TO ix{to}"), []);
                self.run(&format!("ALTER TABLE ix{to} RENAME TO ix"), []);
            }
            98 if self.choices.random_range(0..8) == 0 => {
                self.run("DROP TABLE ix", []);
                self.run(
                    &format!(
                        "CREATE VIRTUAL TABLE ix USING annoy(t, v, metric={}, threads=1, storage={})",
                        self.metric.name(),
                        self.storage
                    ),
                    [],
                );
            }
            _ => {}
        }
        if self.saved.is_empty() {
            self.committed = self.rows.clone();
        }
    }

    /// Compares the answers of a random query. `step` counts the steps so far.
    pub fn check(&mut self, step: usize) {
        let (query, k) = (self.vector(), self.choices.random_range(1..20));
        let truth = |rows: &Rows| {
            let mut all: Vec<(i64, u64, f64)> = rows
                .iter()
                .filter_map(|(&id, row)| {
                    let d = exact::distance(self.metric, &query, row.1.as_ref()?) + 0.0;
                    Some((id, d.to_bits(), d))
                })
                .collect();
            all.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
            all.truncate(k);
            all.into_iter()
                .map(|(id, bits, _)| (id, bits))
                .collect::<Vec<_>>()
        };
        let name = self.metric.name();
        let compare = |conn: &Connection, rows: &Rows, who: &str| {
            let truth = truth(rows);
            for sql in [
                "SELECT rowid, distance FROM knn_annoy('ix', ?1, ?2, 1000000)".to_owned(),
                format!(
                    "SELECT rowid, distance FROM knn_exact('t', 'v', ?1, ?2, '{{\"metric\":\"{name}\"}}')"
                ),
                "SELECT rowid, distance FROM ix WHERE v MATCH ?1 AND k = ?2".to_owned(),
            ] {
                let got: Vec<(i64, u64)> = conn
                    .prepare_cached(&sql)
                    .and_then(|mut s| {
                        s.query_map((blob(&query), k as i64), |row| {
                            Ok((row.get(0)?, row.get::<_, f64>(1)?.to_bits()))
                        })?
                        .collect()
                    })
                    .unwrap_or_else(|e| panic!("step {step}, {who}: {sql}: {e}"));
                assert_eq!(got, truth, "step {step}, {who}: {sql}");
            }
        };
        compare(&self.conn, &self.rows, "writer");
        if step.is_multiple_of(3) {
            compare(&self.other, &self.committed, "another connection");
        }
        if step.is_multiple_of(100) {
            for conn in [&self.conn, &self.other] {
                let state: String = common::one(
                    conn,
                    "SELECT value FROM annoy_info('ix') WHERE key = 'state'",
                );
                assert!(!state.starts_with("fallback"), "step {step}: {state}");
            }
            self.conn
                .execute_batch("INSERT INTO ix(ix) VALUES('integrity-check')")
                .unwrap_or_else(|e| panic!("step {step}: {e}"));
        }
    }

    /// Commits, drops the index, and looks for files that it left.
    pub fn finish(mut self) {
        if !self.saved.is_empty() {
            self.run("COMMIT", []);
        }
        self.run("DROP TABLE ix", []);
        let files: Vec<_> = std::fs::read_dir(&self.folder)
            .unwrap()
            .map(|f| f.unwrap().file_name())
            .filter(|f| f.to_string_lossy().contains(".annoy"))
            .collect();
        assert!(files.is_empty(), "{files:?}");
    }
}
