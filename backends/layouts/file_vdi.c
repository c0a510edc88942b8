/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/file_tree.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

/* Passing a point fails as the step before it would. */
#define PASS(name, code, f) (POINT(name) < 0 ? fault_errno(f, code, "at point " #name) : 0)

/* ------------------------------------------------------------------ create */

/* What is known of an image that has no name yet. */
struct unnamed {
    uint64_t inode;
    struct image_info info;
};

/* The image, whole and synced under its temporary name, and closed (see image_close). */
static int make_temp(struct sr *sr, const struct plan *plan, const struct image_format *format, uint64_t size,
                     const char *temp, struct unnamed *out, struct fault *f)
{
    struct stat st;
    AUTO_FD int fd = io_open_beneath(sr->place.dir, temp, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fault_errno(f, FAULT_VDICreate, "make %s", temp);
    if (PASS(create_temp_made, FAULT_VDICreate, f) < 0 || format->make(fd, &plan->vdi, size, f) < 0 ||
        PASS(create_temp_written, FAULT_VDICreate, f) < 0 || file_sync(sr, fd, temp, f) < 0 ||
        PASS(create_temp_synced, FAULT_VDICreate, f) < 0 || format->info(fd, &out->info, f) < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_EIO, "look at %s", temp);
    out->inode = st.st_ino;
    return 0;
}

/* The sidecar before the name, and synced: it says which inode of which operation the name is to be, for settle, and
   two names of one directory may come to the disk in any order. */
static int publish(struct sr *sr, const struct plan *plan, const struct vdi *wanted, uint64_t inode, const char *temp,
                   const char *name, struct fault *f)
{
    const struct claim claim = {.op = plan->op, .inode = inode};
    if (sidecar_write(sr, wanted, &claim, f) < 0 || file_sync(sr, sr->place.dir, sr->place.path, f) < 0)
        return -1;
    if (image_publish(sr->place.dir, temp, name) < 0)
        return fault_errno(f, errno == EEXIST ? FAULT_VDIExists : FAULT_VDICreate, "give %s its name", name);
    return PASS(create_published, FAULT_VDICreate, f) < 0 ? -1 : file_sync(sr, sr->place.dir, sr->place.path, f);
}

int file_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, struct vdi *out,
                    struct fault *f)
{
    const struct image_format *format;
    struct unnamed made;
    uint64_t size;
    char temp[TEMPORARY_NAME], name[FILE_NAME];
    if (image_format_wanted(wanted->format, &format, f) < 0 || format->round(wanted->size, &size, f) < 0 ||
        image_check_free(sr, &plan->vdi, f) < 0)
        return -1;
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->vdi);
    image_name(name, &plan->vdi, format);
    if (make_temp(sr, plan, format, size, temp, &made, f) < 0 ||
        publish(sr, plan, wanted, made.inode, temp, name, f) < 0)
        return -1;
    const struct vdi kept = layout_copy(a, wanted);
    image_describe(sr->place.dir, &plan->vdi, format, &made.info, &kept, a, out);
    return 0;
}

/* ------------------------------------------------------------------ introduce */

static bool plain_name(const char *name)
{
    if (name[0] == '.' || !name[0] || strlen(name) > NAME_MAX)
        return false;
    for (const char *c = name; *c; c++)
        if ((unsigned char) *c < 0x20 || *c == 0x7f || *c == '/')
            return false;
    return true;
}

static const struct image_format *format_of_suffix(const char *name)
{
    size_t count, length = strlen(name);
    const struct image_format *const *formats = image_formats(&count);
    for (size_t i = 0; i < count; i++) {
        size_t suffix = strlen(formats[i]->suffix);
        if (length > suffix && strcmp(name + length - suffix, formats[i]->suffix) == 0)
            return formats[i];
    }
    return NULL;
}

/* A location that is a uuid, alone or with a suffix: it must be the disk's, as other images may know it by that name.
 */
static int introduce_uuid(struct sr *sr, const struct uuid *vdi, const struct uuid *named,
                          const struct image_format *format, struct introduced *out, struct fault *f)
{
    struct stat st;
    struct introduced it = {.format = format};
    if (!uuid_equal(vdi, named))
        return fault_set(f, FAULT_InvalidArg, "the image is that of disk %s and can be introduced only as that",
                         named->text);
    if (!format && image_stand(sr->place.dir, vdi, it.name, &st) == 1)
        it.format = image_format_of_file(it.name, &(struct uuid){""});
    if (!it.format)
        return fault_set(f, FAULT_VDIUnavailable, "SR %s holds no image of disk %s", sr->uuid.text, vdi->text);
    image_name(it.name, vdi, it.format);
    *out = it;
    return 0;
}

int file_introduced(struct sr *sr, const struct uuid *vdi, const char *location, struct arena *a,
                    struct introduced *out, struct fault *f)
{
    struct uuid named;
    const struct image_format *format = image_format_of_file(location, &named);
    if (format || uuid_parse_text(location, &named))
        return introduce_uuid(sr, vdi, &named, format, out, f);
    format = format_of_suffix(location);
    if (!plain_name(location) || !format)
        return fault_set(f, FAULT_InvalidArg, "location \"%.200s\" is neither a uuid nor the name of an image file",
                         location);
    struct introduced it = {.format = format, .source = arena_text(a, location), .rename = true};
    image_name(it.name, vdi, format);
    *out = it;
    return 0;
}

/* All it was made from is in the SR. */
static int check_chain(struct sr *sr, const struct uuid *vdi, const struct image_format *format,
                       const struct image_info *info, struct fault *f)
{
    struct lineage ignored;
    return tree_lineage(sr->place.dir, vdi, format, info, &ignored, f);
}

/* A sound image under a name that is not a disk's; its inode. */
static int check_source(struct sr *sr, const struct uuid *vdi, const struct introduced *it, struct stat *st,
                        struct fault *f)
{
    struct image_info info;
    AUTO_FD int fd = io_open_beneath(sr->place.dir, it->source, O_RDONLY, 0);
    if (fd < 0 || fstat(fd, st) < 0)
        return fault_errno(f, FAULT_VDIUnavailable, "open %.200s in SR %s", it->source, sr->uuid.text);
    const char *wrong = image_wrong(st);
    if (wrong)
        return fault_set(f, FAULT_VDIUnavailable, "%.200s: %s", it->source, wrong);
    return it->format->info(fd, &info, f) < 0 ? -1 : check_chain(sr, vdi, it->format, &info, f);
}

/* The sidecar says what is renamed, as for a disk that is made. */
static int take_name(struct sr *sr, const struct plan *plan, const struct introduced *it, struct fault *f)
{
    struct stat st;
    struct vdi vdi = vdi_blank();
    vdi.uuid = plan->vdi;
    if (check_source(sr, &plan->vdi, it, &st, f) < 0 || image_check_free(sr, &plan->vdi, f) < 0)
        return -1;
    const struct claim claim = {.op = plan->op, .inode = st.st_ino};
    if (sidecar_write(sr, &vdi, &claim, f) < 0 || file_sync(sr, sr->place.dir, sr->place.path, f) < 0)
        return -1;
    if (image_publish(sr->place.dir, it->source, it->name) < 0)
        return fault_errno(f, errno == EEXIST ? FAULT_VDIExists : FAULT_VDICreate, "rename %.200s to %s", it->source,
                           it->name);
    return file_sync(sr, sr->place.dir, sr->place.path, f);
}

int file_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a, struct vdi *out,
                       struct fault *f)
{
    struct introduced it;
    struct image_file file;
    struct image_info info;
    if (file_introduced(sr, &plan->vdi, location, a, &it, f) < 0 || (it.rename && take_name(sr, plan, &it, f) < 0) ||
        image_open(sr, &plan->vdi, it.format->name, O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, f) < 0 || check_chain(sr, &plan->vdi, file.format, &info, f) < 0)
        return fault_prefix(f, "disk %s", plan->vdi.text);
    image_describe(sr->place.dir, &plan->vdi, file.format, &info, NULL, a, out);
    return 0;
}

/* ------------------------------------------------------------------ update, resize */

int file_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                    struct fault *f)
{
    struct image_file file;
    struct image_info info;
    if (image_open(sr, &vdi->uuid, vdi->format, O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, f) < 0)
        return fault_prefix(f, "disk %s", vdi->uuid.text);
    const struct claim claim = {.op = plan->op, .inode = file.st.st_ino};
    if (sidecar_write(sr, vdi, &claim, f) < 0 || file_sync(sr, sr->place.dir, sr->place.path, f) < 0)
        return -1;
    const struct vdi kept = layout_copy(a, vdi);
    image_describe(sr->place.dir, &vdi->uuid, file.format, &info, &kept, a, out);
    return 0;
}

/* Children go on from what their parent ended with. */
static int check_growable(struct sr *sr, const struct uuid *vdi, const struct image_info *info, struct fault *f)
{
    struct offspring o;
    if (tree_offspring(sr, vdi, &o, f) < 0)
        return -1;
    if (!info->hidden && o.count == 0)
        return 0;
    return fault_set(f, FAULT_VDIResize, "disk %s is the base of other disks and keeps its size", vdi->text);
}

static int grow(struct sr *sr, const struct plan *plan, const struct image_file *file, uint64_t size, struct fault *f)
{
    char name[TEMPORARY_NAME];
    temporary_name(name, &plan->op, TEMPORARY_GROW, &plan->vdi);
    const struct image_journal journal = {sr->place.dir, name};
    if (file->format->grow(file->fd, size, &journal, f) == 0)
        return 0;
    return f->code == FAULT_EIO ? sr_poison(sr, f, "grow disk %s", plan->vdi.text) : -1;
}

int file_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                    struct fault *f)
{
    struct image_file file;
    struct image_info info;
    uint64_t size;
    if (image_open(sr, &vdi->uuid, vdi->format, O_RDWR, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, f) < 0 || file.format->round(plan->size, &size, f) < 0)
        return fault_prefix(f, "disk %s", vdi->uuid.text);
    if (size < info.size)
        return fault_set(f, FAULT_VDISize, "disk %s has %" PRIu64 " bytes and is never made smaller", vdi->uuid.text,
                         info.size);
    if (check_growable(sr, &vdi->uuid, &info, f) < 0)
        return -1;
    if (size > info.size && (grow(sr, plan, &file, size, f) < 0 || file.format->info(fd, &info, f) < 0))
        return fault_prefix(f, "disk %s", vdi->uuid.text);
    const struct vdi kept = layout_copy(a, vdi);
    image_describe(sr->place.dir, &vdi->uuid, file.format, &info, &kept, a, out);
    return 0;
}

/* ------------------------------------------------------------------ attach, activate */

/* Opens a disk that is to be used; a base is never written. Close out->fd. */
static int open_for_use(struct sr *sr, const struct vdi *vdi, bool writable, struct image_file *out, bool *unfinished,
                        struct fault *f)
{
    struct image_file file;
    struct image_info info;
    if (image_open(sr, &vdi->uuid, vdi->format, writable ? O_RDWR : O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (file.format->info(fd, &info, f) < 0)
        return fault_prefix(f, "disk %s", vdi->uuid.text);
    if (writable && info.hidden)
        return fault_set(f, FAULT_VDIUnavailable, "disk %s is hidden: it is the base of other disks", vdi->uuid.text);
    if (check_chain(sr, &vdi->uuid, file.format, &info, f) < 0)
        return -1;
    fd = -1;
    *out = file;
    *unfinished = info.unfinished;
    return 0;
}

int file_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                    struct fault *f)
{
    struct image_file file;
    bool unfinished;
    if (open_for_use(sr, vdi, writable, &file, &unfinished, f) < 0)
        return -1;
    close(file.fd);
    *path = arena_printf(a, "%s/%s", sr->place.path, file.name);
    return 0;
}

int file_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) sr, (void) vdi, (void) f; /* attaching made nothing */
    return 0;
}

/* What the last writer has left out, if it was killed. */
static int mend(struct sr *sr, const struct image_file *file, struct fault *f)
{
    if (file->format->mend(file->fd, f) == 0)
        return 0;
    return f->code == FAULT_EIO ? sr_poison(sr, f, "sync %s", file->name) : fault_prefix(f, "mend %s", file->name);
}

/* Nobody else writes, as the lease is held, which an attached disk's writer may not be yet: it is mended only now. */
int file_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    (void) epoch;
    bool unfinished;
    AUTO_IMAGE struct image_file file = {.fd = -1};
    if (open_for_use(sr, vdi, writable, &file, &unfinished, f) < 0)
        return -1;
    return writable && unfinished ? mend(sr, &file, f) : 0;
}

int file_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) sr, (void) vdi, (void) f; /* nothing here holds the image open */
    return 0;
}
