"""Shards and searches on Spark, in processes of its own (`local-cluster`), beside one database with all rows.

SPARK_SEED gives other data. Skipped where pyspark is not installed: `pip install 'sqlite-annoy[spark]'`.
"""
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'sqlite-annoy[spark]', and Java 17")

from pyspark.sql import SparkSession  # noqa: E402
from pyspark.sql import types as T  # noqa: E402

from sqlite_annoy import spark as annoy  # noqa: E402
from sqlite_annoy._connect import connect  # noqa: E402
from sqlite_annoy.spark.shards import Shard, Shards, distances  # noqa: E402

SEED = int(os.environ.get("SPARK_SEED", random.randrange(10**6)))
DIM, ROWS, QUERIES, K = 16, 6000, 120, 10


@pytest.fixture(scope="session")
def spark():
    print(f"SPARK_SEED={SEED}")
    # Else executors take the first python3 they find.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .appName("sqlite-annoy")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.executorEnv.PYTHONPATH", os.environ.get("PYTHONPATH", ""))
        .config("spark.executorEnv.SQLITE_ANNOY_PATH", os.environ.get("SQLITE_ANNOY_PATH", ""))
        .getOrCreate()
    )
    yield session
    session.stop()


def clusters(random, n):
    """Rows around forty centres, a few of them twice, so that there are ties."""
    centres = random.standard_normal((40, DIM)) * 3
    rows = (centres[random.integers(40, size=n)] + random.standard_normal((n, DIM)) * 0.6).astype(np.float32)
    rows[-n // 20:] = rows[: n // 20]
    return rows


class Data:
    def __init__(self, spark, folder):
        rng = np.random.default_rng(SEED)
        every = clusters(rng, ROWS + QUERIES)
        order = rng.permutation(len(every))
        self.rows, self.asked = every[order[:ROWS]], every[order[ROWS:]]
        self.rows[7] = 0
        self.asked[5] = 0
        self.asked[6] = self.rows[6]
        self.ids = rng.choice(10**12, size=ROWS, replace=False) - 5 * 10**11
        schema = "id bigint, vector array<float>, title string, heavy boolean, weight double"
        self.table = [
            (int(i), v.tolist(), f"title {i}", bool(i % 2), float(i) / 3) for i, v in zip(self.ids, self.rows)
        ]
        self.df = spark.createDataFrame(self.table, schema).repartition(5)
        self.queries = spark.createDataFrame(
            [(f"q{i}", v.tolist()) for i, v in enumerate(self.asked)], "id string, vector array<double>"
        ).repartition(3)
        self.db = connect(os.path.join(folder, "single.db"))
        self.db.execute("CREATE TABLE items(id INTEGER PRIMARY KEY, vector BLOB)")
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO items VALUES (?, ?)", ((int(i), v.tobytes()) for i, v in zip(self.ids, self.rows)))
        self.db.execute("COMMIT")

    def truth(self, metric, k=K):
        """{query: [(id, distance), ...]} by knn_exact over one table."""
        sql = "SELECT rowid, distance FROM knn_exact('items', 'vector', ?, ?, ?) ORDER BY distance, rowid"
        options = json.dumps({"metric": metric})
        return {f"q{i}": self.db.execute(sql, (v.tobytes(), k, options)).fetchall() for i, v in enumerate(self.asked)}


@pytest.fixture(scope="session")
def data(spark, tmp_path_factory):
    return Data(spark, str(tmp_path_factory.mktemp("single")))


def answers(found):
    """{query: [(id, distance), ...]} in order of rank."""
    out = {}
    for row in sorted(found.select("query", "rank", "id", "distance").collect()):
        assert row["rank"] == len(out.setdefault(row["query"], [])) + 1
        out[row["query"]].append((row["id"], row["distance"]))
    return out


def recall(found, truth):
    right = sum(len({i for i, _ in found.get(q, [])} & {i for i, _ in rows}) for q, rows in truth.items())
    return right / sum(map(len, truth.values()))


@pytest.mark.parametrize("by", ["hash", "centroid"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_exact_answers_are_those_of_one_database_to_the_last_bit(data, tmp_path, by, metric):
    shards = annoy.write_shards(data.df, str(tmp_path), 6, by=by, metric=metric)
    assert shards.rows == ROWS and len(shards) <= 6 and shards.dim == DIM
    truth = {q: [(i, d) for i, d in rows] for q, rows in data.truth(metric).items()}
    assert answers(annoy.knn(data.queries, str(tmp_path), K, exact=True)) == truth


@pytest.mark.parametrize("by", ["hash", "centroid"])
def test_the_recall_that_was_asked_for_is_found_and_distances_are_true(data, tmp_path, by):
    shards = annoy.write_shards(data.df, str(tmp_path), 3, by=by)
    truth = data.truth("cosine")
    found = answers(annoy.knn(data.queries, shards, K, recall=0.95))
    measured = recall(found, truth)
    print(f"recall {measured:.4f} of .95")
    assert measured >= 0.94
    vectors = dict(zip(map(int, data.ids), data.rows.astype(np.float64)))
    for query, rows in found.items():
        assert len(rows) == K
        q = data.asked[int(query[1:])].astype(np.float64)
        for i, distance in rows:
            norms = np.linalg.norm(q) * np.linalg.norm(vectors[i])
            assert distance == pytest.approx(1 - q @ vectors[i] / norms if norms else 1, abs=1e-6)


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
    with pytest.raises(ValueError, match="expected path="):
        annoy.knn_join(left, data.df, 3)
    with pytest.raises(ValueError, match="can only be given for a DataFrame"):
        annoy.knn_join(left, str(tmp_path), 3, id="number", n=4)


def test_fewer_rows_than_k_null_vectors_and_vectors_of_ml(spark, tmp_path):
    from pyspark.ml.linalg import Vectors, VectorUDT

    schema = T.StructType([T.StructField("id", T.IntegerType()), T.StructField("vector", VectorUDT())])
    df = spark.createDataFrame([(1, Vectors.dense([1.0, 0.0])), (2, None), (3, Vectors.dense([0.0, 1.0]))], schema)
    shards = annoy.write_shards(df, str(tmp_path / "a"), 4, by="centroid", storage="inline")
    assert shards.rows == 3
    blob = np.array([1, 0.5], "<f4").tobytes()
    queries = spark.createDataFrame([(1, bytearray(blob)), (2, None)], "id int, vector binary")
    for exact in (True, False):
        assert [i for i, _ in answers(annoy.knn(queries, shards, 5, exact=exact))[1]] == [1, 3]


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
    limits = np.array([rows[-1][1] for rows in data.truth("l2").values()])
    asked = shards.bounds(data.asked.astype(np.float64)) <= limits[:, None]
    print(f"{asked.sum() / len(asked):.2f} of {len(shards)} shards asked")
    assert asked.sum() / len(asked) < len(shards) / 2


def test_what_is_published_is_whole_or_the_one_before(spark, data, tmp_path):
    path = str(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing has been published"):
        annoy.open_shards(path)
    first = annoy.write_shards(data.df.limit(50), path, 2)
    before = sorted(os.listdir(path))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        annoy.write_shards(data.df, path, 2)
    bad = spark.createDataFrame([(1, [1.0, 2.0]), (2, [1.0])], "id int, vector array<float>")
    twice = spark.createDataFrame([(1, [1.0, 2.0]), (1, [1.0, 3.0])], "id int, vector array<float>")
    nobody = spark.createDataFrame([(None, [1.0, 2.0])], "id int, vector array<float>")
    nan = spark.createDataFrame([(1, [1.0, float("nan")])], "id int, vector array<float>")
    for df, n, message in [
        (bad, 1, "4 bytes: expected 8"), (bad, 2, "dimensions|bytes"), (twice, 1, "comes twice"), (nobody, 1, "an id is NULL"),
        (nan, 1, "(?i)nan"), (bad.limit(0), 2, "empty"),
    ]:
        with pytest.raises(Exception, match=message):
            annoy.write_shards(df, path, n, overwrite=True)
        assert sorted(os.listdir(path)) == before and annoy.open_shards(path) == first
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
    with pytest.raises(Exception, match="comes twice: expected unique"):
        annoy.knn(data.queries.union(data.queries), shards, 1).collect()


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


def executors():
    """Pids of the executors that this process's Spark has started."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                line = Path("/proc", entry, "cmdline").read_bytes()
                parent = int(Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()[1])
                grand = int(Path("/proc", str(parent), "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            if b"CoarseGrainedExecutorBackend" in line and os.getpid() in (parent, grand):
                found.append(int(entry))
    return sorted(found)


def killing_one(when, job):
    """Runs ``job``, kills an executor once ``when()`` is true; the result, and how the killing went."""
    out = {}

    def kill():
        deadline = time.time() + 120
        while time.time() < deadline:
            if when():
                out["killed"] = executors()[0]
                os.kill(out["killed"], signal.SIGKILL)
                return
            time.sleep(0.002)

    thread = threading.Thread(target=kill)
    thread.start()
    result = job()

    thread.join()
    assert "killed" in out, "the job was over before an executor could be killed"
    return result


def test_a_killed_executor_changes_nothing(spark, data, tmp_path):
    calm = annoy.write_shards(data.df, str(tmp_path / "calm"), 8, by="hash")
    path = tmp_path / "killed"

    def shard_is_being_built():
        done = list(path.glob("build-*/0*"))
        return 0 < len(done) < 6 and any(path.glob("build-*/building-*"))

    shards = killing_one(shard_is_being_built, lambda: annoy.write_shards(data.df, str(path), 8, by="hash"))
    assert [s.rows for s in shards.shards] == [s.rows for s in calm.shards]
    contents = "SELECT id, vector, title, heavy, weight FROM items ORDER BY id"
    for number in range(8):
        one, other = (connect(s.database(number), read_only=True).execute(contents).fetchall() for s in (shards, calm))
        assert one == other
    assert not list(path.glob("build-*/building-*")), "what killed tasks left is removed"

    # While queries run: batches are held up between search and merge until the executor is gone.
    started = tmp_path / "started"

    def marked(batches):
        for batch in batches:
            open(started, "w").close()
            time.sleep(1.0)
            yield batch

    queries = data.queries.mapInArrow(marked, data.queries.schema)
    found = killing_one(started.exists, lambda: answers(annoy.knn(queries, shards, K, exact=True)))
    assert found == data.truth("cosine")
