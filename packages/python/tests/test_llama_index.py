"""The vector store of LlamaIndex: beside its own store in memory, and what is ours."""
import pytest

pytest.importorskip("llama_index.core")
from llama_index.core import StorageContext, VectorStoreIndex  # noqa: E402
from llama_index.core.embeddings import MockEmbedding  # noqa: E402
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode  # noqa: E402
from llama_index.core.vector_stores import SimpleVectorStore  # noqa: E402
from llama_index.core.vector_stores.types import (  # noqa: E402
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from sqlite_annoy.llama_index import SQLiteAnnoyVectorStore  # noqa: E402

WORDS = ["Moon", "bread and butter", "the moon at night", "", "night"]


def nodes(rng, n=200, dimensions=8):
    """Nodes of ten documents; some have no colour, tags or year."""
    made = []
    for i in range(n):
        metadata = {"n": i, "group": f"g{i % 7}", "words": WORDS[i % 5]}
        if i % 3:
            metadata["year"] = 1990 + i % 40
        if i % 4:
            metadata["tags"] = [f"t{i % 5}", f"t{i % 6}"]
        node = TextNode(id_=f"node-{i}", text=f"text {i}", metadata=metadata, embedding=rng.normal(size=dimensions).tolist())
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{i % 10}")
        made.append(node)
    return made


def condition(key, value, operator=FilterOperator.EQ):
    return MetadataFilter(key=key, value=value, operator=operator)


O = FilterOperator
FILTERS = {
    "equal": [condition("group", "g3")],
    "equal, of another type": [condition("n", "3")],
    "equal to a number": [condition("year", 2001)],
    "not equal": [condition("year", 2001, O.NE)],
    "greater": [condition("n", 150, O.GT)],
    "less": [condition("n", 20.5, O.LT)],
    "between": [condition("n", 20, O.GTE), condition("n", 30, O.LTE)],
    "in": [condition("group", ["g1", "g2", "g9"], O.IN)],
    "not in": [condition("year", [2001, 2002], O.NIN)],
    "contains": [condition("tags", "t4", O.CONTAINS)],
    "any": [condition("tags", ["t4", "t5"], O.ANY)],
    "all": [condition("tags", ["t1", "t2"], O.ALL)],
    "text": [condition("words", "moon", O.TEXT_MATCH)],
    "text, case aside": [condition("words", "MOON", O.TEXT_MATCH_INSENSITIVE)],
    "empty": [condition("words", None, O.IS_EMPTY)],
    "missing": [condition("tags", None, O.IS_EMPTY)],
    "two": [condition("group", "g3"), condition("words", "moon", O.TEXT_MATCH)],
}


@pytest.mark.parametrize("how", list(FilterCondition))
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_llama_indexs_own_store_finds(rng, name, how):
    theirs, ours, made = SimpleVectorStore(), SQLiteAnnoyVectorStore(), nodes(rng)
    theirs.add(made)
    assert ours.add(made) == [node.node_id for node in made]
    filters = MetadataFilters(filters=FILTERS[name], condition=how)
    query = VectorStoreQuery(query_embedding=rng.normal(size=8).tolist(), similarity_top_k=200, filters=filters)
    want, got = theirs.query(query), ours.query(query)
    assert got.ids == want.ids
    assert [2 * s - 1 for s in got.similarities] == pytest.approx(want.similarities, abs=1e-5)
    assert {node.node_id for node in ours.get_nodes(filters=filters)} == set(want.ids)


def test_filters_can_be_nested(rng):
    store = SQLiteAnnoyVectorStore()
    store.add(nodes(rng))
    groups = MetadataFilters(filters=[condition("group", "g1"), condition("group", "g2")], condition=FilterCondition.OR)
    filters = MetadataFilters(filters=[groups, condition("n", 30, O.LT)])
    assert [node.metadata["n"] for node in store.get_nodes(filters=filters)] == [n for n in range(30) if n % 7 in (1, 2)]


def test_a_filter_that_takes_no_such_value_is_an_error(rng):
    store = SQLiteAnnoyVectorStore()
    for wrong, message in [
        (condition("n", 3, O.IN), "expected a list, got 3"),
        (condition("n", 3, O.TEXT_MATCH), "expected a text, got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.get_nodes(filters=MetadataFilters(filters=[wrong]))


@pytest.mark.parametrize("key", ['a"b', "back\\slash", "é", "dot.ted", "[0]", "new\nline", "it's"])
def test_a_filter_may_have_any_key(key):
    store = SQLiteAnnoyVectorStore()
    store.add([
        TextNode(id_=name, text=name, embedding=[1.0, 0.5], metadata=metadata)
        for name, metadata in (("one", {key: 1}), ("list", {key: ["x", "y"]}), ("none", {"other": 1}))
    ])
    for value, operator, want in [
        (1, O.EQ, ["one"]), (1, O.NE, ["list", "none"]), (["x", "z"], O.ANY, ["list"]), (["x", "y"], O.ALL, ["list"]),
        ("y", O.CONTAINS, ["list"]), ([1, 2], O.IN, ["one"]), (None, O.IS_EMPTY, ["none"]),
    ]:
        found = store.get_nodes(filters=MetadataFilters(filters=[condition(key, value, operator)]))
        assert [node.node_id for node in found] == want, operator


def test_nodes_come_back_as_they_were(rng, file):
    made = nodes(rng, 20)
    store = SQLiteAnnoyVectorStore(file("s.db"))
    store.add(made)
    store.refresh()
    again = SQLiteAnnoyVectorStore(file("s.db"))
    result = again.query(VectorStoreQuery(query_embedding=made[7].embedding, similarity_top_k=1))
    (node,) = result.nodes
    assert (node.node_id, node.text, node.metadata, node.ref_doc_id) == ("node-7", "text 7", made[7].metadata, "doc-7")
    assert result.similarities == pytest.approx([1], abs=1e-6)
    assert again.client.execute("SELECT count(*) FROM nodes").fetchone() == (20,)


def test_nodes_are_replaced_and_deleted(rng):
    made, store = nodes(rng, 30), SQLiteAnnoyVectorStore()
    store.add(made)
    store.add([TextNode(id_="node-4", text="new", embedding=[1.0] * 8)])
    assert [node.text for node in store.get_nodes(["node-4"])] == ["new"]
    left = lambda: {node.node_id for node in store.get_nodes()}
    store.delete("doc-3")
    store.delete("nobody")
    assert left() == {f"node-{i}" for i in range(30) if i % 10 != 3}
    store.delete_nodes()
    assert len(left()) == 27
    store.delete_nodes(["node-0", "node-1"], MetadataFilters(filters=[condition("group", "g1")]))
    assert len(left()) == 26 and "node-1" not in left()
    near = {"query_embedding": made[5].embedding, "similarity_top_k": 9}
    query = VectorStoreQuery(**near, doc_ids=["doc-5", "doc-6"], node_ids=["node-5", "node-8"])
    assert store.query(query).ids == ["node-5"]
    store.clear()
    assert left() == set()


def test_a_failed_add_leaves_nothing(rng):
    store = SQLiteAnnoyVectorStore()
    with pytest.raises(ValueError, match="embedding not set"):
        store.add([*nodes(rng, 3), TextNode(text="no embedding")])
    assert store.get_nodes() == []
    with pytest.raises(ValueError, match="unknown metric"):
        SQLiteAnnoyVectorStore(metric="near")
    with pytest.raises(ValueError, match="no embedding"):
        store.query(VectorStoreQuery(query_str="moon"))
    with pytest.raises(ValueError, match="expected default or mmr"):
        store.query(VectorStoreQuery(query_embedding=[1.0] * 8, mode=VectorStoreQueryMode.SPARSE))


def test_mmr_gives_different_nodes():
    store = SQLiteAnnoyVectorStore()
    store.add([TextNode(id_=f"same-{i}", text="same", embedding=[1.0, 0.01 * i, 0.0]) for i in range(5)])
    store.add([TextNode(id_="other", text="other", embedding=[0.6, 0.0, 0.8])])
    query = VectorStoreQuery(query_embedding=[1.0, 0.0, 0.0], similarity_top_k=2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.3)
    assert store.query(query).ids == ["same-0", "other"]
    query.filters = MetadataFilters(filters=[condition("kind", "x")])
    assert store.query(query).ids == []
    store.add([TextNode(id_=f"x-{i}", text="x", embedding=[0.9, 0.01 * i, 0.3], metadata={"kind": "x"}) for i in range(3)])
    assert store.query(query).ids[0] == "x-0" and len(store.query(query).ids) == 2


def test_an_index_of_llama_index_uses_it(file):
    embedding = MockEmbedding(embed_dim=6)
    store = SQLiteAnnoyVectorStore(file("s.db"), metric="l2")
    nodes = [TextNode(text=f"text {i}", metadata={"n": i}) for i in range(5)]
    VectorStoreIndex(nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=embedding)
    again = VectorStoreIndex.from_vector_store(SQLiteAnnoyVectorStore(file("s.db"), metric="l2"), embed_model=embedding)
    filters = MetadataFilters(filters=[condition("n", 2, O.GT)])
    found = again.as_retriever(similarity_top_k=4, filters=filters).retrieve("anything")
    assert sorted(hit.node.text for hit in found) == ["text 3", "text 4"]
    assert all(hit.score == pytest.approx(1) for hit in found)
