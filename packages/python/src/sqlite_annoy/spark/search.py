"""Queries as a DataFrame against shards.

By hash: each query goes to every shard, whose k best come back. By centroid, in two steps: first to the shard whose centroid is
nearest, which gives a k-th distance; then, with that as limit, to the shards whose bound is not above it. The limit is never
below the true k-th distance, so nothing is lost by what is left out. Spark's shuffle brings the queries of a shard together and
the candidates of a query together; of those the k nearest stay, among equals the smaller id.

A task opens a shard, which is mapped, and asks it for many queries at once. It keeps nothing, so it can be run again.
"""
from __future__ import annotations

import json
import os
import platform
from functools import partial
from typing import Any, Iterator, Optional, Union

import numpy as np

from .._connect import connect
from .shards import Shards, open_shards
from .vectors import as_column, blobs, matrix
from .write import SHARD, _quoted, _sql, one_each, runs, write_shards

# Queries asked at once; each has k rows of answers in memory.
AT_ONCE = 512
# A row that carries what the first step has found, past the second.
DONE = -1
ANSWER = ["query", "vector", SHARD, "limit", "found"]
VECTOR_HASH = "_annoy_vector"
TWICE = "comes twice: expected unique ids of queries"
JOINED = ("right_id", "distance", "rank")
RESULT = ("query", "id", "distance", "rank")


def knn(
    queries: Any,
    shards: Union[Shards, str, "os.PathLike[str]"],
    k: int,
    *,
    id: str = "id",
    vector: str = "vector",
    exact: bool = False,
    recall: float = 0.95,
    columns: tuple[str, ...] = (),
    tasks: Optional[int] = None,
) -> Any:
    """The ``k`` nearest rows of ``shards`` for each row of ``queries``: a DataFrame (query, id, distance, rank, ...), rank from 1.

    ``id`` names the column that tells queries apart, of any type that Spark can compare, unique; ``vector`` is as in
    ``write_shards``. A query that is NULL has no rows. ``columns`` of the shards come along.

    ``exact=True`` gives the rows and distances of ``knn_exact`` over all rows in one table, to the last bit, ties by id. Otherwise
    each shard is asked with ``{"recall": recall}``, and that is the mean recall to expect of the whole.

    ``tasks`` is how many search at a time, at least one a shard; without it as many as Spark has cores.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    shards = shards if isinstance(shards, Shards) else open_shards(shards)
    if k < 1:
        raise ValueError(f"k is {k}: expected 1 or more")
    if not 0 < recall <= 1:
        raise ValueError(f"recall is {recall}: expected more than 0, at most 1")
    for name in columns:
        if name not in shards.columns:
            raise ValueError(f"the shards have no column {name!r}: expected some of {', '.join(shards.columns) or 'none'}")
        if name.lower() in RESULT:
            raise ValueError(f"the shards' column {name!r} has the name of a column of the result: write the shards with another")
    if id not in queries.columns:
        raise ValueError(f"there is no column {id!r}: expected one of {', '.join(queries.columns)}")

    kind = queries.schema[id].dataType.simpleString()
    fields = "".join(f", {_quoted(name)}: {_SPARK_TYPES[shards.columns[name]]}" for name in columns)
    asked = f"query {kind}, vector binary, {SHARD} int, `limit` double"
    answered = f"{asked}, found array<struct<id: bigint, distance: double{fields}>>"
    ask = partial(_search, shards=shards, k=k, exact=exact, recall=recall, columns=columns)
    spread = max(1, -(-(tasks or queries.sparkSession.sparkContext.defaultParallelism) // len(shards)))

    rows = queries.select(F.col(_quoted(id)).alias("query"), as_column(queries, vector).alias("vector"))
    rows = rows.where(F.col("vector").isNotNull())
    if shards.by_centroid:
        rows = rows.mapInArrow(partial(_nearest_shard, shards=shards), asked)
        rows = _by_shard(rows, len(shards), spread).mapInArrow(ask, answered)
        rows = rows.mapInArrow(partial(_other_shards, shards=shards, k=k), answered)
        rows = _by_shard(rows, len(shards), spread).mapInArrow(ask, answered)
    else:
        rows = rows.mapInArrow(partial(_every_shard, shards=shards), asked)
        rows = _by_shard(rows, len(shards), spread).mapInArrow(ask, answered)
    found = rows.select("query", F.xxhash64("vector").alias(VECTOR_HASH), F.inline("found"))
    same = Window.partitionBy("query")
    rank = F.row_number().over(same.orderBy("distance", "id"))
    if shards.by_centroid:
        # Two queries of one name are noticed by the shard that both are sent to, if there is one.
        one = F.min(VECTOR_HASH).over(same) == F.max(VECTOR_HASH).over(same)
        twice = F.concat(F.lit("query "), F.col("query").cast("string"), F.lit(f" {TWICE}"))
        rank = F.when(one, rank).otherwise(F.raise_error(twice))
    found = found.withColumn("rank", rank).where(F.col("rank") <= k)
    return found.select("query", "id", "distance", "rank", *map(_quoted, columns))


def knn_join(
    left: Any,
    right: Any,
    k: int,
    *,
    id: str = "id",
    vector: str = "vector",
    exact: bool = False,
    recall: float = 0.95,
    columns: tuple[str, ...] = (),
    tasks: Optional[int] = None,
    path: Optional[Union[str, "os.PathLike[str]"]] = None,
    **write: Any,
) -> Any:
    """Each row of ``left`` with its ``k`` nearest rows of ``right``: the columns of ``left``, then right_id, distance, rank and
    ``columns``, which are called right_... where ``left`` has that name.

    ``right`` is shards (or their path), or a DataFrame, which is first written to shards in ``path``; ``write`` may then have
    ``n``, ``by`` and whatever else ``write_shards`` takes. The shards stay until you remove them: the result is read from
    there. A row that is in both sides is its own nearest. The ids of ``left`` are unique; rows whose id or vector is NULL drop out.
    """
    from pyspark.sql import functions as F

    taken = {name.lower() for name in left.columns}
    for name in JOINED:
        if name in taken:
            raise ValueError(f"left has a column {name!r}, which the result adds: rename it first")
    if not isinstance(right, (Shards, str, os.PathLike)):
        if path is None:
            raise ValueError("right is a DataFrame: expected path=, a folder for its shards that all executors see")
        n = write.pop("n", None) or left.sparkSession.sparkContext.defaultParallelism
        right = write_shards(right, path, n, **write)
    elif path is not None or write:
        raise ValueError(f"right is shards: {', '.join([*(['path'] if path else []), *write])} can only be given for a DataFrame")
    found = knn(left, right, k, id=id, vector=vector, exact=exact, recall=recall, columns=columns, tasks=tasks)
    # As one step: "query" may become "id".
    names = {"query": id, "id": "right_id", **{name: f"right_{name}" for name in columns if name.lower() in taken}}
    found = found.select(*(F.col(_quoted(name)).alias(names.get(name, name)) for name in found.columns))
    return left.join(found, id)


_SPARK_TYPES = {"INTEGER": "bigint", "BOOLEAN": "boolean", "REAL": "double", "TEXT": "string", "BLOB": "binary"}


def _by_shard(rows: Any, shards: int, spread: int) -> Any:
    """The queries of each shard in ``spread`` partitions of their own, sorted by shard and query."""
    from pyspark.sql import functions as F

    # What is done is spread like the rest, and stays first in its partition by its number.
    place = F.expr(f"if({SHARD} < 0, pmod(hash(query), {shards}), {SHARD}) * {spread} + pmod(xxhash64(query), {spread})")
    placed = rows.withColumn("_annoy_number", F.col(SHARD)).withColumn(SHARD, place.cast("int"))
    placed = one_each(placed, shards * spread).drop(SHARD).withColumnRenamed("_annoy_number", SHARD)
    return placed.sortWithinPartitions(SHARD, "query")


def _asked(query: Any, vectors: list[Any], shard: Any, limit: Any) -> Any:
    import pyarrow as pa

    arrays = [query, pa.array(vectors, pa.binary()), pa.array(shard, pa.int32()), pa.array(limit, pa.float64())]
    return pa.RecordBatch.from_arrays(arrays, ["query", "vector", SHARD, "limit"])


def _every_shard(batches: Iterator[Any], shards: Shards) -> Iterator[Any]:
    for batch in batches:
        vectors = blobs(batch["vector"])
        matrix(vectors, shards.dim, "the queries")
        for number in range(len(shards)):
            yield _asked(batch["query"], vectors, np.full(len(vectors), number), np.full(len(vectors), np.inf))


def _nearest_shard(batches: Iterator[Any], shards: Shards) -> Iterator[Any]:
    for batch in batches:
        vectors = blobs(batch["vector"])
        rows = matrix(vectors, shards.dim, "the queries")
        yield _asked(batch["query"], vectors, shards.nearest(rows), np.full(len(rows), np.inf))


def _other_shards(batches: Iterator[Any], shards: Shards, k: int) -> Iterator[Any]:
    """What the first step has found, marked as done, and each query again for the shards that may hold something nearer."""
    import pyarrow as pa

    for batch in batches:
        if not batch.num_rows:
            continue
        found = batch["found"]
        distance = found.flatten().field("distance").to_numpy(zero_copy_only=False)
        lengths = found.value_lengths().to_numpy(zero_copy_only=False)
        ends = np.cumsum(lengths)
        full = lengths >= k
        limit = np.full(len(lengths), np.inf)
        limit[full] = distance[ends[full] - 1]
        vectors = batch["vector"].to_pylist()
        bounds = shards.bounds(matrix(vectors, shards.dim, "the queries"))
        wanted = bounds <= limit[:, None]
        wanted[np.arange(len(vectors)), batch[SHARD].to_numpy()] = False
        yield batch.set_column(batch.schema.names.index(SHARD), SHARD, pa.array(np.full(len(vectors), DONE), pa.int32()))
        for number in range(len(shards)):
            some = np.flatnonzero(wanted[:, number])
            if len(some):
                again = _asked(batch["query"].take(pa.array(some)), [vectors[i] for i in some], np.full(len(some), number), limit[some])
                yield pa.RecordBatch.from_arrays([*again.columns, pa.nulls(len(some), found.type)], ANSWER)


class _Shard:
    """A shard, open for searches."""

    def __init__(self, shards: Shards, number: int, k: int, exact: bool, recall: float, columns: tuple[str, ...]) -> None:
        self.number, self.k = number, k
        file = shards.database(number)
        if not os.path.exists(file):
            raise FileNotFoundError(
                f"{file} is missing on {platform.node()}: expected a path that all executors share, and shards that "
                "remove_unlisted has not removed"
            )
        self.db = connect(file, read_only=True)
        if exact:
            search, options = "knn_exact_batch('items', 'vector', ?, ?, ?)", {"metric": shards.metric, "threads": 1}
        else:
            search, options = "knn_annoy_batch('items_index', ?, ?, ?)", {"recall": recall}
        wanted = "".join(f", t.{_sql(name)}" for name in columns)
        join = "JOIN items t ON t.id = n.rowid" if columns else ""
        self.sql = f"SELECT n.query, n.rowid, n.distance{wanted} FROM {search} n {join} ORDER BY 1, 3, 2"
        self.options = json.dumps(options)

    def search(self, vectors: list[bytes], limits: list[float]) -> list[list[tuple[Any, ...]]]:
        """For each query its rows (id, distance, ...), nearest first, none beyond its limit."""
        found: list[list[tuple[Any, ...]]] = [[] for _ in vectors]
        for start in range(0, len(vectors), AT_ONCE):
            some = b"".join(vectors[start : start + AT_ONCE])
            for query, *row in self.db.execute(self.sql, (some, self.k, self.options)):
                if row[1] <= limits[start + query]:
                    found[start + query].append(tuple(row))
        return found


def _search(
    batches: Iterator[Any], shards: Shards, k: int, exact: bool, recall: float, columns: tuple[str, ...]
) -> Iterator[Any]:
    import pyarrow as pa

    types = {"INTEGER": pa.int64(), "BOOLEAN": pa.bool_(), "REAL": pa.float64(), "TEXT": pa.string(), "BLOB": pa.binary()}
    fields = [("id", pa.int64()), ("distance", pa.float64()), *((name, types[shards.columns[name]]) for name in columns)]
    booleans = [i for i, (_, kind) in enumerate(fields) if kind == pa.bool_()]
    shard: Optional[_Shard] = None
    last: Any = object()
    for batch in batches:
        for number, part in runs(batch):
            if number == DONE:
                yield part.select(ANSWER)
                continue
            if shard is None or shard.number != number:
                if shard is not None:
                    shard.db.close()
                shard, last = _Shard(shards, number, k, exact, recall, columns), object()
            for query in part["query"].to_pylist():
                if query == last:
                    raise ValueError(f"query {query!r} {TWICE}")
                last = query
            found = shard.search(part["vector"].to_pylist(), part["limit"].to_pylist())
            rows = [row for rows in found for row in rows]
            values = [list(value) for value in zip(*rows)] or [[] for _ in fields]
            for i in booleans:
                values[i] = [None if value is None else bool(value) for value in values[i]]
            struct = pa.StructArray.from_arrays(
                [pa.array(value, kind) for value, (_, kind) in zip(values, fields)], [name for name, _ in fields]
            )
            offsets = pa.array(np.cumsum([0, *map(len, found)]), pa.int32())
            arrays = [part["query"], part["vector"], part[SHARD], part["limit"], pa.ListArray.from_arrays(offsets, struct)]
            yield pa.RecordBatch.from_arrays(arrays, ANSWER)
    if shard is not None:
        shard.db.close()
