/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store_sql FILE SQL: does to a database of smapid's what no smapid would. Rows that refer to nothing are let in. */
#include "server/base/own.h"
#include "store/sums.h"
#include <sqlite3.h>

static int complain(sqlite3 *connection)
{
    fprintf(stderr, "store_sql: %s\n", sqlite3_errmsg(connection));
    return 1;
}

int main(int argc, char **argv)
{
    sqlite3 *connection = NULL;
    if (argc != 3) {
        fprintf(stderr, "usage: store_sql FILE SQL\n");
        return 64;
    }
    if (sqlite3_open_v2(argv[1], &connection, SQLITE_OPEN_READWRITE, sums_vfs()) != SQLITE_OK ||
        sqlite3_exec(connection, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(connection, "PRAGMA foreign_keys = OFF", NULL, NULL, NULL) != SQLITE_OK ||
        sqlite3_exec(connection, argv[2], NULL, NULL, NULL) != SQLITE_OK)
        return complain(connection);
    return sqlite3_close(connection) == SQLITE_OK ? 0 : complain(connection);
}
