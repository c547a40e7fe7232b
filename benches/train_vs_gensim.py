#!/usr/bin/env python3
"""Training speed beside gensim, in one run on one machine.

    pip install gensim apsw
    cargo build --release
    python benches/train_vs_gensim.py [--library target/release/libsqlite_annoy.so] [--corpus FILE] [options]

The corpus has one document a line, tokens separated by spaces; without one it is gensim's Lee corpus, lower-cased, as in
its tutorial. Both sides train with the same parameters on one thread, in turn, `--repeat` times; the best time of each
counts, because a shared machine only ever adds time. `--gensim-tokens` gives gensim the first part of the corpus only: it
is slow, and tokens a second are compared. gensim's time is that of Word2Vec.train(); ours is the `seconds`
that word2vec_train reports, and `statement`: the whole SQL statement from text to finished table, beside gensim's
vocabulary and training together. `--quality` evaluates both models with gensim's data sets.
"""
import argparse
import bisect
import itertools
import json
import os
import time

import gensim
from gensim.models import KeyedVectors
from gensim.models.word2vec import Word2Vec
from gensim.test.utils import datapath

parser = argparse.ArgumentParser()
parser.add_argument("--library", default="target/release/libsqlite_annoy.so")
parser.add_argument("--corpus", default=datapath("lee_background.cor"))
parser.add_argument("--dim", type=int, default=100)
parser.add_argument("--window", type=int, default=5)
parser.add_argument("--min-count", type=int, default=1)
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--negative", type=int, default=5)
parser.add_argument("--sg", type=int, choices=(0, 1), help="one of CBOW (0) and skip-gram (1); both by default")
parser.add_argument("--hs", type=int, default=0)
parser.add_argument("--alpha", type=float, default=0.025)
parser.add_argument("--sample", type=float, default=1e-3)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--repeat", type=int, default=3)
parser.add_argument("--seeds", type=int, default=1, help="models per side to evaluate with --quality")
parser.add_argument("--quality", action="store_true")
parser.add_argument("--ours-only", action="store_true")
parser.add_argument("--gensim-tokens", type=int, help="train gensim on so many tokens only")
parser.add_argument("--options", default="{}", help="more options of ours, as JSON")
arguments = parser.parse_args()

with open(arguments.corpus, encoding="utf-8") as lines:
    documents = [line.lower() for line in lines]
# gensim trains the first 10,000 tokens of a document only: both sides get documents it takes whole.
tokens = [words[i : i + 10000] for words in (d.split() for d in documents) for i in range(0, len(words), 10000)]
documents = [" ".join(words) for words in tokens]


def connect():
    try:
        import apsw

        connection = apsw.Connection(":memory:")
        connection.enableloadextension(True)
        connection.loadextension(os.path.abspath(arguments.library))
    except ImportError:
        import sqlite3

        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.enable_load_extension(True)
        connection.load_extension(os.path.abspath(arguments.library))
    return connection


def parameters(sg, seed):
    return dict(
        vector_size=arguments.dim,
        window=arguments.window,
        min_count=arguments.min_count,
        epochs=arguments.epochs,
        negative=arguments.negative,
        sg=sg,
        hs=arguments.hs,
        alpha=arguments.alpha,
        sample=arguments.sample,
        seed=seed,
    )


def train_gensim(sg, seed):
    model = Word2Vec(workers=arguments.threads, **parameters(sg, seed))
    some = tokens
    if arguments.gensim_tokens:
        ends = list(itertools.accumulate(map(len, tokens)))
        some = tokens[: bisect.bisect_left(ends, arguments.gensim_tokens) + 1]
    began = time.perf_counter()
    model.build_vocab(some)
    counted = time.perf_counter()
    _, raw = model.train(some, total_examples=model.corpus_count, epochs=arguments.epochs)
    ended = time.perf_counter()
    return ended - counted, ended - began, raw, model.wv


def train_ours(sg, seed):
    options = json.dumps({**parameters(sg, seed), "threads": arguments.threads, "replace": True, **json.loads(arguments.options)})
    began = time.perf_counter()
    row = list(connection.execute("SELECT word2vec_train('words', 'corpus', 'body', ?)", (options,)))[0]
    statement = time.perf_counter() - began
    summary = json.loads(row[0])
    return summary["seconds"], statement, summary["tokens_in_vocabulary"] * summary["epochs"], None


def vectors_of_ours():
    import numpy

    rows = list(connection.execute("SELECT word, count, vector FROM words ORDER BY id"))
    vectors = KeyedVectors(arguments.dim, count=len(rows))
    for word, count, vector in rows:
        vectors.add_vector(word, numpy.frombuffer(vector, dtype="<f4"))
        vectors.set_vecattr(word, "count", count)
    return vectors


def quality(vectors):
    pairs = vectors.evaluate_word_pairs(datapath("wordsim353.tsv"))[1][0]
    simlex = vectors.evaluate_word_pairs(datapath("simlex999.txt"))[1][0]
    analogies, _ = vectors.evaluate_word_analogies(datapath("questions-words.txt"), restrict_vocab=30000)
    return dict(wordsim353=round(float(pairs), 3), simlex=round(float(simlex), 3), analogies=round(analogies, 4))


connection = connect()
connection.execute("CREATE TABLE corpus(id INTEGER PRIMARY KEY, body TEXT)")
connection.execute("BEGIN")
for document in documents:
    connection.execute("INSERT INTO corpus(body) VALUES(?)", (document,))
connection.execute("COMMIT")
version = list(connection.execute("SELECT annoy_version()"))[0][0]
print(f"gensim {gensim.__version__}; sqlite-annoy {version}; {len(documents)} documents, {sum(map(len, tokens))} tokens")

for sg in (0, 1) if arguments.sg is None else (arguments.sg,):
    sides = {"ours": train_ours} if arguments.ours_only else {"gensim": train_gensim, "ours": train_ours}
    best = {}
    for turn in range(arguments.repeat):
        for name, run in sides.items():
            if turn and name == "gensim" and arguments.gensim_tokens:
                continue
            seconds, whole, raw, _ = run(sg, 1)
            before = best.get(name, (seconds, whole, raw))
            best[name] = (min(seconds, before[0]), min(whole, before[1]), raw)
    mode = "skip-gram" if sg else "CBOW"
    for name, (seconds, whole, raw) in best.items():
        print(f"{mode:10} {name:7} train {seconds:8.3f} s  {raw / seconds / 1e6:7.3f} M tokens/s   statement {whole:8.3f} s")
    if not arguments.ours_only:
        speed = [[raw / best[name][i] for i in (0, 1)] for name in ("ours", "gensim") for raw in [best[name][2]]]
        ratio = [ours / theirs for ours, theirs in zip(*speed)]
        print(f"{mode:10} ratio   train {ratio[0]:8.1f} x   statement {ratio[1]:8.1f} x")
    if arguments.quality:
        for name, run in sides.items():
            for seed in range(1, arguments.seeds + 1):
                vectors = run(sg, seed)[3]
                print(f"{mode:10} {name:7} seed {seed} {quality(vectors or vectors_of_ours())}")
