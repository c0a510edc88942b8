/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that lives as long as one call (or one SR): everything in it is released together. Not shared between threads
   at the same time. */
#ifndef SMAPI_BASE_ARENA_H
#define SMAPI_BASE_ARENA_H

#include "server/base/own.h"
#include <stdarg.h>
#include <stddef.h>

struct arena;

void arena_free(struct arena *a); /* NULL is fine */

/* An arena that grows up to ceiling bytes; past it the process aborts, as every input has its own smaller limit
   checked before. */
struct arena *arena_new(size_t ceiling) DEALLOC(arena_free);

/* Forgets everything, keeps the first block for reuse. */
void arena_reset(struct arena *a);

/* Never NULL; zeroed; aligned for any type. */
void *arena_alloc(struct arena *a, size_t size);
char *arena_copy(struct arena *a, const char *text, size_t length); /* NUL-terminated copy */
char *arena_text(struct arena *a, const char *text);                /* NULL gives NULL */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);

/* Items of size bytes each, with room for one more behind count: as they are, or a larger copy; *room, which begins at
   0, follows. */
void *arena_grown(struct arena *a, void *items, size_t count, size_t *room, size_t size);

#define ARENA_NEW(a, type)      ((type *) arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *) arena_alloc((a), sizeof(type) * (n)))

static inline void own_arena(struct arena **a)
{
    arena_free(*a);
}
#define AUTO_ARENA __attribute__((cleanup(own_arena)))

#endif
