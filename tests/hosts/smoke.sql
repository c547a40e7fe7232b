-- What every host runs, each with the output of smoke.expected. Numbers are rounded or compared in SQL, so that hosts
-- write them alike.
SELECT annoy_version() LIKE '0.%';

-- A chart and the memory of this process.
SELECT length(plot_line(column1, column2)) > 1000 FROM (VALUES (1, 2), (2, 3));
SELECT count(*), pid > 0 FROM annoy_memory;

-- Errors arrive as errors, and the connection goes on.
SELECT runs, rows FROM annoy_time('SELECT 1 UNION SELECT 2', 3);
