/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the layouts have in common of settling an operation that a crash or a fault left open: rows of methods. */
#ifndef SMAPI_BACKENDS_SETTLE_H
#define SMAPI_BACKENDS_SETTLE_H

#include "backends/driver.h"

/* What one settling works on. */
struct settling {
    struct sr *sr;
    const struct plan *plan;
    const struct vdi *wanted; /* or NULL */
    struct arena *a;          /* or NULL: one of its own, while it lasts */
    enum settled how;         /* SETTLED_STUCK until the row says otherwise */
    /* Out, for SETTLED_DONE. */
    struct vdi *vdi, *base;
    struct deletion *deleted;
};

struct settle_row {
    const char *method;
    /* Sets how; -1 with a fault leaves the operation open. */
    int (*settle)(struct settling *w, struct fault *f);
    bool after_poison; /* what is left is only removed, so that it does not matter what the medium forgot */
};

/* By the row of the plan's method; a method without one stays stuck, and so does one that must not be settled on a
   poisoned SR, also when it was settling that met the failed sync. memory: the most that an arena of its own may hold.
 */
int settle_by_row(const struct settle_row *rows, size_t count, size_t memory, struct settling *w, struct fault *f);

#endif
