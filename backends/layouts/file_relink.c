/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vdi_reset: a disk becomes an empty child of its parent. vdi_compose: a disk gets another parent. */
#include "backends/layouts/file_tree.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

/* The disk an operation changes: a visible leaf. */
struct leaf {
    struct image_file file;
    struct image_info info;
};

static void own_leaf(const struct leaf *leaf)
{
    own_fd(&leaf->file.fd);
}
#define AUTO_LEAF __attribute__((cleanup(own_leaf)))

static int check_leaf(struct sr *sr, const struct uuid *vdi, const struct leaf *leaf, struct fault *f)
{
    struct offspring o;
    if (leaf->info.hidden)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s is hidden: it is the base of other disks", vdi->text);
    if (tree_offspring(sr, vdi, &o, f) < 0)
        return -1;
    return o.count ? fault_set(f, FAULT_VDIInUse, "disk %s is the parent of %zu others", vdi->text, o.count) : 0;
}

static int open_leaf(struct sr *sr, const struct vdi *vdi, int flags, struct leaf *out, struct fault *f)
{
    struct leaf leaf;
    if (image_open(sr, &vdi->uuid, vdi->format, flags, &leaf.file, f) < 0)
        return -1;
    AUTO_FD int fd = leaf.file.fd;
    if (leaf.file.format->info(fd, &leaf.info, f) < 0)
        return fault_prefix(f, "disk %s", vdi->uuid.text);
    if (check_leaf(sr, &vdi->uuid, &leaf, f) < 0)
        return -1;
    fd = -1;
    *out = leaf;
    return 0;
}

/* ------------------------------------------------------------------ hiding */

/* So that what is hidden later is still of the time its children remember. */
static int hide_image(struct sr *sr, const struct image_file *file, struct fault *f)
{
    const struct timespec times[2] = {file->st.st_atim, file->st.st_mtim};
    if (file->format->hide(file->fd, true, f) < 0)
        return fault_prefix(f, "hide %s", file->name);
    if (futimens(file->fd, times) < 0 || fchmod(file->fd, 0400) < 0)
        return fault_errno(f, FAULT_VDIDelete, "make %s read-only", file->name);
    return POINT(hide_written) < 0 ? fault_errno(f, FAULT_VDIDelete, "at point hide_written")
                                   : file_sync(sr, file->fd, file->name, f);
}

int file_hide(struct sr *sr, const struct uuid *vdi, struct fault *f)
{
    AUTO_IMAGE struct image_file file = {.fd = -1}, writable = {.fd = -1};
    struct image_info info;
    if (image_open(sr, vdi, "", O_RDONLY, &file, f) < 0)
        return -1;
    if (file.format->info(file.fd, &info, f) < 0)
        return fault_prefix(f, "disk %s", vdi->text);
    if (info.hidden && (file.st.st_mode & 07777) == 0400)
        return file_sync(sr, file.fd, file.name, f);
    if (!file.format->hide)
        return fault_set(f, FAULT_VDIDelete, "disk %s is the parent of others, and a %s image cannot be hidden",
                         vdi->text, file.format->name);
    if (fchmod(file.fd, 0600) < 0)
        return fault_errno(f, FAULT_VDIDelete, "make %s writable to hide it", file.name);
    return image_open(sr, vdi, file.format->name, O_RDWR, &writable, f) < 0 ? -1 : hide_image(sr, &writable, f);
}

/* ------------------------------------------------------------------ reset */

/* The empty child, complete and synced. It carries the operation as its identifier, by which settle knows it. */
static int make_empty(struct sr *sr, const struct plan *plan, const struct leaf *leaf, const char *temp,
                      struct fault *f)
{
    AUTO_FD int fd = io_open_beneath(sr->place.dir, temp, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fault_errno(f, FAULT_VDICreate, "make %s", temp);
    if (leaf->file.format->make_sibling(fd, &plan->op, leaf->file.fd, f) < 0 || file_sync(sr, fd, temp, f) < 0)
        return -1;
    return POINT(reset_child_made) < 0 ? fault_errno(f, FAULT_VDICreate, "at point reset_child_made") : 0;
}

int file_vdi_reset(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                   struct fault *f)
{
    char temp[TEMPORARY_NAME];
    AUTO_LEAF struct leaf leaf = {.file = {.fd = -1}};
    if (open_leaf(sr, vdi, O_RDONLY, &leaf, f) < 0)
        return -1;
    if (!leaf.info.differencing)
        return fault_set(f, FAULT_Unimplemented, "disk %s was not made from another and cannot be reset to it",
                         vdi->uuid.text);
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->vdi);
    if (make_empty(sr, plan, &leaf, temp, f) < 0)
        return -1;
    image_close(&leaf.file);
    if (renameat(sr->place.dir, temp, sr->place.dir, leaf.file.name) < 0 || POINT(reset_published) < 0)
        return fault_errno(f, FAULT_VDICreate, "rename %s to %s", temp, leaf.file.name);
    return file_sync(sr, sr->place.dir, sr->place.path, f) < 0
               ? -1
               : image_describe_now(sr, &plan->vdi, vdi, false, a, out, f);
}

/* ------------------------------------------------------------------ compose */

static int check_compose(struct sr *sr, const struct vdi *vdi, const struct leaf *leaf, const struct vdi *parent,
                         const struct image_file *file, struct fault *f)
{
    struct image_info info;
    struct lineage l;
    if (!leaf->info.differencing)
        return fault_set(f, FAULT_VDIType, "disk %s was made without a parent and takes none", vdi->uuid.text);
    if (file->format->chains && file->format != leaf->file.format)
        return fault_set(f, FAULT_VDIType, "a %s image cannot be made from a %s image", leaf->file.format->name,
                         file->format->name);
    if (file->format->info(file->fd, &info, f) < 0 ||
        tree_lineage(sr->place.dir, &parent->uuid, file->format, &info, &l, f) < 0)
        return fault_prefix(f, "parent %s", parent->uuid.text);
    /* When the child grew, what the parent has behind its old end would come to light. */
    if (info.size > leaf->info.size)
        return fault_set(f, FAULT_VDISize, "disk %s has %" PRIu64 " bytes, less than its new parent %s with %" PRIu64,
                         vdi->uuid.text, leaf->info.size, parent->uuid.text, info.size);
    for (size_t i = 0; i < l.count; i++)
        if (uuid_equal(&l.uuids[i], &vdi->uuid))
            return fault_set(f, FAULT_InvalidArg, "disk %s is made from disk %s", parent->uuid.text, vdi->uuid.text);
    if (l.count + 2 > IMAGE_CHAIN_LIMIT)
        return fault_set(f, FAULT_SnapshotChainTooLong, "disk %s has %zu images in its chain already",
                         parent->uuid.text, l.count + 1);
    return 0;
}

static int set_parent(struct sr *sr, const struct plan *plan, const struct leaf *leaf, const struct image_file *parent,
                      struct fault *f)
{
    char name[TEMPORARY_NAME];
    temporary_name(name, &plan->op, TEMPORARY_GROW, &plan->vdi);
    const struct image_journal journal = {sr->place.dir, name};
    const struct image_format *format = leaf->file.format;
    if (format->set_parent(leaf->file.fd, parent->fd, &plan->base, parent->format, &journal, f) < 0)
        return f->code == FAULT_EIO ? sr_poison(sr, f, "give disk %s another parent", plan->vdi.text) : -1;
    return POINT(compose_linked) < 0 ? fault_errno(f, FAULT_VDICreate, "at point compose_linked") : 0;
}

int file_compose_finish(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                        struct arena *a, struct vdi *out, struct vdi *base, struct fault *f)
{
    AUTO_IMAGE struct image_file file = {.fd = -1};
    struct vdi child_now, parent_now;
    if (image_open(sr, &plan->base, "", O_RDONLY, &file, f) < 0)
        return -1;
    /* A raw parent has nowhere to say so; scans see that it has a child. */
    if (file.format->hide && file_hide(sr, &plan->base, f) < 0)
        return -1;
    if (image_describe_now(sr, &plan->vdi, vdi, false, a, &child_now, f) < 0 ||
        image_describe_now(sr, &plan->base, parent, true, a, &parent_now, f) < 0)
        return -1;
    *out = child_now;
    *base = parent_now;
    return 0;
}

int file_vdi_compose(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                     struct arena *a, struct vdi *out, struct vdi *base, struct fault *f)
{
    AUTO_IMAGE struct image_file file = {.fd = -1};
    AUTO_LEAF struct leaf leaf = {.file = {.fd = -1}};
    if (uuid_equal(&plan->vdi, &plan->base))
        return fault_set(f, FAULT_InvalidArg, "disk %s cannot be made from itself", vdi->uuid.text);
    if (open_leaf(sr, vdi, O_RDWR, &leaf, f) < 0 ||
        image_open(sr, &parent->uuid, parent->format, O_RDONLY, &file, f) < 0 ||
        check_compose(sr, vdi, &leaf, parent, &file, f) < 0 || set_parent(sr, plan, &leaf, &file, f) < 0)
        return -1;
    return file_compose_finish(sr, plan, vdi, parent, a, out, base, f);
}
