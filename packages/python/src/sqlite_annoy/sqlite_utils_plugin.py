"""Plugin of sqlite-utils: every database it opens has the extension, and ``sqlite-utils annoy-index`` makes an index."""
from __future__ import annotations

import sqlite3
import warnings
from typing import Any

import click
from sqlite_utils import Database, hookimpl

from ._load import ExtensionsUnavailable, load


@hookimpl
def prepare_connection(conn: Any) -> None:
    """Loads the extension; where that can't be, sqlite-utils goes on without it."""
    try:
        load(conn)
    except (ExtensionsUnavailable, sqlite3.OperationalError) as error:
        warnings.warn(f"sqlite-utils goes on without sqlite-annoy: {error}", RuntimeWarning, stacklevel=2)


@hookimpl
def register_commands(cli: Any) -> None:
    """Adds ``annoy-index``."""

    @cli.command(name="annoy-index")
    @click.argument("path", type=click.Path(exists=True, dir_okay=False))
    @click.argument("table")
    @click.argument("column")
    @click.option("--name", help="name of the index; TABLE_index without it")
    @click.option("--metric", default="cosine", show_default=True, help="cosine, l2 or dot")
    def annoy_index(path: str, table: str, column: str, name: str, metric: str) -> None:
        "Make an index of nearest neighbours over a COLUMN of vectors"
        db = Database(path)

        def quoted(text: str) -> str:
            return '"' + text.replace('"', '""') + '"'

        try:
            with db.conn:
                db.execute(
                    f"CREATE VIRTUAL TABLE {quoted(name or table + '_index')} USING "
                    f"annoy({quoted(table)}, {quoted(column)}, metric={quoted(metric)})"
                )
        except Exception as error:
            raise click.ClickException(str(error)) from error
