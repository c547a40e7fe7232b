"""What has been published: the manifest, and how near a shard's rows can be to a query.

``manifest.json`` in the folder of the shards names one folder for each, so a reader sees all shards of one write or none.
A shard that was written by centroid has its ``centroid``, which is the nearest one of all its rows, and the ``radius`` that holds
them: angles in radians for cosine, l2 for the others. The triangle inequality, and the plane half way to another centroid, then give
a distance that no row of the shard falls below.
"""
from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np

MANIFEST = "manifest.json"
FORMAT = 1
METRICS = ("cosine", "l2", "dot")

# Bounds and distances are sums of float64 whose last bits differ; this is far above that, and far below what prunes.
SLACK = 1e-7


@dataclass(frozen=True)
class Shard:
    folder: str
    rows: int
    centroid: Optional[list[float]] = None
    radius: Optional[float] = None
    # Whether it has vectors of zeros, whose cosine distance to everything is 1.
    zeros: bool = False


@dataclass(frozen=True)
class Shards:
    """The shards of one write, as ``write_shards`` and ``open_shards`` give them. They can be sent to executors."""

    path: str
    metric: str
    dim: int
    # Names and SQL types of the columns beside id and vector.
    columns: dict[str, str]
    shards: list[Shard] = field(repr=False)

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def __len__(self) -> int:
        return len(self.shards)

    def database(self, number: int) -> str:
        """The path of a shard's database: table ``items``, index ``items_index``."""
        return database(self.path, self.shards[number].folder)

    @property
    def by_centroid(self) -> bool:
        return bool(self.shards) and self.shards[0].centroid is not None

    def _centroids(self) -> Any:
        return np.array([shard.centroid for shard in self.shards])

    def nearest(self, queries: Any) -> Any:
        """The number of the shard whose centroid is nearest, for each query."""
        if self.metric == "dot":
            return (queries @ self._centroids().T).argmax(axis=1)
        return distances(queries, self._centroids(), self.metric).argmin(axis=1)

    def bounds(self, queries: Any) -> Any:
        """No row of shard j is nearer to query i than [i, j] says. Queries are rows of float64."""
        centroids = self._centroids()
        radii = np.array([shard.radius for shard in self.shards])
        if self.metric == "dot":
            lengths = np.linalg.norm(queries, axis=1)[:, None]
            size = lengths * (np.linalg.norm(centroids, axis=1) + radii)
            return -(queries @ centroids.T) - lengths * radii - SLACK * size
        away = distances(queries, centroids, self.metric)
        if self.metric == "l2":
            ball = away - radii - SLACK * (away + radii)
            return np.maximum(np.maximum(ball, _beyond_plane(away, centroids)), 0)
        ball = 1 - np.cos(np.maximum(away - radii - SLACK, 0)) - SLACK
        # Of unit vectors: a chord c is a cosine distance of c * c / 2.
        chord = np.maximum(_beyond_plane(2 * np.sin(away / 2), centroids), 0)
        near = np.maximum(ball, chord * chord / 2 - SLACK)
        zeros = np.array([shard.zeros for shard in self.shards])
        near = np.where(zeros, np.minimum(near, 1 - SLACK), near)
        # The distance of a query of zeros to everything is 1.
        near[~queries.any(axis=1)] = 0
        return near


def _beyond_plane(away: Any, centroids: Any) -> Any:
    """How far a query is at least from what is nearer to centroid j than to the query's own nearest one; ``away`` is l2.

    Every row is in the shard of its nearest centroid, so the plane half way between the two lies before it.
    """
    own = away.argmin(axis=1)
    nearest = away[np.arange(len(away)), own][:, None]
    gaps = np.linalg.norm(centroids[None] - centroids[:, None], axis=2)[own]
    more, less = away * away, nearest * nearest
    return (more - less - SLACK * (more + less)) / (2 * np.maximum(gaps, 1e-9))


def as_folder(path: Union[str, "os.PathLike[str]"]) -> str:
    """The path as executors can use it too, which run in folders of their own."""
    path = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise ValueError(f"{path} is a URL: expected a folder that the driver and all executors see under one name; mount it")
    return os.path.abspath(path)


def database(path: str, folder: str) -> str:
    return os.path.join(path, folder, "shard.db")


def distances(rows: Any, centroids: Any, metric: str) -> Any:
    """Of each row to each centroid, in the measure of radii: an angle for cosine, else l2. Shape (rows, centroids)."""
    out = np.empty((len(rows), len(centroids)))
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    for j, centroid in enumerate(centroids):
        minus = np.linalg.norm(rows - centroid, axis=1)
        # Of unit vectors; arccos of the product would lose half of the digits of small angles.
        out[:, j] = 2 * np.arctan2(minus, np.linalg.norm(rows + centroid, axis=1)) if metric == "cosine" else minus
    return out


def open_shards(path: Union[str, "os.PathLike[str]"]) -> Shards:
    """The shards that were last published in this folder."""
    path = as_folder(path)
    file = os.path.join(path, MANIFEST)
    try:
        with open(file, encoding="utf-8") as source:
            manifest = json.load(source)
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing: nothing has been published there; write_shards does") from None
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{file} has format {manifest.get('format')!r}: expected {FORMAT}; write the shards again")
    shards = [Shard(**shard) for shard in manifest["shards"]]
    return Shards(path, manifest["metric"], manifest["dim"], manifest["columns"], shards)


def publish(shards: Shards, build: str, overwrite: bool) -> None:
    """Names these shards in the manifest, in one step; readers see the old shards until then.

    ``build`` is their folder, where the manifest is made ready. Without ``overwrite`` the first of several writers counts.
    """
    manifest = {
        "format": FORMAT,
        "metric": shards.metric,
        "dim": shards.dim,
        "rows": shards.rows,
        "columns": shards.columns,
        "shards": [vars(shard) for shard in shards.shards],
    }
    file = os.path.join(shards.path, MANIFEST)
    ready = os.path.join(shards.path, build, MANIFEST)
    with open(ready, "w", encoding="utf-8") as out:
        json.dump(manifest, out)
        out.flush()
        os.fsync(out.fileno())
    if overwrite:
        os.replace(ready, file)
    else:
        _move_where_none_is(ready, file)
    sync_folder(shards.path)


def refuse_published(path: str) -> None:
    """An error if shards are published in this folder."""
    if os.path.lexists(os.path.join(path, MANIFEST)):
        raise FileExistsError(f"shards are published in {path}: choose another folder, or say overwrite=True")


def _move_where_none_is(ready: str, file: str) -> None:
    try:
        # Unlike a rename, a link never replaces what is there.
        os.link(ready, file)
    except FileExistsError:
        refuse_published(os.path.dirname(file))
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without links: two writers that get here in the same moment are not told apart.
        refuse_published(os.path.dirname(file))
        os.replace(ready, file)
    else:
        os.unlink(ready)


def sync_folder(path: str) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
