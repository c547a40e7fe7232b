"""Where the library is, and how each kind of connection loads it."""
from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

_NAMES = {"darwin": "libsqlite_annoy.dylib", "win32": "sqlite_annoy.dll"}

_REMEDY = """\
this Python's sqlite3 was built without loadable extensions (conn.enable_load_extension is missing). Use one of:
  - another Python: those of python.org from 3.13 on, Debian, Ubuntu, Fedora, Homebrew, conda and uv can load them;
  - pyenv: PYTHON_CONFIGURE_OPTS=--enable-loadable-sqlite-extensions pyenv install --force <version>;
  - apsw, which brings its own SQLite: pip install apsw, then sqlite_annoy.load(apsw.Connection("app.db"))."""


class ExtensionsUnavailable(RuntimeError):
    """The connection can't load extensions. The message says what to do."""


def loadable_path() -> str:
    """The path of the library, as ``load_extension`` takes it.

    The environment variable SQLITE_ANNOY_PATH names another one.
    """
    path = os.environ.get("SQLITE_ANNOY_PATH")
    if path:
        return path
    here = Path(__file__).parent / _NAMES.get(sys.platform, "libsqlite_annoy.so")
    if not here.exists():
        raise FileNotFoundError(
            f"{here} is missing: this is a source tree; install a wheel, or set SQLITE_ANNOY_PATH to the library that "
            "`cargo build --release` made"
        )
    return str(here)


def load(connection: Any) -> None:
    """Loads the extension into a connection.

    Takes a connection of ``sqlite3`` or ``apsw``, a ``sqlite_utils.Database``, or an ``Engine``, ``AsyncEngine`` or ``Connection`` of
    SQLAlchemy (an engine: into every connection it opens from now on). Loading twice does no harm.

    Raises :class:`ExtensionsUnavailable` when the connection can't load extensions.
    """
    if hasattr(connection, "loadextension"):  # apsw
        connection.enableloadextension(True)
        try:
            connection.loadextension(loadable_path())
        finally:
            connection.enableloadextension(False)
    elif inspect.iscoroutinefunction(getattr(connection, "load_extension", None)):
        raise TypeError(
            f"a connection of {type(connection).__module__} must be awaited: await db.enable_load_extension(True), then "
            "await db.load_extension(sqlite_annoy.loadable_path())"
        )
    elif hasattr(connection, "load_extension"):  # sqlite3, and what looks like it
        connection.enable_load_extension(True)
        try:
            connection.load_extension(loadable_path())
        finally:
            connection.enable_load_extension(False)
    elif hasattr(connection, "dialect"):  # SQLAlchemy
        _load_sqlalchemy(connection)
    elif hasattr(connection, "conn"):  # sqlite_utils.Database
        load(connection.conn)
    elif hasattr(connection, "execute"):
        raise ExtensionsUnavailable(_REMEDY)
    else:
        raise TypeError(
            f"expected a connection of sqlite3 or apsw, a sqlite_utils.Database or a SQLAlchemy engine, got "
            f"{type(connection).__name__}"
        )


def _load_sqlalchemy(target: Any) -> None:
    if target.dialect.name != "sqlite":
        raise TypeError(f"expected a SQLAlchemy engine of sqlite, got one of {target.dialect.name}")
    target = getattr(target, "sync_engine", target)
    if hasattr(target, "connection"):  # a Connection
        _load_dbapi(target.connection.dbapi_connection)
        return
    from sqlalchemy import event

    def on_connect(dbapi_connection: Any, record: Any) -> None:
        _load_dbapi(dbapi_connection)

    event.listen(target, "connect", on_connect)
    # Connections that the pool opened before would lack the extension.
    target.dispose()


def _load_dbapi(connection: Any) -> None:
    if not hasattr(connection, "run_async"):
        load(connection)
        return

    async def load_there(driver: Any) -> None:
        await driver.enable_load_extension(True)
        try:
            await driver.load_extension(loadable_path())
        finally:
            await driver.enable_load_extension(False)

    connection.run_async(load_there)
