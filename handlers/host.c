/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls by which a host's agent says that the host lives: one host lease covers all its leases. */
#include "handlers/leases.h"
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

/* smapi.host_unregister */

static int read_own(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    return read_leases(t, c, c->who.holder, &c->keys.holder.boot, f);
}

static struct value *own_words(const struct call *c)
{
    struct value *params = value_struct(c->arena);
    value_put(c->arena, params, "host_boot_id", value_string(c->arena, c->keys.holder.boot.text));
    value_put(c->arena, params, "nonce", value_string(c->arena, c->keys.holder.nonce.text));
    return params;
}

/* What the caller says of itself is compared by each part, and by the last, which ends the session. */
static int smapi_host_unregister_split(struct dispatch *d, struct call *c, const struct part **parts, size_t *count,
                                       struct fault *f)
{
    struct arena *a = c->arena;
    struct work *w = c->work;
    if (ARGS(c, smapi_host_unregister)->release != FLAG_TRUE)
        return 0;
    if (store_read(d->settings.store, read_own, c, f) < 0)
        return -1;
    struct part *list = ARENA_ARRAY(a, struct part, w->lease_count + 1);
    for (size_t i = 0; i < w->lease_count; i++) {
        list[i] = (struct part){"vdi_deactivate", own_words(c), .closes = false};
        value_put(a, list[i].params, "device_config", value_struct(a));
        put_lease(a, list[i].params, &w->leases[i]);
    }
    list[w->lease_count] = (struct part){c->method->name, own_words(c), .closes = true};
    *parts = list;
    *count = w->lease_count + 1;
    return 0;
}

/* Some leases could not be given back: the first tells why. */
static int smapi_host_unregister_gather(struct dispatch *d, struct call *c, const struct parted *parts, size_t count,
                                        struct fault *f)
{
    size_t first = 0, stay = 0;
    (void) d;
    for (size_t i = count; i > 0; i--) {
        if (!parts[i - 1].fault.code)
            continue;
        first = i - 1;
        stay++;
    }
    *f = parts[first].fault;
    return fault_prefix(f, "host %s keeps %zu of %zu leases, so its session goes on; VDI %s", c->who.holder, stay,
                        count, c->work->leases[first].vdi.text);
}

/* A session that holds something does not end: what it holds would be held without end. */
static int smapi_host_unregister_record(struct txn *t, struct call *c, struct fault *f)
{
    uint64_t leases;
    struct lease *first;
    size_t count;
    const char *host = c->who.holder;
    if (store_host_unregister(t, &c->keys.holder, clock_boot_ns(), c->arena, f) < 0 ||
        store_lease_count(t, host, &leases, f) < 0 ||
        store_lease_page(t, &UUID_NONE, host, 0, 1, c->arena, &first, &count, f) < 0)
        return -1;
    if (leases > 0)
        return fault_set(
            f, FAULT_VDIInUse,
            "host %s still has %llu leases, the oldest on VDI %s of SR %s (epoch %llu, %s): its session goes on", host,
            (unsigned long long) leases, first->vdi.text, first->sr.text, (unsigned long long) first->epoch,
            lease_state_name(first->state));
    c->result = result_nil(c);
    return 0;
}

const struct phases smapi_host_unregister_phases = {.split = smapi_host_unregister_split,
                                                    .gather = smapi_host_unregister_gather,
                                                    .record = smapi_host_unregister_record};
