"""The indexer in gensim's most_similar, beside gensim's own."""
import pytest

pytest.importorskip("gensim")
from gensim.models import Doc2Vec, FastText, KeyedVectors, Word2Vec  # noqa: E402
from gensim.models.doc2vec import TaggedDocument  # noqa: E402

from sqlite_annoy.gensim import AnnoyIndexer  # noqa: E402

TEXTS = [f"word{i % 7} word{i % 11} word{i % 13} word{i % 5} word{i % 3}".split() for i in range(300)]
SHORT = {"vector_size": 20, "min_count": 1, "epochs": 3, "seed": 1, "workers": 1}


def models():
    word2vec = Word2Vec(TEXTS, **SHORT)
    yield word2vec, word2vec.wv
    yield word2vec.wv, word2vec.wv
    fasttext = FastText(TEXTS, **SHORT)
    yield fasttext, fasttext.wv
    doc2vec = Doc2Vec([TaggedDocument(text, [f"text {i}"]) for i, text in enumerate(TEXTS)], **SHORT)
    yield doc2vec, doc2vec.dv


def test_most_similar_is_as_without_an_indexer_and_comes_as_from_gensims_own():
    own = pytest.importorskip("gensim.similarities.annoy").AnnoyIndexer
    for model, vectors in models():
        assert isinstance(vectors, KeyedVectors)
        indexer, theirs = AnnoyIndexer(model, 50), own(model, 50)
        for key in vectors.index_to_key[:5]:
            # With an indexer gensim does not leave out the word that was asked for.
            exact = [(key, 1.0), *vectors.most_similar(key, topn=4)]
            found = vectors.most_similar(key, topn=5, indexer=indexer)
            assert [similarity for _, similarity in found] == pytest.approx([s for _, s in exact], abs=1e-5)
            peer = vectors.most_similar(key, topn=5, indexer=theirs)
            assert type(found[0]) is type(peer[0]) and type(found[0][0]) is type(peer[0][0])


def test_save_and_load(file):
    model = Word2Vec(TEXTS, **SHORT)
    indexer = AnnoyIndexer(model, 3)
    wanted = model.wv.most_similar("word1", topn=5, indexer=indexer)
    indexer.save(file("indexer.db"))
    assert model.wv.most_similar("word1", topn=5, indexer=indexer) == wanted
    again = AnnoyIndexer()
    again.load(file("indexer.db"))
    again.model = model
    assert model.wv.most_similar("word1", topn=5, indexer=again) == wanted
    assert (again.labels, again.num_trees) == (indexer.labels, 3)
    with pytest.raises(OSError):
        AnnoyIndexer().load(file("missing.db"))


def test_no_model_is_an_error():
    with pytest.raises(ValueError):
        AnnoyIndexer("model", 3)
    with pytest.raises(ValueError):
        AnnoyIndexer().most_similar([1.0], 1)
