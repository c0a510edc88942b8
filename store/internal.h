/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* struct store, shared by store.c (opening, closing, facts) and thread.c (the thread that serves). */
#ifndef SMAPI_STORE_INTERNAL_H
#define SMAPI_STORE_INTERNAL_H

#include "store/database.h"
#include "store/place.h"
#include "store/store.h"
#include <pthread.h>
#include <stdatomic.h>

struct request;

/* First in, first out. Its length is bounded by the number of threads: each waits for its one request. */
struct requests {
    struct request *first, *last;
    size_t count;
};

struct store {
    struct place place;
    struct database db; /* the thread's, once it runs, but for readers that borrow it */
    struct store_meta meta;
    atomic_uint_fast64_t commits, writes, reads;

    pthread_t thread;
    bool running;
    int64_t expiry_due; /* the thread's; clock_boot_ns */
    uint64_t expired_at_writes;
    bool tight; /* the thread's; the reserve is spent and the database may not grow */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;  /* something is queued, or stopping is set */
    struct requests waiting_reads, waiting_writes;
    bool working;  /* the thread is at work, so s->db is its */
    bool borrowed; /* a reader is, on its own thread, so s->db is that one's */
    bool stopping;
};

/* Starts the thread that serves s; from here on only it and who borrows from it use s->db. */
int store_thread_start(struct store *s, struct fault *f);
/* Lets it serve what is queued, then waits for its end. */
void store_thread_stop(struct store *s);
/* Runs work in a transaction of its own on the calling thread, before the thread has started. */
int store_run_alone(struct store *s, store_work *work, void *arg, struct fault *f);

#endif
