/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who an image's parent is: names only, which nobody opens. */
#include "backends/images/vhd_image.h"

#include <string.h>

#define NAME_CEILING 1024U /* bytes of a locator we look at; a longer one is no name of ours */
#define URL_BEGIN    "file://"

/* The uuid in a base name, if it is of a form we know. */
static bool name_uuid(const char *name, size_t length, struct uuid *out)
{
    static const char *const prefixes[] = {"", "VHD-", "LV-"}, *const suffixes[] = {"", ".vhd", ".raw"};
    for (size_t p = 0; p < COUNT_OF(prefixes); p++)
        for (size_t s = 0; s < COUNT_OF(suffixes); s++) {
            size_t before = strlen(prefixes[p]), after = strlen(suffixes[s]);
            if (length == before + UUID_TEXT + after && memcmp(name, prefixes[p], before) == 0 &&
                memcmp(name + before + UUID_TEXT, suffixes[s], after) == 0 && uuid_parse(name + before, UUID_TEXT, out))
                return true;
        }
    return false;
}

static bool path_uuid(const char *path, size_t length, struct uuid *out)
{
    size_t base = length;
    while (base > 0 && path[base - 1] != '/' && path[base - 1] != '\\')
        base--;
    return name_uuid(path + base, length - base, out);
}

/* Text of UTF-16 whose low bytes stand at low (0 or 1) in each pair, up to its end or a NUL; what is not ASCII is '?'.
 */
static size_t narrow(const unsigned char *wide, size_t length, size_t low, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i + 1 < length; i += 2, n++) {
        unsigned char c = wide[i + low];
        if (c == 0 && wide[i + 1 - low] == 0)
            break;
        out[n] = (char) (wide[i + 1 - low] == 0 && c < 0x80 ? c : '?');
    }
    return n;
}

static bool url_uuid(const char *text, size_t length, struct uuid *out)
{
    size_t begin = strlen(URL_BEGIN);
    return length > begin && memcmp(text, URL_BEGIN, begin) == 0 && path_uuid(text + begin, length - begin, out);
}

/* *found: the locator of that code leads to a uuid. */
static int try_locator(const struct vhd_image *image, uint32_t code, struct uuid *out, bool *found, struct fault *f)
{
    unsigned char raw[NAME_CEILING];
    char text[NAME_CEILING / 2];
    *found = false;
    for (size_t i = 0; i < VHD_LOCATORS && !*found; i++) {
        const struct vhd_locator *l = &image->header.locators[i];
        if (l->code != code || l->length == 0 || l->length > sizeof raw)
            continue;
        if (vhd_image_read(image->fd, raw, l->length, l->offset, "a parent locator", f) < 0)
            return -1;
        if (code == VHD_LOCATOR_MACX)
            *found = url_uuid((const char *) raw, l->length, out);
        else
            *found = path_uuid(text, narrow(raw, l->length, 0, text), out);
    }
    return 0;
}

int vhd_image_parent(const struct vhd_image *image, struct uuid *out, struct fault *f)
{
    static const uint32_t order[] = {VHD_LOCATOR_MACX, VHD_LOCATOR_W2RU, VHD_LOCATOR_W2KU};
    char text[sizeof image->header.parent_name / 2];
    struct uuid parent = UUID_NONE;
    bool found = false;
    for (size_t i = 0; i < COUNT_OF(order) && !found; i++)
        if (try_locator(image, order[i], &parent, &found, f) < 0)
            return -1;
    if (!found)
        path_uuid(text, narrow(image->header.parent_name, sizeof image->header.parent_name, 1, text), &parent);
    *out = parent;
    return 0;
}
