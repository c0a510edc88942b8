/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/multicall.h"

#include "handlers/state.h"
#include "server/base/clock.h"
#include <string.h>

#define PART_MEMORY_MAX (2048UL << 20) /* as a call of its own */
enum { REPLIES_MAX = 16 << 20 };

struct multicall {
    const struct value *calls; /* as sent */
    struct identity shown;
    size_t next;         /* of calls, the one to begin */
    struct arena *arena; /* of the part under way, given back when it ends */
    struct call *part;   /* waits for its turn; NULL between parts */
    const char **replies;
    size_t *lengths;
    size_t count, bytes; /* of replies */
};

const struct phases system_multicall_phases = {.act = NULL};

/* Version 8, the free form: no version 4 id of another call is ever met. */
static struct uuid part_id(const struct uuid *id, size_t part)
{
    struct uuid derived = *id;
    char number[9];
    snprintf(number, sizeof number, "%08zx", part);
    derived.text[14] = '8';
    for (size_t i = 0; i < 8; i++) {
        char *c = &derived.text[28 + i];
        unsigned digit = (unsigned) (*c <= '9' ? *c - '0' : *c - 'a' + 10);
        unsigned of_part = (unsigned) (number[i] <= '9' ? number[i] - '0' : number[i] - 'a' + 10);
        *c = "0123456789abcdef"[digit ^ of_part];
    }
    return derived;
}

static void part_new(struct call *c)
{
    struct multicall *m = c->multicall;
    m->arena = arena_new(PART_MEMORY_MAX);
    m->part = ARENA_NEW(m->arena, struct call);
    *m->part = (struct call){.arena = m->arena,
                             .id = c->id,
                             .part = (unsigned) m->next,
                             .who = m->shown,
                             .type = c->type,
                             .op = c->op,
                             .trace = c->trace,
                             .arrived = clock_boot_ns()};
    m->part->op.identity = m->part->who.name;
    if (c->op.given)
        m->part->op.id = part_id(&c->op.id, m->next);
}

/* {methodName, params} and nothing else. */
static int read_part(const struct value *v, const char **method, const struct value **params, struct fault *f)
{
    bool is_struct = v->kind == VALUE_STRUCT;
    const struct value *name = is_struct ? value_get(v, "methodName") : NULL;
    const struct value *list = is_struct ? value_get(v, "params") : NULL;
    if (!name || name->kind != VALUE_STRING || !list || list->kind != VALUE_ARRAY || v->count != 2)
        return fault_set(f, FAULT_BadRequest,
                         "each call is a struct of a string methodName and an array params, and nothing else");
    *method = name->text;
    *params = list;
    return 0;
}

static void part_end(struct call *c)
{
    struct multicall *m = c->multicall;
    m->replies[m->count] = arena_copy(c->arena, m->part->reply, m->part->reply_length);
    m->lengths[m->count++] = m->part->reply_length;
    m->bytes += m->part->reply_length;
    m->part = NULL;
    arena_free(TAKE(m->arena));
}

/* Begins the next part: it is over afterwards, or waits for c->turn. */
static void part_begin(struct dispatch *d, struct call *c)
{
    struct multicall *m = c->multicall;
    const struct value *params;
    const char *method;
    const struct value *sent = m->calls->items[m->next++];
    part_new(c);
    struct call *part = m->part;
    bool over = false;
    if (m->bytes > REPLIES_MAX)
        fault_set(&part->fault, FAULT_Busy, "the answers to the calls before are %zu bytes: ask in another call",
                  m->bytes);
    else if (read_part(sent, &method, &params, &part->fault) == 0)
        over = dispatch_prepare(d, part, method, params->items, params->count);
    if (part->fault.code && !over)
        dispatch_refuse(d, part);
    else if (!over && part->turn.lock == LOCK_NONE)
        dispatch_run(d, part);
    if (part->reply)
        part_end(c);
    else
        c->turn = part->turn;
}

static bool advance(struct dispatch *d, struct call *c)
{
    struct multicall *m = c->multicall;
    while (!m->part && m->next < m->calls->count)
        part_begin(d, c);
    if (m->part)
        return false;
    size_t length;
    char *bytes = d->settings.write_multicall(m->replies, m->lengths, m->count, &length);
    c->reply = arena_copy(c->arena, bytes, length);
    c->reply_length = length;
    free(bytes);
    return true;
}

bool multicall_begin(struct dispatch *d, struct call *c, const struct identity *shown)
{
    const struct value *calls = ARGS(c, system_multicall)->calls;
    if (calls->count > d->settings.multicall_max) {
        fault_set(&c->fault, FAULT_BadRequest, "%s: %zu calls; at most %u are taken in one", c->method->name,
                  calls->count, d->settings.multicall_max);
        reply_fault(d, c, &c->fault);
        return true;
    }
    c->multicall = ARENA_NEW(c->arena, struct multicall);
    *c->multicall = (struct multicall){.calls = calls,
                                       .shown = *shown,
                                       .replies = ARENA_ARRAY(c->arena, const char *, calls->count),
                                       .lengths = ARENA_ARRAY(c->arena, size_t, calls->count)};
    return advance(d, c);
}

bool multicall_run(struct dispatch *d, struct call *c)
{
    dispatch_run(d, c->multicall->part);
    part_end(c);
    return advance(d, c);
}

bool multicall_refuse(struct dispatch *d, struct call *c)
{
    struct call *part = c->multicall->part;
    part->fault = c->fault;
    c->fault = (struct fault){0};
    dispatch_refuse(d, part);
    part_end(c);
    return advance(d, c);
}
