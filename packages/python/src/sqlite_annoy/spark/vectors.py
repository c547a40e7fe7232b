"""Vectors in columns of Spark and Arrow."""
from __future__ import annotations

from typing import Any, cast

import numpy as np


def as_column(df: Any, name: str) -> Any:
    """The column of vectors in a form that Arrow carries: arrays of numbers, or BLOBs of little-endian float32."""
    from pyspark.sql import functions as F
    from pyspark.sql import types as T

    if name not in df.columns:
        raise ValueError(f"there is no column {name!r}: expected one of {', '.join(df.columns)}")
    kind = df.schema[name].dataType
    if type(kind).__name__ == "VectorUDT":
        from pyspark.ml.functions import vector_to_array

        # It fails for NULL.
        return F.when(F.col(name).isNotNull(), vector_to_array(F.col(name), "float32"))
    numbers = (T.FloatType, T.DoubleType)
    if isinstance(kind, T.BinaryType) or isinstance(kind, T.ArrayType) and isinstance(kind.elementType, numbers):
        return F.col(name)
    raise TypeError(
        f"column {name!r} is {kind.simpleString()}: expected array<float>, array<double>, a vector of pyspark.ml, or "
        "binary (little-endian float32)"
    )


def blobs(column: Any) -> list[Any]:
    """The vectors of an Arrow column as BLOBs of float32; None where there is none."""
    import pyarrow as pa

    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return cast("list[Any]", column.to_pylist())
    flat = column.flatten()
    if flat.null_count:
        raise ValueError("a vector has a NULL component: expected numbers")
    # flatten() leaves out what NULL rows may cover, so ends are sums of lengths.
    values = flat.to_numpy(zero_copy_only=False).astype("<f4")
    lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths)
    there = column.is_valid().to_pylist()
    return [
        values[end - length : end].tobytes() if valid else None for end, length, valid in zip(ends, lengths, there)
    ]


def matrix(vectors: list[Any], dim: int, whose: str) -> "np.ndarray[Any, Any]":
    """BLOBs as rows of float64, shape (len(vectors), dim); ``whose`` names the column in the error."""
    for vector in vectors:
        if len(vector) != 4 * dim:
            raise ValueError(f"a vector of {whose} has {len(vector)} bytes: expected {4 * dim} ({dim} float32)")
    return np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), dim).astype(np.float64)
