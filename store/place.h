/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The directory of the database: who owns it, what it is on, and that only one process uses it. */
#ifndef SMAPI_STORE_PLACE_H
#define SMAPI_STORE_PLACE_H

#include "server/base/fault.h"
#include "server/base/uuid.h"
#include <stdint.h>

struct place {
    int directory, lock; /* descriptors, -1 for none; the lock is held while the second is open */
    int reserve;         /* of smapid.reserve */
};

#define PLACE_NONE ((struct place){-1, -1, -1})

/* Makes dir (mode 0700) when its parent exists, refuses one that another user owns or may write to, or that is on a
   network file system; takes <dir>/smapid.lock and writes our pid into it; makes <dir>/smapid.db, empty and 0600, when
   there is none. Held by another process: -1 with LockErr and *in_use set. Not to be called while this process has the
   database open: opening its file a second time would drop SQLite's locks. SRUnavailable when the
   database is gone although it was there. */
enum place_use {
    PLACE_SERVE,
    PLACE_LOOK,   /* neither directory nor database is made: they must be there */
    PLACE_REBUILD /* the database is left alone; beside it smapid.db.new is made, empty */
};
int place_open(const char *dir, enum place_use use, struct place *out, bool *in_use, struct fault *f);
void place_close(struct place *p);

/* Puts smapid.db.new, which nothing has open any more, in the place of smapid.db, which is kept under the name that is
   written to kept. */
#define PLACE_KEPT 64
int place_swap(const struct place *p, char kept[PLACE_KEPT], struct fault *f);

/* Sets room aside in <dir>/smapid.reserve, so that on a full disk the log can still be written. False when there is not
   enough: then nothing is set aside. */
bool place_reserve(struct place *p);
void place_spend_reserve(struct place *p);

/* Who this server is, from <dir>/smapid.server: kept beside the database, so that SRs still know their owner when the
   database is lost. read gives none when there is no file yet; write makes it. */
int place_read_server(const struct place *p, struct uuid *out, struct fault *f);
int place_write_server(const struct place *p, const struct uuid *server, struct fault *f);

/* What no copy of the database can know, from <dir>/smapid.epoch: kept beside it, so that one put back from a backup,
   or made anew, grants no epoch again. read gives zeros when there is no file yet. */
struct place_epochs {
    uint64_t end;       /* every epoch granted so far is below */
    uint64_t start_seq; /* of the start that wrote it */
};
int place_read_epochs(const struct place *p, struct place_epochs *out, struct fault *f);
int place_write_epochs(const struct place *p, const struct place_epochs *epochs, struct fault *f);

/* Name of the file system when statfs's f_type is one that a server elsewhere answers for, or NULL. */
const char *place_remote_type(uint64_t magic);

#endif
