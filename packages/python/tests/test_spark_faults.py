"""Executors that are killed, drivers that die, writers that meet: shards and answers are those of a calm run, or the ones before."""
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'sqlite-annoy[spark]', and Java 17")
if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
    pytest.skip("there is no Java: install 17", allow_module_level=True)

from spark_cluster import K, NEVER, answers, frame, held, killing_one, victim  # noqa: E402
from sqlite_annoy import spark as annoy  # noqa: E402
from sqlite_annoy._connect import connect  # noqa: E402
from sqlite_annoy.spark import search, shards as shards_room, write  # noqa: E402
from sqlite_annoy.spark.shards import Shard, Shards, publish  # noqa: E402


def contents(shards):
    """All rows of all shards, and the index of each."""
    out = []
    for number in range(len(shards)):
        db = connect(shards.database(number), read_only=True)
        (sums,) = db.execute("SELECT value FROM annoy_info('items_index') WHERE key = 'checksum'").fetchall()
        out.append((sums, db.execute("SELECT id, vector, title, heavy, weight FROM items ORDER BY id").fetchall()))
    return out


@pytest.fixture(scope="module")
def calm(data, tmp_path_factory):
    return annoy.write_shards(data.df, tmp_path_factory.mktemp("calm"), 6, by="centroid", metric="l2")


def test_shards_depend_on_rows_not_on_how_they_are_spread(data, calm, tmp_path):
    spread = data.df.repartition(7, "title").sortWithinPartitions("weight")
    assert contents(annoy.write_shards(spread, tmp_path, 6, by="centroid", metric="l2")) == contents(calm)


@pytest.mark.parametrize("where", ["in", "out"])
def test_an_executor_that_is_killed_while_it_writes_changes_nothing(data, calm, tmp_path, monkeypatch, where):
    """In the middle of a shard, and when the shard has its place, but nobody has been told."""
    path, log = tmp_path / "shards", tmp_path / "log"
    log.mkdir()
    monkeypatch.setattr(write, "_write", held(write, "_write", log, where))
    shards = killing_one(log, lambda: annoy.write_shards(data.df, path, 6, by="centroid", metric="l2"))
    assert contents(shards) == contents(calm)
    assert [(s.rows, s.centroid, s.radius) for s in shards.shards] == [(s.rows, s.centroid, s.radius) for s in calm.shards]
    end = time.monotonic() + NEVER
    while list(path.glob("build-*/building-*")):  # of a task that outlives its executor
        assert time.monotonic() < end, "what killed tasks left is not removed"
        time.sleep(0.1)


@pytest.mark.parametrize("where, exact", [("in", True), ("out", False)])
def test_an_executor_that_is_killed_while_it_searches_changes_nothing(data, calm, tmp_path, monkeypatch, where, exact):
    expected = data.truth("l2") if exact else answers(annoy.knn(data.queries, calm, K))
    monkeypatch.setattr(search, "_search", held(search, "_search", tmp_path, where))
    assert killing_one(tmp_path, lambda: answers(annoy.knn(data.queries, calm, K, exact=exact))) == expected


DRIVER = """
import sys
from spark_cluster import frame, held, session
from sqlite_annoy import spark as annoy
from sqlite_annoy.spark import write
import numpy as np

path, log = sys.argv[1:]
write._write = held(write, "_write", log, "out")
annoy.write_shards(frame(session("local[1]"), range(100), np.ones((100, 4))), path, 2, overwrite=True)
"""


def test_a_driver_that_is_killed_leaves_the_shards_that_were_there(spark, data, tmp_path):
    path, log = tmp_path / "shards", tmp_path / "log"
    log.mkdir()
    first = annoy.write_shards(data.df.limit(50), path, 2)
    before = sorted(os.listdir(path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])}
    # Its own Spark: this one's must not be found.
    environment = {name: value for name, value in environment.items() if not name.startswith(("PYSPARK_GATEWAY", "SPARK_ENV"))}
    with open(tmp_path / "output", "wb") as output:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(path), str(log)], env=environment, stdout=output, stderr=output,
            start_new_session=True,
        )
    try:
        victim(log, lambda: driver.poll() is None)
    except AssertionError:
        print((tmp_path / "output").read_text())
        raise
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        (log / "killed").touch()
    driver.wait(NEVER)
    assert annoy.open_shards(path) == first
    left = [name for name in os.listdir(path) if name not in before]
    assert len(left) == 1 and list((path / left[0]).glob("0*")), "a shard had its place, and nothing was published"
    assert annoy.remove_unlisted(path) == left and sorted(os.listdir(path)) == before
    assert annoy.write_shards(data.df.limit(60), path, 2, overwrite=True).rows == 60


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_writers_to_one_folder_one_counts(spark, data, tmp_path, monkeypatch, overwrite):
    both = threading.Barrier(2)
    out = {}

    def together(*arguments):
        both.wait(NEVER)
        publish(*arguments)

    def run(rows):
        try:
            out[rows] = annoy.write_shards(data.df.limit(rows), tmp_path, 2, overwrite=overwrite)
        except FileExistsError as error:
            out[rows] = str(error)

    monkeypatch.setattr(write, "publish", together)
    threads = [threading.Thread(target=run, args=(rows,)) for rows in (50, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(NEVER)
    published = annoy.open_shards(tmp_path)
    assert out[published.rows] == published and sum(map(len, contents(published)[0][1:])) > 0
    other = out[110 - published.rows]
    if overwrite:
        assert annoy.remove_unlisted(tmp_path) == [other.shards[0].folder.split("/")[0]]
    else:
        assert "are published in" in other
    builds = [name for name in os.listdir(tmp_path) if name.startswith("build-")]
    assert builds == [published.shards[0].folder.split("/")[0]]


def some_shards(path, name):
    (path / name).mkdir()
    return Shards(str(path), "l2", 4, {}, [Shard(f"{name}/00000", 10)])


def test_a_manifest_is_never_replaced_unasked_with_or_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    for folder, link in (("links", os.link), ("none", no_links)):
        path = tmp_path / folder
        path.mkdir()
        monkeypatch.setattr(os, "link", link)
        one, two = some_shards(path, "build-1"), some_shards(path, "build-2")
        publish(one, "build-1", False)
        with pytest.raises(FileExistsError, match="say overwrite=True"):
            publish(two, "build-2", False)
        assert annoy.open_shards(path) == one
        publish(two, "build-2", True)
        assert annoy.open_shards(path) == two


def test_an_error_after_publishing_keeps_what_is_published(spark, data, tmp_path, monkeypatch):
    def no_sync(path):
        raise OSError(errno.EIO, f"{path} can't be synced")

    monkeypatch.setattr(shards_room, "sync_folder", no_sync)
    with pytest.raises(OSError, match="can't be synced"):
        annoy.write_shards(frame(spark, range(9), data.rows[:9]), tmp_path, 2)
    assert annoy.open_shards(tmp_path).rows == 9
    assert all(Path(annoy.open_shards(tmp_path).database(n)).exists() for n in range(2))
