"""Opens, asks and closes again and again: neither memory nor descriptors may grow.

    cycles.py LIBRARY [CYCLES]
"""

import os
import sqlite3
import struct
import sys
import tempfile


def connect(database, library):
    db = sqlite3.connect(database, isolation_level=None)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def state():
    with open("/proc/self/statm") as statm:
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/fd")), len(open("/proc/self/maps").readlines())


def main(library, cycles):
    with tempfile.TemporaryDirectory() as folder:
        database = folder + "/app.db"
        db = connect(database, library)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
        db.executemany("INSERT INTO t VALUES(?, ?)", ((i, struct.pack("4f", i, i % 7, i % 11, 1)) for i in range(300)))
        db.execute("CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2)")
        # A second part, and a row that waits.
        db.execute("UPDATE t SET v = zeroblob(16) WHERE id < 20")
        db.execute("INSERT INTO ix(ix) VALUES('refresh')")
        db.execute("DELETE FROM t WHERE id = 25")
        db.close()
        query = struct.pack("4f", 100, 2, 1, 1)
        first = None
        for cycle in range(cycles):
            db = connect(database, library)
            assert len(db.execute("SELECT rowid FROM knn_annoy('ix', ?, 5)", (query,)).fetchall()) == 5
            if cycle % 10 == 0:
                assert len(db.execute("SELECT rowid FROM ix WHERE v MATCH ? AND k = 5", (query,)).fetchall()) == 5
                db.execute("SELECT * FROM annoy_info('ix')").fetchall()
            db.close()
            if cycle == cycles // 10:
                first = state()
        last = state()
        print(f"{cycles} cycles; resident, descriptors, maps: {first} -> {last}")
        assert last[0] - first[0] < 1 << 20 and last[1:] == first[1:], (first, last)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
