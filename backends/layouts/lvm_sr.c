/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/lvm.h"
#include "backends/lvm_claim.h"
#include "backends/tools/blkid.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>

#define HEAD_SIZE    8192U /* of a device: its label, and behind it the header of LVM's metadata, new with each change */
#define CACHE_MEMORY (256U << 20)

#define WORTH_GROWING (UINT64_C(100) << 20) /* bytes, as the older manager has it */

/* ------------------------------------------------------------------ names and settings */

void lvm_vg_name(char out[LVM_NAME], const struct uuid *sr)
{
    snprintf(out, LVM_NAME, LVM_VG_PREFIX "%s", sr->text);
}

static struct lvm_scope scope_of(const struct place *place, int hold)
{
    return lvm_scope((const char *const *) place->devices, place->device_count, hold);
}

struct lvm_scope lvm_sr_scope(const struct sr *sr)
{
    return scope_of(&sr->place, sr->hold);
}

static bool config_is(const struct sr *sr, const char *key, const char *value)
{
    const char *set = pairs_get(&sr->config, key);
    return set && strcmp(set, value) == 0;
}

bool lvm_is_thin(const struct sr *sr)
{
    return config_is(sr, "allocation", "thin");
}

/* ------------------------------------------------------------------ what is on the devices */

/* The one group of that name; NULL when there is none. */
static int find_group(const struct lvm_report *r, const char *name, struct lvm_vg **out, struct fault *f)
{
    *out = NULL;
    for (size_t i = 0; i < r->vg_count; i++) {
        if (strcmp(r->vgs[i].name, name) != 0)
            continue;
        if (*out)
            return fault_set(f, FAULT_SRUnavailable, "two volume groups on the devices have the name %s: %s and %s",
                             name, (*out)->uuid, r->vgs[i].uuid);
        *out = &r->vgs[i];
    }
    return 0;
}

static int need_group(const struct sr *sr, struct arena *a, struct lvm_vg **out, struct fault *f)
{
    char name[LVM_NAME];
    struct lvm_report r;
    struct lvm_scope scope = lvm_sr_scope(sr);
    lvm_vg_name(name, &sr->uuid);
    if (lvm_read(&scope, a, &r, f) < 0 || find_group(&r, name, out, f) < 0)
        return -1;
    if (!*out)
        return fault_set(f, FAULT_VolNotFound, "there is no volume group %s on %s", name,
                         sr->place.device_count ? sr->place.devices[0] : "no device");
    for (size_t i = 0; i < (*out)->pv_count; i++)
        if ((*out)->pvs[i].missing)
            return fault_set(f, FAULT_SRUnavailable, "volume group %s lacks its device with uuid %s", name,
                             (*out)->pvs[i].uuid);
    return 0;
}

/* ------------------------------------------------------------------ whose it is */

static int check_owner(const struct sr *sr, const struct lvm_vg *vg, struct arena *a, struct fault *f)
{
    const struct owner owner = lvm_claim_of(vg, a);
    if (!uuid_is(&owner.server))
        return fault_set(f, FAULT_SRUnavailable, "volume group %s has no owner: attach SR %s again", vg->name,
                         sr->uuid.text);
    return sr_check_owner(sr, &owner, f);
}

/* ------------------------------------------------------------------ the group, as it was last read */

/* -1 with errno. */
static int read_heads(const struct sr *sr, unsigned char *out)
{
    AUTO_FREE unsigned char *head = io_buffer(HEAD_SIZE);
    for (size_t i = 0; i < sr->place.device_count; i++) {
        AUTO_FD int fd = open(sr->place.devices[i], O_RDONLY | O_DIRECT | O_CLOEXEC);
        if (fd < 0 || io_read_at(fd, head, HEAD_SIZE, 0) < 0)
            return -1;
        memcpy(out + i * HEAD_SIZE, head, HEAD_SIZE);
    }
    return 0;
}

/* A copy of everything, texts and all. */
static struct lvm_vg *copy_group(const struct lvm_vg *from, struct arena *a)
{
    struct lvm_vg *vg = ARENA_NEW(a, struct lvm_vg);
    *vg = *from;
    vg->name = arena_text(a, from->name);
    vg->uuid = arena_text(a, from->uuid);
    vg->tags = arena_text(a, from->tags);
    vg->pvs = ARENA_ARRAY(a, struct lvm_pv, from->pv_count + 1);
    vg->lvs = ARENA_ARRAY(a, struct lvm_lv, from->lv_count + 1);
    for (size_t i = 0; i < from->pv_count; i++) {
        vg->pvs[i] = from->pvs[i];
        vg->pvs[i].name = arena_text(a, from->pvs[i].name);
        vg->pvs[i].uuid = arena_text(a, from->pvs[i].uuid);
    }
    for (size_t i = 0; i < from->lv_count; i++) {
        struct lvm_lv *lv = &vg->lvs[i];
        *lv = from->lvs[i];
        lv->name = arena_text(a, lv->name);
        lv->uuid = arena_text(a, lv->uuid);
        lv->tags = arena_text(a, lv->tags);
        lv->segments = ARENA_ARRAY(a, struct lvm_segment, lv->segment_count + 1);
        if (lv->segment_count)
            memcpy(lv->segments, from->lvs[i].segments, lv->segment_count * sizeof *lv->segments);
    }
    return vg;
}

static void forget_cache(struct lvm_sr *state)
{
    arena_free(TAKE(state->cache));
    state->vg = NULL;
}

/* The number LVM gives each state of a group, as it stands in the metadata to which a head leads: text in a ring, of
   which only a beginning in one piece is read. 0 when it cannot be told. */
static uint64_t sequence_of(const struct sr *sr, const unsigned char *heads)
{
    static const char magic[] = "\x20LVM2 x[5A%r0N*>", key[] = "\nseqno = ";
    const unsigned char *mda = heads + HEAD_SIZE / 2;
    uint64_t start, size, offset;
    memcpy(&start, mda + 24, sizeof start);
    memcpy(&size, mda + 32, sizeof size);
    memcpy(&offset, mda + 40, sizeof offset);
    start = le64toh(start);
    size = le64toh(size);
    offset = le64toh(offset);
    if (memcmp(mda + 4, magic, strlen(magic)) != 0 || start != HEAD_SIZE / 2 || size < HEAD_SIZE ||
        offset > size - HEAD_SIZE)
        return 0;
    AUTO_FREE char *text = io_buffer(HEAD_SIZE);
    uint64_t at = start + offset, begin = at - at % 4096;
    AUTO_FD int fd = open(sr->place.devices[0], O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || io_read_at(fd, text, HEAD_SIZE, begin) < 0)
        return 0;
    text[HEAD_SIZE - 1] = '\0';
    const char *found = strstr(text + (at - begin), key);
    return found ? strtoull(found + strlen(key), NULL, 10) : 0;
}

/* Reads the group afresh, when the heads have been these since before. */
static int fill_cache(struct sr *sr, const unsigned char *heads, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *cache = arena_new(CACHE_MEMORY);
    uint64_t sequence = sequence_of(sr, heads);
    if (need_group(sr, cache, &vg, f) < 0)
        return -1;
    if (strcmp(vg->uuid, state->vg_uuid) != 0)
        return fault_set(f, FAULT_SRUnavailable, "volume group %s is another than was attached: attach SR %s again",
                         vg->name, sr->uuid.text);
    if (check_owner(sr, vg, cache, f) < 0)
        return -1;
    forget_cache(state);
    memcpy(state->heads, heads, sr->place.device_count * HEAD_SIZE);
    state->sequence = sequence;
    state->vg = vg;
    state->cache = TAKE(cache);
    return 0;
}

static int group_locked(struct sr *sr, struct arena *a, struct lvm_vg **out, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    AUTO_FREE unsigned char *heads = calloc(sr->place.device_count + 1, HEAD_SIZE);
    if (!heads)
        abort();
    if (read_heads(sr, heads) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "read the devices of SR %s", sr->uuid.text);
    if ((!state->vg || memcmp(heads, state->heads, sr->place.device_count * HEAD_SIZE) != 0) &&
        fill_cache(sr, heads, f) < 0)
        return -1;
    *out = copy_group(state->vg, a);
    return 0;
}

int lvm_group(struct sr *sr, struct arena *a, struct lvm_vg **out, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    pthread_mutex_lock(&state->lock);
    int r = group_locked(sr, a, out, f);
    pthread_mutex_unlock(&state->lock);
    return r;
}

struct lvm_vg *lvm_group_last(struct sr *sr, struct arena *a)
{
    struct lvm_sr *state = sr->state;
    pthread_mutex_lock(&state->lock);
    struct lvm_vg *vg = state->vg ? copy_group(state->vg, a) : NULL;
    pthread_mutex_unlock(&state->lock);
    return vg;
}

/* What a command of ours has done to one volume. */
struct change {
    const char *lv, *name, *add, *drop;
    enum lvm_access access;
};

static const char *without_tag(struct arena *a, const char *tags, const char *tag)
{
    char *out = arena_alloc(a, strlen(tags) + 1), *at = out;
    for (const char *t = tags; *t; t += strspn(t, ",")) {
        size_t length = strcspn(t, ",");
        if (length != strlen(tag) || memcmp(t, tag, length) != 0) {
            if (at != out)
                *at++ = ',';
            at = mempcpy(at, t, length);
        }
        t += length;
    }
    return out;
}

static void apply(struct lvm_sr *state, const struct change *c)
{
    struct arena *a = state->cache;
    for (size_t i = 0; i < state->vg->lv_count; i++) {
        struct lvm_lv *lv = &state->vg->lvs[i];
        if (strcmp(lv->name, c->lv) != 0)
            continue;
        if (c->name)
            lv->name = arena_text(a, c->name);
        if (c->access != LVM_ACCESS_KEEP)
            lv->read_only = c->access == LVM_ACCESS_READ;
        if (c->drop)
            lv->tags = without_tag(a, lv->tags, c->drop);
        if (c->add && !lvm_has_tag(lv->tags, c->add))
            lv->tags = arena_printf(a, "%s%s%s", lv->tags, lv->tags[0] ? "," : "", c->add);
        return;
    }
}

/* When the group's state is the very next one, it was this change and no other that made it. */
static void follow(struct sr *sr, const struct change *c)
{
    struct lvm_sr *state = sr->state;
    size_t size = sr->place.device_count * HEAD_SIZE;
    AUTO_FREE unsigned char *heads = calloc(1, size + HEAD_SIZE);
    if (!heads)
        abort();
    pthread_mutex_lock(&state->lock);
    if (state->vg && state->sequence && read_heads(sr, heads) == 0 && sequence_of(sr, heads) == state->sequence + 1) {
        apply(state, c);
        memcpy(state->heads, heads, size);
        state->sequence++;
    }
    pthread_mutex_unlock(&state->lock);
}

int lvm_rename(struct sr *sr, const char *lv, const char *name, enum fault_code code, struct fault *f)
{
    char vg[LVM_NAME];
    struct lvm_scope scope = lvm_sr_scope(sr);
    const struct change c = {.lv = lv, .name = name};
    lvm_vg_name(vg, &sr->uuid);
    if (lvm_lv_rename(&scope, vg, lv, name, code, f) < 0)
        return -1;
    follow(sr, &c);
    return 0;
}

int lvm_change(struct sr *sr, const char *lv, enum lvm_access access, const char *add, const char *drop,
               enum fault_code code, struct fault *f)
{
    char vg[LVM_NAME];
    struct lvm_scope scope = lvm_sr_scope(sr);
    const char *const adds[] = {add, NULL}, *const drops[] = {drop, NULL};
    const struct change c = {.lv = lv, .access = access, .add = add, .drop = drop};
    lvm_vg_name(vg, &sr->uuid);
    if (lvm_lv_change(&scope, vg, lv, access, adds, drops, code, f) < 0)
        return -1;
    follow(sr, &c);
    return 0;
}

/* The same identifier and uuid in each sector in which a label may stand. */
static bool same_label(const unsigned char *a, const unsigned char *b)
{
    for (size_t at = 0; at < HEAD_SIZE / 4; at += 512)
        if (memcmp(a + at, b + at, 8) != 0 || memcmp(a + at + 32, b + at + 32, 32) != 0)
            return false;
    return true;
}

/* Asked before every operation: the devices can be read, and begin with the labels they had. What lies behind those
   changes with every change of the group; who reads the group again checks whose it is. */
int lvm_sr_check(struct sr *sr, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    AUTO_FREE unsigned char *heads = calloc(sr->place.device_count + 1, HEAD_SIZE);
    if (!heads)
        abort();
    if (read_heads(sr, heads) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "read the devices of SR %s", sr->uuid.text);
    int r = 0;
    pthread_mutex_lock(&state->lock);
    for (size_t i = 0; i < sr->place.device_count && r == 0; i++)
        if (!same_label(heads + i * HEAD_SIZE, state->heads + i * HEAD_SIZE))
            r = fault_set(f, FAULT_SRUnavailable, "%s is no longer the device that was attached for SR %s",
                          sr->place.devices[i], sr->uuid.text);
    pthread_mutex_unlock(&state->lock);
    return r;
}

/* ------------------------------------------------------------------ create */

/* The groups of a place, which may have none or cannot be read. */
static struct lvm_report groups_of(const struct place *place, struct arena *a)
{
    struct fault ignored;
    struct lvm_report r = {0};
    struct lvm_scope scope = scope_of(place, -1);
    if (place->device_count == 0 || lvm_read(&scope, a, &r, &ignored) < 0)
        r.vg_count = 0;
    return r;
}

static bool is_marked(const struct lvm_vg *vg, struct uuid *out)
{
    return strncmp(vg->name, LVM_VG_PREFIX, strlen(LVM_VG_PREFIX)) == 0 &&
           uuid_parse_text(vg->name + strlen(LVM_VG_PREFIX), out);
}

bool lvm_recognise(const struct place *place, struct uuid *out)
{
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    const struct lvm_report r = groups_of(place, a);
    for (size_t i = 0; i < r.vg_count; i++)
        if (is_marked(&r.vgs[i], out))
            return true;
    return false;
}

void lvm_sr_describe(const struct place *place, const struct uuid *sr, struct arena *a, struct found_sr *out)
{
    struct uuid found;
    AUTO_ARENA struct arena *own = arena_new(CACHE_MEMORY);
    const struct lvm_report r = groups_of(place, own);
    for (size_t i = 0; i < r.vg_count; i++)
        if (is_marked(&r.vgs[i], &found) && uuid_equal(&found, sr) && lvm_mgt_describe(&r.vgs[i], sr, a, out) == 0)
            return;
}

bool lvm_recognise_own(const struct place *place, const struct uuid *server, struct uuid *out)
{
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    const struct lvm_report r = groups_of(place, a);
    if (r.vg_count != 1 || !is_marked(&r.vgs[0], out))
        return false;
    const struct owner owner = lvm_claim_of(&r.vgs[0], a);
    return uuid_equal(&owner.server, server);
}

/* The uuid, as LVM writes them, of the physical volume that is the SR's device number i: by it an SR that was not made
   whole is known again. */
static void pv_uuid(char out[40], const struct uuid *sr, size_t i)
{
    static const size_t groups[] = {6, 4, 4, 4, 4, 4, 6};
    char digits[UUID_TEXT + 1];
    size_t n = 0, at = 0;
    for (const char *c = sr->text; *c; c++)
        if (*c != '-')
            digits[n++] = *c;
    snprintf(digits + 30, 3, "%02x", (unsigned) i & 0xff);
    for (size_t g = 0, from = 0; g < COUNT_OF(groups); from += groups[g++]) {
        if (g)
            out[at++] = '-';
        memcpy(out + at, digits + from, groups[g]);
        at += groups[g];
    }
    out[at] = '\0';
}

static int fail_point(struct fault *f, enum fault_code code, const char *what)
{
    return fault_errno(f, code, "at point %s", what);
}

int lvm_sr_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    char vg[LVM_NAME], op[64], uuid[40];
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    struct lvm_scope scope = lvm_sr_scope(sr);
    lvm_vg_name(vg, &sr->uuid);
    snprintf(op, sizeof op, LVM_TAG_OP "%.8s", plan->op.text);
    for (size_t i = 0; i < scope.device_count; i++) {
        pv_uuid(uuid, &sr->uuid, i);
        if (lvm_pv_create(&scope, scope.devices[i], uuid, f) < 0)
            return -1;
    }
    if (POINT(sr_create_made) < 0)
        return fail_point(f, FAULT_LVMPartCreate, "sr_create_made");
    if (lvm_vg_create(&scope, vg, lvm_claim_tags(sr, &plan->op, op, a), f) < 0)
        return -1;
    return POINT(sr_create_marked) < 0 ? fail_point(f, FAULT_LVMGroupCreate, "sr_create_marked") : 0;
}

/* Physical volumes of no group that were made for this SR. */
static int remove_orphans(struct sr *sr, const struct lvm_report *r, struct fault *f)
{
    struct lvm_scope scope = lvm_sr_scope(sr);
    for (size_t i = 0; i < r->orphan_count; i++) {
        char uuid[40];
        bool ours = false;
        for (size_t d = 0; d < scope.device_count && !ours; d++) {
            pv_uuid(uuid, &sr->uuid, d);
            ours = strcmp(uuid, r->orphans[i].uuid) == 0;
        }
        const char *const names[] = {r->orphans[i].name, NULL};
        if ((ours || lvm_is_doomed(sr, r->orphans[i].name)) && lvm_pv_remove(&scope, names, f) < 0)
            return -1;
    }
    for (size_t d = 0; d < scope.device_count; d++)
        if (lvm_undoom(sr, scope.devices[d], f) < 0)
            return -1;
    return 0;
}

/* The group, empty, and the physical volumes it was on. */
static int remove_group(struct sr *sr, const struct lvm_vg *vg, struct arena *a, struct fault *f)
{
    struct lvm_scope scope = lvm_sr_scope(sr);
    const char **names = ARENA_ARRAY(a, const char *, vg->pv_count + 1);
    for (size_t i = 0; i < vg->pv_count; i++) {
        names[i] = vg->pvs[i].name;
        if (lvm_doom(sr, names[i], f) < 0)
            return -1;
    }
    if (lvm_vg_remove(&scope, vg->name, f) < 0)
        return -1;
    if (POINT(sr_delete_unmarked) < 0)
        return fail_point(f, FAULT_LVMDelete, "sr_delete_unmarked");
    if (lvm_pv_remove(&scope, names, f) < 0)
        return -1;
    for (size_t i = 0; i < vg->pv_count; i++)
        if (lvm_undoom(sr, names[i], f) < 0)
            return -1;
    return 0;
}

int lvm_sr_undo(struct sr *sr, const struct plan *plan, struct fault *f)
{
    char name[LVM_NAME], op[64];
    struct lvm_report r;
    struct lvm_vg *vg;
    struct lvm_scope scope = lvm_sr_scope(sr);
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    lvm_vg_name(name, &sr->uuid);
    snprintf(op, sizeof op, LVM_TAG_OP "%.8s", plan->op.text);
    if (lvm_read(&scope, a, &r, f) < 0 || find_group(&r, name, &vg, f) < 0)
        return -1;
    if (vg && (!lvm_has_tag(vg->tags, op) || vg->lv_count > 0))
        return 0; /* an SR that was there before */
    return vg ? remove_group(sr, vg, a, f) : remove_orphans(sr, &r, f);
}

/* ------------------------------------------------------------------ delete */

/* The first volume that is not the metadata's; NULL when there is none. */
static const struct lvm_lv *first_volume(const struct lvm_vg *vg)
{
    for (size_t i = 0; i < vg->lv_count; i++)
        if (strcmp(vg->lvs[i].name, LVM_MGT) != 0)
            return &vg->lvs[i];
    return NULL;
}

static int clear_group(struct sr *sr, const struct lvm_vg *vg, struct arena *a, bool *empty, struct fault *f)
{
    static const char *const metadata[] = {LVM_MGT, NULL};
    struct lvm_scope scope = lvm_sr_scope(sr);
    const struct lvm_lv *left = first_volume(vg);
    *empty = !left;
    if (left) {
        fault_set(f, FAULT_SRNotEmpty, "SR %s still holds volume %s", sr->uuid.text, left->name);
        return 0;
    }
    if (lvm_find(vg, LVM_MGT) && lvm_lv_remove(&scope, vg->name, metadata, f) < 0)
        return -1;
    if (POINT(sr_delete_cleared) < 0)
        return fail_point(f, FAULT_LVMDelete, "sr_delete_cleared");
    return remove_group(sr, vg, a, f);
}

int lvm_sr_clear(struct sr *sr, const struct plan *plan, bool *empty, struct fault *f)
{
    (void) plan;
    char name[LVM_NAME];
    struct lvm_report r;
    struct lvm_vg *vg;
    struct lvm_scope scope = lvm_sr_scope(sr);
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    lvm_vg_name(name, &sr->uuid);
    if (lvm_read(&scope, a, &r, f) < 0 || find_group(&r, name, &vg, f) < 0)
        return -1;
    *empty = true;
    if (!vg)
        return remove_orphans(sr, &r, f);
    return check_owner(sr, vg, a, f) < 0 ? -1 : clear_group(sr, vg, a, empty, f);
}

int lvm_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f)
{
    bool empty = false;
    if (lvm_sr_clear(sr, plan, &empty, f) < 0)
        return -1;
    return empty ? 0 : -1;
}

/* ------------------------------------------------------------------ attach */

/* A group without an owner was made by another manager. */
static int claim(struct sr *sr, const struct lvm_vg *vg, struct arena *a, struct fault *f)
{
    struct lvm_scope scope = lvm_sr_scope(sr);
    const struct uuid op = uuid_random();
    const struct owner owner = lvm_claim_of(vg, a);
    if (uuid_is(&owner.server))
        return sr_check_owner(sr, &owner, f);
    if (lvm_vg_quiet(&scope, vg->name, f) < 0)
        return -1;
    return lvm_vg_tag(&scope, vg->name, lvm_claim_tags(sr, &op, NULL, a), NULL, f);
}

int lvm_sr_owner(struct sr *sr, struct owner *out, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    if (need_group(sr, a, &vg, f) < 0)
        return -1;
    *out = lvm_claim_of(vg, a);
    return 0;
}

/* Whether the claim that stands is the plan's; SRUnavailable otherwise. */
static int check_taken(struct sr *sr, const struct plan *plan, struct fault *f)
{
    struct owner now;
    if (lvm_sr_owner(sr, &now, f) < 0)
        return -1;
    return lvm_claim_check(sr, &now, &plan->op, f);
}

int lvm_sr_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    struct lvm_scope scope = lvm_sr_scope(sr);
    if (need_group(sr, a, &vg, f) < 0)
        return -1;
    const struct owner now = lvm_claim_of(vg, a);
    if (!uuid_equal(&now.op, &plan->op)) {
        if (!uuid_equal(&now.op, &from->op) || !uuid_equal(&now.server, &from->server))
            return check_taken(sr, plan, f);
        if (lvm_claim_move(sr, &scope, vg, &plan->op, a, f) < 0)
            return -1;
    }
    if (check_taken(sr, plan, f) < 0)
        return -1;
    nanosleep(&(struct timespec){.tv_sec = LVM_CLAIM_SECONDS}, NULL);
    if (POINT(claim_published) < 0)
        return fail_point(f, FAULT_SRLog, "claim_published");
    return check_taken(sr, plan, f);
}

/* Devices that have grown since are taken whole, once it is worth the change. */
static int grow_group(struct sr *sr, const struct lvm_vg *vg, struct fault *f)
{
    struct lvm_scope scope = lvm_sr_scope(sr);
    uint64_t room = 0;
    for (size_t i = 0; i < vg->pv_count; i++)
        room += vg->pvs[i].size > vg->pvs[i].pe_start ? vg->pvs[i].size - vg->pvs[i].pe_start : 0;
    for (size_t i = 0; i < vg->pv_count && room >= vg->size + WORTH_GROWING; i++)
        if (lvm_pv_resize(&scope, vg->pvs[i].name, f) < 0)
            return -1;
    return 0;
}

static struct lvm_sr *state_new(const struct sr *sr, const struct lvm_vg *vg)
{
    struct lvm_sr *state = calloc(1, sizeof *state);
    if (!state)
        abort();
    state->heads = calloc(sr->place.device_count + 1, HEAD_SIZE);
    if (!state->heads)
        abort();
    snprintf(state->vg_uuid, sizeof state->vg_uuid, "%s", vg->uuid);
    pthread_mutex_init(&state->lock, NULL);
    pthread_mutex_init(&state->chains, NULL);
    pthread_mutex_init(&state->records, NULL);
    return state;
}

/* The group as attach has read it, when its devices had these heads: who asks next sees whether they still do. */
static void keep_group(struct lvm_sr *state, const struct lvm_vg *vg, unsigned char *heads, uint64_t sequence)
{
    free(state->heads);
    state->heads = heads;
    state->cache = arena_new(CACHE_MEMORY);
    state->vg = copy_group(vg, state->cache);
    state->sequence = sequence;
}

int lvm_sr_attach(struct sr *sr, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_FREE unsigned char *heads = calloc(sr->place.device_count + 1, HEAD_SIZE);
    if (!heads)
        abort();
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    bool known = read_heads(sr, heads) == 0;
    uint64_t sequence = known ? sequence_of(sr, heads) : 0;
    if (need_group(sr, a, &vg, f) < 0 || claim(sr, vg, a, f) < 0 || grow_group(sr, vg, f) < 0)
        return -1;
    struct lvm_sr *state = sr->state = state_new(sr, vg);
    if (known)
        keep_group(state, vg, TAKE(heads), sequence);
    if (lvm_group(sr, a, &vg, f) == 0 && lvm_settle_strays(sr, f) == 0 && lvm_mgt_make(sr, f) == 0)
        return 0;
    lvm_sr_detach(sr);
    return -1;
}

int lvm_sr_look(struct sr *sr, struct fault *f)
{
    struct lvm_vg *vg;
    AUTO_ARENA struct arena *a = arena_new(CACHE_MEMORY);
    if (need_group(sr, a, &vg, f) < 0 || check_owner(sr, vg, a, f) < 0)
        return -1;
    sr->state = state_new(sr, vg);
    if (lvm_group(sr, a, &vg, f) == 0)
        return 0;
    lvm_sr_detach(sr);
    return -1;
}

void lvm_sr_detach(struct sr *sr)
{
    struct lvm_sr *state = TAKE(sr->state);
    if (!state)
        return;
    forget_cache(state);
    free(state->heads);
    pthread_mutex_destroy(&state->lock);
    pthread_mutex_destroy(&state->chains);
    pthread_mutex_destroy(&state->records);
    free(state);
}
