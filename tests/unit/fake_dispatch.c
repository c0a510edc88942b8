/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A dispatch that does nothing but tell how it was called, for tests of the server in front of it. Every method
   answers its own name; these do more:
     fake.counts   "<calls that reached dispatch>,<of these ended>", itself not counted
     fake.call     struct of what the server filled in
     fake.slow     waits for its first parameter, milliseconds, on a worker; the second is the SR, if any
     fake.lease    the same, as a lease call
     fake.epoch    answers epoch 7
     fake.document a fault with a document that lies in the call's arena
     fake.large    answers its first parameter, bytes, of text
   FAKE_RECOVERY_MS: there is one SR to recover, which takes that long. */
#include "handlers/dispatch.h"
#include "handlers/method.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

struct dispatch {
    struct dispatch_settings settings;
    atomic_uint reached, ended;
    atomic_bool ready;
    long recovery_ms;
};

/* A row that says little, and what the server must not see of it. */
struct fake {
    struct method row;
    const char *name;
    struct value *const *params;
    size_t count;
};

static void wait_ms(long ms)
{
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

void dispatch_free(struct dispatch *d)
{
    free(d);
}

int dispatch_new(const struct dispatch_settings *settings, struct dispatch **out, struct fault *f)
{
    struct dispatch *d = calloc(1, sizeof *d);
    if (!d)
        return fault_set(f, FAULT_EIO, "no memory");
    const char *ms = getenv("FAKE_RECOVERY_MS");
    d->settings = *settings;
    d->recovery_ms = ms ? strtol(ms, NULL, 10) : 0;
    atomic_store(&d->ready, d->recovery_ms == 0);
    *out = d;
    return 0;
}

int dispatch_recoveries(struct dispatch *d, struct arena *a, struct uuid **out, size_t *count)
{
    *out = ARENA_NEW(a, struct uuid);
    **out = uuid_random();
    *count = d->recovery_ms > 0;
    return 0;
}

void dispatch_recover_sr(struct dispatch *d, const struct uuid *sr)
{
    (void) sr;
    wait_ms(d->recovery_ms);
    atomic_store(&d->ready, true);
}

bool dispatch_ready(struct dispatch *d)
{
    return atomic_load(&d->ready);
}

static void end(struct dispatch *d, struct call *call)
{
    char *bytes = call->fault.code ? d->settings.write_fault(&call->fault, &call->reply_length)
                                   : d->settings.write_result(call->result, &call->reply_length);
    call->reply = arena_copy(call->arena, bytes, call->reply_length);
    free(bytes);
}

int dispatch_answers(struct dispatch *d, const struct uuid *sr, struct fault *f)
{
    (void) d, (void) sr, (void) f;
    return 0;
}

void dispatch_refuse(struct dispatch *d, struct call *call)
{
    end(d, call);
}

bool dispatch_prepare(struct dispatch *d, struct call *call, const char *method, struct value *const *params,
                      size_t count)
{
    if (strcmp(method, "fake.counts") != 0)
        atomic_fetch_add(&d->reached, 1);
    if (call->who.role == ROLE_NONE) {
        fault_set(&call->fault, FAULT_AccessDenied, "%s may call nothing", call->who.name);
        end(d, call);
        return true;
    }
    struct fake *m = ARENA_NEW(call->arena, struct fake);
    *m = (struct fake){{.name = "fake"}, arena_text(call->arena, method), params, count};
    call->method = &m->row;
    call->turn.lease = strcmp(method, "fake.lease") == 0;
    call->turn.lock = strcmp(method, "fake.slow") == 0 || call->turn.lease ? LOCK_SHARED : LOCK_NONE;
    if (count > 1 && params[1]->kind == VALUE_STRING)
        uuid_parse_text(params[1]->text, &call->turn.sr);
    return false;
}

static struct value *digest_text(const struct call *call)
{
    char text[2 * DIGEST_SIZE + 1] = "";
    for (size_t i = 0; call->op.given && i < DIGEST_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", call->op.digest[i]);
    return value_string(call->arena, arena_text(call->arena, text));
}

static struct value *describe_call(const struct call *call)
{
    static const char *const roles[] = {"none", "reader", "host", "operator", "admin"};
    struct arena *a = call->arena;
    struct value *v = value_struct(a);
    value_put(a, v, "role", value_string(a, roles[call->who.role]));
    value_put(a, v, "name", value_string(a, call->who.name));
    value_put(a, v, "holder", value_string(a, call->who.holder));
    value_put(a, v, "host", value_string(a, call->who.host.text));
    value_put(a, v, "type", value_string(a, call->type ? call->type : ""));
    value_put(a, v, "trace", value_string(a, call->trace ? call->trace : ""));
    value_put(a, v, "op", value_string(a, call->op.id.text));
    value_put(a, v, "op_identity", value_string(a, call->op.identity));
    value_put(a, v, "digest", digest_text(call));
    return v;
}

static struct value *counts(const struct dispatch *d, struct arena *a)
{
    return value_string(a, arena_printf(a, "%u,%u", atomic_load(&d->reached), atomic_load(&d->ended)));
}

static struct value *large(struct arena *a, int64_t length)
{
    char *text = arena_alloc(a, (size_t) length + 1);
    memset(text, 'x', (size_t) length);
    return value_string(a, text);
}

static const struct fake *fake_of(const struct call *call)
{
    return (const struct fake *) call->method; /* its first member */
}

static struct value *answer(struct dispatch *d, struct call *call)
{
    const struct fake *m = fake_of(call);
    int64_t number = m->count > 0 && m->params[0]->kind == VALUE_INTEGER ? m->params[0]->integer : 0;
    if (strcmp(m->name, "fake.counts") == 0)
        return counts(d, call->arena);
    if (strcmp(m->name, "fake.call") == 0)
        return describe_call(call);
    if (strcmp(m->name, "fake.large") == 0)
        return large(call->arena, number);
    if (strcmp(m->name, "fake.slow") == 0 || strcmp(m->name, "fake.lease") == 0)
        wait_ms(number);
    if (strcmp(m->name, "fake.epoch") == 0)
        call->epoch = 7;
    return value_string(call->arena, m->name);
}

static void fail_with_document(struct call *call)
{
    fault_set(&call->fault, FAULT_ConfigTargetIQNMissing, "choose one");
    fault_document(&call->fault, arena_text(call->arena, "<?xml version=\"1.0\" ?>\n<list><a>&amp;</a></list>\n"));
}

void dispatch_run(struct dispatch *d, struct call *call)
{
    if (strcmp(fake_of(call)->name, "fake.document") == 0)
        fail_with_document(call);
    else
        call->result = answer(d, call);
    if (strcmp(fake_of(call)->name, "fake.counts") != 0)
        atomic_fetch_add(&d->ended, 1);
    end(d, call);
}

void dispatch_describe(struct text *out)
{
    text_add(out, "{}\n");
}

static int nothing_to_check(struct fault *f)
{
    return fault_set(f, FAULT_Unimplemented, "there is nothing to check here");
}

int dispatch_fsck(struct dispatch *d, bool strict, struct findings *out, struct uuid **srs, size_t *count,
                  struct fault *f)
{
    (void) d, (void) strict, (void) out, (void) srs, (void) count;
    return nothing_to_check(f);
}

int dispatch_fsck_sr(struct dispatch *d, const struct uuid *sr, bool strict, struct findings *out, struct fault *f)
{
    (void) d, (void) sr, (void) strict, (void) out;
    return nothing_to_check(f);
}

int dispatch_look(struct dispatch *d, const struct uuid *sr, struct fault *f)
{
    (void) d, (void) sr;
    return nothing_to_check(f);
}

int dispatch_rebuild(struct dispatch *d, struct fault *f)
{
    (void) d;
    return nothing_to_check(f);
}

void dispatch_traces(struct dispatch *d, struct arena *a, struct dispatch_trace **out, size_t *count,
                     void (*told)(void *arg, const char *type, const struct fault *f), void *arg)
{
    (void) d, (void) a, (void) told, (void) arg;
    *out = NULL;
    *count = 0;
}

int dispatch_rebuild_sr(struct dispatch *d, const char *type, const struct uuid *uuid, const struct pairs *config,
                        size_t *disks, struct fault *f)
{
    (void) d, (void) type, (void) uuid, (void) config, (void) disks;
    return nothing_to_check(f);
}

void dispatch_tell_programs(void)
{
}
