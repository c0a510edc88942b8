/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool of threads that do calls, each when its turn (server/base/turn.h) has come.
   Within an SR turns are first come, first served: a call passes another only when the two exclude each other in no
   way, so nothing that waits is ever overtaken by what would make it wait longer. SRs do not know of each other: one
   whose calls all hang keeps at most its share of the threads, the rest serve the others; and once it is known that
   its server does not answer, not even these: others are started in their place. Lease calls have threads besides,
   which nothing else may have, and places of their own in an SR and its queue. */
#ifndef SMAPI_SERVER_WORKERS_H
#define SMAPI_SERVER_WORKERS_H

#include "server/base/fault.h"
#include "server/base/turn.h"
#include <stdbool.h>
#include <stdint.h>

struct workers;

struct workers_settings {
    unsigned threads;       /* at most; they are started as they are needed */
    unsigned lease_threads; /* more of them, for lease calls alone */
    unsigned running; /* at most at once in one SR; never more than half of the threads (one at least). Lease calls
                         may be half of lease_threads more */
    unsigned waiting; /* at most in one SR, and as many lease calls */
    /* Whether calls on this SR can only wait, and for nobody knows how long; quick, any thread. NULL: never. */
    bool (*silent)(void *, const struct uuid *sr);
    void *silent_arg;
};

/* A call to be done. */
struct job_order {
    struct turn turn;
    int64_t expires;     /* clock_boot_ns; 0: never */
    void (*run)(void *); /* on a thread of the pool, once the turn has come */
    /* Instead of run, when expires is over before run began, or the SR is silent and the turn not patient; quick; on
       any thread. NULL for what has no one to tell: it never expires. */
    void (*late)(void *);
    void *arg;
};

/* From now on refuses what is submitted (Busy), and returns when all that was submitted before has run to its end. */
void workers_drain(struct workers *w);
/* Drains, ends the threads and frees. Nobody may submit any more. NULL is fine. */
void workers_stop(struct workers *w);
/* -1 with fault EIO when not even one thread can be had. */
int workers_new(const struct workers_settings *settings, struct workers **out, struct fault *f);

/* Has run(arg) or late(arg) called. -1 with fault Busy when too many wait for this SR, or the pool is drained; neither
   is called then. Calls without an SR share one queue, in which nothing excludes anything. Never waits; safe on any
   thread. The order is copied. */
int workers_submit(struct workers *w, const struct job_order *order, struct fault *f);

/* Tells those that are late so, and those that wait for a silent SR; what runs there gives its place to another. To be
   called a few times a second. */
void workers_expire(struct workers *w);

/* From now on: running and waiting. How many threads there may be is settled when the pool is made. */
void workers_limit(struct workers *w, unsigned running, unsigned waiting);

struct workers_counts {
    unsigned threads, running, waiting; /* at this moment; running: have their turn, whether or not a thread yet */
    unsigned stalled;                   /* of those running, in a silent SR, whose places others have */
    uint64_t busy, late;                /* refused, and told that they are late, so far */
};
struct workers_counts workers_counted(struct workers *w);

/* Whether two turns of one SR exclude each other; symmetric. A VDI turn that names no disk may be about any, so it
   excludes every other VDI and SERIAL turn. */
bool turn_excludes(const struct turn *a, const struct turn *b);

#endif
