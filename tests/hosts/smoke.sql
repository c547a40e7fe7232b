-- What every host runs on a new database in a file, each with the output of smoke.expected. Numbers are rounded or
-- compared in SQL, so that hosts write them alike.
SELECT annoy_version() LIKE '0.%';

-- Vectors.
SELECT vec_to_json(vec_add('[1,2]', vec_f32('[3,4]'))), round(vec_distance_l2('[1,2]', '[4,6]'), 6);
SELECT group_concat(value) FROM vec_each('[1,2,3]');

-- Text becomes vectors, in one transaction.
CREATE TABLE lines(id INTEGER PRIMARY KEY, body TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
  INSERT INTO lines SELECT i, printf('day%d sun%d warm%d night%d moon%d cold%d', i % 7, i % 5, i % 3, i % 11, i % 13, i % 2) FROM n;
SELECT word2vec_train('words', 'lines', 'body', '{"min_count":1, "vector_size":16, "sg":1}') ->> '$.vocabulary';
SELECT count(*), sum(count) FROM words;
SELECT count(*) FROM most_similar('words', 'sun1', NULL, 5);

-- An index: approximate and exact agree, changes are seen at once, also after ROLLBACK.
CREATE VIRTUAL TABLE words_index USING annoy(words, vector, trees=5);
SELECT w.word, round(n.distance, 6) FROM knn_annoy('words_index', (SELECT vector FROM words WHERE word = 'sun1'), 1) n
  JOIN words w ON w.id = n.rowid;
SELECT count(*) FROM (SELECT rowid, distance FROM knn_annoy('words_index', text_vector('words', 'warm1 cold1'), 10, 100000)
  EXCEPT SELECT rowid, distance FROM knn_exact('words', 'vector', text_vector('words', 'warm1 cold1'), 10));
BEGIN;
INSERT INTO words(id, word, count, vector) SELECT 1000, 'new', 1, vector FROM words WHERE word = 'sun1';
SELECT count(*) FROM knn_annoy('words_index', (SELECT vector FROM words WHERE word = 'sun1'), 2) WHERE rowid = 1000;
ROLLBACK;
SELECT count(*) FROM knn_annoy('words_index', (SELECT vector FROM words WHERE word = 'sun1'), 2) WHERE rowid = 1000;
INSERT INTO words_index(words_index) VALUES('rebuild');
SELECT value FROM annoy_info('words_index') WHERE key IN ('state', 'items', 'generation') ORDER BY key;
DROP TABLE words_index;
SELECT count(*) FROM annoy_indexes;
SELECT count(*) FROM sqlite_schema WHERE name LIKE 'words_index%';

-- Seeing.
SELECT length(plot_line(column1, column2)) > 1000 FROM (VALUES (1, 2), (2, 3));
SELECT count(*), pid > 0 FROM annoy_memory;
SELECT runs, rows FROM annoy_time('SELECT 1 UNION SELECT 2', 3);
SELECT count(*) FROM annoy_sweep('words', 'vector', '1..3', 5);
