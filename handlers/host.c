/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls by which a host's agent says that the host lives: one host lease covers all its leases. */
#include "handlers/revoke.h"
#include "server/base/clock.h"

enum { STALE_ROUND = 256 }; /* disks of an earlier boot that one renewal sets going; the next has the rest */

static void put_ms(struct call *c, const char *name, int64_t ns)
{
    value_put(c->arena, c->result, name, value_size(c->arena, (uint64_t) (ns / 1000000)));
}

/* What every answer tells the agent. */
static int answer(struct txn *t, struct call *c, int64_t now, struct fault *f)
{
    const struct host *h = c->work->host;
    struct grace grace;
    if (store_grace_read(t, now, &grace, f) < 0)
        return -1;
    c->result = value_struct(c->arena);
    put_ms(c, "ttl_ms", h->expires - now);
    put_ms(c, "grace_ms", grace.left);
    value_put(c->arena, c->result, "broken", value_size(c->arena, h->broken));
    value_put(c->arena, c->result, "stale", value_boolean(c->arena, h->stale));
    return 0;
}

static int note_stale(struct txn *t, struct work *w, struct fault *f)
{
    w->stale_count = 0;
    if (w->meeting == MEETING_COLLISION || !w->host->stale)
        return 0;
    if (store_host_stale(t, w->host, STALE_ROUND, w->arena, &w->stale, &w->stale_count, f) < 0)
        return -1;
    w->host->stale = w->stale_count > 0;
    return 0;
}

/* A collision is in the rows, so that both sides are refused; the call itself fails once that is durable. */
static int drop_reply(struct txn *t, void *arg, struct fault *f)
{
    const struct call *c = arg;
    return store_op_drop(t, &c->plan.op, f);
}

static int refuse_collision(struct dispatch *d, struct call *c, struct fault *f)
{
    if (c->op.given && store_write(d->settings.store, drop_reply, c, f) < 0)
        return -1;
    return host_refuse_collision(c->work->host, clock_boot_ns(), f);
}

static int host_after(struct dispatch *d, struct call *c, struct fault *f)
{
    if (c->work->meeting == MEETING_COLLISION)
        return refuse_collision(d, c, f);
    revoke_stale(d, c);
    return 0;
}

/* smapi.host_register */

static int smapi_host_register_record(struct txn *t, struct call *c, struct fault *f)
{
    const struct lease_terms *terms = c->terms;
    struct work *w = c->work;
    int64_t now = clock_boot_ns();
    uint64_t leases;
    if (!uuid_is(&c->who.host))
        return fault_set(f, FAULT_InvalidArg, "%s is no host and has no session", c->who.name);
    bool watchdog = ARGS(c, smapi_host_register)->watchdog == FLAG_TRUE;
    if (store_host_register(t, &c->keys.holder, watchdog, terms, now, c->arena, &w->host, &w->meeting, f) < 0 ||
        note_stale(t, w, f) < 0 || answer(t, c, now, f) < 0 || store_lease_count(t, w->host->name, &leases, f) < 0)
        return -1;
    put_ms(c, "renew_ms", terms->renew);
    put_ms(c, "warn_ms", terms->warn);
    put_ms(c, "stop_ms", terms->stop);
    put_ms(c, "watchdog_ms", terms->watchdog);
    put_ms(c, "dead_ms", terms->dead);
    value_put(c->arena, c->result, "leases", value_size(c->arena, leases));
    return 0;
}

const struct phases smapi_host_register_phases = {.record = smapi_host_register_record, .after = host_after};

/* smapi.host_renew */

static int smapi_host_renew_record(struct txn *t, struct call *c, struct fault *f)
{
    struct work *w = c->work;
    int64_t now = clock_boot_ns();
    uint64_t leases;
    if (store_host_renew(t, &c->keys.holder, c->terms, now, c->arena, &w->host, &w->meeting, f) < 0 ||
        note_stale(t, w, f) < 0 || answer(t, c, now, f) < 0 || store_lease_count(t, w->host->name, &leases, f) < 0)
        return -1;
    value_put(c->arena, c->result, "leases", value_size(c->arena, leases));
    return 0;
}

const struct phases smapi_host_renew_phases = {.record = smapi_host_renew_record, .after = host_after};
