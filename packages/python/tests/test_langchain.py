"""The vector store: LangChain's own standard tests, and what is ours."""
import pytest

pytest.importorskip("langchain_core")
standard = pytest.importorskip("langchain_tests.integration_tests.vectorstores")
from langchain_core.embeddings import DeterministicFakeEmbedding  # noqa: E402

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
    assert store.similarity_search("one") == []
    with pytest.raises(ValueError, match="unknown metric"):
        SQLiteAnnoy(embedding, metric="near")
