/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/arena.h"

#include <stdint.h>
#include <string.h>

enum { FIRST_BLOCK = 8192, ALIGN = 16 };

struct block {
    struct block *next;
    size_t size, used;
    _Alignas(ALIGN) unsigned char data[];
};

struct arena {
    struct block *first, *last;
    size_t ceiling, total;
};

static struct block *block_add(struct arena *a, size_t need)
{
    size_t size = a->last ? a->last->size * 2 : FIRST_BLOCK;
    if (size > (1U << 20))
        size = 1U << 20;
    if (size < need)
        size = need;
    if (size > a->ceiling || a->total > a->ceiling - size)
        abort();
    struct block *b = malloc(sizeof *b + size);
    if (!b)
        abort();
    b->next = NULL;
    b->size = size;
    b->used = 0;
    a->total += size;
    if (a->last)
        a->last->next = b;
    else
        a->first = b;
    a->last = b;
    return b;
}

struct arena *arena_new(size_t ceiling)
{
    struct arena *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    a->ceiling = ceiling;
    return a;
}

static void blocks_free(struct block *b)
{
    while (b) {
        struct block *next = b->next;
        free(b);
        b = next;
    }
}

void arena_reset(struct arena *a)
{
    if (!a->first)
        return;
    blocks_free(a->first->next);
    a->first->next = NULL;
    a->first->used = 0;
    a->last = a->first;
    a->total = a->first->size;
}

void arena_free(struct arena *a)
{
    if (!a)
        return;
    blocks_free(a->first);
    free(a);
}

void *arena_alloc(struct arena *a, size_t size)
{
    if (size > SIZE_MAX - ALIGN)
        abort();
    size_t need = (size + ALIGN - 1) & ~(size_t) (ALIGN - 1);
    struct block *b = a->last;
    if (!b || b->size - b->used < need)
        b = block_add(a, need);
    void *p = b->data + b->used;
    b->used += need;
    return memset(p, 0, need);
}

char *arena_copy(struct arena *a, const char *text, size_t length)
{
    char *copy = arena_alloc(a, length + 1);
    if (length)
        memcpy(copy, text, length);
    return copy;
}

char *arena_text(struct arena *a, const char *text)
{
    return text ? arena_copy(a, text, strlen(text)) : NULL;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (length < 0)
        abort();
    char *out = arena_alloc(a, (size_t) length + 1);
    vsnprintf(out, (size_t) length + 1, fmt, again);
    va_end(again);
    return out;
}

void *arena_grown(struct arena *a, void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? *room * 2 : 16;
    void *more = arena_alloc(a, *room * size);
    if (count)
        memcpy(more, items, count * size);
    return more;
}
