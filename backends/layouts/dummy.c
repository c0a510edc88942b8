/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dummy: every call works and nothing is stored. Disks are the rows their SR has; their content, for tests of leases
   and fencing, is a log of writes in this process. */
#include "backends/layouts/layout.h"
#include "server/base/log.h"
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#define DUMMY_SIZE UINT64_C(2000000000000)

enum { DISKS_MAX = 16384, WRITES_MAX = 65536, BYTES_MAX = 4 << 20, SR_BYTES_MAX = 128 << 20, ARENA_MAX = 512 << 20 };

struct dummy_write {
    struct dummy_write *next;
    struct disk_write write;
};

/* In the arena of its SR, as its writes are. */
struct dummy_disk {
    struct dummy_disk *next;
    struct uuid uuid;
    uint64_t newest; /* epoch activated */
    uint64_t writer; /* the one epoch that may write; 0: none */
    struct dummy_write *first, *last;
    size_t count, bytes;
};

/* sr->state. The mutex guards everything in it: disks of one SR are worked on by several threads. */
struct dummy_sr {
    pthread_mutex_t mutex;
    struct arena *arena;
    struct dummy_disk *disks, *spare; /* spare: records of disks that are gone */
    size_t count, bytes;              /* bytes: of all writes ever, as they are freed with the SR */
};

static int dummy_sr_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) f;
    log_line(LOG_DEBUG, "dummy sr_create sr=%s op=%s size=%" PRIu64, sr->uuid.text, plan->op.text, plan->size);
    return 0;
}

static int dummy_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) f;
    log_line(LOG_DEBUG, "dummy sr_delete sr=%s op=%s", sr->uuid.text, plan->op.text);
    return 0;
}

static int dummy_sr_attach(struct sr *sr, struct fault *f)
{
    (void) f;
    struct dummy_sr *state = calloc(1, sizeof *state);
    if (!state)
        abort();
    pthread_mutex_init(&state->mutex, NULL);
    state->arena = arena_new(ARENA_MAX);
    sr->state = state;
    log_line(LOG_DEBUG, "dummy sr_attach sr=%s", sr->uuid.text);
    return 0;
}

static void dummy_sr_detach(struct sr *sr)
{
    log_line(LOG_DEBUG, "dummy sr_detach sr=%s", sr->uuid.text);
    struct dummy_sr *state = TAKE(sr->state);
    arena_free(state->arena);
    pthread_mutex_destroy(&state->mutex);
    free(state);
}

static int dummy_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f)
{
    (void) sr, (void) f;
    *out = (struct sr_totals){.physical_size = DUMMY_SIZE};
    return 0;
}

static int dummy_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                         struct sr_totals *totals, struct fault *f)
{
    struct vdi_list list = {0};
    uint64_t sum = 0;
    log_line(LOG_DEBUG, "dummy sr_scan sr=%s rows=%zu", sr->uuid.text, known->count);
    for (size_t i = 0; i < known->count; i++) {
        const struct vdi *vdi = &known->items[i];
        if (vdi->state == VDI_CREATING || vdi->state == VDI_DELETING)
            continue;
        *vdi_list_add(a, &list) = *vdi;
        sum += vdi->hidden ? 0 : vdi->size;
    }
    *out = list;
    dummy_sr_totals(sr, totals, f);
    totals->virtual_allocation = sum;
    return 0;
}

static int check_size(uint64_t size, struct fault *f)
{
    return size ? 0 : fault_set(f, FAULT_VDISize, "a disk of 0 bytes");
}

static void place_disk(struct arena *a, const struct uuid *uuid, struct vdi *vdi)
{
    vdi->uuid = *uuid;
    if (!vdi->location[0])
        vdi->location = arena_copy(a, uuid->text, UUID_TEXT);
    vdi->state = VDI_LIVE;
    vdi->format = "";
}

static int dummy_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                            struct vdi *out, struct fault *f)
{
    log_line(LOG_DEBUG, "dummy vdi_create sr=%s vdi=%s size=%" PRIu64 " label=\"%s\" type=%s", sr->uuid.text,
             plan->vdi.text, wanted->size, wanted->label, wanted->type);
    if (check_size(wanted->size, f) < 0)
        return -1;
    struct vdi vdi = layout_copy(a, wanted);
    place_disk(a, &plan->vdi, &vdi);
    *out = vdi;
    return 0;
}

static int dummy_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                            struct deletion *deleted, struct fault *f)
{
    (void) vdi, (void) a, (void) deleted, (void) f;
    struct dummy_sr *state = sr->state;
    log_line(LOG_DEBUG, "dummy vdi_delete sr=%s vdi=%s", sr->uuid.text, plan->vdi.text);
    pthread_mutex_lock(&state->mutex);
    struct dummy_disk **at = &state->disks;
    while (*at && !uuid_equal(&(*at)->uuid, &plan->vdi))
        at = &(*at)->next;
    struct dummy_disk *gone = *at;
    if (gone) {
        *at = gone->next;
        state->count--;
        gone->next = state->spare;
        state->spare = gone;
    }
    pthread_mutex_unlock(&state->mutex);
    return 0;
}

/* Any location is a disk, as there is nothing to look at. */
static int dummy_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a,
                               struct vdi *out, struct fault *f)
{
    (void) f;
    log_line(LOG_DEBUG, "dummy vdi_introduce sr=%s vdi=%s location=\"%s\"", sr->uuid.text, plan->vdi.text, location);
    struct vdi vdi = vdi_blank();
    vdi.location = arena_text(a, location);
    vdi.size = plan->size;
    place_disk(a, &plan->vdi, &vdi);
    *out = vdi;
    return 0;
}

static int dummy_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                            struct vdi *out, struct fault *f)
{
    (void) plan, (void) f;
    log_line(LOG_DEBUG, "dummy vdi_update sr=%s vdi=%s label=\"%s\"", sr->uuid.text, vdi->uuid.text, vdi->label);
    *out = layout_copy(a, vdi);
    return 0;
}

static int dummy_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                            struct vdi *out, struct fault *f)
{
    log_line(LOG_DEBUG, "dummy vdi_resize sr=%s vdi=%s size=%" PRIu64 " now=%" PRIu64, sr->uuid.text, vdi->uuid.text,
             plan->size, vdi->size);
    if (check_size(plan->size, f) < 0)
        return -1;
    if (plan->size < vdi->size)
        return fault_set(f, FAULT_VDISize, "disk %s has %" PRIu64 " bytes and is never made smaller", vdi->uuid.text,
                         vdi->size);
    *out = layout_copy(a, vdi);
    out->size = plan->size;
    return 0;
}

/* An independent disk that names its source as parent; no base is left behind. */
static int dummy_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                          struct arena *a, struct vdi *made, struct vdi *base, struct fault *f)
{
    (void) base, (void) f;
    log_line(LOG_DEBUG, "dummy %s sr=%s vdi=%s made=%s", plan->method, sr->uuid.text, vdi->uuid.text, plan->made.text);
    struct vdi copy = layout_copy(a, wanted);
    place_disk(a, &plan->made, &copy);
    copy.parent = vdi->uuid;
    *made = copy;
    return 0;
}

/* /dev/null, as the older driver of this name had it. */
static int dummy_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                            struct fault *f)
{
    (void) a, (void) f;
    log_line(LOG_DEBUG, "dummy vdi_attach sr=%s vdi=%s writable=%d", sr->uuid.text, vdi->uuid.text, writable);
    *path = "/dev/null";
    return 0;
}

static int dummy_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) f;
    log_line(LOG_DEBUG, "dummy vdi_detach sr=%s vdi=%s", sr->uuid.text, vdi->uuid.text);
    return 0;
}

/* The disk's record, made when it is missing; NULL when there are too many. Call with the mutex held. */
static struct dummy_disk *disk_of(struct dummy_sr *state, const struct uuid *uuid)
{
    for (struct dummy_disk *d = state->disks; d; d = d->next)
        if (uuid_equal(&d->uuid, uuid))
            return d;
    if (state->count == DISKS_MAX)
        return NULL;
    struct dummy_disk *d = state->spare ? state->spare : ARENA_NEW(state->arena, struct dummy_disk);
    if (d == state->spare)
        state->spare = d->next;
    *d = (struct dummy_disk){.next = state->disks, .uuid = *uuid};
    state->disks = d;
    state->count++;
    return d;
}

static int too_many(const struct sr *sr, struct fault *f)
{
    return fault_set(f, FAULT_SRNoSpace, "SR %s has records of %d disks already", sr->uuid.text, DISKS_MAX);
}

static int dummy_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    struct dummy_sr *state = sr->state;
    log_line(LOG_DEBUG, "dummy vdi_activate sr=%s vdi=%s epoch=%" PRIu64 " writable=%d", sr->uuid.text, vdi->uuid.text,
             epoch, writable);
    pthread_mutex_lock(&state->mutex);
    struct dummy_disk *d = disk_of(state, &vdi->uuid);
    if (d && d->newest <= epoch) {
        d->newest = epoch;
        d->writer = writable ? epoch : 0;
    }
    pthread_mutex_unlock(&state->mutex);
    return d ? 0 : too_many(sr, f);
}

static int dummy_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    struct dummy_sr *state = sr->state;
    log_line(LOG_DEBUG, "dummy vdi_deactivate sr=%s vdi=%s", sr->uuid.text, vdi->uuid.text);
    pthread_mutex_lock(&state->mutex);
    struct dummy_disk *d = disk_of(state, &vdi->uuid);
    if (d)
        d->writer = 0;
    pthread_mutex_unlock(&state->mutex);
    return d ? 0 : too_many(sr, f);
}

/* Whoever held this epoch or an older one writes no more. After a restart nobody does until its lease is restored. */
static int dummy_vdi_fence(struct sr *sr, const struct vdi *vdi, const char *holder, uint64_t epoch, struct fault *f)
{
    struct dummy_sr *state = sr->state;
    log_line(LOG_DEBUG, "dummy vdi_fence sr=%s vdi=%s holder=%s epoch=%" PRIu64, sr->uuid.text, vdi->uuid.text, holder,
             epoch);
    pthread_mutex_lock(&state->mutex);
    struct dummy_disk *d = disk_of(state, &vdi->uuid);
    if (d && d->writer <= epoch)
        d->writer = 0;
    if (d && d->newest <= epoch)
        d->newest = epoch + 1;
    bool closed = d && d->writer != epoch && d->newest > epoch;
    pthread_mutex_unlock(&state->mutex);
    if (!d)
        return too_many(sr, f);
    return closed ? 0
                  : fault_set(f, FAULT_LockErr, "disk %s still takes writes of epoch %" PRIu64, vdi->uuid.text, epoch);
}

static int disk_append(struct dummy_sr *state, struct dummy_disk *d, uint64_t epoch, const char *data, struct fault *f)
{
    size_t length = strlen(data);
    if (epoch < d->newest)
        return fault_set(f, FAULT_LockErr,
                         "disk %s: a write of epoch %" PRIu64 " is too late, epoch %" PRIu64 " was activated since",
                         d->uuid.text, epoch, d->newest);
    if (epoch != d->writer)
        return fault_set(f, FAULT_LockErr, "disk %s: epoch %" PRIu64 " may not write, epoch %" PRIu64 " may",
                         d->uuid.text, epoch, d->writer);
    if (d->count == WRITES_MAX || length > BYTES_MAX || d->bytes > BYTES_MAX - length || state->bytes > SR_BYTES_MAX)
        return fault_set(f, FAULT_SRNoSpace, "disk %s keeps %d writes and %d bytes at most, its SR %d bytes",
                         d->uuid.text, WRITES_MAX, BYTES_MAX, SR_BYTES_MAX);
    struct dummy_write *w = ARENA_NEW(state->arena, struct dummy_write);
    w->write = (struct disk_write){epoch, arena_text(state->arena, data)};
    if (d->last)
        d->last->next = w;
    else
        d->first = w;
    d->last = w;
    d->count++;
    d->bytes += length;
    state->bytes += length + sizeof *w;
    return 0;
}

static int dummy_disk_write(struct sr *sr, const struct vdi *vdi, uint64_t epoch, const char *data, struct fault *f)
{
    struct dummy_sr *state = sr->state;
    log_line(LOG_DEBUG, "dummy disk_write sr=%s vdi=%s epoch=%" PRIu64 " bytes=%zu", sr->uuid.text, vdi->uuid.text,
             epoch, strlen(data));
    pthread_mutex_lock(&state->mutex);
    struct dummy_disk *d = disk_of(state, &vdi->uuid);
    int r = d ? disk_append(state, d, epoch, data, f) : too_many(sr, f);
    pthread_mutex_unlock(&state->mutex);
    return r;
}

static int dummy_disk_log(struct sr *sr, const struct vdi *vdi, struct arena *a, struct disk_write **out, size_t *count,
                          struct fault *f)
{
    struct dummy_sr *state = sr->state;
    pthread_mutex_lock(&state->mutex);
    const struct dummy_disk *d = disk_of(state, &vdi->uuid);
    if (d) {
        *out = ARENA_ARRAY(a, struct disk_write, d->count);
        *count = d->count;
    }
    size_t i = 0;
    for (const struct dummy_write *w = d ? d->first : NULL; w; w = w->next)
        (*out)[i++] = (struct disk_write){w->write.epoch, arena_text(a, w->write.data)};
    pthread_mutex_unlock(&state->mutex);
    return d ? 0 : too_many(sr, f);
}

/* There is no medium that could have kept anything: what goes away is gone, everything else never was. */
static int dummy_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                        enum settled *how, struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f)
{
    (void) wanted, (void) a, (void) vdi, (void) base, (void) deleted, (void) f;
    bool goes = strcmp(plan->method, "vdi_delete") == 0 || strcmp(plan->method, "sr_delete") == 0;
    log_line(LOG_DEBUG, "dummy settle sr=%s method=%s op=%s", sr->uuid.text, plan->method, plan->op.text);
    *how = goes ? SETTLED_DONE : SETTLED_UNDONE;
    return 0;
}

/* No recognise: there is nowhere it could look. */
const struct layout layout_dummy = {
    .name = "dummy",
    .sr_create = dummy_sr_create,
    .sr_delete = dummy_sr_delete,
    .sr_attach = dummy_sr_attach,
    .sr_detach = dummy_sr_detach,
    .sr_scan = dummy_sr_scan,
    .sr_totals = dummy_sr_totals,
    .vdi_create = dummy_vdi_create,
    .vdi_delete = dummy_vdi_delete,
    .vdi_introduce = dummy_vdi_introduce,
    .vdi_update = dummy_vdi_update,
    .vdi_resize = dummy_vdi_resize,
    .vdi_snapshot = dummy_vdi_fork,
    .vdi_clone = dummy_vdi_fork,
    .vdi_attach = dummy_vdi_attach,
    .vdi_detach = dummy_vdi_detach,
    .vdi_activate = dummy_vdi_activate,
    .vdi_restore = dummy_vdi_activate,
    .vdi_deactivate = dummy_vdi_deactivate,
    .vdi_fence = dummy_vdi_fence,
    .disk_write = dummy_disk_write,
    .disk_log = dummy_disk_log,
    .settle = dummy_settle,
};
