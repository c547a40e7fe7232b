/* SQLite as one private translation unit: SQLITE_API=static hides every function, and the three below are all that
** leaves it. sqlite3Apis is the table that SQLite hands to extensions (loadext.c). */
#include "sqlite3.c"

const void *private_sqlite_api(void) { return &sqlite3Apis; }

int private_sqlite_open(const char *name, void **db) { return sqlite3_open(name, (sqlite3 **)db); }

int private_sqlite_auto_extension(void (*entry)(void)) { return sqlite3_auto_extension(entry); }

int private_sqlite_load(void *db, const char *file, char **message) {
  int rc = sqlite3_enable_load_extension(db, 1);
  return rc ? rc : sqlite3_load_extension(db, file, 0, message);
}

int private_sqlite_config_log(void (*log)(void *, int, const char *)) {
  return sqlite3_config(SQLITE_CONFIG_LOG, log, (void *)0);
}
