"""The examples do what they say: run in an environment with the Python package, Datasette, pytest and selenium.

    python -m pytest examples/test.py
"""
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

HERE = Path(__file__).parent
NOTES = [sys.executable, str(HERE / "notes/notes.py")]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """The documentation as notes, in a database."""
    folder = tmp_path_factory.mktemp("notes")
    shutil.copytree(HERE.parent / "docs", folder / "docs")
    assert "files read of" in run(*NOTES, "--db", str(folder / "notes.db"), "index", str(folder / "docs"))
    return folder


def test_notes_are_found_by_meaning_and_by_words(notes):
    db = str(notes / "notes.db")
    found = run(*NOTES, "--db", db, "search", "a crash while a file is written")
    assert "guarantees.md" in found, found
    assert "comparison.md" in run(*NOTES, "--db", db, "search", "hnswlib graph")
    assert run(*NOTES, "--db", db, "search", "?!") == ""


def test_only_what_has_changed_is_read_again(notes):
    db = str(notes / "notes.db")
    assert run(*NOTES, "--db", db, "index", str(notes / "docs")).startswith("0 files read")
    (notes / "docs" / "zebra.txt").write_text("A zebra grazes on the savanna.\n\nZebra stripes confuse the flies.\n")
    assert run(*NOTES, "--db", db, "index", str(notes / "docs")).startswith("1 files read")
    assert "zebra.txt" in run(*NOTES, "--db", db, "search", "zebra").splitlines()[0]
    (notes / "docs" / "zebra.txt").unlink()
    run(*NOTES, "--db", db, "index", str(notes / "docs"))
    assert "zebra.txt" not in run(*NOTES, "--db", db, "search", "zebra")


def test_the_web_page_shows_what_is_typed_for(notes, tmp_path):
    from selenium import webdriver

    sys.path.insert(0, str(HERE / "web"))
    import server

    site = server.serve(str(notes / "notes.db"), 0)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}",
                 "--window-size=1200,900"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(f"http://127.0.0.1:{site.server_port}/")
        browser.find_element("id", "q").send_keys("a crash while a file is written")
        for _ in range(100):
            results = browser.find_elements("css selector", "#results article")
            lit = browser.find_elements("css selector", "circle.found")
            if len(results) == 10 and len(lit) == 10:
                break
            time.sleep(0.1)
        assert len(results) == 10 and len(lit) == 10, (len(results), len(lit))
        assert any("guarantees.md" in result.text for result in results[:3])
        browser.save_screenshot(os.environ.get("SQLITE_ANNOY_SCREENSHOT", str(tmp_path / "page.png")))
    finally:
        browser.quit()
        site.shutdown()


def test_datasette_says_more_like_this(notes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "datasette", str(notes / "notes.db"), "-m", str(HERE / "datasette/metadata.yaml"), "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(150):
                try:
                    page = urlopen(f"http://127.0.0.1:{port}/notes/notes").read().decode()
                    break
                except OSError:
                    time.sleep(0.1)
            assert "more like this" in page
            answer = urlopen(f"http://127.0.0.1:{port}/-/nearest/notes/notes_near?q=a+damaged+file&_format=json").read().decode()
            assert "guarantees.md" in answer
        finally:
            process.terminate()
