"""What the tests of sqlite_annoy.spark share: a Spark with executors of its own, rows, and tasks that are held up to be killed.

SPARK_SEED gives other data.
"""
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

from sqlite_annoy._connect import connect

SEED = int(os.environ.get("SPARK_SEED", random.randrange(10**6)))
DIM, ROWS, QUERIES, K = 16, 4000, 100, 10
# Nothing here may take longer, however slow the machine.
NEVER = 900

# A machine that is busy is not one that is lost.
PATIENT = {
    "spark.network.timeout": "1800s",
    "spark.executor.heartbeatInterval": "60s",
    "spark.worker.timeout": "1800",
    "spark.python.authenticate.socketTimeout": "1800s",
    "spark.sql.broadcastTimeout": "1800",
}
# Of many short jobs, the time is that of compilers and tasks.
SMALL = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.executor.memory": "768m",
    "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.executor.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "2",
    # A lost executor is one failure; the errors that tests wait for need no more.
    "spark.task.maxFailures": "2",
}


def session(master):
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # Else executors take the first python3 they find.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(master).appName("sqlite-annoy")
    for name, value in {**PATIENT, **SMALL}.items():
        builder = builder.config(name, value)
    for name in ("PYTHONPATH", "SQLITE_ANNOY_PATH"):
        builder = builder.config(f"spark.executorEnv.{name}", os.environ.get(name, ""))
    return builder.getOrCreate()


def clusters(rng, n, dim=DIM, centres=40):
    """Rows around centres, a few of them twice, so that there are ties."""
    middles = rng.standard_normal((centres, dim)) * 3
    rows = (middles[rng.integers(centres, size=n)] + rng.standard_normal((n, dim)) * 0.6).astype(np.float32)
    rows[-n // 20:] = rows[: n // 20]
    return rows


def frame(spark, ids, vectors, **columns):
    """A DataFrame (id, vector, ...), vectors as BLOBs."""
    import pyarrow as pa

    blobs = pa.array([vector.astype("<f4").tobytes() for vector in vectors], pa.binary())
    return spark.createDataFrame(pa.table({"id": ids, "vector": blobs, **columns}))


def single(path, ids, rows):
    """One database with all rows."""
    db = connect(path)
    db.execute("CREATE TABLE items(id INTEGER PRIMARY KEY, vector BLOB)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO items VALUES (?, ?)", ((int(i), v.tobytes()) for i, v in zip(ids, rows)))
    db.execute("COMMIT")
    return db


class Data:
    """Rows with columns, queries q0, q1, ..., and one database with all."""

    def __init__(self, spark, folder):
        print(f"SPARK_SEED={SEED}")
        rng = np.random.default_rng(SEED)
        every = clusters(rng, ROWS + QUERIES)
        order = rng.permutation(len(every))
        self.rows, self.asked = every[order[:ROWS]], every[order[ROWS:]]
        self.rows[7] = 0
        self.asked[5] = 0
        self.asked[6] = self.rows[6]
        self.ids = rng.choice(10**12, size=ROWS, replace=False) - 5 * 10**11
        self.df = frame(
            spark, self.ids, self.rows, title=[f"title {i}" for i in self.ids],
            heavy=[bool(i % 2) for i in self.ids], weight=[float(i) / 3 for i in self.ids],
        ).repartition(3).cache()
        self.queries = spark.createDataFrame(
            [(f"q{i}", v.tolist()) for i, v in enumerate(self.asked)], "id string, vector array<double>"
        ).repartition(2).cache()
        self.db = single(os.path.join(folder, "single.db"), self.ids, self.rows)

    def truth(self, metric, k=K):
        """{query: [(id, distance), ...]} by knn_exact over one table."""
        sql = "SELECT rowid, distance FROM knn_exact('items', 'vector', ?, ?, ?) ORDER BY distance, rowid"
        options = json.dumps({"metric": metric})
        return {f"q{i}": self.db.execute(sql, (v.tobytes(), k, options)).fetchall() for i, v in enumerate(self.asked)}


def answers(found):
    """{query: [(id, distance), ...]} in order of rank."""
    out = {}
    for row in sorted(found.select("query", "rank", "id", "distance").collect()):
        assert row["rank"] == len(out.setdefault(row["query"], [])) + 1
        out[row["query"]].append((row["id"], row["distance"]))
    return out


def recall(found, truth):
    right = sum(len({i for i, _ in found.get(q, [])} & {i for i, _ in rows}) for q, rows in truth.items())
    return right / sum(map(len, truth.values()))


def held(module, name, folder, where):
    """A task that is ``module.name``, one of which is held up, as its victim, until ``folder`` has a file `killed`.

    ``where`` is "in" (a batch of rows has been taken) or "out" (a batch of results is ready). The folder has the file `victim`,
    with the pid of the executor, and one called stage-partition-attempt for each task that has started.
    """
    folder, module = str(folder), module.__name__

    # A function within one is sent to executors as it is, not by its name.
    def task(batches, **how):
        from pyspark import TaskContext

        here = TaskContext.get()
        open(os.path.join(folder, f"{here.stageId()}-{here.partitionId()}-{here.taskAttemptId()}"), "w").close()

        def hold():
            try:
                victim = open(os.path.join(folder, "victim"), "x")
            except FileExistsError:
                return
            with victim:
                # The parent of the parent: executors start a daemon, which forks workers.
                victim.write(open(f"/proc/{os.getppid()}/stat").read().rsplit(")", 1)[1].split()[1] + "\n")
            end = time.monotonic() + NEVER
            while not os.path.exists(os.path.join(folder, "killed")) and time.monotonic() < end:
                time.sleep(0.02)

        def taken():
            for batch in batches:
                yield batch
                if where == "in":
                    hold()

        for batch in getattr(importlib.import_module(module), name)(taken(), **how):
            if where == "out":
                hold()
            yield batch

    return task


def victim(folder, alive=lambda: True):
    """Waits for the victim of ``held``; the pid of its executor."""
    end = time.monotonic() + NEVER
    file = Path(folder, "victim")
    while not (file.exists() and file.read_text().endswith("\n")):
        assert alive() and time.monotonic() < end, "the job was over before a task could be held up"
        time.sleep(0.02)
    return int(file.read_text())


def killing_one(folder, job):
    """Runs ``job``, and kills the executor of the task that ``held`` has held up. The result."""
    out = {}

    def run():
        try:
            out["result"] = job()
        except BaseException as error:
            out["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    pid = victim(folder, thread.is_alive)
    assert b"CoarseGrainedExecutorBackend" in Path("/proc", str(pid), "cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    Path(folder, "killed").touch()
    thread.join(NEVER)
    assert not thread.is_alive(), "the job goes on for ever"
    if "error" in out:
        raise out["error"]
    tasks = Counter(path.name.rsplit("-", 1)[0] for path in Path(folder).glob("*-*-*"))
    assert max(tasks.values()) > 1, f"no task ran again: {tasks}"
    return out["result"]
