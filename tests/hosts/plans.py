"""What the planner of this SQLite makes of searches, and what they answer.

    plans.py LIBRARY [sqlite3|apsw]

Prints each statement with the loops of its plan and its rows; .ci/run compares that with plans.expected, on the SQLite of
the system and on the newest, so plans and answers are the same on both. What versions say in other words is evened out.
The number behind INDEX says what went into the search (src/sql/knn/mod.rs, `bits`).
"""

import re
import sys

SETUP = """
CREATE TABLE p(id INTEGER PRIMARY KEY, colour TEXT, v BLOB, note TEXT);
WITH RECURSIVE c(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM c WHERE i < 1999)
INSERT INTO p(id, colour, v) SELECT i, CASE i % 100 WHEN 7 THEN 'red' END, vec_f32(json_array(i, 0)) FROM c;
CREATE INDEX by_colour ON p(colour);
CREATE VIRTUAL TABLE ix USING annoy(p, v, metric=l2);
CREATE VIRTUAL TABLE reds USING annoy(p, v, metric=l2, where='colour = ''red''');
CREATE TABLE q(id INTEGER PRIMARY KEY, v BLOB);
INSERT INTO q VALUES(1, '[3, 0]'), (2, '[40.2, 0]'), (3, NULL);
CREATE VIEW near AS SELECT rowid AS id, distance FROM knn_annoy('ix', '[10.2, 0]', 3);
"""

STATEMENTS = """
-- Exactly k rows whenever k rows qualify.
SELECT rowid FROM knn_annoy('ix', '[0,0]', 3)
SELECT rowid FROM knn_annoy('reds', '[0,0]', 3)
SELECT rowid FROM knn_exact('p', 'v', '[0,1]', 3, '{"metric":"l2"}')
SELECT n.rowid FROM knn_annoy('ix', '[0,0]') n JOIN p ON p.id = n.rowid WHERE colour = 'red' LIMIT 3
SELECT n.rowid FROM knn_annoy('ix', '[0,0]') n JOIN p ON p.id = n.rowid WHERE colour = 'red' OR p.id = 3 ORDER BY distance LIMIT 3
SELECT n.rowid FROM knn_annoy('ix', '[0,0]') n WHERE EXISTS(SELECT 1 FROM p WHERE p.id = n.rowid AND colour = 'red') LIMIT 3
SELECT n.rowid FROM knn_annoy('ix', '[0,0]') n JOIN p ON p.id = n.rowid WHERE p.colour IS NULL AND n.rowid % 2 LIMIT 3
SELECT rowid FROM knn_annoy('ix', '[0,0]', 3) WHERE rowid IN (SELECT id FROM p WHERE colour = 'red')
SELECT rowid FROM knn_annoy('ix', '[0,0]', 3) WHERE rowid IN (5, 900, 17, 2) ORDER BY distance
SELECT rowid FROM knn_annoy('ix', '[0,0]') WHERE rowid = 17
-- LIMIT, OFFSET, DESC, ranges.
SELECT rowid FROM knn_annoy('ix', '[0,0]') ORDER BY distance LIMIT 2 OFFSET 3
SELECT rowid FROM knn_annoy('ix', '[0,0]') LIMIT 2
SELECT rowid FROM knn_annoy('ix', '[0,0]', 9) LIMIT 2 OFFSET 6
SELECT rowid FROM knn_annoy('ix', '[0,0]', 4) ORDER BY distance DESC
SELECT rowid FROM knn_annoy('ix', '[0,0]', 4) ORDER BY rowid DESC
SELECT rowid FROM knn_annoy('ix', '[0,0]', 4) ORDER BY distance, rowid
SELECT rowid FROM knn_annoy('ix', '[0,0]', 4) ORDER BY distance, rowid DESC
SELECT count(*) FROM knn_annoy('ix', '[0,0]', 1000000)
SELECT rowid FROM knn_annoy('ix', '[0,0]') WHERE distance < 3
SELECT rowid FROM knn_annoy('ix', '[0,0]') WHERE distance <= 3
SELECT rowid FROM knn_annoy('ix', '[0,0]') WHERE distance BETWEEN 2 AND 4 ORDER BY distance
SELECT rowid FROM knn_annoy('ix', '[0,0]', 2) WHERE distance > 4
-- Joins: a search of queries inside, a plain search outside.
SELECT q.id, n.rowid FROM q, knn_annoy('ix', q.v, 2) n
SELECT q.id, n.rowid FROM knn_annoy('ix', q.v, 2) n, q
SELECT q.id, n.rowid FROM q LEFT JOIN knn_annoy('ix', q.v, 1) n
SELECT p.id FROM p JOIN knn_annoy('ix', '[10.2,0]', 2) n ON n.rowid = p.id
SELECT p.id FROM p JOIN knn_annoy('ix', '[10.2,0]', 2) n ON n.rowid = p.id ORDER BY n.distance
SELECT p.id FROM p JOIN knn_annoy('ix', '[0,0]') n ON n.rowid = p.id WHERE colour = 'red' ORDER BY n.distance LIMIT 2
SELECT p.id FROM knn_annoy('ix', '[7,0]', 1) n LEFT JOIN p ON p.id = n.rowid
SELECT count(*) FROM p a, knn_annoy('ix', a.v, 3) n WHERE a.id < 50
SELECT count(*) FROM p a, knn_exact('p', 'v', a.v, NULL, '{"metric":"l2"}') n WHERE a.id < 20 AND n.distance <= 1 AND n.rowid > a.id
WITH n AS (SELECT rowid AS id, distance FROM knn_annoy('ix', '[10.2,0]', 3)) SELECT id FROM n ORDER BY distance
SELECT rowid FROM knn_annoy('ix', '[1,0]', 1) UNION ALL SELECT rowid FROM knn_annoy('ix', '[11.2,0]', 1)
SELECT id FROM near ORDER BY distance
SELECT (SELECT rowid FROM knn_annoy('ix', q.v, 1)) FROM q
SELECT count(*) FROM p WHERE id IN (SELECT rowid FROM knn_annoy('ix', '[10.2,0]', 5))
SELECT query, rowid FROM knn_annoy_batch('ix', (SELECT vec_pack(vec_f32(v)) FROM q WHERE v NOT NULL), 2)
-- The index as a table.
SELECT rowid FROM ix WHERE v MATCH '[10.2,0]' AND k = 2
SELECT rowid FROM ix WHERE v MATCH '[10.2,0]' ORDER BY distance LIMIT 2
SELECT q.id, ix.rowid FROM ix, q WHERE ix.v MATCH q.v AND k = 1
SELECT rowid FROM ix WHERE v MATCH '[10.2,0]' AND k = 2 AND rowid IN (1, 2, 3)
SELECT count(*) FROM reds
SELECT vec_to_json(v) FROM ix WHERE rowid = 7
"""


def connect(host, library):
    if host == "apsw":
        import apsw

        db = apsw.Connection(":memory:")
        db.enable_load_extension(True)
        db.load_extension(library)
        return db
    import sqlite3

    db = sqlite3.connect(":memory:")
    db.enable_load_extension(True)
    db.load_extension(library)
    return db


def loop(line):
    """A line of a plan without what versions say in other words."""
    line = re.sub(r" (LEFT|RIGHT)-JOIN|^REUSE ", "", line)
    return re.sub(r"SUBQUERY \d+|\(subquery-\d+\)", "SUBQUERY", line)


def loops(lines, sql):
    plan = "; ".join(map(loop, lines))
    # The newest makes a join of it.
    plan = plan.replace("CORRELATED SCALAR SUBQUERY; SEARCH p USING", "SEARCH p EXISTS USING")
    if " MATCH " in sql:
        # The oldest hand no LIMIT to a table with a MATCH.
        plan = re.sub(r"INDEX (\d+)", lambda number: f"INDEX {int(number[1]) & ~(1 << 16)}", plan)
    return plan


def main(library, host="sqlite3"):
    db = connect(host, library)
    for statement in SETUP.split(";\n"):
        if statement.strip():
            db.execute(statement)
    for sql in filter(None, STATEMENTS.splitlines()):
        if sql.startswith("--"):
            print(f"\n{sql}")
            continue
        plan = loops([row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")], sql)
        rows = " ".join("|".join("-" if x is None else str(x) for x in row) for row in db.execute(sql))
        print(f"{sql}\n  plan: {plan}\n  rows: {rows}")


if __name__ == "__main__":
    main(*sys.argv[1:])
