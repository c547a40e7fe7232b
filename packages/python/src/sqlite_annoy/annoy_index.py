"""The API of Annoy over a database file: for code that has ``from annoy import AnnoyIndex``."""
from __future__ import annotations

import json
import math
import os
import sys
from array import array
from typing import Any, Literal, Optional, Union, overload

from ._connect import connect
from ._vectors import Vector, deserialize_float32, serialize_float32

Metric = Literal["angular", "euclidean", "manhattan", "hamming", "dot"]

# Annoy's metric: that of the index (None: there is no index, and searches are exact), its SQL function, and how Annoy gives the
# distance. Bits are components 0 and 1, whose squared l2 distance is the number that differ.
_METRICS: dict[str, tuple[Optional[str], str, str, Any]] = {
    "angular": ("cosine", "cosine", "vec_distance_cosine", lambda d: math.sqrt(max(0.0, 2.0 * d))),
    "euclidean": ("l2", "l2", "vec_distance_l2", lambda d: d),
    "manhattan": (None, "l1", "vec_distance_l1", lambda d: d),
    "hamming": ("l2", "l2", "vec_distance_l2", lambda d: float(round(d * d))),
    "dot": ("dot", "dot", "-vec_dot", lambda d: -d),
}
_DEFAULT_TREES = 10
_LARGEST_ITEM = 2**31 - 2


class AnnoyIndex:
    """Nearest neighbours with the methods of Annoy.

    What differs from Annoy:

    * ``save`` writes an SQLite database, with the tables ``items(id, vector)`` and ``items_index``, which SQL can use as well, and
      a file of the index beside it. ``load`` opens such a database, and files that Annoy saved. ``save_annoy`` writes a file that Annoy loads.
    * Without ``search_k`` a search looks at as much as it needs to find .95 of the neighbours, whatever the number of trees.
      Small indexes, those of manhattan, and those that are not built yet are searched exactly.
    * Items can be added after ``build`` as well, and are found at once.
    * A damaged file is an error, or is answered from the table, and never ends the process.
    """

    f: int

    def __init__(self, f: int, metric: Metric = "angular") -> None:
        if metric not in _METRICS:
            raise ValueError(f"No such metric: {metric!r}; expected one of {', '.join(_METRICS)}")
        if f < 1:
            raise ValueError(f"f = {f}: expected the number of components of a vector")
        self.f = f
        self._metric: str = metric
        self._index_metric, self._exact_metric, self._function, self._shown = _METRICS[metric]
        self._seed = 1
        self._verbose = False
        self._reset()

    def _reset(self) -> None:
        self._database: Any = None
        self._is_loaded = False
        self._n_trees = 0
        self._n_items = 0
        self._is_filling = False
        # Of the database that on_disk_build made.
        self._path: Optional[str] = None

    # Filling.

    @property
    def _db(self) -> Any:
        if self._database is None:
            self._create("")
        return self._database

    def _create(self, path: str) -> None:
        self._database = connect(path)
        for sql in (
            "CREATE TABLE items(id INTEGER PRIMARY KEY, vector BLOB)",
            "CREATE TABLE annoy_settings(key TEXT PRIMARY KEY, value)",
        ):
            self._database.execute(sql)

    def _row(self, sql: str, *values: Any) -> Any:
        for row in self._db.execute(sql, values):
            return row
        return None

    def _blob(self, vector: Vector) -> Union[bytes, memoryview]:
        if len(vector) != self.f:
            raise IndexError(f"Vector has wrong length (expected {self.f}, got {len(vector)})")
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(vector, numpy.ndarray):
            if self._metric == "hamming":
                return serialize_float32(numpy.asarray(vector > 0.5, dtype="<f4"))
            return serialize_float32(numpy.asarray(vector, dtype="<f4"))
        values = array("f", (vector[i] for i in range(self.f)))
        if self._metric == "hamming":
            values = array("f", (1.0 if x > 0.5 else 0.0 for x in values))
        return serialize_float32(values)

    def add_item(self, i: int, vector: Vector) -> None:
        """Adds item ``i`` >= 0, or changes its vector."""
        if self._is_loaded:
            raise RuntimeError("You can't add an item to a loaded index")
        if not 0 <= i <= _LARGEST_ITEM:
            raise IndexError(f"Item index {i}: expected 0 to {_LARGEST_ITEM}")
        blob = self._blob(vector)
        if not self._is_filling:
            self._db.execute("BEGIN")
            self._is_filling = True
        self._db.execute("INSERT OR REPLACE INTO items(id, vector) VALUES (?, ?)", (i, blob))
        self._n_items = max(self._n_items, i + 1)

    def build(self, n_trees: int, n_jobs: int = -1) -> Literal[True]:
        """Builds the index on ``n_jobs`` threads (-1: all). The number of trees matters to searches with ``search_k`` only."""
        if self._is_loaded:
            raise RuntimeError("You can't build a loaded index")
        if self._n_trees:
            raise RuntimeError("You can't build a built index")
        trees = n_trees if n_trees > 0 else _DEFAULT_TREES
        db = self._db
        if self._index_metric:
            db.execute(
                f"CREATE VIRTUAL TABLE items_index USING annoy(items, vector, metric={self._index_metric}, trees={trees}, "
                f"seed={self._seed}, threads={max(0, n_jobs)})"
            )
        settings = {"f": self.f, "metric": self._metric, "trees": trees, "items": self._n_items}
        for pair in settings.items():
            db.execute("INSERT INTO annoy_settings(key, value) VALUES (?, ?)", pair)
        self._end_filling()
        self._n_trees = trees
        return True

    def _end_filling(self) -> None:
        if self._is_filling:
            # Items may be added to an index that is built: it follows its table.
            self._db.execute("UPDATE annoy_settings SET value = ? WHERE key = 'items'", (self._n_items,))
            self._db.execute("COMMIT")
            self._is_filling = False

    def unbuild(self) -> Literal[True]:
        """Removes the index, so that items can be added."""
        if self._is_loaded:
            raise RuntimeError("You can't unbuild a loaded index")
        if self._n_trees:
            if self._index_metric:
                self._db.execute("DROP TABLE items_index")
            self._db.execute("DELETE FROM annoy_settings")
            self._n_trees = 0
        return True

    def on_disk_build(self, fn: str) -> Literal[True]:
        """Builds in this database, which is made anew, instead of in a temporary one."""
        if self._database is not None:
            raise RuntimeError("on_disk_build must come before the first item")
        self._remove(fn)
        try:
            self._create(fn)
        except Exception as error:
            raise OSError(f"Unable to open {fn!r}: {error}") from error
        self._path = os.path.abspath(fn)
        return True

    # Files.

    @staticmethod
    def _remove(fn: str) -> None:
        """Removes a database, with its index."""
        for name in (fn, f"{fn}-journal", f"{fn}-wal", f"{fn}-shm"):
            if os.path.exists(name):
                os.remove(name)

    def save(self, fn: str, prefault: bool = False) -> Literal[True]:
        """Saves to a database file and loads it. A file of that name is replaced."""
        if not self._n_trees:
            raise OSError("You can't save an index that hasn't been built")
        if not fn:
            raise OSError("Unable to open: the name is empty")
        fn = os.fspath(fn)
        self._end_filling()
        if self._path == os.path.abspath(fn):
            return True
        partial = f"{fn}.partial-{os.getpid()}"
        try:
            self._db.execute("VACUUM INTO ?", (partial,))
            self._remove(fn)
            os.replace(partial, fn)
            if self._index_metric:
                copy = connect(fn)
                # The copy has no file of the index yet.
                copy.execute("INSERT INTO items_index(items_index) VALUES ('rebuild')")
                copy.close()
        except Exception as error:
            if os.path.exists(partial):
                os.remove(partial)
            raise OSError(f"Unable to save to {fn!r}: {error}") from error
        return self.load(fn, prefault)

    def save_annoy(self, fn: str) -> Literal[True]:
        """Writes a file that the annoy package loads, replacing one of that name."""
        if not self._n_trees:
            raise OSError("You can't save an index that hasn't been built")
        if not self._index_metric:
            raise OSError(f"there is no index of metric {self._metric} to write; save() writes a database")
        options = json.dumps({"metric": self._metric, "trees": self._n_trees, "replace": True})
        try:
            self._row("SELECT annoy_export('items_index', ?, ?)", os.fspath(fn), options)
        except Exception as error:
            raise OSError(f"Unable to save to {fn!r}: {error}") from error
        return True

    def load(self, fn: str, prefault: bool = False) -> Literal[True]:
        """Opens what ``save`` wrote, or what Annoy saved with this dimension and metric (which is read into a temporary database).

        ``prefault`` reads the vectors once, so that they are in memory.
        """
        fn = os.fspath(fn)
        with open(fn, "rb") as file:
            is_database = file.read(16) == b"SQLite format 3\0"
        self.unload()
        try:
            if is_database:
                self._load_database(fn)
            else:
                self._load_annoy(fn)
        except OSError:
            self.unload()
            raise
        except Exception as error:
            self.unload()
            raise OSError(f"Unable to load {fn!r}: {error}") from error
        self._is_loaded = True
        if prefault:
            self._row("SELECT sum(length(vector)) FROM items")
        return True

    def _load_database(self, fn: str) -> None:
        self._database = connect(fn, read_only=True)
        settings = dict(self._database.execute("SELECT key, value FROM annoy_settings"))
        if (settings.get("f"), settings.get("metric")) != (self.f, self._metric):
            raise OSError(
                f"{fn!r} has f = {settings.get('f')} and metric {settings.get('metric')!r}, expected {self.f} and {self._metric!r}"
            )
        self._n_trees, self._n_items = settings["trees"], settings["items"]

    def _load_annoy(self, fn: str) -> None:
        self._database = connect("")
        summary = json.loads(
            self._row("SELECT annoy_import(?, ?, ?, '{\"table\":\"items\"}')", os.path.abspath(fn), self.f, self._metric)[0]
        )
        self._n_trees = summary["trees_in_file"]
        self._n_items = self._row("SELECT coalesce(max(id) + 1, 0) FROM items")[0]

    def unload(self) -> Literal[True]:
        """Forgets everything; what was saved stays."""
        if self._database is not None:
            self._database.close()
        self._reset()
        return True

    # Asking.

    def _check_item(self, i: int) -> None:
        if not 0 <= i < self._n_items:
            raise IndexError(f"Item index {i}: expected 0 to {self._n_items - 1}")

    def _vector(self, i: int) -> bytes:
        self._check_item(i)
        row = self._row("SELECT vector FROM items WHERE id = ?", i)
        # As in Annoy: a number that has no item is all zeros.
        return row[0] if row else bytes(4 * self.f)

    def _search(self, blob: Any, n: int, search_k: int, include_distances: bool) -> Any:
        found: list[tuple[int, float]] = []
        if n > 0 and self._n_items:
            if self._n_trees and self._index_metric:
                sql = "SELECT rowid, distance FROM knn_annoy('items_index', ?, ?, ?)"
                values: tuple[Any, ...] = (blob, n, search_k if search_k > 0 else None)
            else:
                sql = "SELECT rowid, distance FROM knn_exact('items', 'vector', ?, ?, ?)"
                values = (blob, n, json.dumps({"metric": self._exact_metric}))
            found = list(self._db.execute(sql, values))
        items = [item for item, _ in found]
        if include_distances:
            return items, [self._shown(distance) for _, distance in found]
        return items

    @overload
    def get_nns_by_item(
        self, i: int, n: int, search_k: int = ..., include_distances: Literal[False] = ...
    ) -> list[int]: ...
    @overload
    def get_nns_by_item(
        self, i: int, n: int, search_k: int = ..., *, include_distances: Literal[True]
    ) -> tuple[list[int], list[float]]: ...
    @overload
    def get_nns_by_item(
        self, i: int, n: int, search_k: int, include_distances: Literal[True]
    ) -> tuple[list[int], list[float]]: ...
    @overload
    def get_nns_by_item(
        self, i: int, n: int, search_k: int = ..., include_distances: bool = ...
    ) -> Union[list[int], tuple[list[int], list[float]]]: ...
    def get_nns_by_item(self, i: int, n: int, search_k: int = -1, include_distances: bool = False) -> Any:
        """The ``n`` items nearest to item ``i``, itself among them; with ``include_distances`` a pair of lists."""
        return self._search(self._vector(i), n, search_k, include_distances)

    @overload
    def get_nns_by_vector(
        self, vector: Vector, n: int, search_k: int = ..., include_distances: Literal[False] = ...
    ) -> list[int]: ...
    @overload
    def get_nns_by_vector(
        self, vector: Vector, n: int, search_k: int = ..., *, include_distances: Literal[True]
    ) -> tuple[list[int], list[float]]: ...
    @overload
    def get_nns_by_vector(
        self, vector: Vector, n: int, search_k: int, include_distances: Literal[True]
    ) -> tuple[list[int], list[float]]: ...
    @overload
    def get_nns_by_vector(
        self, vector: Vector, n: int, search_k: int = ..., include_distances: bool = ...
    ) -> Union[list[int], tuple[list[int], list[float]]]: ...
    def get_nns_by_vector(
        self, vector: Vector, n: int, search_k: int = -1, include_distances: bool = False
    ) -> Any:
        """The ``n`` items nearest to a vector; with ``include_distances`` a pair of lists."""
        return self._search(self._blob(vector), n, search_k, include_distances)

    def get_item_vector(self, i: int) -> list[float]:
        """The components of item ``i``."""
        return deserialize_float32(self._vector(i))

    def get_distance(self, i: int, j: int) -> float:
        """The distance of two items; of metric dot their inner product, as in Annoy."""
        a, b = self._vector(i), self._vector(j)
        return float(self._shown(self._row(f"SELECT {self._function}(?, ?)", a, b)[0]))

    def get_n_items(self) -> int:
        """One more than the largest item."""
        return self._n_items

    def get_n_trees(self) -> int:
        """Number of trees, 0 before ``build``."""
        return self._n_trees

    def verbose(self, v: bool) -> Literal[True]:
        """Shows a progress bar for long builds on stderr."""
        self._verbose = bool(v)
        self._row("SELECT annoy_progress(?)", "stderr" if v else "off")
        return True

    def set_seed(self, s: int) -> None:
        """The seed of the next build. The same items and seed give the same index."""
        self._seed = int(s)
