/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bringing open operations to an end: after a crash for every SR, and after a failed side effect for one call. The
   journal says where to look, the medium says what is true. */
#include "handlers/revoke.h"
#include "server/base/log.h"
#include "server/base/point.h"
#include <string.h>

struct recovery {
    struct dispatch *d;
    struct sr *sr;
    struct arena *arena;
    struct plan *ops;
    size_t op_count;
    struct attachment *attachments;
    size_t attachment_count;
    struct uuid *disks; /* attached by any of those */
    size_t disk_count;
    struct lease *leases;
    size_t lease_count;
    struct sr_row *row;
    struct call *call; /* the one being settled */
};

static int read_open(struct txn *t, void *arg, struct fault *f)
{
    struct recovery *r = arg;
    return store_op_list(t, &r->sr->uuid, r->arena, &r->ops, &r->op_count, f);
}

/* The disks each host has. */
static int read_disks(struct txn *t, struct recovery *r, struct fault *f)
{
    for (size_t i = 0; i < r->attachment_count; i++) {
        struct attachment *list;
        size_t count;
        if (store_attachment_list(t, &r->sr->uuid, &UUID_NONE, r->attachments[i].holder, r->arena, &list, &count, f) <
            0)
            return -1;
        struct uuid *disks = ARENA_ARRAY(r->arena, struct uuid, r->disk_count + count);
        if (r->disk_count)
            memcpy(disks, r->disks, r->disk_count * sizeof *disks);
        for (size_t k = 0; k < count; k++)
            disks[r->disk_count++] = list[k].vdi;
        r->disks = disks;
    }
    return 0;
}

static int read_holders(struct txn *t, void *arg, struct fault *f)
{
    struct recovery *r = arg;
    if (store_sr_find(t, &r->sr->uuid, r->arena, &r->row, f) < 0)
        return -1;
    if (store_attachment_list(t, &r->sr->uuid, &UUID_NONE, NULL, r->arena, &r->attachments, &r->attachment_count, f) <
        0)
        return -1;
    if (read_disks(t, r, f) < 0)
        return -1;
    return store_lease_list(t, &r->sr->uuid, &UUID_NONE, r->arena, &r->leases, &r->lease_count, f);
}

/* The row of the disk an operation makes or is about: it holds what the plan does not, the labels. */
static int read_wanted(struct txn *t, void *arg, struct fault *f)
{
    struct recovery *r = arg;
    struct work *w = r->call->work;
    const struct plan *p = &r->call->plan;
    struct vdi *made = NULL;
    if (store_vdi_find(t, &p->sr, &p->vdi, r->arena, &w->vdi, f) < 0)
        return -1;
    if (uuid_is(&p->made) && store_vdi_find(t, &p->sr, &p->made, r->arena, &made, f) < 0)
        return -1;
    if (!made)
        made = w->vdi;
    if (made)
        w->wanted = *made;
    return 0;
}

/* A place that could not be left is one that is still attached. */
static int settle_detach(struct call *c, enum settled *how, struct fault *f)
{
    *how = SETTLED_UNDONE;
    if (!c->work->last || c->sr->connected)
        return 0;
    if (backend_sr_detach(c->sr, f) < 0)
        return backend_sr_attach(c->sr, f);
    *how = SETTLED_DONE;
    return 0;
}

/* sr_attach and sr_detach make only kernel state, which a start brings in line with the attachments. */
static int settle_connection(struct call *c, enum settled *how, struct fault *f)
{
    *how = SETTLED_UNDONE;
    if (c->method->phases->link == LINK_ATTACHES)
        return c->work->last ? backend_sr_detach(c->sr, f) : 0;
    return settle_detach(c, how, f);
}

/* The fault is about the disk's own image, and not about the medium it is on. */
static bool is_of_disk(enum fault_code code)
{
    return code == FAULT_VDILoad || code == FAULT_VDIUnavailable || code == FAULT_VDIType || code == FAULT_VDISize ||
           code == FAULT_SnapshotChainTooLong;
}

/* What the medium shows fits no step of the operation. One disk can be set aside; a whole SR cannot, and a poisoned one
   was not really looked at. */
static int unexplained(const struct call *c, enum settled *how, struct fault *f)
{
    const char *poison = c->sr ? atomic_load(&c->sr->poison) : NULL;
    if (poison)
        return fault_set(f, FAULT_SRUnavailable, "SR %s must be attached again: %s", c->plan.sr.text, poison);
    if (f->code == FAULT_NONE)
        fault_set(f, FAULT_VDIUnavailable, "what is on the medium fits no step of it");
    *how = SETTLED_STUCK;
    return uuid_is(&c->plan.vdi) ? 0 : -1;
}

int recover_call(struct dispatch *d, struct call *c, enum settled *how, struct fault *f)
{
    struct work *w = c->work;
    (void) d;
    f->code = FAULT_NONE;
    if (c->method->phases->link == LINK_ATTACHES || c->method->phases->link == LINK_DETACHES)
        return settle_connection(c, how, f);
    int r = backend_settle(c->sr, &c->plan, &w->wanted, c->arena, how, &w->done, &w->base, &w->deleted, f);
    if (r < 0)
        return is_of_disk(f->code) ? unexplained(c, how, f) : -1;
    return *how == SETTLED_STUCK ? unexplained(c, how, f) : 0;
}

/* ------------------------------------------------------------------ quarantine */

static int quarantine_disk(struct txn *t, const struct call *c, const struct uuid *uuid, struct fault *f)
{
    struct vdi *row = NULL;
    if (!uuid_is(uuid))
        return 0;
    if (store_vdi_find(t, &c->plan.sr, uuid, c->arena, &row, f) < 0)
        return -1;
    if (!row)
        return 0;
    row->state = VDI_QUARANTINED;
    row->damage = arena_printf(c->arena, "%s of operation %s was interrupted and could not be explained: %s",
                               c->plan.method, c->plan.op.text, c->fault.detail);
    return store_vdi_put(t, &c->plan.sr, row, f);
}

static int quarantine_audit(struct txn *t, const struct call *c, struct fault *f)
{
    const struct plan *p = &c->plan;
    const char *detail = arena_printf(c->arena,
                                      "%s op=%s sr=%s vdi=%s made=%s base=%s size=%llu old_size=%llu "
                                      "format=%s name=%s inode=%llu: %s",
                                      p->method, p->op.text, p->sr.text, p->vdi.text, p->made.text, p->base.text,
                                      (unsigned long long) p->size, (unsigned long long) p->old_size, p->format,
                                      p->name, (unsigned long long) p->inode, c->fault.detail);
    return store_audit(t, "smapid", "quarantine", detail, f);
}

int recover_quarantine(struct txn *t, struct dispatch *d, struct call *c, struct fault *f)
{
    if (quarantine_disk(t, c, &c->plan.vdi, f) < 0 || quarantine_disk(t, c, &c->plan.made, f) < 0 ||
        quarantine_disk(t, c, &c->plan.base, f) < 0 || quarantine_audit(t, c, f) < 0)
        return -1;
    reply_fault(d, c, &c->fault);
    struct op_reply reply = {c->reply, c->reply_length, 0};
    return store_op_close(t, &c->plan.op, NULL, &reply, f);
}

static int quarantine_work(struct txn *t, void *arg, struct fault *f)
{
    struct recovery *r = arg;
    return recover_quarantine(t, r->d, r->call, f);
}

static int done_work(struct txn *t, void *arg, struct fault *f)
{
    struct recovery *r = arg;
    struct call *c = r->call;
    if (c->method->phases->record(t, c, f) < 0)
        return -1;
    reply_result(r->d, c);
    struct op_reply reply = {c->reply, c->reply_length, 0};
    return store_op_close(t, &c->plan.op, NULL, &reply, f);
}

static int undone_work(struct txn *t, void *arg, struct fault *f)
{
    struct recovery *r = arg;
    struct call *c = r->call;
    if (c->method->phases->undo && c->method->phases->undo(t, c, f) < 0)
        return -1;
    return store_op_drop(t, &c->plan.op, f);
}

static const char *outcome(enum settled how)
{
    static const char *const texts[] = {
        [SETTLED_DONE] = "completed", [SETTLED_UNDONE] = "undone", [SETTLED_STUCK] = "quarantined"};
    return texts[how];
}

/* The end of an operation in rows. */
static int record_end(struct recovery *r, enum settled how, struct fault *f)
{
    static store_work *const works[] = {
        [SETTLED_DONE] = done_work, [SETTLED_UNDONE] = undone_work, [SETTLED_STUCK] = quarantine_work};
    if (how == SETTLED_STUCK)
        r->call->fault = *f;
    return store_write(r->d->settings.store, works[how], r, f);
}

static int settle_op(struct recovery *r, const struct plan *plan, struct fault *f)
{
    enum settled how;
    struct store *store = r->d->settings.store;
    const struct method *m = method_find(plan->method);
    if (!m)
        return fault_set(f, FAULT_SRUnavailable, "the journal has an operation %s, which this program has not",
                         plan->method);
    struct call c = {
        .arena = r->arena, .method = m, .plan = *plan, .sr = r->sr, .work = ARENA_NEW(r->arena, struct work)};
    c.work->arena = r->arena;
    c.terms = &r->d->settings.terms;
    c.keys.sr = plan->sr;
    c.keys.vdi = plan->vdi;
    r->call = &c;
    if (POINT(recovery_before_op) < 0)
        return fault_errno(f, FAULT_EIO, "recovery of %s", plan->method);
    if (store_read(store, read_wanted, r, f) < 0 || recover_call(r->d, &c, &how, f) < 0)
        return -1;
    if (POINT(recovery_after_op) < 0)
        return fault_errno(f, FAULT_EIO, "recovery of %s", plan->method);
    if (record_end(r, how, f) < 0)
        return -1;
    log_line(how == SETTLED_STUCK ? LOG_ERROR : LOG_INFO, "SR %s: %s of VDI %s, interrupted, was %s%s%s", plan->sr.text,
             plan->method, uuid_is(&plan->vdi) ? plan->vdi.text : "-", outcome(how), c.fault.code ? ": " : "",
             c.fault.detail);
    return 0;
}

/* Operations on disks need the SR reached; those on the SR itself are settled through both of its halves. */
static bool needs_connection(const struct recovery *r)
{
    for (size_t i = 0; i < r->op_count; i++)
        if (strncmp(r->ops[i].method, "vdi_", 4) == 0)
            return true;
    return false;
}

static int connect_as_held(struct recovery *r, struct fault *f)
{
    if (store_read(r->d->settings.store, read_holders, r, f) < 0)
        return -1;
    if (!r->row) {
        if (backend_sr_detach(r->sr, f) < 0)
            return -1;
        registry_remove(r->d->registry, r->sr);
        return 0;
    }
    if (r->attachment_count == 0)
        return backend_sr_detach(r->sr, f);
    if (backend_sr_attach(r->sr, f) < 0 || backend_sr_hold(r->sr, r->disks, r->disk_count, f) < 0)
        return -1;
    if (restore_epochs(r->d, r->sr, f) < 0)
        return -1;
    return restore_leases(r->d, r->sr, r->leases, r->lease_count, f);
}

/* Whose the SR is comes first: only its owner can settle the rest. */
static int settle_claims(struct recovery *r, struct fault *f)
{
    size_t left = 0;
    if (!r->sr->connected)
        backend_sr_release(r->sr); /* with what a failed sync had said of it: it is looked at anew */
    for (size_t i = 0; i < r->op_count; i++)
        if (strcmp(r->ops[i].method, "smapi.sr_take_over") != 0)
            r->ops[left++] = r->ops[i];
        else if (settle_op(r, &r->ops[i], f) < 0)
            return fault_prefix(f, "the take-over of SR %s cannot be settled", r->sr->uuid.text);
    r->op_count = left;
    return 0;
}

static int settle_all(struct recovery *r, struct fault *f)
{
    if (store_read(r->d->settings.store, read_open, r, f) < 0 || settle_claims(r, f) < 0)
        return -1;
    if (needs_connection(r) && backend_sr_attach(r->sr, f) < 0)
        return -1;
    for (size_t i = 0; i < r->op_count; i++)
        if (settle_op(r, &r->ops[i], f) < 0)
            return fault_prefix(f, "%s of VDI %s cannot be settled", r->ops[i].method,
                                uuid_is(&r->ops[i].vdi) ? r->ops[i].vdi.text : "-");
    return 0;
}

int recover_sr(struct dispatch *d, struct sr *sr, unsigned hold_seconds, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(256 << 20);
    struct uuid uuid = sr->uuid;
    struct recovery r = {.d = d, .sr = sr, .arena = a};
    if (registry_hold(d->registry, sr, hold_seconds, f) < 0)
        return -1;
    if (settle_all(&r, f) < 0 || connect_as_held(&r, f) < 0)
        return -1;
    registry_stand(d->registry, &uuid, STANDING_SERVING, "");
    return 0;
}
