/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leases, shown and broken. */
#include "handlers/leases.h"
#include "handlers/revoke.h"
#include "server/base/clock.h"
#include <string.h>

/* ------------------------------------------------------------------ smapi.lease_list */

enum { PAGE = 100, PAGE_MAX = 1000 };

struct page {
    struct call *c;
    size_t limit;
    int64_t now;
    struct lease *leases;
    size_t lease_count;
    struct host *hosts;
    size_t host_count;
    struct grace grace;
};

static int read_page(struct txn *t, void *arg, struct fault *f)
{
    struct page *p = arg;
    const struct smapi_lease_list_args *args = ARGS(p->c, smapi_lease_list);
    struct arena *a = p->c->arena;
    if (store_lease_page(t, &args->sr_uuid, args->host, args->after, p->limit, a, &p->leases, &p->lease_count, f) < 0 ||
        store_grace_read(t, p->now, &p->grace, f) < 0)
        return -1;
    return args->after ? 0 : store_host_list(t, a, &p->hosts, &p->host_count, f);
}

static void put_text(struct arena *a, struct value *v, const char *name, const char *text)
{
    value_put(a, v, name, value_string(a, text));
}

static void put_ms(struct arena *a, struct value *v, const char *name, int64_t ns)
{
    value_put(a, v, name, value_size(a, (uint64_t) (ns > 0 ? ns : 0) / 1000000));
}

static struct value *lease_value(struct arena *a, const struct lease *l)
{
    struct value *v = value_struct(a);
    char since[CLOCK_TEXT];
    clock_text(l->since, since);
    put_text(a, v, "sr", l->sr.text);
    put_text(a, v, "vdi", l->vdi.text);
    put_text(a, v, "host", l->holder);
    put_text(a, v, "mode", l->writable ? "rw" : "ro");
    value_put(a, v, "epoch", value_size(a, l->epoch));
    put_text(a, v, "since", since);
    put_text(a, v, "state", lease_state_name(l->state));
    put_text(a, v, "boot", l->boot.text);
    put_text(a, v, "fencing", l->fence);
    put_text(a, v, "why", l->why);
    return v;
}

/* "suspect": the lease ran out; what the host holds it holds on, until there is evidence that it is dead. */
static const char *state_word(const struct host *h, int64_t now)
{
    return h->state == HOST_LIVE && now >= h->expires ? "suspect" : host_state_names[h->state];
}

static struct value *host_value(struct arena *a, const struct host *h, int64_t now)
{
    struct value *v = value_struct(a);
    put_text(a, v, "host", h->name);
    put_text(a, v, "state", state_word(h, now));
    put_text(a, v, "boot", h->boot.text);
    value_put(a, v, "watchdog", value_boolean(a, h->watchdog));
    put_ms(a, v, "left_ms", h->expires - now);
    value_put(a, v, "broken", value_size(a, h->broken));
    value_put(a, v, "stale", value_boolean(a, h->stale));
    return v;
}

static struct value *hosts_of(const struct page *p)
{
    const char *only = ARGS(p->c, smapi_lease_list)->host;
    struct value *list = value_array(p->c->arena);
    for (size_t i = 0; i < p->host_count; i++)
        if (p->hosts[i].state != HOST_UNREGISTERED && (!only || strcmp(only, p->hosts[i].name) == 0))
            value_append(p->c->arena, list, host_value(p->c->arena, &p->hosts[i], p->now));
    return list;
}

static int smapi_lease_list_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct smapi_lease_list_args *args = ARGS(c, smapi_lease_list);
    struct arena *a = c->arena;
    struct page p = {.c = c, .limit = args->limit ? (size_t) args->limit : PAGE, .now = clock_boot_ns()};
    if (args->limit > PAGE_MAX)
        return fault_set(f, FAULT_BadRequest, "limit must not be above %d", PAGE_MAX);
    if (store_read(d->settings.store, read_page, &p, f) < 0)
        return -1;
    struct value *v = value_struct(a), *leases = value_array(a);
    for (size_t i = 0; i < p.lease_count; i++)
        value_append(a, leases, lease_value(a, &p.leases[i]));
    bool more = p.lease_count == p.limit;
    value_put(a, v, "leases", leases);
    value_put(a, v, "hosts", hosts_of(&p));
    value_put(a, v, "next", more ? value_size(a, p.leases[p.lease_count - 1].epoch) : value_string(a, ""));
    put_ms(a, v, "grace_ms", p.grace.left);
    put_ms(a, v, "unknown_ms", p.grace.unknown_left);
    c->result = v;
    return 0;
}

const struct phases smapi_lease_list_phases = {.act = smapi_lease_list_act};

/* ------------------------------------------------------------------ smapi.lease_break */

/* What only some may say, of host. */
static int check_word(struct dispatch *d, const struct call *c, const char *host, const char *word, const char *force,
                      struct fault *f)
{
    enum evidence_kind evidence = evidence_find(word);
    if (evidence == EVIDENCE_COUNT)
        return fault_set(f, FAULT_BadRequest,
                         "evidence must be fenced, watchdog, reboot, ha or operator, not \"%.40s\"", word);
    if (evidence == EVIDENCE_ha && c->who.role != ROLE_ADMIN)
        return fault_set(f, FAULT_AccessDenied, "%s may not say what high availability has fenced", c->who.name);
    if (evidence != EVIDENCE_operator)
        return 0;
    if (!d->settings.operator_word)
        return fault_set(f, FAULT_AccessDenied, "a person's word is no evidence here: lease.operator_word is 0");
    const char *want = arena_printf(c->arena, "I_HAVE_POWERED_OFF_%s", host);
    if (!force || strcmp(force, want) != 0)
        return fault_set(f, FAULT_InvalidArg, "force must be %.120s", want);
    return 0;
}

static int smapi_lease_break_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct smapi_lease_break_args *args = ARGS(c, smapi_lease_break);
    if (check_word(d, c, args->host, args->evidence, args->force, f) < 0 || need_sr(c, f) < 0)
        return -1;
    struct revocation *r = c->work->revocation = ARENA_NEW(c->arena, struct revocation);
    *r = (struct revocation){.d = d,
                             .sr = c->sr,
                             .vdi = args->vdi_uuid,
                             .host = args->host,
                             .epoch = args->epoch,
                             .evidence = evidence_find(args->evidence),
                             .who = c->who.name,
                             .reason = args->reason,
                             .arena = c->arena};
    return revoke_close(r, f);
}

static int smapi_lease_break_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return revoke_record(t, c->work->revocation, f);
}

const struct phases smapi_lease_break_phases = {.act = smapi_lease_break_act, .record = smapi_lease_break_record};

/* ------------------------------------------------------------------ smapi.host_break */

enum { AT_ONCE = 1024 }; /* leases of a host that one call ends */

int read_leases(struct txn *t, struct call *c, const char *host, const struct uuid *boot, struct fault *f)
{
    struct work *w = c->work;
    struct lease *list;
    size_t count;
    w->lease_count = 0;
    if (store_lease_page(t, &UUID_NONE, host, 0, AT_ONCE, c->arena, &list, &count, f) < 0)
        return -1;
    w->more = count == AT_ONCE;
    w->leases = list;
    for (size_t i = 0; i < count; i++)
        if (!uuid_is(boot) || uuid_equal(boot, &list[i].boot))
            list[w->lease_count++] = list[i];
    return 0;
}

void put_lease(struct arena *a, struct value *params, const struct lease *l)
{
    put_text(a, params, "sr_uuid", l->sr.text);
    put_text(a, params, "vdi_uuid", l->vdi.text);
    value_put(a, params, "epoch", value_size(a, l->epoch));
}

/* What the caller knows of is all there is: a host that has taken more since lives, or is another session's. */
static int read_broken(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    const struct smapi_host_break_args *args = ARGS(c, smapi_host_break);
    struct lease *newer;
    size_t count;
    if (store_lease_page(t, &UUID_NONE, args->host, args->epoch, 1, c->arena, &newer, &count, f) < 0)
        return -1;
    if (count > 0)
        return fault_set(f, FAULT_LockErr,
                         "host %s has a newer lease than that of epoch %llu: that of epoch %llu on VDI %s; nothing was "
                         "broken",
                         args->host, (unsigned long long) args->epoch, (unsigned long long) newer->epoch,
                         newer->vdi.text);
    return read_leases(t, c, args->host, &args->boot, f);
}

static struct value *break_params(struct arena *a, const struct smapi_host_break_args *args, const struct lease *l)
{
    struct value *params = value_struct(a);
    put_lease(a, params, l);
    put_text(a, params, "host", args->host);
    put_text(a, params, "evidence", args->evidence);
    put_text(a, params, "reason", args->reason);
    if (args->force)
        put_text(a, params, "force", args->force);
    return params;
}

static int smapi_host_break_split(struct dispatch *d, struct call *c, const struct part **parts, size_t *count,
                                  struct fault *f)
{
    const struct smapi_host_break_args *args = ARGS(c, smapi_host_break);
    struct work *w = c->work;
    if (check_word(d, c, args->host, args->evidence, args->force, f) < 0 ||
        store_read(d->settings.store, read_broken, c, f) < 0)
        return -1;
    struct part *list = ARENA_ARRAY(c->arena, struct part, w->lease_count + 1);
    for (size_t i = 0; i < w->lease_count; i++)
        list[i] = (struct part){"smapi.lease_break", break_params(c->arena, args, &w->leases[i]), .closes = false};
    *parts = list;
    *count = w->lease_count;
    return 0;
}

static struct value *left_value(struct arena *a, const struct lease *l, const struct fault *why)
{
    struct value *v = value_struct(a);
    put_text(a, v, "sr", l->sr.text);
    put_text(a, v, "vdi", l->vdi.text);
    value_put(a, v, "epoch", value_size(a, l->epoch));
    value_put(a, v, "code", value_integer(a, why->code));
    put_text(a, v, "why", why->detail);
    return v;
}

static int smapi_host_break_gather(struct dispatch *d, struct call *c, const struct parted *parts, size_t count,
                                   struct fault *f)
{
    struct arena *a = c->arena;
    struct value *left = value_array(a);
    size_t stay = 0;
    (void) d;
    (void) f;
    for (size_t i = 0; i < count; i++) {
        if (!parts[i].fault.code)
            continue;
        value_append(a, left, left_value(a, &c->work->leases[i], &parts[i].fault));
        stay++;
    }
    c->result = value_struct(a);
    value_put(a, c->result, "broken", value_size(a, count - stay));
    value_put(a, c->result, "left", left);
    value_put(a, c->result, "more", value_boolean(a, c->work->more));
    return 0;
}

const struct phases smapi_host_break_phases = {.split = smapi_host_break_split, .gather = smapi_host_break_gather};
