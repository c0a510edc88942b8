/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/image.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct image_format *const formats[] = {&image_vhd, &image_raw};

const struct image_format *const *image_formats(size_t *count)
{
    *count = COUNT_OF(formats);
    return formats;
}

const struct image_format *image_format_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(formats); i++)
        if (strcmp(formats[i]->name, name) == 0)
            return formats[i];
    return NULL;
}

const struct image_format *image_format_of_file(const char *file, struct uuid *uuid)
{
    struct uuid u;
    if (strlen(file) <= UUID_TEXT)
        return NULL;
    for (size_t i = 0; i < COUNT_OF(formats); i++) {
        if (strcmp(file + UUID_TEXT, formats[i]->suffix) != 0)
            continue;
        if (!uuid_parse(file, UUID_TEXT, &u) || memcmp(u.text, file, UUID_TEXT) != 0)
            return NULL;
        *uuid = u;
        return formats[i];
    }
    return NULL;
}

int image_length(int fd, struct image_length *out, struct fault *f)
{
    struct stat st;
    struct image_length l = {.length = 0};
    if (fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_VDILoad, "look at an image");
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, &l.length) < 0)
            return fault_errno(f, FAULT_VDILoad, "read the size of an image's device");
        l.allocated = l.length;
        l.fixed = true;
    } else if (S_ISREG(st.st_mode)) {
        l.length = (uint64_t) st.st_size;
        l.allocated = (uint64_t) st.st_blocks * 512;
    } else {
        return fault_set(f, FAULT_VDILoad, "an image is neither a regular file nor a block device");
    }
    *out = l;
    return 0;
}

int image_next(int fd, bool data, uint64_t at, uint64_t length, uint64_t *out)
{
    off_t found = at < length ? lseek(fd, (off_t) at, data ? SEEK_DATA : SEEK_HOLE) : (off_t) length;
    bool device = found < 0 && errno == EINVAL; /* which know of no holes */
    if (device)
        found = data ? (off_t) at : (off_t) length;
    if (found < 0 && errno != ENXIO)
        return -1;
    *out = found < 0 || (uint64_t) found > length ? length : (uint64_t) found;
    return 0;
}

bool image_has_id(const struct image_info *info, const struct uuid *id)
{
    struct uuid text;
    const unsigned char *b = info->id;
    snprintf(text.text, sizeof text.text, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    return uuid_equal(&text, id);
}

const struct image_format *image_parent_format(const struct image_format *child, const struct image_info *info)
{
    static const unsigned char none[sizeof info->parent_id];
    return memcmp(info->parent_id, none, sizeof none) == 0 ? &image_raw : child;
}

const char *image_parent_wrong(const struct image_info *child, const struct image_info *parent)
{
    return memcmp(child->parent_id, parent->id, sizeof parent->id) == 0
               ? NULL
               : "is not the image it was made from: their identifiers differ";
}

int image_sync(int fd, const char *what, struct fault *f)
{
    char why[96];
    if (fsync(fd) == 0)
        return 0;
    int saved = errno;
    fault_set(f, FAULT_EIO, "sync %s: %s", what, strerror_r(saved, why, sizeof why));
    errno = saved;
    return -1;
}
