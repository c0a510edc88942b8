/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/temporary.h"

#include <stdio.h>
#include <string.h>

static const char *const kinds[TEMPORARY_KINDS] = {"new", "del", "labels", "mark", "made", "grow", "link", "take"};

void temporary_name(char out[TEMPORARY_NAME], const struct uuid *op, enum temporary_kind kind, const struct uuid *uuid)
{
    snprintf(out, TEMPORARY_NAME, "%.8s-%s-%s" OWN_SUFFIX, op->text, kinds[kind], uuid->text);
}

static bool kind_parse(const char *text, size_t length, enum temporary_kind *out)
{
    for (int i = 0; i < TEMPORARY_KINDS; i++) {
        if (strlen(kinds[i]) == length && memcmp(kinds[i], text, length) == 0) {
            *out = (enum temporary_kind) i;
            return true;
        }
    }
    return false;
}

bool temporary_parse(const char *name, struct temporary *out)
{
    struct temporary t = {.op8 = ""};
    if (strspn(name, "0123456789abcdef") != 8 || name[8] != '-')
        return false;
    memcpy(t.op8, name, 8);
    const char *kind = name + 9, *dash = strchr(kind, '-');
    if (!dash || !kind_parse(kind, (size_t) (dash - kind), &t.kind))
        return false;
    if (strlen(dash + 1) != UUID_TEXT + sizeof OWN_SUFFIX - 1 || !uuid_parse(dash + 1, UUID_TEXT, &t.uuid))
        return false;
    if (memcmp(t.uuid.text, dash + 1, UUID_TEXT) != 0 || strcmp(dash + 1 + UUID_TEXT, OWN_SUFFIX) != 0)
        return false;
    *out = t;
    return true;
}
