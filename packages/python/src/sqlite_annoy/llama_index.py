"""A vector store of LlamaIndex in an SQLite database.

    from llama_index.core import StorageContext, VectorStoreIndex
    from sqlite_annoy.llama_index import SQLiteAnnoyVectorStore

    store = SQLiteAnnoyVectorStore("notes.db")
    index = VectorStoreIndex.from_documents(documents, StorageContext.from_defaults(vector_store=store))
    again = VectorStoreIndex.from_vector_store(SQLiteAnnoyVectorStore("notes.db"))
"""
from __future__ import annotations

import json
import re
from typing import Any, Optional, Sequence

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from ._connect import connect
from ._stores import METRICS, VALUE, diverse, quoted
from ._vectors import serialize_float32

# What each operator means of the metadata at :key, as LlamaIndex means it: a value that is missing is different from all
# others, and in no other relation to them. A list holds its elements, a single value itself.
_ONE = "json_extract(:wanted, '$')"
_ORDERED = f"(typeof({VALUE}) = 'text') = (typeof({_ONE}) = 'text') AND {VALUE}"
_HELD = (
    "SELECT 1 FROM json_each(d.metadata) AS entry JOIN "
    "json_each(CASE entry.type WHEN 'array' THEN entry.value ELSE json_array(entry.value) END) AS held ON entry.key = :key"
)
_AMONG = f"EXISTS (SELECT 1 FROM json_each(:wanted) AS wanted WHERE wanted.value = {VALUE})"
_OPERATORS = {
    FilterOperator.EQ: f"{VALUE} = {_ONE}",
    FilterOperator.NE: f"coalesce({VALUE} <> {_ONE}, 1)",
    FilterOperator.GT: f"{_ORDERED} > {_ONE}",
    FilterOperator.LT: f"{_ORDERED} < {_ONE}",
    FilterOperator.GTE: f"{_ORDERED} >= {_ONE}",
    FilterOperator.LTE: f"{_ORDERED} <= {_ONE}",
    FilterOperator.IN: _AMONG,
    FilterOperator.NIN: f"NOT {_AMONG}",
    FilterOperator.ANY: f"EXISTS ({_HELD} JOIN json_each(:wanted) AS wanted ON wanted.value = held.value)",
    FilterOperator.ALL: f"{VALUE} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM json_each(:wanted) AS wanted "
    f"WHERE NOT EXISTS ({_HELD} WHERE held.value = wanted.value))",
    FilterOperator.CONTAINS: f"EXISTS ({_HELD} WHERE held.value = {_ONE})",
    FilterOperator.TEXT_MATCH: f"instr({VALUE}, {_ONE}) > 0",
    FilterOperator.TEXT_MATCH_INSENSITIVE: f"instr(lower({VALUE}), lower({_ONE})) > 0",
    FilterOperator.IS_EMPTY: f"coalesce({VALUE}, '') IN ('', '[]')",
}
_TAKE_LISTS = (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL)
_TAKE_TEXT = (FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE)


class SQLiteAnnoyVectorStore(BasePydanticVectorStore):
    """Nodes, their metadata and vectors in a table, and an index that follows it.

    The table ``<table>(id INTEGER PRIMARY KEY, node_id TEXT UNIQUE, ref_doc_id TEXT, text TEXT, metadata TEXT, vector BLOB)`` and
    the index ``<table>_index`` are ordinary: SQL may join, filter and change them. New rows are found at once; ``refresh``
    takes many of them into the index. A node that is added again replaces what was there.

    Filters of metadata may be nested and have every operator. A query answers with as many nodes as it asks for, if the filter
    leaves as many. Its similarities are ``1 - distance / 2`` (cosine: from 0, opposite, to 1, alike), ``1 / (1 + distance)`` (l2),
    or the product (dot); more is nearer.
    """

    stores_text: bool = True
    flat_metadata: bool = False
    path: str = ":memory:"
    table: str = "nodes"
    metric: str = "cosine"

    _db: Any = PrivateAttr()
    _name: str = PrivateAttr()
    _index: str = PrivateAttr()

    def __init__(self, path: str = ":memory:", table: str = "nodes", metric: str = "cosine", **kwargs: Any) -> None:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}: expected one of {', '.join(METRICS)}")
        super().__init__(**{**kwargs, "path": path, "table": table, "metric": metric})
        self._name = quoted(table)
        self._index = f"{table}_index"
        self._db = connect(path)
        self._db.execute(
            f"CREATE TABLE IF NOT EXISTS {self._name}(id INTEGER PRIMARY KEY, node_id TEXT NOT NULL UNIQUE, ref_doc_id TEXT, "
            "text TEXT NOT NULL, metadata TEXT NOT NULL, vector BLOB NOT NULL)"
        )
        self._db.execute(f"CREATE INDEX IF NOT EXISTS {quoted(table + '_ref_doc_id')} ON {self._name}(ref_doc_id)")
        self._db.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS {quoted(self._index)} USING annoy({self._name}, vector, metric={metric})"
        )

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex stores what it is."""
        return "SQLiteAnnoyVectorStore"

    @property
    def client(self) -> Any:
        """The connection, with the extension loaded."""
        return self._db

    # Writing.

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Adds nodes that have embeddings, all of them or none. Returns their ids."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for node in nodes:
                metadata = node_to_metadata_dict(node, remove_text=True)
                self._db.execute(
                    f"INSERT INTO {self._name}(node_id, ref_doc_id, text, metadata, vector) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT(node_id) DO UPDATE SET ref_doc_id = excluded.ref_doc_id, text = excluded.text, "
                    "metadata = excluded.metadata, vector = excluded.vector",
                    (
                        node.node_id,
                        node.ref_doc_id,
                        node.get_content(metadata_mode=MetadataMode.NONE),
                        json.dumps(metadata, allow_nan=False),
                        serialize_float32(node.get_embedding()),
                    ),
                )
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Deletes the nodes of a document; one that is not there is no error."""
        self._db.execute(f"DELETE FROM {self._name} WHERE ref_doc_id = ?", (ref_doc_id,))

    def delete_nodes(
        self, node_ids: Optional[list[str]] = None, filters: Optional[MetadataFilters] = None, **delete_kwargs: Any
    ) -> None:
        """Deletes the nodes that have one of these ids and pass the filters. With neither, none."""
        if node_ids is not None or filters is not None:
            where, values = self._where(node_ids, None, filters)
            self._db.execute(f"DELETE FROM {self._name} AS d WHERE {where}", values)

    def clear(self) -> None:
        """Deletes all nodes."""
        self._db.execute(f"DELETE FROM {self._name}")

    def refresh(self) -> None:
        """Takes what has changed into the index."""
        name = quoted(self._index)
        self._db.execute(f"INSERT INTO {name}({name}) VALUES ('refresh')")

    # Reading.

    def get_nodes(
        self, node_ids: Optional[list[str]] = None, filters: Optional[MetadataFilters] = None
    ) -> list[BaseNode]:
        """The nodes that have one of these ids and pass the filters, in the order in which they were added."""
        where, values = self._where(node_ids, None, filters)
        rows = self._db.execute(f"SELECT d.text, d.metadata FROM {self._name} AS d WHERE {where} ORDER BY d.id", values)
        return [_node(*row) for row in rows]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to an embedding; in mode ``mmr`` ones that differ from each other, too."""
        if query.query_embedding is None:
            raise ValueError("the query has no embedding: expected VectorStoreQuery(query_embedding=...)")
        vector = serialize_float32(query.query_embedding)
        # An index made from a store asks with an empty list of ids, and means all.
        where, values = self._where(query.node_ids or None, query.doc_ids or None, query.filters)
        is_mmr = query.mode == VectorStoreQueryMode.MMR
        if not is_mmr and query.mode != VectorStoreQueryMode.DEFAULT:
            raise ValueError(f"mode {query.mode.value!r} of a query is not there: expected default or mmr")
        k = query.similarity_top_k
        candidates = max(k, kwargs.get("mmr_prefetch_k") or 4 * k) if is_mmr else k
        rows = self._db.execute(
            f"SELECT d.node_id, d.text, d.metadata, n.distance{', d.vector' if is_mmr else ''} "
            f"FROM knn_annoy(?, ?) AS n JOIN {self._name} AS d ON d.id = n.rowid WHERE {where} LIMIT ?",
            (self._index, vector, *values, candidates),
        )
        found = list(rows)
        if is_mmr:
            balance = 0.5 if query.mmr_threshold is None else query.mmr_threshold
            chosen = diverse(self._db, self.metric, [(row[4], row[3]) for row in found], k, balance)
            found = [found[i][:4] for i in chosen]
        return VectorStoreQueryResult(
            nodes=[_node(text, metadata) for _, text, metadata, _ in found],
            similarities=[self._similarity(distance) for *_, distance in found],
            ids=[key for key, *_ in found],
        )

    def _similarity(self, distance: float) -> float:
        if self.metric == "cosine":
            return 1.0 - distance / 2.0
        return 1.0 / (1.0 + distance) if self.metric == "l2" else -distance

    def _where(
        self, node_ids: Optional[list[str]], doc_ids: Optional[list[str]], filters: Optional[MetadataFilters]
    ) -> tuple[str, list[Any]]:
        """A condition on the row `d`, and the values of its parameters."""
        terms, values = ["1"], []
        for column, wanted in (("node_id", node_ids), ("ref_doc_id", doc_ids)):
            if wanted is not None:
                terms.append(f"d.{column} IN (SELECT value FROM json_each(?))")
                values.append(json.dumps(wanted))
        if filters is not None and filters.filters:
            term, more = _filters(filters)
            terms.append(term)
            values += more
        return " AND ".join(terms), values


def _node(text: str, metadata: str) -> BaseNode:
    return metadata_dict_to_node(json.loads(metadata), text=text)


def _filters(filters: MetadataFilters) -> tuple[str, list[Any]]:
    """Filters in SQL, and the values of its parameters."""
    terms: list[str] = []
    values: list[Any] = []
    for one in filters.filters:
        term, more = _filters(one) if isinstance(one, MetadataFilters) else _filter(one)
        terms.append(f"coalesce({term}, 0)")
        values += more
    if not terms:
        return "1", []
    if filters.condition == FilterCondition.NOT:
        return f"NOT ({' OR '.join(terms)})", values
    return "(" + (" OR " if filters.condition == FilterCondition.OR else " AND ").join(terms) + ")", values


def _filter(one: MetadataFilter) -> tuple[str, list[Any]]:
    for operators, kind, name in ((_TAKE_LISTS, list, "a list"), (_TAKE_TEXT, str, "a text")):
        if one.operator in operators and not isinstance(one.value, kind):
            raise ValueError(f"filter {one.operator.value!r} of {one.key!r}: expected {name}, got {one.value!r}")
    given = {":key": one.key, ":wanted": json.dumps(one.value)}
    values: list[Any] = []

    def bind(name: re.Match[str]) -> str:
        values.append(given[name[0]])
        return "?"

    return re.sub(":key|:wanted", bind, _OPERATORS[one.operator]), values
