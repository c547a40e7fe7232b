"""A program as a user would write it, which type checkers must accept in strict mode (`run` asks mypy). It is never run."""
from __future__ import annotations

import sqlite3
from typing import Union

import numpy as np
from numpy.typing import NDArray

import sqlite_annoy
from sqlite_annoy import AnnoyIndex
from sqlite_annoy.gensim import AnnoyIndexer
from sqlite_annoy.langchain import SQLiteAnnoy
from sqlite_annoy.llama_index import SQLiteAnnoyVectorStore

Pair = tuple[list[int], list[float]]


def vectors(db: sqlite3.Connection, row: NDArray[np.float32]) -> NDArray[np.float32]:
    sqlite_annoy.load(db)
    db.execute("SELECT ?, ?, ?", (sqlite_annoy.serialize_float32(row), sqlite_annoy.serialize_float32([1, 2.5]), row))
    blob: bytes = db.execute("SELECT vec_int8(?)", (sqlite_annoy.serialize_int8([1, -2]),)).fetchone()[0]
    numbers: list[float] = sqlite_annoy.deserialize_float32(blob)
    path: str = sqlite_annoy.loadable_path()
    print(path, numbers, sqlite_annoy.__version__)
    return sqlite_annoy.to_numpy(blob, 2)


def annoy(row: NDArray[np.float32], with_distances: bool) -> Union[list[int], Pair]:
    index = AnnoyIndex(f=3, metric="angular")
    index.add_item(0, row)
    index.add_item(1, [1.0, 2.0, 3.0])
    index.add_item(2, (1, 2, 3))
    index.build(10, n_jobs=2)
    items: list[int] = index.get_nns_by_item(0, 2)
    by_keyword: Pair = index.get_nns_by_vector(row, 2, include_distances=True)
    by_place: Pair = index.get_nns_by_vector([1, 2, 3], 2, -1, True)
    print(items, by_keyword, by_place)
    return index.get_nns_by_item(0, 2, include_distances=with_distances)


def stores(store: SQLiteAnnoy, nodes: SQLiteAnnoyVectorStore, indexer: AnnoyIndexer) -> None:
    found: list[str] = [d.page_content for d in store.similarity_search("moon", k=3, filter={"lang": "en"})]
    print(found, nodes.get_nodes(["a"]), indexer.most_similar([1.0, 2.0], 3))
