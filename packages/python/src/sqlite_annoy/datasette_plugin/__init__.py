"""Plugin of Datasette: vectors in SQL, and a page that searches an index: /-/nearest/<database>/<index>.

Whoever may view a table may search its index: by a text, where a model can turn it into a vector, or by "more like this row".

The functions that read or write files, train models or measure are refused on Datasette's connections, because visitors write
SQL there. Settings, in metadata.yaml (of Datasette 1.0: datasette.yaml) under plugins: sqlite-annoy:

    model: words      # the model that makes vectors of texts; without it pages offer "more like this" alone
    allow_all: false  # true: all functions, for a Datasette of your own
"""
from __future__ import annotations

import sqlite3
from typing import Any

from datasette import Forbidden, NotFound, Response, hookimpl
from markupsafe import Markup

from .._load import load

# What visitors must not call: it reads or writes files, writes tables, runs other SQL or takes long.
REFUSED = frozenset(
    "annoy_export annoy_import annoy_memory annoy_progress annoy_read annoy_recall annoy_sweep annoy_time doc2vec_train "
    "evaluate_word_analogies evaluate_word_pairs fasttext_train model_export model_import phrases_train text_lines "
    "vectors_read vectors_write word2vec_train word2vec_update".split()
)

_ROWS = 20
_LONGEST = 300


def _authorise(action: int, first: Any, second: Any, database: Any, trigger: Any) -> int:
    # A function is named by the second value, a table by the first.
    name = {31: second, 20: first}.get(action)
    return sqlite3.SQLITE_DENY if name and name.lower() in REFUSED else sqlite3.SQLITE_OK


@hookimpl
def prepare_connection(conn: Any, database: str, datasette: Any) -> None:
    """Loads the extension, and refuses what visitors must not call."""
    load(conn)
    if not (datasette.plugin_config("sqlite-annoy") or {}).get("allow_all"):
        conn.set_authorizer(_authorise)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def _may_view(datasette: Any, actor: Any, database: str, table: str) -> bool:
    if hasattr(datasette, "allowed"):  # 1.0
        from datasette.resources import TableResource

        return bool(await datasette.allowed(action="view-table", resource=TableResource(database, table), actor=actor))
    visible, _ = await datasette.check_visibility(
        actor, permissions=[("view-table", (database, table)), ("view-database", database), "view-instance"]
    )
    return bool(visible)


async def _indexes(db: Any) -> list[tuple[str, str, str]]:
    """(index, table, column) of the main database, where an answer is a row of the table: not those of groups."""
    rows = await db.execute(
        "SELECT i.name, t.value, c.value FROM annoy_indexes AS i, annoy_info(i.name) AS t, annoy_info(i.name) AS c "
        "WHERE i.schema = 'main' AND t.key = 'table' AND c.key = 'column' "
        "AND NOT EXISTS (SELECT 1 FROM annoy_info(i.name) AS g WHERE g.key = 'group' AND g.value IS NOT NULL)"
    )
    return [tuple(row) for row in rows.rows]


async def _nearest(request: Any, datasette: Any) -> Any:
    database, name = request.url_vars["database"], request.url_vars["index"]
    try:
        db = datasette.get_database(database)
    except KeyError:
        raise NotFound(f"Database not found: {database}") from None
    found = [index for index in await _indexes(db) if index[0] == name]
    if not found:
        raise NotFound(f"Index not found: {name}")
    (_, table, column), = found
    if not await _may_view(datasette, request.actor, database, table):
        raise Forbidden(f"view-table {table}")
    # The second: Datasette 1.0a41 does not fall back to it where a database has settings of another kind.
    settings = datasette.plugin_config("sqlite-annoy", database=database) or datasette.plugin_config("sqlite-annoy") or {}
    model = settings.get("model")
    text, like = request.args.get("q") or "", request.args.get("like") or ""
    page: dict[str, Any] = {
        "database": database, "index": name, "table": table, "model": model, "q": text, "like": like, "error": None,
        "columns": [], "rows": [], "table_url": datasette.urls.table(database, table),
    }
    try:
        if text and model:
            query, values = "text_vector(:model, :q)", {"model": model, "q": text}
        elif like:
            query, values = f"(SELECT {_quoted(column)} FROM {_quoted(table)} WHERE rowid = :like)", {"like": int(like)}
        else:
            query = ""
        if query:
            await _search(db, page, table, column, query, values)
    except (sqlite3.Error, ValueError) as error:
        page["error"] = str(error)
    if request.args.get("_format") == "json":
        return Response.json({key: page[key] for key in ("columns", "rows", "error")})
    return Response.html(await datasette.render_template("sqlite_annoy_nearest.html", page, request=request))


async def _search(db: Any, page: dict[str, Any], table: str, column: str, query: str, values: dict[str, Any]) -> None:
    if (await db.execute(f"SELECT {query} IS NULL", values)).rows[0][0]:
        page["error"] = "No word of this text is known." if page["q"] else f"There is no row {page['like']} with a vector."
        return
    shown = [c for c in await db.table_columns(table) if c != column]
    columns = ", ".join(f"t.{_quoted(c)}" for c in shown)
    result = await db.execute(
        f"SELECT n.rowid, n.distance{', ' if columns else ''}{columns} FROM knn_annoy(:index, {query}) AS n "
        f"JOIN {_quoted(table)} AS t ON t.rowid = n.rowid LIMIT {_ROWS}",
        {"index": page["index"], **values},
    )
    page["columns"] = ["rowid", "distance", *shown]
    page["rows"] = [[_shown(value) for value in row] for row in result.rows]


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "…"
    return value


@hookimpl
def register_routes() -> list[tuple[str, Any]]:
    """The search page."""
    return [(r"^/-/nearest/(?P<database>[^/]+)/(?P<index>[^/]+)$", _nearest)]


@hookimpl
def extra_template_vars(datasette: Any) -> dict[str, Any]:
    """For templates: ``sqlite_annoy_url(database, index)``, the path of a search page."""
    return {"sqlite_annoy_url": lambda database, index: datasette.urls.path(f"/-/nearest/{database}/{index}")}


@hookimpl
def table_actions(datasette: Any, actor: Any, database: str, table: str) -> Any:
    """A table with an index has links to its search pages in its menu."""

    async def links() -> list[dict[str, str]]:
        indexes = await _indexes(datasette.get_database(database))
        return [
            {"href": datasette.urls.path(f"/-/nearest/{database}/{index}"), "label": f"Search by meaning: {index}"}
            for index, of, _ in indexes
            if of == table
        ]

    return links


@hookimpl
def render_cell(row: Any, value: Any, column: str, table: Any, database: str, datasette: Any) -> Any:
    """In a table that has an index, a vector is a link to the rows like it."""
    if not isinstance(value, bytes) or not table or "rowid" not in row.keys() and "id" not in row.keys():
        return None

    async def link() -> Any:
        key = row["rowid"] if "rowid" in row.keys() else row["id"]
        for index, of, of_column in await _indexes(datasette.get_database(database)):
            if (of, of_column) == (table, column) and isinstance(key, int):
                url = datasette.urls.path(f"/-/nearest/{database}/{index}?like={key}")
                return Markup('<a href="{}">more like this</a>').format(url)
        return None

    return link
