/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that make, change and remove disks. */
#include "backends/images/image.h"
#include "handlers/state.h"
#include <string.h>

struct value *result_vdi_info(struct arena *a, const struct vdi *vdi)
{
    struct value *info = value_struct(a);
    value_put(a, info, "location", value_string(a, vdi->location));
    value_put(a, info, "uuid", value_string(a, vdi->uuid.text));
    return info;
}

int find_vdi(struct txn *t, const struct call *c, struct vdi **out, struct fault *f)
{
    struct vdi *vdi = NULL;
    if (uuid_is(&c->keys.vdi)) {
        if (store_vdi_find(t, &c->keys.sr, &c->keys.vdi, c->arena, &vdi, f) < 0)
            return -1;
        if (vdi && c->keys.location && c->keys.location[0] && strcmp(vdi->location, c->keys.location) != 0)
            return fault_set(f, FAULT_VDIUnavailable, "VDI %s is at location %s, not %.80s", vdi->uuid.text,
                             vdi->location, c->keys.location);
    } else if (store_vdi_find_location(t, &c->keys.sr, c->keys.location, c->arena, &vdi, f) < 0) {
        return -1;
    }
    *out = vdi;
    return 0;
}

int need_vdi(struct txn *t, const struct call *c, struct vdi **out, struct fault *f)
{
    struct vdi *vdi;
    if (need_attached(t, c, f) < 0 || find_vdi(t, c, &vdi, f) < 0)
        return -1;
    if (!vdi || vdi->state == VDI_CREATING || vdi->state == VDI_DELETING)
        return fault_set(f, FAULT_VDIUnavailable, "there is no VDI %.80s in SR %s",
                         uuid_is(&c->keys.vdi) ? c->keys.vdi.text : c->keys.location, c->keys.sr.text);
    *out = vdi;
    return 0;
}

int need_visible_vdi(struct txn *t, const struct call *c, struct vdi **out, struct fault *f)
{
    struct vdi *vdi;
    if (need_vdi(t, c, &vdi, f) < 0)
        return -1;
    if (vdi->hidden)
        return fault_set(f, FAULT_VDIUnavailable, "VDI %s is hidden: other disks are made from it", vdi->uuid.text);
    *out = vdi;
    return 0;
}

/* VDIInUse for the first lease on the disk that is writable, or of any mode. */
static int refuse_lease(struct txn *t, const struct call *c, const struct vdi *vdi, bool writers_only, struct fault *f)
{
    struct lease *leases;
    size_t count;
    if (store_lease_list(t, &c->keys.sr, &vdi->uuid, c->arena, &leases, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (leases[i].writable || !writers_only)
            return fault_set(f, FAULT_VDIInUse, "VDI %s is active %s on host %s (epoch %llu)", vdi->uuid.text,
                             leases[i].writable ? "read-write" : "read-only", leases[i].holder,
                             (unsigned long long) leases[i].epoch);
    return 0;
}

int refuse_if_leased(struct txn *t, const struct call *c, const struct vdi *vdi, struct fault *f)
{
    return refuse_lease(t, c, vdi, false, f);
}

/* VDIInUse when any host has a lease on the disk or has it attached. */
static int refuse_if_used(struct txn *t, const struct call *c, const struct vdi *vdi, struct fault *f)
{
    struct attachment *attachments;
    size_t count;
    if (refuse_if_leased(t, c, vdi, f) < 0 ||
        store_attachment_list(t, &c->keys.sr, &vdi->uuid, NULL, c->arena, &attachments, &count, f) < 0)
        return -1;
    if (count == 0)
        return 0;
    return fault_set(f, FAULT_VDIInUse, "VDI %s is attached to host %s", vdi->uuid.text, attachments[0].holder);
}

/* InvalidArg when the disk's labels and the like are more than can be kept of each. */
static int check_texts(const struct vdi *vdi, struct fault *f)
{
    size_t bytes = vdi_text_bytes(vdi);
    if (bytes <= VDI_TEXT_MAX)
        return 0;
    return fault_set(f, FAULT_InvalidArg, "labels, sm_config and the like of VDI %s are %zu bytes, more than %u",
                     vdi->uuid.text, bytes, VDI_TEXT_MAX);
}

/* vdi_create */

/* The image format vdi_sm_config asks for; "" leaves it to the layout. A call with no argument but the size is in the
   specification's dialect. */
static int wanted_format(const struct call *c, const struct vdi_create_args *args, const char **out, struct fault *f)
{
    const char *type = pairs_get(&args->vdi_sm_config, "type");
    if (type && !image_format_find(type))
        return fault_set(f, FAULT_VDIType, "vdi_sm_config asks for an image of type \"%.40s\"", type);
    *out = type ? type : args->name_label ? "" : backend_plain_format(c->sr->type);
    return 0;
}

static struct vdi wanted_disk(const struct vdi_create_args *args, const char *format)
{
    struct vdi vdi = vdi_blank();
    vdi.uuid = uuid_is(&args->vdi_uuid) ? args->vdi_uuid : uuid_random();
    vdi.state = VDI_CREATING;
    vdi.format = format;
    vdi.size = args->size;
    vdi.label = args->name_label ? args->name_label : "";
    vdi.description = args->name_description ? args->name_description : "";
    vdi.type = args->vdi_type ? args->vdi_type : "user";
    vdi.metadata_of_pool = args->metadata_of_pool ? args->metadata_of_pool : "";
    vdi.is_a_snapshot = args->is_a_snapshot == FLAG_TRUE;
    vdi.snapshot_time = args->snapshot_time ? args->snapshot_time : "";
    vdi.snapshot_of = args->snapshot_of ? args->snapshot_of : "";
    vdi.read_only = args->read_only == FLAG_TRUE;
    vdi.sm_config = args->vdi_sm_config;
    return vdi;
}

/* The row of the disk that is there and meant, for types whose disks are not made. */
static int choose_disk(struct txn *t, struct call *c, const struct vdi *wanted, struct vdi **out, struct fault *f)
{
    struct vdi_list known = {0};
    struct uuid chosen;
    if (store_vdi_list(t, &c->keys.sr, &UUID_NONE, 0, c->arena, &known, f) < 0 ||
        backend_vdi_choose(c->sr->type, &known, wanted, &chosen, f) < 0)
        return -1;
    return store_vdi_find(t, &c->keys.sr, &chosen, c->arena, out, f);
}

/* The chosen disk gets the labels asked for, and keeps its uuid and place. */
static int plan_chosen(struct txn *t, struct call *c, struct fault *f)
{
    struct vdi *chosen, *wanted = &c->work->wanted;
    if (choose_disk(t, c, wanted, &chosen, f) < 0)
        return -1;
    wanted->uuid = chosen->uuid;
    wanted->location = chosen->location;
    c->plan.vdi = chosen->uuid;
    c->plan.size = wanted->size;
    return store_vdi_set_state(t, &c->keys.sr, &chosen->uuid, VDI_CREATING, f);
}

static int vdi_create_check(struct txn *t, struct call *c, struct fault *f)
{
    const struct vdi_create_args *args = ARGS(c, vdi_create);
    const char *format;
    struct vdi *there;
    if (need_attached(t, c, f) < 0 || wanted_format(c, args, &format, f) < 0)
        return -1;
    if (args->size == 0)
        return fault_set(f, FAULT_VDISize, "a disk of 0 bytes cannot be made");
    struct vdi *wanted = &c->work->wanted;
    *wanted = wanted_disk(args, format);
    wanted->location = arena_text(c->arena, wanted->uuid.text);
    if (check_texts(wanted, f) < 0)
        return -1;
    if (backend_chooses(c->sr->type))
        return plan_chosen(t, c, f);
    if (store_vdi_find(t, &c->keys.sr, &wanted->uuid, c->arena, &there, f) < 0)
        return -1;
    if (there)
        return fault_set(f, FAULT_VDIExists, "VDI %s exists already in SR %s", wanted->uuid.text, c->keys.sr.text);
    c->plan.vdi = wanted->uuid;
    c->plan.size = args->size;
    c->plan.format = format;
    c->plan.read_only = wanted->read_only;
    return store_vdi_put(t, &c->keys.sr, wanted, f);
}

static int vdi_create_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_vdi_create(c->sr, &c->plan, &c->work->wanted, c->arena, &c->work->done, f);
}

/* The disk as it stands becomes its row, and the answer. */
static int record_done(struct txn *t, struct call *c, struct fault *f)
{
    c->work->done.state = VDI_LIVE;
    c->result = result_vdi_info(c->arena, &c->work->done);
    return store_vdi_put(t, &c->plan.sr, &c->work->done, f);
}

static int vdi_create_undo(struct txn *t, struct call *c, struct fault *f)
{
    if (backend_chooses(c->sr->type))
        return store_vdi_set_state(t, &c->plan.sr, &c->plan.vdi, VDI_LIVE, f);
    return store_vdi_remove(t, &c->plan.sr, &c->plan.vdi, f);
}

const struct phases vdi_create_phases = {
    .check = vdi_create_check, .act = vdi_create_act, .record = record_done, .undo = vdi_create_undo};

/* vdi_introduce */

/* The uuid a location of the form <uuid> or <uuid>.<suffix> holds. */
static struct uuid location_uuid(const char *location)
{
    struct uuid uuid = UUID_NONE;
    if (strlen(location) >= UUID_TEXT && (location[UUID_TEXT] == '\0' || location[UUID_TEXT] == '.'))
        uuid_parse(location, UUID_TEXT, &uuid);
    return uuid;
}

/* A disk that is there already is taken into use; one that is in use is success. */
static int introduce_chosen(struct txn *t, struct call *c, struct fault *f)
{
    const struct vdi_introduce_args *args = ARGS(c, vdi_introduce);
    struct vdi named = vdi_blank(), *chosen;
    named.location = args->vdi_location;
    named.sm_config = args->vdi_sm_config;
    if (need_attached(t, c, f) < 0 || choose_disk(t, c, &named, &chosen, f) < 0)
        return -1;
    if (chosen->managed) {
        c->result = result_vdi_info(c->arena, chosen);
        return 0;
    }
    c->plan.vdi = chosen->uuid;
    c->plan.name = args->vdi_location;
    return 0;
}

static int vdi_introduce_check(struct txn *t, struct call *c, struct fault *f)
{
    const struct vdi_introduce_args *args = ARGS(c, vdi_introduce);
    if (c->sr && backend_chooses(c->sr->type))
        return introduce_chosen(t, c, f);
    struct uuid in_name = location_uuid(args->vdi_location);
    struct uuid uuid = uuid_is(&args->new_uuid) ? args->new_uuid : uuid_is(&in_name) ? in_name : uuid_random();
    struct vdi *there = NULL, *same_place = NULL;
    if (need_attached(t, c, f) < 0 || store_vdi_find(t, &c->keys.sr, &uuid, c->arena, &there, f) < 0)
        return -1;
    if (uuid_is(&in_name) && store_vdi_find(t, &c->keys.sr, &in_name, c->arena, &same_place, f) < 0)
        return -1;
    if (there && there == same_place)
        same_place = NULL;
    if (there && uuid_equal(&there->uuid, &in_name)) {
        c->result = result_vdi_info(c->arena, there);
        return 0;
    }
    if (there || same_place)
        return fault_set(f, FAULT_VDIExists, "location %.80s of SR %s is VDI %s already", args->vdi_location,
                         c->keys.sr.text, (there ? there : same_place)->uuid.text);
    c->plan.vdi = uuid;
    c->plan.name = args->vdi_location;
    return 0;
}

static int vdi_introduce_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    const struct pairs *kept = &ARGS(c, vdi_introduce)->vdi_sm_config;
    if (backend_vdi_introduce(c->sr, &c->plan, c->plan.name, c->arena, &c->work->done, f) < 0)
        return -1;
    for (size_t i = 0; i < kept->count; i++)
        pairs_set(c->arena, &c->work->done.sm_config, kept->items[i].key, kept->items[i].value);
    return check_texts(&c->work->done, f);
}

/* As a scan has it: what other disks are made from is hidden, whether it or they were introduced first. */
static int vdi_introduce_record(struct txn *t, struct call *c, struct fault *f)
{
    struct vdi *done = &c->work->done, *parent = NULL;
    uint64_t children;
    if (store_vdi_children(t, &c->plan.sr, &done->uuid, &children, f) < 0)
        return -1;
    done->hidden = done->hidden || children > 0;
    if (uuid_is(&done->parent) && store_vdi_find(t, &c->plan.sr, &done->parent, c->arena, &parent, f) < 0)
        return -1;
    if (parent && !parent->hidden) {
        parent->hidden = true;
        if (store_vdi_put(t, &c->plan.sr, parent, f) < 0)
            return -1;
    }
    return record_done(t, c, f);
}

const struct phases vdi_introduce_phases = {
    .check = vdi_introduce_check, .act = vdi_introduce_act, .record = vdi_introduce_record};

/* vdi_update */

static int vdi_update_check(struct txn *t, struct call *c, struct fault *f)
{
    const struct vdi_update_args *args = ARGS(c, vdi_update);
    if (need_visible_vdi(t, c, &c->work->vdi, f) < 0)
        return -1;
    struct vdi *wanted = &c->work->wanted;
    *wanted = *c->work->vdi;
    if (args->name_label)
        wanted->label = args->name_label;
    if (args->name_description)
        wanted->description = args->name_description;
    c->plan.vdi = wanted->uuid;
    return check_texts(wanted, f);
}

static int vdi_update_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_vdi_update(c->sr, &c->plan, &c->work->wanted, c->arena, &c->work->done, f);
}

static int vdi_update_record(struct txn *t, struct call *c, struct fault *f)
{
    if (record_done(t, c, f) < 0)
        return -1;
    c->result = result_nil(c);
    return 0;
}

const struct phases vdi_update_phases = {.check = vdi_update_check, .act = vdi_update_act, .record = vdi_update_record};

/* vdi_delete */

static int look_for_disk(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    return need_attached(t, c, f) < 0 ? -1 : find_vdi(t, c, &c->work->vdi, f);
}

/* The image's identity goes into the plan, so that only this image is ever removed. */
static int vdi_delete_look(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, look_for_disk, c, f) < 0)
        return -1;
    return c->work->vdi ? backend_vdi_locate(c->sr, c->work->vdi, c->arena, &c->plan, f) : 0;
}

static int vdi_delete_check(struct txn *t, struct call *c, struct fault *f)
{
    const struct vdi *vdi = c->work->vdi;
    if (!vdi) { /* a repeat succeeds */
        c->result = result_nil(c);
        return 0;
    }
    if (refuse_if_used(t, c, vdi, f) < 0)
        return -1;
    c->plan.vdi = vdi->uuid;
    c->plan.format = vdi->format;
    c->work->wanted = *vdi;
    return store_vdi_set_state(t, &c->keys.sr, &vdi->uuid, VDI_DELETING, f);
}

static int vdi_delete_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_vdi_delete(c->sr, &c->plan, c->work->vdi, c->arena, &c->work->deleted, f);
}

/* A disk that is not made but chosen is there for the next who asks, and nothing of its last use stays with it. */
static int record_free(struct txn *t, struct call *c, const struct vdi *was, struct fault *f)
{
    struct vdi disk = vdi_blank();
    disk.uuid = was->uuid;
    disk.location = was->location;
    disk.size = was->size;
    disk.sm_config = was->sm_config;
    disk.state = VDI_LIVE;
    disk.managed = false;
    return store_vdi_put(t, &c->plan.sr, &disk, f);
}

/* A disk that others are made from stays, hidden; bases that went with a disk leave the rows with it. */
static int vdi_delete_record(struct txn *t, struct call *c, struct fault *f)
{
    const struct deletion *deleted = &c->work->deleted;
    struct vdi kept = c->work->wanted;
    c->result = result_nil(c);
    if (deleted->freed)
        return record_free(t, c, &kept, f);
    for (size_t i = 0; i < deleted->gone_count; i++)
        if (store_vdi_remove(t, &c->plan.sr, &deleted->gone[i], f) < 0)
            return -1;
    if (!deleted->kept)
        return store_vdi_remove(t, &c->plan.sr, &c->plan.vdi, f);
    kept.state = VDI_LIVE;
    kept.hidden = true;
    kept.managed = false;
    return store_vdi_put(t, &c->plan.sr, &kept, f);
}

/* Only before its point of no return. */
static int vdi_delete_undo(struct txn *t, struct call *c, struct fault *f)
{
    return store_vdi_set_state(t, &c->plan.sr, &c->plan.vdi, VDI_LIVE, f);
}

const struct phases vdi_delete_phases = {.look = vdi_delete_look,
                                         .check = vdi_delete_check,
                                         .act = vdi_delete_act,
                                         .record = vdi_delete_record,
                                         .undo = vdi_delete_undo};

/* vdi_resize */

static int vdi_resize_check(struct txn *t, struct call *c, struct fault *f)
{
    uint64_t size = ARGS(c, vdi_resize)->size;
    if (need_visible_vdi(t, c, &c->work->vdi, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (size == vdi->size) {
        c->result = result_vdi_info(c->arena, vdi);
        return 0;
    }
    if (size < vdi->size)
        return fault_set(f, FAULT_VDISize, "VDI %s has %llu bytes and cannot be made smaller (%llu asked for)",
                         vdi->uuid.text, (unsigned long long) vdi->size, (unsigned long long) size);
    c->plan.vdi = vdi->uuid;
    c->plan.size = size;
    c->plan.old_size = vdi->size;
    c->plan.format = vdi->format;
    c->work->wanted = *vdi;
    return refuse_if_used(t, c, vdi, f);
}

static int vdi_resize_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_vdi_resize(c->sr, &c->plan, c->work->vdi, c->arena, &c->work->done, f);
}

const struct phases vdi_resize_phases = {.check = vdi_resize_check, .act = vdi_resize_act, .record = record_done};

/* vdi_snapshot, vdi_clone */

/* The new disk, recorded as being made. */
static struct vdi forked_disk(struct call *c, const struct vdi *of, bool writable)
{
    struct vdi vdi = *of;
    vdi.uuid = c->plan.made;
    vdi.location = arena_text(c->arena, vdi.uuid.text);
    vdi.state = VDI_CREATING;
    vdi.read_only = !writable;
    vdi.is_a_snapshot = !writable;
    vdi.utilisation = 0;
    vdi.snapshot_of = writable ? "" : of->uuid.text;
    return vdi;
}

static int fork_check(struct txn *t, struct call *c, bool writable, struct fault *f)
{
    if (need_vdi(t, c, &c->work->vdi, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (vdi->hidden)
        return fault_set(f, writable ? FAULT_VDIClone : FAULT_VDISnapshot,
                         "VDI %s is hidden: other disks are made from it", vdi->uuid.text);
    if (refuse_lease(t, c, vdi, true, f) < 0) /* no data path can be paused yet */
        return -1;
    c->plan.vdi = vdi->uuid;
    c->plan.made = uuid_random();
    c->plan.base = uuid_random();
    c->plan.size = vdi->size;
    c->plan.format = vdi->format;
    c->plan.read_only = !writable;
    c->work->wanted = forked_disk(c, vdi, writable);
    return store_vdi_put(t, &c->keys.sr, &c->work->wanted, f);
}

static int snapshot_check(struct txn *t, struct call *c, struct fault *f)
{
    return fork_check(t, c, false, f);
}

static int clone_check(struct txn *t, struct call *c, struct fault *f)
{
    return fork_check(t, c, true, f);
}

static int fork_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_vdi_fork(c->sr, &c->plan, &c->work->wanted, c->work->vdi, c->arena, &c->work->done, &c->work->base,
                            f);
}

/* The base takes the place of the disk in the tree; the disk and the new one become its children. */
static int record_base(struct txn *t, struct call *c, struct fault *f)
{
    struct work *w = c->work;
    struct vdi leaf = *w->vdi;
    leaf.parent = w->base.uuid;
    leaf.utilisation = w->done.utilisation; /* both are empty children now */
    leaf.format = w->done.format;
    leaf.sm_config = w->done.sm_config;
    if (store_vdi_put(t, &c->plan.sr, &w->base, f) < 0)
        return -1;
    return store_vdi_put(t, &c->plan.sr, &leaf, f);
}

static int fork_record(struct txn *t, struct call *c, struct fault *f)
{
    if (uuid_is(&c->work->base.uuid) && record_base(t, c, f) < 0)
        return -1;
    return record_done(t, c, f);
}

static int fork_undo(struct txn *t, struct call *c, struct fault *f)
{
    return store_vdi_remove(t, &c->plan.sr, &c->plan.made, f);
}

const struct phases vdi_snapshot_phases = {
    .check = snapshot_check, .act = fork_act, .record = fork_record, .undo = fork_undo};
const struct phases vdi_clone_phases = {
    .check = clone_check, .act = fork_act, .record = fork_record, .undo = fork_undo};

/* vdi_compose */

/* The parent as xapi's caller names it must be a uuid: a XenAPI reference can only be looked up in xapi. */
static int vdi_compose_check(struct txn *t, struct call *c, struct fault *f)
{
    const char *named = ARGS(c, vdi_compose)->parent;
    struct vdi *parent = NULL;
    if (!uuid_parse_text(named, &c->plan.base))
        return fault_set(f, FAULT_BadRequest, "vdi_compose: args[0] must be the uuid of the parent, not \"%.40s\"",
                         named);
    if (need_vdi(t, c, &c->work->vdi, f) < 0 || store_vdi_find(t, &c->keys.sr, &c->plan.base, c->arena, &parent, f) < 0)
        return -1;
    const struct vdi *vdi = c->work->vdi;
    if (!parent || parent->state != VDI_LIVE)
        return fault_set(f, FAULT_VDIUnavailable, "there is no VDI %s in SR %s to be the parent of VDI %s",
                         c->plan.base.text, c->keys.sr.text, vdi->uuid.text);
    c->plan.vdi = vdi->uuid;
    c->plan.format = vdi->format;
    c->work->wanted = *vdi;
    c->work->parent = *parent;
    return refuse_if_leased(t, c, vdi, f) < 0 ? -1 : refuse_if_used(t, c, parent, f);
}

static int vdi_compose_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    struct work *w = c->work;
    return backend_vdi_compose(c->sr, &c->plan, w->vdi, &w->parent, c->arena, &w->done, &w->base, f);
}

static int vdi_compose_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    if (store_vdi_put(t, &c->plan.sr, &c->work->base, f) < 0)
        return -1;
    return store_vdi_put(t, &c->plan.sr, &c->work->done, f);
}

const struct phases vdi_compose_phases = {
    .check = vdi_compose_check, .act = vdi_compose_act, .record = vdi_compose_record};
