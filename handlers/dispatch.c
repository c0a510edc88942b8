/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/dispatch.h"

#include "handlers/args.h"
#include "handlers/multicall.h"
#include "handlers/state.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

enum { QUOTED = 40, LOGGED_DETAIL = 400 };

static void set_reply(struct call *c, char *bytes, size_t length)
{
    c->reply = arena_copy(c->arena, bytes, length);
    c->reply_length = length;
    free(bytes);
}

void reply_result(struct dispatch *d, struct call *c)
{
    size_t length;
    char *bytes = d->settings.write_result(c->result, &length);
    set_reply(c, bytes, length);
}

void reply_fault(struct dispatch *d, struct call *c, const struct fault *f)
{
    size_t length;
    char *bytes = d->settings.write_fault(f, &length);
    set_reply(c, bytes, length);
}

/* The one line a call leaves behind. */
static void log_outcome(const struct call *c)
{
    int64_t now = clock_boot_ns();
    int64_t began = c->started ? c->started : now;
    char detail[LOGGED_DETAIL + 16] = "", part[16] = "";
    if (c->part)
        snprintf(part, sizeof part, ".%u", c->part);
    if (c->fault.code)
        snprintf(detail, sizeof detail, " detail=\"%.*s\"", LOGGED_DETAIL, c->fault.detail);
    log_line(LOG_INFO, "call=%" PRIu64 "%s by=%s method=%s sr=%s vdi=%s fault=%s ms=%.3f wait=%.3f%s%s%s", c->id, part,
             c->who.name[0] ? c->who.name : "nobody", c->method ? c->method->name : "?",
             uuid_is(&c->keys.sr) ? c->keys.sr.text : "-", uuid_is(&c->turn.vdi) ? c->turn.vdi.text : "-",
             c->fault.code ? fault_row(c->fault.code)->name : "none", (double) (now - c->arrived) / 1e6,
             (double) (began - c->arrived) / 1e6, c->trace ? " traceparent=" : "", c->trace ? c->trace : "", detail);
}

void dispatch_refuse(struct dispatch *d, struct call *call)
{
    if (!call->multicall)
        reply_fault(d, call, &call->fault);
    else if (!multicall_refuse(d, call))
        return;
    log_outcome(call);
}

static const struct sr_type *type_of(struct dispatch *d, const struct call *c)
{
    const struct sr_type *known = registry_type(d->registry, &c->keys.sr);
    return known || !c->keys.type ? known : sr_type_find(c->keys.type);
}

/* device_config without what the transport of the call put into it: SRmaster (xapi), type (/RPC2). A type that is none
   of an SR is left where a driver has a key of that name. */
static void take_config(struct call *c, const struct pairs *given)
{
    struct pairs p = {ARENA_ARRAY(c->arena, struct pair, given->count), 0};
    for (size_t i = 0; i < given->count; i++) {
        const struct pair *item = &given->items[i];
        if (strcmp(item->key, "type") == 0 && !c->type && !config_takes(item->key, item->value))
            c->keys.type = item->value;
        else if (strcmp(item->key, "SRmaster") == 0)
            c->keys.slave = strcmp(item->value, "false") == 0;
        else
            p.items[p.count++] = *item;
    }
    c->keys.config = p;
}

/* From here on nobody sees secret values who does not ask for them. */
static void hide_secrets(struct call *c, const struct sr_type *type)
{
    struct pairs *config = &c->keys.config;
    struct secrets hidden = {ARENA_ARRAY(c->arena, struct secret_pair, config->count), 0};
    for (size_t i = 0; i < config->count; i++) {
        struct pair *p = &config->items[i];
        if (!config_key_is_secret(type, p->key))
            continue;
        struct secret value = {p->value};
        hidden.items[hidden.count++] = (struct secret_pair){p->key, value};
        p->value = secret_show(value);
    }
    c->keys.secrets = hidden;
}

/* Whoever calls through the UNIX socket runs on this kernel. */
static bool is_local(const struct call *c)
{
    return c->who.role == ROLE_ADMIN && strcmp(c->who.name, "local") == 0;
}

static void take_holder(struct dispatch *d, struct call *c)
{
    const arg_uuid *boot = args_field(c->method, c->args, "host_boot_id");
    const arg_uuid *nonce = args_field(c->method, c->args, "nonce");
    c->keys.holder = (struct holder){.name = c->who.holder, .boot = boot ? *boot : UUID_NONE};
    if (nonce)
        c->keys.holder.nonce = *nonce;
    if (!uuid_is(&c->keys.holder.boot) && is_local(c))
        c->keys.holder.boot = store_meta(d->settings.store).boot;
}

/* A caller on this kernel that says another boot id is wrong about itself. */
static int check_boot(struct dispatch *d, const struct call *c, struct fault *f)
{
    const struct uuid here = store_meta(d->settings.store).boot;
    if (!is_local(c) || !uuid_is(&c->keys.holder.boot) || uuid_equal(&c->keys.holder.boot, &here))
        return 0;
    return fault_set(f, FAULT_InvalidArg, "host_boot_id is %s, but the kernel that calls has %s",
                     c->keys.holder.boot.text, here.text);
}

static void take_keys(struct dispatch *d, struct call *c)
{
    const arg_uuid *sr = args_field(c->method, c->args, "sr_uuid");
    const arg_uuid *vdi = args_field(c->method, c->args, "vdi_uuid");
    const arg_text *location = args_field(c->method, c->args, "vdi_location");
    const arg_map *config = args_field(c->method, c->args, "device_config");
    c->keys.type = c->type;
    c->keys.sr = sr ? *sr : UUID_NONE;
    c->keys.vdi = vdi ? *vdi : UUID_NONE;
    c->keys.location = location ? *location : NULL;
    take_holder(d, c);
    if (config) {
        take_config(c, config);
        hide_secrets(c, type_of(d, c));
    }
}

/* The method is about a disk that exists. */
static bool names_disk(const struct call *c)
{
    return args_field(c->method, c->args, "vdi_uuid") && args_field(c->method, c->args, "vdi_location");
}

/* What was taken can be given back however the medium is. */
static bool gives_back(const struct method *m)
{
    return m->phases->link == LINK_DETACHES || m->phases == &vdi_detach_phases || m->phases == &vdi_deactivate_phases ||
           m->phases == &vdi_detach_from_config_phases;
}

/* A call that names its disk only by a location that is no uuid cannot be ordered by disk: it waits for the SR. */
static void take_turn(struct call *c)
{
    const struct method *m = c->method;
    bool lease = m->capability == CAP_vdi_activate || m->lock == LOCK_ROWS;
    c->turn = (struct turn){.lock = m->lock,
                            .sr = m->lock == LOCK_ROWS ? UUID_NONE : c->keys.sr,
                            .vdi = c->keys.vdi,
                            .lease = lease,
                            .patient = gives_back(m)};
    if (names_disk(c) && !uuid_is(&c->turn.vdi) &&
        !uuid_parse_text(c->keys.location ? c->keys.location : "", &c->turn.vdi))
        c->turn.lock = LOCK_WHOLE;
}

/* Calls on an existing disk say which. */
static int check_disk_named(const struct call *c, struct fault *f)
{
    if (!names_disk(c) || uuid_is(&c->keys.vdi) || c->keys.location)
        return 0;
    return fault_set(f, FAULT_BadRequest, "%s: member vdi_uuid or vdi_location is missing", c->method->name);
}

static int check_type(struct dispatch *d, const struct call *c, struct fault *f)
{
    const struct sr_type *known = registry_type(d->registry, &c->keys.sr);
    if (c->keys.type && !sr_type_find(c->keys.type))
        return fault_set(f, FAULT_SRUnknownType, "there is no SR type \"%.*s\" here", QUOTED, c->keys.type);
    if (known && c->keys.type && strcmp(known->name, c->keys.type) != 0)
        return fault_set(f, FAULT_InvalidArg, "SR %s is of type %s, the call was sent for type %s", c->keys.sr.text,
                         known->name, c->keys.type);
    if (known)
        return 0;
    const struct sr_type *type = c->keys.type ? sr_type_find(c->keys.type) : NULL;
    if (type && !backend_offers(type, c->method->capability))
        return backend_refuse(type, c->method->capability, f);
    return 0;
}

static int check_master(struct dispatch *d, const struct call *c, struct fault *f)
{
    const struct sr_type *type = c->keys.slave ? type_of(d, c) : NULL;
    if (!type || !type->layout->masters || c->method->verb != VERB_MANAGE)
        return 0;
    return fault_set(f, FAULT_LVMMaster, "%s of SR %s came with SRmaster=false: the master of the pool changes it",
                     c->method->name, c->keys.sr.text);
}

/* One sentence for all that is not allowed, whatever exists or not. */
static int deny(const struct call *c, const char *method, struct fault *f)
{
    return fault_set(f, FAULT_AccessDenied, "%s may not call %.*s%s%s", c->who.name[0] ? c->who.name : "nobody", QUOTED,
                     method, uuid_is(&c->keys.sr) ? " on SR " : "", c->keys.sr.text);
}

static int find_method(struct dispatch *d, struct call *c, const char *name, struct fault *f)
{
    unsigned verbs = permissions_anywhere(d->settings.permissions, &c->who);
    const struct method *m = method_find(name);
    if (!verbs || (m && !(verbs & (unsigned) m->verb))) {
        c->method = m;
        return deny(c, name, f);
    }
    if (!m)
        return fault_set(f, FAULT_BadRequest, "there is no method \"%.*s\"", QUOTED, name);
    if (c->part && m->phases == &system_multicall_phases)
        return fault_set(f, FAULT_BadRequest, "%s does not take itself", m->name);
    c->method = m;
    return 0;
}

/* Calls on an SR need their verb there, whether it exists or not. A call that looks for SRs needs it on SRs as such;
   one that takes no turn and names none is about the program. */
static int authorise(struct dispatch *d, const struct call *c, struct fault *f)
{
    const struct method *m = c->method;
    if (!args_field(m, c->args, "sr_uuid") && m->lock <= LOCK_ROWS)
        return 0;
    unsigned verbs = permissions_on(d->settings.permissions, &c->who, &c->keys.sr);
    return verbs & (unsigned) m->verb ? 0 : deny(c, m->name, f);
}

/* A call that could only wait for a server that is gone is refused before it takes a place in the SR's queue. */
static int check_standing(struct dispatch *d, const struct call *c, struct fault *f)
{
    const struct method *m = c->method;
    if (m->lock <= LOCK_ROWS)
        return 0;
    if (registry_serves(d->registry, &c->keys.sr, m->phases->retries, f) < 0)
        return -1;
    return gives_back(m) ? 0 : registry_answers(d->registry, &c->keys.sr, f);
}

static int prepare(struct dispatch *d, struct call *c, const char *name, struct value *const *params, size_t count,
                   struct fault *f)
{
    void *args;
    if (find_method(d, c, name, f) < 0 || args_decode(c->method, params, count, c->arena, &args, f) < 0)
        return -1;
    c->args = args;
    take_keys(d, c);
    take_turn(c);
    if (authorise(d, c, f) < 0 || check_disk_named(c, f) < 0 || check_type(d, c, f) < 0 || check_boot(d, c, f) < 0 ||
        check_master(d, c, f) < 0)
        return -1;
    return check_standing(d, c, f);
}

bool dispatch_prepare(struct dispatch *d, struct call *call, const char *method, struct value *const *params,
                      size_t count)
{
    call->shown = call->who;
    permissions_identify(d->settings.permissions, &call->who);
    if (prepare(d, call, method, params, count, &call->fault) < 0) {
        dispatch_refuse(d, call);
        return true;
    }
    if (call->method->phases != &system_multicall_phases || !multicall_begin(d, call))
        return false;
    log_outcome(call);
    return true;
}

/* An SR that a failed call had put into the registry goes again, unless it is left to be settled. */
static void drop_fresh(struct dispatch *d, struct call *c)
{
    struct fault ignored;
    if (!c->work->fresh || registry_is_stuck(d->registry, &c->keys.sr))
        return;
    if (c->sr->connected && backend_sr_detach(c->sr, &ignored) < 0)
        registry_stand(d->registry, &c->keys.sr, STANDING_STUCK, ignored.detail);
    else
        registry_remove(d->registry, TAKE(c->sr));
}

/* Before any part was begun. */
static int refuse_whole(struct dispatch *d, struct call *c, struct fault *f)
{
    struct fault unkept;
    c->fault = *f;
    reply_fault(d, c, f);
    if (bracket_keep(d, c, &unkept) < 0)
        log_line(LOG_WARNING, "a refusal is not kept: %s", unkept.detail);
    return -1;
}

/* Some calls are several: they begin with a look at the rows, and go on as a multicall does. */
static int split(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct part *parts = NULL;
    size_t count = 0;
    bool kept;
    if (!c->method->phases->split)
        return 0;
    if (bracket_replay(d, c, &kept, f) < 0 || kept)
        return kept ? 0 : -1;
    if (c->method->phases->split(d, c, &parts, &count, f) < 0)
        return refuse_whole(d, c, f);
    if (parts && c->part)
        return fault_set(f, FAULT_BadRequest,
                         "%s does several things one after the other and is no part of a multicall", c->method->name);
    if (parts)
        multicall_split(d, c, parts, count);
    return 0;
}

static int run(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct method *m = c->method;
    c->work = ARENA_NEW(c->arena, struct work);
    c->work->arena = c->arena;
    c->terms = &d->settings.terms;
    bool on_sr = m->lock > LOCK_ROWS;
    c->sr = uuid_is(&c->keys.sr) && on_sr ? registry_find(d->registry, &c->keys.sr) : NULL;
    if (on_sr && registry_serves(d->registry, &c->keys.sr, m->phases->retries, f) < 0)
        return -1;
    if (c->sr && !backend_offers(c->sr->type, m->capability))
        return backend_refuse(c->sr->type, m->capability, f);
    if (split(d, c, f) < 0)
        return -1;
    if (c->reply || c->multicall)
        return 0;
    return m->effect == EFFECT_READS ? m->phases->act(d, c, f) : bracket_run(d, c, f);
}

/* What the call hid is its own: the SR forgets it with the call. Only calls whose turn is WHOLE lend it. */
static void forget_lent(struct call *c)
{
    if (!c->sr || c->turn.lock != LOCK_WHOLE)
        return;
    c->sr->secrets = NULL;
    c->sr->scratch = NULL;
}

void dispatch_run(struct dispatch *d, struct call *call)
{
    struct fault fault = {0};
    if (!call->started)
        call->started = clock_boot_ns();
    if (call->multicall) {
        if (multicall_run(d, call))
            log_outcome(call);
        return;
    }
    int failed = run(d, call, &fault);
    if (call->multicall && !call->reply)
        return; /* its parts wait for turns */
    forget_lent(call);
    if (failed < 0) {
        call->fault = fault;
        drop_fresh(d, call);
    }
    if (!call->reply && call->fault.code)
        reply_fault(d, call, &call->fault);
    else if (!call->reply)
        reply_result(d, call);
    log_outcome(call);
}

int dispatch_answers(struct dispatch *d, const struct uuid *sr, struct fault *f)
{
    return registry_answers(d->registry, sr, f);
}

struct found_rows {
    struct arena *arena;
    struct sr_row *srs;
    size_t sr_count;
    struct plan *ops;
    size_t op_count;
};

static int read_rows(struct txn *t, void *arg, struct fault *f)
{
    struct found_rows *rows = arg;
    if (store_sr_list(t, rows->arena, &rows->srs, &rows->sr_count, f) < 0)
        return -1;
    return store_op_list(t, &UUID_NONE, rows->arena, &rows->ops, &rows->op_count, f);
}

static int register_srs(struct dispatch *d, const struct found_rows *rows, struct fault *f)
{
    for (size_t i = 0; i < rows->sr_count; i++) {
        const struct sr_row *row = &rows->srs[i];
        const struct sr_type *type = sr_type_find(row->type);
        if (!type)
            return fault_set(f, FAULT_SRUnknownType, "the store has SR %s of type \"%s\", which this program has not",
                             row->uuid.text, row->type);
        registry_add(d->registry, &row->uuid, type, &row->config,
                     d->settings.looks ? STANDING_SERVING : STANDING_RECOVERING);
    }
    return 0;
}

void dispatch_free(struct dispatch *d)
{
    if (!d)
        return;
    registry_free(d->registry);
    free(d);
}

/* Before anything is served: host leases run for their whole term again. */
static int begin_leases(struct txn *t, void *arg, struct fault *f)
{
    return store_lease_begin(t, arg, clock_boot_ns(), f);
}

int dispatch_new(const struct dispatch_settings *settings, struct dispatch **out, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(256 << 20);
    struct found_rows rows = {.arena = a};
    struct lease_terms terms = settings->terms;
    if (store_meta(settings->store).put_back)
        log_line(LOG_WARNING,
                 "the database is older than the one that was served last: what hosts hold is not known, and "
                 "no lease for writing is granted until they must be dead");
    if ((!settings->looks && store_write(settings->store, begin_leases, &terms, f) < 0) ||
        store_read(settings->store, read_rows, &rows, f) < 0)
        return -1;
    struct dispatch *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->settings = *settings;
    d->registry = registry_new(&d->settings.backend, d->settings.holds);
    if (register_srs(d, &rows, f) < 0) {
        dispatch_free(d);
        return -1;
    }
    atomic_store(&d->recoveries_left, rows.sr_count);
    *out = d;
    return 0;
}

int dispatch_recoveries(struct dispatch *d, struct arena *a, struct uuid **out, size_t *count)
{
    *count = registry_recovering(d->registry, a, out);
    return 0;
}

void dispatch_recover_sr(struct dispatch *d, const struct uuid *uuid)
{
    struct fault f = {0};
    struct sr *sr = registry_find(d->registry, uuid);
    if (sr && recover_sr(d, sr, d->settings.hold_seconds, &f) < 0) {
        log_line(LOG_ERROR, "SR %s: not recovered: %s", uuid->text, f.detail);
        registry_stand(d->registry, uuid, STANDING_STUCK, f.detail);
    }
    atomic_fetch_sub(&d->recoveries_left, 1);
}

bool dispatch_ready(struct dispatch *d)
{
    return atomic_load(&d->recoveries_left) == 0;
}
