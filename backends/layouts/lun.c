/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lun: a disk is a LUN. The target makes them and takes them away; what is ours is which of them are in use, and that
   is in the rows: a LUN has no room for it. A disk's uuid is made of its LUN's identity, so that every host and every
   database come to the same one. */
#include "backends/layouts/layout.h"
#include "backends/scsi/command.h"
#include "backends/scsi/fence.h"
#include "backends/scsi/md5.h"
#include "backends/scsi/sysfs.h"
#include "server/base/log.h"
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* A disk as its LUN is now. */
struct lun {
    struct uuid uuid;
    const char *path; /* the place's */
    struct scsi_disk disk;
};

/* 8-4-4-4-12 of the MD5 sum of the identity, as hosts have always named LUNs. */
static struct uuid uuid_of(const char *id)
{
    struct uuid uuid = UUID_NONE;
    char hex[33], text[UUID_TEXT + 1];
    md5_hex(id, strlen(id), hex);
    snprintf(text, sizeof text, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12, hex + 16, hex + 20);
    uuid_parse_text(text, &uuid);
    return uuid;
}

/* Links of the place are named by the identities of their disks. */
static const char *id_of_path(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool read_lun(const char *path, struct arena *a, struct lun *out)
{
    *out = (struct lun){.uuid = uuid_of(id_of_path(path)), .path = path};
    return scsi_disk_at(path, a, &out->disk) && strcmp(out->disk.id, id_of_path(path)) == 0;
}

/* The LUN of a disk. VDIUnavailable when it is not there. */
static int find_lun(const struct sr *sr, const struct uuid *vdi, struct arena *a, struct lun *out, struct fault *f)
{
    for (size_t i = 0; i < sr->place.device_count; i++) {
        const char *path = sr->place.devices[i];
        struct uuid uuid = uuid_of(id_of_path(path));
        if (!uuid_equal(&uuid, vdi))
            continue;
        if (read_lun(path, a, out))
            return 0;
        return fault_set(f, FAULT_VDIUnavailable, "the disk at %s is not LUN %s any more", path, id_of_path(path));
    }
    return fault_set(f, FAULT_VDIUnavailable, "the target shows no LUN for VDI %s", vdi->text);
}

/* ------------------------------------------------------------------ SR */

/* Nothing is written to a LUN that nobody has asked for: the SR is a row and no more. */
static int lun_sr_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f;
    return 0;
}

static int lun_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f;
    return 0;
}

/* Whether the target knows reservations is asked of each LUN: one that does not leaves the SR without fencing. */
static int lun_sr_attach(struct sr *sr, struct fault *f)
{
    bool able = true, each;
    for (size_t i = 0; i < sr->place.device_count && able; i++) {
        if (fence_able(sr->place.devices[i], &each, f) < 0)
            return fault_prefix(f, "attach SR %s", sr->uuid.text);
        able = each;
    }
    sr->unfenced = !able;
    return 0;
}

static void lun_sr_detach(struct sr *sr)
{
    (void) sr;
}

static int lun_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct lun lun;
    struct sr_totals t = {0};
    (void) f;
    for (size_t i = 0; i < sr->place.device_count; i++)
        if (read_lun(sr->place.devices[i], a, &lun))
            t.physical_size += lun.disk.size;
    *out = t;
    return 0;
}

static const struct vdi *row_of(const struct vdi_list *known, const struct uuid *uuid)
{
    for (size_t i = 0; i < known->count; i++)
        if (uuid_equal(&known->items[i].uuid, uuid))
            return &known->items[i];
    return NULL;
}

static struct vdi fresh_disk(const struct lun *lun, struct arena *a)
{
    struct vdi vdi = vdi_blank();
    vdi.uuid = lun->uuid;
    vdi.location = arena_text(a, lun->uuid.text);
    vdi.format = "";
    vdi.managed = false;
    return vdi;
}

/* The disk as its LUN and its row say. One whose LUN has shrunk keeps its size and says so: there is data behind what
   is left of it. */
static struct vdi disk_of(const struct lun *lun, const struct vdi *row, struct arena *a)
{
    struct vdi vdi = row ? layout_copy(a, row) : fresh_disk(lun, a);
    bool shrunk = row && row->managed && row->size > lun->disk.size;
    vdi.state = shrunk ? VDI_DAMAGED : VDI_LIVE;
    vdi.damage =
        shrunk ? arena_printf(a, "its LUN has shrunk from %" PRIu64 " to %" PRIu64 " bytes", row->size, lun->disk.size)
               : "";
    if (!shrunk)
        vdi.size = lun->disk.size;
    vdi.utilisation = vdi.managed ? vdi.size : 0;
    pairs_set(a, &vdi.sm_config, "LUNid", arena_printf(a, "%" PRIu64, lun->disk.lun));
    pairs_set(a, &vdi.sm_config, "SCSIid", lun->disk.id);
    pairs_set(a, &vdi.sm_config, "backend-kind", "vbd");
    return vdi;
}

static int lun_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                       struct sr_totals *totals, struct fault *f)
{
    struct vdi_list list = {0};
    struct sr_totals t = {0};
    for (size_t i = 0; i < sr->place.device_count; i++) {
        struct lun lun;
        if (!read_lun(sr->place.devices[i], a, &lun))
            return fault_set(f, FAULT_SRScan, "the disk at %s is not what it was; scan again", sr->place.devices[i]);
        struct vdi vdi = disk_of(&lun, row_of(known, &lun.uuid), a);
        *vdi_list_add(a, &list) = vdi;
        t.physical_size += lun.disk.size;
        t.physical_utilisation += vdi.utilisation;
        t.virtual_allocation += vdi.managed ? vdi.size : 0;
    }
    *out = list;
    *totals = t;
    return 0;
}

/* ------------------------------------------------------------------ disks that are chosen */

/* Which row a call means that takes a LUN into use: the smallest free one that is large enough, or the one named. */
static const struct vdi *choose_by_size(const struct vdi_list *known, uint64_t size)
{
    const struct vdi *best = NULL;
    for (size_t i = 0; i < known->count; i++) {
        const struct vdi *v = &known->items[i];
        if (v->state == VDI_LIVE && !v->managed && v->size >= size && (!best || v->size < best->size))
            best = v;
    }
    return best;
}

static bool is_named(const struct vdi *v, const struct vdi *wanted)
{
    const char *id = pairs_get(&wanted->sm_config, "SCSIid"), *lun = pairs_get(&wanted->sm_config, "LUNid");
    const char *own_id = pairs_get(&v->sm_config, "SCSIid"), *own_lun = pairs_get(&v->sm_config, "LUNid");
    if (id && id[0])
        return own_id && strcmp(id, own_id) == 0;
    if (lun && lun[0])
        return own_lun && strcmp(lun, own_lun) == 0;
    return strcmp(v->location, wanted->location) == 0 || (own_id && strcmp(own_id, wanted->location) == 0);
}

static int lun_vdi_choose(const struct vdi_list *known, const struct vdi *wanted, struct uuid *out, struct fault *f)
{
    const struct vdi *best = wanted->size ? choose_by_size(known, wanted->size) : NULL;
    for (size_t i = 0; i < known->count && !wanted->size && !best; i++)
        if (is_named(&known->items[i], wanted))
            best = &known->items[i];
    if (!best && wanted->size)
        return fault_set(f, FAULT_SRNoSpace, "no free LUN has %" PRIu64 " bytes or more", wanted->size);
    if (!best)
        return fault_set(f, FAULT_VDIUnavailable, "no LUN is known by %.80s", wanted->location);
    *out = best->uuid;
    return 0;
}

static int take_lun(struct sr *sr, const struct plan *plan, const struct vdi *row, struct arena *a, struct vdi *out,
                    struct fault *f)
{
    struct lun lun;
    if (find_lun(sr, &plan->vdi, a, &lun, f) < 0)
        return -1;
    struct vdi wanted = row ? *row : fresh_disk(&lun, a);
    wanted.managed = false; /* not yet, so that its size is the LUN's */
    struct vdi vdi = disk_of(&lun, &wanted, a);
    vdi.managed = true;
    vdi.utilisation = vdi.size;
    if (vdi.size < plan->size)
        return fault_set(f, FAULT_SRNoSpace, "LUN %s has %" PRIu64 " bytes, less than %" PRIu64, lun.disk.id, vdi.size,
                         plan->size);
    *out = vdi;
    return 0;
}

static int lun_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                          struct vdi *out, struct fault *f)
{
    return take_lun(sr, plan, wanted, a, out, f);
}

static int lun_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a,
                             struct vdi *out, struct fault *f)
{
    (void) location;
    return take_lun(sr, plan, NULL, a, out, f);
}

/* The LUN stays as it is, and free for the next. */
static int lun_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                          struct deletion *deleted, struct fault *f)
{
    (void) sr, (void) plan, (void) vdi, (void) a, (void) f;
    deleted->freed = true;
    return 0;
}

static int lun_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                          struct vdi *out, struct fault *f)
{
    struct lun lun;
    const char **names;
    size_t count;
    if (find_lun(sr, &plan->vdi, a, &lun, f) < 0 || scsi_paths(lun.path, a, &names, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (scsi_rescan(names[i], f) < 0)
            return -1;
    if (find_lun(sr, &plan->vdi, a, &lun, f) < 0)
        return -1;
    if (lun.disk.size < plan->size)
        return fault_set(f, FAULT_VDIResize,
                         "LUN %s has %" PRIu64 " bytes; it must be made larger on its target before the disk can be",
                         lun.disk.id, lun.disk.size);
    *out = disk_of(&lun, vdi, a);
    return 0;
}

/* ------------------------------------------------------------------ use */

/* The target itself is asked who the disk is: a LUN's number may have been given to another volume since. */
static int check_identity(const struct lun *lun, const struct vdi *vdi, struct arena *a, struct fault *f)
{
    const char **names, *id = "";
    size_t count;
    if (scsi_paths(lun->path, a, &names, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (scsi_identify(names[i], a, &id, f) != SCSI_GOOD)
            return fault_set(f, FAULT_VDIUnavailable, "LUN %s does not answer at %s", lun->disk.id, names[i]);
        if (id[0] && strcmp(id, lun->disk.id) != 0)
            return fault_set(f, FAULT_VDIUnavailable, "%s is LUN %.80s now, no longer %s", names[i], id, lun->disk.id);
    }
    if (lun->disk.size < vdi->size)
        return fault_set(f, FAULT_VDIUnavailable, "LUN %s has shrunk from %" PRIu64 " to %" PRIu64 " bytes",
                         lun->disk.id, vdi->size, lun->disk.size);
    return 0;
}

static int lun_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                          struct fault *f)
{
    struct lun lun;
    (void) writable;
    if (!vdi->managed)
        return fault_set(f, FAULT_VDIUnavailable, "LUN of VDI %s is free; vdi_introduce takes it into use",
                         vdi->uuid.text);
    if (find_lun(sr, &vdi->uuid, a, &lun, f) < 0 || check_identity(&lun, vdi, a, f) < 0)
        return -1;
    *path = arena_text(a, lun.path);
    return 0;
}

static int lun_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) sr, (void) vdi, (void) f;
    return 0;
}

/* Readers need no registration: the reservation excludes writers only. */
static int lun_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct lun lun;
    if (find_lun(sr, &vdi->uuid, a, &lun, f) < 0)
        return -1;
    if (sr->unfenced || !writable)
        return 0;
    return fence_take(lun.path, fence_key(&sr->settings->server, epoch), FAULT_VDIInUse, f);
}

/* The kernel forgets the disk, and with it all that was to be written: nothing comes late when the target is back. The
   next activation preempts the key that stays registered. */
static int forget(const struct lun *lun, struct arena *a, struct fault *f)
{
    const char **names;
    struct scsi_disk path;
    size_t count;
    if (scsi_paths(lun->path, a, &names, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (scsi_disk_at(arena_printf(a, "/dev/%s", names[i]), a, &path) && scsi_forget(&path, f) < 0)
            return -1;
    return 0;
}

static int lun_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(4 << 20);
    struct lun lun;
    struct fault gone;
    if (sr->unfenced || find_lun(sr, &vdi->uuid, a, &lun, &gone) < 0)
        return 0; /* a LUN that is gone holds nothing */
    return sr_answers(sr, &gone) < 0 ? forget(&lun, a, f) : fence_drop(lun.path, f);
}

/* The link of the disk leads to another device from now on. */
static int lead_to(const char *link, const char *name, struct arena *a, struct fault *f)
{
    const char *temp = arena_printf(a, "%s.new", link);
    unlink(temp);
    if (symlink(arena_printf(a, "/dev/%s", name), temp) < 0 || rename(temp, link) < 0)
        return fault_errno(f, FAULT_ISCSIDevice, "change link %s", link);
    return 0;
}

/* Programs of this machine that have the disk open lose it with its device: reservations know no programs, and the path
   they wrote by is the one that is registered next. */
static int cut_off(const struct lun *lun, struct arena *a, struct fault *f)
{
    const char **names, *name = "";
    struct scsi_disk path;
    size_t count;
    if (scsi_paths(lun->path, a, &names, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (!scsi_disk_at(arena_printf(a, "/dev/%s", names[i]), a, &path))
            return fault_set(f, FAULT_ISCSIDevice, "%s is no disk any more", names[i]);
        if (scsi_renew(&path, a, &name, f) < 0)
            return -1;
    }
    return count == 1 ? lead_to(lun->path, name, a, f) : 0;
}

/* The key that takes the disk is newer than the one shut out, and older than any that will be granted. It is kept, so
   that who was shut out stays so until the next writer's key is there. */
static int lun_vdi_fence(struct sr *sr, const struct vdi *vdi, const char *holder, uint64_t epoch, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(8 << 20);
    struct lun lun;
    (void) holder;
    if (find_lun(sr, &vdi->uuid, a, &lun, f) < 0)
        return -1;
    if (sr->unfenced)
        return fault_set(f, FAULT_Unimplemented, "the target of SR %s knows no reservations", sr->uuid.text);
    if (cut_off(&lun, a, f) < 0)
        return -1;
    return fence_take(lun.path, fence_key_after(&sr->settings->server, epoch), FAULT_LockErr, f);
}

static int lun_epoch_seen(struct sr *sr, uint64_t *out, struct fault *f)
{
    uint64_t newest = 0, seen;
    for (size_t i = 0; i < sr->place.device_count && !sr->unfenced; i++) {
        if (fence_newest(sr->place.devices[i], &sr->settings->server, &seen, f) < 0)
            return -1;
        newest = seen > newest ? seen : newest;
    }
    *out = newest;
    return 0;
}

/* ------------------------------------------------------------------ settle */

/* The medium keeps nothing of what is under way, but for a LUN's size. */
static int lun_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                      enum settled *how, struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f)
{
    (void) base, (void) wanted;
    *how = SETTLED_UNDONE;
    if (strcmp(plan->method, "vdi_delete") == 0) {
        deleted->freed = true;
        *how = SETTLED_DONE;
    } else if (strcmp(plan->method, "sr_delete") == 0) {
        *how = SETTLED_DONE;
    } else if (strcmp(plan->method, "vdi_resize") == 0 && wanted && lun_vdi_resize(sr, plan, wanted, a, vdi, f) == 0) {
        *how = SETTLED_DONE;
    }
    return 0;
}

/* No recognise, and so no vdi_generate_config: a LUN bears no mark. No snapshot and no clone: LUNs cannot be made. No
   vdi_update: labels are rows. */
const struct layout layout_lun = {
    .name = "lun",
    .unmarked = true,
    .sr_create = lun_sr_create,
    .sr_delete = lun_sr_delete,
    .sr_attach = lun_sr_attach,
    .sr_detach = lun_sr_detach,
    .sr_scan = lun_sr_scan,
    .sr_totals = lun_sr_totals,
    .vdi_choose = lun_vdi_choose,
    .vdi_create = lun_vdi_create,
    .vdi_delete = lun_vdi_delete,
    .vdi_introduce = lun_vdi_introduce,
    .vdi_resize = lun_vdi_resize,
    .vdi_attach = lun_vdi_attach,
    .vdi_detach = lun_vdi_detach,
    .vdi_activate = lun_vdi_activate,
    .vdi_deactivate = lun_vdi_deactivate,
    .vdi_fence = lun_vdi_fence,
    .epoch_seen = lun_epoch_seen,
    .settle = lun_settle,
};
