"""Text to vectors, and vectors to nearest neighbours, in SQL: the SQLite extension sqlite-annoy.

    >>> import sqlite3, sqlite_annoy
    >>> db = sqlite3.connect(":memory:")
    >>> sqlite_annoy.load(db)
    >>> db.execute("SELECT vec_distance_l2('[1, 2]', '[4, 6]')").fetchone()
    (5.0,)
"""
from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ._load import ExtensionsUnavailable, load, loadable_path
from ._vectors import deserialize_float32, serialize_float32, serialize_int8, to_numpy
from .annoy_index import AnnoyIndex

try:
    __version__ = version("sqlite-annoy")
except PackageNotFoundError:  # from a source tree
    __version__ = "unknown"

__all__ = [
    "AnnoyIndex",
    "ExtensionsUnavailable",
    "deserialize_float32",
    "load",
    "loadable_path",
    "serialize_float32",
    "serialize_int8",
    "to_numpy",
]
