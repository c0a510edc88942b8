/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one SQLite connection, owned by one thread. Work is handed to that thread: it runs all waiting writes in one
   transaction, each in a SAVEPOINT of its own (one that fails does not undo its neighbours), commits with a sync, and
   only then lets the callers go on. Reads run between such batches, so they never see what is not durable; one that
   finds the thread idle borrows the connection and runs on its caller's thread.
   Typed functions on rows (sr.h vdi.h lease.h journal.h …) take the txn that a piece of work was given. */
#ifndef SMAPI_STORE_STORE_H
#define SMAPI_STORE_STORE_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include "server/base/uuid.h"
#include <stdbool.h>
#include <stdint.h>

struct store;
struct txn; /* valid only inside the work it was given to */

/* 0 to keep what it did, -1 with fault to have it undone. Runs on the store thread or a reader's: no waiting, no child,
   no network, no medium. It may be run again from the start if its batch has to be split, so outputs are overwritten,
   not added. */
typedef int store_work(struct txn *t, void *arg, struct fault *f);

void store_close(struct store *s); /* waits for queued work; NULL is fine */

/* Opens or makes <dir>/smapid.db beneath a directory of mode 0700 that belongs to us. Takes the lock file first:
   a second process gets -1 with a sentence naming the directory and, when it can be read, the other's pid; *in_use is
   set then. Refuses network file systems, a schema newer than ours, and a file that fails quick_check.
   The schema is brought up to date by store/schema/NNNN.sql, one transaction each. */
/* SRUnavailable: the database is gone although there was one, or damaged: a start must not guess what it held. */
int store_open(const char *dir, struct store **out, bool *in_use, struct fault *f);

/* The same for looking: the database must be there, with the schema of this program, and nothing in it changes; no
   start is counted. */
int store_look(const char *dir, struct store **out, bool *in_use, struct fault *f);

/* Begins a database anew, for the server that the state directory is of, beside the one that is lost or damaged. Until
   store_rebuilt nothing has changed. */
int store_rebuild(const char *dir, struct store **out, bool *in_use, struct fault *f);
/* It takes the old one's place, which stays under the name given in kept; s is closed. */
#define STORE_KEPT 64
int store_rebuilt(struct store *s, char kept[STORE_KEPT], struct fault *f);

/* Both return what the work returned, with its fault; EIO faults when the commit failed. SQLITE_FULL gives
   SRNoSpace naming the store; an I/O error of the store aborts the process: what is durable is no longer known. */
int store_write(struct store *s, store_work *work, void *arg, struct fault *f);
int store_read(struct store *s, store_work *work, void *arg, struct fault *f);

/* Counters for tests and /metrics. */
struct store_counts {
    uint64_t commits, writes, reads;
};
struct store_counts store_counted(struct store *s);

/* One row of facts about this store. */
struct store_meta {
    struct uuid server; /* made at the first open */
    uint64_t start_seq; /* counts opens */
    bool first_open;    /* the database was made by this open */
    struct uuid boot;   /* the kernel's boot id */
    bool put_back;      /* a later copy of the database was served before: leases are missing in this one */
    bool rebooted;      /* the kernel's boot id differs from the last open's */
};
struct store_meta store_meta(struct store *s);

#endif
