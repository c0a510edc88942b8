/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls by which hosts use disks: attachments, which exclude nobody, and leases, which do. */
#include "handlers/automaton.h"
#include "handlers/state.h"
#include "server/base/clock.h"
#include "server/base/point.h"
#include <openssl/evp.h>
#include <string.h>

/* What stands between a disk and the host that calls. */
struct standing {
    struct attachment *mine;
    struct lease *lease; /* the caller's */
    struct uuid boot;    /* of the caller: as it says, or as its session has it; none when nobody said */
    size_t others;       /* attachments of the disk by other hosts */
};

static int find_boot(struct txn *t, struct call *c, struct uuid *out, struct fault *f)
{
    struct host *h = NULL;
    *out = c->keys.holder.boot;
    if (uuid_is(out))
        return 0;
    if (store_host_find(t, c->who.holder, c->arena, &h, f) < 0)
        return -1;
    if (h)
        *out = h->boot;
    return 0;
}

static int count_others(struct txn *t, struct call *c, const struct vdi *vdi, size_t *others, struct fault *f)
{
    struct attachment *list;
    size_t count;
    if (store_attachment_list(t, &c->keys.sr, &vdi->uuid, NULL, c->arena, &list, &count, f) < 0)
        return -1;
    *others = 0;
    for (size_t i = 0; i < count; i++)
        *others += strcmp(list[i].holder, c->who.holder) != 0;
    return 0;
}

static int read_standing(struct txn *t, struct call *c, const struct vdi *vdi, struct standing *out, struct fault *f)
{
    struct lease *leases;
    size_t count;
    *out = (struct standing){.mine = NULL};
    if (store_attachment_find(t, &c->keys.sr, &vdi->uuid, c->who.holder, c->arena, &out->mine, f) < 0 ||
        store_lease_list(t, &c->keys.sr, &vdi->uuid, c->arena, &leases, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (strcmp(leases[i].holder, c->who.holder) == 0)
            out->lease = &leases[i];
    return find_boot(t, c, &out->boot, f) < 0 ? -1 : count_others(t, c, vdi, &out->others, f);
}

static bool is_stale(const struct uuid *boot, const struct standing *s)
{
    return uuid_is(boot) && uuid_is(&s->boot) && !uuid_equal(boot, &s->boot);
}

/* Where the automaton of this host and this disk stands. What an earlier boot of the host has left is nothing to one
   that wants to use the disk, but must be let go in order. */
static enum use_state state_of(const struct standing *s, bool to_use)
{
    const struct lease *l = s->lease && !(to_use && is_stale(&s->lease->boot, s)) ? s->lease : NULL;
    const struct attachment *a = s->mine && !(to_use && is_stale(&s->mine->boot, s)) ? s->mine : NULL;
    if (l)
        return l->writable ? USE_ACTIVATED_RW : USE_ACTIVATED_RO;
    if (a)
        return a->writable ? USE_ATTACHED_RW : USE_ATTACHED_RO;
    return USE_DETACHED;
}

static int step(const struct call *c, const struct standing *s, enum use_operation operation, struct fault *f)
{
    bool to_use = operation != USE_DEACTIVATE && operation != USE_DETACH;
    return use_step(state_of(s, to_use), operation, c->work->vdi->uuid.text, c->who.name, f);
}

/* vdi_attach */

static int find_visible(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    return need_visible_vdi(t, c, &c->work->vdi, f);
}

static int attach_read(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    enum flag asked = ARGS(c, vdi_attach)->writable;
    struct standing s;
    if (find_visible(t, c, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (asked == FLAG_TRUE && vdi->read_only)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s is read-only and cannot be attached for writing",
                         vdi->uuid.text);
    c->work->writable = asked == FLAG_ABSENT ? !vdi->read_only : asked == FLAG_TRUE;
    if (read_standing(t, c, vdi, &s, f) < 0)
        return -1;
    return step(c, &s, c->work->writable ? USE_ATTACH_RW : USE_ATTACH_RO, f);
}

static int vdi_attach_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, attach_read, c, f) < 0)
        return -1;
    return backend_vdi_attach(c->sr, c->work->vdi, c->work->writable, c->arena, &c->work->path, f);
}

static int vdi_attach_record(struct txn *t, struct call *c, struct fault *f)
{
    if (need_attached(t, c, f) < 0)
        return -1;
    c->result = ARGS(c, vdi_attach)->writable == FLAG_ABSENT ? value_string(c->arena, c->work->path)
                                                             : result_attach(c, c->work->vdi);
    return store_attach(t, &c->keys.sr, &c->work->vdi->uuid, &c->keys.holder, c->work->writable, f);
}

const struct phases vdi_attach_phases = {.act = vdi_attach_act, .record = vdi_attach_record};

/* The base64 text of a SCSI inquiry page, as hosts put it into xenstore for the guest's disk. */
static struct value *page_text(struct arena *a, const unsigned char *page, size_t length)
{
    char *text = arena_alloc(a, 4 * ((length + 2) / 3) + 1);
    EVP_EncodeBlock((unsigned char *) text, page, (int) length);
    return value_string(a, text);
}

/* Unit serial number (0x80): the first half of the uuid; device identification (0x83): vendor and the whole uuid. */
static struct value *xenstore_data(struct call *c, const struct vdi *vdi)
{
    unsigned char serial[4 + 18] = {0x00, 0x80, 0x00, 0x12},
                             device[8 + 45] = {0x00, 0x83, 0x00, 0x31, 0x02, 0x01, 0x00, 0x2d};
    memset(serial + 4, ' ', 18);
    memcpy(serial + 4, vdi->uuid.text, 16);
    memcpy(device + 8, "XENSRC  ", 8);
    memcpy(device + 16, vdi->uuid.text, UUID_TEXT);
    device[52] = ' ';
    struct value *data = value_struct(c->arena);
    value_put(c->arena, data, "scsi/0x12/0x80", page_text(c->arena, serial, sizeof serial));
    value_put(c->arena, data, "scsi/0x12/0x83", page_text(c->arena, device, sizeof device));
    value_put(c->arena, data, "vdi-uuid", value_string(c->arena, vdi->uuid.text));
    value_put(c->arena, data, "storage-type", value_string(c->arena, c->sr->type->name));
    return data;
}

struct value *result_attach(struct call *c, const struct vdi *vdi)
{
    struct arena *a = c->arena;
    struct value *v = value_struct(a);
    value_put(a, v, "params", value_string(a, c->work->path));
    value_put(a, v, "params_nbd", value_string(a, ""));
    value_put(a, v, "o_direct", value_boolean(a, true));
    value_put(a, v, "o_direct_reason", value_string(a, ""));
    value_put(a, v, "xenstore_data", xenstore_data(c, vdi));
    return v;
}

/* vdi_detach, vdi_deactivate: a disk that is not there is not held either */

static int release_read(struct txn *t, struct call *c, enum use_operation operation, struct standing *s,
                        struct fault *f)
{
    *s = (struct standing){.mine = NULL};
    if (need_sr(c, f) < 0 || find_vdi(t, c, &c->work->vdi, f) < 0)
        return -1;
    if (!c->work->vdi)
        return 0;
    return read_standing(t, c, c->work->vdi, s, f) < 0 ? -1 : step(c, s, operation, f);
}

static int detach_read(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    struct standing s;
    if (release_read(t, c, USE_DETACH, &s, f) < 0)
        return -1;
    if (s.mine && store_detach_check(t, s.mine, &c->keys.holder, clock_boot_ns(), c->arena, f) < 0)
        return -1;
    c->work->last = s.mine && s.others == 0;
    return 0;
}

static int vdi_detach_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, detach_read, c, f) < 0)
        return -1;
    return c->work->vdi && c->work->last ? backend_vdi_detach(c->sr, c->work->vdi, f) : 0;
}

static int vdi_detach_record(struct txn *t, struct call *c, struct fault *f)
{
    struct attachment *mine = NULL;
    c->result = result_nil(c);
    if (!c->work->vdi)
        return 0;
    const struct uuid *vdi = &c->work->vdi->uuid;
    if (store_attachment_find(t, &c->keys.sr, vdi, c->who.holder, c->arena, &mine, f) < 0 ||
        (mine && store_detach_check(t, mine, &c->keys.holder, clock_boot_ns(), c->arena, f) < 0))
        return -1;
    return store_detach(t, &c->keys.sr, vdi, c->who.holder, f);
}

const struct phases vdi_detach_phases = {.act = vdi_detach_act, .record = vdi_detach_record};
const struct phases vdi_detach_from_config_phases = {.act = vdi_detach_act, .record = vdi_detach_record};

static int deactivate_read(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    struct standing s;
    if (release_read(t, c, USE_DEACTIVATE, &s, f) < 0)
        return -1;
    c->work->lease = s.lease;
    return s.lease ? store_lease_check(t, s.lease, &c->keys.holder, ARGS(c, vdi_deactivate)->epoch, clock_boot_ns(), f)
                   : 0;
}

static int begin_release(struct txn *t, void *arg, struct fault *f)
{
    const struct call *c = arg;
    return store_lease_set(t, c->work->lease->epoch, LEASE_RELEASING, c->who.name, "", f);
}

static int quarantine(struct txn *t, void *arg, struct fault *f)
{
    const struct call *c = arg;
    const char *why = arena_printf(c->arena, "vdi_deactivate: %.300s", c->fault.detail);
    return store_lease_set(t, c->work->lease->epoch, LEASE_QUARANTINED, c->who.name, why, f);
}

/* What the driver could not close may still be written: nobody gets the disk until it could. */
static int close_failed(struct dispatch *d, struct call *c, struct fault *f)
{
    struct fault unkept;
    c->fault = *f;
    if (store_write(d->settings.store, quarantine, c, &unkept) < 0)
        fault_prefix(f, "%s; and", unkept.detail);
    return -1;
}

/* Where the data path knows epochs, the rows say that it is being closed before it is. */
static int vdi_deactivate_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, deactivate_read, c, f) < 0)
        return -1;
    if (!c->work->lease)
        return 0;
    if (backend_fences(c->sr)) {
        if (store_write(d->settings.store, begin_release, c, f) < 0)
            return -1;
        if (POINT(lease_releasing) < 0) {
            fault_errno(f, FAULT_EIO, "close VDI %s", c->work->vdi->uuid.text);
            return close_failed(d, c, f);
        }
    }
    return backend_vdi_deactivate(c->sr, c->work->vdi, f) < 0 ? close_failed(d, c, f) : 0;
}

static int vdi_deactivate_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    if (!c->work->lease)
        return 0;
    return store_lease_release(t, &c->keys.sr, &c->work->vdi->uuid, &c->keys.holder, c->work->lease->epoch,
                               clock_boot_ns(), f);
}

const struct phases vdi_deactivate_phases = {.act = vdi_deactivate_act, .record = vdi_deactivate_record};

/* vdi_activate */

static struct lease_ask ask_of(const struct call *c)
{
    return (struct lease_ask){.sr = c->keys.sr,
                              .vdi = c->work->vdi->uuid,
                              .who = c->keys.holder,
                              .writable = c->work->writable,
                              .epoch = ARGS(c, vdi_activate)->epoch,
                              .first = backend_fences(c->sr) ? LEASE_GRANTING : LEASE_HELD,
                              .fence = fencing_name(backend_fencing(c->sr)),
                              .now = clock_boot_ns()};
}

static int vdi_activate_record(struct txn *t, struct call *c, struct fault *f)
{
    enum flag asked = ARGS(c, vdi_activate)->writable;
    struct standing s;
    if (need_visible_vdi(t, c, &c->work->vdi, f) < 0 || read_standing(t, c, c->work->vdi, &s, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (vdi->state != VDI_LIVE)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s cannot be used: %s", vdi->uuid.text, vdi->damage);
    c->work->writable = asked == FLAG_ABSENT ? s.mine && s.mine->writable : asked == FLAG_TRUE;
    if (step(c, &s, c->work->writable ? USE_ACTIVATE_RW : USE_ACTIVATE_RO, f) < 0)
        return -1;
    const struct lease_ask ask = ask_of(c);
    if (store_lease_take(t, &ask, &c->work->granted, f) < 0)
        return -1;
    c->epoch = c->work->granted.epoch;
    c->result = result_nil(c);
    return 0;
}

static int take_back(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    if (c->work->granted.fresh &&
        store_lease_release(t, &c->keys.sr, &c->work->vdi->uuid, &c->keys.holder, c->epoch, clock_boot_ns(), f) < 0)
        return -1;
    return store_op_drop(t, &c->plan.op, f);
}

static int granted(struct txn *t, void *arg, struct fault *f)
{
    const struct call *c = arg;
    return store_lease_set(t, c->epoch, LEASE_HELD, c->who.name, "", f);
}

static int open_path(struct call *c, struct fault *f)
{
    if (c->work->granted.state == LEASE_GRANTING && POINT(lease_granting) < 0)
        return fault_errno(f, FAULT_EIO, "fence VDI %s for epoch %llu", c->work->vdi->uuid.text,
                           (unsigned long long) c->epoch);
    return backend_vdi_activate(c->sr, c->work->vdi, c->epoch, c->work->writable, f);
}

/* The driver is told once the lease is durable; if it cannot follow, a lease that is new goes back. One that was held
   before stays: it may be written. */
static int vdi_activate_after(struct dispatch *d, struct call *c, struct fault *f)
{
    struct fault lost;
    if (open_path(c, f) == 0)
        return c->work->granted.state == LEASE_GRANTING ? store_write(d->settings.store, granted, c, f) : 0;
    if (store_write(d->settings.store, take_back, c, &lost) < 0)
        fault_prefix(f, "and the lease of epoch %llu is still held (%s)", (unsigned long long) c->epoch, lost.detail);
    return -1;
}

const struct phases vdi_activate_phases = {.record = vdi_activate_record, .after = vdi_activate_after};

/* The data path of dummy disks */

static int smapi_disk_write_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct smapi_disk_write_args *args = ARGS(c, smapi_disk_write);
    if (store_read(d->settings.store, find_visible, c, f) < 0 ||
        backend_disk_write(c->sr, c->work->vdi, args->epoch, args->data, f) < 0)
        return -1;
    c->result = result_nil(c);
    return 0;
}

const struct phases smapi_disk_write_phases = {.act = smapi_disk_write_act};

static int smapi_disk_log_act(struct dispatch *d, struct call *c, struct fault *f)
{
    struct disk_write *writes;
    size_t count;
    if (store_read(d->settings.store, find_visible, c, f) < 0 ||
        backend_disk_log(c->sr, c->work->vdi, c->arena, &writes, &count, f) < 0)
        return -1;
    c->result = value_array(c->arena);
    for (size_t i = 0; i < count; i++) {
        struct value *entry = value_struct(c->arena);
        value_put(c->arena, entry, "epoch", value_size(c->arena, writes[i].epoch));
        value_put(c->arena, entry, "data", value_string(c->arena, writes[i].data));
        value_append(c->arena, c->result, entry);
    }
    return 0;
}

const struct phases smapi_disk_log_phases = {.act = smapi_disk_log_act};
