-- Calls every function, table function and command once, over little data: what tests/sanitize runs under valgrind.
-- {folder} is replaced by a folder that can be written to and has files of questions and of judgements. tests/golden.rs sees to
-- it that no name is left out.
CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 60)
INSERT INTO docs SELECT i, 'the moon at night and a star at night, ' || CASE i % 3 WHEN 0 THEN 'bread and butter' ELSE 'new york city' END FROM c;

SELECT annoy_version(), annoy_progress('off');
SELECT vec_to_json(vec_f32('[1, 2, 3]')), vec_to_json(vec_int8('[1, 2, 3]')), hex(vec_bit(x'f0')), vec_to_json(vec_f16('[1, 2.5]'));
SELECT vec_length('[1, 2]'), vec_type(vec_int8('[1]')), vec_norm('[3, 4]'), vec_dot('[1, 2]', '[3, 4]'), vec_to_json(vec_scale('[1, 2]', 2));
SELECT vec_to_json(vec_add('[1, 2]', '[3, 4]')), vec_to_json(vec_sub('[1, 2]', '[3, 4]')), vec_to_json(vec_slice('[1, 2, 3]', 1, 3));
SELECT vec_to_json(vec_normalize('[3, 4]')), vec_to_json(vec_quantize_int8('[0.5, -1]', 'unit')), hex(vec_quantize_binary('[1,-1,1,-1,1,-1,1,-1]'));
SELECT vec_distance_l2('[1, 2]', '[3, 4]'), vec_distance_l1('[1, 2]', '[3, 4]'), vec_distance_cosine('[1, 2]', '[3, 4]'),
       vec_distance_hamming(vec_bit(x'f0'), vec_bit(x'0f'));
SELECT * FROM vec_each('[1, 2, 3]');
SELECT vec_to_json(vec_from_each(value)), vec_to_json(vec_from_each(rowid, value)) FROM vec_each('[1, 2, 3]');

SELECT word2vec_train('words', 'docs', 'body', '{"vector_size":8, "min_count":1, "epochs":2, "threads":2, "sg":1}') IS NOT NULL;
SELECT word2vec_update('words', 'docs', 'body', '{"epochs":1}') IS NOT NULL;
SELECT doc2vec_train('d2v', 'docs', 'body', '{"vector_size":8, "min_count":1, "epochs":1}') IS NOT NULL;
SELECT length(doc2vec_infer('d2v', 'the moon at night'));
SELECT fasttext_train('ft', 'docs', 'body', '{"vector_size":8, "min_count":1, "epochs":1, "bucket":100}') IS NOT NULL;
SELECT length(fasttext_vector('ft', 'moonlight'));
SELECT phrases_train('ph', 'docs', 'body', '{"min_count":1, "threshold":0.1}') IS NOT NULL;
SELECT phrases_apply('ph', 'in new york city');
SELECT * FROM most_similar('words', 'moon', NULL, 3);
SELECT similarity('words', 'moon', 'star'), n_similarity('words', '["moon"]', '["star", "night"]'), doesnt_match('words', '["moon", "star", "bread"]'),
       length(text_vector('words', 'the moon'));
SELECT length(vec_avg(vector)), length(vec_sum(vector)), length(vec_pack(vector)) FROM words;
SELECT length(vec_avg(vector) OVER (ORDER BY id ROWS 2 PRECEDING)) FROM words LIMIT 3;

SELECT model_export('words', '{folder}/words.bin', '{"format":"word2vec"}') IS NOT NULL;
SELECT model_import('again', '{folder}/words.bin') IS NOT NULL;
SELECT count(*) FROM vectors_read('{folder}/words.bin');
SELECT vectors_write('{folder}/words.npy', 'words', 'vector') IS NOT NULL;
SELECT count(*) FROM text_lines('{folder}/questions');
SELECT * FROM evaluate_word_analogies('words', '{folder}/questions');
SELECT * FROM evaluate_word_pairs('words', '{folder}/judgements');

CREATE TABLE t(id INTEGER PRIMARY KEY, doc INTEGER, keep INTEGER, v BLOB);
CREATE INDEX by_doc ON t(doc);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 700)
INSERT INTO t SELECT i, i / 3, i % 2, vec_f32('[' || (i % 29) || ',' || (i * i % 37) || ',' || (i % 11) || ', 1]') FROM c;
CREATE VIRTUAL TABLE ix USING annoy(t, v, metric=l2, trees=2);
CREATE VIRTUAL TABLE angular USING annoy(t, v, storage=inline, store=f16);
CREATE VIRTUAL TABLE part USING annoy(t, v, metric=dot, where='keep = 1', store=none);
CREATE VIRTUAL TABLE grouped USING annoy(t, v, group=doc, combine=mean);
UPDATE t SET v = vec_f32('[1, 2, 3, 4]') WHERE id % 50 = 0;
DELETE FROM t WHERE id = 9;
SELECT rowid, distance FROM knn_exact('t', 'v', '[1, 2, 3, 4]', 5, '{"metric":"l2"}');
SELECT rowid, distance FROM knn_exact('t', 'v', '[1, 2, 3, 4]', 5, '{"metric":"l1"}');
SELECT rowid, distance FROM knn_annoy('ix', '[1, 2, 3, 4]', 5);
SELECT rowid, distance FROM knn_annoy('ix', '[1, 2, 3, 4]', 5, '{"search_k":300, "threads":2}');
SELECT rowid, distance FROM knn_annoy('ix', '[1, 2, 3, 4]', 5, '{"recall":0.9}') WHERE rowid IN (1, 2, 3, 400);
SELECT rowid, distance FROM knn_annoy('angular', '[1, 2, 3, 4]') LIMIT 5 OFFSET 2;
SELECT rowid, distance FROM knn_annoy('part', '[1, 2, 3, 4]', 5, 100);
SELECT rowid, distance FROM knn_annoy('grouped', '[1, 2, 3, 4]') WHERE distance < 0.5 LIMIT 20;
SELECT rowid, distance FROM ix WHERE v MATCH '[1, 2, 3, 4]' AND k = 5;
SELECT * FROM knn_annoy_batch('ix', (SELECT vec_pack(v) FROM t WHERE id < 40), 3);
SELECT * FROM knn_exact_batch('t', 'v', (SELECT vec_pack(v) FROM t WHERE id < 4), 3);
SELECT count(*) FROM annoy_stats();
SELECT * FROM mmr('ix', '[1, 2, 3, 4]', 5);
SELECT rrf(rank) FROM (SELECT 1 AS rank UNION ALL SELECT 2);
SELECT count(*) FROM vec_cluster('t', 'v', 3);
SELECT count(*) FROM vec_project('t', 'v');
SELECT count(*) FROM annoy_info('ix');
SELECT count(*) FROM annoy_indexes;
SELECT count(*) FROM annoy_memory;
SELECT count(*) FROM annoy_files;
SELECT count(*) FROM annoy_recall('ix', 5, 20);
SELECT count(*) FROM annoy_sweep('t', 'v', '1..2', 5);
SELECT count(*) FROM annoy_time('SELECT 1', 2);
SELECT length(plot_line(id, keep)) FROM t;
SELECT annoy_export('ix', '{folder}/ix.ann') IS NOT NULL;
SELECT count(*) FROM annoy_read('{folder}/ix.ann', 4, 'euclidean');
SELECT annoy_import('{folder}/ix.ann', 4, 'euclidean', '{"table":"imported"}') IS NOT NULL;
INSERT INTO ix(ix) VALUES('refresh');
INSERT INTO ix(ix) VALUES('auto-refresh');
INSERT INTO ix(ix) VALUES('integrity-check');
INSERT INTO grouped(grouped) VALUES('rebuild');
BEGIN;
DROP TABLE part;
ALTER TABLE angular RENAME TO elsewhere;
ROLLBACK;
PRAGMA integrity_check;
DROP TABLE ix;
VACUUM;
SELECT rowid FROM knn_annoy('angular', '[1, 2, 3, 4]', 3);
