/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Looking for what should not be in the directory. Changes nothing. */
#include "backends/directory.h"
#include "backends/layouts/file.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

static void judge_temporary(const struct sr *sr, const char *name, struct findings *out)
{
    struct temporary t;
    if (!temporary_parse(name, &t))
        return;
    finding_add(out, FINDING_litter, &sr->uuid, name, "operation %s.. left %s/%s", t.op8, sr->place.path, name);
}

static void judge_sidecar(const struct sr *sr, const char *name, struct findings *out)
{
    struct uuid vdi = UUID_NONE;
    struct stat st;
    char image[FILE_NAME];
    if (!uuid_parse(name, UUID_TEXT, &vdi) || image_stand(sr->place.dir, &vdi, image, &st) != 0)
        return;
    finding_add(out, FINDING_sidecar_stray, &sr->uuid, vdi.text, "%s/%s has the labels of a disk without an image",
                sr->place.path, name);
}

static void judge_image(const struct sr *sr, const char *name, struct findings *out)
{
    struct stat st;
    if (fstatat(sr->place.dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) || st.st_nlink < 2)
        return;
    finding_add(out, FINDING_image_linked, &sr->uuid, name, "%s/%s is one of %llu names of its image", sr->place.path,
                name, (unsigned long long) st.st_nlink);
}

static bool is_claim(const char *name)
{
    struct temporary t;
    return temporary_parse(name, &t) && t.kind == TEMPORARY_TAKE;
}

static void judge_entry(const struct sr *sr, const char *name, struct findings *out)
{
    switch (file_entry_of(name)) {
    case ENTRY_TEMPORARY:
        if (!is_claim(name))
            judge_temporary(sr, name, out);
        break;
    case ENTRY_SIDECAR:
        judge_sidecar(sr, name, out);
        break;
    case ENTRY_IMAGE:
        judge_image(sr, name, out);
        break;
    case ENTRY_NOTHING:
    case ENTRY_MARKER:
    case ENTRY_FOREIGN:
        break;
    }
}

int file_sr_judge(struct sr *sr, struct findings *out, struct fault *f)
{
    AUTO_DIR DIR *entries = directory_entries(sr->place.dir);
    if (!entries)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    for (;;) {
        errno = 0;
        const struct dirent *e = readdir(entries);
        if (!e)
            return errno ? fault_errno(f, FAULT_SRScan, "list %s", sr->place.path) : 0;
        judge_entry(sr, e->d_name, out);
    }
}

int file_vdi_verify(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    struct image_file file;
    if (image_open(sr, &vdi->uuid, vdi->format, O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    return file.format->check ? file.format->check(fd, f) : 0;
}
