"""A model of Spark's Word2Vec as a model here."""
from __future__ import annotations

import os
import tempfile
from typing import Any, Optional

import numpy as np

from .._connect import connect


def import_word2vec(model: Any, database: str, name: str = "words", counts: Optional[Any] = None) -> int:
    """Writes a ``pyspark.ml.feature.Word2VecModel`` into the table ``name(id, word, count, vector)`` of a database, as
    ``model_import`` does; ``most_similar``, ``text_vector`` and indexes then work on it. Returns the number of words.

    ``counts`` is a DataFrame (word, count), which Spark's model does not keep: with it id 0 is the most frequent word, without it
    words are in order of the alphabet. The model goes by way of a temporary file of word2vec's binary format, row by row.
    """
    from pyspark.sql import functions as F

    vectors = model.getVectors().select("word", "vector")
    if counts is not None:
        first = vectors.join(counts.select("word", F.col("count").alias("count")), "word", "left")
        vectors = first.orderBy(F.desc_nulls_last("count"), "word").select("word", "vector")
    else:
        vectors = vectors.orderBy("word")
    n, dim = vectors.count(), model.getVectorSize()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.bin")
        with open(path, "wb") as out:
            out.write(f"{n} {dim}\n".encode())
            for word, vector in vectors.toLocalIterator():
                if not word or any(c in word for c in " \n"):
                    raise ValueError(f"the word {word!r} is empty or has a space: expected tokens without")
                out.write(word.encode() + b" " + np.asarray(vector.toArray(), "<f4").tobytes() + b"\n")
        db = connect(database)
        try:
            db.execute("SELECT model_import(?, ?)", (name, path)).fetchall()
        finally:
            db.close()
    return int(n)
