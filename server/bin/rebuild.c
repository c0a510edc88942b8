/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/rebuild.h"

#include "handlers/dispatch.h"
#include "server/bin/ask.h"
#include "server/bin/daemon.h"
#include "server/wire/write.h"
#include <dirent.h>
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

static bool is_named(const struct rebuild_order *o, const struct uuid *uuid)
{
    for (size_t i = 0; i < o->count; i++)
        if (strstr(o->srs[i], uuid->text))
            return true; /* the command line knows better */
    return false;
}

static void tell_unfound(void *arg, const char *type, const struct fault *f)
{
    struct rebuild *r = arg;
    fprintf(stderr, "smapid: repositories of type %s cannot be looked for: %s\n", type, f->detail);
    r->missed = true;
}

/* What stands in the mount base was an SR's. */
static void tell_unknown(struct rebuild *r, const struct rebuild_order *o, const struct dispatch_trace *traces,
                         size_t count)
{
    AUTO_DIR DIR *entries = opendir(r->settings->server_mount_base);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        struct uuid uuid;
        bool known = !uuid_parse_text(e->d_name, &uuid) || is_named(o, &uuid);
        for (size_t i = 0; i < count && !known; i++)
            known = uuid_equal(&traces[i].uuid, &uuid);
        if (known)
            continue;
        fprintf(stderr, "smapid: what %s/%s leads to is not known: name its repository with --sr\n",
                r->settings->server_mount_base, e->d_name);
        r->missed = true;
    }
}

/* What this host shows by itself. */
static void read_traces(struct rebuild *r, const struct rebuild_order *o)
{
    struct dispatch_trace *traces;
    size_t count;
    dispatch_traces(r->d, r->arena, &traces, &count, tell_unfound, r);
    for (size_t i = 0; i < count; i++)
        if (!is_named(o, &traces[i].uuid))
            take_in(r, traces[i].type, &traces[i].uuid, &traces[i].config);
    tell_unknown(r, o, traces, count);
}

static int fill(struct rebuild *r, const struct rebuild_order *o, struct fault *f)
{
    if (dispatch_rebuild(r->d, f) < 0)
        return -1;
    for (size_t i = 0; i < o->count; i++)
        if (read_sr(r, o->srs[i], f) < 0)
            return -1;
    read_traces(r, o);
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
