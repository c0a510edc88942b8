/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is active on this host. Nothing is counted: a base is needed as long as an active disk is made from it. */
#include "backends/images/vhd_layout.h"
#include "backends/layouts/lvm.h"
#include "backends/tools/dm.h"
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define MEMORY (256U << 20)

/* ------------------------------------------------------------------ what the kernel has */

static int find_device(const struct lvm_vg *vg, const struct lvm_lv *lv, struct dm_device *out, struct fault *f)
{
    char uuid[DM_UUID_SIZE];
    dm_uuid(uuid, vg->uuid, lv->uuid);
    return dm_find(uuid, out, f);
}

int lvm_is_active(const struct lvm_vg *vg, const struct lvm_lv *lv, struct fault *f)
{
    struct dm_device dm;
    return find_device(vg, lv, &dm, f);
}

/* Makes it inactive; one that somebody has open stays when it may. */
static int deactivate(const struct lvm_vg *vg, const struct lvm_lv *lv, bool may_stay, struct fault *f)
{
    char uuid[DM_UUID_SIZE];
    struct dm_device dm;
    int there = find_device(vg, lv, &dm, f);
    if (there <= 0)
        return there;
    if (may_stay && dm.open > 0)
        return 0;
    dm_uuid(uuid, vg->uuid, lv->uuid);
    return dm_remove(uuid, f) < 0 && !(may_stay && f->code == FAULT_VDIInUse) ? fault_prefix(f, "volume %s", lv->name)
                                                                              : 0;
}

/* All of a chain, by at most one command, or two when a killed one left some suspended. */
static int activate_chain(struct sr *sr, const struct lvm_vg *vg, const struct lvm_chain *c, struct fault *f)
{
    const char *missing[IMAGE_CHAIN_LIMIT + 1] = {NULL}, *suspended[IMAGE_CHAIN_LIMIT + 1] = {NULL};
    size_t missing_count = 0, suspended_count = 0;
    struct lvm_scope scope = lvm_sr_scope(sr);
    for (size_t i = 0; i < c->count; i++) {
        struct dm_device dm = {.open = 0};
        int there = find_device(vg, c->lvs[i], &dm, f);
        if (there < 0)
            return -1;
        if (!there)
            missing[missing_count++] = c->lvs[i]->name;
        else if (dm.suspended)
            suspended[suspended_count++] = c->lvs[i]->name;
    }
    if (suspended_count && lvm_lv_refresh(&scope, vg->name, suspended, f) < 0)
        return -1;
    return missing_count ? lvm_lv_activate(&scope, vg->name, missing, f) : 0;
}

/* ------------------------------------------------------------------ who needs what */

struct needs {
    const struct lvm_vg *vg;
    bool *needed; /* of each volume */
};

static void need_chain(struct needs *n, const struct uuid *uuid)
{
    struct lvm_chain c;
    struct fault ignored;
    lvm_chain_read(n->vg, uuid, &c, &ignored); /* as far as it goes */
    for (size_t i = 0; i < c.count; i++)
        n->needed[c.lvs[i] - n->vg->lvs] = true;
}

/* The active volumes of disks that are not bases, and what they are made from. */
static int need_active(struct needs *n, struct fault *f)
{
    for (size_t i = 0; i < n->vg->lv_count; i++) {
        struct uuid uuid;
        struct image_info info;
        bool raw;
        const struct lvm_lv *lv = &n->vg->lvs[i];
        int active = lvm_name_parse(lv->name, &raw, &uuid) ? lvm_is_active(n->vg, lv, f) : 0;
        if (active < 0)
            return -1;
        if (active && (lvm_info(n->vg, lv, raw, &info, f) < 0 || !info.hidden))
            need_chain(n, &uuid);
    }
    return 0;
}

/* Disks, and the volume of their labels, which is never read through the kernel: what is not needed goes, unless
   somebody has it open. */
static int drop_unneeded(const struct needs *n, struct fault *f)
{
    for (size_t i = 0; i < n->vg->lv_count; i++) {
        struct uuid uuid;
        bool raw;
        const char *name = n->vg->lvs[i].name;
        bool ours = lvm_name_parse(name, &raw, &uuid) || strcmp(name, LVM_MGT) == 0;
        if (ours && !n->needed[i] && deactivate(n->vg, &n->vg->lvs[i], true, f) < 0)
            return -1;
    }
    return 0;
}

static int drop_bases(const struct lvm_vg *vg, struct arena *a, struct fault *f)
{
    struct needs n = {.vg = vg, .needed = ARENA_ARRAY(a, bool, vg->lv_count + 1)};
    return need_active(&n, f) < 0 ? -1 : drop_unneeded(&n, f);
}

static int refresh_suspended(struct sr *sr, const struct lvm_vg *vg, struct fault *f)
{
    struct lvm_scope scope = lvm_sr_scope(sr);
    for (size_t i = 0; i < vg->lv_count; i++) {
        struct dm_device dm = {.open = 0};
        const char *const names[] = {vg->lvs[i].name, NULL};
        int there = find_device(vg, &vg->lvs[i], &dm, f);
        if (there < 0 || (there && dm.suspended && lvm_lv_refresh(&scope, vg->name, names, f) < 0))
            return -1;
    }
    return 0;
}

/* Of a group whose devices cannot be read: what the kernel has under its name. */
static int drop_all(const struct sr *sr, struct fault *f)
{
    char vg[LVM_NAME];
    lvm_vg_name(vg, &sr->uuid);
    return dm_remove_group(vg, f);
}

int lvm_sr_hold(struct sr *sr, const struct uuid *vdis, size_t count, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    if (!state || sr_answers(sr, f) < 0 || lvm_group(sr, a, &vg, f) < 0)
        return count ? -1 : drop_all(sr, f);
    struct needs n = {.vg = vg, .needed = ARENA_ARRAY(a, bool, vg->lv_count + 1)};
    for (size_t i = 0; i < count; i++)
        need_chain(&n, &vdis[i]);
    pthread_mutex_lock(&state->chains);
    int r = refresh_suspended(sr, vg, f) < 0 ? -1 : drop_unneeded(&n, f);
    pthread_mutex_unlock(&state->chains);
    return r;
}

/* ------------------------------------------------------------------ as long as it is written, as short as it can be */

/* A VHD that is to be written gets its full length, and its footer at the end of that. */
static int inflate(struct sr *sr, const struct uuid *uuid, struct arena *a, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_chain c;
    struct lvm_scope scope = lvm_sr_scope(sr);
    if (lvm_group(sr, a, &vg, f) < 0 || lvm_chain_read(vg, uuid, &c, f) < 0)
        return -1;
    uint64_t full = c.raw ? 0 : lvm_thick_size(vg, c.info.size);
    if (c.lvs[0]->size >= full)
        return 0;
    if (full - c.lvs[0]->size > vg->free)
        return fault_set(f, FAULT_SRNoSpace, "SR %s has %llu bytes free, of %llu needed to write to disk %s",
                         sr->uuid.text, (unsigned long long) vg->free, (unsigned long long) (full - c.lvs[0]->size),
                         uuid->text);
    if (lvm_lv_resize(&scope, vg->name, c.lvs[0]->name, full, f) < 0)
        return -1;
    return lvm_resize_finish(sr, uuid, 0, f);
}

/* The footer at the volume's end is the one the copy at its start says, whatever a crash left there. */
static int mend_footer(struct sr *sr, const struct lvm_vg *vg, const struct lvm_chain *c, struct fault *f)
{
    unsigned char start[VHD_FOOTER_SIZE], end[VHD_FOOTER_SIZE];
    AUTO_VOLUME struct volume v = {0};
    if (volume_open(vg, c->lvs[0], true, &v, f) < 0)
        return -1;
    if (volume_read(&v, start, sizeof start, 0) < 0 ||
        volume_read(&v, end, sizeof end, c->lvs[0]->size - sizeof end) < 0)
        return fault_errno(f, FAULT_VDILoad, "read the footers of volume %s", c->lvs[0]->name);
    if (memcmp(start, end, sizeof end) == 0)
        return 0;
    return lvm_image_footers(sr, &v, c->lvs[0]->size, c->info.size, c->info.hidden, f);
}

/* ------------------------------------------------------------------ attach */

static int check_node(const char *path, struct fault *f)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return fault_errno(f, FAULT_LVMMount, "the volume is active, but %s is not there", path);
    return S_ISBLK(st.st_mode) ? 0 : fault_set(f, FAULT_LVMMount, "%s is no block device", path);
}

static int attach_locked(struct sr *sr, const struct uuid *uuid, bool writable, struct arena *a, const char **path,
                         struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_chain c;
    if ((writable && inflate(sr, uuid, a, f) < 0) || lvm_group(sr, a, &vg, f) < 0 ||
        lvm_chain_read(vg, uuid, &c, f) < 0)
        return -1;
    if (writable && c.info.hidden)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s is hidden: it is the base of other disks", uuid->text);
    if ((writable && !c.raw && mend_footer(sr, vg, &c, f) < 0) || activate_chain(sr, vg, &c, f) < 0)
        return -1;
    const char *reached = arena_printf(a, "/dev/%s/%s", vg->name, c.lvs[0]->name);
    if (check_node(reached, f) < 0)
        return -1;
    *path = reached;
    return 0;
}

int lvm_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                   struct fault *f)
{
    struct lvm_sr *state = sr->state;
    pthread_mutex_lock(&state->chains);
    int r = attach_locked(sr, &vdi->uuid, writable, a, path, f);
    pthread_mutex_unlock(&state->chains);
    return r;
}

static int detach_locked(struct sr *sr, const struct uuid *uuid, struct fault *f)
{
    struct lvm_vg *vg;
    struct fault ignored;
    bool raw;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    bool reached = sr_answers(sr, f) == 0 && lvm_group(sr, a, &vg, f) == 0;
    if (!reached)
        vg = lvm_group_last(sr, a);
    if (!vg)
        return -1;
    const struct lvm_lv *lv = lvm_find_disk(vg, uuid, &raw);
    if (!lv)
        return 0;
    int was = lvm_is_active(vg, lv, f);
    if (was < 0 || deactivate(vg, lv, false, f) < 0)
        return -1;
    if (raw || !was || !reached)
        return 0;
    if (lvm_is_thin(sr) && !lv->read_only)
        lvm_shorten(sr, vg, lv, &ignored); /* one that stays long is as good; a failed sync has poisoned the SR */
    return drop_bases(vg, a, f);
}

int lvm_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    pthread_mutex_lock(&state->chains);
    int r = detach_locked(sr, &vdi->uuid, f);
    pthread_mutex_unlock(&state->chains);
    return r;
}

/* A host that was started again has its attachments, but nothing is active on it. */
int lvm_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    (void) epoch;
    const char *ignored;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    return lvm_vdi_attach(sr, vdi, writable, a, &ignored, f);
}

int lvm_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) sr, (void) vdi, (void) f; /* nothing here holds the volume open */
    return 0;
}

/* ------------------------------------------------------------------ read */

struct reader {
    const struct lvm_vg *vg;
};

static int open_node(const struct lvm_vg *vg, const struct lvm_lv *lv, int *fd, struct fault *f)
{
    struct dm_device dm;
    char path[64];
    int there = find_device(vg, lv, &dm, f);
    if (there < 0)
        return -1;
    if (!there)
        return fault_set(f, FAULT_VDIUnavailable, "volume %s is not active", lv->name);
    snprintf(path, sizeof path, "/dev/dm-%u", minor(dm.number));
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? fault_errno(f, FAULT_VDILoad, "open volume %s", lv->name) : 0;
}

static int open_parent(void *context, const struct uuid *uuid, int *fd, struct fault *f)
{
    const struct reader *r = context;
    bool raw;
    const struct lvm_lv *lv = uuid_is(uuid) ? lvm_find_disk(r->vg, uuid, &raw) : NULL;
    if (!lv)
        return fault_set(f, FAULT_VDIUnavailable, "there is no volume of disk %s", uuid->text);
    return open_node(r->vg, lv, fd, f);
}

static int read_chain(struct sr *sr, const struct lvm_vg *vg, const struct lvm_chain *c, int out_fd, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    struct reader reader = {vg};
    AUTO_FD int fd = -1;
    pthread_mutex_lock(&state->chains);
    int r = activate_chain(sr, vg, c, f);
    pthread_mutex_unlock(&state->chains);
    if (r < 0 || open_node(vg, c->lvs[0], &fd, f) < 0)
        return -1;
    return (c->raw ? image_raw : image_vhd).extract(fd, open_parent, &reader, out_fd, f);
}

/* Activates what is not active, for as long as it takes. */
int lvm_vdi_read(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    struct lvm_vg *vg;
    struct lvm_chain c;
    struct fault ignored;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    if (lvm_group(sr, a, &vg, f) < 0 || lvm_chain_read(vg, &vdi->uuid, &c, f) < 0)
        return -1;
    int was = lvm_is_active(vg, c.lvs[0], f);
    int r = was < 0 ? -1 : read_chain(sr, vg, &c, out_fd, f);
    pthread_mutex_lock(&state->chains);
    if (was == 0)
        deactivate(vg, c.lvs[0], true, &ignored);
    if (was == 0 && c.count > 1)
        drop_bases(vg, a, &ignored);
    pthread_mutex_unlock(&state->chains);
    return r;
}
