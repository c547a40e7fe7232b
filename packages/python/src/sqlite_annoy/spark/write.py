"""From a DataFrame to shards.

Spark brings the rows of a shard together, in order of id, so that every attempt of a task writes the same rows. A task
builds its shard in a folder of its own and renames the folder when all is synced. Of several attempts (an executor was
killed, a task was speculative) the first rename counts, later ones find the name taken and go. The manifest comes last.
"""
from __future__ import annotations

import json
import os
import platform
import shutil
import time
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any, Iterator, Optional, Union

import numpy as np

from .._connect import connect
from .shards import METRICS, Shard, Shards, as_folder, database, distances
from .shards import open_shards, publish, refuse_published, sync_folder
from .vectors import as_column, blobs, matrix

# Sampled rows for each centroid.
SAMPLE = 256
STORAGE = ("file", "inline")
SQL_TYPES = {
    "tinyint": "INTEGER", "smallint": "INTEGER", "int": "INTEGER", "bigint": "INTEGER", "boolean": "BOOLEAN",
    "float": "REAL", "double": "REAL", "string": "TEXT", "binary": "BLOB",
}  # fmt: skip
SHARD, KEY = "_annoy_shard", "_annoy_key"


@dataclass(frozen=True)
class Plan:
    """What a task needs to know to write a shard."""

    path: str
    build: str
    metric: str
    options: str
    # Of the columns beside id and vector, in this order.
    columns: dict[str, str]
    centroids: Optional[Any]


def write_shards(
    df: Any,
    path: Union[str, "os.PathLike[str]"],
    n: int,
    *,
    id: str = "id",
    vector: str = "vector",
    by: str = "hash",
    metric: str = "cosine",
    trees: int = 1,
    storage: str = "file",
    seed: int = 1,
    overwrite: bool = False,
) -> Shards:
    """Writes the rows of a DataFrame into ``n`` databases with an index each, built on the executors, and publishes them.

    ``id``: a column of integers, unique, never NULL. ``vector``: array<float>, array<double> (rounded to float32), a vector of
    pyspark.ml, or binary (little-endian float32); where it is NULL the row is kept and never found. The other columns go
    along: numbers, strings, booleans, binaries.

    ``by="hash"`` spreads rows evenly; every query asks every shard. ``by="centroid"`` puts near rows together (``n`` centroids
    from a sample), so that a query leaves out shards that are too far away; shards then differ in size. Shards without rows
    are left out.

    ``metric``: cosine, l2 or dot; ``trees``, ``seed`` and ``storage`` (file or inline) as in ``CREATE VIRTUAL TABLE ... USING
    annoy``. ``overwrite`` replaces what is published in ``path``; jobs that still read the old shards go on (remove them with
    ``remove_unlisted`` later).

    ``df`` is read once by hash and three times by centroid (ids, a sample, everything): cache what is dear to compute, or not the
    same twice. An error leaves what was published as it was. Of two writers to one folder the later one is an error, or with
    ``overwrite`` replaces the other.
    """
    from pyspark.sql import functions as F

    _check(df, n, id, by, metric, storage)
    path = as_folder(path)
    if not overwrite:
        refuse_published(path)
    vectors = as_column(df, vector).alias("vector")
    columns = _columns(df, id, vector)
    rows = df.select(F.col(_quoted(id)).cast("bigint").alias("id"), vectors, *map(_quoted, columns))
    centroids = _centroids(rows, n, metric, seed) if by == "centroid" else None
    if centroids is None:
        rows = rows.withColumn(SHARD, F.expr(f"pmod(hash(id), {n})"))
    else:
        schema = ", ".join(f"{_quoted(name)} {kind}" for name, kind in _schema(rows).items())
        rows = rows.mapInArrow(partial(_assign, centroids=centroids, metric=metric), f"{schema}, {SHARD} int")

    build = f"build-{uuid.uuid4().hex[:12]}"
    options = f"metric={metric}, trees={int(trees)}, seed={int(seed)}, storage={storage}, threads=1"
    plan = Plan(path, build, metric, options, {c: SQL_TYPES[k] for c, k in columns.items()}, centroids)
    os.makedirs(os.path.join(path, build))
    try:
        together = one_each(rows, n).sortWithinPartitions(SHARD, "id")
        written = together.mapInArrow(partial(_write, plan=plan), "shard int, info string").collect()
        shards = _gather(plan, [(row["shard"], json.loads(row["info"])) for row in written])
        publish(shards, build, overwrite)
    except BaseException:
        if not _is_listed(path, build):
            _remove(os.path.join(path, build))
        raise
    for name in os.listdir(os.path.join(path, build)):
        if name.startswith("building-"):  # of attempts that were killed, or came second
            shutil.rmtree(os.path.join(path, build, name), ignore_errors=True)
    return shards


def remove_unlisted(path: Union[str, "os.PathLike[str]"]) -> list[str]:
    """Removes the builds that the manifest does not name: old ones, and those of drivers that were killed. Returns their names.

    Not while another ``write_shards`` runs in the same folder, nor while a job reads older shards.
    """
    path = as_folder(path)
    listed = {shard.folder.split("/")[0] for shard in open_shards(path).shards}
    gone = sorted(name for name in os.listdir(path) if name.startswith("build-") and name not in listed)
    for name in gone:
        shutil.rmtree(os.path.join(path, name))
    return gone


# For one_each: of each n, the key for each number.
_keys: dict[int, dict[int, int]] = {}


def one_each(rows: Any, n: int) -> Any:
    """Partitions rows so that each number in SHARD, below ``n``, has one of the ``n`` partitions for itself.

    Spark places a row by a hash of its key; here is a key for each number whose hash falls on it.
    """
    from pyspark.sql import functions as F

    keys = _keys.setdefault(n, {})
    first = 0
    while len(keys) < n:
        some = rows.sparkSession.range(first, first + 16 * n, 1, 1).selectExpr("int(id) k", f"pmod(hash(int(id)), {n}) p")
        for key, place in some.collect():
            keys.setdefault(place, key)
        first += 16 * n
    table = F.array(*(F.lit(keys[place]) for place in range(n)))
    return rows.withColumn(KEY, F.element_at(table, F.col(SHARD) + 1)).repartition(n, KEY).drop(KEY)


def _check(df: Any, n: int, id: str, by: str, metric: str, storage: str) -> None:
    if n < 1:
        raise ValueError(f"{n} shards: expected 1 or more")
    for what, value, known in (("by", by, ("hash", "centroid")), ("metric", metric, METRICS), ("storage", storage, STORAGE)):
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}: expected {' or '.join(known)}")
    if id not in df.columns:
        raise ValueError(f"there is no column {id!r}: expected one of {', '.join(df.columns)}")
    kind = df.schema[id].dataType.simpleString()
    if SQL_TYPES.get(kind) != "INTEGER":
        raise TypeError(f"column {id!r} is {kind}: expected an integer, which is the row's key; keep other keys as columns")


def _columns(df: Any, id: str, vector: str) -> dict[str, str]:
    """Name and Spark type of the columns beside id and vector."""
    columns = {f.name: f.dataType.simpleString() for f in df.schema.fields if f.name not in (id, vector)}
    for name, kind in columns.items():
        if kind not in SQL_TYPES:
            raise TypeError(f"column {name!r} is {kind}: expected one of {', '.join(SQL_TYPES)}; cast it, or drop it")
        if name.lower() in ("id", "vector", SHARD):
            raise ValueError(f"a column is called {name!r} beside the one that is the {name.lower()}: rename it, or drop it")
    return columns


def _schema(rows: Any) -> dict[str, str]:
    return {f.name: "binary" if f.name == "vector" else f.dataType.simpleString() for f in rows.schema.fields}


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _centroids(rows: Any, n: int, metric: str, seed: int) -> Any:
    """Up to ``n`` centroids of a sample, as rows of float64; unit vectors for cosine."""
    from pyspark.sql import functions as F

    # By hash one shard has all rows of an id, and refuses the second. Here they may be in two.
    ids = rows.groupBy("id").agg(F.count("vector").alias("vectors"), F.count(F.lit(1)).alias("rows"))
    count, most, id = ids.agg(F.sum("vectors"), F.max("rows"), F.max_by("id", "rows")).first()
    if not count:
        raise ValueError("there are no vectors: expected some")
    if most > 1:
        raise ValueError("an id is NULL: expected a unique integer in every row" if id is None else f"id {id} comes twice: expected unique ids")
    there = rows.where(F.col("vector").isNotNull())
    there = there.select("id", "vector")
    # By a hash of the id, not sample(): how rows are spread over partitions, which may differ when one is made again, is no matter.
    part = int(min(1.0, 1.2 * SAMPLE * n / count) * (1 << 30))
    sample = there.where(F.pmod(F.xxhash64("id", F.lit(int(seed))), F.lit(1 << 30)) < part)
    some = sample.mapInArrow(_blobs_only, "id bigint, vector binary").collect()
    if not some:  # as a sample of few rows can be
        some = there.orderBy("id").limit(1).mapInArrow(_blobs_only, "id bigint, vector binary").collect()
    db = connect(":memory:")
    db.execute("CREATE TABLE sample(id INTEGER PRIMARY KEY, vector BLOB)")
    for id, vector in some:
        db.execute("INSERT OR REPLACE INTO sample VALUES (?, ?)", (id, bytes(vector)))
    options = json.dumps({"metric": "cosine" if metric == "cosine" else "l2", "seed": seed})
    means = db.execute(
        "SELECT vec_avg(s.vector) FROM vec_cluster('sample', 'vector', ?, ?) c JOIN sample s ON s.id = c.id "
        "GROUP BY c.cluster ORDER BY c.cluster",
        (min(n, len(some)), options),
    ).fetchall()
    centroids = matrix([mean for (mean,) in means], len(some[0][1]) // 4, "the sample")
    if metric == "cosine":
        lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
        # A mean of zeros has no direction; any will do, radii are measured from it.
        centroids = np.where(lengths > 0, centroids / np.maximum(lengths, 1e-300), np.eye(1, centroids.shape[1]))
    return centroids


def _blobs_only(batches: Iterator[Any]) -> Iterator[Any]:
    import pyarrow as pa

    for batch in batches:
        yield pa.RecordBatch.from_arrays([batch["id"], pa.array(blobs(batch["vector"]), pa.binary())], ["id", "vector"])


def _assign(batches: Iterator[Any], centroids: Any, metric: str) -> Iterator[Any]:
    """Adds the number of the nearest centroid; 0 where there is no vector."""
    import pyarrow as pa

    for batch in batches:
        vectors = blobs(batch["vector"])
        rows = matrix([v or bytes(4 * centroids.shape[1]) for v in vectors], centroids.shape[1], "the DataFrame")
        nearest = distances(rows, centroids, metric).argmin(axis=1) if len(rows) else np.empty(0)
        arrays = [pa.array(vectors, pa.binary()) if name == "vector" else batch[name] for name in batch.schema.names]
        yield pa.RecordBatch.from_arrays(
            [*arrays, pa.array(nearest.astype(np.int32))], [*batch.schema.names, SHARD]
        )


class _Builder:
    """One shard on its way, in a folder that nobody else writes to."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan, self.number = plan, number
        self.folder = os.path.join(plan.build, f"building-{number:05}-{uuid.uuid4().hex[:12]}")
        try:
            # The driver has made the folder above: it is missing where the path is not shared, and once the job has failed.
            os.mkdir(os.path.join(plan.path, self.folder))
        except FileNotFoundError:
            where = os.path.join(plan.path, plan.build)
            raise FileNotFoundError(f"{where} is missing on {platform.node()}: expected a path that all executors share") from None
        self.db = connect(database(plan.path, self.folder))
        # Nobody reads it before the rename: the index is synced by the extension, the rest once by COMMIT.
        self.db.execute("PRAGMA journal_mode = MEMORY")
        columns = "".join(f", {_sql(name)} {kind}" for name, kind in plan.columns.items())
        self.db.execute(f"CREATE TABLE items(id INTEGER PRIMARY KEY, vector BLOB{columns})")
        self.db.execute("CREATE TABLE shard(info TEXT)")
        self.db.execute("BEGIN")
        self.insert = f"INSERT INTO items VALUES ({', '.join('?' * (2 + len(plan.columns)))})"
        self.rows, self.dim, self.radius, self.zeros = 0, 0, 0.0, False

    def add(self, batch: Any) -> None:
        vectors = blobs(batch["vector"])
        ids = batch["id"].to_pylist()
        if None in ids:
            raise ValueError("an id is NULL: expected a unique integer in every row")
        columns = [batch[name].to_pylist() for name in self.plan.columns]
        try:
            self.db.executemany(self.insert, zip(ids, vectors, *columns))
        except Exception as error:
            if "UNIQUE" in str(error):
                raise ValueError(f"an id comes twice among {min(ids)} to {max(ids)}: expected unique ids") from None
            raise
        self.rows += len(ids)
        there = [vector for vector in vectors if vector is not None]
        if there:
            self.dim = self.dim or len(there[0]) // 4
            self._measure(matrix(there, self.dim, f"shard {self.number}"))

    def _measure(self, rows: Any) -> None:
        if self.plan.centroids is None:
            return
        some = rows.any(axis=1)
        self.zeros = self.zeros or not some.all()
        if self.plan.metric == "cosine":
            rows = rows[some]
        if len(rows):
            away = distances(rows, self.plan.centroids[self.number : self.number + 1], self.plan.metric)
            self.radius = max(self.radius, float(away.max()))

    def finish(self) -> dict[str, Any]:
        """Publishes the folder, or finds that another attempt has. Returns what the manifest says of it."""
        plan, centroids = self.plan, self.plan.centroids
        folder = f"{plan.build}/{self.number:05}"
        info = {"folder": folder, "rows": self.rows, "dim": self.dim}
        if centroids is not None:
            info.update(centroid=centroids[self.number].tolist(), radius=self.radius, zeros=self.zeros)
        self.db.execute("INSERT INTO shard VALUES (?)", (json.dumps(info),))
        self.db.execute("COMMIT")
        self.db.execute(f"CREATE VIRTUAL TABLE items_index USING annoy(items, vector, {plan.options})")
        self.db.close()
        sync_folder(os.path.join(plan.path, self.folder))
        try:
            os.rename(os.path.join(plan.path, self.folder), os.path.join(plan.path, folder))
        except OSError:
            if not os.path.exists(database(plan.path, folder)):
                raise
            shutil.rmtree(os.path.join(plan.path, self.folder), ignore_errors=True)
            db = connect(database(plan.path, folder), read_only=True)
            ((text,),) = db.execute("SELECT info FROM shard").fetchall()
            db.close()
            return dict(json.loads(text))
        sync_folder(os.path.join(plan.path, plan.build))
        return info

    def give_up(self) -> None:
        self.db.close()
        shutil.rmtree(os.path.join(self.plan.path, self.folder), ignore_errors=True)


def _is_listed(path: str, build: str) -> bool:
    """Whether the manifest names this build: an error that comes after that must not remove it."""
    try:
        return any(shard.folder.startswith(f"{build}/") for shard in open_shards(path).shards)
    except FileNotFoundError:
        return False


def _remove(folder: str) -> None:
    """Removes a folder in which tasks that have not yet heard of the failure may still be writing."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


def _sql(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def runs(batch: Any) -> Iterator[tuple[int, Any]]:
    """The parts of a batch, sorted by SHARD, that have one number."""
    numbers = batch[SHARD].to_numpy(zero_copy_only=False)
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1), len(numbers)]
    for start, end in zip(starts, starts[1:]):
        if end > start:
            yield int(numbers[start]), batch.slice(start, end - start)


def _write(batches: Iterator[Any], plan: Plan) -> Iterator[Any]:
    """Writes the shards of a partition, one after the other."""
    import pyarrow as pa

    def report(builder: _Builder) -> Any:
        info = json.dumps(builder.finish())
        return pa.RecordBatch.from_arrays([pa.array([builder.number], pa.int32()), pa.array([info])], ["shard", "info"])

    builder: Optional[_Builder] = None
    try:
        for batch in batches:
            for number, part in runs(batch):
                if builder is not None and builder.number != number:
                    yield report(builder)
                    builder = None
                if builder is None:
                    builder = _Builder(plan, number)
                builder.add(part)
        if builder is not None:
            yield report(builder)
    except BaseException:
        if builder is not None:
            builder.give_up()
        raise


def _gather(plan: Plan, written: list[tuple[int, dict[str, Any]]]) -> Shards:
    """What the tasks have written, as one; an error if it does not fit together."""
    numbers = [number for number, _ in written]
    if len(set(numbers)) < len(numbers):
        raise RuntimeError(f"a shard was written by two partitions: {sorted(numbers)}")
    if not written:
        raise ValueError("the DataFrame is empty: expected rows")
    dims = sorted({info.pop("dim") for _, info in written} - {0})
    if len(dims) != 1:
        raise ValueError(f"vectors have {' and '.join(map(str, dims)) or 'no'} dimensions: expected one number for all")
    return Shards(plan.path, plan.metric, dims[0], plan.columns, [Shard(**info) for _, info in sorted(written, key=lambda w: w[0])])
