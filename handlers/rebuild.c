/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows made anew from media: for a database that is lost. */
#include "handlers/state.h"
#include "server/base/clock.h"
#include "store/host.h"
#include "store/journal.h"
#include <string.h>

/* Where smapid.epoch is lost with the database, epochs go on past 2^8 for each second since 1970; until 2106 that fits
   the 40 bits that the key of a reservation has for them. */
#define EPOCHS_A_SECOND 8

enum { TRACES_MAX = 4096 };

static int begin_unknown(struct txn *t, void *arg, struct fault *f)
{
    bool restored;
    if (store_epoch_past(t, (uint64_t) clock_wall_s() << EPOCHS_A_SECOND, &restored, f) < 0 ||
        store_grace_begin(t, true, arg, clock_boot_ns(), f) < 0)
        return -1;
    return store_audit(t, "smapid", "rebuild", "the database was made anew from the media", f);
}

int dispatch_rebuild(struct dispatch *d, struct fault *f)
{
    return store_write(d->settings.store, begin_unknown, &d->settings.terms, f);
}

struct rebuild {
    struct sr *sr;
    struct work work;
};

static int record(struct txn *t, void *arg, struct fault *f)
{
    struct rebuild *r = arg;
    const struct sr_row row = {.uuid = r->sr->uuid,
                               .type = r->sr->type->name,
                               .state = SR_LIVE,
                               .label = "",
                               .description = "",
                               .config = r->sr->config};
    return store_sr_put(t, &row, f) < 0 ? -1 : scan_record(t, &r->sr->uuid, &r->work, f);
}

static int rebuild(struct dispatch *d, struct sr *sr, size_t *disks, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1U << 30);
    struct rebuild r = {.sr = sr, .work = {.arena = a}};
    if (backend_sr_attach(sr, f) < 0 || scan_look(d, sr, &r.work, f) < 0 ||
        store_write(d->settings.store, record, &r, f) < 0)
        return -1;
    *disks = r.work.found.count;
    return 0;
}

static bool is_known(const struct dispatch_trace *list, size_t count, const struct uuid *uuid)
{
    for (size_t i = 0; i < count; i++)
        if (uuid_equal(&list[i].uuid, uuid))
            return true;
    return false;
}

/* Types whose SRs bear no mark come last: what another type knows as its own is not theirs. */
void dispatch_traces(struct dispatch *d, struct arena *a, struct dispatch_trace **out, size_t *count,
                     void (*told)(void *arg, const char *type, const struct fault *f), void *arg)
{
    size_t types, n = 0;
    const struct sr_type *rows = sr_types(&types);
    struct dispatch_trace *list = ARENA_ARRAY(a, struct dispatch_trace, TRACES_MAX);
    for (size_t i = 0; i < 2 * types; i++) {
        const struct sr_type *type = &rows[i % types];
        struct trace_list found = {0};
        struct fault f = {0};
        if (type->layout->unmarked != (i >= types))
            continue;
        if (backend_find(type, &d->settings.backend, a, &found, &f) < 0)
            told(arg, type->name, &f);
        for (size_t j = 0; j < found.count && n < TRACES_MAX; j++)
            if (!is_known(list, n, &found.items[j].uuid))
                list[n++] = (struct dispatch_trace){type->name, found.items[j].uuid, found.items[j].config};
    }
    *out = list;
    *count = n;
}

/* They come from a command line, which all may see. */
static int refuse_secrets(const struct sr_type *type, const struct uuid *uuid, const struct pairs *config,
                          struct fault *f)
{
    for (size_t i = 0; i < config->count; i++)
        if (config_key_is_secret(type, config->items[i].key))
            return fault_set(f, FAULT_InvalidArg,
                             "%s of SR %s would stand on a command line for all to see; sr_attach takes the SR in once "
                             "the daemon runs",
                             config->items[i].key, uuid->text);
    return 0;
}

/* The place is left as it is, with what leads there: guests may run from it. */
int dispatch_rebuild_sr(struct dispatch *d, const char *type_name, const struct uuid *uuid, const struct pairs *config,
                        size_t *disks, struct fault *f)
{
    const struct sr_type *type = sr_type_find(type_name);
    if (!type || !backend_recognises(type))
        return fault_set(f, FAULT_SRUnknownType, "an SR of type \"%.40s\" cannot be made anew from its medium",
                         type_name);
    if (refuse_secrets(type, uuid, config, f) < 0 || backend_config_check(type, config, f) < 0)
        return -1;
    if (registry_find(d->registry, uuid))
        return fault_set(f, FAULT_SRExists, "SR %s was named twice", uuid->text);
    struct sr *sr = registry_add(d->registry, uuid, type, config, STANDING_SERVING);
    int r = rebuild(d, sr, disks, f);
    backend_sr_release(sr);
    return r;
}
