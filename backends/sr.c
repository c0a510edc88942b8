/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/driver.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>

enum { REASON = 512 };

int sr_poison(struct sr *sr, struct fault *f, const char *fmt, ...)
{
    int saved = errno;
    char what[REASON], why[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    enum fault_code code = saved == ENOSPC || saved == EDQUOT ? FAULT_SRNoSpace : FAULT_EIO;
    fault_set(f, code, "%s: %s", what, strerror_r(saved, why, sizeof why));
    AUTO_FREE char *reason = strdup(f->detail);
    char *none = NULL;
    if (reason && atomic_compare_exchange_strong(&sr->poison, &none, reason))
        reason = NULL;
    return -1;
}

void found_add(struct arena *a, struct found_list *l, struct found_sr item)
{
    if (l->count == l->room) {
        size_t room = l->room ? l->room * 2 : 8;
        struct found_sr *items = ARENA_ARRAY(a, struct found_sr, room);
        if (l->count)
            memcpy(items, l->items, l->count * sizeof *items);
        l->items = items;
        l->room = room;
    }
    l->items[l->count++] = item;
}
