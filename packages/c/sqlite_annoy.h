/*
 * sqlite-annoy, linked into a program.
 *
 * The library calls SQLite through the table of functions that SQLite hands to its extensions, so it needs no particular SQLite at
 * link time and works with any from 3.38 on (built without SQLITE_OMIT_LOAD_EXTENSION).
 *
 *     #include <sqlite3.h>
 *     #include "sqlite_annoy.h"
 *
 *     sqlite_annoy_auto();                  before the first sqlite3_open
 *     sqlite3_open("app.db", &db);          has knn_annoy, word2vec_train, vec_distance_l2 ...
 *
 * Build the library, and the program, on Linux (README.md says it for other systems):
 *
 *     cargo rustc --release --lib --crate-type staticlib
 *     cc app.c -I packages/c target/release/libsqlite_annoy.a -lsqlite3 -lpthread -lm -ldl
 *
 * One process can use the library with one SQLite only; a second one gets an error.
 */
#ifndef SQLITE_ANNOY_H
#define SQLITE_ANNOY_H

#include <sqlite3.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The oldest SQLite, as sqlite3_libversion_number() gives it. */
#define SQLITE_ANNOY_MIN_SQLITE_VERSION 3038000

struct sqlite3_api_routines;

/*
 * The entry point, as SQLite calls it for every connection. Returns SQLITE_OK or SQLITE_OK_LOAD_PERMANENTLY, or SQLITE_ERROR with a
 * message that the caller frees by sqlite3_free(). Don't call it yourself: only SQLite has the table that it needs.
 */
int sqlite3_sqliteannoy_init(sqlite3 *db, char **message, const struct sqlite3_api_routines *api);

/* Every connection that is opened from now on has the extension. Returns SQLITE_OK, or SQLITE_NOMEM. May be called again. */
static inline int sqlite_annoy_auto(void) {
    return sqlite3_auto_extension((void (*)(void))sqlite3_sqliteannoy_init);
}

/* The opposite, for connections to come. Returns 1 if it was on. */
static inline int sqlite_annoy_cancel_auto(void) {
    return sqlite3_cancel_auto_extension((void (*)(void))sqlite3_sqliteannoy_init);
}

#ifdef __cplusplus
}
#endif

#endif
