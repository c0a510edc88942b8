/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/scsi/fence.h"

#include "backends/scsi/command.h"
#include "backends/scsi/sysfs.h"
#include "server/base/arena.h"
#include "server/base/point.h"
#include <inttypes.h>
#include <string.h>

#define EPOCH_BITS 40
#define SHUT       (UINT64_C(1) << (EPOCH_BITS - 1)) /* in a key: not of a writer, but of who shut writers out */
#define EPOCH_MASK (SHUT - 1)
#define OURS       UINT64_C(0x53)

enum { WRITE_EXCLUSIVE_REGISTRANTS = 5 };

/* What is done to a disk by all its paths. */
struct fencing_of {
    const char *path;
    const char **names;
    size_t count;
};

uint64_t fence_key(const struct uuid *server, uint64_t epoch)
{
    char digits[5];
    snprintf(digits, sizeof digits, "%.4s", server->text);
    return OURS << 56 | (uint64_t) strtoul(digits, NULL, 16) << EPOCH_BITS | (epoch & EPOCH_MASK);
}

uint64_t fence_key_after(const struct uuid *server, uint64_t epoch)
{
    return fence_key(server, epoch) | SHUT;
}

/* Of two keys of one server. */
static bool newer(uint64_t a, uint64_t b)
{
    return (a & EPOCH_MASK) == (b & EPOCH_MASK) ? a > b : (a & EPOCH_MASK) > (b & EPOCH_MASK);
}

static bool same_server(uint64_t a, uint64_t b)
{
    return a >> EPOCH_BITS == b >> EPOCH_BITS;
}

static int open_paths(const char *path, struct arena *a, struct fencing_of *out, struct fault *f)
{
    out->path = path;
    return scsi_paths(path, a, &out->names, &out->count, f);
}

static int read_keys(const struct fencing_of *d, struct arena *a, struct reservation **out, enum scsi_answer *answer,
                     struct fault *f)
{
    *out = ARENA_NEW(a, struct reservation);
    *answer = reservation_read(d->names[0], *out, f);
    return *answer == SCSI_GOOD ? 0 : fault_prefix(f, "read the reservations of %s", d->path);
}

int fence_able(const char *path, bool *able, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct fencing_of d;
    struct reservation *r;
    enum scsi_answer answer;
    if (open_paths(path, a, &d, f) < 0)
        return -1;
    int failed = read_keys(&d, a, &r, &answer, f);
    if (failed && answer != SCSI_UNSUPPORTED)
        return -1;
    *able = answer == SCSI_GOOD;
    return 0;
}

/* The first key of somebody else who is not to be driven out; 0 when there is none. */
static uint64_t stranger(const struct reservation *r, uint64_t key)
{
    for (size_t i = 0; i < r->count; i++)
        if (!same_server(r->keys[i], key) || newer(r->keys[i], key))
            return r->keys[i];
    return 0;
}

static int register_all(const struct fencing_of *d, uint64_t key, struct fault *f)
{
    for (size_t i = 0; i < d->count; i++)
        if (reservation_register(d->names[i], key, f) != SCSI_GOOD)
            return fault_prefix(f, "register path %s of %s", d->names[i], d->path);
    return 0;
}

/* Everybody else goes; a holder's reservation passes to key. */
static int drive_out(const struct fencing_of *d, uint64_t key, const struct reservation *r, struct fault *f)
{
    for (size_t i = 0; i < r->count; i++) {
        bool done = r->keys[i] == key;
        for (size_t j = 0; j < i && !done; j++)
            done = r->keys[j] == r->keys[i];
        if (!done && reservation_preempt(d->names[0], key, r->keys[i], f) != SCSI_GOOD)
            return fault_prefix(f, "preempt key 0x%016" PRIx64 " of %s", r->keys[i], d->path);
    }
    return 0;
}

/* Nobody but key is registered, and it holds the reservation. */
static int check_taken(const struct fencing_of *d, uint64_t key, struct arena *a, struct fault *f)
{
    struct reservation *r;
    enum scsi_answer answer;
    if (read_keys(d, a, &r, &answer, f) < 0)
        return -1;
    for (size_t i = 0; i < r->count; i++)
        if (r->keys[i] != key)
            return fault_set(f, FAULT_EIO, "key 0x%016" PRIx64 " is still registered with %s", r->keys[i], d->path);
    if (r->holder != key || r->type != WRITE_EXCLUSIVE_REGISTRANTS)
        return fault_set(f, FAULT_EIO, "%s is reserved by key 0x%016" PRIx64 ", type %u, not by 0x%016" PRIx64, d->path,
                         r->holder, r->type, key);
    return 0;
}

static int take(const struct fencing_of *d, uint64_t key, struct arena *a, struct fault *f)
{
    struct reservation *r;
    enum scsi_answer answer;
    if (register_all(d, key, f) < 0)
        return -1;
    if (POINT(fence_registered) < 0)
        return fault_errno(f, FAULT_EIO, "register with %s", d->path);
    if (read_keys(d, a, &r, &answer, f) < 0 || drive_out(d, key, r, f) < 0 || read_keys(d, a, &r, &answer, f) < 0)
        return -1;
    if (r->holder != key && reservation_reserve(d->names[0], key, f) != SCSI_GOOD)
        return fault_prefix(f, "reserve %s", d->path);
    return check_taken(d, key, a, f);
}

static int take_or_drop(const struct fencing_of *d, uint64_t key, struct arena *a, struct fault *f)
{
    struct fault why = {0}, ignored;
    if (take(d, key, a, &why) == 0)
        return 0;
    register_all(d, 0, &ignored);
    *f = why;
    return -1;
}

int fence_take(const char *path, uint64_t key, enum fault_code refused, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct fencing_of d;
    struct reservation *r;
    enum scsi_answer answer;
    if (open_paths(path, a, &d, f) < 0 || read_keys(&d, a, &r, &answer, f) < 0)
        return -1;
    uint64_t other = stranger(r, key);
    if (other)
        return fault_set(f, refused, "%s is registered under key 0x%016" PRIx64 ", which is not ours to preempt", path,
                         other);
    return take_or_drop(&d, key, a, f);
}

int fence_seize(const char *path, uint64_t key, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct fencing_of d;
    if (open_paths(path, a, &d, f) < 0)
        return -1;
    return take_or_drop(&d, key, a, f);
}

int fence_drop(const char *path, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct fencing_of d;
    return open_paths(path, a, &d, f) < 0 ? -1 : register_all(&d, 0, f);
}

int fence_newest(const char *path, const struct uuid *server, uint64_t *epoch, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct fencing_of d;
    struct reservation *r;
    enum scsi_answer answer;
    if (open_paths(path, a, &d, f) < 0 || read_keys(&d, a, &r, &answer, f) < 0)
        return -1;
    *epoch = 0;
    for (size_t i = 0; i < r->count; i++)
        if (same_server(r->keys[i], fence_key(server, 0)) && (r->keys[i] & EPOCH_MASK) > *epoch)
            *epoch = r->keys[i] & EPOCH_MASK;
    return 0;
}
