"""The vector store: LangChain's own standard tests, and what is ours."""
import pytest

pytest.importorskip("langchain_core")
standard = pytest.importorskip("langchain_tests.integration_tests.vectorstores")
from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402

import sqlite_annoy  # noqa: E402
from sqlite_annoy.langchain import SQLiteAnnoy  # noqa: E402


class TestStandard(standard.VectorStoreIntegrationTests):
    @pytest.fixture()
    def vectorstore(self):
        return SQLiteAnnoy(self.get_embeddings())


@pytest.fixture
def embedding():
    return DeterministicFakeEmbedding(size=16)


def test_a_store_is_there_again_after_it_was_closed(embedding, file):
    store = SQLiteAnnoy.from_texts(["one", "two"], embedding, [{"n": 1}, {"n": 2}], ids=["a", "b"], path=file("s.db"))
    store.refresh()
    again = SQLiteAnnoy(embedding, file("s.db"))
    (document, distance), = again.similarity_search_with_score("two", k=1)
    assert (document.id, document.page_content, document.metadata) == ("b", "two", {"n": 2})
    assert distance == pytest.approx(0, abs=1e-6)
    assert again.vector_of("b") == pytest.approx(embedding.embed_query("two"), rel=1e-6)
    assert again.similarity_search_with_relevance_scores("two", k=1)[0][1] == pytest.approx(1)


def test_a_filter_leaves_exactly_k_documents(embedding):
    store = SQLiteAnnoy.from_texts([f"text {i}" for i in range(50)], embedding, [{"group": i % 5, "s": "x"} for i in range(50)])
    found = store.similarity_search("text 3", k=10, filter={"group": 3, "s": "x"})
    assert len(found) == 10 and all(d.metadata["group"] == 3 for d in found)
    assert store.similarity_search("text 3", filter={"group": "3"}) == []


ODD_KEYS = ['a"b', "back\\slash", "é", "dot.ted", "[0]", "new\nline", "", "it's"]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_filter_may_have_any_key(embedding, key):
    store = SQLiteAnnoy.from_texts(["one", "two", "three"], embedding, [{key: 1}, {key: [2, "x"]}, {"other": 1}], ids=["a", "b", "c"])
    assert [d.id for d in store.similarity_search("one", filter={key: 1})] == ["a"]
    assert [d.id for d in store.similarity_search("one", filter={key: [2, "x"]})] == ["b"]
    assert [d.id for d in store.similarity_search("one", filter={key: None})] == ["c"]


def test_a_filter_of_another_kind_is_an_error(embedding):
    store = SQLiteAnnoy.from_texts(["one"], embedding, [{"n": 1}])
    for wrong in ({"n": {"$gt": 0}}, {"$or": [{"n": 1}]}):
        with pytest.raises(ValueError, match="there are no operators"):
            store.similarity_search("one", filter=wrong)
    with pytest.raises(TypeError, match="expected a dict"):
        store.similarity_search("one", filter=lambda d: True)


def test_mmr_takes_a_filter_and_agrees_with_the_sql_function(embedding):
    for metric in ("cosine", "l2", "dot"):
        store = SQLiteAnnoy.from_texts([f"text {i}" for i in range(60)], embedding, [{"odd": i % 2} for i in range(60)], metric=metric)
        found = store.max_marginal_relevance_search("text 3", k=8, fetch_k=25, lambda_mult=0.4)
        sql = """SELECT d.document_id FROM mmr('documents_index', ?, 8, '{"lambda":0.4, "candidates":25}') m
            JOIN documents d ON d.id = m.id ORDER BY m.rank"""
        query = sqlite_annoy.serialize_float32(embedding.embed_query("text 3"))
        assert [d.id for d in found] == [key for (key,) in store._db.execute(sql, (query,))]
        found = store.max_marginal_relevance_search("text 3", k=8, filter={"odd": 1})
        assert len({d.id for d in found}) == 8 and all(d.metadata["odd"] == 1 for d in found)


def test_mmr_gives_different_documents(embedding):
    store = SQLiteAnnoy.from_texts(["same"] * 5 + ["other"], embedding)
    found = store.max_marginal_relevance_search("same", k=2, fetch_k=6, lambda_mult=0.3)
    assert {d.page_content for d in found} == {"same", "other"}


def test_a_failed_add_leaves_nothing(embedding):
    store = SQLiteAnnoy(embedding)
    with pytest.raises(ValueError, match="2 ids for 1 texts"):
        store.add_texts(["one"], ids=["a", "b"])
    with pytest.raises(TypeError):
        store.add_texts(["one", "two"], [{}, {"x": object()}])
    with pytest.raises(ValueError, match="JSON compliant"):
        store.add_texts(["one", "two"], [{}, {"x": float("nan")}])
    assert store.similarity_search("one") == []
    with pytest.raises(ValueError, match="unknown metric"):
        SQLiteAnnoy(embedding, metric="near")
