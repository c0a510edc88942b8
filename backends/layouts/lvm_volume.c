/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading and writing volumes. An active one is reached through its device-mapper device; any other one where its
   extents lie on the physical volumes: past the page cache of either, by whole sectors, and only where each device
   still carries the label of the physical volume it was reported to be. */
#include "backends/layouts/lvm.h"
#include "backends/tools/dm.h"
#include "server/base/io.h"
#include "server/base/units.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#define CHUNK         (1024U * 1024) /* of what is asked for, at a time */
#define LABEL_SECTORS 4U             /* in one of which the label stands */
#define LABEL_ID      "LABELONE"
#define LABEL_UUID_AT 32U
#define LABEL_UUID    32U

/* ------------------------------------------------------------------ opening */

static unsigned sector_of(int fd)
{
    int size = 0;
    return ioctl(fd, BLKSSZGET, &size) == 0 && size >= (int) SECTOR_SIZE && size <= (int) IO_ALIGNMENT ? (unsigned) size
                                                                                                       : IO_ALIGNMENT;
}

/* The label's copy of the uuid has no dashes. */
static bool same_uuid(const unsigned char *label, const char *uuid)
{
    for (size_t i = 0; i < LABEL_UUID; i++, uuid++) {
        uuid += *uuid == '-';
        if (!*uuid || label[i] != (unsigned char) *uuid)
            return false;
    }
    return *uuid == '\0';
}

static bool carries_label(int fd, const char *uuid)
{
    AUTO_FREE unsigned char *raw = io_buffer(IO_ALIGNMENT);
    if (io_read_at(fd, raw, IO_ALIGNMENT, 0) < 0)
        return false;
    for (unsigned i = 0; i < LABEL_SECTORS; i++) {
        const unsigned char *at = raw + (size_t) i * SECTOR_SIZE;
        if (memcmp(at, LABEL_ID, strlen(LABEL_ID)) == 0)
            return same_uuid(at + LABEL_UUID_AT, uuid);
    }
    return false;
}

static int open_device(const struct volume *v, const char *path, bool writable, int *out, struct fault *f)
{
    int fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        return fault_errno(f, FAULT_EIO, "open %s for volume %s", path, v->lv->name);
    *out = fd;
    return 0;
}

static int open_active(struct volume *v, dev_t number, bool writable, struct fault *f)
{
    char path[64];
    snprintf(path, sizeof path, "/dev/dm-%u", minor(number));
    v->active = true;
    return open_device(v, path, writable, &v->fds[0], f);
}

static int open_pv(struct volume *v, size_t pv, bool writable, struct fault *f)
{
    const struct lvm_pv *p = &v->vg->pvs[pv];
    if (v->fds[pv] >= 0)
        return 0;
    if (p->missing)
        return fault_set(f, FAULT_LVMNoVolume, "volume %s: a device of its group is missing (%s)", v->lv->name,
                         p->uuid);
    if (open_device(v, p->name, writable, &v->fds[pv], f) < 0)
        return -1;
    return carries_label(v->fds[pv], p->uuid)
               ? 0
               : fault_set(f, FAULT_LVMNoVolume, "%s is no longer the physical volume %s", p->name, p->uuid);
}

/* Every segment within its device. */
static int check_segment(const struct volume *v, const struct lvm_segment *s, struct fault *f)
{
    const struct lvm_pv *p = &v->vg->pvs[s->pv];
    uint64_t extent = v->vg->extent_size, room = p->size > p->pe_start ? (p->size - p->pe_start) / extent : 0;
    if (s->pv_start <= room && s->count <= room - s->pv_start)
        return 0;
    return fault_set(f, FAULT_LVMNoVolume, "volume %s lies behind the end of %s", v->lv->name, p->name);
}

static int open_extents(struct volume *v, bool writable, struct fault *f)
{
    if (!v->lv->linear)
        return fault_set(f, FAULT_LVMNoVolume, "volume %s is not active, and not laid out in plain stretches",
                         v->lv->name);
    for (size_t i = 0; i < v->lv->segment_count; i++)
        if (open_pv(v, v->lv->segments[i].pv, writable, f) < 0 || check_segment(v, &v->lv->segments[i], f) < 0)
            return -1;
    return 0;
}

int volume_open(const struct lvm_vg *vg, const struct lvm_lv *lv, bool writable, struct volume *out, struct fault *f)
{
    char uuid[DM_UUID_SIZE];
    struct dm_device dm;
    AUTO_VOLUME struct volume v = {.vg = vg, .lv = lv, .fd_count = vg->pv_count + 1};
    v.fds = malloc(v.fd_count * sizeof *v.fds);
    if (!v.fds)
        abort();
    for (size_t i = 0; i < v.fd_count; i++)
        v.fds[i] = -1;
    dm_uuid(uuid, vg->uuid, lv->uuid);
    int there = dm_find(uuid, &dm, f);
    if (there < 0 || (there ? open_active(&v, dm.number, writable, f) : open_extents(&v, writable, f)) < 0)
        return -1;
    for (size_t i = 0; i < v.fd_count; i++)
        if (v.fds[i] >= 0 && sector_of(v.fds[i]) > v.sector)
            v.sector = sector_of(v.fds[i]);
    *out = v;
    v.fds = NULL;
    return 0;
}

void volume_close(const struct volume *v)
{
    for (size_t i = 0; v->fds && i < v->fd_count; i++)
        own_fd(&v->fds[i]);
    free(v->fds);
}

/* ------------------------------------------------------------------ where a byte is */

struct spot {
    int fd;
    uint64_t at, length; /* on it, and how far that goes on */
};

static int find_spot(const struct volume *v, uint64_t at, uint64_t length, struct spot *out)
{
    uint64_t extent = v->vg->extent_size;
    if (at > v->lv->size || length > v->lv->size - at) {
        errno = EINVAL;
        return -1;
    }
    *out = (struct spot){.fd = v->fds[0], .at = at, .length = length};
    for (size_t i = 0; !v->active && i < v->lv->segment_count; i++) {
        const struct lvm_segment *s = &v->lv->segments[i];
        uint64_t begin = s->lv_start * extent, end = begin + s->count * extent;
        if (at < begin || at >= end)
            continue;
        *out = (struct spot){.fd = v->fds[s->pv],
                             .at = v->vg->pvs[s->pv].pe_start + s->pv_start * extent + (at - begin),
                             .length = end - at < length ? end - at : length};
        return 0;
    }
    if (v->active)
        return 0;
    errno = EINVAL;
    return -1;
}

/* ------------------------------------------------------------------ reading and writing */

/* Reads or writes the sectors around a stretch that is at most a chunk long and lies in one piece. Whole sectors that
   lie in memory as O_DIRECT wants them are written from where they are. */
static int transfer(const struct volume *v, const struct spot *s, unsigned char *out, const unsigned char *in)
{
    uint64_t begin = s->at - s->at % v->sector, end = (s->at + s->length + v->sector - 1) / v->sector * v->sector;
    size_t length = (size_t) (end - begin), within = (size_t) (s->at - begin);
    bool whole = begin == s->at && length == s->length;
    if (in && whole && (uintptr_t) in % IO_ALIGNMENT == 0)
        return io_write_at(s->fd, in, length, begin);
    AUTO_FREE unsigned char *buffer = io_buffer((length + IO_ALIGNMENT - 1) / IO_ALIGNMENT * IO_ALIGNMENT);
    if ((!in || !whole) && io_read_at(s->fd, buffer, length, begin) < 0)
        return -1;
    if (out)
        memcpy(out, buffer + within, (size_t) s->length);
    if (!in)
        return 0;
    memcpy(buffer + within, in, (size_t) s->length);
    return io_write_at(s->fd, buffer, length, begin);
}

static int transfer_all(const struct volume *v, unsigned char *out, const unsigned char *in, size_t length, uint64_t at)
{
    while (length > 0) {
        struct spot s;
        if (find_spot(v, at, length < CHUNK ? length : CHUNK, &s) < 0 || transfer(v, &s, out, in) < 0)
            return -1;
        at += s.length;
        length -= (size_t) s.length;
        out = out ? out + s.length : NULL;
        in = in ? in + s.length : NULL;
    }
    return 0;
}

int volume_read(const struct volume *v, void *out, size_t length, uint64_t at)
{
    return transfer_all(v, out, NULL, length, at);
}

int volume_write(const struct volume *v, const void *data, size_t length, uint64_t at)
{
    return transfer_all(v, NULL, data, length, at);
}

static int zero_by_hand(const struct volume *v, uint64_t at, uint64_t length)
{
    AUTO_FREE unsigned char *zeros = calloc(1, CHUNK);
    if (!zeros)
        abort();
    while (length > 0) {
        size_t n = length < CHUNK ? (size_t) length : CHUNK;
        if (volume_write(v, zeros, n, at) < 0)
            return -1;
        at += n;
        length -= n;
    }
    return 0;
}

int volume_zero(const struct volume *v, uint64_t at, uint64_t length)
{
    while (length > 0) {
        struct spot s;
        if (find_spot(v, at, length, &s) < 0)
            return -1;
        uint64_t range[2] = {s.at, s.length};
        if ((s.at % v->sector || s.length % v->sector || ioctl(s.fd, BLKZEROOUT, range) < 0) &&
            zero_by_hand(v, at, s.length) < 0)
            return -1;
        at += s.length;
        length -= s.length;
    }
    return 0;
}

int volume_sync(const struct volume *v)
{
    for (size_t i = 0; i < v->fd_count; i++)
        if (v->fds[i] >= 0 && fsync(v->fds[i]) < 0)
            return -1;
    return 0;
}

int lvm_sync(struct sr *sr, const struct volume *v, struct fault *f)
{
    return volume_sync(v) < 0 ? sr_poison(sr, f, "sync volume %s", v->lv->name) : 0;
}
