#!/usr/bin/env python3
"""fastText beside gensim: models of the original program give the same vectors, and training learns what gensim's does.

    pip install apsw gensim
    python tests/hosts/fasttext.py target/release/libsqlite_annoy.so
"""
import json
import os
import sys
import time

import apsw
import numpy as np
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import load_facebook_model
from gensim.test.utils import datapath
from gensim.utils import simple_preprocess

connection = apsw.Connection(":memory:")
connection.enableloadextension(True)
connection.loadextension(os.path.abspath(sys.argv[1]))


def rows(sql, *values):
    return list(connection.execute(sql, values))


def one(sql, *values):
    return rows(sql, *values)[0][0]


def vector(model, word):
    return np.frombuffer(one("SELECT fasttext_vector(?, ?)", model, word), "<f4")


for file in ["lee_fasttext", "lee_fasttext_new", "crime-and-punishment", "toy-model"]:
    summary = json.loads(one("SELECT model_import('m', ?, '{\"replace\":true}')", datapath(file + ".bin")))
    theirs = load_facebook_model(datapath(file + ".bin")).wv
    assert summary["words"] == len(theirs), summary
    worst = 0
    for word in theirs.index_to_key:
        # Since 2017 the end of a line has no n-grams in the original program, but has in gensim.
        if word != "</s>" or file == "lee_fasttext":
            worst = max(worst, np.abs(vector("m", word) - theirs[word]).max())
    unknown = ["landlord", "landlords", "rejection", "nights", "преступлениях", "größe", "日本語", "<>", "x", "зна"]
    for word in unknown:
        worst = max(worst, np.abs(vector("m", word) - theirs[word]).max())
    assert worst < 1e-4, (file, worst)
    if os.path.exists(datapath(file + ".vec")) and file != "toy-model":
        text = KeyedVectors.load_word2vec_format(datapath(file + ".vec"))
        for word in text.index_to_key:
            assert np.abs(vector("m", word) - text[word]).max() < 1e-4, (file, word)
    print(f"ok   {file}.bin: {summary}, {worst:.1e} from gensim's vectors at most, {len(unknown)} unknown words among them")

connection.execute("CREATE TABLE lee(id INTEGER PRIMARY KEY, body TEXT)")
with open(datapath("lee_background.cor"), encoding="utf-8") as lines:
    texts = lines.read().splitlines()
connection.executemany("INSERT INTO lee(body) VALUES(?)", [(text,) for text in texts])
documents = [simple_preprocess(text) for text in texts]
rank = "SELECT rank FROM (SELECT word, row_number() OVER () AS rank FROM most_similar('f', 'night')) WHERE word = 'nights'"
for sg in (1, 0):
    options = dict(vector_size=100, min_count=5, window=5, epochs=5, sg=sg, bucket=100000, seed=1)
    began = time.perf_counter()
    summary = json.loads(
        one("SELECT fasttext_train('f', 'lee', 'body', ?)", json.dumps({**options, "tokenizer": "simple", "replace": True}))
    )
    ours = time.perf_counter() - began
    model = FastText(workers=1, **options)
    model.build_vocab(documents)
    began = time.perf_counter()
    model.train(documents, total_examples=model.corpus_count, epochs=5)
    theirs = time.perf_counter() - began
    assert summary["vocabulary"] == len(model.wv) == 1750
    # gensim's own test: a plural it never saw is near its singular.
    assert not rows("SELECT 1 FROM f WHERE word = 'nights'")
    similarity = one("SELECT similarity('f', 'night', 'nights')")
    gensims = model.wv.similarity("night", "nights")
    assert similarity > 0.9, similarity
    ours_near = [w for w, _ in rows("SELECT word, similarity FROM most_similar('f', 'attacks', NULL, 20)")]
    theirs_near = [w for w, _ in model.wv.most_similar("attacks", topn=20)]
    common = len(set(ours_near) & set(theirs_near))
    print(f"ok   {'skip-gram' if sg else 'CBOW'}: loss {summary['losses'][0]:.3f} to {summary['loss']:.3f}; night, nights "
          f"{similarity:.3f} (gensim {gensims:.3f}); {common} of 20 neighbours of attacks are gensim's; "
          f"{ours:.2f} s for the statement, gensim trains {theirs:.2f} s")
