-- What every host runs, each with the output of smoke.expected. Numbers are rounded or compared in SQL, so that hosts
-- write them alike.
SELECT annoy_version() LIKE '0.%';

-- A chart and the memory of this process.
SELECT length(plot_line(column1, column2)) > 1000 FROM (VALUES (1, 2), (2, 3));
SELECT count(*), pid > 0 FROM annoy_memory;

-- Errors arrive as errors, and the connection goes on.
SELECT runs, rows FROM annoy_time('SELECT 1 UNION SELECT 2', 3);

-- Text becomes vectors, vectors an index, the index answers; exactly the same as without it, also after a change.
CREATE TABLE poem(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO poem VALUES (1, 'rose is a rose is a rose'), (2, 'a rose by any other name'), (3, 'is a name a name');
SELECT json_extract(word2vec_train('words', 'poem', 'body', '{"vector_size":8, "min_count":1}'), '$.vocabulary');
CREATE VIRTUAL TABLE words_index USING annoy(words, vector, trees=2);
SELECT word FROM knn_annoy('words_index', (SELECT vector FROM words WHERE id = 3), 1) n JOIN words w ON w.id = n.rowid;
DELETE FROM words WHERE id = 3;
SELECT count(*), sum(a.distance = e.distance) FROM
  (SELECT rowid AS r, distance FROM knn_annoy('words_index', '[1,0,0,0,0,0,0,0]', 5)) a JOIN
  (SELECT rowid AS r, distance FROM knn_exact('words', 'vector', '[1,0,0,0,0,0,0,0]', 5)) e USING (r);
INSERT INTO words_index(words_index) VALUES('rebuild');
SELECT name, items, pending, state FROM annoy_indexes;
DROP TABLE words_index;
SELECT count(*) FROM annoy_indexes;
