/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The connection: opened with the settings durability rests on, checked, brought up to date, its statements prepared.
   Used by one thread at a time. Internal to store/ and its benchmarks. */
#ifndef SMAPI_STORE_DATABASE_H
#define SMAPI_STORE_DATABASE_H

#include "server/base/fault.h"
#include "store/statements.h"

struct sqlite3;
struct sqlite3_stmt;

struct database {
    char *path; /* malloc'd, for sentences */
    struct sqlite3 *connection;
    struct sqlite3_stmt *statements[STATEMENT_COUNT];
    int log_pages; /* of the write-ahead log after the last commit */
    bool first_open;
    bool serving; /* open is over: an I/O error now aborts */
};

/* path names a file that exists (it may be empty); nothing else in this process may open it before database_close.
   d stays where it is until then. On failure d is closed again. Without migrate an older schema is refused. */
int database_open(struct database *d, const char *path, bool migrate, struct fault *f);
void database_close(struct database *d); /* a zeroed one is fine */

/* Copies the log back into the database once it is long, or now; what finds no room is done the next time. Not inside a
   transaction. */
void database_checkpoint(struct database *d, bool now);
/* With true the file stays as long as it is: what needs a further page is refused as full, what frees pages is not. */
void database_hold_size(struct database *d, bool hold);
/* Whether a transaction is open: SQLite ends it by itself on some failures. */
bool database_in_transaction(struct database *d);
/* Whether this result code, just returned, only says that there is no room. */
bool database_is_full(struct database *d, int code);
/* Whether this result code says that the file is not what was written. */
bool database_is_damaged(int code);
/* What is durable is no longer known: one line to the log, then abort. */
_Noreturn void database_die(struct database *d, int code, const char *doing);

#endif
