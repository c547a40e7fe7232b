"""Databases with an index, copied in the ways that backups and replicas copy them; docs/replicas.md tells of it.

    replicas.py LIBRARY

For each way and each storage: what state the copy's index is in, and that its answers are those of a scan of its table. Then
the copy is written to and rebuilt. Where two databases have the same rows, their rebuilt indexes have the same bytes. Prints the
table of the page, and compares it with the page.
"""

import glob
import os
import random
import re
import shutil
import sqlite3
import struct
import sys
import tempfile

DIM, ROWS = 8, 3000
LIBRARY = sys.argv[1]
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/replicas.md")
L2 = '{"metric":"l2"}'


def connect(path):
    db = sqlite3.connect(path, isolation_level=None, timeout=60)
    db.enable_load_extension(True)
    db.load_extension(LIBRARY)
    return db


def vector():
    return struct.pack(f"{DIM}f", *(random.uniform(-1, 1) for _ in range(DIM)))


def change(db, n=50):
    """New rows, changed rows, and rows that go."""
    db.execute("BEGIN")
    db.executemany("INSERT INTO t(v) VALUES(?)", ((vector(),) for _ in range(n)))
    for _ in range(n):
        db.execute("UPDATE t SET v = ? WHERE id = ?", (vector(), random.randint(1, ROWS)))
        db.execute("DELETE FROM t WHERE id = ?", (random.randint(1, ROWS),))
    db.execute("COMMIT")


def primary(folder, storage):
    db = connect(f"{folder}/app.db")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t(v) VALUES(?)", ((vector(),) for _ in range(ROWS)))
    db.execute("COMMIT")
    db.execute(f"CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, storage={storage})")
    db.execute("CREATE VIEW bare AS SELECT id, v FROM t")
    change(db)
    return db


def checkpoint(db):
    assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def index_files(database):
    return sorted(glob.glob(f"{database}-ix-*.annoy"))


def the_database_file_alone(db, source, target):
    checkpoint(db)
    shutil.copy(source, target)


def the_database_and_its_index_files(db, source, target):
    checkpoint(db)
    shutil.copy(source, target)
    for file in index_files(source):
        shutil.copy(file, target + file[len(source):])


def index_files_of_an_earlier_moment(db, source, target):
    """As a tool that copies file by file may do: the index is rebuilt in between."""
    for file in index_files(source):
        shutil.copy(file, target + file[len(source):])
    db.execute("INSERT INTO ix(ix) VALUES('rebuild')")
    checkpoint(db)
    shutil.copy(source, target)


def database_and_wal(db, source, target):
    """While nobody writes: without a checkpoint."""
    change(db)
    assert os.path.getsize(source + "-wal") > 0
    shutil.copy(source, target)
    shutil.copy(source + "-wal", target + "-wal")


def shipping_of_the_wal(db, source, target):
    """As Litestream does: a reader holds off checkpoints, the base is copied once, then what commits append to the WAL."""
    checkpoint(db)
    shutil.copy(source, target)
    holder = sqlite3.connect(source, isolation_level=None)
    holder.execute("BEGIN")
    holder.execute("SELECT count(*) FROM t").fetchone()
    shipped = 0
    with open(target + "-wal", "wb") as replica:
        for step in range(6):
            change(db, 20)
            if step == 3:
                db.execute("INSERT INTO ix(ix) VALUES('rebuild')")
            with open(source + "-wal", "rb") as wal:
                wal.seek(shipped)
                piece = wal.read()
            assert piece, "each commit appends"
            shipped += len(piece)
            replica.write(piece)
    holder.execute("COMMIT")
    holder.close()


def vacuum_into(db, source, target):
    db.execute("VACUUM INTO ?", (target,))


def backup_api(db, source, target):
    copy = sqlite3.connect(target)
    db.backup(copy, pages=7)
    copy.close()


# And the state of the copy's index: with storage=file, with storage=inline.
WAYS = [
    (the_database_file_alone, "fallback", "pending"),
    (the_database_and_its_index_files, "pending", "pending"),
    (index_files_of_an_earlier_moment, "fallback", "current"),
    (database_and_wal, "fallback", "pending"),
    (shipping_of_the_wal, "fallback", "pending"),
    (vacuum_into, "fallback", "pending"),
    (backup_api, "fallback", "pending"),
]


def state(db):
    return dict(db.execute("SELECT key, value FROM annoy_info('ix')"))["state"].split(":")[0]


def check(db):
    """The index answers what a scan of the table answers."""
    for _ in range(20):
        query = vector()
        through = db.execute("SELECT rowid, distance FROM knn_annoy('ix', ?, 10, 1000000)", (query,)).fetchall()
        true = db.execute("SELECT rowid, distance FROM knn_exact('bare', 'v', ?, 10, ?)", (query, L2)).fetchall()
        assert through == true and len(true) == 10, (through, true)
        some = db.execute("SELECT rowid FROM knn_annoy('ix', ?, 10)", (query,)).fetchall()
        assert len({row for row, in some} & {row for row, _ in true}) >= 5, "far from what the table has"


def bytes_of(db, path, storage):
    if storage == "inline":
        return b"".join(part for part, in db.execute("SELECT bytes FROM ix_parts ORDER BY generation, chunk"))
    file, = index_files(path)
    with open(file, "rb") as content:
        return content.read()


def copied(way, storage):
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/a")
        os.makedirs(f"{folder}/b")
        source, target = f"{folder}/a/app.db", f"{folder}/b/app.db"
        db = primary(f"{folder}/a", storage)
        way(db, source, target)
        copy = connect(target)
        assert copy.execute("PRAGMA quick_check").fetchone() == ("ok",)
        rows = "SELECT id, v FROM t ORDER BY id"
        assert copy.execute(rows).fetchall() == db.execute(rows).fetchall()
        found = state(copy)
        check(copy)
        for each in (db, copy):
            each.execute("INSERT INTO ix(ix) VALUES('rebuild')")
            assert state(each) == "current"
        assert bytes_of(db, source, storage) == bytes_of(copy, target, storage), "the same rows, the same index"
        change(copy)
        check(copy)
        check(db)
        return found


def the_same_statements(storage):
    """As rqlite does: every node runs every statement."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = []
        seed = random.random()
        for name in "ab":
            random.seed(seed)
            os.makedirs(f"{folder}/{name}")
            nodes.append(primary(f"{folder}/{name}", storage))
        for db in nodes:
            assert state(db) == "pending"
            check(db)
            db.execute("INSERT INTO ix(ix) VALUES('refresh')")
        one, other = (b"".join(sorted(open(f, "rb").read() for f in index_files(f"{folder}/{name}/app.db"))) for name in "ab")
        if storage == "inline":
            one, other = (bytes_of(db, "", storage) for db in nodes)
        assert one == other and one
        return state(nodes[1])


def main():
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    random.seed(seed)
    rows = []
    for way, *expected in WAYS:
        found = [copied(way, storage) for storage in ("file", "inline")]
        if found != expected:
            sys.exit(f"{way.__name__}: expected {expected}, found {found}")
        rows.append((way.__name__.replace("_", " "), *found))
    rows.append(("the same statements", *(the_same_statements(storage) for storage in ("file", "inline"))))
    with open(PAGE) as page:
        told = page.read()
    for name, file, inline in rows:
        print(f"| {name} | {file} | {inline} |")
        if not re.search(rf"^\| {name} .*\| `{file}`.*\| `{inline}`", told, re.M):
            sys.exit(f"docs/replicas.md does not say so: | {name} ... | `{file}` ... | `{inline}`")


main()
