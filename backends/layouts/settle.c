/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/settle.h"
#include <string.h>

static int settle_row(const struct settle_row *row, struct settling *w, struct fault *f)
{
    if ((row->after_poison || !atomic_load(&w->sr->poison)) && row->settle(w, f) < 0)
        return -1;
    if (!row->after_poison && atomic_load(&w->sr->poison))
        w->how = SETTLED_STUCK;
    return 0;
}

int settle_by_row(const struct settle_row *rows, size_t count, size_t memory, struct settling *w, struct fault *f)
{
    AUTO_ARENA struct arena *own = w->a ? NULL : arena_new(memory);
    if (own)
        w->a = own;
    w->how = SETTLED_STUCK;
    for (size_t i = 0; i < count; i++)
        if (strcmp(rows[i].method, w->plan->method) == 0)
            return settle_row(&rows[i], w, f);
    return 0;
}
