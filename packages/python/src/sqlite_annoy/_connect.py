"""A connection with the extension, of whichever SQLite this process can use."""
from __future__ import annotations

import os
import sqlite3
from typing import Any
from urllib.parse import quote

from ._load import ExtensionsUnavailable, load


def connect(path: str, read_only: bool = False) -> Any:
    """Opens a database in autocommit mode: by sqlite3, or by apsw where sqlite3 can't load extensions or apsw came first.

    Both have ``execute(sql, parameters)``, and that is all the caller may use.
    """
    name = f"file:{quote(os.path.abspath(path))}?mode=ro" if read_only else path
    try:
        connection: Any = sqlite3.connect(name, isolation_level=None, check_same_thread=False, uri=read_only)
        load(connection)
        return connection
    except (ExtensionsUnavailable, sqlite3.OperationalError) as error:
        try:
            import apsw
        except ImportError:
            raise error from None
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        try:
            connection = apsw.Connection(path, flags=flags)
            load(connection)
        except apsw.Error:
            raise error from None
        return connection
