"""A process that has loaded the library, built and searched, forks: its children build, search and train as well.

    fork.py LIBRARY

What a fork leaves behind are threads: a pool or a lock that the parent made would hang the children. Each child works
with connections of its own (SQLite forbids the parent's) on a database of its own and on the parent's.
"""

import multiprocessing
import os
import sqlite3
import struct
import sys
import tempfile

CHILDREN = 4


def connect(database, library):
    db = sqlite3.connect(database, isolation_level=None, timeout=60)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def build(db, rows):
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
    db.execute("BEGIN")
    vectors = (struct.pack("8f", *((i * 31 + j * 17) % 101 for j in range(8))) for i in range(rows))
    db.executemany("INSERT INTO t VALUES(?, ?)", enumerate(vectors))
    db.execute("COMMIT")
    db.execute("CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, trees=2, threads=2)")
    db.execute("CREATE TABLE lines(body TEXT)")
    db.execute("INSERT INTO lines VALUES('a b c d e f g h a b c d e f g h')")


def ask(db):
    query = struct.pack("8f", *range(8))
    # One snapshot for both answers: a brother may change a row between two statements.
    db.execute("BEGIN")
    answers = [
        db.execute(f"SELECT rowid, distance FROM {search}", (query,)).fetchall()
        for search in (
            "knn_annoy('ix', ?, 10, '{\"search_k\":1000000, \"threads\":2}')",
            "knn_exact('t', 'v', ?, 10, '{\"metric\":\"l2\", \"threads\":2}')",
        )
    ]
    db.execute("COMMIT")
    assert answers[0] == answers[1] and len(answers[0]) == 10, answers
    groups = "SELECT count(*) FROM vec_cluster('t', 'v', 3)"
    assert db.execute(groups).fetchone()[0] > 0


def train(db, name):
    options = '{"vector_size":8, "min_count":1, "epochs":2, "threads":2}'
    db.execute(f"SELECT word2vec_train('{name}', 'lines', 'body', '{options}')").fetchall()
    assert len(db.execute("SELECT * FROM most_similar(?, 'a', NULL, 3)", (name,)).fetchall()) == 3


def child(folder, library, number):
    own = connect(f"{folder}/child{number}.db", library)
    build(own, 3000)
    ask(own)
    train(own, "words")
    theirs = connect(f"{folder}/parent.db", library)
    ask(theirs)
    theirs.execute("UPDATE t SET v = zeroblob(32) WHERE id = ?", (number,))
    theirs.execute("INSERT INTO ix(ix) VALUES('refresh')")
    ask(theirs)


def main(library):
    with tempfile.TemporaryDirectory() as folder:
        db = connect(folder + "/parent.db", library)
        build(db, 3000)
        ask(db)
        train(db, "before")
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=child, args=(folder, library, n)) for n in range(CHILDREN)]
        for process in children:
            process.start()
        for process in children:
            process.join(120)
            if process.is_alive():
                process.kill()
                raise AssertionError("a child hangs")
        assert [process.exitcode for process in children] == [0] * CHILDREN
        # The parent goes on, and sees what the children did.
        ask(db)
        zero = db.execute("SELECT count(*) FROM knn_annoy('ix', zeroblob(32), 4) WHERE distance = 0").fetchone()[0]
        assert zero == CHILDREN, zero
        db.execute("INSERT INTO ix(ix) VALUES('integrity-check')")
        db.close()
    print(f"{CHILDREN} children built, searched and trained")


if __name__ == "__main__":
    main(sys.argv[1])
