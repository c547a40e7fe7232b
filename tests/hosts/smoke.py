"""Loads the real library into a Python host and runs smoke.sql; prints its rows as the sqlite3 shell would.

    smoke.py LIBRARY [sqlite3|apsw|both]

`both`: two SQLite libraries in one process. The one that comes second must get a clean error, the first goes on.
"""

import sqlite3
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def statements(script):
    text = ""
    for line in script.splitlines():
        if not text and (not line.strip() or line.startswith("--")):
            continue
        text += line + "\n"
        if sqlite3.complete_statement(text):
            yield text
            text = ""
    assert not text, f"unfinished: {text}"


def show(value):
    if value is None:
        return ""
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def smoke(execute):
    for statement in statements((HERE / "smoke.sql").read_text()):
        for row in execute(statement):
            print("|".join(map(show, row)))


def new_database():
    return str(Path(tempfile.mkdtemp()) / "smoke.db")


def with_sqlite3(library):
    db = sqlite3.connect(new_database(), isolation_level=None)
    db.enable_load_extension(True)
    db.load_extension(library)
    return db.execute


def with_apsw(library):
    import apsw

    db = apsw.Connection(new_database())
    db.enable_load_extension(True)
    db.load_extension(library)
    return db.execute


def main(library, host):
    if host == "sqlite3":
        smoke(with_sqlite3(library))
    elif host == "apsw":
        smoke(with_apsw(library))
    elif host == "both":
        first = with_sqlite3(library)
        try:
            with_apsw(library)
        except Exception as error:
            assert "already in use by another SQLite library" in str(error), error
        else:
            raise AssertionError("a second SQLite could load the library")
        smoke(first)
    else:
        sys.exit(__doc__)


main(sys.argv[1], sys.argv[2])
