-- The tour: from 300 news documents to word vectors, an index, and neighbours, in SQL.
--
-- It walks the way of gensim's tutorial on Annoy and asks its questions: how near are the answers of an approximate
-- index to the exact ones, how much faster do they come, what does an index cost, and who can share it?
--
--   cargo run --release --example tour      finds or downloads the corpus and runs this file
--   sqlite3 < sql/tour.sql                  the same in the sqlite3 shell (after cargo build --release, in this
--                                           folder, with the corpus in target/tour/lee_background.cor)
.bail on
.mode box
.shell mkdir -p target/tour
.shell rm -f target/tour/tour.db*
.open target/tour/tour.db
.load ./target/release/libsqlite_annoy
.echo on
SELECT annoy_version();

-- 1. The corpus ------------------------------------------------------------------------------------------------------
-- One document a line, so one document a row.
CREATE TABLE lee(id INTEGER PRIMARY KEY, body TEXT NOT NULL);
INSERT INTO lee SELECT line, text FROM text_lines('target/tour/lee_background.cor');
SELECT count(*) AS documents, substr(body, 1, 50) || '...' AS first FROM lee;

-- 2. Training --------------------------------------------------------------------------------------------------------
-- One call reads the table and makes another: words(id, word, count, vector), the most frequent word first. Options
-- have gensim's names and defaults; here every word counts, even those that occur once.
SELECT key, value
  FROM json_each(word2vec_train('words', 'lee', 'body', '{"vector_size":100, "window":5, "min_count":1, "epochs":5}'))
 WHERE key IN ('vocabulary', 'vector_size', 'alpha', 'tokens', 'seconds', 'words_per_second', 'loss');
SELECT id, word, count, length(vector) / 4 AS dim, substr(vec_to_json(vector), 1, 38) || ' ...]' AS vector
  FROM words LIMIT 3;

-- The metric will be cosine, which looks at directions only, so vectors need no preparation. Those who want unit
-- vectors in a table of their own say so:
CREATE TABLE unit_words AS SELECT id, word, vec_normalize(vector) AS vector FROM words;
SELECT round(min(vec_norm(vector)), 6) AS shortest, round(max(vec_norm(vector)), 6) AS longest FROM unit_words;
DROP TABLE unit_words;

-- 3. Exact neighbours ------------------------------------------------------------------------------------------------
-- Without an index, a search compares the query with every row. The query is a vector: here that of a word.
CREATE TABLE question AS SELECT word, vector FROM words WHERE word IN ('science', 'army');
SELECT q.word, w.word AS neighbour, round(n.distance, 6) AS distance
  FROM question q, knn_exact('words', 'vector', q.vector, 5) n JOIN words w ON w.id = n.rowid
 ORDER BY q.word, n.distance;

-- What it takes, for the table at the end of the next chapter.
CREATE TABLE timing(method TEXT PRIMARY KEY, cold_ms REAL, warm_ms REAL, build_s REAL);
INSERT INTO timing(method, cold_ms, warm_ms) SELECT 'exact, from the table', first_ms, median_ms
  FROM annoy_time('SELECT n.* FROM question q, knn_exact(''words'', ''vector'', q.vector, 5) n WHERE q.word = ''science''');

-- 4. An index --------------------------------------------------------------------------------------------------------
-- A forest of 500 trees over the column, in one file beside the database, then a second one of 100. From now on the
-- indexes follow the table: rows that change are found at once, and the next rebuild takes them in.
SELECT annoy_progress('stderr') AS 'progress was';
CREATE VIRTUAL TABLE words_500 USING annoy(words, vector, metric=cosine, trees=500);
CREATE VIRTUAL TABLE words_100 USING annoy(words, vector, metric=cosine, trees=100);
SELECT name, trees, items, bytes, state FROM annoy_indexes;

-- The same questions to the index. The last argument is Annoy's search_k, the number of rows to look at; given it, the
-- trees alone answer, whatever the size of the table. Annoy's default is k * trees.
CREATE TABLE answer(method TEXT, word TEXT, neighbour TEXT, distance REAL);
INSERT INTO answer
  SELECT 'exact', q.word, w.word, n.distance
    FROM question q, knn_exact('words', 'vector', q.vector, 5) n JOIN words w ON w.id = n.rowid;
INSERT INTO answer
  SELECT '500 trees', q.word, w.word, n.distance
    FROM question q, knn_annoy('words_500', q.vector, 5, 5 * 500) n JOIN words w ON w.id = n.rowid;
INSERT INTO answer
  SELECT '100 trees', q.word, w.word, n.distance
    FROM question q, knn_annoy('words_100', q.vector, 5, 5 * 100) n JOIN words w ON w.id = n.rowid;
SELECT word, method, group_concat(neighbour, ', ') AS 'top 5, nearest first' FROM answer GROUP BY word, method;

-- Cold is the first query of a new connection: it prepares the statement, opens and maps the index. Warm is the median
-- of those that follow. Once there is an index, knn_exact scans its file instead of the table.
.open target/tour/tour.db
.load ./target/release/libsqlite_annoy
INSERT INTO timing(method, cold_ms, warm_ms) SELECT '500 trees', first_ms, median_ms
  FROM annoy_time('SELECT n.* FROM question q, knn_annoy(''words_500'', q.vector, 5, 5 * 500) n WHERE q.word = ''science''');
INSERT INTO timing(method, cold_ms, warm_ms) SELECT '100 trees', first_ms, median_ms
  FROM annoy_time('SELECT n.* FROM question q, knn_annoy(''words_100'', q.vector, 5, 5 * 100) n WHERE q.word = ''science''');
INSERT INTO timing(method, cold_ms, warm_ms) SELECT 'exact, from the index file', first_ms, median_ms
  FROM annoy_time('SELECT n.* FROM question q, knn_exact(''words'', ''vector'', q.vector, 5) n WHERE q.word = ''science''');
UPDATE timing SET build_s = (SELECT value FROM annoy_info('words_500') WHERE key = 'build_seconds') WHERE method = '500 trees';
UPDATE timing SET build_s = (SELECT value FROM annoy_info('words_100') WHERE key = 'build_seconds') WHERE method = '100 trees';

-- The break-even: after so many queries the build has paid for itself, against a scan of the table.
SELECT method, round(cold_ms, 3) AS cold_ms, round(warm_ms, 3) AS warm_ms, round(build_s, 2) AS build_s,
       CASE WHEN build_s IS NULL THEN ''
            WHEN warm_ms < table_ms THEN 1 + CAST(build_s * 1000 / (table_ms - warm_ms) AS INTEGER)
            ELSE 'never' END AS break_even_queries
  FROM timing, (SELECT warm_ms AS table_ms FROM timing WHERE method = 'exact, from the table')
 ORDER BY timing.rowid;

-- That was Annoy's way. In practice an index needs no options: one tree, and no search_k, because the build measures
-- how far a search must look to keep a promise of recall (0.95 unless told otherwise). Three ways to search, judged
-- against the exact search of the index file over 200 random words. Most words of so small a corpus occur once or
-- twice; their vectors have hardly left the random place where they began, and no index finds them easily. And at ten
-- thousand rows an exact scan of the file is nearly as fast, so below that knn_annoy answers exactly by itself.
CREATE VIRTUAL TABLE words_index USING annoy(words, vector);
CREATE TABLE judged AS
  SELECT '100 trees, search_k = 5 * 100' AS method, * FROM annoy_recall('words_100', 5, 200, '{"search_k":500}')
  UNION ALL SELECT 'no options', * FROM annoy_recall('words_index', 5, 200)
  UNION ALL SELECT 'recall 0.99', * FROM annoy_recall('words_index', 5, 200, '{"recall":0.99}');
SELECT method, round(recall, 3) AS 'recall@5', CAST(exact_qps AS INTEGER) AS 'exact queries/s',
       CAST(annoy_qps AS INTEGER) AS 'queries/s', round(build_seconds, 2) AS build_s,
       coalesce(break_even, 'never') AS break_even_queries
  FROM judged;

-- 5. Save and load ---------------------------------------------------------------------------------------------------
-- There is nothing to save: the index was a file from the start, and this connection is a new one already. What it
-- finds must be what the first connection found, row by row: no difference, in either direction.
SELECT count(*) AS differences FROM (
  SELECT q.word, w.word, n.distance
    FROM question q, knn_annoy('words_500', q.vector, 5, 5 * 500) n JOIN words w ON w.id = n.rowid
  EXCEPT SELECT word, neighbour, distance FROM answer WHERE method = '500 trees');
SELECT count(*) AS differences FROM (
  SELECT word, neighbour, distance FROM answer WHERE method = '500 trees'
  EXCEPT SELECT q.word, w.word, n.distance
    FROM question q, knn_annoy('words_500', q.vector, 5, 5 * 500) n JOIN words w ON w.id = n.rowid);

-- 6. Two processes, one index ----------------------------------------------------------------------------------------
-- The file is mapped read-only, so all processes share one copy in memory. This one first, then a second process that
-- asks the same index: `mapped_private` is what of the index it has for itself.
SELECT 'first' AS process, mapped, mapped_rss, mapped_rss - mapped_private AS shared, mapped_private FROM annoy_memory;
.shell ${TOUR_HOST:-sqlite3} -box target/tour/tour.db ".load ./target/release/libsqlite_annoy" "SELECT group_concat(w.word, ', ') AS 'science, asked by the second process' FROM question q, knn_annoy('words_500', q.vector, 5, 2500) n JOIN words w ON w.id = n.rowid WHERE q.word = 'science';" "SELECT 'second' AS process, mapped, mapped_rss, mapped_rss - mapped_private AS shared, mapped_private FROM annoy_memory;"

-- 7. Documents -------------------------------------------------------------------------------------------------------
-- A text becomes a vector as well: the weighted mean of those of its words. So documents have neighbours, and any
-- sentence can be the query. What a text is about shows better in skip-gram vectors than in the tutorial's CBOW ones.
SELECT key, value
  FROM json_each(word2vec_train('topics', 'lee', 'body', '{"sg":1, "epochs":20, "min_count":2, "tokenizer":"simple"}'))
 WHERE key IN ('vocabulary', 'tokens', 'seconds');
CREATE TABLE documents(id INTEGER PRIMARY KEY REFERENCES lee, vector BLOB);
INSERT INTO documents SELECT id, text_vector('topics', body) FROM lee;
CREATE VIRTUAL TABLE documents_index USING annoy(documents, vector);
SELECT n.rowid AS document, round(n.distance, 4) AS distance, substr(l.body, 1, 54) || '...' AS 'like the first document'
  FROM documents d, knn_annoy('documents_index', d.vector, 4) n JOIN lee l ON l.id = n.rowid
 WHERE d.id = 1;
SELECT n.rowid AS document, round(n.distance, 4) AS distance, substr(l.body, 1, 54) || '...' AS 'on peace talks'
  FROM knn_annoy('documents_index', text_vector('topics', 'peace talks between israel and the palestinians'), 3) n
  JOIN lee l ON l.id = n.rowid;
SELECT n.rowid AS document, round(n.distance, 4) AS distance, substr(l.body, 1, 54) || '...' AS 'on cricket'
  FROM knn_annoy('documents_index', text_vector('topics', 'wickets and runs on the first day of the test match'), 3) n
  JOIN lee l ON l.id = n.rowid;

-- 8. More trees ------------------------------------------------------------------------------------------------------
-- What trees cost: forests of 1 to 100 trees, built in memory.
CREATE TABLE cost AS SELECT * FROM annoy_sweep('words', 'vector', '1,10,20,30,40,50,60,70,80,90,100', 5);
SELECT trees, round(build_seconds, 3) AS build_seconds, bytes, round(query_us, 1) AS query_us FROM cost;

-- What trees find: recall@100 of the trees alone, with Annoy's budget of 100 * trees rows, for the word of rank 0 as in
-- the tutorial, and for the mean over 200 random words, most of them rare and hard to find.
CREATE TABLE found AS
  SELECT trees, recall, 'the word of rank 0' AS query FROM annoy_sweep('words', 'vector', '1..29', 100)
  UNION ALL
  SELECT trees, recall, 'mean of 200 words' FROM annoy_sweep('words', 'vector', '1..29', 100, '{"sample":200}');
SELECT trees, max(recall) FILTER (WHERE query LIKE 'the%') AS 'rank 0',
       round(max(recall) FILTER (WHERE query LIKE 'mean%'), 3) AS '200 words'
  FROM found WHERE trees IN (1, 2, 3, 5, 10, 15, 20, 25, 29) GROUP BY trees;

-- Both curves as pictures.
SELECT writefile('target/tour/build-time.svg', plot_line(trees, build_seconds, NULL,
         '{"title":"Trees against build time (Lee corpus, 10,186 words)", "x_label":"trees", "y_label":"seconds"}'))
       AS 'bytes of build-time.svg' FROM cost;
SELECT writefile('target/tour/recall.svg', plot_line(trees, recall, query,
         '{"title":"Trees against recall@100 (Lee corpus, 10,186 words)", "x_label":"trees", "y_label":"recall@100"}'))
       AS 'bytes of recall.svg' FROM found;
