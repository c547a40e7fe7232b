#!/usr/bin/env python3
"""Model files and questions to models, beside gensim: what it writes is read, what we write it reads, the same numbers.

    pip install apsw gensim
    python tests/hosts/formats.py target/release/libsqlite_annoy.so
"""
import json
import os
import sys
import tempfile

import apsw
import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from gensim.test.utils import datapath
from gensim.utils import simple_preprocess

connection = apsw.Connection(":memory:")
connection.enableloadextension(True)
connection.loadextension(os.path.abspath(sys.argv[1]))


def rows(sql, *values):
    return list(connection.execute(sql, values))


def one(sql, *values):
    return rows(sql, *values)[0][0]


def same_vectors(model, keyed):
    found = rows(f'SELECT word, vector FROM "{model}" ORDER BY id')
    assert [word for word, _ in found] == keyed.index_to_key, model
    ours = np.stack([np.frombuffer(vector, "<f4") for _, vector in found])
    assert ours.tobytes() == keyed.vectors.astype("<f4").tobytes(), model


def main():
    folder = tempfile.mkdtemp()

    def path(name):
        return os.path.join(folder, name)

    with open(datapath("lee_background.cor"), encoding="utf-8") as lines:
        documents = [simple_preprocess(line) for line in lines]
    theirs = Word2Vec(documents, vector_size=50, min_count=2, sg=1, epochs=10, workers=1, seed=3).wv

    # What gensim writes.
    theirs.save_word2vec_format(path("t.txt"), fvocab=path("t.vocab"))
    theirs.save_word2vec_format(path("t.bin"), binary=True)
    theirs.save_word2vec_format(path("headless.txt"), write_header=False)
    np.save(path("t.npy"), theirs.vectors)
    with open(path("t.words"), "w", encoding="utf-8") as out:
        out.write("".join(f"{word}\n" for word in theirs.index_to_key))
    for model, file, options in [
        ("text", "t.txt", {"vocab": path("t.vocab")}),
        ("binary", "t.bin", {}),
        ("glove", "headless.txt", {}),
        ("array", "t.npy", {"words": path("t.words")}),
    ]:
        summary = json.loads(one("SELECT model_import(?, ?, ?)", model, path(file), json.dumps(options)))
        assert summary["words"] == len(theirs), summary
        same_vectors(model, theirs)
    counts = rows("SELECT word, count FROM text")
    assert all(theirs.get_vecattr(word, "count") == count for word, count in counts)
    print("ok   reads what gensim and NumPy write, bit for bit:", summary["words"], "words")

    # What we write.
    for name, binary in [("o.txt", False), ("o.bin", True)]:
        one("SELECT model_export('text', ?, ?)", path(name), json.dumps({"vocab": path(name + ".vocab")}))
        keyed = KeyedVectors.load_word2vec_format(path(name), fvocab=path(name + ".vocab"), binary=binary)
        same_vectors("text", keyed)
        assert all(keyed.get_vecattr(w, "count") == theirs.get_vecattr(w, "count") for w in keyed.index_to_key)
    assert open(path("o.bin"), "rb").read() == open(path("t.bin"), "rb").read(), "the same bytes as gensim's"
    one("SELECT model_export('text', ?, '{\"format\":\"glove\"}')", path("o.glove"))
    same_vectors("text", KeyedVectors.load_word2vec_format(path("o.glove"), no_header=True))
    one("SELECT model_export('text', ?)", path("o.npy"))
    assert np.load(path("o.npy")).tobytes() == theirs.vectors.tobytes()
    one("SELECT vectors_write(?, 'text', 'vector')", path("o.fvecs"))
    raw = np.fromfile(path("o.fvecs"), "<i4").reshape(len(theirs), 51)
    assert (raw[:, 0] == 50).all() and raw[:, 1:].tobytes() == theirs.vectors.tobytes()
    back = rows("SELECT id, word, vector FROM vectors_read(?)", path("o.fvecs"))
    assert [i for i, _, _ in back] == list(range(len(theirs)))
    assert b"".join(v for _, _, v in back) == theirs.vectors.tobytes()
    print("ok   gensim and NumPy read what we write, bit for bit")

    # Files of gensim's tests that others wrote.
    for file in ["euclidean_vectors.bin", "poincare_vectors.bin", "lee_fasttext.vec", "crime-and-punishment.vec",
                 "word2vec_pre_kv_c", "test_glove.txt"]:
        source = datapath(file)
        keyed = KeyedVectors.load_word2vec_format(
            source, binary=file.endswith(".bin"), no_header=file == "test_glove.txt"
        )
        one("SELECT model_import('file', ?, '{\"replace\":true}')", source)
        same_vectors("file", keyed)
    print("ok   files of gensim's tests")

    # Broken files import nothing.
    whole = open(path("t.bin"), "rb").read()
    for name, content, place in [
        ("cut.bin", whole[:-7], "byte "),
        ("longer.bin", whole + b"xyz", "byte "),
        ("cut.txt", open(path("t.txt"), "rb").read()[:-1000], "line "),
        ("nan.txt", b"1 2\na 0.5 nan\n", "line 2"),
    ]:
        with open(path(name), "wb") as out:
            out.write(content)
        before = rows("SELECT * FROM sqlite_schema"), one("SELECT sum(length(vector)) FROM text")
        try:
            one("SELECT model_import('text', ?, '{\"replace\":true}')", path(name))
            raise AssertionError(name)
        except apsw.SQLError as error:
            assert path(name) in str(error) and place in str(error), error
        assert before == (rows("SELECT * FROM sqlite_schema"), one("SELECT sum(length(vector)) FROM text"))
    print("ok   broken files are errors with line or byte, and nothing is imported")

    # Questions.
    words = ["israel", "palestinian", "government", "australia", "cricket", "test", "bombings"]

    def near(ours, other):
        assert [w for w, _ in ours] == [w for w, _ in other], (ours, other)
        assert np.allclose([s for _, s in ours], [s for _, s in other], atol=2e-6), (ours, other)

    for word in words:
        near(rows("SELECT word, similarity FROM most_similar('text', ?, NULL, 10)", word), theirs.most_similar(word))
        one_by_one = rows("SELECT word, similarity FROM most_similar('text', ?, ?, 10, NULL, '3cosmul')",
                          json.dumps(words[:2]), word if word not in words[:2] else "the")
        near(one_by_one, theirs.most_similar_cosmul(words[:2], [word if word not in words[:2] else "the"]))
    assert abs(one("SELECT similarity('text', 'israel', 'cricket')") - theirs.similarity("israel", "cricket")) < 1e-6
    ours = one("SELECT n_similarity('text', ?, ?)", json.dumps(words[:2]), json.dumps(words[2:]))
    assert abs(ours - theirs.n_similarity(words[:2], words[2:])) < 1e-6
    assert one("SELECT doesnt_match('text', ?)", json.dumps(words)) == theirs.doesnt_match(words)
    print("ok   most_similar, 3CosMul, similarity, n_similarity, doesnt_match as gensim")

    for options in [{}, {"dummy4unknown": True}, {"case_insensitive": False}, {"restrict_vocab": 500}]:
        for file in ["wordsim353.tsv", "simlex999.txt"]:
            pearson, spearman, oov = theirs.evaluate_word_pairs(datapath(file), **options)
            (ours,) = rows("SELECT * FROM evaluate_word_pairs('text', ?, ?)", datapath(file), json.dumps(options))
            assert np.allclose(ours[:5], [pearson[0], pearson[1], spearman[0], spearman[1], oov], atol=1e-6), (file, ours)
        score, sections = theirs.evaluate_word_analogies(datapath("questions-words.txt"), **options)
        ours = rows("SELECT section, correct, incorrect FROM evaluate_word_analogies('text', ?, ?)",
                    datapath("questions-words.txt"), json.dumps({**options, "threads": 2}))
        expected = [(s["section"], len(s["correct"]), len(s["incorrect"])) for s in sections]
        assert ours == expected, (options, list(zip(ours, expected)))
    print("ok   word pairs and analogies, section by section:", ours[-1])


main()
