#!/usr/bin/env python3
"""An index that is larger than memory: built, and searched cold, under a limit that a memory cgroup enforces.

    pip install numpy apsw
    cargo build --release
    sudo python benches/larger_than_memory.py --rows 1000000 --max-memory 256 --limit 320 [--real vectors.npy] [--keep t.db]

Half of the rows are made up (4,096 clusters in 1,024 groups, each of its own width, in 24 of 96 dimensions more than in the others);
the other half are those of `--real`, on their first 96 principal axes, each time with a noise of a tenth of their spread (without
`--real` all are made up). Table, build and queries are processes of their own. Build and queries run in a cgroup whose limit counts
the pages of files as well (cgroup v1 or v2; root), so what they do not hold in memory comes from the disk. `anonymous` is the
most anonymous memory of the build above what Python has, `processors` the time of all threads, which other work on the machine
changes less than that of the clock; the stages are the lines of SQLite's log. Before the queries the system is told
to forget the index file; the first time that they are asked is `cold`, the second `warm`; twenty are asked for exactly too. Queries are new points
of both kinds, as many of each as the table has in proportion. What is true is found by knn_exact in a process without a limit.
"""
import argparse, json, multiprocessing, os, statistics, tempfile, time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
from growth import Peak

DIM, K, CHUNK = 96, 10, 100_000


def made_up(seed):
    random = np.random.default_rng(seed)
    axes = np.concatenate([np.ones(24), np.full(DIM - 24, 0.3)]).astype(np.float32)
    groups = random.standard_normal((1024, 1, DIM), np.float32)
    centres = ((groups + 0.5 * random.standard_normal((1024, 4, DIM), np.float32)) * axes).reshape(-1, DIM)
    width = random.uniform(0.2, 0.6, len(centres)).astype(np.float32)

    def some(random, n):
        at = random.integers(len(centres), size=n)
        return centres[at] + width[at, None] * axes * random.standard_normal((n, DIM), np.float32)
    return some


def real(path):
    rows = np.load(path, mmap_mode="r")
    sample = np.asarray(rows[:: max(1, len(rows) // 20_000)], np.float32)
    mean = sample.mean(0)
    _, _, axes = np.linalg.svd(sample - mean, full_matrices=False)
    base = (np.asarray(rows, np.float32) - mean) @ axes[:DIM].T
    base /= base.std()
    noise = 0.1 * base.std(0)

    def some(random, n):
        return base[random.integers(len(base), size=n)] + noise * random.standard_normal((n, DIM), np.float32)
    return some


def kinds(options):
    return [made_up(1)] + ([real(options.real)] if options.real else [])


def chunks(options, n, seed):
    some = kinds(options)
    random = np.random.default_rng(seed)
    for i, first in enumerate(range(0, n, CHUNK)):
        yield some[i % len(some)](random, min(CHUNK, n - first)).astype(np.float32)


def queries(options):
    """(bytes of the query, its kind): of each kind as many as its rows are of the table."""
    some = kinds(options)
    random = np.random.default_rng(3)
    rows = [0] * len(some)
    for i, first in enumerate(range(0, options.rows, CHUNK)):
        rows[i % len(some)] += min(CHUNK, options.rows - first)
    for kind, of in enumerate(rows):
        for row in some[kind](random, round(options.queries * of / options.rows)).astype(np.float32):
            yield row.tobytes(), kind


def connect(options, log=None):
    import apsw
    if log is not None:
        apsw.config(apsw.SQLITE_CONFIG_LOG, lambda code, text: log.append((time.perf_counter(), text)))
    db = apsw.Connection(options.keep)
    db.enable_load_extension(True)
    db.load_extension(options.library)
    return db


def fill(options, out):
    db = connect(options)
    db.execute("PRAGMA journal_mode=off; PRAGMA synchronous=off; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB NOT NULL)").fetchall()
    start = time.perf_counter()
    with db:
        for rows in chunks(options, options.rows, 2):
            db.executemany("INSERT INTO t(v) VALUES(?)", ((row.tobytes(),) for row in rows))
    out.put(time.perf_counter() - start)


def limited(options):
    """Puts this process into a cgroup with the limit."""
    mib = options.limit << 20
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = f"{root}/annoy-bench-{os.getpid()}"
        try:
            os.makedirs(folder, exist_ok=True)
            with open(f"{folder}/{name}", "w") as f:
                f.write(str(mib))
            with open(f"{folder}/cgroup.procs", "w") as f:
                f.write(str(os.getpid()))
            return folder
        except OSError:
            continue
    raise SystemExit("no memory cgroup that this user may make: run as root")


def most(folder):
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if os.path.exists(f"{folder}/{name}"):
            return int(open(f"{folder}/{name}").read()) >> 20


def build(options, out):
    folder, log = limited(options), []
    db = connect(options, log)
    memory = f", max_memory={options.max_memory}" if options.max_memory else ""
    db.execute("DROP TABLE IF EXISTS ix").fetchall()
    with Peak() as peak:
        start, spent = time.perf_counter(), os.times()
        db.execute(f"CREATE VIRTUAL TABLE ix USING annoy(t, v{memory}, threads={options.threads}{options.options})").fetchall()
        seconds, used = time.perf_counter() - start, os.times()
    cpu = [round(used[i] - spent[i]) for i in (0, 1)]
    for at, text in log:
        print(f"    {at - start:7.0f} s  {text}")
    info = dict(db.execute("SELECT key, value FROM annoy_info('ix')").fetchall())
    out.put((seconds, cpu, peak.most >> 20, most(folder), {k: v for k, v in info.items() if "second" in k or k in ("bytes", "leaves", "checksum")}))


def ask(db, sql, queries):
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append({row for row, in db.execute(sql, (query, K))})
        times.append(time.perf_counter() - start)
    return times, found


def query(options, out):
    asked = [query for query, _ in queries(options)]
    folder = limited(options)
    db = connect(options)
    where = os.path.dirname(os.path.abspath(options.keep))
    size = 0
    for name in os.listdir(where):
        if name.startswith(os.path.basename(options.keep)):
            f = os.open(os.path.join(where, name), os.O_RDONLY)
            os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(f)
            size += os.path.getsize(os.path.join(where, name)) if name.endswith(".annoy") else 0
    sql = f"SELECT rowid FROM knn_annoy('ix', ?, ?, '{json.dumps({'recall': 0.95})}')"
    cold, found = ask(db, sql, asked)
    warm, _ = ask(db, sql, asked)
    exact, _ = ask(db, EXACT, asked[:: max(1, len(asked) // 20)])
    out.put((size, cold, warm, exact, found, most(folder)))


EXACT = "SELECT rowid FROM knn_exact('t', 'v', ?, ?)"


def truth(options, out):
    db = connect(options)
    out.put(ask(db, EXACT, [query for query, _ in queries(options)])[1])


def apart(options, what):
    """What a process of its own puts."""
    out = multiprocessing.Queue()
    process = multiprocessing.Process(target=what, args=(options, out))
    process.start()
    while True:
        try:
            answer = out.get(timeout=1)
            process.join()
            return answer
        except Exception:
            if not process.is_alive():
                raise SystemExit(f"{what.__name__} ended with {process.exitcode}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--max-memory", type=int, default=0, help="MiB, of the index; 0: as much as it likes")
    parser.add_argument("--limit", type=int, default=1 << 20, help="MiB, of the cgroup")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--options", default="", help="further options of the index, as in ', metric=l2'")
    parser.add_argument("--real", help="an .npy of vectors of at least 96 dimensions")
    parser.add_argument("--keep", help="the database, made if it is not there; otherwise a temporary one")
    parser.add_argument("--only", choices=["fill", "build", "query"])
    parser.add_argument("--library", default=os.environ.get("SQLITE_ANNOY", "target/release/libsqlite_annoy"))
    options = parser.parse_args()
    options.library = os.path.abspath(options.library)
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or f"{folder}/t.db"
        do = lambda step: options.only in (None, step)
        if do("fill") and not os.path.exists(options.keep):
            print(f"{options.rows:,} x {DIM}: table {apart(options, fill):.0f} s, {os.path.getsize(options.keep) >> 20} MiB")
        if do("build"):
            seconds, cpu, peak, group, info = apart(options, build)
            print(f"build {seconds:.0f} s (processors {cpu[0]} s, {cpu[1]} of the system), anonymous {peak} MiB, cgroup {group} of {options.limit} MiB, {info}")
        if do("query"):
            size, cold, warm, exact, found, group = apart(options, query)
            true = apart(options, truth)
            each = [(kind, len(a & b) / K) for a, b, (_, kind) in zip(true, found, queries(options))]
            recall = statistics.mean(r for _, r in each)
            of = [f"{statistics.mean(r for k, r in each if k == kind):.3f}" for kind in sorted({kind for kind, _ in each})]
            ms = lambda times: f"{1e3 * statistics.median(times):.2f} ms (p95 {1e3 * sorted(times)[len(times) * 95 // 100]:.1f})"
            print(f"file {size >> 20} MiB, recall of {len(each)} {recall:.3f} at .95 (by kind {', '.join(of)}), cold {ms(cold)}, warm {ms(warm)}, exact {ms(exact)}, cgroup {group} MiB")


if __name__ == "__main__":
    main()
