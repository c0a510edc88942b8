/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/guard.h"

#include "backends/layouts/file.h"
#include "server/base/log.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* ------------------------------------------------------------------ what a type offers */

enum filler { BY_LAYOUT, BY_TRANSPORT, BY_EVERY_TYPE, BY_TRAIT };

struct slot {
    enum capability cap;
    const char *call; /* the slot's own name */
    const char *name; /* as xapi knows it; NULL when it has no name there */
    enum filler owner;
    size_t offset;
};

/* clang-format off */
#define LAYOUT(slot)    BY_LAYOUT, offsetof(struct layout, slot)
#define TRANSPORT(slot) BY_TRANSPORT, offsetof(struct transport, slot)

/* Capability to slot, the only place where it is said. */
static const struct slot slots[] = {
    {CAP_sr_create,     "sr_create",      NULL,                LAYOUT(sr_create)},
    {CAP_sr_delete,     "sr_delete",      NULL,                LAYOUT(sr_delete)},
    {CAP_sr_attach,     "sr_attach",      NULL,                LAYOUT(sr_attach)},
    {CAP_sr_probe,      "probe",          "SR_PROBE",          TRANSPORT(probe)},
    {CAP_sr_scan,       "sr_scan",        NULL,                LAYOUT(sr_scan)},
    {CAP_NONE,          "sr_update",      "SR_UPDATE",         BY_EVERY_TYPE, 0},
    {CAP_vdi_create,    "vdi_create",     "VDI_CREATE",        LAYOUT(vdi_create)},
    {CAP_vdi_delete,    "vdi_delete",     "VDI_DELETE",        LAYOUT(vdi_delete)},
    {CAP_vdi_introduce, "vdi_introduce",  "VDI_INTRODUCE",     LAYOUT(vdi_introduce)},
    {CAP_NONE,          "vdi_update",     "VDI_UPDATE",        LAYOUT(vdi_update)},
    {CAP_vdi_resize,    "vdi_resize",     "VDI_RESIZE",        LAYOUT(vdi_resize)},
    {CAP_vdi_snapshot,  "vdi_snapshot",   "VDI_SNAPSHOT",      LAYOUT(vdi_snapshot)},
    {CAP_vdi_clone,     "vdi_clone",      "VDI_CLONE",         LAYOUT(vdi_clone)},
    {CAP_vdi_read,      "vdi_read",       NULL,                LAYOUT(vdi_read)},
    {CAP_vdi_reset,     "vdi_reset",      "VDI_RESET_ON_BOOT/2", LAYOUT(vdi_reset)},
    {CAP_vdi_compose,   "vdi_compose",    "VDI_COMPOSE",       LAYOUT(vdi_compose)},
    {CAP_vdi_generate_config, "vdi_generate_config", "VDI_GENERATE_CONFIG", LAYOUT(recognise)},
    {CAP_sr_take,       "sr_take",        NULL,                LAYOUT(sr_take)},
    {CAP_vdi_attach,    "vdi_attach",     "VDI_ATTACH",        LAYOUT(vdi_attach)},
    {CAP_NONE,          "vdi_detach",     "VDI_DETACH",        LAYOUT(vdi_detach)},
    {CAP_vdi_activate,  "vdi_activate",   "VDI_ACTIVATE",      LAYOUT(vdi_activate)},
    {CAP_NONE,          "vdi_deactivate", "VDI_DEACTIVATE",    LAYOUT(vdi_deactivate)},
    {CAP_vdi_fence,     "vdi_fence",      NULL,                LAYOUT(vdi_fence)},
    {CAP_disk_write,    "disk_write",     NULL,                LAYOUT(disk_write)},
    {CAP_disk_log,      "disk_log",       NULL,                LAYOUT(disk_log)},
    {CAP_NONE,          "thin",           "THIN_PROVISIONING", BY_TRAIT, offsetof(struct layout, thin)},
};
/* clang-format on */

static bool slot_filled(const void *table, size_t offset)
{
    void (*function)(void);
    memcpy(&function, (const char *) table + offset, sizeof function);
    return function != NULL;
}

static bool slot_offered(const struct sr_type *type, const struct slot *s)
{
    switch (s->owner) {
    case BY_LAYOUT:
        return slot_filled(type->layout, s->offset);
    case BY_TRANSPORT:
        return slot_filled(type->transport, s->offset);
    case BY_TRAIT:
        return *(const bool *) ((const char *) type->layout + s->offset);
    case BY_EVERY_TYPE:
        break;
    }
    return true;
}

bool backend_offers(const struct sr_type *type, enum capability cap)
{
    if (cap == CAP_NONE)
        return true;
    for (size_t i = 0; i < COUNT_OF(slots); i++)
        if (slots[i].cap == cap)
            return slot_offered(type, &slots[i]);
    return false;
}

bool backend_offers_named(const struct sr_type *type, const char *name)
{
    for (size_t i = 0; i < COUNT_OF(slots); i++)
        if (slots[i].name && strcmp(slots[i].name, name) == 0)
            return slot_offered(type, &slots[i]);
    return false;
}

bool backend_recognises(const struct sr_type *type)
{
    return type->layout->recognise != NULL || type->layout->unmarked;
}

int backend_find(const struct sr_type *type, const struct backend_settings *settings, struct arena *a,
                 struct trace_list *out, struct fault *f)
{
    struct trace_list found = {0};
    bool can = type->transport->find && backend_recognises(type);
    if (can && type->transport->find(type->layout, settings, a, &found, f) < 0)
        return -1;
    *out = found;
    return 0;
}

bool backend_chooses(const struct sr_type *type)
{
    return type->layout->vdi_choose != NULL;
}

int backend_vdi_choose(const struct sr_type *type, const struct vdi_list *known, const struct vdi *wanted,
                       struct uuid *out, struct fault *f)
{
    return type->layout->vdi_choose(known, wanted, out, f);
}

enum fencing backend_fencing(const struct sr *sr)
{
    return sr->unfenced ? FENCING_ADVISORY : sr->type->fencing;
}

bool backend_fences(const struct sr *sr)
{
    enum fencing fencing = backend_fencing(sr);
    return (fencing == FENCING_VDI || fencing == FENCING_HOST) && backend_offers(sr->type, CAP_vdi_fence);
}

/* ------------------------------------------------------------------ promises and assumptions */

static void broken(const char *type, const char *slot, const char *promise) __attribute__((noreturn));
static void broken(const char *type, const char *slot, const char *promise)
{
    log_line(LOG_ERROR, "bug: %s of type %s broke its promise: %s", slot, type, promise);
    abort();
}

#define PROMISE(sr, slot, condition)                                                                                   \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            broken((sr)->type->name, slot, #condition);                                                                \
    } while (0)

/* A driver that fails says why. Returns r. */
static int result(const struct sr *sr, const char *slot, int r, const struct fault *f)
{
    PROMISE(sr, slot, r == 0 || r == -1);
    PROMISE(sr, slot, r == 0 || f->code != FAULT_NONE);
    return r;
}

static int refuse(const struct sr_type *type, const char *call, struct fault *f)
{
    return fault_set(f, FAULT_Unimplemented, "type %s has no %s", type->name, call);
}

int backend_refuse(const struct sr_type *type, enum capability cap, struct fault *f)
{
    for (size_t i = 0; i < COUNT_OF(slots); i++)
        if (slots[i].cap == cap && cap != CAP_NONE)
            return refuse(type, slots[i].call, f);
    return refuse(type, "such call", f);
}

static const char *state_text(enum vdi_state state)
{
    static const char *const texts[VDI_STATE_COUNT] = {"is still being made", "", "is being deleted", "is damaged",
                                                       "could not be explained after a crash"};
    return texts[state];
}

static int check_live(const struct vdi *vdi, struct fault *f)
{
    if (vdi->state == VDI_LIVE)
        return 0;
    return fault_set(f, FAULT_VDIUnavailable, "disk %s %s%s%s", vdi->uuid.text, state_text(vdi->state),
                     vdi->damage[0] ? ": " : "", vdi->damage);
}

/* What the place's path leads to is what was connected. */
static int check_place(const struct sr *sr, struct fault *f)
{
    struct stat st;
    if (sr_answers(sr, f) < 0)
        return -1;
    if (sr->place.dir < 0)
        return 0;
    if (stat(sr->place.path, &st) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "SR %s is no longer at %s", sr->uuid.text, sr->place.path);
    if (st.st_dev != sr->place.device || st.st_ino != sr->place.inode)
        return fault_set(f, FAULT_SRUnavailable, "%s is no longer the directory that was attached as SR %s",
                         sr->place.path, sr->uuid.text);
    return 0;
}

static int check_marked(struct sr *sr, struct fault *f)
{
    if (check_place(sr, f) < 0)
        return -1;
    return sr->type->layout->sr_check ? result(sr, "sr_check", sr->type->layout->sr_check(sr, f), f) : 0;
}

int backend_sr_check(struct sr *sr, struct fault *f)
{
    const char *poison = atomic_load(&sr->poison);
    if (!sr->connected)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not attached", sr->uuid.text);
    if (poison)
        return fault_set(f, FAULT_SRUnavailable, "SR %s must be attached again: %s", sr->uuid.text, poison);
    return check_marked(sr, f);
}

static int ready(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    return backend_sr_check(sr, f) < 0 ? -1 : check_live(vdi, f);
}

/* A disk as a slot may answer it. */
static bool sound(const struct vdi *out, const struct uuid *uuid, uint64_t size)
{
    return uuid_equal(&out->uuid, uuid) && out->location && out->location[0] && out->format && out->label &&
           out->size >= size;
}

/* ------------------------------------------------------------------ SR */

static void watch_nothing(struct sr *sr)
{
    struct fault ignored;
    sr_watch(sr, -1, &ignored);
}

void backend_sr_release(struct sr *sr)
{
    watch_nothing(sr);
    if (sr->connected && sr->type->layout->sr_detach)
        sr->type->layout->sr_detach(sr);
    sr->connected = false;
    if (sr->place.path && sr->place.dir >= 0)
        close(sr->place.dir);
    free(sr->place.path);
    place_free_devices(&sr->place);
    sr->place = (struct place){.dir = -1};
    free(atomic_exchange(&sr->poison, NULL));
}

static int give_up(struct sr *sr, struct fault *f)
{
    const struct transport *t = sr->type->transport;
    return t->give_up ? result(sr, "give_up", t->give_up(sr, f), f) : 0;
}

static int disconnect(struct sr *sr, struct fault *f)
{
    watch_nothing(sr);
    int r = give_up(sr, f) < 0 ? -1 : sr->type->transport->disconnect(sr, f);
    backend_sr_release(sr);
    return result(sr, "disconnect", r, f);
}

/* The place goes. What the layout has of it is freed first. */
static int end_place(struct sr *sr, const struct plan *plan, struct fault *f)
{
    const struct transport *t = sr->type->transport;
    if (!t->ends)
        return disconnect(sr, f) < 0 ? -1 : result(sr, "destroy", t->destroy(sr, plan, f), f);
    watch_nothing(sr);
    if (sr->connected && sr->type->layout->sr_detach)
        sr->type->layout->sr_detach(sr);
    sr->connected = false;
    int r = result(sr, "destroy", t->destroy(sr, plan, f), f);
    backend_sr_release(sr);
    return r;
}

static int connect_place(struct sr *sr, struct fault *f)
{
    struct fault ignored;
    if (!sr->place.path)
        sr->place.dir = -1;
    int r = result(sr, "connect", sr->type->transport->connect(sr, f), f);
    PROMISE(sr, "connect", r < 0 || sr->place.dir < 0 || sr->place.path);
    if (r == 0 && sr->type->transport->remote && sr->place.dir >= 0 && !sr->pulse &&
        sr_watch(sr, sr->place.dir, f) < 0) {
        sr->type->transport->disconnect(sr, &ignored);
        return -1;
    }
    return r;
}

int backend_sr_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    struct fault ignored;
    if (!backend_offers(sr->type, CAP_sr_create))
        return refuse(sr->type, "sr_create", f);
    sr->untouched = false;
    if (result(sr, "create", sr->type->transport->create(sr, plan, f), f) < 0 || connect_place(sr, f) < 0)
        return -1;
    int r = result(sr, "sr_create", sr->type->layout->sr_create(sr, plan, f), f);
    return disconnect(sr, r < 0 ? &ignored : f) < 0 ? -1 : r;
}

int backend_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_sr_delete))
        return refuse(sr->type, "sr_delete", f);
    if (backend_sr_check(sr, f) < 0)
        return -1;
    return result(sr, "sr_delete", sr->type->layout->sr_delete(sr, plan, f), f) < 0 ? -1 : end_place(sr, plan, f);
}

int backend_sr_attach(struct sr *sr, struct fault *f)
{
    struct fault ignored;
    if (!backend_offers(sr->type, CAP_sr_attach))
        return refuse(sr->type, "sr_attach", f);
    if (sr->connected && !atomic_load(&sr->poison))
        return backend_sr_check(sr, f);
    backend_sr_release(sr);
    if (connect_place(sr, f) < 0)
        return -1;
    const struct transport *t = sr->type->transport;
    if (result(sr, "sr_attach", sr->type->layout->sr_attach(sr, f), f) < 0) {
        disconnect(sr, &ignored);
        return -1;
    }
    sr->connected = true;
    if (!t->attached || result(sr, "attached", t->attached(sr, f), f) == 0)
        return 0;
    disconnect(sr, &ignored);
    return -1;
}

static int layout_owner(struct sr *sr, struct owner *out, struct fault *f)
{
    struct owner found = {.server = UUID_NONE};
    int r = result(sr, "sr_owner", sr->type->layout->sr_owner(sr, &found, f), f);
    if (r == 0)
        *out = found;
    return r;
}

int backend_sr_owner(struct sr *sr, struct owner *out, struct fault *f)
{
    struct fault ignored;
    bool was_connected = sr->connected;
    if (!backend_offers(sr->type, CAP_sr_take))
        return backend_refuse(sr->type, CAP_sr_take, f);
    if (sr->type->transport->owner && !was_connected)
        return result(sr, "owner", sr->type->transport->owner(sr, out, f), f);
    if (!was_connected && connect_place(sr, f) < 0)
        return -1;
    int r = layout_owner(sr, out, f);
    if (!was_connected)
        disconnect(sr, &ignored);
    return r;
}

/* The layout's claim in a place whose transport has taken it: of the same server, or this one's already. */
static int take_inside(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    struct owner inside;
    if (layout_owner(sr, &inside, f) < 0)
        return -1;
    if (!uuid_is(&inside.server) ||
        (uuid_equal(&inside.server, &sr->settings->server) && !uuid_equal(&inside.op, &plan->op)))
        return 0;
    if (!uuid_equal(&inside.server, &from->server) && !uuid_equal(&inside.op, &plan->op))
        return sr_check_owner(sr, &inside, f);
    return result(sr, "sr_take", sr->type->layout->sr_take(sr, plan, &inside, f), f);
}

static int take_claims(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    const struct transport *t = sr->type->transport;
    if (t->take && !sr->connected && result(sr, "take", t->take(sr, plan, from, f), f) < 0)
        return -1;
    if (!sr->connected && connect_place(sr, f) < 0)
        return -1;
    return t->take ? take_inside(sr, plan, from, f)
                   : result(sr, "sr_take", sr->type->layout->sr_take(sr, plan, from, f), f);
}

bool backend_takes_back(const struct sr_type *type)
{
    return type->transport->take != NULL;
}

int backend_sr_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    struct fault ignored;
    if (!backend_offers(sr->type, CAP_sr_take))
        return backend_refuse(sr->type, CAP_sr_take, f);
    bool was_connected = sr->connected;
    int r = take_claims(sr, plan, from, f);
    char *poison = atomic_exchange(&sr->poison, NULL); /* outlives the connection: settle is to know it */
    if (was_connected)
        backend_sr_release(sr); /* what hosts have of it stays as it is until sr_attach */
    else
        disconnect(sr, &ignored);
    atomic_store(&sr->poison, poison);
    return r;
}

int backend_sr_hold(struct sr *sr, const struct uuid *vdis, size_t count, struct fault *f)
{
    if (!sr->connected || !sr->type->layout->sr_hold)
        return 0;
    return result(sr, "sr_hold", sr->type->layout->sr_hold(sr, vdis, count, f), f);
}

const char *backend_plain_format(const struct sr_type *type)
{
    return type->layout->plain_format ? type->layout->plain_format : "";
}

/* Asked of the transport even when this process knows of no connection: one that died may have left it. What others of
   this host have made of the place, such as udev's rules of volumes on every device that appears, is taken down first.
 */
int backend_sr_detach(struct sr *sr, struct fault *f)
{
    const struct layout *l = sr->type->layout;
    struct fault ignored;
    if (give_up(sr, f) < 0)
        return -1;
    if (l->sr_hold)
        result(sr, "sr_hold", l->sr_hold(sr, NULL, 0, &ignored), &ignored);
    return disconnect(sr, f);
}

int backend_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                    struct sr_totals *totals, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_sr_scan))
        return refuse(sr->type, "sr_scan", f);
    if (backend_sr_check(sr, f) < 0)
        return -1;
    if (sr->type->transport->refresh && result(sr, "refresh", sr->type->transport->refresh(sr, f), f) < 0)
        return -1;
    struct vdi_list found = {0};
    if (result(sr, "sr_scan", sr->type->layout->sr_scan(sr, known, a, &found, totals, f), f) < 0)
        return -1;
    for (size_t i = 0; i < found.count; i++)
        PROMISE(sr, "sr_scan", sound(&found.items[i], &found.items[i].uuid, 0));
    *out = found;
    return 0;
}

int backend_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f)
{
    struct sr_totals now = {0};
    if (backend_sr_check(sr, f) < 0)
        return -1;
    if (result(sr, "sr_totals", sr->type->layout->sr_totals(sr, &now, f), f) < 0)
        return -1;
    *out = now;
    return 0;
}

int backend_sr_look(struct sr *sr, struct fault *f)
{
    if (!sr->type->layout->sr_look)
        return refuse(sr->type, "way to be looked at while no smapid serves it", f);
    if (sr->connected)
        return backend_sr_check(sr, f);
    if (connect_place(sr, f) < 0)
        return -1;
    if (result(sr, "sr_look", sr->type->layout->sr_look(sr, f), f) < 0) {
        backend_sr_release(sr);
        return -1;
    }
    sr->connected = true;
    return 0;
}

int backend_sr_judge(struct sr *sr, struct findings *out, struct fault *f)
{
    if (backend_sr_check(sr, f) < 0)
        return -1;
    return sr->type->layout->sr_judge ? result(sr, "sr_judge", sr->type->layout->sr_judge(sr, out, f), f) : 0;
}

int backend_places(const struct backend_settings *settings, struct arena *a, struct uuid **out, size_t *count,
                   struct fault *f)
{
    AUTO_DIR DIR *entries = opendir(settings->mount_base);
    struct uuid *list = NULL;
    size_t n = 0, room = 0;
    errno = 0;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        struct uuid uuid;
        if (!uuid_parse_text(e->d_name, &uuid))
            continue;
        list = arena_grown(a, list, n, &room, sizeof *list);
        list[n++] = uuid;
    }
    if (errno && errno != ENOENT)
        return fault_errno(f, FAULT_EIO, "list %s", settings->mount_base);
    *out = list;
    *count = n;
    return 0;
}

int backend_sr_probe(const struct sr_type *type, const struct pairs *config, const struct secrets *secrets,
                     const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f)
{
    if (!backend_offers(type, CAP_sr_probe))
        return refuse(type, "sr_probe", f);
    *out = (struct found_list){.metadata = out->metadata};
    return type->transport->probe(type->layout, config, secrets, settings, a, out, f);
}

/* ------------------------------------------------------------------ VDI */

int backend_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                       struct vdi *out, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_create))
        return refuse(sr->type, "vdi_create", f);
    if (backend_sr_check(sr, f) < 0)
        return -1;
    if (result(sr, "vdi_create", sr->type->layout->vdi_create(sr, plan, wanted, a, out, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_create", sound(out, &plan->vdi, wanted->size));
    return 0;
}

int backend_vdi_locate(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f)
{
    if (!sr->type->layout->vdi_locate)
        return 0;
    if (backend_sr_check(sr, f) < 0)
        return -1;
    return result(sr, "vdi_locate", sr->type->layout->vdi_locate(sr, vdi, a, plan, f), f);
}

int backend_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                       struct deletion *deleted, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_delete))
        return refuse(sr->type, "vdi_delete", f);
    if (backend_sr_check(sr, f) < 0 || (vdi->state != VDI_DELETING && check_live(vdi, f) < 0))
        return -1;
    struct deletion d = {0};
    if (result(sr, "vdi_delete", sr->type->layout->vdi_delete(sr, plan, vdi, a, &d, f), f) < 0)
        return -1;
    *deleted = d;
    return 0;
}

int backend_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a,
                          struct vdi *out, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_introduce))
        return refuse(sr->type, "vdi_introduce", f);
    if (backend_sr_check(sr, f) < 0)
        return -1;
    if (result(sr, "vdi_introduce", sr->type->layout->vdi_introduce(sr, plan, location, a, out, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_introduce", sound(out, &plan->vdi, 0));
    return 0;
}

int backend_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                       struct fault *f)
{
    if (!sr->type->layout->vdi_update) {
        *out = *vdi;
        return 0;
    }
    if (ready(sr, vdi, f) < 0)
        return -1;
    if (result(sr, "vdi_update", sr->type->layout->vdi_update(sr, plan, vdi, a, out, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_update", sound(out, &vdi->uuid, 0));
    return 0;
}

int backend_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                       struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_resize))
        return refuse(sr->type, "vdi_resize", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    if (result(sr, "vdi_resize", sr->type->layout->vdi_resize(sr, plan, vdi, a, out, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_resize", sound(out, &vdi->uuid, plan->size));
    return 0;
}

int backend_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                     struct arena *a, struct vdi *made, struct vdi *base, struct fault *f)
{
    const struct layout *l = sr->type->layout;
    enum capability cap = plan->read_only ? CAP_vdi_snapshot : CAP_vdi_clone;
    if (!backend_offers(sr->type, cap))
        return backend_refuse(sr->type, cap, f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    struct vdi left = vdi_blank();
    int r = plan->read_only ? l->vdi_snapshot(sr, plan, wanted, vdi, a, made, &left, f)
                            : l->vdi_clone(sr, plan, wanted, vdi, a, made, &left, f);
    if (result(sr, plan->method, r, f) < 0)
        return -1;
    PROMISE(sr, plan->method, sound(made, &plan->made, 0));
    PROMISE(sr, plan->method, !uuid_is(&left.uuid) || sound(&left, &plan->base, 0));
    *base = left;
    return 0;
}

int backend_vdi_reset(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                      struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_reset))
        return refuse(sr->type, "vdi_reset", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    if (result(sr, "vdi_reset", sr->type->layout->vdi_reset(sr, plan, vdi, a, out, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_reset", sound(out, &plan->vdi, 0));
    return 0;
}

int backend_vdi_compose(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                        struct arena *a, struct vdi *out, struct vdi *base, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_compose))
        return refuse(sr->type, "vdi_compose", f);
    if (ready(sr, vdi, f) < 0 || check_live(parent, f) < 0)
        return -1;
    if (result(sr, "vdi_compose", sr->type->layout->vdi_compose(sr, plan, vdi, parent, a, out, base, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_compose", sound(out, &plan->vdi, 0) && sound(base, &plan->base, 0));
    PROMISE(sr, "vdi_compose", uuid_equal(&out->parent, &plan->base) && base->hidden);
    return 0;
}

int backend_vdi_verify(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    if (!sr->type->layout->vdi_verify)
        return 0;
    if (backend_sr_check(sr, f) < 0)
        return -1;
    return result(sr, "vdi_verify", sr->type->layout->vdi_verify(sr, vdi, f), f);
}

int backend_vdi_read(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_read))
        return refuse(sr->type, "vdi_read", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    return result(sr, "vdi_read", sr->type->layout->vdi_read(sr, vdi, out_fd, f), f);
}

int backend_image_read(int dir, const struct uuid *vdi, int out_fd, struct fault *f)
{
    return file_image_read(dir, vdi, out_fd, f);
}

int backend_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                       struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_attach))
        return refuse(sr->type, "vdi_attach", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    const char *reached = NULL;
    if (result(sr, "vdi_attach", sr->type->layout->vdi_attach(sr, vdi, writable, a, &reached, f), f) < 0)
        return -1;
    PROMISE(sr, "vdi_attach", reached && reached[0] == '/');
    *path = reached;
    return 0;
}

int backend_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    if (!sr->type->layout->vdi_detach)
        return refuse(sr->type, "vdi_detach", f);
    return sr->connected ? result(sr, "vdi_detach", sr->type->layout->vdi_detach(sr, vdi, f), f) : 0;
}

int backend_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_activate))
        return refuse(sr->type, "vdi_activate", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    return result(sr, "vdi_activate", sr->type->layout->vdi_activate(sr, vdi, epoch, writable, f), f);
}

int backend_vdi_restore(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    if (!sr->type->layout->vdi_restore)
        return 0;
    return result(sr, "vdi_restore", sr->type->layout->vdi_restore(sr, vdi, epoch, writable, f), f);
}

int backend_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    if (!sr->type->layout->vdi_deactivate)
        return refuse(sr->type, "vdi_deactivate", f);
    return sr->connected ? result(sr, "vdi_deactivate", sr->type->layout->vdi_deactivate(sr, vdi, f), f) : 0;
}

int backend_vdi_fence(struct sr *sr, const struct vdi *vdi, const char *holder, uint64_t epoch, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_vdi_fence))
        return refuse(sr->type, "vdi_fence", f);
    if (!sr->connected)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not attached", sr->uuid.text);
    return result(sr, "vdi_fence", sr->type->layout->vdi_fence(sr, vdi, holder, epoch, f), f);
}

int backend_epoch_seen(struct sr *sr, uint64_t *out, struct fault *f)
{
    uint64_t seen = 0;
    if (sr->type->layout->epoch_seen && sr->connected &&
        result(sr, "epoch_seen", sr->type->layout->epoch_seen(sr, &seen, f), f) < 0)
        return -1;
    *out = seen;
    return 0;
}

int backend_disk_write(struct sr *sr, const struct vdi *vdi, uint64_t epoch, const char *data, struct fault *f)
{
    if (!backend_offers(sr->type, CAP_disk_write))
        return refuse(sr->type, "disk_write", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    return result(sr, "disk_write", sr->type->layout->disk_write(sr, vdi, epoch, data, f), f);
}

int backend_disk_log(struct sr *sr, const struct vdi *vdi, struct arena *a, struct disk_write **out, size_t *count,
                     struct fault *f)
{
    if (!backend_offers(sr->type, CAP_disk_log))
        return refuse(sr->type, "disk_log", f);
    if (ready(sr, vdi, f) < 0)
        return -1;
    return result(sr, "disk_log", sr->type->layout->disk_log(sr, vdi, a, out, count, f), f);
}

/* ------------------------------------------------------------------ settle */

/* The layout's half on a place that is there. */
static int settle_layout(struct sr *sr, const struct plan *plan, enum settled *how, struct fault *f)
{
    enum settled layout = SETTLED_STUCK;
    int r = sr->type->layout->settle(sr, plan, NULL, NULL, &layout, NULL, NULL, NULL, f);
    if (result(sr, "settle", r, f) == 0)
        *how = layout;
    return r;
}

/* The layout is done with the place and left a mark in it: it is an SR that was there before. */
static bool still_marked(const struct sr *sr)
{
    struct uuid uuid;
    return (sr->place.dir >= 0 || sr->place.device_count) && sr->type->layout->recognise &&
           sr->type->layout->recognise(&sr->place, &uuid);
}

/* Both halves of an sr_create or sr_delete: the transport's follows when the layout's came to the given end. A place
   that cannot be connected is left to the transport, which refuses to destroy one that still is marked; one that wants
   a password waits for it. */
static int settle_place(struct sr *sr, const struct plan *plan, enum settled end, enum settled *how, struct fault *f)
{
    struct fault ignored;
    enum settled layout = end;
    sr->keyless = false;
    bool was_connected = sr->connected, there = was_connected || connect_place(sr, f) == 0;
    if (!there && sr->keyless)
        return -1;
    int r = there ? settle_layout(sr, plan, &layout, f) : 0;
    if (!there)
        backend_sr_release(sr);
    if (r == 0 && layout == end && !still_marked(sr)) {
        r = there ? end_place(sr, plan, f) : result(sr, "destroy", sr->type->transport->destroy(sr, plan, f), f);
    } else if (!was_connected) {
        disconnect(sr, &ignored);
    }
    if (r == 0)
        *how = layout;
    return r;
}

/* Attaching changes nothing but this process and the kernel: it is what it is. */
static int settle_attachment(struct sr *sr, bool wanted, enum settled *how, struct fault *f)
{
    if (!sr->connected && (give_up(sr, f) < 0 || sr->type->transport->disconnect(sr, f) < 0))
        return -1;
    *how = sr->connected == wanted ? SETTLED_DONE : SETTLED_UNDONE;
    return 0;
}

/* Whatever stands now: a claim of the operation is completed, and what else it left goes. */
static int settle_take(struct sr *sr, const struct plan *plan, enum settled *how, struct fault *f)
{
    struct fault lost;
    struct owner now, nobody = {.server = UUID_NONE};
    const char *poison = atomic_load(&sr->poison);
    if (poison)
        return fault_set(f, FAULT_SRUnavailable, "SR %s must be attached again: %s", sr->uuid.text, poison);
    if (backend_sr_owner(sr, &now, f) < 0)
        return -1;
    bool ours = uuid_equal(&now.op, &plan->op);
    int r = backend_sr_take(sr, plan, ours ? &now : &nobody, ours ? f : &lost);
    if (ours && r < 0)
        return -1;
    *how = ours ? SETTLED_DONE : SETTLED_UNDONE;
    return 0;
}

int backend_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
                   struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f)
{
    if (strcmp(plan->method, "sr_create") == 0 && sr->untouched) {
        *how = SETTLED_UNDONE;
        return 0;
    }
    if (strcmp(plan->method, "sr_create") == 0)
        return settle_place(sr, plan, SETTLED_UNDONE, how, f);
    if (strcmp(plan->method, "sr_delete") == 0)
        return settle_place(sr, plan, SETTLED_DONE, how, f);
    if (strcmp(plan->method, "sr_attach") == 0 || strcmp(plan->method, "sr_detach") == 0)
        return settle_attachment(sr, strcmp(plan->method, "sr_attach") == 0, how, f);
    if (strcmp(plan->method, "smapi.sr_take_over") == 0)
        return settle_take(sr, plan, how, f);
    if (!sr->connected)
        return fault_set(f, FAULT_SRUnavailable, "SR %s is not attached", sr->uuid.text);
    if (check_marked(sr, f) < 0)
        return -1;
    enum settled settled = SETTLED_STUCK;
    int r = sr->type->layout->settle(sr, plan, wanted, a, &settled, vdi, base, deleted, f);
    if (result(sr, "settle", r, f) < 0)
        return -1;
    PROMISE(sr, "settle", settled <= SETTLED_STUCK);
    *how = settled;
    return 0;
}
