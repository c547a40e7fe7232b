"""The MATCH form of a search beside sqlite-vec's: the same statements on `vec0` and on an index of the same rows.

    match_form.py LIBRARY

Needs sqlite-vec and apsw from PyPI. Rows must be the same, distances equal within f32's rounding; what sqlite-vec refuses
must be refused by an error that begins with its words. The only differences allowed are those in DIFFERENCES, with their
reason; one that no longer shows is a failure too.
"""

import json
import random
import sys

import apsw
import sqlite_vec

DIFFERENCES = {
    "k above 4096": "there is no upper limit of k",
    "no k": "without k rows come nearest first, until the statement has enough",
    "two of k and LIMIT": "k and LIMIT go together",
    "k is NULL": "k NULL is the same as no k",
    "k is 2.5": "k must be a whole number; sqlite-vec truncates",
    "k is text": "k must be a whole number; sqlite-vec reads any text as a number",
    "query is NULL": "a query that is NULL has no neighbours, so joins with NULL give no row",
    "backwards": "DESC sorts the k nearest the other way round",
}

# name, SQL
CASES = [
    ("plain", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2,3]' AND k = 5"),
    ("blob", "SELECT rowid, distance FROM ix WHERE v MATCH vec_f32('[1,2,3]') AND k = 5"),
    ("raw blob", "SELECT rowid, distance FROM ix WHERE v MATCH x'0000803F0000004000004040' AND k = 5"),
    ("ordered", "SELECT rowid, distance FROM ix WHERE v MATCH '[0,0,0]' AND k = 7 ORDER BY distance"),
    ("backwards", "SELECT rowid, distance FROM ix WHERE v MATCH '[0,0,0]' AND k = 7 ORDER BY distance DESC"),
    ("LIMIT for k", "SELECT rowid, distance FROM ix WHERE v MATCH '[0,0,0]' ORDER BY distance LIMIT 4"),
    ("k is 0", "SELECT rowid, distance FROM ix WHERE v MATCH '[0,0,0]' AND k = 0"),
    ("more than there are", "SELECT count(*), 0 FROM ix WHERE v MATCH '[0,0,0]' AND k = 4000"),
    ("some rows", "SELECT rowid, distance FROM ix WHERE v MATCH '[0,0,0]' AND k = 3 AND rowid IN (4, 8, 15, 16, 23)"),
    ("rows of a SELECT", "SELECT rowid, distance FROM ix WHERE v MATCH '[0,0,0]' AND k = 3 AND rowid IN (SELECT id FROM p WHERE id % 7 = 2)"),
    ("join", "SELECT p.id, distance FROM ix JOIN p ON p.id = ix.rowid WHERE ix.v MATCH '[0,0,0]' AND k = 3"),
    ("as a table", "SELECT rowid, 0 FROM ix WHERE rowid = 7"),
    ("all rows", "SELECT count(*), 0 FROM ix"),
    ("vector", "SELECT vec_to_json(v), distance FROM ix WHERE v MATCH '[1,2,3]' AND k = 2"),
    ("wrong dimension", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2]' AND k = 5"),
    ("wrong type", "SELECT rowid, distance FROM ix WHERE v MATCH vec_int8('[1,2,3]') AND k = 5"),
    ("bits", "SELECT rowid, distance FROM ix WHERE v MATCH vec_bit(x'01') AND k = 5"),
    ("odd blob", "SELECT rowid, distance FROM ix WHERE v MATCH x'000000' AND k = 5"),
    ("empty blob", "SELECT rowid, distance FROM ix WHERE v MATCH x'' AND k = 5"),
    ("empty array", "SELECT rowid, distance FROM ix WHERE v MATCH '[]' AND k = 5"),
    ("no JSON", "SELECT rowid, distance FROM ix WHERE v MATCH 'abc' AND k = 5"),
    ("a number", "SELECT rowid, distance FROM ix WHERE v MATCH 5 AND k = 5"),
    ("query is NULL", "SELECT rowid, distance FROM ix WHERE v MATCH NULL AND k = 5"),
    ("k is negative", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2,3]' AND k = -1"),
    ("k above 4096", "SELECT count(*), 0 FROM ix WHERE v MATCH '[1,2,3]' AND k = 5000"),
    ("k is NULL", "SELECT count(*), 0 FROM ix WHERE v MATCH '[1,2,3]' AND k = NULL"),
    ("k is 2.0", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2,3]' AND k = 2.0"),
    ("k is 2.5", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2,3]' AND k = 2.5"),
    ("k is text", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2,3]' AND k = 'x'"),
    ("no k", "SELECT count(*), 0 FROM ix WHERE v MATCH '[1,2,3]'"),
    ("two of k and LIMIT", "SELECT rowid, distance FROM ix WHERE v MATCH '[1,2,3]' AND k = 5 LIMIT 3"),
    ("distance bound", "SELECT count(*), 0 FROM ix WHERE v MATCH '[1,2,3]' AND k = 50 AND distance < 3.5"),
]


def connect(extension):
    db = apsw.Connection(":memory:")
    db.enable_load_extension(True)
    db.load_extension(extension)
    return db


def outcome(db, sql):
    """Rows, or the words of the error."""
    try:
        return list(db.execute(sql))
    except apsw.Error as error:
        return str(error).removeprefix("SQLError: ").removeprefix("SQL logic error: ")


def same(a, b):
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str) and a.startswith(b.rstrip(". "))
    close = lambda x, y: x == y or (isinstance(x, float) and isinstance(y, float) and abs(x - y) <= 1e-5 * abs(y))
    return len(a) == len(b) and all(close(x, y) for r, s in zip(a, b) for x, y in zip(r, s))


def main(library):
    rng = random.Random(7)
    rows = [(i, json.dumps([round(rng.uniform(-5, 5), 3) for _ in range(3)])) for i in range(1, 301)]
    ours, theirs = connect(library), connect(sqlite_vec.loadable_path())
    for db in (ours, theirs):
        db.execute("CREATE TABLE p(id INTEGER PRIMARY KEY, v BLOB)")
        db.executemany("INSERT INTO p VALUES(?, vec_f32(?))", rows)
    ours.execute("CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2)")
    theirs.execute("CREATE VIRTUAL TABLE ix USING vec0(v float[3]); INSERT INTO ix(rowid, v) SELECT id, v FROM p")
    failed, seen = 0, set()
    for name, sql in CASES:
        got, want = outcome(ours, sql), outcome(theirs, sql)
        if same(got, want):
            continue
        seen.add(name)
        if name not in DIFFERENCES:
            failed += 1
            print(f"{name}: {sql}\n  ours:   {str(got)[:300]}\n  theirs: {str(want)[:300]}")
    for name in DIFFERENCES.keys() - seen:
        failed += 1
        print(f"{name}: a difference no longer: {DIFFERENCES[name]}")
    print(f"{len(CASES)} statements, {len(seen)} differences with a reason, {failed} without")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
