-- item2vec: what is bought together, from a table of events.
--
-- A basket is a sentence, an item a word (Barkan, Koenigstein 2016: "Item2vec: neural item embedding for collaborative
-- filtering"): items that stand in baskets of the same kind come near each other, also if they never met. This file
-- makes up its events, trains, asks what goes with an item, and measures the answers against two that need no training:
-- what everybody buys, and what was bought together most often.
--
--   sqlite3 -cmd '.load ./target/release/libsqlite_annoy' < sql/item2vec.sql
--
-- With events of your own, leave the first chapter out. Only the columns (session, item, time) matter.

-- 1. Events -----------------------------------------------------------------------------------------------------------
-- 41 kinds of baskets with 8 items each, and 60 items that are in baskets of all kinds, the first ones far more often. The
-- numbers come from a linear congruential generator, so everybody gets the same.
CREATE TABLE events(session INTEGER, item TEXT, time INTEGER);
INSERT INTO events
  WITH RECURSIVE dice(n, x) AS (
    SELECT 0, 12345 UNION ALL SELECT n + 1, (x * 1103515245 + 12345) % 2147483648 FROM dice WHERE n < 40000)
  SELECT n / 8, CASE WHEN (x >> 16) % 100 < 70
                  THEN 'kind' || (n / 8 * 7919 % 41) || '-' || ((x >> 16) / 100 % 8)
                  ELSE 'common-' || (((x >> 16) / 100 % 60) * ((x >> 20) % 60) / 60) END, n
    FROM dice WHERE n % 8 <= (n / 8) % 4 + 4;
CREATE INDEX events_session ON events(session, time);

-- 2. Baskets ----------------------------------------------------------------------------------------------------------
-- The view orders and groups: a row for each session, its items in the order of time. An item's name must be one word
-- (replace(item, ' ', '_')). Every tenth session is left out, to be asked for afterwards.
CREATE VIEW baskets AS
  SELECT session AS id, group_concat(item, ' ') AS body
    FROM (SELECT session, item FROM events WHERE session % 10 <> 0 ORDER BY session, time)
   GROUP BY session HAVING count(*) > 1;

-- 3. Training ---------------------------------------------------------------------------------------------------------
-- Words are not items: rare items should serve as noise more often than frequent ones (ns_exponent below 0; Caselles-Dupré
-- et al. 2018: "Word2vec applied to recommendation: hyperparameters matter"), and more epochs help. With half a million
-- events and more, a sample of 1e-4 is better.
SELECT word2vec_train('items', 'baskets', 'body',
  '{"sg":1, "vector_size":64, "window":5, "ns_exponent":-0.5, "sample":1e-3, "negative":10, "epochs":20, "alpha":0.05,
    "min_count":5, "shrink_windows":0, "lowercase":0}');

-- 4. Bought with ... --------------------------------------------------------------------------------------------------
SELECT word AS item, round(similarity, 2) AS similarity FROM most_similar('items', 'kind7-3', NULL, 7);
-- ... and what is missing in a basket:
SELECT word AS item, round(similarity, 2) AS similarity FROM most_similar('items', '["kind7-3", "kind7-5", "common-1"]', NULL, 5);

-- 5. How good is that? ------------------------------------------------------------------------------------------------
-- Of each session that was left out, the last item is the answer and the others are the question: how often is the answer
-- among ten proposals? Only items that the model knows can be asked for.
CREATE TABLE question AS
  SELECT session, json_group_array(DISTINCT e.item) AS basket,
         (SELECT l.item FROM events l WHERE l.session = e.session ORDER BY l.time DESC LIMIT 1) AS answer
    FROM events e JOIN items ON items.word = e.item
   WHERE session % 10 = 0 AND time < (SELECT max(time) FROM events l WHERE l.session = e.session)
   GROUP BY session;
DELETE FROM question WHERE EXISTS (SELECT 1 FROM json_each(basket) WHERE value = answer);

CREATE TABLE bought AS SELECT DISTINCT session, item FROM events WHERE session % 10 <> 0;
CREATE INDEX bought_session ON bought(session, item);
CREATE TABLE popular AS SELECT item, count(*) AS n FROM bought GROUP BY item ORDER BY n DESC;
CREATE TABLE together(item TEXT, other TEXT, n INTEGER, PRIMARY KEY(item, other)) WITHOUT ROWID;
INSERT INTO together
  SELECT a.item, b.item, count(*) FROM bought a JOIN bought b ON b.session = a.session AND b.item <> a.item GROUP BY 1, 2;

CREATE TABLE hit_rate(method TEXT, hits_in_10 REAL);
INSERT INTO hit_rate SELECT 'what everybody buys', avg(answer IN (
    SELECT item FROM popular WHERE item NOT IN (SELECT value FROM json_each(basket)) ORDER BY n DESC LIMIT 10)) FROM question;
INSERT INTO hit_rate SELECT 'what was bought together', avg(answer IN (
    SELECT t.other FROM json_each(basket) b JOIN together t ON t.item = b.value JOIN popular p ON p.item = t.item
     WHERE t.other NOT IN (SELECT value FROM json_each(basket))
     GROUP BY t.other ORDER BY sum(1.0 * t.n / p.n) DESC LIMIT 10)) FROM question;
INSERT INTO hit_rate SELECT 'item2vec', avg(answer IN (
    SELECT word FROM most_similar('items', basket, NULL, 10))) FROM question;
SELECT method, round(hits_in_10, 3) AS hits_in_10, (SELECT count(*) FROM question) AS questions FROM hit_rate;
