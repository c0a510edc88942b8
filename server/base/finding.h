/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a check of everything found to be wrong. Kinds are the rows of finding.def. */
#ifndef SMAPI_BASE_FINDING_H
#define SMAPI_BASE_FINDING_H

#include "server/base/arena.h"
#include "server/base/own.h"
#include "server/base/uuid.h"
#include <stddef.h>

enum finding_kind {
#define FINDING_ROW(kind, text) FINDING_##kind,
#include "server/base/finding.def"
#undef FINDING_ROW
    FINDING_COUNT
};

struct finding_row {
    const char *kind, *text;
};

extern const struct finding_row finding_rows[FINDING_COUNT];

struct finding {
    enum finding_kind kind;
    struct uuid sr;     /* none: of no repository */
    const char *object; /* the disk, file or holder; "" for the repository or the store itself */
    const char *text;   /* a sentence for the person who has to put it right */
};

/* Lives in the arena. */
struct findings {
    struct arena *arena;
    struct finding *items;
    size_t count, room;
};

void finding_add(struct findings *l, enum finding_kind kind, const struct uuid *sr, const char *object, const char *fmt,
                 ...) PRINTF(5, 6);

#endif
