/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All images of a directory, as they were when they were last read. */
#ifndef SMAPI_BACKENDS_FILE_CACHE_H
#define SMAPI_BACKENDS_FILE_CACHE_H

#include "backends/layouts/file.h"
#include <time.h>

struct scanned {
    struct uuid uuid;
    const struct image_format *format;
    ino_t inode;
    off_t length;
    struct timespec modified, changed;
    struct image_info info;
    const char *damage; /* of the image itself, in the arena of the refresh; NULL for a sound one */
    bool plain;         /* a regular file, or it cannot be told */
    bool believed;      /* sound, and old enough to be taken from here next time */
    uint32_t row;       /* where its row stood among the known ones: a guess for the next time */
};

/* A place of the index: position in items and the hash, so that a look-up seldom touches an item that is not it. */
struct place_of {
    uint32_t hash, at; /* at: 1 + position, 0 for a free place */
};

/* Images in the order they were read, with an index by uuid. All of it lives in its own arena. */
struct scan_cache {
    struct arena *arena;
    struct scanned *items;
    size_t count, room;
    struct place_of *index; /* mask + 1 places, at least twice the room */
    size_t mask;
};

/* Reads the directory into *cache; unchanged images are taken from the one that stands there (or NULL), which is freed.
   A fault leaves it. */
int scan_cache_refresh(struct sr *sr, struct arena *a, struct scan_cache **cache, struct fault *f);
/* NULL when there is none. */
struct scanned *scan_cache_find(const struct scan_cache *c, const struct uuid *uuid);

/* For other tables of the same make. */
uint32_t file_uuid_hash(const struct uuid *u);
size_t file_places_for(size_t count);
bool file_same_uuid(const struct uuid *a, const struct uuid *b);

#endif
