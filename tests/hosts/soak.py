"""Processes that read, write and rebuild at once, over one index; every answer compared with a scan of the table.

    soak.py LIBRARY [SECONDS [STORAGE]]

For each journal mode: three readers, two writers and one that rebuilds, each a process of its own. A reader asks the
index and a view that no index covers in one transaction, so that both see one snapshot, and they must agree in every
row and bit. Writers replace, delete and update, also by way of a UNIQUE constraint, and roll back every third time.
Ends with an integrity check, and with exactly one index file (with storage inline: none). Each process goes on until it has
done something, however slow the machine. Prints its seed.
"""

import os
import random
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time

DIM, ROWS = 8, 2000
L2 = '{"metric":"l2"}'


def connect(database, library):
    db = sqlite3.connect(database, isolation_level=None, timeout=60)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def vector():
    return struct.pack(f"{DIM}f", *(random.uniform(-1, 1) for _ in range(DIM)))


def prepare(db, journal, storage):
    db.execute(f"PRAGMA journal_mode = {journal}")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, v BLOB)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES(?, ?, ?)", ((i, str(i), vector()) for i in range(ROWS)))
    db.execute("COMMIT")
    db.execute(f"CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, storage={storage})")
    db.execute("CREATE VIEW bare AS SELECT id, v FROM t")


def read(db):
    query = vector()
    db.execute("BEGIN")
    answers = [
        db.execute(f"SELECT rowid, distance FROM {search}", (query,)).fetchall()
        for search in (
            "knn_annoy('ix', ?, 10, 1000000)",
            f"knn_exact('t', 'v', ?, 10, '{L2}')",
            f"knn_exact('bare', 'v', ?, 10, '{L2}')",
        )
    ]
    db.execute("COMMIT")
    assert answers[0] == answers[1] == answers[2], answers


def write(db):
    db.execute("BEGIN IMMEDIATE")
    for _ in range(random.randint(1, 20)):
        some = random.randint(0, ROWS * 5 // 4)
        name = str(random.randint(0, ROWS * 5 // 4))
        sql, values = random.choice([
            ("REPLACE INTO t VALUES(?, ?, ?)", (some, name, vector())),
            ("DELETE FROM t WHERE id = ?", (some,)),
            ("UPDATE OR REPLACE t SET name = ?, v = ? WHERE id = ?", (name, vector(), some)),
        ])
        db.execute(sql, values)
    db.execute(random.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
    time.sleep(0.005)


def rebuild(db):
    db.execute("INSERT INTO ix(ix) VALUES('rebuild')")
    time.sleep(0.2)


ROLES = {"read": read, "write": write, "rebuild": rebuild}


def play(role, database, library, seconds, seed):
    random.seed(seed)
    db = connect(database, library)
    end, done = time.monotonic() + seconds, 0
    while time.monotonic() < end or not done:
        try:
            ROLES[role](db)
            done += 1
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            if db.in_transaction:
                db.execute("ROLLBACK")
    print(f"  {role}: {done} times", flush=True)


def main(library, seconds, storage):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    random.seed(seed)
    for journal in ("wal", "delete"):
        with tempfile.TemporaryDirectory() as folder:
            database = folder + "/app.db"
            db = connect(database, library)
            prepare(db, journal, storage)
            print(f"journal mode {journal}, storage {storage}, {seconds} s", flush=True)
            command = [sys.executable, __file__, library, str(seconds), storage]
            parts = ["read", "read", "read", "write", "write", "rebuild"]
            processes = [
                subprocess.Popen([*command, part, database, str(seed + i)])
                for i, part in enumerate(parts)
            ]
            codes = [process.wait() for process in processes]
            assert codes == [0] * len(parts), codes
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            db.execute("INSERT INTO ix(ix) VALUES('integrity-check')")
            files = [name for name in os.listdir(folder) if ".annoy" in name]
            assert len(files) == (1 if storage == "file" else 0), files


if __name__ == "__main__":
    library, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5
    storage = sys.argv[3] if len(sys.argv) > 3 else "file"
    if len(sys.argv) > 4:
        play(sys.argv[4], sys.argv[5], library, seconds, int(sys.argv[6]))
    else:
        main(library, seconds, storage)
