/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/multicall.h"

#include "handlers/state.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include <string.h>

#define PART_MEMORY_MAX (2048UL << 20) /* as a call of its own */
enum { REPLIES_MAX = 16 << 20 };

struct multicall {
    const struct value *calls; /* as sent; NULL when the call made its parts itself */
    const struct part *parts;
    size_t total;
    size_t next;         /* of them, the one to begin */
    struct arena *arena; /* of the part under way, given back when it ends */
    struct call *part;   /* waits for its turn; NULL between parts */
    struct parted *done;
    size_t count, bytes; /* of done and its replies */
    bool failed;         /* one of them */
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

/* The operation id of a part: derived from the call's, the call's own when the part closes it, none else. */
static struct op_key part_op(const struct call *c, size_t at)
{
    const struct multicall *m = c->multicall;
    if (!c->op.given || (!m->calls && !m->parts[at].closes))
        return (struct op_key){.given = false};
    struct op_key op = c->op;
    if (m->calls)
        op.id = part_id(&c->op.id, at + 1);
    return op;
}

static void part_new(struct call *c, size_t at)
{
    struct multicall *m = c->multicall;
    m->arena = arena_new(PART_MEMORY_MAX);
    m->part = ARENA_NEW(m->arena, struct call);
    *m->part = (struct call){.arena = m->arena,
                             .id = c->id,
                             .part = (unsigned) at + 1,
                             .who = c->shown,
                             .type = c->type,
                             .op = part_op(c, at),
                             .trace = c->trace,
                             .arrived = clock_boot_ns()};
    m->part->op.identity = m->part->who.name;
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
    struct parted *done = &m->done[m->count++];
    *done = (struct parted){arena_copy(c->arena, m->part->reply, m->part->reply_length), m->part->reply_length,
                            m->part->fault};
    done->fault.document = NULL; /* the part's */
    m->failed = m->failed || done->fault.code;
    m->bytes += m->part->reply_length;
    m->part = NULL;
    arena_free(TAKE(m->arena));
}

/* Decodes the part; true when that has ended it. */
static bool part_prepare(struct dispatch *d, struct multicall *m, size_t at)
{
    const struct value *params;
    const char *method;
    struct call *part = m->part;
    if (!m->calls)
        return dispatch_prepare(d, part, m->parts[at].method, &m->parts[at].params, 1);
    if (read_part(m->calls->items[at], &method, &params, &part->fault) < 0)
        return false;
    return dispatch_prepare(d, part, method, params->items, params->count);
}

/* Begins the next part: it is over afterwards, or waits for c->turn. */
static void part_begin(struct dispatch *d, struct call *c)
{
    struct multicall *m = c->multicall;
    size_t at = m->next++;
    part_new(c, at);
    struct call *part = m->part;
    bool over = false;
    if (m->bytes > REPLIES_MAX)
        fault_set(&part->fault, FAULT_Busy, "the answers to the calls before are %zu bytes: ask in another call",
                  m->bytes);
    else
        over = part_prepare(d, m, at);
    if (part->fault.code && !over)
        dispatch_refuse(d, part);
    else if (!over && part->turn.lock == LOCK_NONE)
        dispatch_run(d, part);
    if (part->reply)
        part_end(c);
    else
        c->turn = part->turn;
}

static void reply_all(struct dispatch *d, struct call *c)
{
    const struct multicall *m = c->multicall;
    const char **replies = ARENA_ARRAY(c->arena, const char *, m->count);
    size_t *lengths = ARENA_ARRAY(c->arena, size_t, m->count), length;
    for (size_t i = 0; i < m->count; i++) {
        replies[i] = m->done[i].reply;
        lengths[i] = m->done[i].reply_length;
    }
    char *bytes = d->settings.write_multicall(replies, lengths, m->count, &length);
    c->reply = arena_copy(c->arena, bytes, length);
    c->reply_length = length;
    free(bytes);
}

/* The answer of a call that made its parts itself. That it is not kept is no harm: a repeat finds what is done. */
static void reply_gathered(struct dispatch *d, struct call *c, bool may_wait)
{
    const struct multicall *m = c->multicall;
    const struct parted *last = m->count > 0 ? &m->done[m->count - 1] : NULL;
    struct fault unkept;
    if (last && m->parts[m->count - 1].closes) {
        c->reply = last->reply;
        c->reply_length = last->reply_length;
        c->fault = last->fault;
        return;
    }
    if (c->method->phases->gather(d, c, m->done, m->count, &c->fault) < 0)
        reply_fault(d, c, &c->fault);
    else
        reply_result(d, c);
    if (may_wait && bracket_keep(d, c, &unkept) < 0)
        log_line(LOG_WARNING, "the answer to call %llu is not kept: %s", (unsigned long long) c->id, unkept.detail);
}

/* Whether the next part is to be begun. */
static bool goes_on(const struct multicall *m)
{
    if (m->next == m->total)
        return false;
    return m->calls || !m->parts[m->next].closes || !m->failed;
}

/* may_wait: this thread may wait for the store. */
static bool advance(struct dispatch *d, struct call *c, bool may_wait)
{
    struct multicall *m = c->multicall;
    while (!m->part && goes_on(m))
        part_begin(d, c);
    if (m->part)
        return false;
    if (m->calls)
        reply_all(d, c);
    else
        reply_gathered(d, c, may_wait);
    return true;
}

static struct multicall *multicall_new(struct call *c, size_t total)
{
    struct multicall *m = c->multicall = ARENA_NEW(c->arena, struct multicall);
    *m = (struct multicall){.total = total, .done = ARENA_ARRAY(c->arena, struct parted, total)};
    return m;
}

bool multicall_begin(struct dispatch *d, struct call *c)
{
    const struct value *calls = ARGS(c, system_multicall)->calls;
    if (calls->count > d->settings.multicall_max) {
        fault_set(&c->fault, FAULT_BadRequest, "%s: %zu calls; at most %u are taken in one", c->method->name,
                  calls->count, d->settings.multicall_max);
        reply_fault(d, c, &c->fault);
        return true;
    }
    multicall_new(c, calls->count)->calls = calls;
    return advance(d, c, false);
}

bool multicall_split(struct dispatch *d, struct call *c, const struct part *parts, size_t count)
{
    multicall_new(c, count)->parts = parts;
    return advance(d, c, true);
}

bool multicall_run(struct dispatch *d, struct call *c)
{
    dispatch_run(d, c->multicall->part);
    part_end(c);
    return advance(d, c, true);
}

bool multicall_refuse(struct dispatch *d, struct call *c)
{
    struct call *part = c->multicall->part;
    part->fault = c->fault;
    c->fault = (struct fault){0};
    dispatch_refuse(d, part);
    part_end(c);
    return advance(d, c, false);
}
