#!/usr/bin/env python3
"""Search a folder of text files by meaning and by words. Nothing is downloaded: the files themselves teach the model.

    python examples/notes/notes.py index ~/notes          # *.txt and *.md, below it as well; again after changes
    python examples/notes/notes.py search "holidays by the sea"

The database is notes.db, or what --db says. Needs the Python package of sqlite-annoy.
"""
import argparse
import re
import sqlite3
from pathlib import Path

import sqlite_annoy

SCHEMA = """
CREATE TABLE IF NOT EXISTS files(path TEXT PRIMARY KEY, changed REAL);
CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, path TEXT NOT NULL, line INTEGER NOT NULL, body TEXT NOT NULL, v BLOB);
CREATE INDEX IF NOT EXISTS notes_path ON notes(path);
CREATE VIRTUAL TABLE IF NOT EXISTS notes_words USING fts5(body, content='notes', content_rowid='id', tokenize='porter');
CREATE TRIGGER IF NOT EXISTS notes_added AFTER INSERT ON notes BEGIN
  INSERT INTO notes_words(rowid, body) VALUES (new.id, new.body);
END;
CREATE TRIGGER IF NOT EXISTS notes_gone AFTER DELETE ON notes BEGIN
  INSERT INTO notes_words(notes_words, rowid, body) VALUES ('delete', old.id, old.body);
END;
"""

# Each search ranks its best 50; reciprocal rank fusion makes one list of both. A query whose words the model doesn't know has no
# vector, and is found by words alone.
SEARCH = """
WITH near AS (
  SELECT rowid AS id, row_number() OVER (ORDER BY distance) AS rank
    FROM knn_annoy('notes_near', text_vector('notes_model_words', :text, '{"weight":"sif"}'), 50)),
matching AS (
  SELECT rowid AS id, row_number() OVER (ORDER BY rank) AS rank FROM notes_words WHERE notes_words MATCH :words LIMIT 50)
SELECT path, line, body FROM (
  SELECT id, rrf(rank) AS score FROM (SELECT * FROM near UNION ALL SELECT * FROM matching) GROUP BY id)
  JOIN notes USING (id) ORDER BY score DESC LIMIT :k
"""

MODEL = '{"vector_size":100, "sg":1, "epochs":20, "min_count":2, "tokenizer":"simple", "seed":1, "threads":1, "replace":true}'


def connect(path):
    db = sqlite3.connect(path, isolation_level=None)
    sqlite_annoy.load(db)
    return db


def paragraphs(text):
    """(line, text) of each paragraph."""
    for match in re.finditer(r"(?:[^\n]*\S[^\n]*\n?)+", text):
        yield text.count("\n", 0, match.start()) + 1, match[0].strip()


def index(db, folder):
    """Reads the files that have changed, trains on all, and makes the index. One transaction: searches see the old state until then."""
    db.executescript(SCHEMA)
    db.execute("BEGIN IMMEDIATE")
    known = dict(db.execute("SELECT path, changed FROM files"))
    found = {str(p): p.stat().st_mtime for p in sorted(folder.rglob("*")) if p.suffix in (".txt", ".md") and p.is_file()}
    changed = [path for path, time in found.items() if known.get(path) != time]
    for path in changed + [path for path in known if path not in found]:
        db.execute("DELETE FROM notes WHERE path = ?", (path,))
        db.execute("DELETE FROM files WHERE path = ?", (path,))
    for path in changed:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        db.executemany("INSERT INTO notes(path, line, body) VALUES (?, ?, ?)", ((path, *p) for p in paragraphs(text)))
        db.execute("INSERT INTO files VALUES (?, ?)", (path, found[path]))
    n, = db.execute("SELECT count(*) FROM notes").fetchone()
    if not n:
        db.execute("ROLLBACK")
        raise SystemExit(f"{folder} has no text in *.txt or *.md")
    if changed or len(known) != len(found):
        db.execute("SELECT word2vec_train('notes_model_words', 'notes', 'body', ?)", (MODEL,))
        db.execute("UPDATE notes SET v = text_vector('notes_model_words', body, '{\"weight\":\"sif\"}')")
        db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS notes_near USING annoy(notes, v)")
        db.execute("INSERT INTO notes_near(notes_near) VALUES ('rebuild')")
    db.execute("COMMIT")
    return len(changed), len(found), n


def search(db, text, k=5):
    """(path, line, paragraph), best first."""
    words = re.findall(r"\w\w+", text)
    if not words:
        return []
    quoted = " OR ".join(f'"{word}"' for word in words)
    return db.execute(SEARCH, {"text": text, "words": quoted, "k": k}).fetchall()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--db", default="notes.db")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("index").add_argument("folder", type=Path)
    commands.add_parser("search").add_argument("text")
    arguments = parser.parse_args()
    if arguments.command == "index":
        print("{} files read of {}, {} paragraphs".format(*index(connect(arguments.db), arguments.folder)))
        return
    if not Path(arguments.db).exists():
        raise SystemExit(f"{arguments.db} is not there: index a folder first")
    for path, line, body in search(connect(arguments.db), arguments.text):
        print(f"{path}:{line}\n    {' '.join(body.split())[:150]}\n")


if __name__ == "__main__":
    main()
