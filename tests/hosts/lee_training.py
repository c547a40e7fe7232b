#!/usr/bin/env python3
"""Training on the Lee corpus of gensim's tutorial, through a real SQLite: counts, and what the words have learned.

    pip install apsw gensim
    python tests/hosts/lee_training.py target/release/libsqlite_annoy.so [lee_background.cor]

Uses apsw if it is installed (an interpreter's own sqlite3 may refuse extensions), and gensim for its corpus and its
training time; with a corpus given and no gensim, the comparison of times is left out.
"""
import json
import os
import sys
import time


def connect(library):
    try:
        import apsw

        connection = apsw.Connection(":memory:")
        connection.enableloadextension(True)
        connection.loadextension(library)
    except ImportError:
        import sqlite3

        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.enable_load_extension(True)
        connection.load_extension(library)
    return connection


def corpus_path():
    if len(sys.argv) > 2:
        return sys.argv[2]
    import gensim

    return os.path.join(gensim.__path__[0], "test", "test_data", "lee_background.cor")


def main():
    connection = connect(os.path.abspath(sys.argv[1]))

    def one(sql, *values):
        return list(connection.execute(sql, values))[0][0]

    def train(**options):
        return json.loads(
            one("SELECT word2vec_train('words', 'lee', 'body', ?)", json.dumps({**options, "replace": True}))
        )

    connection.execute("CREATE TABLE lee(id INTEGER PRIMARY KEY, body TEXT)")
    with open(corpus_path(), encoding="utf-8") as lines:
        for line in lines:
            connection.execute("INSERT INTO lee(body) VALUES(?)", (line,))

    # What gensim's tokenizers count.
    counted = train(min_count=1, epochs=1)
    assert (counted["documents"], counted["tokens"], counted["vocabulary"]) == (300, 59890, 10186), counted
    counted = train(tokenizer="simple", min_count=1, epochs=1)
    assert (counted["tokens"], counted["vocabulary"]) == (58152, 6981), counted
    counted = train(tokenizer="simple", min_count=5, epochs=1)
    assert counted["vocabulary"] == 1750, counted
    print("ok   counts of tokens and words")

    # gensim's own test of its training: `bombings` is near `attacks`, with the parameters of that test.
    rank = """SELECT rank FROM (SELECT word, row_number() OVER () AS rank FROM most_similar('words', 'attacks'))
              WHERE word = 'bombings'"""
    modes = {
        "skip-gram, negative": dict(sg=1, window=4, negative=15, epochs=10),
        "skip-gram, hierarchical": dict(sg=1, window=4, hs=1, negative=0, epochs=10),
        "CBOW, negative": dict(sg=0, alpha=0.05, window=5, negative=15, epochs=10, sample=0),
        "CBOW, hierarchical": dict(sg=0, alpha=0.1, window=2, hs=1, negative=0, epochs=60),
    }
    for name, options in modes.items():
        ranks = []
        for seed in range(1, 6):
            train(tokenizer="simple", min_count=5, seed=seed, **options)
            ranks.append(one(rank))
        assert max(ranks) <= 50, (name, ranks)
        print(f"ok   {name}: rank of 'bombings' for 'attacks' {ranks}")

    try:
        from gensim.models.word2vec import Word2Vec
    except ImportError:
        print("left out: training time beside gensim, which is not installed")
        return
    # The tutorial's settings. gensim's own loop against our whole statement, so that the margin is on its side; the
    # processor's time, of which whoever else runs takes none, and the best of three.
    documents = [body.lower().split() for (body,) in connection.execute("SELECT body FROM lee ORDER BY id")]
    for sg in (0, 1):
        model = Word2Vec(vector_size=100, window=5, min_count=1, sg=sg, workers=1)
        model.build_vocab(documents)
        theirs, ours = [], []
        for _ in range(3):
            began = time.process_time()
            model.train(documents, total_examples=model.corpus_count, epochs=5)
            theirs.append(time.process_time() - began)
            began = time.process_time()
            train(vector_size=100, window=5, min_count=1, sg=sg, epochs=5)
            ours.append(time.process_time() - began)
        ours, theirs = min(ours), min(theirs)
        assert ours <= theirs, (sg, ours, theirs)
        print(f"ok   {'skip-gram' if sg else 'CBOW'}: {ours:.3f} s for the statement, gensim trains {theirs:.3f} s")


main()
