/*
 * Nearest neighbours from C: fills a table of vectors, makes an index, searches it, and prints what it finds.
 *
 *     cc example.c -I packages/c target/release/libsqlite_annoy.a -lsqlite3 -lpthread -lm -ldl && ./a.out /tmp/example.db
 */
#include <stdio.h>
#include <stdlib.h>

#include "sqlite_annoy.h"

enum { DIM = 8, ROWS = 1000 };

/* Ends the program with SQLite's message. */
static void check(sqlite3 *db, int code) {
    if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW) {
        fprintf(stderr, "SQLite error %d: %s\n", code, db ? sqlite3_errmsg(db) : sqlite3_errstr(code));
        exit(1);
    }
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql) {
    sqlite3_stmt *statement;
    check(db, sqlite3_prepare_v2(db, sql, -1, &statement, NULL));
    return statement;
}

int main(int n_arguments, char **arguments) {
    sqlite3 *db;
    check(NULL, sqlite_annoy_auto());
    check(NULL, sqlite3_open(n_arguments > 1 ? arguments[1] : ":memory:", &db));
    check(db, sqlite3_exec(db, "CREATE TABLE items(id INTEGER PRIMARY KEY, v BLOB); BEGIN", NULL, NULL, NULL));

    /* A vector is an array of floats, as it is in memory (little-endian). Row i turns with i. */
    sqlite3_stmt *insert = prepare(db, "INSERT INTO items(id, v) VALUES (?1, ?2)");
    for (int i = 0; i < ROWS; i++) {
        float v[DIM];
        for (int j = 0; j < DIM; j++) v[j] = (float)((i * (j + 3)) % 101) / 101.0f;
        check(db, sqlite3_bind_int(insert, 1, i));
        check(db, sqlite3_bind_blob(insert, 2, v, sizeof v, SQLITE_TRANSIENT));
        check(db, sqlite3_step(insert));
        check(db, sqlite3_reset(insert));
    }
    sqlite3_finalize(insert);
    check(db, sqlite3_exec(db, "COMMIT; CREATE VIRTUAL TABLE items_index USING annoy(items, v, metric=l2)", NULL, NULL, NULL));

    sqlite3_stmt *search = prepare(
        db, "SELECT rowid, distance FROM knn_annoy('items_index', (SELECT v FROM items WHERE id = ?1), 3)");
    check(db, sqlite3_bind_int(search, 1, 7));
    int code;
    while ((code = sqlite3_step(search)) == SQLITE_ROW) {
        printf("%d %.4f\n", sqlite3_column_int(search, 0), sqlite3_column_double(search, 1));
    }
    check(db, code);
    sqlite3_finalize(search);
    check(db, sqlite3_close(db));
    return 0;
}
