/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/rebuild.h"

#include "handlers/dispatch.h"
#include "server/bin/ask.h"
#include "server/bin/daemon.h"
#include "server/wire/write.h"
#include <dirent.h>
#include <limits.h>
#include <string.h>

enum { MEMORY = 64 << 20 };

struct rebuild {
    const struct settings *settings;
    struct dispatch *d;
    struct arena *arena;
    bool missed;
};

static void take_in(struct rebuild *r, const char *type, const struct uuid *uuid, const struct pairs *config)
{
    struct fault f = {0};
    size_t disks = 0;
    if (dispatch_rebuild_sr(r->d, type, uuid, config, &disks, &f) == 0) {
        printf("SR %s: type %s, %zu disks\n", uuid->text, type, disks);
    } else {
        fprintf(stderr, "smapid: SR %s is not taken in: %s\n", uuid->text, f.detail);
        r->missed = true;
    }
}

static int read_sr(struct rebuild *r, const char *text, struct fault *f)
{
    struct sr_word word;
    if (sr_word_parse(r->arena, text, &word, f) < 0)
        return -1;
    if (!uuid_is(&word.uuid))
        return fault_set(f, FAULT_InvalidArg, "--sr %.200s names no uuid=", text);
    take_in(r, word.type, &word.uuid, &word.config);
    return 0;
}

/* Where a daemon had connected a directory, a link in the mount base still leads there. */
static void read_link(struct rebuild *r, const struct rebuild_order *o, const char *name)
{
    char path[PATH_MAX], target[PATH_MAX];
    struct uuid uuid = UUID_NONE;
    if (!uuid_parse_text(name, &uuid))
        return;
    for (size_t i = 0; i < o->count; i++)
        if (strstr(o->srs[i], uuid.text))
            return; /* the command line knows better */
    snprintf(path, sizeof path, "%s/%s", r->settings->server_mount_base, name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0) {
        fprintf(stderr, "smapid: %s is no link to a directory: name its repository with --sr\n", path);
        r->missed = true;
        return;
    }
    target[length] = '\0';
    struct pair location = {"location", target};
    take_in(r, "file", &uuid, &(struct pairs){&location, 1});
}

static void read_links(struct rebuild *r, const struct rebuild_order *o)
{
    AUTO_DIR DIR *entries = opendir(r->settings->server_mount_base);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries))
        read_link(r, o, e->d_name);
}

static int fill(struct rebuild *r, const struct rebuild_order *o, struct fault *f)
{
    if (dispatch_rebuild(r->d, f) < 0)
        return -1;
    for (size_t i = 0; i < o->count; i++)
        if (read_sr(r, o->srs[i], f) < 0)
            return -1;
    read_links(r, o);
    return 0;
}

static int make(struct rebuild *r, struct store *store, const struct rebuild_order *o, struct fault *f)
{
    const struct dispatch_settings calls = {.store = store,
                                            .backend = {r->settings->server_mount_base, store_meta(store).server},
                                            .terms = settings_terms(r->settings),
                                            .write_result = wire_write_result,
                                            .write_fault = wire_write_fault};
    if (dispatch_new(&calls, &r->d, f) < 0)
        return -1;
    int made = fill(r, o, f);
    dispatch_free(r->d);
    return made;
}

int rebuild_run(const struct settings *s, const struct rebuild_order *o)
{
    struct fault f = {0};
    struct store *store = NULL;
    bool in_use = false;
    char kept[STORE_KEPT];
    AUTO_ARENA struct arena *arena = arena_new(MEMORY);
    struct rebuild r = {.settings = s, .arena = arena};
    log_set_level(LOG_WARNING);
    int done = store_rebuild(s->server_state, &store, &in_use, &f);
    if (done == 0 && make(&r, store, o, &f) < 0) {
        store_close(store);
        done = -1;
    } else if (done == 0) {
        done = store_rebuilt(store, kept, &f);
    }
    if (done < 0) {
        fprintf(stderr, "smapid: %s\n", f.detail);
        return in_use ? EXIT_IN_USE : f.code == FAULT_InvalidArg ? EXIT_USAGE : EXIT_SYSTEM;
    }
    printf("what was there of the old database is kept as %s/%s\n", s->server_state, kept);
    return r.missed ? REBUILD_PARTLY : 0;
}
