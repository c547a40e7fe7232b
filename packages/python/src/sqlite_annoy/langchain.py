"""A vector store of LangChain in an SQLite database.

    from sqlite_annoy.langchain import SQLiteAnnoy

    store = SQLiteAnnoy(embedding, "notes.db")
    store.add_texts(["the moon at night", "bread and butter"])
    store.similarity_search("sky", k=1)
"""
from __future__ import annotations

import json
import uuid
from typing import Any, Callable, Iterable, Optional, Sequence

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from ._connect import connect
from ._stores import METRICS, VALUE, diverse, quoted
from ._vectors import deserialize_float32, serialize_float32

_EQUAL = f"{VALUE.replace(':key', '?')} IS json_extract(?, '$')"


def _filter(wanted: Optional[dict[str, Any]]) -> tuple[str, list[Any]]:
    """A condition on the row `d`, and the values of its parameters."""
    if wanted is not None and not isinstance(wanted, dict):
        raise TypeError(f"filter: expected a dict of metadata that must be equal, got {type(wanted).__name__}")
    terms, values = ["1"], []
    for key, value in (wanted or {}).items():
        if key.startswith("$") or isinstance(value, dict) and any(str(name).startswith("$") for name in value):
            raise ValueError(f"filter of {key!r}: expected a value that must be equal; there are no operators, got {value!r}")
        terms.append(_EQUAL)
        values += [key, json.dumps(value)]
    return " AND ".join(terms), values


class SQLiteAnnoy(VectorStore):
    """Documents, their metadata and vectors in a table, and an index that follows it.

    The table ``<table>(id INTEGER PRIMARY KEY, document_id TEXT UNIQUE, text TEXT, metadata TEXT, vector BLOB)`` and the index
    ``<table>_index`` are ordinary: SQL may join, filter and change them. New rows are found at once; ``refresh`` or a
    ``'rebuild'`` in SQL takes many of them into the index.

    A ``filter`` of a search is a dict of metadata that must be equal.
    """

    def __init__(
        self, embedding: Embeddings, path: str = ":memory:", table: str = "documents", metric: str = "cosine"
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: expected one of {', '.join(METRICS)}")
        self._embedding = embedding
        self._metric = metric
        self._index = f"{table}_index"
        self._table = quoted(table)
        self._db = connect(path)
        self._db.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table}(id INTEGER PRIMARY KEY, document_id TEXT NOT NULL UNIQUE, "
            "text TEXT NOT NULL, metadata TEXT NOT NULL, vector BLOB NOT NULL)"
        )
        self._db.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {quoted(self._index)} USING annoy({self._table}, vector, metric={metric})"
        )

    @property
    def embeddings(self) -> Embeddings:
        """What makes vectors of texts."""
        return self._embedding

    # Writing.

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Optional[list[dict[str, Any]]] = None,
        *,
        ids: Optional[list[str]] = None,
        **kwargs: Any,
    ) -> list[str]:
        """Adds texts, or replaces those whose ids are there; all of them or none. Returns their ids."""
        texts = list(texts)
        vectors = self._embedding.embed_documents(texts) if texts else []
        return self._add(texts, vectors, metadatas, ids)

    def _add(
        self,
        texts: Sequence[str],
        vectors: Sequence[Sequence[float]],
        metadatas: Optional[Sequence[dict[str, Any]]],
        ids: Optional[Sequence[Optional[str]]],
    ) -> list[str]:
        for name, given in (("metadatas", metadatas), ("ids", ids)):
            if given is not None and len(given) != len(texts):
                raise ValueError(f"{len(given)} {name} for {len(texts)} texts")
        keys = [key or str(uuid.uuid4()) for key in (ids or [None] * len(texts))]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for key, text, vector, metadata in zip(keys, texts, vectors, metadatas or [{}] * len(texts)):
                self._db.execute(
                    f"INSERT INTO {self._table}(document_id, text, metadata, vector) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT(document_id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata, "
                    "vector = excluded.vector",
                    (key, text, json.dumps(metadata or {}, allow_nan=False), serialize_float32(vector)),
                )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return keys

    def delete(self, ids: Optional[list[str]] = None, **kwargs: Any) -> Optional[bool]:
        """Deletes documents; ids that are not there are no error. Without ``ids``, all."""
        if ids is None:
            self._db.execute(f"DELETE FROM {self._table}")
        else:
            self._db.execute(
                f"DELETE FROM {self._table} WHERE document_id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
            )
        return True

    def refresh(self) -> None:
        """Takes what has changed into the index."""
        name = quoted(self._index)
        self._db.execute(f"INSERT INTO {name}({name}) VALUES ('refresh')")

    # Reading.

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids that are there, in the order asked for."""
        rows = self._db.execute(
            f"SELECT d.document_id, d.text, d.metadata FROM json_each(?) AS wanted JOIN {self._table} AS d "
            "ON d.document_id = wanted.value ORDER BY wanted.key",
            (json.dumps(list(ids)),),
        )
        return [self._document(*row) for row in rows]

    @staticmethod
    def _document(key: str, text: str, metadata: str) -> Document:
        return Document(id=key, page_content=text, metadata=json.loads(metadata))

    def _nearest(
        self, vector: Sequence[float], k: int, filter: Optional[dict[str, Any]]
    ) -> list[tuple[Document, float]]:
        return [(self._document(*row[:3]), row[3]) for row in self._rows(vector, k, filter)]

    def _rows(self, vector: Sequence[float], k: int, filter: Optional[dict[str, Any]]) -> list[tuple[Any, ...]]:
        where, values = _filter(filter)
        return list(
            self._db.execute(
                "SELECT d.document_id, d.text, d.metadata, n.distance, d.vector "
                f"FROM knn_annoy(?, ?) AS n JOIN {self._table} AS d ON d.id = n.rowid WHERE {where} LIMIT ?",
                (self._index, serialize_float32(vector), *values, k),
            )
        )

    def similarity_search(
        self, query: str, k: int = 4, filter: Optional[dict[str, Any]] = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` documents nearest to a text."""
        return self.similarity_search_by_vector(self._embedding.embed_query(query), k, filter)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Optional[dict[str, Any]] = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` documents nearest to a vector."""
        return [document for document, _ in self._nearest(embedding, k, filter)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Optional[dict[str, Any]] = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The ``k`` documents nearest to a text, with their distances (smaller is nearer)."""
        return self._nearest(self._embedding.embed_query(query), k, filter)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._metric == "cosine":
            return lambda distance: 1.0 - distance / 2.0
        if self._metric == "l2":
            return lambda distance: 1.0 / (1.0 + distance)
        return lambda distance: -distance

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Optional[dict[str, Any]] = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` documents near a text and different from each other, of the ``fetch_k`` nearest that pass the filter."""
        return self.max_marginal_relevance_search_by_vector(
            self._embedding.embed_query(query), k, fetch_k, lambda_mult, filter
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Optional[dict[str, Any]] = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` documents near a vector and different from each other, of the ``fetch_k`` nearest that pass the filter."""
        found = self._rows(embedding, max(k, fetch_k), filter)
        chosen = diverse(self._db, self._metric, [(row[4], row[3]) for row in found], k, lambda_mult)
        return [self._document(*found[i][:3]) for i in chosen]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: Optional[list[dict[str, Any]]] = None,
        *,
        ids: Optional[list[str]] = None,
        path: str = ":memory:",
        table: str = "documents",
        metric: str = "cosine",
        **kwargs: Any,
    ) -> "SQLiteAnnoy":
        """A store of these texts."""
        store = cls(embedding, path, table, metric)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def vector_of(self, document_id: str) -> Optional[list[float]]:
        """The vector of a document."""
        for (blob,) in self._db.execute(f"SELECT vector FROM {self._table} WHERE document_id = ?", (document_id,)):
            return deserialize_float32(blob)
        return None
