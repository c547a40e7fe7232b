"""Vectors as SQLite holds them: little-endian float32, one after the other, without a header."""
from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Iterable, Protocol, Union

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Blob = Union[bytes, bytearray, memoryview]


class Vector(Protocol):
    """Numbers in an order, whose number is known: a list, a tuple, an array of numpy."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> float: ...


def serialize_float32(vector: Iterable[float]) -> Union[bytes, memoryview]:
    """A vector as a parameter of a statement.

    A contiguous float32 array of numpy is passed on without a copy, as a memoryview of its bytes; anything else becomes bytes.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(vector, numpy.ndarray):
        values = numpy.ascontiguousarray(vector, dtype="<f4")
        if values.ndim != 1:
            raise ValueError(f"expected one vector, got an array of shape {values.shape}")
        return memoryview(values).cast("B")
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def serialize_int8(vector: Iterable[int]) -> bytes:
    """A vector of int8 as a parameter; wrap it as ``vec_int8(?)`` in the statement."""
    return array("b", vector).tobytes()


def deserialize_float32(blob: Blob) -> list[float]:
    """The components of a vector that a statement has given."""
    values = array("f")
    values.frombytes(blob)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def to_numpy(blob: Blob, dim: Union[int, None] = None) -> "NDArray[np.float32]":
    """An array over the bytes of a vector, without a copy and therefore read-only.

    With ``dim``: many vectors, such as ``vec_pack`` gives, as an array of shape (n, dim).
    """
    import numpy as np

    values = np.frombuffer(blob, dtype="<f4")
    return values if dim is None else values.reshape(-1, dim)
