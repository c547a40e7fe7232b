"""rrf and mmr on a labelled set: the 50 Lee documents, whose likeness to each other people have judged.

    python3 benches/fusion_on_lee.py LIBRARY

Needs apsw and gensim from PyPI, for its copies of the documents, of 300 more to train on, and of the judgements (Lee, Pincombe and
Welsh, 2005: numbers from .2, nothing in common, to 1). Each document asks for the others by its first twelve words: full
text search (FTS5, bm25), search of vectors (`text_vector` of a model trained on all 350), and both fused by `rrf`.
Printed: nDCG at 10, the gain of a document what was judged beyond .2; the mean of a random order beside it.

Then `mmr` among whole documents: the mean judgement of five answers with the query, and of the answers with each other,
which is how much they repeat each other; the rest of `lambda` between plain search (1) and none.
"""

import math
import random
import re
import sys

import apsw
from gensim.test.utils import datapath

SEEDS = [1, 2, 3]


def read(name):
    with open(datapath(name), encoding="latin-1") as lines:
        return [line.strip() for line in lines if line.strip()]


def ndcg(ids, gain, ideal, k=10):
    dcg = sum(gain[i] / math.log2(rank + 2) for rank, i in enumerate(ids[:k]))
    best = sum(g / math.log2(rank + 2) for rank, g in enumerate(sorted(ideal, reverse=True)[:k]))
    return dcg / best


def connect(library, documents, background, seed):
    db = apsw.Connection(":memory:")
    db.enable_load_extension(True)
    db.load_extension(library)
    db.execute(
        """CREATE TABLE corpus(id INTEGER PRIMARY KEY, body TEXT);
           CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT, v BLOB);
           CREATE VIRTUAL TABLE words USING fts5(body, content=docs, content_rowid=id, tokenize=porter)"""
    )
    db.executemany("INSERT INTO corpus(body) VALUES(?)", [(body,) for body in documents + background])
    db.executemany("INSERT INTO docs(id, body) VALUES(?, ?)", enumerate(documents))
    options = '{"vector_size":100, "epochs":30, "min_count":2, "sg":1, "threads":1, "tokenizer":"simple", "seed":%d}' % seed
    list(db.execute("SELECT word2vec_train('model', 'corpus', 'body', ?)", (options,)))
    db.execute(
        """UPDATE docs SET v = text_vector('model', body, '{"weight":"sif"}');
           INSERT INTO words(words) VALUES('rebuild');
           CREATE VIRTUAL TABLE near USING annoy(docs, v)"""
    )
    return db


RANKINGS = {
    "words": "SELECT rowid FROM words WHERE words MATCH :words AND rowid <> :id ORDER BY bm25(words) LIMIT 20",
    "vectors": """SELECT rowid FROM knn_annoy('near', text_vector('model', :text, '{"weight":"sif"}'))
                   WHERE rowid <> :id LIMIT 20""",
    "rrf": """WITH found AS (SELECT rowid AS id, bm25(words) AS score FROM words WHERE words MATCH :words AND rowid <> :id
                              ORDER BY score LIMIT 20),
                   w AS (SELECT id, row_number() OVER (ORDER BY score) AS rank FROM found),
                   n AS (SELECT rowid AS id, row_number() OVER (ORDER BY distance) AS rank
                           FROM knn_annoy('near', text_vector('model', :text, '{"weight":"sif"}'), 21) WHERE rowid <> :id)
              SELECT id FROM (SELECT * FROM w UNION ALL SELECT * FROM n) GROUP BY id ORDER BY rrf(rank) DESC LIMIT 20""",
}


def main(library):
    documents, background = read("lee.cor"), read("lee_background.cor")
    # Each pair is there once, in the upper triangle.
    above = [[float(x) for x in line.split()] for line in read("similarities0-1.txt")]
    judged = [[above[min(i, j)][max(i, j)] for j in range(len(row))] for i, row in enumerate(above)]
    gains = [{j: max(0.0, row[j] - 0.2) for j in range(len(row)) if j != i} for i, row in enumerate(judged)]
    asking = [i for i, g in enumerate(gains) if any(g.values())]
    rng = random.Random(1)
    chance = [ndcg(rng.sample(sorted(g), len(g)), g, g.values()) for g in map(gains.__getitem__, asking) for _ in range(20)]
    print(f"nDCG@10, a random order: {sum(chance) / len(chance):.3f}")
    scores = {name: [] for name in RANKINGS}
    diverse = {}
    for seed in SEEDS:
        db = connect(library, documents, background, seed)
        for name, sql in RANKINGS.items():
            total = 0.0
            for i in asking:
                text = " ".join(documents[i].split()[:12])
                words = " OR ".join(f'"{word}"' for word in re.findall(r"[a-z]{3,}", text.lower()))
                ids = [row[0] for row in db.execute(sql, {"id": i, "text": text, "words": words})]
                total += ndcg(ids, gains[i], gains[i].values())
            scores[name].append(total / len(asking))
        for weight in (1, 0.9, 0.8, 0.7, 0.6, 0.5):
            near = repeat = 0.0
            for i in range(len(documents)):
                sql = "SELECT id FROM mmr('near', (SELECT v FROM docs WHERE id = ?), 6, ?)"
                options = '{"lambda":%g, "candidates":20}' % weight
                ids = [row[0] for row in db.execute(sql, (i, options)) if row[0] != i][:5]
                near += sum(judged[i][j] for j in ids) / 5
                repeat += sum(judged[a][b] for a in ids for b in ids if a < b) / 10
            sums = diverse.setdefault(weight, [0.0, 0.0])
            sums[0] += near / len(documents) / len(SEEDS)
            sums[1] += repeat / len(documents) / len(SEEDS)
    for name, values in scores.items():
        each = " ".join(f"{value:.3f}" for value in values)
        print(f"nDCG@10, {name}: {sum(values) / len(values):.3f} ({each})")
    for weight, (near, repeat) in diverse.items():
        print(f"mmr, lambda {weight}: judged likeness to the query {near:.3f}, of answers to each other {repeat:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
