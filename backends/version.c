/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/types.h"
#include "server/base/cmd.h"
#include <string.h>

#define DIGITS "0123456789"

enum { SECONDS = 5 };

/* The length of "2.03.16" at the start of text, 0 when no such word begins there. */
static size_t version_length(const char *text)
{
    size_t length = strspn(text, DIGITS);
    bool dotted = false;
    while (length && text[length] == '.' && strspn(text + length + 1, DIGITS)) {
        length += 1 + strspn(text + length + 1, DIGITS);
        dotted = true;
    }
    return dotted ? length : 0;
}

const char *version_in(const char *text, struct arena *a)
{
    while (*text) {
        size_t length = version_length(text);
        if (length)
            return arena_copy(a, text, length);
        text += strspn(text, DIGITS) ? strspn(text, DIGITS) : 1;
    }
    return "";
}

const char *program_version(const struct program *program, struct arena *a)
{
    const char *const argv[] = {program->path, program->asking, NULL};
    const struct cmd cmd = {.argv = argv, .seconds = SECONDS, .hold = -1};
    struct cmd_result r;
    struct fault ignored;
    if (access(program->path, X_OK) < 0)
        return NULL;
    if (cmd_run(&cmd, a, &r, &ignored) < 0 || r.timed_out)
        return "";
    const char *found = version_in(r.out, a);
    return found[0] ? found : version_in(r.err, a); /* of e2fsprogs */
}
