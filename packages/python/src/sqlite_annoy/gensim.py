"""For gensim's ``most_similar(indexer=...)``.

    >>> from sqlite_annoy.gensim import AnnoyIndexer
    >>> indexer = AnnoyIndexer(model, 10)                                    # doctest: +SKIP
    >>> model.wv.most_similar("king", topn=5, indexer=indexer)               # doctest: +SKIP
"""
from __future__ import annotations

import json
from typing import Any, Optional

from ._connect import connect
from .annoy_index import AnnoyIndex


class AnnoyIndexer:
    """An index over the vectors of a Word2Vec, FastText, Doc2Vec or KeyedVectors, with the methods of gensim's own indexer.

    ``save`` writes one database with the index and the labels (and a file of the index beside it), ``load`` opens it.
    """

    def __init__(self, model: Any = None, num_trees: Optional[int] = None) -> None:
        self.model = model
        self.num_trees: Optional[int] = num_trees
        self.index: Optional[AnnoyIndex] = None
        self.labels: Optional[list[Any]] = None
        if model is not None and num_trees:
            vectors = next(
                (part for part in (getattr(model, "dv", None), getattr(model, "wv", None), model) if part is not None)
            )
            if not hasattr(vectors, "index_to_key"):
                raise ValueError("Only a Word2Vec, Doc2Vec, FastText or KeyedVectors instance can be used")
            self.labels = list(vectors.index_to_key)
            self.index = AnnoyIndex(vectors.vector_size, "angular")
            for item, vector in enumerate(vectors.get_normed_vectors()):
                self.index.add_item(item, vector)
            self.index.build(num_trees)

    def save(self, fname: str) -> None:
        """Saves index and labels to one database; the model is not in it."""
        if self.index is None:
            raise ValueError("there is no index to save: give a model and a number of trees, or load one")
        self.index.save(fname)
        db = connect(fname)
        db.execute("CREATE TABLE IF NOT EXISTS labels(id INTEGER PRIMARY KEY, label TEXT)")
        db.execute("BEGIN")
        for item, label in enumerate(self.labels or []):
            db.execute("INSERT OR REPLACE INTO labels VALUES (?, ?)", (item, json.dumps(label)))
        db.execute("COMMIT")
        db.close()

    def load(self, fname: str) -> None:
        """Opens what ``save`` wrote."""
        with open(fname, "rb"):
            pass
        db = connect(fname, read_only=True)
        try:
            settings = dict(db.execute("SELECT key, value FROM annoy_settings"))
            labels = [json.loads(label) for (label,) in db.execute("SELECT label FROM labels ORDER BY id")]
        except Exception as error:
            raise OSError(f"{fname!r} was not saved by AnnoyIndexer: {error}") from error
        finally:
            db.close()
        self.index = AnnoyIndex(settings["f"], "angular")
        self.index.load(fname)
        self.num_trees = settings["trees"]
        self.labels = labels

    def most_similar(self, vector: Any, num_neighbors: int) -> list[tuple[Any, float]]:
        """The labels nearest to a vector, with their cosine similarity."""
        if self.index is None or self.labels is None:
            raise ValueError("there is no index: give a model and a number of trees, or load one")
        items, distances = self.index.get_nns_by_vector(vector, num_neighbors, include_distances=True)
        labels = self.labels
        return [(labels[item], 1 - distance**2 / 2) for item, distance in zip(items, distances)]
