"""A process is killed at a random moment of what it does to a database; the next one must find nothing lost.

    kill.py LIBRARY [RUNS]

The child trains, builds, refreshes, renames, drops and commits, in both journal modes, with the index in files and in the
database, and says on its standard output what it has committed; the parent kills it (SIGKILL) after a random time. What was said to be committed must be
there, all or nothing of what came after; the database is in order, every index answers as the table does, and after a rebuild
there is one file for each index and nothing else. Prints its seed and what it was killed in.
"""

import collections
import itertools
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

ROWS = 1500


def connect(database, library):
    db = sqlite3.connect(database, isolation_level=None, timeout=60)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def vector():
    return struct.pack("8f", *(random.uniform(-1, 1) for _ in range(8)))


def index(storage):
    return f"CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, storage={storage})"


def prepare(db, journal, storage):
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, v BLOB)")
    db.execute("CREATE TABLE said(n INTEGER)")
    db.execute("INSERT INTO said VALUES(0)")
    db.execute("CREATE TABLE lines(body TEXT)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES(?, ?, ?)", ((i, str(i), vector()) for i in range(ROWS)))
    db.executemany("INSERT INTO lines VALUES(?)", (("a b c d e f g h " * 8,) for _ in range(50)))
    db.execute("COMMIT")
    db.execute("CREATE VIEW bare AS SELECT id, v FROM t")
    db.execute(index(storage))


def write(db):
    for _ in range(random.randint(1, 30)):
        some, name = random.randrange(ROWS), str(random.randrange(ROWS))
        sql, values = random.choice([
            ("REPLACE INTO t VALUES(?, ?, ?)", (some, name, vector())),
            ("DELETE FROM t WHERE id = ?", (some,)),
            ("UPDATE OR REPLACE t SET name = ?, v = ? WHERE id = ?", (name, vector(), some)),
        ])
        db.execute(sql, values)


def train(db):
    options = '{"vector_size":8, "min_count":1, "epochs":1, "threads":1, "replace":true}'
    db.execute(f"SELECT word2vec_train('words', 'lines', 'body', '{options}')").fetchall()


def info(db, key):
    return db.execute("SELECT value FROM annoy_info('ix') WHERE key = ?", (key,)).fetchone()[0]


DEEDS = {
    "write": write,
    "refresh": lambda db: (write(db), db.execute("INSERT INTO ix(ix) VALUES('refresh')")),
    "rebuild": lambda db: db.execute("INSERT INTO ix(ix) VALUES('rebuild')"),
    "train": train,
    "drop": lambda db: (storage := info(db, "storage"), db.execute("DROP TABLE ix"), db.execute(index(storage))),
    "rename": lambda db: (
        db.execute("ALTER TABLE ix RENAME TO jx"),
        db.execute("ALTER TABLE jx RENAME TO ix"),
    ),
    "vacuum": None,
}


def child(database, library, seed):
    random.seed(seed)
    db = connect(database, library)
    n = db.execute("SELECT n FROM said").fetchone()[0]
    print("ready", flush=True)
    while True:
        name = random.choice(list(DEEDS))
        print("does", name, flush=True)
        if name == "vacuum":
            db.execute("VACUUM")
            continue
        db.execute("BEGIN IMMEDIATE")
        DEEDS[name](db)
        n += 1
        db.execute("UPDATE said SET n = ?", (n,))
        if random.random() < 0.2:
            n -= 1
            db.execute("ROLLBACK")
            continue
        print("commits", n, flush=True)
        db.execute("COMMIT")
        print("said", n, flush=True)


def check(db):
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.execute("INSERT INTO ix(ix) VALUES('integrity-check')")
    state = info(db, "state")
    for _ in range(3):
        query = vector()
        answers = [
            db.execute(f"SELECT rowid, distance FROM {search}", (query,)).fetchall()
            for search in ("knn_annoy('ix', ?, 10, 1000000)", "knn_exact('bare', 'v', ?, 10, '{\"metric\":\"l2\"}')")
        ]
        assert answers[0] == answers[1], answers
    return state


def main(library, runs):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    random.seed(seed)
    killed_in, states = collections.Counter(), collections.Counter()
    for journal, storage in itertools.product(("wal", "delete"), ("file", "inline")):
        with tempfile.TemporaryDirectory() as folder:
            database = folder + "/app.db"
            db = connect(database, library)
            prepare(db, journal, storage)
            db.close()
            last = 0
            for run in range(runs // 4):
                command = [sys.executable, __file__, library, "child", database, str(random.randrange(1 << 32))]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                assert process.stdout.readline() == "ready\n"
                time.sleep(random.uniform(0, 0.15))
                process.send_signal(signal.SIGKILL)
                # The last line may be cut.
                lines = process.stdout.read().split("\n")[:-1]
                process.wait()
                said = [int(line.split()[1]) for line in lines if line.startswith("said")]
                commits = [int(line.split()[1]) for line in lines if line.startswith("commits")]
                does = [line.split()[1] for line in lines if line.startswith("does")]
                killed_in[does[-1] if does else "opening"] += 1
                db = connect(database, library)
                n = db.execute("SELECT n FROM said").fetchone()[0]
                # The last commit may have ended without being said.
                assert n in {said[-1] if said else last, commits[-1] if commits else last}, (n, last, said, commits)
                last = n
                states[check(db)] += 1
                if run % 10 == 9:
                    db.execute("INSERT INTO ix(ix) VALUES('rebuild')")
                    files = [name for name in os.listdir(folder) if ".annoy" in name]
                    assert len(files) == (1 if storage == "file" else 0), files
                    assert check(db) == "current"
                db.close()
    print(f"{runs} runs, killed in {dict(killed_in)}, states found {dict(states)}")
    assert not any(state.startswith("fallback") for state in states), states


if __name__ == "__main__":
    if len(sys.argv) > 3:
        child(sys.argv[3], sys.argv[1], int(sys.argv[4]))
    else:
        main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
