"""The plugins of sqlite-utils and Datasette, the search page in headless Chromium."""
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

import sqlite_annoy

SKY = "the moon and a star at night in the dark sky"
KITCHEN = "bread and butter with milk for breakfast in the kitchen"


def make(path):
    """Thirty notes about two things, a model of their words, and indexes, one of groups."""
    db = sqlite3.connect(path)
    sqlite_annoy.load(db)
    with db:
        db.execute("CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT, vector BLOB)")
        for i in range(30):
            words = (SKY if i % 2 else KITCHEN).split()
            db.execute("INSERT INTO notes(body) VALUES (?)", (" ".join(words[i % 5 :] + words[: i % 5]),))
        db.execute(
            "SELECT word2vec_train('words', 'notes', 'body', "
            "'{\"vector_size\":16, \"min_count\":1, \"epochs\":100, \"sg\":1, \"seed\":1, \"threads\":1}')"
        )
        db.execute("UPDATE notes SET vector = text_vector('words', body)")
    db.execute("CREATE VIRTUAL TABLE notes_index USING annoy(notes, vector)")
    with db:
        db.execute("CREATE TABLE chunks(id INTEGER PRIMARY KEY, note INTEGER, vector BLOB)")
        db.execute("CREATE INDEX chunks_of_note ON chunks(note)")
        db.execute("INSERT INTO chunks(note, vector) SELECT id % 9, vector FROM notes")
    db.execute("CREATE VIRTUAL TABLE chunks_index USING annoy(chunks, vector, group=note)")
    db.close()


def run(*command):
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)


def test_sqlite_utils_has_the_functions_and_makes_indexes(file):
    pytest.importorskip("sqlite_utils")
    make(file("a.db"))
    done = run("sqlite_utils", "query", file("a.db"), "SELECT vec_length(vector) AS n FROM notes LIMIT 1")
    assert done.stdout.strip() == '[{"n": 16}]', done.stderr
    done = run("sqlite_utils", "annoy-index", file("a.db"), "notes", "vector", "--name", "second", "--metric", "l2")
    assert done.returncode == 0, done.stderr
    sql = "SELECT count(*) AS n FROM knn_annoy('second', (SELECT vector FROM notes WHERE id = 3), 5)"
    assert run("sqlite_utils", "query", file("a.db"), sql).stdout.strip() == '[{"n": 5}]'
    done = run("sqlite_utils", "annoy-index", file("a.db"), "notes", "nothing", "--name", "third")
    assert done.returncode != 0 and "nothing" in done.stderr and "Traceback" not in done.stderr


def test_sqlite_utils_goes_on_where_extensions_cannot_be_loaded(monkeypatch):
    sqlite_utils = pytest.importorskip("sqlite_utils")
    from sqlite_annoy import sqlite_utils_plugin

    def refuse(connection):
        raise sqlite_annoy.ExtensionsUnavailable("no extensions here")

    monkeypatch.setattr(sqlite_utils_plugin, "load", refuse)
    with pytest.warns(RuntimeWarning, match="without sqlite-annoy: no extensions here"):
        db = sqlite_utils.Database(memory=True)
    assert list(db.query("SELECT 1 AS one")) == [{"one": 1}]


def test_what_datasette_refuses_is_every_function_that_could_harm():
    """Whoever adds a function that is DIRECTONLY, or a table function, decides here whether visitors may call it."""
    from sqlite_annoy.datasette_plugin import REFUSED

    names = next(p / "sql/names.expected" for p in Path(__file__).parents if (p / "sql/names.expected").exists())
    functions, tables = names.read_text().split("-- table functions")
    direct = {line.split("(")[0] for line in functions.splitlines() if line.endswith(" direct")}
    # annoy_scan is an error by itself.
    assert direct - {"annoy_scan"} <= REFUSED
    allowed = {
        "annoy", "annoy_files", "annoy_indexes", "annoy_info", "annoy_stats", "knn_annoy", "knn_annoy_batch", "knn_exact",
        "knn_exact_batch", "mmr", "most_similar", "vec_cluster", "vec_each", "vec_project",
    }
    assert set(tables.splitlines()[1:]) - allowed <= REFUSED


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A Datasette that serves the notes."""
    datasette = pytest.importorskip("datasette")
    # Since Datasette 1.0, plugins are not configured in its metadata.
    settings = "-m" if datasette.__version__.startswith("0.") else "-c"
    folder = tmp_path_factory.mktemp("site")
    make(str(folder / "notes.db"))
    (folder / "datasette.yaml").write_text(
        "plugins:\n  sqlite-annoy:\n    model: words\ndatabases:\n  notes:\n    tables:\n      words:\n        allow: false\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "datasette", str(folder / "notes.db"), "-p", str(port), settings, str(folder / "datasette.yaml")]
    with open(folder / "log", "w+") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(150):
            try:
                urlopen(url).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
        process.terminate()


def get(url):
    with urlopen(url) as answer:
        return answer.read().decode()


def test_datasette_answers_sql_and_refuses_files(site):
    sql = "SELECT count(*) FROM knn_annoy('notes_index', (SELECT vector FROM notes WHERE id = 3), 5)"
    assert "5" in re.findall(r"\d+", get(f"{site}/notes.json?_shape=arrays&sql={quote(sql)}"))
    for sql in (
        "SELECT * FROM text_lines('/etc/passwd')",
        "SELECT count(*) FROM text_lines('/etc/passwd')",
        "SELECT * FROM vectors_read('/etc/passwd')",
        "SELECT annoy_export('notes_index', '/tmp/x')",
        "WITH t AS (SELECT * FROM annoy_time('SELECT 1')) SELECT * FROM t",
    ):
        with pytest.raises(HTTPError) as error:
            get(f"{site}/notes.json?sql={quote(sql)}")
        body = error.value.read().decode()
        assert "prohibited" in body or "not authorized" in body, (sql, body)


def test_the_page_answers_texts_rows_and_nonsense(site):
    page = f"{site}/-/nearest/notes/notes_index"
    assert "more like this" in get(f"{site}/notes/notes")
    assert "moon" in get(f"{page}?q=star+sky&_format=json")
    assert "bread" in get(f"{page}?like=1&_format=json")
    assert "No word of this text is known" in get(f"{page}?q=xyzzy")
    assert "no row 999" in get(f"{page}?like=999")
    assert "invalid literal" in get(f"{page}?like=drop")
    assert "&lt;x&gt;" in get(f"{page}?q=%3Cx%3E") and "<x>" not in get(f"{page}?q=%3Cx%3E")
    # The answers of chunks_index are groups, and no rows of chunks.
    for missing in ("/-/nearest/notes/nowhere", "/-/nearest/nowhere/notes_index", "/-/nearest/notes/chunks_index"):
        with pytest.raises(HTTPError) as error:
            get(site + missing)
        assert error.value.code == 404


def test_the_page_in_a_browser(site, tmp_path):
    selenium = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        assert "CI" not in os.environ, "Chromium is missing"
        pytest.skip("no chromium and chromedriver on this machine")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}"):
        options.add_argument(flag)
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        browser.get(f"{site}/-/nearest/notes/notes_index")
        field = browser.find_element("name", "q")
        field.send_keys("moon at night")
        field.submit()
        rows = browser.find_elements("css selector", "#nearest tbody tr")
        assert len(rows) == 20 and all("moon" in row.text for row in rows[:15])
        browser.save_screenshot(os.environ.get("SQLITE_ANNOY_SCREENSHOT", str(tmp_path / "page.png")))
        last = rows[-1].text.split()[0]
        rows[-1].find_element("link text", "more like this").click()
        rows = browser.find_elements("css selector", "#nearest tbody tr")
        assert f"like={last}" in browser.current_url and "bread" in rows[0].text
        browser.get(f"{site}/notes/notes")
        browser.find_element("link text", "more like this").click()
        assert "/-/nearest/notes/notes_index?like=" in browser.current_url
    finally:
        browser.quit()
