/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls by which hosts use disks: attachments, which exclude nobody, and leases, which do. */
#include "handlers/state.h"
#include "server/base/clock.h"
#include <openssl/evp.h>
#include <string.h>

/* What a host needs to know before it attaches, activates or lets go. */
struct standing {
    struct vdi *vdi; /* NULL when there is none, for calls to which that is fine */
    struct attachment *mine;
    struct lease *leases;
    size_t lease_count, others; /* others: attachments of the disk by other hosts */
};

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
    if (store_attachment_find(t, &c->keys.sr, &vdi->uuid, c->who.holder, c->arena, &out->mine, f) < 0 ||
        store_lease_list(t, &c->keys.sr, &vdi->uuid, c->arena, &out->leases, &out->lease_count, f) < 0)
        return -1;
    return count_others(t, c, vdi, &out->others, f);
}

/* The lease the caller has on the disk, or NULL. */
static const struct lease *own_lease(const struct call *c, const struct standing *s)
{
    for (size_t i = 0; i < s->lease_count; i++)
        if (strcmp(s->leases[i].holder, c->who.holder) == 0)
            return &s->leases[i];
    return NULL;
}

/* vdi_attach */

static int attach_read(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    return need_visible_vdi(t, c, &c->work->vdi, f);
}

static int vdi_attach_act(struct dispatch *d, struct call *c, struct fault *f)
{
    enum flag asked = ARGS(c, vdi_attach)->writable;
    if (store_read(d->settings.store, attach_read, c, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (asked == FLAG_TRUE && vdi->read_only)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s is read-only and cannot be attached for writing",
                         vdi->uuid.text);
    c->work->writable = asked == FLAG_ABSENT ? !vdi->read_only : asked == FLAG_TRUE;
    return backend_vdi_attach(c->sr, vdi, c->work->writable, c->arena, &c->work->path, f);
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

static int release_read(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    struct standing s = {0};
    if (need_sr(c, f) < 0 || find_vdi(t, c, &c->work->vdi, f) < 0)
        return -1;
    if (!c->work->vdi)
        return 0;
    if (read_standing(t, c, c->work->vdi, &s, f) < 0)
        return -1;
    const struct lease *held = own_lease(c, &s);
    if (held && c->method->phases != &vdi_deactivate_phases)
        return fault_set(f, FAULT_VDIInUse, "VDI %s is active %s on this host (epoch %llu); vdi_deactivate comes first",
                         c->work->vdi->uuid.text, held->writable ? "read-write" : "read-only",
                         (unsigned long long) held->epoch);
    c->work->last = held || (s.mine && s.others == 0);
    return 0;
}

static int vdi_detach_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, release_read, c, f) < 0)
        return -1;
    return c->work->vdi && c->work->last ? backend_vdi_detach(c->sr, c->work->vdi, f) : 0;
}

static int vdi_detach_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return c->work->vdi ? store_detach(t, &c->keys.sr, &c->work->vdi->uuid, c->who.holder, f) : 0;
}

const struct phases vdi_detach_phases = {.act = vdi_detach_act, .record = vdi_detach_record};
const struct phases vdi_detach_from_config_phases = {.act = vdi_detach_act, .record = vdi_detach_record};

static int vdi_deactivate_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, release_read, c, f) < 0)
        return -1;
    return c->work->vdi && c->work->last ? backend_vdi_deactivate(c->sr, c->work->vdi, f) : 0;
}

static int vdi_deactivate_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return c->work->vdi ? store_lease_release(t, &c->keys.sr, &c->work->vdi->uuid, &c->keys.holder,
                                              ARGS(c, vdi_deactivate)->epoch, clock_boot_ns(), f)
                        : 0;
}

const struct phases vdi_deactivate_phases = {.act = vdi_deactivate_act, .record = vdi_deactivate_record};

/* vdi_activate */

static int vdi_activate_record(struct txn *t, struct call *c, struct fault *f)
{
    enum flag asked = ARGS(c, vdi_activate)->writable;
    struct standing s = {0};
    if (need_visible_vdi(t, c, &c->work->vdi, f) < 0 || read_standing(t, c, c->work->vdi, &s, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (vdi->state != VDI_LIVE)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s cannot be used: %s", vdi->uuid.text, vdi->damage);
    if (!s.mine)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s is not attached to %s; vdi_attach comes first",
                         vdi->uuid.text, c->who.name);
    if (asked == FLAG_TRUE && !s.mine->writable)
        return fault_set(f, FAULT_VDIInUse, "VDI %s is attached read-only to %s and cannot be activated for writing",
                         vdi->uuid.text, c->who.name);
    c->work->writable = asked == FLAG_ABSENT ? s.mine->writable : asked == FLAG_TRUE;
    c->result = result_nil(c);
    const struct lease_ask ask = {.sr = c->keys.sr,
                                  .vdi = vdi->uuid,
                                  .who = c->keys.holder,
                                  .writable = c->work->writable,
                                  .epoch = ARGS(c, vdi_activate)->epoch,
                                  .first = LEASE_HELD,
                                  .fence = fencing_name(c->sr->type->fencing),
                                  .now = clock_boot_ns()};
    if (store_lease_take(t, &ask, &c->work->granted, f) < 0)
        return -1;
    c->epoch = c->work->granted.epoch;
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

/* The driver is told once the lease is durable; if it cannot follow, the lease goes back. */
static int vdi_activate_after(struct dispatch *d, struct call *c, struct fault *f)
{
    struct fault lost;
    if (backend_vdi_activate(c->sr, c->work->vdi, c->epoch, c->work->writable, f) == 0)
        return 0;
    if (store_write(d->settings.store, take_back, c, &lost) < 0)
        fault_prefix(f, "and the lease of epoch %llu is still held (%s)", (unsigned long long) c->epoch, lost.detail);
    return -1;
}

const struct phases vdi_activate_phases = {.record = vdi_activate_record, .after = vdi_activate_after};

/* The data path of dummy disks */

static int smapi_disk_write_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct smapi_disk_write_args *args = ARGS(c, smapi_disk_write);
    if (store_read(d->settings.store, attach_read, c, f) < 0 ||
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
    if (store_read(d->settings.store, attach_read, c, f) < 0 ||
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
