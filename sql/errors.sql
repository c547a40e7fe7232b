-- Every error a user is likely to meet, one statement each. The test tests/golden.rs runs this file against a database in
-- a file, compares the messages with errors.expected word for word, and checks that the database is after each error as
-- it was before. `--! name` before a statement says how it is run:
--
--   --! read-only     on a connection that may only read
--   --! interrupted   and interrupted 50 ms later
--
-- First what the errors need.
CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, v BLOB);
INSERT INTO items VALUES (1, 'a', vec_f32('[1,0,0]')), (2, 'b', vec_f32('[0,1,0]')), (3, NULL, NULL);
CREATE VIRTUAL TABLE items_index USING annoy(items, v);
CREATE TABLE odd(id INTEGER PRIMARY KEY, v BLOB);
INSERT INTO odd VALUES (1, x'0000803f'), (2, x'0000');
CREATE TABLE ragged(id INTEGER PRIMARY KEY, v BLOB);
INSERT INTO ragged VALUES (7, vec_f32('[1,2]')), (8, vec_f32('[1,2,3]'));
CREATE TABLE unkeyed(v BLOB);
CREATE TABLE rowless(id TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID;
CREATE TABLE lines(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO lines VALUES (1, 'one two three two'), (2, 'two three four'), (3, NULL);
CREATE TABLE empty(id INTEGER PRIMARY KEY, body TEXT, v BLOB);
SELECT word2vec_train('words', 'lines', 'body', '{"min_count":1, "vector_size":4}');
CREATE TABLE long(id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO long WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
  SELECT i, 'w' || (i % 97) || ' w' || (i % 89) || ' w' || (i % 83) || ' w' || (i % 79) FROM n;
CREATE TABLE many(id INTEGER PRIMARY KEY, v BLOB);
INSERT INTO many WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
  SELECT i, vec_f32(json_array(i % 97, i % 89, i % 83, i % 79)) FROM n;

-- Errors: unknown tables, columns, indexes, models.
SELECT * FROM knn_exact('nowhere', 'v', '[1,2,3]', 1);
SELECT * FROM knn_exact('items', 'w', '[1,2,3]', 1);
SELECT * FROM knn_exact(NULL, 'v', '[1,2,3]', 1);
SELECT * FROM knn_exact('rowless', 'v', '[1,2,3]', 1);
SELECT * FROM knn_annoy('nowhere', '[1,2,3]', 1);
SELECT * FROM knn_annoy('items', '[1,2,3]', 1);
SELECT * FROM annoy_info('nowhere');
SELECT * FROM annoy_recall('nowhere');
SELECT * FROM annoy_sweep('nowhere', 'v', 1);
SELECT * FROM annoy_sweep('items', 'w', 1);
SELECT * FROM most_similar('nowhere', 'a');
SELECT text_vector('nowhere', 'a');
SELECT word2vec_train('m', 'nowhere', 'body');
SELECT word2vec_train('m', 'lines', 'text');
CREATE VIRTUAL TABLE i USING annoy(nowhere, v);
CREATE VIRTUAL TABLE i USING annoy(items, w);
CREATE VIRTUAL TABLE i USING annoy(unkeyed, v);
CREATE VIRTUAL TABLE i USING annoy(rowless, v);
CREATE VIRTUAL TABLE i USING annoy(items);

-- Unknown options and commands.
SELECT * FROM knn_exact('items', 'v', '[1,2,3]', 1, '{"metrik":"l2"}');
SELECT * FROM knn_exact('items', 'v', '[1,2,3]', 1, '{"metric":"euclid"}');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 1, '{"searchk":5}');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 1, '{"filter":"rows"}');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 1, '{"recall":1.5}');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 1, '{"recall":0.9, "search_k":9}');
SELECT * FROM annoy_sweep('items', 'v', 1, 1, '{"metrics":"l2"}');
SELECT word2vec_train('m', 'lines', 'body', '{"vectorsize":10}');
SELECT word2vec_train('m', 'lines', 'body', '{"size":10}');
SELECT word2vec_train('m', 'lines', 'body', '{"tokenizer":"words"}');
SELECT word2vec_train('m', 'lines', 'body', '{"hs":0, "negative":0}');
SELECT plot_line(1, 2, 'a', '{"colour":"red"}');
SELECT annoy_progress('radio');
CREATE VIRTUAL TABLE i USING annoy(items, v, metrik=l2);
CREATE VIRTUAL TABLE i USING annoy(items, v, metric=euclid);
CREATE VIRTUAL TABLE i USING annoy(items, v, cosine);
CREATE VIRTUAL TABLE i USING annoy(items, v, storage=disk);
CREATE VIRTUAL TABLE i USING annoy(items, v, store=f64);
INSERT INTO items_index(items_index) VALUES('rebuilt');
INSERT INTO items_index(rowid) VALUES(1);
DELETE FROM items_index;

-- Wrong dimensions, odd blobs, bad JSON.
SELECT * FROM knn_exact('items', 'v', '[1,2]', 1);
SELECT * FROM knn_annoy('items_index', '[1,2,3,4]', 1);
SELECT * FROM items_index WHERE v MATCH '[1,2]' AND k = 1;
SELECT * FROM knn_annoy('items_index', x'000000', 1);
SELECT * FROM knn_annoy('items_index', x'', 1);
SELECT * FROM knn_annoy('items_index', '[1, two, 3]', 1);
SELECT * FROM knn_annoy('items_index', '[1, 2, 3', 1);
SELECT * FROM knn_annoy('items_index', '[1, NaN, 3]', 1);
SELECT * FROM knn_annoy('items_index', x'0000803f0000c07f0000803f', 1);
SELECT * FROM knn_annoy('items_index', '[]', 1);
SELECT * FROM knn_annoy('items_index', 5, 1);
SELECT * FROM knn_annoy('items_index');
SELECT * FROM knn_exact('odd', 'v', '[1]', 1);
SELECT * FROM knn_exact('ragged', 'v', '[1,2]', 1);
CREATE VIRTUAL TABLE i USING annoy(odd, v);
CREATE VIRTUAL TABLE i USING annoy(ragged, v);
SELECT vec_f32('[1, 2,, 3]');
SELECT vec_f32(x'0102');
SELECT vec_distance_l2('[1,2]', '[1,2,3]');
SELECT vec_add('[1,2]', '[1,2,3]');
SELECT word2vec_train('m', 'lines', 'body', '{"vector_size":10,}');
SELECT word2vec_train('m', 'lines', 'body', '[10]');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 1, '{"search_k":}');
SELECT plot_line(1, 2, 'a', '{"title":}');

-- k and trees.
SELECT * FROM knn_exact('items', 'v', '[1,2,3]', -1);
SELECT * FROM knn_exact('items', 'v', '[1,2,3]', 2.5);
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 'ten');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', x'05');
SELECT * FROM knn_annoy('items_index', '[1,2,3]', 1, -5);
SELECT * FROM items_index WHERE v MATCH '[1,2,3]' AND k = -1;
SELECT * FROM most_similar('words', 'two', NULL, -1);
SELECT * FROM annoy_sweep('items', 'v', 1, 0);
CREATE VIRTUAL TABLE i USING annoy(items, v, trees=0);
CREATE VIRTUAL TABLE i USING annoy(items, v, trees=-5);
CREATE VIRTUAL TABLE i USING annoy(items, v, trees=NULL);
CREATE VIRTUAL TABLE i USING annoy(items, v, trees=ten);
CREATE VIRTUAL TABLE i USING annoy(items, v, trees=10001);
SELECT * FROM annoy_sweep('items', 'v', '1,0', 1);
SELECT * FROM annoy_sweep('items', 'v', '5..1', 1);
SELECT * FROM annoy_sweep('items', 'v', NULL, 1);

-- No corpus, no vocabulary, no such word.
SELECT count(*) FROM text_lines('no/such/corpus.txt');
SELECT count(*) FROM text_lines;
SELECT word2vec_train('m', 'empty', 'body');
SELECT word2vec_train('m', 'lines', 'body');
SELECT word2vec_train('m', 'items', 'v');
SELECT word2vec_train('words', 'lines', 'body', '{"min_count":1}');
SELECT word2vec_train('items', 'lines', 'body', '{"min_count":1}');
SELECT * FROM most_similar('words', 'seven');
SELECT * FROM most_similar('words', '["two", "seven"]');
SELECT * FROM most_similar('words', NULL);
SELECT * FROM annoy_sweep('empty', 'v', 1);

-- Files of models, and the rest of the family.
SELECT model_import('m', 'no/such/model.bin');
SELECT model_import('m', 'Cargo.toml');
SELECT model_import('m', 'Cargo.toml', '{"format":"word2vec"}');
SELECT model_import('m', 'Cargo.toml', '{"format":"npy", "words":"Cargo.toml"}');
SELECT model_import('m', 'Cargo.toml', '{"format":"fvecs"}');
SELECT model_import('m', 'Cargo.toml', '{"format":"fasttext"}');
SELECT model_import('m', 'Cargo.toml', '{"format":"csv"}');
SELECT model_import('m', 'Cargo.toml', '{"encoding":"utf-8"}');
SELECT model_import('words', 'Cargo.toml');
SELECT model_export('words', 'Cargo.toml', '{"format":"glove"}');
SELECT model_export('words', 'words.csv');
SELECT model_export('nowhere', 'words.bin');
SELECT vectors_write('Cargo.toml', 'items', 'v', '{"format":"npy"}');
SELECT vectors_write('v.txt', 'items', 'v');
SELECT annoy_import('no/such/file.ann', 3, 'angular');
SELECT annoy_import('LICENSE-MIT', 3, 'angular');
SELECT annoy_import('Cargo.toml', 'three', 'angular');
SELECT annoy_import('Cargo.toml', 0, 'angular');
SELECT annoy_import('Cargo.toml', 3, 'euclid');
SELECT annoy_import('Cargo.toml', 3, 'angular', '{"tree":3}');
SELECT annoy_import('Cargo.toml', 3, 'angular', '{"trees":0}');
SELECT annoy_import('items.ann', 3, 'angular');
SELECT count(*) FROM annoy_read('no/such/file.ann', 3, 'angular');
SELECT count(*) FROM annoy_read('Cargo.toml', 3.5, 'angular');
SELECT annoy_export('nowhere', 'x.ann');
SELECT annoy_export('items_index', 'Cargo.toml');
SELECT annoy_export('items_index', 'x.ann', '{"metric":"cosine"}');
SELECT annoy_export('items_index', 'x.ann', '{"search_k":1}');
SELECT count(*) FROM vectors_read('no/such/vectors.npy');
SELECT count(*) FROM vectors_read('Cargo.toml');
SELECT count(*) FROM evaluate_word_analogies('words', 'LICENSE-MIT');
SELECT count(*) FROM evaluate_word_pairs('words', 'Cargo.toml');
SELECT count(*) FROM evaluate_word_pairs('words', 'Cargo.toml', '{"method":"3cosmul"}');
SELECT * FROM most_similar('words', 'two', NULL, 3, NULL, 'cosine');
SELECT * FROM most_similar('words', 'two', NULL, 3, 'items_index', '3cosmul');
SELECT n_similarity('words', '["two"]', '[]');
SELECT text_vector('words', 'two', '{"weight":"tfidf"}');
SELECT word2vec_update('nowhere', 'lines', 'body');
SELECT word2vec_update('words', 'empty', 'body');
SELECT word2vec_update('words', 'lines', 'body', '{"vector_size":9}');
SELECT phrases_train('p', 'lines', 'body', '{"scoring":"npmi"}');
SELECT phrases_train('p', 'lines', 'text');
SELECT phrases_apply('words', 'two three');
SELECT fasttext_train('f', 'lines', 'body', '{"min_m":3}');
SELECT fasttext_train('f', 'lines', 'body');
SELECT fasttext_train('f', 'lines', 'body', '{"deterministic":1}');
SELECT doc2vec_train('d', 'lines', 'body', '{"max_memory":64}');
SELECT fasttext_vector('words', 'seven');
SELECT doc2vec_train('d', 'lines', 'body', '{"sg":1}');
SELECT doc2vec_train('items', 'lines', 'body', '{"min_count":1}');
SELECT doc2vec_train('d', 'empty', 'body');
SELECT doc2vec_infer('words', 'two');

-- What takes long is for the user alone, not for views; what is timed only reads.
SELECT * FROM annoy_time('DELETE FROM items');
SELECT * FROM annoy_time('SELECT ?1');
SELECT * FROM annoy_time('SELECT * FROM nowhere');

-- A database that can't be written.
--! read-only
SELECT word2vec_train('m', 'lines', 'body', '{"min_count":1}');
--! read-only
CREATE VIRTUAL TABLE i USING annoy(items, v);
--! read-only
INSERT INTO items_index(items_index) VALUES('rebuild');
--! read-only
DROP TABLE items_index;

-- Ctrl-C.
--! interrupted
SELECT word2vec_train('m', 'long', 'body', '{"min_count":1, "epochs":100000}');
--! interrupted
CREATE VIRTUAL TABLE i USING annoy(many, v, trees=10000);
--! interrupted
SELECT * FROM annoy_sweep('many', 'v', 10000);
--! interrupted
SELECT doc2vec_train('d', 'long', 'body', '{"min_count":1, "epochs":100000}');
--! interrupted
SELECT fasttext_train('f', 'long', 'body', '{"min_count":1, "epochs":100000}');

-- Names that are nearly right.
SELECT * FROM knn_exact('item', 'v', '[1,2,3]', 1);
SELECT * FROM knn_exact('items', 'nam', '[1,2,3]', 1);
SELECT * FROM knn_annoy('item_index', '[1,2,3]', 1);
SELECT * FROM annoy_info('itemsindex');
SELECT word2vec_train('m', 'linse', 'body');
SELECT word2vec_train('m', 'lines', 'bdoy');
SELECT * FROM mmr('items_idx', '[1,2,3]', 3);
SELECT * FROM mmr('items_index', '[1,2,3]', 3, '{"lamda":1}');
SELECT * FROM vec_cluster('items', 'v', 2, '{"round":3}');
SELECT * FROM vec_project('itmes', 'v');
SELECT rrf('first');

-- Partial indexes and element types.
CREATE VIRTUAL TABLE i USING annoy(items, v, where='nam = ''a''');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='name =');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='1) OR (1');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='1; DROP TABLE items');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='id IN (SELECT id FROM many)');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='random() > 0');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='name < datetime(''now'')');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='count(*) > 1');
CREATE VIRTUAL TABLE i USING annoy(items, v, where='id > ?');
CREATE VIRTUAL TABLE i USING annoy(items, v, type=int4);
CREATE VIRTUAL TABLE i USING annoy(items, v, metric=hamming);
CREATE VIRTUAL TABLE i USING annoy(items, v, type=bit, metric=l2);
