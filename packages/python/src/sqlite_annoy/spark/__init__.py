"""Tables of vectors that are larger than one machine, with Apache Spark.

    >>> from sqlite_annoy import spark as annoy                              # doctest: +SKIP
    >>> shards = annoy.write_shards(df, "/shared/items", 64, by="centroid")  # doctest: +SKIP
    >>> annoy.knn(queries, shards, 10).show()                                # doctest: +SKIP
    >>> annoy.knn(queries, shards, 10, exact=True)                           # doctest: +SKIP

A shard is a folder with an SQLite database: the table ``items(id, vector, ...)`` and its index. Executors build the shards and
search them in place, each mapped once for all processes of a machine; Spark moves queries and answers. ``path`` is a folder
that the driver and all executors see under the same name (one machine's disk, NFS, a cluster file system; not ``s3://``), and
this package is installed wherever an executor runs.

Rooms: ``shards`` (what has been published, and how near a shard can be), ``write``, ``search``, ``vectors`` (columns of
Arrow), ``word2vec``.
"""
from __future__ import annotations

from .search import knn, knn_join
from .shards import Shards, open_shards
from .word2vec import import_word2vec
from .write import remove_unlisted, write_shards

__all__ = ["Shards", "import_word2vec", "knn", "knn_join", "open_shards", "remove_unlisted", "write_shards"]
