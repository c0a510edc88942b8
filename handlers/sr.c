/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls on a repository. */
#include "handlers/revoke.h"
#include <string.h>

struct value *result_nil(struct call *c)
{
    return value_nil(c->arena);
}

int need_sr(const struct call *c, struct fault *f)
{
    return c->sr ? 0 : fault_set(f, FAULT_SRUnavailable, "SR %s is not known here", c->keys.sr.text);
}

int need_attached(struct txn *t, const struct call *c, struct fault *f)
{
    struct attachment *mine = NULL;
    if (need_sr(c, f) < 0)
        return -1;
    if (store_attachment_find(t, &c->keys.sr, &UUID_NONE, c->who.holder, c->arena, &mine, f) < 0)
        return -1;
    if (!mine)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not attached to %s; sr_attach comes first", c->keys.sr.text,
                         c->who.name);
    return 0;
}

/* The attachments of the SR itself; *others counts those that are not the caller's. */
static int count_holders(struct txn *t, struct call *c, size_t *others, const char **other, bool *mine, struct fault *f)
{
    struct attachment *list;
    size_t count;
    if (store_attachment_list(t, &c->keys.sr, &UUID_NONE, NULL, c->arena, &list, &count, f) < 0)
        return -1;
    *others = 0;
    *mine = false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].holder, c->who.holder) == 0) {
            *mine = true;
        } else {
            *other = list[i].holder;
            ++*others;
        }
    }
    return 0;
}

/* What a call that connects the SR brings for it, until the call ends (dispatch.c). */
static void lend(struct call *c)
{
    c->sr->secrets = &c->keys.secrets;
    c->sr->scratch = c->arena;
}

/* An SR that could not be brought to its end is tried again: the call may have brought what was missing. It may be gone
   afterwards. */
static int retry(struct dispatch *d, struct call *c, struct fault *f)
{
    if (!c->sr || !registry_is_stuck(d->registry, &c->keys.sr))
        return 0;
    lend(c);
    if (recover_sr(d, c->sr, HOLD_BRIEFLY, f) < 0)
        return -1;
    c->sr = registry_find(d->registry, &c->keys.sr);
    return 0;
}

/* sr_create */

static int sr_create_look(struct dispatch *d, struct call *c, struct fault *f)
{
    if (retry(d, c, f) < 0)
        return -1;
    if (c->sr)
        return fault_set(f, FAULT_SRExists, "SR %s exists already, as a %s SR", c->keys.sr.text, c->sr->type->name);
    const struct sr_type *type = c->keys.type ? sr_type_find(c->keys.type) : NULL;
    if (!type)
        return fault_set(f, FAULT_SRUnknownType,
                         "sr_create at /RPC2 needs the SR's type as member type of device_config");
    if (backend_config_check(type, &c->keys.config, f) < 0 || sr_type_ready(type, f) < 0)
        return -1;
    c->sr = registry_add(d->registry, &c->keys.sr, type, &c->keys.config, STANDING_SERVING);
    lend(c);
    c->work->fresh = true;
    return registry_hold(d->registry, c->sr, HOLD_BRIEFLY, f);
}

int sr_put_row(struct txn *t, const struct call *c, enum sr_state state, struct fault *f)
{
    struct sr_row row = {.uuid = c->keys.sr,
                         .type = c->sr->type->name,
                         .state = state,
                         .label = "",
                         .description = "",
                         .config = c->sr->config};
    return store_sr_put(t, &row, f);
}

static int sr_create_check(struct txn *t, struct call *c, struct fault *f)
{
    c->plan.size = ARGS(c, sr_create)->size;
    return sr_put_row(t, c, SR_CREATING, f);
}

static int sr_create_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_sr_create(c->sr, &c->plan, f);
}

static int sr_create_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return store_sr_set_state(t, &c->plan.sr, SR_LIVE, f);
}

static int remove_sr_row(struct txn *t, struct call *c, struct fault *f)
{
    return store_sr_remove(t, &c->plan.sr, f);
}

const struct phases sr_create_phases = {.retries = true,
                                        .look = sr_create_look,
                                        .check = sr_create_check,
                                        .act = sr_create_act,
                                        .record = sr_create_record,
                                        .undo = remove_sr_row};

/* sr_delete */

/* The disks that keep an SR from being deleted; those that nobody uses and that are not ours to remove do not. */
static int count_disks(struct txn *t, struct call *c, uint64_t *out, struct fault *f)
{
    struct vdi_list list = {0};
    if (!backend_chooses(c->sr->type))
        return store_vdi_count(t, &c->keys.sr, out, f);
    if (store_vdi_list(t, &c->keys.sr, &UUID_NONE, 0, c->arena, &list, f) < 0)
        return -1;
    *out = 0;
    for (size_t i = 0; i < list.count; i++)
        *out += list.items[i].managed;
    return 0;
}

/* SRInUse naming a disk of the SR that somebody uses: any host, or with a holder that one. */
static int refuse_if_disks_used(struct txn *t, struct call *c, const char *holder, struct fault *f)
{
    struct attachment *used = NULL;
    struct lease *leases;
    size_t count;
    if (store_lease_list(t, &c->keys.sr, NULL, c->arena, &leases, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (!holder || strcmp(leases[i].holder, holder) == 0)
            return fault_set(f, FAULT_SRInUse, "VDI %s of SR %s is active %s on host %s (epoch %llu)",
                             leases[i].vdi.text, c->keys.sr.text, leases[i].writable ? "read-write" : "read-only",
                             leases[i].holder, (unsigned long long) leases[i].epoch);
    if (holder)
        return 0;
    if (store_attachment_any(t, &c->keys.sr, c->arena, &used, f) < 0)
        return -1;
    return used ? fault_set(f, FAULT_SRInUse, "VDI %s of SR %s is attached to host %s", used->vdi.text, c->keys.sr.text,
                            used->holder)
                : 0;
}

static int refuse_if_held(struct txn *t, struct call *c, struct fault *f)
{
    size_t others;
    const char *other = "";
    bool mine;
    uint64_t disks;
    if (count_holders(t, c, &others, &other, &mine, f) < 0 || count_disks(t, c, &disks, f) < 0)
        return -1;
    if (others)
        return fault_set(f, FAULT_SRInUse, "SR %s is attached to host %s", c->keys.sr.text, other);
    if (refuse_if_disks_used(t, c, NULL, f) < 0)
        return -1;
    if (disks)
        return fault_set(f, FAULT_SRNotEmpty, "SR %s still has %llu disks", c->keys.sr.text,
                         (unsigned long long) disks);
    return 0;
}

static int sr_delete_look(struct dispatch *d, struct call *c, struct fault *f)
{
    if (retry(d, c, f) < 0)
        return -1;
    if (c->sr)
        lend(c);
    return 0;
}

static int sr_delete_check(struct txn *t, struct call *c, struct fault *f)
{
    if (!c->sr) { /* the specification: it succeeds if the SR does not exist */
        c->result = result_nil(c);
        return 0;
    }
    if (refuse_if_held(t, c, f) < 0)
        return -1;
    return store_sr_set_state(t, &c->keys.sr, SR_DELETING, f);
}

static int sr_delete_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    if (backend_sr_attach(c->sr, f) < 0)
        return -1;
    return backend_sr_delete(c->sr, &c->plan, f);
}

static int sr_delete_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return store_sr_remove(t, &c->plan.sr, f);
}

static int sr_delete_undo(struct txn *t, struct call *c, struct fault *f)
{
    return store_sr_set_state(t, &c->plan.sr, SR_LIVE, f);
}

static int forget_sr(struct dispatch *d, struct call *c, struct fault *f)
{
    if (c->sr && backend_sr_detach(c->sr, f) < 0)
        return -1;
    if (c->sr)
        registry_remove(d->registry, TAKE(c->sr));
    return 0;
}

const struct phases sr_delete_phases = {.retries = true,
                                        .look = sr_delete_look,
                                        .check = sr_delete_check,
                                        .act = sr_delete_act,
                                        .record = sr_delete_record,
                                        .undo = sr_delete_undo,
                                        .after = forget_sr};

/* sr_attach */

/* adopt is a word for one call, not a property of the SR: kept, it would take the SR over again at every start. */
static struct pairs lasting(struct arena *a, const struct pairs *config)
{
    struct pairs p = {ARENA_ARRAY(a, struct pair, config->count), 0};
    for (size_t i = 0; i < config->count; i++)
        if (strcmp(config->items[i].key, "adopt") != 0)
            p.items[p.count++] = config->items[i];
    return p;
}

static bool same_config(const struct pairs *a, const struct pairs *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const char *other = pairs_get(b, a->items[i].key);
        if (!other || strcmp(other, a->items[i].value) != 0)
            return false;
    }
    return true;
}

int sr_take_config(struct dispatch *d, struct call *c, struct fault *f)
{
    struct pairs kept = lasting(c->arena, &c->keys.config);
    if (c->keys.config.count == 0 || (c->sr->connected && same_config(&c->sr->config, &kept)))
        return 0;
    if (c->sr->connected)
        return fault_set(f, FAULT_SRInUse,
                         "SR %s is connected with another device_config; detach it from all hosts first",
                         c->keys.sr.text);
    if (backend_config_check(c->sr->type, &c->keys.config, f) < 0)
        return -1;
    registry_configure(d->registry, c->sr, &c->keys.config);
    return 0;
}

int sr_introduce(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct sr_type *type = c->keys.type ? sr_type_find(c->keys.type) : NULL;
    if (!type)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known here, and the call does not say its type",
                         c->keys.sr.text);
    if (!backend_recognises(type))
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known here, and a %s SR leaves no mark to know it by",
                         c->keys.sr.text, type->name);
    if (backend_config_check(type, &c->keys.config, f) < 0 || sr_type_ready(type, f) < 0)
        return -1;
    c->sr = registry_add(d->registry, &c->keys.sr, type, &c->keys.config, STANDING_SERVING);
    lend(c);
    c->work->fresh = true;
    return registry_hold(d->registry, c->sr, HOLD_BRIEFLY, f);
}

static int sr_attach_look(struct dispatch *d, struct call *c, struct fault *f)
{
    if (retry(d, c, f) < 0)
        return -1;
    if (!c->sr)
        return sr_introduce(d, c, f);
    lend(c);
    if (sr_take_config(d, c, f) < 0)
        return -1;
    return 0;
}

static int sr_attach_check(struct txn *t, struct call *c, struct fault *f)
{
    size_t others;
    const char *other = "";
    bool mine;
    if (count_holders(t, c, &others, &other, &mine, f) < 0 || store_host_seen(t, c->who.holder, f) < 0)
        return -1;
    c->work->last = others == 0 && !mine;
    return c->work->fresh ? sr_put_row(t, c, SR_CREATING, f) : 0;
}

/* The first host's attach also looks at what is there, so that disks are served from the first call on. For the others,
   and for a repeat, the SR has to be still there; one that was poisoned is connected afresh. */
static int sr_attach_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (c->sr->connected)
        return backend_sr_attach(c->sr, f);
    if (backend_sr_attach(c->sr, f) < 0)
        return -1;
    if (backend_epoch_seen(c->sr, &c->work->epoch_seen, f) < 0)
        return -1;
    c->sr->config = lasting(c->sr->arena, &c->sr->config);
    return scan_look(d, c->sr, c->work, f);
}

static int sr_attach_record(struct txn *t, struct call *c, struct fault *f)
{
    struct sr_row *row = NULL;
    if (store_sr_find(t, &c->plan.sr, c->arena, &row, f) < 0)
        return -1;
    if (!row)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known here", c->plan.sr.text);
    if (c->work->epoch_seen && note_epoch_seen(t, c->work->epoch_seen, c->terms, f) < 0)
        return -1;
    row->state = SR_LIVE;
    row->config = c->sr->config;
    c->result = result_nil(c);
    if (store_sr_put(t, row, f) < 0 || (c->work->scanned && scan_record(t, &c->plan.sr, c->work, f) < 0))
        return -1;
    return store_attach(t, &c->plan.sr, &UUID_NONE, &c->keys.holder, true, f);
}

static int sr_attach_undo(struct txn *t, struct call *c, struct fault *f)
{
    struct sr_row *row = NULL;
    if (store_sr_find(t, &c->plan.sr, c->arena, &row, f) < 0)
        return -1;
    return row && row->state == SR_CREATING ? store_sr_remove(t, &c->plan.sr, f) : 0;
}

const struct phases sr_attach_phases = {.link = LINK_ATTACHES,
                                        .retries = true,
                                        .look = sr_attach_look,
                                        .check = sr_attach_check,
                                        .act = sr_attach_act,
                                        .record = sr_attach_record,
                                        .undo = sr_attach_undo};

/* vdi_attach_from_config: before xapi runs, by a host that has nothing but the stored document. No lease is taken: all
   hosts of a pool use the disks attached so (the statefile of its high availability) at once. */

static int read_disk(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    return store_vdi_find(t, &c->keys.sr, &c->keys.vdi, c->arena, &c->work->vdi, f);
}

static int find_disk(struct dispatch *d, struct call *c, struct fault *f)
{
    struct work *w = c->work;
    if (!w->scanned && store_read(d->settings.store, read_disk, c, f) < 0)
        return -1;
    for (size_t i = 0; i < w->found.count; i++)
        if (uuid_equal(&w->found.items[i].uuid, &c->keys.vdi))
            w->vdi = &w->found.items[i];
    if (!w->vdi || w->vdi->hidden)
        return fault_set(f, FAULT_VDIUnavailable, "there is no VDI %s in SR %s", c->keys.vdi.text, c->keys.sr.text);
    return 0;
}

static int attach_from_config_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (sr_attach_act(d, c, f) < 0 || find_disk(d, c, f) < 0)
        return -1;
    c->work->writable = !c->work->vdi->read_only;
    return backend_vdi_attach(c->sr, c->work->vdi, c->work->writable, c->arena, &c->work->path, f);
}

static int attach_from_config_record(struct txn *t, struct call *c, struct fault *f)
{
    if (sr_attach_record(t, c, f) < 0)
        return -1;
    c->result = result_attach(c, c->work->vdi);
    return store_attach(t, &c->plan.sr, &c->keys.vdi, &c->keys.holder, c->work->writable, f);
}

const struct phases vdi_attach_from_config_phases = {.link = LINK_ATTACHES,
                                                     .retries = true,
                                                     .look = sr_attach_look,
                                                     .check = sr_attach_check,
                                                     .act = attach_from_config_act,
                                                     .record = attach_from_config_record,
                                                     .undo = sr_attach_undo};

/* sr_detach */

struct open_ops {
    struct call *call;
    size_t count;
};

static int count_open(struct txn *t, void *arg, struct fault *f)
{
    struct open_ops *o = arg;
    struct plan *ops;
    return store_op_list(t, &o->call->keys.sr, o->call->arena, &ops, &o->count, f);
}

/* A host lets go of an SR too whose place has not been reached since the start, unless something is to be settled there
   first. */
static int sr_detach_look(struct dispatch *d, struct call *c, struct fault *f)
{
    struct fault why = {0};
    struct open_ops open = {.call = c};
    if (retry(d, c, &why) == 0)
        return 0;
    if (store_read(d->settings.store, count_open, &open, f) < 0)
        return -1;
    if (open.count)
        *f = why;
    return open.count ? -1 : 0;
}

static int sr_detach_check(struct txn *t, struct call *c, struct fault *f)
{
    struct attachment *disks;
    size_t count, others;
    const char *other = "";
    bool mine = false;
    if (c->sr && count_holders(t, c, &others, &other, &mine, f) < 0)
        return -1;
    if (!mine) {
        c->result = result_nil(c);
        return 0;
    }
    if (store_attachment_list(t, &c->keys.sr, &UUID_NONE, c->who.holder, c->arena, &disks, &count, f) < 0)
        return -1;
    if (count)
        return fault_set(f, FAULT_SRInUse, "%s still has %zu disks of SR %s attached, VDI %s first", c->who.name, count,
                         c->keys.sr.text, disks[0].vdi.text);
    c->work->last = others == 0;
    return refuse_if_disks_used(t, c, c->who.holder, f);
}

static int sr_detach_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return c->work->last ? backend_sr_detach(c->sr, f) : 0;
}

static int sr_detach_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return store_detach(t, &c->plan.sr, &UUID_NONE, c->who.holder, f);
}

/* Nobody holds it and nothing is open there: what could not be reached is no longer to be. */
static int sr_detach_after(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) f;
    if (c->sr && c->work->last && registry_is_stuck(d->registry, &c->keys.sr))
        registry_stand(d->registry, &c->keys.sr, STANDING_SERVING, "");
    return 0;
}

const struct phases sr_detach_phases = {.link = LINK_DETACHES,
                                        .retries = true,
                                        .look = sr_detach_look,
                                        .check = sr_detach_check,
                                        .act = sr_detach_act,
                                        .record = sr_detach_record,
                                        .after = sr_detach_after};

/* sr_scan, sr_update */

static int check_attached(struct txn *t, void *arg, struct fault *f)
{
    return need_attached(t, arg, f);
}

static int sr_scan_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, check_attached, c, f) < 0)
        return -1;
    return scan_look(d, c->sr, c->work, f);
}

static int sr_scan_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return scan_record(t, &c->keys.sr, c->work, f);
}

const struct phases sr_scan_phases = {.act = sr_scan_act, .record = sr_scan_record};

static int sr_update_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, check_attached, c, f) < 0 || backend_sr_check(c->sr, f) < 0)
        return -1;
    c->result = result_nil(c);
    return 0;
}

const struct phases sr_update_phases = {.act = sr_update_act};

/* sr_content_type, sr_probe */

static int sr_content_type_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct sr_type *type = registry_type(d->registry, &c->keys.sr);
    if (!type)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known here", c->keys.sr.text);
    c->result = value_string(c->arena,
                             arena_printf(c->arena, "<?xml version=\"1.0\" ?><sr><type>%s</type></sr>", type->content));
    return 0;
}

const struct phases sr_content_type_phases = {.act = sr_content_type_act};

static void probe_metadata(struct text *xml, const struct found_sr *sr)
{
    text_add(xml, "\t\t<name_label>");
    text_add_xml(xml, sr->label);
    text_add(xml, "</name_label>\n\t\t<name_description>");
    text_add_xml(xml, sr->description);
    text_printf(xml, "</name_description>\n\t\t<pool_metadata_detected>%s</pool_metadata_detected>\n",
                sr->pool_metadata ? "true" : "false");
}

static void probe_xml(struct text *xml, const struct found_list *found)
{
    text_add(xml, "<?xml version=\"1.0\" ?>\n<SRlist>\n");
    for (size_t i = 0; i < found->count; i++) {
        text_printf(xml, "\t<SR>\n\t\t<UUID>%s</UUID>\n\t\t<Devlist>", found->items[i].uuid.text);
        text_add_xml(xml, found->items[i].path);
        text_printf(xml, "</Devlist>\n\t\t<size>%llu</size>\n", (unsigned long long) found->items[i].size);
        if (found->items[i].label)
            probe_metadata(xml, &found->items[i]);
        text_add(xml, "\t</SR>\n");
    }
    text_add(xml, "</SRlist>\n");
}

static int sr_probe_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const char *metadata = pairs_get(&ARGS(c, sr_probe)->sr_sm_config, "metadata");
    struct found_list found = {.metadata = metadata && strcmp(metadata, "true") == 0};
    AUTO_TEXT struct text xml = TEXT_OF(4 << 20);
    const struct sr_type *type = c->keys.type ? sr_type_find(c->keys.type) : NULL;
    if (!type)
        return fault_set(f, FAULT_SRUnknownType,
                         "sr_probe at /RPC2 needs the SR's type as member type of device_config");
    if (backend_config_check(type, &c->keys.config, f) < 0 || sr_type_ready(type, f) < 0 ||
        backend_sr_probe(type, &c->keys.config, &c->keys.secrets, &d->settings.backend, c->arena, &found, f) < 0)
        return -1;
    probe_xml(&xml, &found);
    c->result = value_string(c->arena, xml.data);
    return 0;
}

const struct phases sr_probe_phases = {.act = sr_probe_act};
