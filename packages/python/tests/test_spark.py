"""Shards and searches on Spark, in processes of its own (`local-cluster`), beside one database with all rows.

SPARK_SEED gives other data. Skipped where pyspark or Java is not installed: `pip install 'sqlite-annoy[spark]'`.
"""
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'sqlite-annoy[spark]', and Java 17")
if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
    pytest.skip("there is no Java: install 17", allow_module_level=True)

from pyspark.sql import types as T  # noqa: E402

from spark_cluster import DIM, K, QUERIES, ROWS, SEED, answers, clusters, frame, recall, single  # noqa: E402
from sqlite_annoy import spark as annoy  # noqa: E402
from sqlite_annoy._connect import connect  # noqa: E402
from sqlite_annoy.spark.shards import Shard, Shards, distances  # noqa: E402


@pytest.mark.parametrize("by", ["hash", "centroid"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_exact_answers_are_those_of_one_database_to_the_last_bit(data, tmp_path, by, metric):
    shards = annoy.write_shards(data.df, str(tmp_path), 6, by=by, metric=metric)
    assert shards.rows == ROWS and len(shards) <= 6 and shards.dim == DIM
    truth = {q: [(i, d) for i, d in rows] for q, rows in data.truth(metric).items()}
    assert answers(annoy.knn(data.queries, str(tmp_path), K, exact=True)) == truth


@pytest.mark.parametrize("by", ["hash", "centroid"])
def test_the_recall_that_was_asked_for_is_found_in_shards_whose_forest_is_searched(spark, tmp_path, by):
    rng = np.random.default_rng(SEED)
    every = clusters(rng, 60_400, dim=32, centres=200)
    order = rng.permutation(len(every))
    rows, asked = every[order[400:]], every[order[:400]]
    db = single(str(tmp_path / "single.db"), range(len(rows)), rows)
    pairs = db.execute("SELECT query, rowid FROM knn_exact_batch('items', 'vector', ?, ?)", (asked.tobytes(), K)).fetchall()
    truth = {q: [(i, None) for query, i in pairs if query == q] for q in range(len(asked))}
    shards = annoy.write_shards(frame(spark, range(len(rows)), rows), tmp_path / by, 2, by=by)
    for number, promise in itertools.product(range(len(shards)), (0.9, 0.95, 0.99)):
        db = connect(shards.database(number), read_only=True)
        options = json.dumps({"recall": promise})
        db.execute("SELECT * FROM knn_annoy_batch('items_index', ?, ?, ?)", (asked.tobytes(), K, options)).fetchall()
        way = db.execute("SELECT value FROM annoy_stats WHERE key = 'answered_by'").fetchall()
        assert way == [("index",)], f"not its forest: a shard of {shards.shards[number].rows} rows, recall {promise}"
    queries = frame(spark, range(len(asked)), asked)
    for promise in (0.9, 0.95, 0.99):
        found = answers(annoy.knn(queries, shards, K, recall=promise))
        measured = recall(found, truth)
        print(f"recall {measured:.4f} of {promise} by {by}, shards of {[s.rows for s in shards.shards]}, SPARK_SEED={SEED}")
        assert measured >= promise - 0.01
        for query, nearest in found.items():
            assert len(nearest) == K
            there = rows[[i for i, _ in nearest]].astype(np.float64)
            q = asked[query].astype(np.float64)
            cosines = there @ q / np.linalg.norm(there, axis=1) / np.linalg.norm(q)
            assert [d for _, d in nearest] == pytest.approx(1 - cosines, abs=1e-6)


def test_a_join_keeps_the_columns_of_both_sides(spark, data, tmp_path):
    left = spark.createDataFrame(
        [(i, "left", v.tolist()) for i, v in enumerate(data.asked)], "number int, title string, v array<float>"
    )
    found = annoy.knn_join(
        left, data.df, 3, id="number", vector="v", exact=True, path=str(tmp_path), n=4, by="centroid", metric="l2",
        columns=("title", "heavy", "weight"),
    )
    assert found.columns[:3] == ["number", "title", "v"]
    truth = data.truth("l2", 3)
    rows = found.collect()
    assert len(rows) == 3 * QUERIES
    for row in rows:
        assert (row["right_id"], row["distance"]) == truth[f"q{row['number']}"][row["rank"] - 1]
        i = row["right_id"]
        assert (row["title"], row["right_title"], row["heavy"], row["weight"]) == ("left", f"title {i}", bool(i % 2), i / 3)
    # Of a table with itself, by the same names.
    ten = data.df.orderBy("id").limit(10).select("id", "vector", "weight")
    found = annoy.knn_join(ten, str(tmp_path), 1, exact=True, columns=("weight",)).collect()
    assert len(found) == 10 and {row["rank"] for row in found} == {1}
    assert all(row["distance"] == 0 and row["right_id"] <= row["id"] and abs(row["weight"] - row["id"] / 3) < 1 for row in found)
    assert found[0].__fields__ == ["id", "vector", "weight", "right_id", "distance", "rank", "right_weight"]
    with pytest.raises(ValueError, match="expected path="):
        annoy.knn_join(left, data.df, 3)
    with pytest.raises(ValueError, match="can only be given for a DataFrame"):
        annoy.knn_join(left, str(tmp_path), 3, id="number", n=4)
    with pytest.raises(ValueError, match="left has a column 'rank', which the result adds"):
        annoy.knn_join(left.withColumnRenamed("title", "Rank"), str(tmp_path), 3, id="number", vector="v")


def test_fewer_rows_than_k_null_vectors_and_vectors_of_ml(spark, tmp_path):
    from pyspark.ml.linalg import Vectors, VectorUDT

    schema = T.StructType([T.StructField("id", T.IntegerType()), T.StructField("vector", VectorUDT())])
    sparse = Vectors.sparse(2, [1], [1.0])
    df = spark.createDataFrame([(1, Vectors.dense([1.0, 0.0])), (2, None), (3, sparse)], schema)
    blob = np.array([1, 0.5], "<f4").tobytes()
    queries = spark.createDataFrame([(1, bytearray(blob)), (2, None)], "id int, vector binary")
    for by in ("hash", "centroid"):
        shards = annoy.write_shards(df, str(tmp_path / by), 4, by=by, storage="inline")
        assert shards.rows == 3
        for exact in (True, False):
            found = answers(annoy.knn(queries, shards, 5, exact=exact))
            assert list(found) == [1] and [i for i, _ in found[1]] == [1, 3]
    # And as queries.
    assert sorted(answers(annoy.knn(df, shards, 1, exact=True))) == [1, 3]


def test_partitions_shards_and_queries_may_be_empty_and_paths_odd(spark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("a folder", "100% #1? größe")
    # The shard of 1 has only rows without a vector.
    one, *rest = [[i for i in range(40) if n == spark.sql(f"SELECT pmod(hash({i}L), 2)").first()[0]] for n in (0, 1)]
    rows = [(i, None if i in one else [float(i), 1.0]) for i in range(40)]
    df = spark.createDataFrame(rows, "id bigint, vector array<double>").repartition(64, "id")
    shards = annoy.write_shards(df, path, 2, metric="l2")
    assert shards.path == str(tmp_path / path) and [shard.rows for shard in shards.shards] == [len(one), len(rest[0])]
    queries = spark.createDataFrame([(7, [0.0, 1.0])], "id int, vector array<float>")
    for exact in (True, False):
        expected = [(i, float(i)) for i in sorted(rest[0])[:3]]
        assert answers(annoy.knn(queries.repartition(8), path, 3, exact=exact)) == {7: expected}
        assert annoy.knn(queries.where("id = 0"), path, 3, exact=exact).collect() == []
    with pytest.raises(ValueError, match="s3://bucket/items is a URL: expected a folder"):
        annoy.write_shards(df, "s3://bucket/items", 2)


def test_bounds_are_never_above_a_distance():
    rng = np.random.default_rng(SEED)
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    for metric in ("cosine", "l2", "dot"):
        for spread in (1e-4, 0.3, 2.0):
            for n in (1, 2, 7):
                centroids = rng.standard_normal((n, 8)) * 2
                centroids = unit(centroids) if metric == "cosine" else centroids
                rows = centroids[rng.integers(n, size=400)] + rng.standard_normal((400, 8)) * spread
                rows = rows.astype(np.float32).astype(np.float64)
                away = distances(rows, centroids, metric)
                number = away.argmin(axis=1)
                radii = [float(away[number == j, j].max(initial=0)) for j in range(n)]
                shards = Shards("", metric, 8, {}, [Shard("", 0, c.tolist(), r) for c, r in zip(centroids, radii)])
                queries = np.concatenate([rng.standard_normal((50, 8)) * 3, rows[:50], -rows[:50]])
                low = shards.bounds(queries)
                true = {
                    "cosine": lambda: 1 - unit(queries) @ unit(rows).T,
                    "l2": lambda: np.linalg.norm(queries[:, None] - rows[None], axis=2),
                    "dot": lambda: -(queries @ rows.T),
                }[metric]()
                for j in range(n):
                    some = true[:, number == j].min(axis=1, initial=np.inf)
                    assert (low[:, j] <= some).all(), (SEED, metric, spread, n)
                    # And they are worth something: far queries have a bound of most of the distance.
                    if spread < 1e-3 and metric == "l2" and (number == j).any():
                        assert (low[:50, j] > 0.99 * some[:50]).all(), (SEED, n)


def test_far_shards_are_left_out(spark, data, tmp_path):
    shards = annoy.write_shards(data.df, str(tmp_path), 8, by="centroid", metric="l2")
    truth = data.truth("l2")
    limits = np.array([rows[-1][1] for rows in truth.values()])
    asked = shards.bounds(data.asked.astype(np.float64)) <= limits[:, None]
    print(f"{asked.sum() / len(asked):.2f} of {len(shards)} shards asked")
    assert asked.sum() / len(asked) < len(shards) / 2
    # What is left out need not even be there.
    few = int(asked.sum(axis=1).argmin())
    assert asked[few].sum() <= len(shards) / 2, SEED
    for number in np.flatnonzero(~asked[few]):
        os.remove(shards.database(number))
    found = answers(annoy.knn(data.queries.where(f"id = 'q{few}'"), shards, K, exact=True))
    assert found == {f"q{few}": truth[f"q{few}"]}


def test_what_is_published_is_whole_or_the_one_before(spark, data, tmp_path):
    path = str(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing has been published"):
        annoy.open_shards(path)
    first = annoy.write_shards(data.df.limit(50), path, 2)
    before = sorted(os.listdir(path))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        annoy.write_shards(data.df, path, 2)
    two = [(1, [1.0, 2.0])]
    nan = float("nan")
    for rows, by, n, message in [
        ([*two, (2, [1.0])], "hash", 1, "4 bytes: expected 8"),
        ([*two, (2, [1.0]), (3, [2.0]), (4, [3.0])], "hash", 2, "dimensions|bytes"),
        ([*two, (2, [1.0])], "centroid", 2, "bytes|dimensions"),
        ([*two, (1, [1.0, 3.0])], "hash", 2, "an id comes twice among 1 to 1"),
        ([*two, (1, [-5.0, 3.0])], "centroid", 2, "id 1 comes twice"),
        ([(None, [1.0, 2.0])], "hash", 1, "an id is NULL"),
        ([*two, (None, [1.0, 2.0]), (None, [-5.0, 1.0])], "centroid", 2, "an id is NULL"),
        ([(1, [1.0, nan])], "hash", 1, "(?i)nan"),
        ([(1, [1.0, None])], "hash", 1, "NULL component"),
        ([(1, [])], "hash", 1, "zero-length vectors are not supported"),
        ([(1, None)], "hash", 1, "no dimensions"),
        ([(1, None)], "centroid", 1, "there are no vectors"),
        ([], "hash", 2, "the DataFrame is empty"),
    ]:
        bad = spark.createDataFrame(rows, "id int, vector array<float>")
        with pytest.raises(Exception, match=message):
            annoy.write_shards(bad, path, n, by=by, overwrite=True)
        assert sorted(os.listdir(path)) == before and annoy.open_shards(path) == first, message
    second = annoy.write_shards(data.df.limit(60), path, 2, overwrite=True)
    assert second.rows == 60 and annoy.open_shards(path) == second and Path(first.database(0)).exists()
    assert annoy.remove_unlisted(path) == [first.shards[0].folder.split("/")[0]]
    assert sorted(os.listdir(path)) == sorted([second.shards[0].folder.split("/")[0], "manifest.json"])
    for number in range(len(second)):
        db = connect(second.database(number), read_only=True)
        assert ("state", "current") in [tuple(row) for row in db.execute("SELECT key, value FROM annoy_info('items_index')")]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(n=0), ValueError, "0 shards: expected 1 or more"),
        (dict(by="range"), ValueError, "expected hash or centroid"),
        (dict(metric="l1"), ValueError, "expected cosine or l2 or dot"),
        (dict(id="title"), TypeError, "'title' is string: expected an integer"),
        (dict(id="key"), ValueError, "no column 'key': expected one of id, vector"),
        (dict(vector="title"), TypeError, "'title' is string: expected array<float>"),
    ],
)
def test_what_cannot_be_written_is_said_before_any_work(data, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        annoy.write_shards(data.df, str(tmp_path / "none"), **{"n": 2, **arguments})
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_asked_is_an_error(spark, data, tmp_path):
    shards = annoy.write_shards(data.df.limit(50), str(tmp_path), 2)
    with pytest.raises(ValueError, match="k is 0"):
        annoy.knn(data.queries, shards, 0)
    with pytest.raises(ValueError, match="no column 'name': expected some of title, heavy, weight"):
        annoy.knn(data.queries, shards, 1, columns=("name",))
    with pytest.raises(ValueError, match="recall is 95"):
        annoy.knn(data.queries, shards, 1, recall=95)
    short = spark.createDataFrame([(1, [1.0, 2.0])], "id int, vector array<float>")
    with pytest.raises(Exception, match=r"8 bytes: expected 64 \(16 float32\)"):
        annoy.knn(short, shards, 1).collect()
    with pytest.raises(Exception, match="'q1' comes twice: expected unique"):
        annoy.knn(data.queries.where("id = 'q1'").union(data.queries), shards, 1).collect()
    # Two of one name that are sent to different shards.
    table = [(1, [9.0, 0.0], 0.0), (2, [0.0, 9.0], 0.0)]
    shards = annoy.write_shards(
        spark.createDataFrame(table, "id int, vector array<float>, rank double"), tmp_path / "two", 2, by="centroid"
    )
    assert len(shards) == 2
    twice = spark.createDataFrame([(5, [1.0, 0.0]), (5, [0.0, 1.0])], "id int, vector array<float>")
    with pytest.raises(Exception, match="query 5 comes twice: expected unique"):
        annoy.knn(twice, shards, 1).collect()
    with pytest.raises(ValueError, match="'rank' has the name of a column of the result"):
        annoy.knn(twice, shards, 1, columns=("rank",))
    shutil.rmtree(tmp_path / "two")
    with pytest.raises(Exception, match="is missing on .*: expected a path that all executors share"):
        annoy.knn(twice, shards, 1).collect()


def test_a_word2vec_model_of_spark_is_a_model_here(spark, file):
    from pyspark.ml.feature import Word2Vec

    text = [(f"the moon at night and the bread of {w}".split(),) for w in ["day", "star", "sun"] * 20]
    df = spark.createDataFrame(text, "words array<string>")
    model = Word2Vec(vectorSize=12, minCount=1, inputCol="words", outputCol="v", seed=1, maxIter=1).fit(df)
    counts = df.selectExpr("explode(words) word").groupBy("word").count()
    assert annoy.import_word2vec(model, file("m.db"), "words", counts) == 10
    db = connect(file("m.db"))
    vectors = {row["word"]: row["vector"].toArray() for row in model.getVectors().collect()}
    rows = db.execute("SELECT id, word, vector FROM words ORDER BY id").fetchall()
    assert [i for i, _, _ in rows] == list(range(10)) and rows[0][1] == "the"
    for _, word, vector in rows:
        assert np.array_equal(np.frombuffer(vector, "<f4"), vectors[word].astype("<f4"))
    best = db.execute("SELECT word, similarity FROM most_similar('words', 'moon', NULL, 1)").fetchone()
    theirs = model.findSynonyms("moon", 1).first()
    assert best[0] == theirs["word"] and best[1] == pytest.approx(theirs["similarity"], abs=1e-5)
