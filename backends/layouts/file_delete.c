/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Removing a disk, and the hidden bases nothing is made from any more. */
#include "backends/layouts/file_tree.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Passing a point fails as the step before it would. */
#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ what the plan holds */

static const char *lineage_text(struct arena *a, const struct lineage *l)
{
    char *text = arena_alloc(a, l->count * (UUID_TEXT + 1) + 1), *at = text;
    for (size_t i = 0; i < l->count; i++, at += UUID_TEXT + 1) {
        memcpy(at, l->uuids[i].text, UUID_TEXT);
        at[UUID_TEXT] = ' ';
    }
    return text;
}

static struct lineage lineage_of(const struct plan *plan)
{
    struct lineage l = {.count = 0};
    const char *at = plan->name;
    while (l.count < COUNT_OF(l.uuids) && strlen(at) > UUID_TEXT && uuid_parse(at, UUID_TEXT, &l.uuids[l.count])) {
        l.count++;
        at += UUID_TEXT + 1;
    }
    return l;
}

/* Only those that can be followed: the rest is not removed. */
static struct lineage ancestors(struct sr *sr, const struct uuid *vdi)
{
    struct fault ignored;
    struct image_file file;
    struct image_info info;
    struct lineage l = {.count = 0};
    if (image_open(sr, vdi, "", O_RDONLY, &file, &ignored) < 0)
        return l;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, &ignored) == 0)
        tree_lineage(sr->place.dir, vdi, file.format, &info, &l, &ignored);
    return l;
}

int file_vdi_locate(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f)
{
    char name[FILE_NAME];
    struct stat st;
    int stands = image_stand(sr->place.dir, &vdi->uuid, name, &st);
    if (stands < 0)
        return fault_errno(f, FAULT_EIO, "look for disk %s", vdi->uuid.text);
    if (stands && !S_ISREG(st.st_mode))
        return fault_set(f, FAULT_VDIUnavailable, "disk %s: %s", vdi->uuid.text, image_wrong(&st));
    const struct lineage l = ancestors(sr, &vdi->uuid);
    plan->device = stands ? st.st_dev : 0;
    plan->inode = stands ? st.st_ino : 0;
    plan->name = lineage_text(a, &l);
    return 0;
}

/* ------------------------------------------------------------------ removing one image */

/* From its name to the doomed one. */
static int doom(struct sr *sr, const char *name, const char *doomed, struct fault *f)
{
    if (renameat(sr->place.dir, name, sr->place.dir, doomed) < 0)
        return fault_errno(f, FAULT_VDIRemove, "rename %s", name);
    return PASS(delete_renamed, FAULT_VDIRemove, f) < 0 ? -1 : file_sync(sr, sr->place.dir, sr->place.path, f);
}

/* From wherever an earlier try stopped. name: under which the image stands, or NULL. */
static int remove_image(struct sr *sr, const struct plan *plan, const struct uuid *vdi, const char *name,
                        struct fault *f)
{
    char doomed[TEMPORARY_NAME], sidecar[FILE_NAME];
    temporary_name(doomed, &plan->op, TEMPORARY_DEL, vdi);
    sidecar_name(sidecar, vdi);
    if (name && doom(sr, name, doomed, f) < 0)
        return -1;
    if (file_remove(sr->place.dir, doomed) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove %s", doomed);
    if (PASS(delete_unlinked, FAULT_VDIRemove, f) < 0)
        return -1;
    if (file_remove(sr->place.dir, sidecar) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove %s", sidecar);
    return file_sync(sr, sr->place.dir, sr->place.path, f);
}

/* ------------------------------------------------------------------ the disk */

/* Only the inode is compared: device numbers do not outlive a reboot, and no other mount is ever crossed. */
static int check_identity(const struct plan *plan, const char *name, const struct stat *st, struct fault *f)
{
    if (S_ISREG(st->st_mode) && (plan->inode == 0 || plan->inode == st->st_ino))
        return 0;
    return fault_set(f, FAULT_VDIUnavailable, "%s is not the image that was to be deleted", name);
}

static bool is_hidden(struct sr *sr, const struct uuid *vdi)
{
    struct fault ignored;
    struct image_file file;
    struct image_info info;
    if (image_open(sr, vdi, "", O_RDONLY, &file, &ignored) < 0)
        return false;
    AUTO_FD int fd = file.fd;
    return file.format->info(fd, &info, &ignored) == 0 && info.hidden;
}

/* The disk itself: removed, or kept as a base. */
static int delete_disk(struct sr *sr, const struct plan *plan, bool *kept, struct fault *f)
{
    char name[FILE_NAME];
    struct stat st;
    struct offspring o;
    *kept = false;
    int stands = image_stand(sr->place.dir, &plan->vdi, name, &st);
    if (stands < 0)
        return fault_errno(f, FAULT_VDIRemove, "look for disk %s", plan->vdi.text);
    if (stands == 0)
        return remove_image(sr, plan, &plan->vdi, NULL, f);
    if (check_identity(plan, name, &st, f) < 0 || tree_offspring(sr, &plan->vdi, &o, f) < 0)
        return -1;
    if (o.count == 0 && !(o.unknown && is_hidden(sr, &plan->vdi)))
        return remove_image(sr, plan, &plan->vdi, name, f);
    *kept = true;
    return file_hide(sr, &plan->vdi, f);
}

/* ------------------------------------------------------------------ what it was made from */

/* *gone: the base is not there any more. One that is visible, or that something may be made from, stays. */
static int delete_base(struct sr *sr, const struct plan *plan, const struct uuid *base, bool *gone, struct fault *f)
{
    char name[FILE_NAME];
    struct stat st;
    struct offspring o;
    int stands = image_stand(sr->place.dir, base, name, &st);
    *gone = false;
    if (stands < 0)
        return fault_errno(f, FAULT_VDIRemove, "look for disk %s", base->text);
    if (stands) {
        if (!is_hidden(sr, base))
            return 0;
        if (tree_offspring(sr, base, &o, f) < 0)
            return -1;
        if (o.count > 0 || o.unknown)
            return 0;
    }
    if (remove_image(sr, plan, base, stands ? name : NULL, f) < 0)
        return -1;
    *gone = true;
    return 0;
}

int file_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                    struct deletion *out, struct fault *f)
{
    (void) vdi; /* the plan names it, also after a crash */
    const struct lineage l = lineage_of(plan);
    struct deletion d = {.gone = ARENA_ARRAY(a, struct uuid, l.count + 1)};
    bool gone = true;
    if (delete_disk(sr, plan, &d.kept, f) < 0)
        return -1;
    for (size_t i = 0; i < l.count && gone && !d.kept; i++) {
        if (delete_base(sr, plan, &l.uuids[i], &gone, f) < 0)
            return -1;
        if (gone)
            d.gone[d.gone_count++] = l.uuids[i];
    }
    *out = d;
    return 0;
}
