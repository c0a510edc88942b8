/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What tests of the store share: a directory of their own, rows to start from, an independent look through SQLite. */
#ifndef SMAPI_TESTS_STORE_HELP_H
#define SMAPI_TESTS_STORE_HELP_H

#include "store/lease.h"
#include "store/query.h"
#include "store/sr.h"
#include "store/vdi.h"
#include <sys/types.h>

#define SR_A   "aaaaaaaa-0000-4000-8000-000000000001"
#define SR_B   "bbbbbbbb-0000-4000-8000-000000000002"
#define HOST_A "11111111-0000-4000-8000-00000000000a"
#define HOST_B "22222222-0000-4000-8000-00000000000b"

/* A fresh directory for one test; state is the store's own, which does not exist yet. */
struct scratch {
    char root[64], state[80], file[96];
};
void scratch_make(struct scratch *s);
void scratch_remove(struct scratch *s);

/* A connection without the thread, so that a test can use row functions, and cmocka's asserts, beside each other. */
struct bench {
    struct scratch scratch;
    struct database db;
    struct txn txn;
    struct arena *arena;
    struct fault fault;
};
int bench_setup(void **state); /* *state is a struct bench * */
int bench_teardown(void **state);

/* For a test that has a struct bench *b. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        if ((call) != 0)                                                                                               \
            fail_msg("%s: %s", #call, b->fault.detail);                                                                \
    } while (0)
#define REFUSED(call, want)                                                                                            \
    do {                                                                                                               \
        b->fault.code = FAULT_NONE;                                                                                    \
        assert_int_equal((call), -1);                                                                                  \
        assert_int_equal(b->fault.code, want);                                                                         \
    } while (0)

#define NOW INT64_C(1000000000000)            /* a moment of boot time for tests of leases */
struct holder holder_named(const char *name); /* of no boot and no nonce */
struct lease_ask ask_for(const struct uuid *sr, const struct uuid *vdi, struct holder who, bool writable);
struct uuid uuid_of(const char *text);
struct uuid uuid_numbered(unsigned n); /* cccccccc-…-<n> */
struct sr_row sr_blank(const char *uuid);
struct vdi vdi_numbered(unsigned n); /* its location, like its uuid, lives until 16 more were made by this thread */
/* A work: puts the SR whose uuid text is arg. */
int put_sr(struct txn *t, void *arg, struct fault *f);

/* fork; the child goes when its parent does, so that a failing test leaves nobody behind. */
pid_t fork_child(void);

/* Opens, and fails the test when that is refused. */
struct store *open_store(const char *dir);

/* Runs SQL on a file that no store has open. */
void peer_run(const char *file, const char *sql);
/* First column of the first row, "" without one; for an open connection. Returns out. */
const char *peer_ask(struct sqlite3 *connection, const char *sql, char *out, size_t size);
bool peer_refuses(struct sqlite3 *connection, const char *sql);
/* "SCAN", "SORT", "SEARCH" or "NONE", as statements.def means them. */
const char *peer_plan(struct sqlite3 *connection, const char *sql);

#endif
