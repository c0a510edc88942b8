/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/finding.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MAX = 512 };

const struct finding_row finding_rows[FINDING_COUNT] = {
#define FINDING_ROW(kind, text) {#kind, text},
#include "server/base/finding.def"
#undef FINDING_ROW
};

static struct finding *room_for_one(struct findings *l)
{
    l->items = arena_grown(l->arena, l->items, l->count, &l->room, sizeof *l->items);
    return &l->items[l->count++];
}

void finding_add(struct findings *l, enum finding_kind kind, const struct uuid *sr, const char *object, const char *fmt,
                 ...)
{
    char text[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    *room_for_one(l) = (struct finding){.kind = kind,
                                        .sr = sr ? *sr : UUID_NONE,
                                        .object = arena_text(l->arena, object),
                                        .text = arena_text(l->arena, text)};
}
