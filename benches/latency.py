#!/usr/bin/env python3
"""How long the slowest queries take: tail, first query of a process, first query with nothing in the page cache.

    pip install numpy apsw
    cargo build --release && python3 benches/latency.py [--rows 1000000] [--dim 50] [--library PATH]

Rows are a seeded mixture of a thousand clusters.
Every number is a query at the default recall, k = 10, through SQL. The cold query drops the index file from the page
cache (posix_fadvise), and counts by mincore how many runs of neighbouring pages it brought in.
"""
import argparse, ctypes, glob, json, mmap, os, subprocess, sys, tempfile, time

import apsw
import numpy as np

SQL = "SELECT rowid, distance FROM knn_annoy('i', ?, 10)"


def connect(path, library):
    db = apsw.Connection(path)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def resident(path):
    """Runs of neighbouring pages of a file that are in memory, and how many pages those are."""
    size = os.path.getsize(path)
    pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    with open(path, "rb") as f:
        mapped = mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE)
        here = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        state = (ctypes.c_ubyte * pages)()
        ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(here), ctypes.c_size_t(size), state)
    there = np.frombuffer(state, np.uint8) & 1
    return int((np.diff(there.astype(np.int8), prepend=0) == 1).sum()), int(there.sum())


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--dim", type=int, default=50)
    options.add_argument("--library", default=os.path.join(os.path.dirname(__file__), "../target/release/libsqlite_annoy"))
    options.add_argument("--child", nargs=2)
    o = options.parse_args()
    if o.child:
        path, query = o.child
        db = connect(path, o.library)
        query = bytes.fromhex(query)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            rows = db.execute(SQL, (query,)).fetchall()
            times.append(time.perf_counter() - start)
        print(json.dumps({"first": times[0], "second": times[1], "rows": len(rows)}))
        return
    random = np.random.default_rng(3)
    centres = random.normal(size=(1000, o.dim))
    make = lambda n: (centres[random.integers(1000, size=n)] + 0.6 * random.normal(size=(n, o.dim))).astype("<f4")
    rows, queries = make(o.rows), make(3000)
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/latency.db"
        db = connect(path, o.library)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES(?, ?)", ((i, row.tobytes()) for i, row in enumerate(rows)))
        db.execute("COMMIT")
        start = time.perf_counter()
        db.execute("CREATE VIRTUAL TABLE i USING annoy(t, v, metric=l2)")
        db.execute("INSERT INTO i(i) VALUES('rebuild')")
        print(f"{o.rows:,} x {o.dim}: indexed in {time.perf_counter() - start:.2f} s")
        times = []
        for _ in range(3):
            for query in queries:
                start = time.perf_counter()
                db.execute(SQL, (query.tobytes(),)).fetchall()
                times.append(time.perf_counter() - start)
        median, tail, worst = np.percentile(np.array(times[len(queries):]) * 1e6, [50, 99, 99.9])
        print(f"a query: median {median:.0f} us, p99 {tail:.0f} us ({tail / median:.1f} times), p99.9 {worst:.0f} us")
        db.close()
        child = lambda i: json.loads(subprocess.run(
            [sys.executable, __file__, "--library", o.library, "--child", path, queries[i].tobytes().hex()],
            check=True, capture_output=True, text=True).stdout)
        first = sorted(child(i)["first"] * 1e3 for i in range(15))
        print(f"first query of a new process, page cache warm: median {first[7]:.2f} ms, worst {first[-1]:.2f} ms")
        (index,) = glob.glob(folder + "/*.annoy")
        runs, pages, cold = [], [], []
        for i in range(9):
            with open(index, "rb") as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            left = resident(index)
            cold.append(child(100 + i)["first"] * 1e3)
            now = resident(index)
            runs.append(now[0] - left[0])
            pages.append(now[1] - left[1])
        total = os.path.getsize(index) // mmap.PAGESIZE
        print(f"first query, index file not in the page cache: median {sorted(cold)[4]:.1f} ms, "
              f"{sorted(runs)[4]} runs of pages (most {max(runs)}), {sorted(pages)[4]:,} of {total:,} pages (two queries)")


if __name__ == "__main__":
    main()
