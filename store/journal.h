/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations: intents that are open, and replies kept for 24 hours under the operation id they were asked with.
   Also hosts seen and the audit trail. */
#ifndef SMAPI_STORE_JOURNAL_H
#define SMAPI_STORE_JOURNAL_H

#include "server/base/model.h"
#include "store/store.h"

#define DIGEST_SIZE 32 /* SHA-256 of the body */

/* The name under which a caller may ask again. */
struct op_key {
    bool given;
    struct uuid id;
    const char *identity;
    unsigned char digest[DIGEST_SIZE];
};

struct op_reply {
    const char *bytes; /* as sent, in the arena */
    size_t length;
    uint64_t epoch; /* 0 for none */
};

/* For a given key: *out is the kept reply, or NULL when there is none. Same id with another identity or digest: -1 with
   OperationConflict. Same id still open: -1 with Busy. */
int store_op_replay(struct txn *t, const struct op_key *key, struct arena *a, struct op_reply **out, struct fault *f);
/* The intent of plan->op. */
int store_op_open(struct txn *t, const struct plan *plan, const struct op_key *key, struct fault *f);
/* The end: the row of plan->op goes, or with a key it stays, closed, with the reply. For a call that never opened an
   intent (rows only) it makes the closed row when there is a key, and is nothing otherwise. The key counts that the row
   was opened with: recovery gives none. Without a reply (NULL) the row goes in any case. */
int store_op_close(struct txn *t, const struct uuid *op, const struct op_key *key, const struct op_reply *reply,
                   struct fault *f);
/* Removes the row, open or closed: the operation was undone, and the caller may ask again under its key. */
int store_op_drop(struct txn *t, const struct uuid *op, struct fault *f);
/* Open intents, oldest first, of one SR, or of all (sr none). */
int store_op_list(struct txn *t, const struct uuid *sr, struct arena *a, struct plan **out, size_t *count,
                  struct fault *f);
/* Closed rows older than 24 hours go. Called by the store thread itself now and then; public for tests. */
int store_op_expire(struct txn *t, int64_t wall_now, struct fault *f);

/* Remembers that this holder called. */
int store_host_seen(struct txn *t, const char *holder, struct fault *f);
/* Appends a line to the audit trail. */
int store_audit(struct txn *t, const char *who, const char *what, const char *detail, struct fault *f);

#endif
