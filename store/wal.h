/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The log of the database, as its own file sees it: what was synced must be there. SQLite takes a log whose frame does
   not fit its sum for one that ends before it, which is right for what a power cut left half written, and would forget
   commits that were answered when it is a bit that flipped. Internal to store/. */
#ifndef SMAPI_STORE_WAL_H
#define SMAPI_STORE_WAL_H

#include <sqlite3.h>

/* As xOpen of the VFS beneath, for a log; the file has room for wal_size() and that of the VFS beneath.
   SQLITE_IOERR_DATA when the log is not what was synced, told by
     - <database>-synced, which names the log and how much of it is durable. It is written after each sync of a commit
   and never synced itself: a power cut leaves an older one, which says less; or
     - frames behind a wrong one that were written after the commit of it was synced.
   Not told: damage to the last commit when a power cut took what <database>-synced said of it, which is what a commit
   that was never answered looks like. Later, a page that is read from the log is held against its sum. */
int wal_open(sqlite3_vfs *beneath, const char *name, sqlite3_file *file, int flags, int *out_flags);

int wal_size(void);

#endif
