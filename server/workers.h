/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool of threads that do calls, each when its turn (server/base/turn.h) has come.
   Within an SR turns are first come, first served: a call passes another only when the two exclude each other in no
   way, so nothing that waits is ever overtaken by what would make it wait longer. SRs do not know of each other: one
   whose calls all hang keeps at most its share of the threads, the rest serve the others. */
#ifndef SMAPI_SERVER_WORKERS_H
#define SMAPI_SERVER_WORKERS_H

#include "server/base/fault.h"
#include "server/base/turn.h"
#include <stdbool.h>

struct workers;

struct workers_settings {
    unsigned threads; /* at most; they are started as they are needed */
    unsigned running; /* at most at once in one SR; never more than half of the threads (one at least) */
    unsigned waiting; /* at most in one SR */
};

/* From now on refuses what is submitted (Busy), and returns when all that was submitted before has run to its end. */
void workers_drain(struct workers *w);
/* Drains, ends the threads and frees. Nobody may submit any more. NULL is fine. */
void workers_stop(struct workers *w);
/* -1 with fault EIO when not even one thread can be had. */
int workers_new(const struct workers_settings *settings, struct workers **out, struct fault *f);

/* Has run(arg) called on a thread of the pool once the turn has come. -1 with fault Busy when too many wait for this
   SR, or the pool is drained; run is never called then. Calls without an SR share one queue, in which nothing excludes
   anything. Never waits; safe on any thread. */
int workers_submit(struct workers *w, const struct turn *turn, void (*run)(void *), void *arg, struct fault *f);

/* Whether two turns of one SR exclude each other; symmetric. A VDI turn that names no disk may be about any, so it
   excludes every other VDI and SERIAL turn. */
bool turn_excludes(const struct turn *a, const struct turn *b);

#endif
