/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapi.sr_take_over: an SR whose server is gone for good gets another. The caller names the server that he believes to
   be gone, so that a claim that changed meanwhile is not taken. What hosts hold of the SR by the old server's leave is
   not known here: no lease of it is granted before they must be dead. */
#include "handlers/state.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "store/host.h"
#include <stdlib.h>
#include <string.h>

enum { REASON_MAX = 400 };

/* ------------------------------------------------------------------ what was owned by whom, in the plan */

/* "<server> <seconds> <reason>", for a recovery that knows nothing else. */
static const char *note(struct arena *a, const struct owner *o, const char *reason)
{
    return arena_printf(a, "%s %lld %s", o->server.text, (long long) o->since, reason);
}

static struct owner noted(const struct plan *p, const char **reason)
{
    struct owner o = {.server = UUID_NONE};
    char *end = NULL;
    *reason = "";
    if (strlen(p->name) <= UUID_TEXT || !uuid_parse(p->name, UUID_TEXT, &o.server))
        return o;
    o.since = strtoll(p->name + UUID_TEXT, &end, 10);
    *reason = end[0] ? end + 1 : "";
    return o;
}

static const char *since_text(struct arena *a, const struct owner *o)
{
    char text[CLOCK_TEXT];
    if (!o->since)
        return "";
    clock_text(o->since, text);
    return arena_text(a, text);
}

/* ours: before the call already. */
static struct value *result(struct arena *a, const struct owner *o, bool ours, bool taken)
{
    struct value *v = value_struct(a);
    value_put(a, v, "owner", value_string(a, arena_text(a, o->server.text)));
    value_put(a, v, "since", value_string(a, since_text(a, o)));
    value_put(a, v, "ours", value_boolean(a, ours));
    value_put(a, v, "taken", value_boolean(a, taken));
    return v;
}

/* ------------------------------------------------------------------ the call */

/* An SR that is stuck may be so because of who owns it: what can be settled is, before anybody is asked. */
static int find_sr(struct dispatch *d, struct call *c, struct fault *f)
{
    struct fault ignored;
    if (c->sr && registry_is_stuck(d->registry, &c->keys.sr) && recover_sr(d, c->sr, HOLD_BRIEFLY, &ignored) == 0)
        c->sr = registry_find(d->registry, &c->keys.sr);
    if (!c->sr)
        return sr_introduce(d, c, f);
    c->sr->secrets = &c->keys.secrets; /* lent until the call ends, as sr_attach does */
    c->sr->scratch = c->arena;
    return sr_take_config(d, c, f);
}

static int check_words(const struct call *c, const struct owner *o, struct fault *f)
{
    const struct smapi_sr_take_over_args *args = ARGS(c, smapi_sr_take_over);
    char text[CLOCK_TEXT];
    const char *since = "a time that it does not tell";
    if (!uuid_is(&o->server))
        return fault_set(f, FAULT_SRUnavailable, "nobody has claimed SR %s: sr_attach makes it this server's",
                         c->keys.sr.text);
    if (o->since)
        clock_text(o->since, text), since = text;
    if (uuid_is(&args->owner) && !uuid_equal(&args->owner, &o->server))
        return fault_set(f, FAULT_SRUnavailable,
                         "SR %s belongs to server %s, since %s, and not to %s: nothing was changed", c->keys.sr.text,
                         o->server.text, since, args->owner.text);
    if (uuid_is(&args->owner) && (!args->reason || !args->reason[0] || strlen(args->reason) > REASON_MAX))
        return fault_set(f, FAULT_InvalidArg, "a take-over wants a reason of 1 to %d bytes for the audit trail",
                         REASON_MAX);
    return 0;
}

/* Naming this server itself ends what others have reserved of its own. */
static bool takes_back(const struct call *c, const struct owner *o)
{
    return uuid_equal(&ARGS(c, smapi_sr_take_over)->owner, &o->server) && backend_takes_back(c->sr->type);
}

static int take_over_look(struct dispatch *d, struct call *c, struct fault *f)
{
    struct owner *o = &c->work->owner;
    if (find_sr(d, c, f) < 0 || backend_sr_owner(c->sr, o, f) < 0)
        return -1;
    bool ours = uuid_equal(&o->server, &d->settings.backend.server);
    if ((!ours || takes_back(c, o)) && check_words(c, o, f) < 0)
        return -1;
    c->work->takes = uuid_is(&ARGS(c, smapi_sr_take_over)->owner) && (!ours || takes_back(c, o));
    if (!c->work->takes && c->work->fresh) { /* it was only asked after */
        registry_remove(d->registry, TAKE(c->sr));
        c->work->fresh = false;
    }
    c->work->ours = ours;
    return 0;
}

static int take_over_check(struct txn *t, struct call *c, struct fault *f)
{
    const struct smapi_sr_take_over_args *args = ARGS(c, smapi_sr_take_over);
    const struct owner *o = &c->work->owner;
    if (!c->work->takes) {
        c->result = result(c->arena, o, c->work->ours, false);
        return 0;
    }
    c->plan.name = note(c->arena, o, args->reason);
    const char *detail = arena_printf(c->arena, "op=%s sr=%s owner=%s since=%s: %s", c->plan.op.text, c->keys.sr.text,
                                      o->server.text, since_text(c->arena, o), args->reason);
    if (store_audit(t, c->who.name, "take_over_begin", detail, f) < 0)
        return -1;
    return c->work->fresh ? sr_put_row(t, c, SR_CREATING, f) : 0;
}

static int take_over_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_sr_take(c->sr, &c->plan, &c->work->owner, f);
}

/* Recovery comes here with the plan alone. */
static int take_over_record(struct txn *t, struct call *c, struct fault *f)
{
    const char *reason;
    struct sr_row *row = NULL;
    const struct owner o = noted(&c->plan, &reason);
    const char *detail = arena_printf(c->arena, "op=%s sr=%s owner=%s since=%s: %s", c->plan.op.text, c->plan.sr.text,
                                      o.server.text, since_text(c->arena, &o), reason);
    if (store_sr_find(t, &c->plan.sr, c->arena, &row, f) < 0)
        return -1;
    if (row && row->state == SR_CREATING && store_sr_set_state(t, &c->plan.sr, SR_LIVE, f) < 0)
        return -1;
    c->result = result(c->arena, &o, false, true);
    if (store_grace_sr(t, &c->plan.sr, c->terms, clock_boot_ns(), f) < 0)
        return -1;
    return store_audit(t, c->who.name[0] ? c->who.name : "smapid", "take_over", detail, f);
}

static int take_over_undo(struct txn *t, struct call *c, struct fault *f)
{
    const char *reason;
    struct sr_row *row = NULL;
    const struct owner o = noted(&c->plan, &reason);
    const char *detail =
        arena_printf(c->arena, "op=%s sr=%s owner=%s", c->plan.op.text, c->plan.sr.text, o.server.text);
    if (store_sr_find(t, &c->plan.sr, c->arena, &row, f) < 0 ||
        store_audit(t, c->who.name[0] ? c->who.name : "smapid", "take_over_undone", detail, f) < 0)
        return -1;
    return row && row->state == SR_CREATING ? store_sr_remove(t, &c->plan.sr, f) : 0;
}

static int take_over_after(struct dispatch *d, struct call *c, struct fault *f)
{
    const char *reason;
    const struct owner o = noted(&c->plan, &reason);
    (void) d, (void) f;
    log_line(LOG_WARNING, "SR %s: taken over from server %s by %s: %s", c->plan.sr.text, o.server.text, c->who.name,
             reason);
    return 0;
}

const struct phases smapi_sr_take_over_phases = {.link = LINK_CLAIMS,
                                                 .retries = true,
                                                 .look = take_over_look,
                                                 .check = take_over_check,
                                                 .act = take_over_act,
                                                 .record = take_over_record,
                                                 .undo = take_over_undo,
                                                 .after = take_over_after};
