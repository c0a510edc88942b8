/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether rows, leases, journal and media agree with each other. Reads only; smapi.fsck and smapi.sr_fsck answer it in
   pages, smapid --fsck prints it. */
#include "handlers/state.h"
#include "store/check.h"
#include <string.h>

enum { PAGE = 50, SRS = 500, CHAIN_MAX = 64 }; /* of one answer; of one chain */

/* ------------------------------------------------------------------ disks */

struct disks {
    const struct sr *sr;
    const struct vdi_list *rows, *found; /* both by uuid */
    struct findings *out;
};

static int by_uuid(const void *a, const void *b)
{
    const struct vdi *x = a, *y = b;
    return strcmp(x->uuid.text, y->uuid.text);
}

static const struct vdi *find(const struct vdi_list *list, const struct uuid *uuid)
{
    struct vdi key = {.uuid = *uuid};
    return list->count ? bsearch(&key, list->items, list->count, sizeof key, by_uuid) : NULL;
}

static void judge_state(const struct disks *d, const struct vdi *row)
{
    const struct uuid *sr = &d->sr->uuid;
    switch (row->state) {
    case VDI_CREATING:
    case VDI_DELETING:
        finding_add(d->out, FINDING_disk_unsettled, sr, row->uuid.text, "it is %s, and nothing is under way",
                    row->state == VDI_CREATING ? "being made" : "being deleted");
        break;
    case VDI_DAMAGED:
        finding_add(d->out, FINDING_disk_damaged, sr, row->uuid.text, "%s", row->damage);
        break;
    case VDI_QUARANTINED:
        finding_add(d->out, FINDING_disk_quarantined, sr, row->uuid.text, "%s", row->damage);
        break;
    case VDI_LIVE:
    case VDI_STATE_COUNT:
        break;
    }
}

/* From parent to parent by the rows. */
static void judge_chain(const struct disks *d, const struct vdi *row)
{
    const struct vdi *at = row;
    for (int i = 0; at && uuid_is(&at->parent) && i <= CHAIN_MAX; i++) {
        if (i == CHAIN_MAX)
            finding_add(d->out, FINDING_chain_loop, &d->sr->uuid, row->uuid.text, "its chain of parents does not end");
        at = find(d->rows, &at->parent);
    }
}

static void judge_parent(const struct disks *d, const struct vdi *row)
{
    if (!uuid_is(&row->parent) || row->state == VDI_DAMAGED)
        return;
    const struct vdi *parent = find(d->rows, &row->parent);
    if (!parent)
        finding_add(d->out, FINDING_parent_missing, &d->sr->uuid, row->uuid.text, "its parent %s is no disk",
                    row->parent.text);
    else if (!parent->hidden)
        finding_add(d->out, FINDING_parent_visible, &d->sr->uuid, row->uuid.text, "its parent %s is served as a disk",
                    row->parent.text);
    judge_chain(d, row);
}

static void differs(const struct disks *d, const struct vdi *row, const char *what, const char *is, const char *image)
{
    finding_add(d->out, FINDING_disk_differs, &d->sr->uuid, row->uuid.text,
                "its %s is \"%.100s\", its image says \"%.100s\"", what, is, image);
}

static void differ_sizes(const struct disks *d, const struct vdi *row, const struct vdi *image)
{
    char is[24], says[24];
    snprintf(is, sizeof is, "%llu", (unsigned long long) row->size);
    snprintf(says, sizeof says, "%llu", (unsigned long long) image->size);
    differs(d, row, "size", is, says);
}

static const char *yes(bool flag)
{
    return flag ? "true" : "false";
}

/* What a scan would change of the row, but for how full the image is. */
static void judge_image(const struct disks *d, const struct vdi *row, const struct vdi *image)
{
    if (image->state == VDI_DAMAGED && row->state != VDI_DAMAGED)
        finding_add(d->out, FINDING_disk_damaged, &d->sr->uuid, row->uuid.text, "%s", image->damage);
    if (image->state == VDI_LIVE && row->state == VDI_DAMAGED)
        differs(d, row, "state", "damaged", "live");
    if (image->state != VDI_LIVE)
        return;
    if (row->size != image->size)
        differ_sizes(d, row, image);
    if (row->hidden != image->hidden)
        differs(d, row, "hidden", yes(row->hidden), yes(image->hidden));
    if (!uuid_equal(&row->parent, &image->parent))
        differs(d, row, "parent", row->parent.text, image->parent.text);
    if (strcmp(row->format, image->format) != 0)
        differs(d, row, "format", row->format, image->format);
}

static bool under_way(const struct vdi *row)
{
    return row->state == VDI_CREATING || row->state == VDI_DELETING;
}

static void judge_medium(const struct disks *d)
{
    for (size_t i = 0; i < d->rows->count; i++) {
        const struct vdi *row = &d->rows->items[i], *image = find(d->found, &row->uuid);
        if (image)
            judge_image(d, row, image);
        else if (!under_way(row) && row->state != VDI_QUARANTINED)
            finding_add(d->out, FINDING_disk_missing, &d->sr->uuid, row->uuid.text, "it is at %.80s no more",
                        row->location);
    }
    for (size_t i = 0; i < d->found->count; i++)
        if (!find(d->rows, &d->found->items[i].uuid))
            finding_add(d->out, FINDING_disk_unknown, &d->sr->uuid, d->found->items[i].uuid.text,
                        "its image is there and has no row");
}

static void judge_rows(const struct disks *d)
{
    for (size_t i = 0; i < d->rows->count; i++) {
        judge_state(d, &d->rows->items[i]);
        if (backend_recognises(d->sr->type))
            judge_parent(d, &d->rows->items[i]);
    }
}

/* ------------------------------------------------------------------ one SR */

struct check {
    struct dispatch *d;
    const struct uuid *uuid;
    struct arena *arena;
    struct sr_row *row;
    struct vdi_list disks;
    struct attachment *attachments;
    size_t attachment_count;
    struct lease *leases;
    size_t lease_count;
    struct findings *out;
};

static int read_sr(struct txn *t, void *arg, struct fault *f)
{
    struct check *c = arg;
    c->out->count = 0;
    c->disks = (struct vdi_list){0};
    if (store_sr_find(t, c->uuid, c->arena, &c->row, f) < 0 ||
        store_vdi_list(t, c->uuid, &UUID_NONE, 0, c->arena, &c->disks, f) < 0 ||
        store_attachment_list(t, c->uuid, &UUID_NONE, NULL, c->arena, &c->attachments, &c->attachment_count, f) < 0 ||
        store_lease_list(t, c->uuid, &UUID_NONE, c->arena, &c->leases, &c->lease_count, f) < 0)
        return -1;
    return store_check_sr(t, c->uuid, c->out, f);
}

static void judge_row(const struct check *c)
{
    if (c->row->state != SR_LIVE)
        finding_add(c->out, FINDING_sr_unsettled, c->uuid, "", "it is %s, and nothing is under way",
                    c->row->state == SR_CREATING ? "being made" : "being deleted");
}

/* A writer may be in the middle of a change of its image's tables. */
static bool is_written(const struct check *c, const struct uuid *vdi)
{
    for (size_t i = 0; i < c->lease_count; i++)
        if (c->leases[i].writable && uuid_equal(&c->leases[i].vdi, vdi))
            return true;
    return false;
}

static int verify_images(const struct check *c, struct sr *sr, const struct vdi_list *found, struct fault *f)
{
    for (size_t i = 0; i < found->count; i++) {
        const struct vdi *vdi = &found->items[i];
        if (vdi->state != VDI_LIVE || is_written(c, &vdi->uuid))
            continue;
        if (backend_vdi_verify(sr, vdi, f) == 0)
            continue;
        if (f->code != FAULT_VDILoad)
            return -1;
        finding_add(c->out, FINDING_image_unsound, c->uuid, vdi->uuid.text, "%s", f->detail);
    }
    return 0;
}

static int look_at_medium(const struct check *c, struct sr *sr, bool strict, struct fault *f)
{
    struct vdi_list found = {0};
    struct sr_totals totals;
    if (backend_sr_scan(sr, &c->disks, c->arena, &found, &totals, f) < 0 || backend_sr_judge(sr, c->out, f) < 0)
        return -1;
    if (found.count)
        qsort(found.items, found.count, sizeof *found.items, by_uuid);
    judge_medium(&(struct disks){sr, &c->disks, &found, c->out});
    return strict ? verify_images(c, sr, &found, f) : 0;
}

/* Connected for as long as it is looked at. */
static int look_in_passing(const struct check *c, struct sr *sr, struct fault *f)
{
    struct fault ignored;
    if (backend_sr_look(sr, f) < 0)
        return f->code == FAULT_Unimplemented ? 0 : -1;
    int r = look_at_medium(c, sr, true, f);
    return backend_sr_detach(sr, r < 0 ? &ignored : f) < 0 ? -1 : r;
}

/* A medium that cannot be reached is a finding, not a failure of the check. That of an SR that no host has attached is
   looked at by a strict check alone. */
static void judge_place(const struct check *c, struct sr *sr, bool strict)
{
    struct fault f = {0};
    int r = 0;
    if (c->attachment_count && !sr->connected)
        r = fault_set(&f, FAULT_SRUnavailable, "%s has attached it, and it is not connected here",
                      c->attachments[0].holder);
    else if (sr->connected)
        r = look_at_medium(c, sr, strict, &f);
    else if (strict)
        r = look_in_passing(c, sr, &f);
    if (r < 0)
        finding_add(c->out, FINDING_sr_unreachable, c->uuid, "", "%s", f.detail);
}

static int fsck_sr(struct dispatch *d, struct sr *sr, bool strict, struct findings *out, struct fault *f)
{
    struct check c = {.d = d, .uuid = &sr->uuid, .arena = out->arena, .out = out};
    if (store_read(d->settings.store, read_sr, &c, f) < 0)
        return -1;
    if (!c.row)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known here", sr->uuid.text);
    judge_row(&c);
    judge_rows(&(struct disks){sr, &c.disks, NULL, out});
    judge_place(&c, sr, strict);
    return 0;
}

/* ------------------------------------------------------------------ all of it */

struct whole_check {
    bool strict;
    const char *mount_base;
    struct uuid *places; /* names in the mount base */
    size_t place_count;
    struct sr_row *rows;
    size_t count;
    struct findings *out;
};

static int judge_places(struct txn *t, const struct whole_check *w, struct fault *f)
{
    for (size_t i = 0; i < w->place_count; i++) {
        struct attachment *hosts;
        size_t count;
        if (store_attachment_list(t, &w->places[i], &UUID_NONE, NULL, w->out->arena, &hosts, &count, f) < 0)
            return -1;
        if (count == 0)
            finding_add(w->out, FINDING_place_stray, NULL, w->places[i].text,
                        "no host has attached what %s/%s leads to", w->mount_base, w->places[i].text);
    }
    return 0;
}

static int read_all(struct txn *t, void *arg, struct fault *f)
{
    struct whole_check *w = arg;
    w->out->count = 0;
    if (store_sr_list(t, w->out->arena, &w->rows, &w->count, f) < 0 || judge_places(t, w, f) < 0)
        return -1;
    return store_check_all(t, w->strict, w->out, f);
}

static void judge_secrets(const struct sr_row *row, struct findings *out)
{
    const struct sr_type *type = sr_type_find(row->type);
    for (size_t i = 0; i < row->config.count; i++) {
        const struct pair *p = &row->config.items[i];
        if (config_key_is_secret(type, p->key) && p->value[0] && strcmp(p->value, SECRET_SHOWN) != 0)
            finding_add(out, FINDING_secret_stored, &row->uuid, p->key, "its device_config holds the secret %.80s",
                        p->key);
    }
}

static void judge_standing(struct dispatch *d, const struct uuid *sr, struct findings *out)
{
    struct fault f = {0};
    if (registry_serves(d->registry, sr, false, &f) < 0)
        finding_add(out, FINDING_sr_unsettled, sr, "", "%s", f.detail);
}

int dispatch_fsck(struct dispatch *d, bool strict, struct findings *out, struct uuid **srs, size_t *count,
                  struct fault *f)
{
    const struct backend_settings *backend = &d->settings.backend;
    struct whole_check w = {.strict = strict, .mount_base = backend->mount_base, .out = out};
    if (backend_places(backend, out->arena, &w.places, &w.place_count, f) < 0 ||
        store_read(d->settings.store, read_all, &w, f) < 0)
        return -1;
    *srs = ARENA_ARRAY(out->arena, struct uuid, w.count);
    *count = w.count;
    for (size_t i = 0; i < w.count; i++) {
        (*srs)[i] = w.rows[i].uuid;
        judge_standing(d, &w.rows[i].uuid, out);
        judge_secrets(&w.rows[i], out);
    }
    return 0;
}

int dispatch_look(struct dispatch *d, const struct uuid *uuid, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(256 << 20);
    struct findings ignored = {.arena = a};
    struct check c = {.d = d, .uuid = uuid, .arena = a, .out = &ignored};
    struct sr *sr = registry_find(d->registry, uuid);
    if (store_read(d->settings.store, read_sr, &c, f) < 0)
        return -1;
    return c.attachment_count ? backend_sr_look(sr, f) : 0;
}

int dispatch_fsck_sr(struct dispatch *d, const struct uuid *uuid, bool strict, struct findings *out, struct fault *f)
{
    struct sr *sr = registry_find(d->registry, uuid);
    if (!sr)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not known here", uuid->text);
    return fsck_sr(d, sr, strict, out, f);
}

/* ------------------------------------------------------------------ the calls */

static struct value *finding_value(struct arena *a, const struct finding *found)
{
    struct value *v = value_struct(a);
    value_put(a, v, "kind", value_string(a, finding_rows[found->kind].kind));
    value_put(a, v, "sr", value_string(a, found->sr.text));
    value_put(a, v, "object", value_string(a, found->object));
    value_put(a, v, "text", value_string(a, found->text));
    return v;
}

/* A page of them, and how many there are in all. */
static struct value *findings_value(struct arena *a, const struct findings *found, uint64_t skip)
{
    struct value *v = value_struct(a), *list = value_array(a);
    for (size_t i = skip < found->count ? (size_t) skip : found->count; i < found->count && list->count < PAGE; i++)
        value_append(a, list, finding_value(a, &found->items[i]));
    value_put(a, v, "differences", list);
    value_put(a, v, "count", value_size(a, found->count));
    return v;
}

static int smapi_sr_fsck_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct smapi_sr_fsck_args *args = ARGS(c, smapi_sr_fsck);
    struct findings found = {.arena = c->arena};
    if (need_sr(c, f) < 0 || fsck_sr(d, c->sr, args->strict == FLAG_TRUE, &found, f) < 0)
        return -1;
    c->result = findings_value(c->arena, &found, args->skip);
    return 0;
}

const struct phases smapi_sr_fsck_phases = {.act = smapi_sr_fsck_act};

static int smapi_fsck_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct smapi_fsck_args *args = ARGS(c, smapi_fsck);
    struct findings found = {.arena = c->arena};
    struct uuid *srs, after = UUID_NONE;
    size_t count;
    if (args->after && args->after[0] && !uuid_parse_text(args->after, &after))
        return fault_set(f, FAULT_BadRequest, "after must be the uuid of a repository");
    if (dispatch_fsck(d, args->strict == FLAG_TRUE, &found, &srs, &count, f) < 0)
        return -1;
    c->result = findings_value(c->arena, &found, args->skip);
    struct value *list = value_array(c->arena);
    for (size_t i = 0; i < count; i++)
        if (strcmp(srs[i].text, after.text) > 0 && list->count < SRS)
            value_append(c->arena, list, value_string(c->arena, srs[i].text));
    value_put(c->arena, c->result, "srs", list);
    return 0;
}

const struct phases smapi_fsck_phases = {.act = smapi_fsck_act};
