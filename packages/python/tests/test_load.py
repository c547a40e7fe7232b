"""Loading into every kind of connection, and vectors on their way in and out."""
import asyncio
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

import sqlite_annoy

QUESTION = "SELECT vec_distance_l2('[1, 2]', '[4, 6]')"


def test_sqlite3_answers_after_load_and_extensions_are_off_again():
    db = sqlite3.connect(":memory:")
    sqlite_annoy.load(db)
    sqlite_annoy.load(db)
    assert db.execute(QUESTION).fetchone() == (5.0,)
    with pytest.raises(sqlite3.OperationalError, match="not authorized"):
        db.load_extension(sqlite_annoy.loadable_path())


def other_process(code):
    """One process can use the library with one SQLite: hosts with their own are asked in another process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_apsw_answers():
    code = f"import apsw, sqlite_annoy\ndb = apsw.Connection(':memory:')\nsqlite_annoy.load(db)\nprint(db.execute({QUESTION!r}).get)"
    assert other_process(code) == "5.0"


def test_a_second_sqlite_in_one_process_is_told_so():
    code = (
        "import apsw, sqlite3, sqlite_annoy\nsqlite_annoy.load(sqlite3.connect(':memory:'))\n"
        "try: sqlite_annoy.load(apsw.Connection(':memory:'))\nexcept Exception as error: print(error)"
    )
    assert "already in use by another SQLite" in other_process(code)


def test_annoy_index_works_beside_apsw():
    code = (
        "import apsw, sqlite_annoy\nsqlite_annoy.load(apsw.Connection(':memory:'))\n"
        "i = sqlite_annoy.AnnoyIndex(2, 'dot')\ni.add_item(3, [1, 2])\ni.build(1)\nprint(i.get_nns_by_vector([1, 1], 1))"
    )
    assert other_process(code) == "[3]"


def test_sqlalchemy_engines_and_connections_answer(file):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(f"sqlite:///{file('a.db')}")
    with engine.connect() as before:
        sqlite_annoy.load(before)
        assert before.execute(sqlalchemy.text(QUESTION)).scalar() == 5.0
    sqlite_annoy.load(engine)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text(QUESTION)).scalar() == 5.0
        engine.dispose()


def test_async_engines_answer_and_their_driver_is_told_how(file):
    sqlalchemy = pytest.importorskip("sqlalchemy.ext.asyncio")
    aiosqlite = pytest.importorskip("aiosqlite")
    from sqlalchemy import text

    async def ask():
        engine = sqlalchemy.create_async_engine(f"sqlite+aiosqlite:///{file('a.db')}")
        sqlite_annoy.load(engine)
        async with engine.connect() as connection:
            answer = (await connection.execute(text(QUESTION))).scalar()
        await engine.dispose()
        async with aiosqlite.connect(":memory:") as driver:
            with pytest.raises(TypeError, match="await db.load_extension"):
                sqlite_annoy.load(driver)
            await driver.enable_load_extension(True)
            await driver.load_extension(sqlite_annoy.loadable_path())
            async with driver.execute(QUESTION) as rows:
                return answer, (await rows.fetchone())[0]

    assert asyncio.run(ask()) == (5.0, 5.0)


def test_sqlite_utils_databases_answer():
    sqlite_utils = pytest.importorskip("sqlite_utils")
    db = sqlite_utils.Database(memory=True)
    sqlite_annoy.load(db)
    assert next(db.query(QUESTION + " AS d")) == {"d": 5.0}


def test_a_python_without_loadable_extensions_is_told_what_to_do():
    class Connection:
        """What sqlite3 gives when it was built without them."""

        def execute(self, sql):
            raise AssertionError

    with pytest.raises(sqlite_annoy.ExtensionsUnavailable, match="pip install apsw"):
        sqlite_annoy.load(Connection())
    with pytest.raises(TypeError, match="expected a connection"):
        sqlite_annoy.load(3)


def test_a_missing_library_says_where_it_was_looked_for(monkeypatch):
    from sqlite_annoy import _load

    monkeypatch.delenv("SQLITE_ANNOY_PATH", raising=False)
    monkeypatch.setattr(_load, "_NAMES", {sys.platform: "nowhere"})
    with pytest.raises(FileNotFoundError, match="cargo build --release"):
        sqlite_annoy.loadable_path()


def test_float32_arrays_go_in_and_out_without_copies(rng):
    vector = rng.standard_normal(64).astype(np.float32)
    blob = sqlite_annoy.serialize_float32(vector)
    assert np.shares_memory(np.frombuffer(blob, np.float32), vector)
    db = sqlite3.connect(":memory:")
    sqlite_annoy.load(db)
    stored, direct = db.execute("SELECT ?, ?", (blob, vector)).fetchone()
    assert stored == direct == vector.tobytes()
    back = sqlite_annoy.to_numpy(stored)
    assert back.tolist() == vector.tolist() and not back.flags.owndata
    packed, = db.execute("SELECT vec_pack(v) FROM (SELECT ? AS v UNION ALL SELECT ?)", (blob, blob)).fetchone()
    assert sqlite_annoy.to_numpy(packed, 64).shape == (2, 64)


@pytest.mark.parametrize("kind", [list, tuple, np.float64, np.float16, "strided"])
def test_any_vector_becomes_the_same_bytes(kind):
    numbers = [0.5, -2.0, 3.25]
    if kind == "strided":
        vector = np.array([0.5, 9, -2.0, 9, 3.25], np.float32)[::2]
    elif isinstance(kind, type) and issubclass(kind, np.generic):
        vector = np.array(numbers, kind)
    else:
        vector = kind(numbers)
    assert bytes(sqlite_annoy.serialize_float32(vector)) == np.array(numbers, "<f4").tobytes()
    assert sqlite_annoy.deserialize_float32(sqlite_annoy.serialize_float32(vector)) == numbers


def test_wrong_shapes_and_types_are_errors():
    with pytest.raises(ValueError, match="shape"):
        sqlite_annoy.serialize_float32(np.zeros((2, 2)))
    with pytest.raises(TypeError):
        sqlite_annoy.serialize_float32(["1"])
    with pytest.raises(OverflowError):
        sqlite_annoy.serialize_int8([300])
    assert sqlite_annoy.serialize_int8([-1, 2]) == b"\xff\x02"


def test_the_package_is_typed_and_says_its_version():
    from importlib.resources import files

    assert files(sqlite_annoy).joinpath("py.typed").is_file()
    db = sqlite3.connect(":memory:")
    sqlite_annoy.load(db)
    assert db.execute("SELECT annoy_version()").fetchone()[0].split()[0].lstrip("v") in (
        sqlite_annoy.__version__, "sqlite-annoy",
    )
