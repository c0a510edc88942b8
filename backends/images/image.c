/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/image.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
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
