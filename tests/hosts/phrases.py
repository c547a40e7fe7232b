#!/usr/bin/env python3
"""Phrases beside gensim: the same phrases with the same counts and scores, and the same joined texts.

    pip install apsw gensim
    python tests/hosts/phrases.py target/release/libsqlite_annoy.so
"""
import json
import os
import sys

import apsw
from gensim.models.phrases import ENGLISH_CONNECTOR_WORDS, Phrases
from gensim.test.utils import datapath
from gensim.utils import simple_preprocess

connection = apsw.Connection(":memory:")
connection.enableloadextension(True)
connection.loadextension(os.path.abspath(sys.argv[1]))


def rows(sql, *values):
    return list(connection.execute(sql, values))


with open(datapath("lee_background.cor"), encoding="utf-8") as lines:
    texts = lines.read().splitlines()
documents = [simple_preprocess(text) for text in texts]
connection.execute("CREATE TABLE lee(id INTEGER PRIMARY KEY, body TEXT)")
connection.executemany("INSERT INTO lee(body) VALUES(?)", [(text,) for text in texts])

for options in [
    {},
    {"min_count": 2, "threshold": 3.0},
    {"connector_words": "english", "threshold": 2},
    {"scoring": "npmi", "threshold": 0.5, "min_count": 3, "connector_words": "english", "delimiter": "~"},
]:
    rows("SELECT phrases_train('p', 'lee', 'body', ?)", json.dumps({**options, "tokenizer": "simple", "replace": True}))
    theirs_options = dict(options)
    if "connector_words" in options:
        theirs_options["connector_words"] = ENGLISH_CONNECTOR_WORDS
    theirs = Phrases(documents, **theirs_options)
    ours = {phrase: (count, score) for phrase, count, score in rows("SELECT phrase, count, score FROM p")}
    expected = theirs.find_phrases(documents)
    assert set(expected) <= set(ours), set(expected) - set(ours)
    for phrase, (count, score) in ours.items():
        assert theirs.vocab[phrase] == count, phrase
        if phrase in expected:
            assert abs(expected[phrase] - score) < 1e-9 * abs(score), phrase
    joined = [text for (text,) in rows("SELECT phrases_apply('p', body) FROM lee ORDER BY id")]
    assert joined == [" ".join(theirs[document]) for document in documents]
    print(f"ok   {options}: {len(ours)} phrases, {len(expected)} of them met when joining; the same texts")
