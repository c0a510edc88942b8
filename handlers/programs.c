/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What outside programs the host has, told once at the start. */
#include "backends/types.h"
#include "handlers/dispatch.h"
#include "server/base/log.h"
#include <string.h>

enum { LINE = 1024, PROGRAMS = 32, ARENA = 64 << 20 };

/* Each program is asked once, however many types run it. */
struct answers {
    struct arena *arena;
    const char *paths[PROGRAMS], *versions[PROGRAMS];
    size_t count;
};

static const char *version_of(struct answers *all, const struct program *p)
{
    for (size_t i = 0; i < all->count; i++)
        if (strcmp(all->paths[i], p->path) == 0)
            return all->versions[i];
    const char *version = program_version(p, all->arena);
    if (all->count < PROGRAMS) {
        all->paths[all->count] = p->path;
        all->versions[all->count++] = version;
    }
    return version;
}

static void add_program(struct text *line, const struct program *p, const char *version)
{
    text_add(line, line->length ? ", " : "");
    if (!version)
        text_printf(line, "%s is missing: package %s%s", p->path, p->package,
                    p->required ? ", without which the type cannot be used" : "");
    else
        text_printf(line, "%s %s", p->path, version[0] ? version : "of a version that it does not tell");
}

void dispatch_tell_programs(void)
{
    size_t count;
    const struct sr_type *types = sr_types(&count);
    AUTO_ARENA struct arena *a = arena_new(ARENA);
    struct answers all = {.arena = a};
    for (size_t i = 0; i < count; i++) {
        AUTO_TEXT struct text line = TEXT_OF(LINE);
        for (size_t j = 0; j < types[i].program_count; j++)
            add_program(&line, &types[i].programs[j], version_of(&all, &types[i].programs[j]));
        if (line.length)
            log_line(LOG_INFO, "type %s runs %s", types[i].name, line.data);
    }
}
