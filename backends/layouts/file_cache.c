/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One pass over the directory. What an image says of itself is remembered with the identity of the file (inode, size,
   times), so that an unchanged image costs one fstatat and no open. */
#include "backends/layouts/file_cache.h"

#include "backends/directory.h"
#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

/* A file written this recently may be written again without its times telling. */
enum { RECENT_SECONDS = 2, IMAGES_MAX = 1000000, CACHE_MAX = 1 << 30 };

/* Images open at once, and how much of both their ends is asked for before the first of them is read: on a medium that
   must be waited for, they are waited for together. */
enum { AHEAD = 64, AHEAD_BYTES = 4096 };

/* ------------------------------------------------------------------ index by uuid */

/* Every digit counts: uuids of tests and of careless makers differ in few of them. */
uint32_t file_uuid_hash(const struct uuid *u)
{
    static const size_t starts[] = {0, 8, 16, 24, 28};
    uint64_t h = 0;
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        uint64_t part;
        memcpy(&part, u->text + starts[i], sizeof part);
        h = (h ^ part) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return (uint32_t) (h ^ (h >> 32));
}

bool file_same_uuid(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->text, b->text, UUID_TEXT) == 0;
}

size_t file_places_for(size_t count)
{
    size_t places = 64;
    while (places < count * 2)
        places *= 2;
    return places;
}

/* The place of uuid in the index: where it is, or the free one where it belongs. */
static struct place_of *cache_place(const struct scan_cache *c, const struct uuid *uuid, uint32_t hash)
{
    size_t at = hash & c->mask;
    while (c->index[at].at && (c->index[at].hash != hash || !file_same_uuid(&c->items[c->index[at].at - 1].uuid, uuid)))
        at = (at + 1) & c->mask;
    return &c->index[at];
}

struct scanned *scan_cache_find(const struct scan_cache *c, const struct uuid *uuid)
{
    uint32_t at = c ? cache_place(c, uuid, file_uuid_hash(uuid))->at : 0;
    return at ? &c->items[at - 1] : NULL;
}

static void cache_index(struct scan_cache *c)
{
    size_t places = file_places_for(c->room);
    c->index = ARENA_ARRAY(c->arena, struct place_of, places);
    c->mask = places - 1;
    for (size_t i = 0; i < c->count; i++) {
        uint32_t hash = file_uuid_hash(&c->items[i].uuid);
        *cache_place(c, &c->items[i].uuid, hash) = (struct place_of){hash, (uint32_t) i + 1};
    }
}

static void cache_grow(struct scan_cache *c)
{
    struct scanned *items = ARENA_ARRAY(c->arena, struct scanned, c->room * 2);
    memcpy(items, c->items, c->count * sizeof *items);
    c->items = items;
    c->room *= 2;
    cache_index(c);
}

static struct scan_cache *cache_new(size_t room)
{
    struct arena *arena = arena_new(CACHE_MAX);
    struct scan_cache *c = ARENA_NEW(arena, struct scan_cache);
    c->arena = arena;
    c->room = room;
    c->items = ARENA_ARRAY(arena, struct scanned, room);
    cache_index(c);
    return c;
}

void scan_cache_free(struct scan_cache *c)
{
    if (c)
        arena_free(c->arena);
}

static void own_cache(struct scan_cache **c)
{
    scan_cache_free(*c);
}
#define AUTO_CACHE __attribute__((cleanup(own_cache)))

/* The item of uuid, blank and *added when it was not there. */
static struct scanned *cache_put(struct scan_cache *c, const struct uuid *uuid, bool *added)
{
    if (c->count == c->room)
        cache_grow(c);
    uint32_t hash = file_uuid_hash(uuid);
    struct place_of *place = cache_place(c, uuid, hash);
    *added = place->at == 0;
    if (!*added)
        return &c->items[place->at - 1];
    struct scanned *s = &c->items[c->count++];
    *s = (struct scanned){.uuid = *uuid};
    *place = (struct place_of){hash, (uint32_t) c->count};
    return s;
}

/* ------------------------------------------------------------------ one image */

/* An image that was opened and is still to be read. */
struct opened {
    size_t at; /* position in the pass's items */
    int fd;
    struct stat st;
};

/* What one pass works with. */
struct pass {
    int dir;
    struct arena *a;
    const struct scan_cache *before; /* or NULL */
    struct scan_cache *now;
    size_t next;     /* position in before of the image that is expected: directories keep their order */
    int64_t started; /* CLOCK_REALTIME seconds: the clock of the file's times, near enough */
    struct opened opened[AHEAD];
    size_t opened_count;
};

static void damaged(struct pass *p, struct scanned *s, const char *why)
{
    s->damage = arena_text(p->a, why);
    s->believed = false;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Takes over what was read of this very file before. */
static bool recall(const struct scanned *old, struct scanned *s, const struct stat *st)
{
    if (!old || !old->believed || old->format != s->format || old->inode != st->st_ino || old->length != st->st_size ||
        !same_time(&old->modified, &st->st_mtim) || !same_time(&old->changed, &st->st_ctim))
        return false;
    *s = *old;
    s->info.utilisation = (uint64_t) st->st_blocks * 512;
    return true;
}

static void read_image(struct pass *p, struct scanned *s, int fd, const struct stat *st)
{
    struct fault f;
    if (s->format->info(fd, &s->info, &f) < 0) {
        damaged(p, s, f.detail);
        return;
    }
    s->inode = st->st_ino;
    s->length = st->st_size;
    s->modified = st->st_mtim;
    s->changed = st->st_ctim;
    s->believed = st->st_mtim.tv_sec + RECENT_SECONDS < p->started && st->st_ctim.tv_sec + RECENT_SECONDS < p->started;
}

/* Those that were found damaged since they were opened stay so. */
static void read_opened(struct pass *p)
{
    for (size_t i = 0; i < p->opened_count; i++) {
        AUTO_FD int fd = p->opened[i].fd;
        struct scanned *s = &p->now->items[p->opened[i].at];
        if (!s->damage)
            read_image(p, s, fd, &p->opened[i].st);
    }
    p->opened_count = 0;
}

/* Whether the end of an image is in memory, so that reading it now costs no waiting. */
static bool is_at_hand(int fd, off_t length)
{
    char byte;
    const struct iovec one = {&byte, 1};
    return length > 0 && preadv2(fd, &one, 1, length - 1, RWF_NOWAIT) == 1;
}

static void read_later(struct pass *p, struct scanned *s, int fd, const struct stat *st)
{
    posix_fadvise(fd, 0, AHEAD_BYTES, POSIX_FADV_WILLNEED);
    if (st->st_size > AHEAD_BYTES)
        posix_fadvise(fd, st->st_size - AHEAD_BYTES, AHEAD_BYTES, POSIX_FADV_WILLNEED);
    p->opened[p->opened_count++] = (struct opened){(size_t) (s - p->now->items), fd, *st};
    if (p->opened_count == AHEAD)
        read_opened(p);
}

static void open_image(struct pass *p, struct scanned *s, const char *name)
{
    struct fault f;
    struct stat st;
    AUTO_FD int fd = io_open_beneath(p->dir, name, O_RDONLY, 0);
    if (fd < 0 || fstat(fd, &st) < 0) {
        s->plain = errno != ELOOP;
        fault_errno(&f, FAULT_VDILoad, "open its image");
        damaged(p, s, f.detail);
        return;
    }
    s->plain = S_ISREG(st.st_mode);
    const char *wrong = image_wrong(&st);
    if (wrong)
        damaged(p, s, wrong);
    else if (!s->format->chains || is_at_hand(fd, st.st_size))
        read_image(p, s, fd, &st);
    else
        read_later(p, s, TAKE_FD(fd), &st);
}

/* A file that was not there before is opened at once if the directory calls it a plain one; a device never is. */
static void look_at(struct pass *p, struct scanned *s, const struct scanned *old, const struct dirent *e)
{
    struct stat st;
    if (e->d_type == DT_REG && !old) {
        open_image(p, s, e->d_name);
        return;
    }
    if (fstatat(p->dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        s->plain = true;
        damaged(p, s, "its image cannot be looked at");
        return;
    }
    s->plain = S_ISREG(st.st_mode);
    const char *wrong = image_wrong(&st);
    if (wrong)
        damaged(p, s, wrong);
    else if (!recall(old, s, &st))
        open_image(p, s, e->d_name);
}

/* Whether a name is that of an image, and what was read of it before (NULL for nothing). */
static const struct image_format *know_image(struct pass *p, const char *name, struct uuid *uuid,
                                             const struct scanned **old)
{
    const struct scanned *guess = p->before && p->next < p->before->count ? &p->before->items[p->next] : NULL;
    if (guess && strncmp(name, guess->uuid.text, UUID_TEXT) == 0 &&
        strcmp(name + UUID_TEXT, guess->format->suffix) == 0) {
        p->next++;
        *uuid = guess->uuid;
        *old = guess;
        return guess->format;
    }
    const struct image_format *format = image_format_of_file(name, uuid);
    *old = format ? scan_cache_find(p->before, uuid) : NULL;
    if (*old)
        p->next = (size_t) (*old - p->before->items) + 1;
    return format;
}

static int take_entry(struct pass *p, const struct dirent *e, struct fault *f)
{
    struct uuid uuid = UUID_NONE;
    const struct scanned *old;
    bool added;
    const struct image_format *format = know_image(p, e->d_name, &uuid, &old);
    if (!format)
        return 0;
    if (p->now->count == IMAGES_MAX)
        return fault_set(f, FAULT_SRScan, "more than %d images in one SR", IMAGES_MAX);
    struct scanned *s = cache_put(p->now, &uuid, &added);
    if (!added) {
        damaged(p, s, "it has images of more than one format");
        return 0;
    }
    s->format = format;
    look_at(p, s, old, e);
    return 0;
}

static int read_directory(struct sr *sr, struct pass *p, struct fault *f)
{
    AUTO_DIR DIR *entries = directory_entries(p->dir);
    if (!entries)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(entries);
        if (!e)
            return errno ? fault_errno(f, FAULT_SRScan, "list %s", sr->place.path) : 0;
        if (take_entry(p, e, f) < 0)
            return -1;
    }
}

int scan_cache_refresh(struct sr *sr, struct arena *a, struct scan_cache **cache, struct fault *f)
{
    struct timespec now;
    struct scan_cache *before = *cache;
    clock_gettime(CLOCK_REALTIME, &now);
    AUTO_CACHE struct scan_cache *fresh = cache_new(before ? before->count + 64 : 1024);
    struct pass p = {.dir = sr->place.dir, .a = a, .before = before, .now = fresh, .started = now.tv_sec};
    int listed = read_directory(sr, &p, f);
    read_opened(&p);
    if (listed < 0)
        return -1;
    *cache = TAKE(fresh);
    scan_cache_free(before);
    return 0;
}
