"""What the vector stores of LangChain and LlamaIndex have in common."""
from __future__ import annotations

from typing import Any, Sequence

METRICS = ("cosine", "l2", "dot")
# The distance of two vectors, as an index of the metric gives it.
_DISTANCE = {"cosine": "vec_distance_cosine(?, ?)", "l2": "vec_distance_l2(?, ?)", "dot": "-vec_dot(?, ?)"}

# The value that the metadata of row `d` has at a key, NULL if none. A path ($."key") would not do: SQLite compares its key with
# the text of the JSON, in which quotes, backslashes and, in older versions, other characters are escaped.
VALUE = "(SELECT value FROM json_each(d.metadata) WHERE key = :key)"


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def diverse(db: Any, metric: str, candidates: Sequence[tuple[bytes, float]], k: int, balance: float) -> list[int]:
    """Maximal marginal relevance, as the SQL function ``mmr`` has it, of candidates that may have passed a filter.

    Takes the candidates' vectors and distances to the query, nearest first. Returns the positions of ``k`` of them.
    """
    left = list(range(len(candidates)))
    # Of each candidate, the distance to the nearest one that was taken.
    nearest = [float("inf")] * len(candidates)
    taken: list[int] = []
    while left and len(taken) < k:
        if taken:
            for i in left:
                pair = candidates[i][0], candidates[taken[-1]][0]
                ((distance,),) = db.execute(f"SELECT {_DISTANCE[metric]}", pair)
                nearest[i] = min(nearest[i], distance)
            best = min(left, key=lambda i: balance * candidates[i][1] - (1 - balance) * nearest[i])
        else:
            best = left[0]
        left.remove(best)
        taken.append(best)
    return taken
