/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/images/image.h"

#include <string.h>

static const struct image_format *const formats[] = {&image_raw};

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
