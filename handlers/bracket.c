/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The journal around a changing call: intent committed before the first side effect; result, rows and reply in one
   commit; the same operation id gives the same bytes back. */
#include "handlers/state.h"
#include "server/base/log.h"
#include "server/base/point.h"
#include <assert.h>

struct bracket {
    struct dispatch *d;
    struct call *c;
    bool replayed; /* the reply is an older one */
};

/* Looks for a kept reply; sets b->replayed. */
static int replay(struct txn *t, struct bracket *b, struct fault *f)
{
    struct op_reply *kept = NULL;
    b->replayed = false;
    if (!b->c->op.given)
        return 0;
    if (store_op_replay(t, &b->c->op, b->c->arena, &kept, f) < 0)
        return -1;
    if (kept) {
        b->c->reply = kept->bytes;
        b->c->reply_length = kept->length;
        b->c->epoch = kept->epoch;
        b->replayed = true;
    }
    return 0;
}

static int replay_work(struct txn *t, void *arg, struct fault *f)
{
    return replay(t, arg, f);
}

/* The reply in its final bytes, kept under the operation id when there is one. */
static int close_op(struct txn *t, struct bracket *b, struct fault *f)
{
    struct call *c = b->c;
    reply_result(b->d, c);
    struct op_reply reply = {c->reply, c->reply_length, c->epoch};
    return store_op_close(t, &c->plan.op, &c->op, &reply, f);
}

static void plan_start(struct call *c)
{
    c->plan = (struct plan){.op = uuid_random(),
                            .method = c->method->name,
                            .sr = c->keys.sr,
                            .vdi = c->keys.vdi,
                            .format = "",
                            .name = "",
                            .keep = c->op.given};
}

/* The intent's transaction of a MEDIUM call. */
static int intent_work(struct txn *t, void *arg, struct fault *f)
{
    struct bracket *b = arg;
    struct call *c = b->c;
    c->result = NULL;
    c->reply = NULL;
    if (c->method->phases->check(t, c, f) < 0)
        return -1;
    if (c->result) /* it was done before: nothing to do but to say so */
        return close_op(t, b, f);
    return store_op_open(t, &c->plan, &c->op, f);
}

/* The result's transaction of a MEDIUM or SYNC call, the only one of a STORE call. */
static int result_work(struct txn *t, void *arg, struct fault *f)
{
    struct bracket *b = arg;
    struct call *c = b->c;
    if (c->method->effect == EFFECT_STORE && (replay(t, b, f) < 0 || b->replayed))
        return b->replayed ? 0 : -1;
    if (c->method->phases->record(t, c, f) < 0)
        return -1;
    return close_op(t, b, f);
}

/* The end of a MEDIUM call that was undone: its rows go back and the fault is the reply. One for want of room is not
   kept, as keeping it may need a page: its operation id is free again. */
static int undone_work(struct txn *t, void *arg, struct fault *f)
{
    struct bracket *b = arg;
    struct call *c = b->c;
    if (c->method->phases->undo && c->method->phases->undo(t, c, f) < 0)
        return -1;
    if (c->fault.code == FAULT_SRNoSpace)
        return store_op_drop(t, &c->plan.op, f);
    reply_fault(b->d, c, &c->fault);
    struct op_reply reply = {c->reply, c->reply_length, 0};
    return store_op_close(t, &c->plan.op, &c->op, &reply, f);
}

static int quarantine_work(struct txn *t, void *arg, struct fault *f)
{
    struct bracket *b = arg;
    return recover_quarantine(t, b->d, b->c, f);
}

/* A call that was refused before its intent: only its reply is kept, when it has an operation id. */
static int refused_work(struct txn *t, void *arg, struct fault *f)
{
    struct bracket *b = arg;
    reply_fault(b->d, b->c, &b->c->fault);
    struct op_reply reply = {b->c->reply, b->c->reply_length, 0};
    return store_op_close(t, &b->c->plan.op, &b->c->op, &reply, f);
}

/* Refusals that say nothing of the operation itself are not kept: the caller is meant to ask again. */
static bool is_kept(enum fault_code code)
{
    return code != FAULT_OperationConflict && code != FAULT_Busy && code != FAULT_DeadlineExceeded &&
           code != FAULT_EIO && code != FAULT_SRNoSpace && code != FAULT_SRUnavailable;
}

static int refuse(struct bracket *b, const struct fault *f)
{
    struct fault ignored;
    b->c->fault = *f;
    b->c->reply = NULL;
    if (b->c->op.given && is_kept(f->code) && store_write(b->d->settings.store, refused_work, b, &ignored) < 0)
        b->c->reply = NULL;
    return -1;
}

static void poison(struct bracket *b, const struct fault *f)
{
    registry_stand(b->d->registry, &b->c->plan.sr, STANDING_STUCK, f->detail);
    log_line(LOG_ERROR, "SR %s: %s left unfinished: %s", b->c->plan.sr.text, b->c->method->name, f->detail);
}

/* The side effects failed: settle them as after a crash, and answer with what they failed with, unless they turn out
   to be whole. */
static int act_failed(struct bracket *b, struct fault *f)
{
    struct fault why = *f, unsettled = {0};
    enum settled how;
    b->c->fault = why;
    if (recover_call(b->d, b->c, &how, &unsettled) < 0) {
        poison(b, &unsettled);
        return -1;
    }
    if (how == SETTLED_DONE) {
        b->c->fault = (struct fault){0};
        return 0;
    }
    if (how == SETTLED_STUCK)
        log_line(LOG_ERROR, "SR %s: %s of VDI %s was quarantined: %s", b->c->plan.sr.text, b->c->method->name,
                 b->c->plan.vdi.text, unsettled.detail);
    if (store_write(b->d->settings.store, how == SETTLED_STUCK ? quarantine_work : undone_work, b, &unsettled) < 0) {
        b->c->reply = NULL;
        poison(b, &unsettled);
    }
    *f = why;
    return -1;
}

/* The result found no room in the store, though the medium is done: what can still be taken back there is, so that the
   SR goes on serving what gives room back. */
static int result_refused(struct bracket *b, struct fault *f)
{
    struct fault why = *f, unsettled = *f;
    enum settled how = SETTLED_STUCK;
    if (f->code == FAULT_SRNoSpace) {
        b->c->plan.keep = false;
        if (recover_call(b->d, b->c, &how, &unsettled) < 0)
            how = SETTLED_STUCK;
    }
    b->c->fault = why;
    b->c->reply = NULL;
    if (how != SETTLED_UNDONE || store_write(b->d->settings.store, undone_work, b, &unsettled) < 0)
        poison(b, &unsettled);
    return -1;
}

static int act(struct bracket *b, struct fault *f)
{
    if (POINT(intent_committed) < 0)
        return fault_errno(f, FAULT_EIO, "%s of SR %s", b->c->method->name, b->c->plan.sr.text);
    if (b->c->method->phases->act && b->c->method->phases->act(b->d, b->c, f) < 0)
        return -1;
    if (POINT(effects_done) < 0)
        return fault_errno(f, FAULT_EIO, "%s of SR %s", b->c->method->name, b->c->plan.sr.text);
    return 0;
}

static int finish(struct bracket *b, struct fault *f)
{
    const struct phases *p = b->c->method->phases;
    POINT(result_committed);
    if (!p->after || p->after(b->d, b->c, f) == 0)
        return 0;
    b->c->reply = NULL;
    return -1;
}

/* A medium that is not there is told before an intent is left open on it. Calls on the SR itself look for themselves.
 */
static int check_there(const struct call *c, struct fault *f)
{
    bool on_disk = c->turn.lock == LOCK_VDI || c->turn.lock == LOCK_SERIAL;
    return on_disk && c->sr && c->sr->connected ? backend_sr_check(c->sr, f) : 0;
}

static int run_medium(struct bracket *b, struct fault *f)
{
    struct call *c = b->c;
    struct store *store = b->d->settings.store;
    if (check_there(c, f) < 0)
        return refuse(b, f);
    if (c->method->phases->look && c->method->phases->look(b->d, c, f) < 0)
        return refuse(b, f);
    if (store_write(store, intent_work, b, f) < 0)
        return refuse(b, f);
    if (c->reply)
        return 0;
    if (act(b, f) < 0 && act_failed(b, f) < 0)
        return -1;
    if (store_write(store, result_work, b, f) < 0)
        return result_refused(b, f);
    return finish(b, f);
}

static int run_sync(struct bracket *b, struct fault *f)
{
    const struct phases *p = b->c->method->phases;
    struct store *store = b->d->settings.store;
    if ((p->look && p->look(b->d, b->c, f) < 0) || p->act(b->d, b->c, f) < 0)
        return refuse(b, f);
    if (store_write(store, result_work, b, f) < 0)
        return refuse(b, f);
    return finish(b, f);
}

static int run_store(struct bracket *b, struct fault *f)
{
    if (store_write(b->d->settings.store, result_work, b, f) < 0)
        return refuse(b, f);
    return b->replayed ? 0 : finish(b, f);
}

/* STORE calls look for a kept reply in their one transaction, the others before they look at anything else. */
static int replay_first(struct bracket *b, struct fault *f)
{
    if (!b->c->op.given || b->c->method->effect == EFFECT_STORE)
        return 0;
    return store_read(b->d->settings.store, replay_work, b, f);
}

int bracket_replay(struct dispatch *d, struct call *c, bool *kept, struct fault *f)
{
    struct bracket b = {.d = d, .c = c};
    plan_start(c);
    *kept = false;
    if (!c->op.given)
        return 0;
    if (store_read(d->settings.store, replay_work, &b, f) < 0)
        return -1;
    *kept = b.replayed;
    return 0;
}

static int keep_work(struct txn *t, void *arg, struct fault *f)
{
    const struct call *c = arg;
    struct op_reply reply = {c->reply, c->reply_length, 0};
    return store_op_close(t, &c->plan.op, &c->op, &reply, f);
}

int bracket_keep(struct dispatch *d, struct call *c, struct fault *f)
{
    bool lasting = !c->fault.code || is_kept(c->fault.code);
    return c->op.given && lasting ? store_write(d->settings.store, keep_work, c, f) : 0;
}

int bracket_run(struct dispatch *d, struct call *c, struct fault *f)
{
    struct bracket b = {.d = d, .c = c};
    plan_start(c);
    if (replay_first(&b, f) < 0)
        return -1;
    if (b.replayed)
        return 0;
    switch (c->method->effect) {
    case EFFECT_MEDIUM:
        return run_medium(&b, f);
    case EFFECT_SYNC:
        return run_sync(&b, f);
    case EFFECT_STORE:
        return run_store(&b, f);
    case EFFECT_READS:
        break;
    }
    assert(false && "calls that change nothing have no bracket");
    return -1;
}
