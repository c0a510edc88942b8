/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Trees of disks in a file SR, against plain bytes and 7zz.
   SMAPI_FILE_TREES: how many random trees (12); SMAPI_FILE_SEED: where the sequence begins (1). */
#include "backends/images/vhd_layout.h"
#include "server/base/io.h"
#include "tests/unit/test_file_bench.h"
#include "tests/unit/vhd_kit.h"
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#define NODES 40
#define DEPTH 8
#define NONE  SIZE_MAX

/* ------------------------------------------------------------------ calls */

static struct vdi wanted_vhd(const struct uuid *uuid, uint64_t size)
{
    struct vdi vdi = wanted_disk(uuid->text, size);
    vdi.location = uuid->text;
    vdi.format = "";
    return vdi;
}

static struct vdi create(struct bench *b, const struct uuid *uuid, uint64_t size)
{
    struct plan p = bench_plan("vdi_create", uuid->text);
    struct vdi wanted = wanted_vhd(uuid, size), out;
    p.size = size;
    must(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault));
    assert_string_equal(out.format, "vhd");
    return out;
}

static struct vdi row_of(struct bench *b, const struct uuid *uuid)
{
    struct vdi_list list = bench_scan(b, NULL);
    for (size_t i = 0; i < list.count; i++)
        if (uuid_equal(&list.items[i].uuid, uuid))
            return list.items[i];
    fail_msg("disk %s is not there", uuid->text);
    return vdi_blank();
}

static bool is_listed(struct bench *b, const struct uuid *uuid)
{
    struct vdi_list list = bench_scan(b, NULL);
    for (size_t i = 0; i < list.count; i++)
        if (uuid_equal(&list.items[i].uuid, uuid))
            return true;
    return false;
}

static struct plan fork_plan(const struct uuid *of, const struct uuid *made, const struct uuid *base, bool read_only)
{
    struct plan p = bench_plan(read_only ? "vdi_snapshot" : "vdi_clone", of->text);
    p.made = *made;
    p.base = *base;
    p.read_only = read_only;
    return p;
}

static int try_fork(struct bench *b, const struct plan *p, struct vdi *made, struct vdi *base)
{
    struct vdi row = row_of(b, &p->vdi), wanted = row;
    wanted.uuid = p->made;
    wanted.location = p->made.text;
    wanted.read_only = p->read_only;
    wanted.label = "the copy";
    return backend_vdi_fork(b->sr, p, &wanted, &row, b->arena, made, base, &b->fault);
}

/* The new disk. */
static struct uuid clone_of(struct bench *b, const struct uuid *of, struct uuid *base)
{
    struct vdi made, left;
    struct uuid id = uuid_random();
    *base = uuid_random();
    const struct plan p = fork_plan(of, &id, base, false);
    must(b, try_fork(b, &p, &made, &left));
    return id;
}

static struct deletion delete (struct bench *b, const struct uuid *uuid)
{
    struct plan p = bench_plan("vdi_delete", uuid->text);
    struct vdi row = row_of(b, uuid);
    struct deletion d;
    must(b, backend_vdi_locate(b->sr, &row, b->arena, &p, &b->fault));
    row.state = VDI_DELETING;
    must(b, backend_vdi_delete(b->sr, &p, &row, b->arena, &d, &b->fault));
    return d;
}

static struct kit kit_of(struct bench *b)
{
    struct kit k = {.dir = b->sr->place.dir};
    snprintf(k.path, sizeof k.path, "%.60s", b->location);
    return k;
}

/* Undoes what a failed call left, which must be everything. */
static void must_undo(struct bench *b, const struct plan *p, int before)
{
    enum settled how;
    struct vdi out, base;
    must(b, backend_settle(b->sr, p, NULL, b->arena, &how, &out, &base, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    assert_int_equal(entries(b), before);
}

static unsigned char *read_disk(struct bench *b, const struct uuid *uuid, size_t *length)
{
    struct vdi row = row_of(b, uuid);
    AUTO_FD int out = memfd_create("disk", MFD_CLOEXEC);
    must(b, backend_vdi_read(b->sr, &row, out, &b->fault));
    return kit_bytes(out, length);
}

static void assert_reads(struct bench *b, const struct uuid *uuid, const unsigned char *model, uint64_t size)
{
    size_t length;
    AUTO_FREE unsigned char *data = read_disk(b, uuid, &length);
    assert_int_equal(length, size);
    assert_memory_equal(data, model, size);
}

/* ------------------------------------------------------------------ random trees */

struct node {
    struct uuid id;
    unsigned char *model, *own; /* bytes of the disk; for each sector, whether it was written here */
    uint64_t size;
    size_t parent;
    bool there, hidden;
};

struct tree {
    struct bench *b;
    struct node nodes[NODES];
    size_t count;
    uint64_t seed;
};

static size_t children(const struct tree *t, size_t at)
{
    size_t n = 0;
    for (size_t i = 0; i < t->count; i++)
        n += t->nodes[i].there && t->nodes[i].parent == at;
    return n;
}

static size_t depth(const struct tree *t, size_t at)
{
    size_t n = 1;
    while ((at = t->nodes[at].parent) != NONE)
        n++;
    return n;
}

static bool is_served(const struct tree *t, size_t at)
{
    return t->nodes[at].there && !t->nodes[at].hidden;
}

static size_t add_node(struct tree *t, uint64_t size, size_t parent)
{
    assert_true(t->count < NODES);
    t->nodes[t->count] = (struct node){.id = uuid_random(),
                                       .model = calloc(1, size),
                                       .own = calloc(1, size / SECTOR_SIZE),
                                       .size = size,
                                       .parent = parent,
                                       .there = true};
    return t->count++;
}

static void step_create(struct tree *t)
{
    size_t at = add_node(t, (1 + kit_random(&t->seed) % 4) * VHD_BLOCK_SIZE, NONE);
    create(t->b, &t->nodes[at].id, t->nodes[at].size);
}

static void step_write(struct tree *t, size_t at)
{
    struct node *n = &t->nodes[at];
    struct kit k = kit_of(t->b);
    uint64_t total = n->size / SECTOR_SIZE, first = kit_random(&t->seed) % total;
    uint64_t count = 1 + kit_random(&t->seed) % (kit_random(&t->seed) % 4 ? 40 : 6000);
    count = count < total - first ? count : total - first;
    kit_write(&k, &n->id, n->model, first * SECTOR_SIZE, count * SECTOR_SIZE, &t->seed);
    memset(n->own + first, 1, count);
}

/* The disk's own content becomes the base's; the disk and the new one begin empty. */
static void step_fork(struct tree *t, size_t at)
{
    struct vdi made, base;
    bool read_only = kit_random(&t->seed) % 2;
    if (t->count + 2 > NODES || depth(t, at) >= DEPTH)
        return;
    size_t base_at = add_node(t, t->nodes[at].size, t->nodes[at].parent);
    size_t made_at = add_node(t, t->nodes[at].size, base_at);
    struct node *leaf = &t->nodes[at], *b = &t->nodes[base_at], *m = &t->nodes[made_at];
    memcpy(b->model, leaf->model, leaf->size);
    memcpy(m->model, leaf->model, leaf->size);
    memcpy(b->own, leaf->own, leaf->size / SECTOR_SIZE);
    memset(leaf->own, 0, leaf->size / SECTOR_SIZE);
    b->hidden = true;
    leaf->parent = base_at;
    const struct plan p = fork_plan(&leaf->id, &m->id, &b->id, read_only);
    must(t->b, try_fork(t->b, &p, &made, &base));
    assert_int_equal(made.read_only, read_only);
    assert_true(made.size == leaf->size && uuid_equal(&made.parent, &b->id) && !made.hidden && made.managed);
    assert_true(base.hidden && base.read_only && !base.managed);
    assert_string_equal(base.label, "base copy");
    assert_string_equal(base.location, b->id.text);
}

static void step_resize(struct tree *t, size_t at)
{
    struct node *n = &t->nodes[at];
    struct plan p = bench_plan("vdi_resize", n->id.text);
    struct vdi row = row_of(t->b, &n->id), out;
    uint64_t old = n->size;
    p.size = old + 1 + kit_random(&t->seed) % (3 * VHD_BLOCK_SIZE);
    must(t->b, backend_vdi_resize(t->b->sr, &p, &row, t->b->arena, &out, &t->b->fault));
    n->size = (p.size + VHD_BLOCK_SIZE - 1) / VHD_BLOCK_SIZE * VHD_BLOCK_SIZE;
    assert_int_equal(out.size, n->size);
    n->model = realloc(n->model, n->size);
    n->own = realloc(n->own, n->size / SECTOR_SIZE);
    memset(n->model + old, 0, n->size - old);
    memset(n->own + old / SECTOR_SIZE, 0, (n->size - old) / SECTOR_SIZE);
}

static void step_delete(struct tree *t, size_t at)
{
    struct deletion d = delete (t->b, &t->nodes[at].id);
    assert_false(d.kept);
    size_t gone = 0, base = t->nodes[at].parent;
    t->nodes[at].there = false;
    for (; base != NONE && t->nodes[base].hidden && !children(t, base); base = t->nodes[base].parent) {
        t->nodes[base].there = false;
        assert_true(gone < d.gone_count);
        assert_string_equal(d.gone[gone++].text, t->nodes[base].id.text);
    }
    assert_int_equal(gone, d.gone_count);
}

/* What the disk does not hold itself comes from its parent. */
static void inherit(struct tree *t, struct node *n)
{
    const struct node *parent = &t->nodes[n->parent];
    for (uint64_t i = 0; i < n->size / SECTOR_SIZE; i++)
        if (!n->own[i] && i < parent->size / SECTOR_SIZE)
            memcpy(n->model + i * SECTOR_SIZE, parent->model + i * SECTOR_SIZE, SECTOR_SIZE);
        else if (!n->own[i])
            memset(n->model + i * SECTOR_SIZE, 0, SECTOR_SIZE);
}

static void step_reset(struct tree *t, size_t at)
{
    struct node *n = &t->nodes[at];
    struct plan p = bench_plan("vdi_epoch_begin", n->id.text);
    struct vdi row = row_of(t->b, &n->id), out;
    int r = backend_vdi_reset(t->b->sr, &p, &row, t->b->arena, &out, &t->b->fault);
    if (n->parent == NONE) {
        must_fail(t->b, r, FAULT_Unimplemented);
        return;
    }
    must(t->b, r);
    assert_int_equal(out.size, n->size);
    memset(n->own, 0, n->size / SECTOR_SIZE);
    inherit(t, n);
}

static bool is_above(const struct tree *t, size_t ancestor, size_t at)
{
    while (at != NONE && at != ancestor)
        at = t->nodes[at].parent;
    return at == ancestor;
}

static void step_compose(struct tree *t, size_t at)
{
    size_t to = kit_random(&t->seed) % t->count;
    struct node *n = &t->nodes[at], *parent = &t->nodes[to];
    struct plan p = bench_plan("vdi_compose", n->id.text);
    if (!parent->there || n->parent == NONE || is_above(t, at, to) || depth(t, to) >= DEPTH)
        return;
    struct vdi row = row_of(t->b, &n->id), parent_row = row_of(t->b, &parent->id), out, base;
    p.base = parent->id;
    int r = backend_vdi_compose(t->b->sr, &p, &row, &parent_row, t->b->arena, &out, &base, &t->b->fault);
    if (parent->size > n->size) {
        must_fail(t->b, r, FAULT_VDISize);
        return;
    }
    must(t->b, r);
    n->parent = to;
    parent->hidden = true;
    inherit(t, n);
}

static void step(struct tree *t)
{
    size_t at = t->count ? kit_random(&t->seed) % t->count : 0;
    uint32_t what = kit_random(&t->seed) % 16;
    if (t->count == 0 || (what == 0 && t->count < NODES))
        step_create(t);
    else if (!is_served(t, at))
        return;
    else if (what < 6)
        step_write(t, at);
    else if (what < 10)
        step_fork(t, at);
    else if (what < 12)
        step_compose(t, at);
    else if (what == 12)
        step_resize(t, at);
    else if (what == 13)
        step_reset(t, at);
    else if (what == 14)
        step_delete(t, at);
    else
        bench_restart(t->b), must(t->b, backend_sr_attach(t->b->sr, &t->b->fault));
}

static void assert_rows(struct tree *t)
{
    struct vdi_list list = bench_scan(t->b, NULL);
    size_t there = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct node *n = &t->nodes[i];
        there += n->there;
        if (!n->there)
            continue;
        struct vdi row = row_of(t->b, &n->id);
        assert_string_equal(row.damage, "");
        assert_int_equal(row.state, VDI_LIVE);
        assert_true(row.hidden == n->hidden && row.managed == !n->hidden && row.size == n->size);
        assert_string_equal(row.parent.text, n->parent == NONE ? "" : t->nodes[n->parent].id.text);
    }
    assert_int_equal(list.count, there);
}

/* 7zz reads no disk that is not of its parent's size, and takes the hidden mark for damage. */
static bool is_for_7zz(const struct tree *t, size_t at)
{
    for (uint64_t size = t->nodes[at].size; at != NONE; at = t->nodes[at].parent)
        if (t->nodes[at].size != size)
            return false;
    return true;
}

static void assert_judged(struct tree *t)
{
    struct kit k = kit_of(t->b);
    struct fault f;
    for (size_t i = 0; i < t->count; i++) {
        if (!t->nodes[i].there)
            continue;
        AUTO_FD int fd = kit_fd(&k, &t->nodes[i].id);
        assert_sound(vhd_check(fd, &f), f);
        assert_sound(image_vhd.hide(fd, false, &f), f);
    }
    for (size_t i = 0; i < t->count && kit_has("7zz"); i++)
        if (t->nodes[i].there && is_for_7zz(t, i))
            kit_assert_7zz(&k, &t->nodes[i].id, t->nodes[i].model, t->nodes[i].size);
}

/* Bases that lost their last child to a compose are left; they go when asked to. */
static void delete_all(struct tree *t)
{
    for (size_t i = 0; i < t->count; i++)
        if (is_served(t, i))
            step_delete(t, i);
    assert_rows(t);
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < t->count; i++)
            if (t->nodes[i].there && !children(t, i)) {
                step_delete(t, i);
                more = true;
            }
    }
    assert_int_equal(entries(t->b), 1);
}

static void random_tree(uint64_t seed)
{
    struct tree t = {.b = bench_attached(), .seed = seed};
    for (int s = 0; s < 60; s++)
        step(&t);
    assert_rows(&t);
    for (size_t i = 0; i < t.count; i++)
        if (t.nodes[i].there)
            assert_reads(t.b, &t.nodes[i].id, t.nodes[i].model, t.nodes[i].size);
    if (seed % 2)
        assert_judged(&t);
    else
        delete_all(&t);
    for (size_t i = 0; i < t.count; i++) {
        free(t.nodes[i].model);
        free(t.nodes[i].own);
    }
    bench_free(t.b);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void random_trees_keep_every_disk_as_it_was_written(void **state)
{
    (void) state;
    uint64_t trees = setting("SMAPI_FILE_TREES", 12), seed = setting("SMAPI_FILE_SEED", 1);
    for (uint64_t i = 0; i < trees; i++)
        random_tree(seed + i);
}

/* ------------------------------------------------------------------ making */

static void the_default_format_is_vhd_with_its_sizes(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), other = U(OTHER_UUID);
    assert_int_equal(create(b, &id, 1).size, 2 * MIB);
    assert_int_equal(create(b, &other, 2040 * GIB).size, 2040 * GIB);
    assert_true(stands(b, DISK_UUID ".vhd"));
    struct uuid more = uuid_random();
    struct plan p = bench_plan("vdi_create", more.text);
    struct vdi wanted = wanted_vhd(&more, 2040 * GIB + 1), out;
    must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_VDISize);
    must_undo(b, &p, 5);
    struct vdi row = row_of(b, &id);
    assert_null(pairs_get(&row.sm_config, "type"));
    assert_true(row.utilisation > 0 && row.utilisation < 64 * 1024);
    bench_free(b);
}

static void a_base_is_hidden_and_can_only_be_read(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base;
    struct stat st;
    create(b, &id, 2 * MIB);
    struct uuid copy = clone_of(b, &id, &base);
    struct vdi row = row_of(b, &base);
    const char *path;
    assert_int_equal(fstatat(b->sr->place.dir, arena_printf(b->arena, "%s.vhd", base.text), &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0400);
    assert_string_equal(row.label, "base copy");
    must_fail(b, backend_vdi_attach(b->sr, &row, true, b->arena, &path, &b->fault), FAULT_VDIUnavailable);
    must(b, backend_vdi_attach(b->sr, &row, false, b->arena, &path, &b->fault));
    row = row_of(b, &copy);
    assert_string_equal(row.label, "the copy");
    assert_string_equal(pairs_get(&row.sm_config, "vhd-parent"), base.text);
    must(b, backend_vdi_attach(b->sr, &row, true, b->arena, &path, &b->fault));
    bench_free(b);
}

static void sources_that_cannot_be_forked_are_refused_and_nothing_changes(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid raw = uuid_random(), id = U(DISK_UUID), base, made = uuid_random(), left = uuid_random();
    struct vdi out, out_base;
    bench_create_disk(b, raw.text, 4096);
    create(b, &id, 2 * MIB);
    clone_of(b, &id, &base);
    int before = entries(b);
    struct plan p = fork_plan(&raw, &made, &left, true);
    must_fail(b, try_fork(b, &p, &out, &out_base), FAULT_Unimplemented);
    must_undo(b, &p, before);
    p = fork_plan(&base, &made, &left, true);
    must_fail(b, try_fork(b, &p, &out, &out_base), FAULT_VDISnapshot);
    must_undo(b, &p, before);
    p = fork_plan(&base, &made, &left, false);
    must_fail(b, try_fork(b, &p, &out, &out_base), FAULT_VDIClone);
    must_undo(b, &p, before);
    p = fork_plan(&id, &raw, &left, false);
    must_fail(b, try_fork(b, &p, &out, &out_base), FAULT_VDIExists);
    must_undo(b, &p, before);
    p = fork_plan(&id, &made, &raw, false);
    must_fail(b, try_fork(b, &p, &out, &out_base), FAULT_VDIExists);
    must_undo(b, &p, before);
    bench_free(b);
}

static void a_chain_never_gets_deeper_than_30(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base, made = uuid_random(), left = uuid_random();
    struct vdi out, out_base;
    struct kit k = kit_of(b);
    uint64_t seed = 5;
    AUTO_FREE unsigned char *model = calloc(1, 2 * MIB);
    create(b, &id, 2 * MIB);
    for (size_t i = 0; i + 1 < VHD_CHAIN_LIMIT; i++) {
        kit_write(&k, &id, model, i * SECTOR_SIZE, SECTOR_SIZE, &seed);
        clone_of(b, &id, &base);
    }
    assert_reads(b, &id, model, 2 * MIB);
    int before = entries(b);
    const struct plan p = fork_plan(&id, &made, &left, true);
    assert_int_equal(try_fork(b, &p, &out, &out_base), -1);
    assert_non_null(strstr(b->fault.detail, "30 images"));
    must_fail(b, -1, FAULT_SnapshotChainTooLong);
    must_undo(b, &p, before);
    bench_free(b);
}

/* ------------------------------------------------------------------ deleting */

static void a_parent_that_is_deleted_stays_hidden_and_goes_with_its_last_child(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct fault f;
    struct uuid id = U(DISK_UUID), child = U(OTHER_UUID);
    struct kit k = kit_of(b);
    create(b, &id, 2 * MIB);
    AUTO_FD int parent_fd = kit_fd(&k, &id);
    AUTO_FD int fd = kit_new(&k, &child);
    assert_sound(image_vhd.make_child(fd, &child, parent_fd, &id, &f), f);
    assert_true(row_of(b, &id).hidden); /* a scan sees that it must not be written */
    assert_true(delete (b, &id).kept);
    assert_true(delete (b, &id).kept);
    assert_true(row_of(b, &id).hidden);
    struct deletion d = delete (b, &child);
    assert_int_equal(d.gone_count, 1);
    assert_string_equal(d.gone[0].text, DISK_UUID);
    assert_int_equal(entries(b), 1);
    bench_free(b);
}

static void a_raw_parent_is_neither_deleted_nor_hidden(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct fault f;
    struct uuid id = U(DISK_UUID), child = U(OTHER_UUID);
    struct kit k = kit_of(b);
    struct plan p = bench_plan("vdi_delete", DISK_UUID);
    struct vdi disk = bench_create_disk(b, DISK_UUID, 2 * MIB);
    AUTO_FD int raw = openat(k.dir, DISK_UUID ".raw", O_RDONLY);
    AUTO_FD int fd = kit_new(&k, &child);
    assert_sound(vhd_make_child_of_raw(fd, &child, raw, &id, &f), f);
    int before = entries(b);
    assert_true(row_of(b, &id).hidden && row_of(b, &child).state == VDI_LIVE);
    must_fail(b, backend_vdi_delete(b->sr, &p, &disk, b->arena, &b->deleted, &b->fault), FAULT_VDIDelete);
    must_undo(b, &p, before);
    assert_int_equal(delete (b, &child).gone_count, 0);
    assert_false(row_of(b, &id).hidden);
    bench_free(b);
}

static void a_visible_base_outlives_its_children(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct fault f;
    struct uuid id = U(DISK_UUID), base;
    struct kit k = kit_of(b);
    create(b, &id, 2 * MIB);
    struct uuid copy = clone_of(b, &id, &base);
    AUTO_FD int fd = kit_fd(&k, &base);
    assert_sound(image_vhd.hide(fd, false, &f), f);
    delete (b, &copy);
    assert_int_equal(delete (b, &id).gone_count, 0);
    assert_false(row_of(b, &base).hidden);
    bench_free(b);
}

static void while_an_image_cannot_be_read_no_base_goes(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base;
    create(b, &id, 2 * MIB);
    struct uuid copy = clone_of(b, &id, &base);
    shell("cd %s && head -c 5000 /dev/urandom > eeeeeeee-2222-3333-4444-555555555555.vhd", b->location);
    delete (b, &copy);
    assert_int_equal(delete (b, &id).gone_count, 0);
    assert_true(row_of(b, &base).hidden);
    assert_true(delete (b, &base).kept);
    shell("rm %s/eeeeeeee*", b->location);
    assert_false(delete (b, &base).kept);
    assert_int_equal(entries(b), 1);
    bench_free(b);
}

/* ------------------------------------------------------------------ growing, resetting, composing */

static void a_base_keeps_its_size(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base;
    struct vdi out;
    create(b, &id, 4 * MIB);
    clone_of(b, &id, &base);
    struct plan p = bench_plan("vdi_resize", base.text);
    struct vdi row = row_of(b, &base);
    int before = entries(b);
    p.size = 8 * MIB;
    must_fail(b, backend_vdi_resize(b->sr, &p, &row, b->arena, &out, &b->fault), FAULT_VDIResize);
    must_undo(b, &p, before);
    p = bench_plan("vdi_resize", DISK_UUID);
    p.size = 2 * MIB;
    row = row_of(b, &id);
    must_fail(b, backend_vdi_resize(b->sr, &p, &row, b->arena, &out, &b->fault), FAULT_VDISize);
    bench_free(b);
}

static void a_grown_disk_keeps_its_size_when_it_is_reset(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base;
    struct vdi out;
    struct kit k = kit_of(b);
    uint64_t seed = 9;
    AUTO_FREE unsigned char *model = calloc(1, 8 * MIB);
    create(b, &id, 2 * MIB);
    kit_write(&k, &id, model, 0, 5 * SECTOR_SIZE, &seed);
    clone_of(b, &id, &base);
    struct plan p = bench_plan("vdi_resize", DISK_UUID);
    struct vdi row = row_of(b, &id);
    p.size = 8 * MIB;
    must(b, backend_vdi_resize(b->sr, &p, &row, b->arena, &row, &b->fault));
    AUTO_FREE unsigned char *scratch = calloc(1, 8 * MIB);
    kit_write(&k, &id, scratch, 7 * MIB, MIB, &seed);
    p = bench_plan("vdi_epoch_begin", DISK_UUID);
    must(b, backend_vdi_reset(b->sr, &p, &row, b->arena, &out, &b->fault));
    assert_reads(b, &id, model, 8 * MIB);
    row = row_of(b, &base);
    must_fail(b, backend_vdi_reset(b->sr, &p, &row, b->arena, &out, &b->fault), FAULT_VDIUnavailable);
    bench_free(b);
}

static void composing_refuses_roots_loops_and_parents(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid root = uuid_random(), id = U(DISK_UUID), base;
    struct vdi out, out_base;
    create(b, &root, 2 * MIB);
    create(b, &id, 2 * MIB);
    struct uuid copy = clone_of(b, &id, &base);
    struct plan p = bench_plan("vdi_compose", root.text);
    p.base = id;
    struct vdi row = row_of(b, &root), parent = row_of(b, &id);
    int before = entries(b);
    must_fail(b, backend_vdi_compose(b->sr, &p, &row, &parent, b->arena, &out, &out_base, &b->fault), FAULT_VDIType);
    must_undo(b, &p, before);
    p.vdi = p.base = id;
    must_fail(b, backend_vdi_compose(b->sr, &p, &parent, &parent, b->arena, &out, &out_base, &b->fault),
              FAULT_InvalidArg);
    p.vdi = base;
    row = row_of(b, &base);
    must_fail(b, backend_vdi_compose(b->sr, &p, &row, &parent, b->arena, &out, &out_base, &b->fault),
              FAULT_VDIUnavailable);
    p.vdi = copy;
    row = row_of(b, &copy);
    must(b, backend_vdi_compose(b->sr, &p, &row, &parent, b->arena, &out, &out_base, &b->fault));
    assert_true(row_of(b, &id).hidden);
    assert_string_equal(out_base.label, parent.label);
    bench_free(b);
}

static void a_raw_disk_can_become_a_parent(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid raw = uuid_random(), id = U(DISK_UUID), base;
    struct vdi out, out_base;
    struct kit k = kit_of(b);
    uint64_t seed = 4;
    AUTO_FREE unsigned char *model = calloc(1, 2 * MIB);
    struct vdi parent = bench_create_disk(b, raw.text, MIB);
    shell("printf hello | dd of=%s/%s.raw conv=notrunc status=none", b->location, raw.text);
    create(b, &id, 2 * MIB);
    clone_of(b, &id, &base);
    kit_write(&k, &id, model, MIB, SECTOR_SIZE, &seed);
    memcpy(model, "hello", 5);
    struct plan p = bench_plan("vdi_compose", DISK_UUID);
    p.base = raw;
    struct vdi row = row_of(b, &id);
    must(b, backend_vdi_compose(b->sr, &p, &row, &parent, b->arena, &out, &out_base, &b->fault));
    assert_reads(b, &id, model, 2 * MIB);
    assert_true(row_of(b, &raw).hidden && row_of(b, &id).state == VDI_LIVE);
    bench_free(b);
}

/* ------------------------------------------------------------------ reading out */

static void what_is_read_out_is_sparse_in_a_file_and_whole_in_a_pipe(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), raw = U(OTHER_UUID), none = uuid_random();
    struct kit k = kit_of(b);
    struct stat st;
    uint64_t seed = 6;
    AUTO_FREE unsigned char *model = calloc(1, 64 * MIB);
    create(b, &id, 64 * MIB);
    kit_write(&k, &id, model, 40 * MIB, 3 * SECTOR_SIZE, &seed);
    bench_create_disk(b, OTHER_UUID, 64 * MIB);
    AUTO_FD int image = openat(k.dir, OTHER_UUID ".raw", O_WRONLY);
    assert_int_equal(io_write_at(image, model + 40 * MIB, 3 * SECTOR_SIZE, 40 * MIB), 0);
    assert_reads(b, &id, model, 64 * MIB);
    assert_reads(b, &raw, model, 64 * MIB);
    for (int i = 0; i < 2; i++) {
        AUTO_FD int file = openat(k.dir, "out", O_RDWR | O_CREAT | O_TRUNC, 0600);
        must(b, backend_image_read(k.dir, i ? &raw : &id, file, &b->fault));
        assert_int_equal(fstat(file, &st), 0);
        assert_int_equal(st.st_size, 64 * MIB);
        assert_true(st.st_blocks * 512 < (off_t) (64 * 1024));
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            _exit(backend_image_read(k.dir, i ? &raw : &id, ends[1], &b->fault) < 0);
        }
        close(ends[1]);
        AUTO_FREE unsigned char *got = malloc(64 * MIB + 1);
        size_t length = 0;
        for (ssize_t n; (n = read(ends[0], got + length, 64 * MIB + 1 - length)) > 0;)
            length += (size_t) n;
        close(ends[0]);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_equal(length, 64 * MIB);
        assert_memory_equal(got, model, length);
    }
    must_fail(b, backend_image_read(k.dir, &none, 1, &b->fault), FAULT_VDIUnavailable);
    bench_free(b);
}

/* ------------------------------------------------------------------ introducing */

static void a_child_is_introduced_only_beside_its_parent(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base;
    struct vdi out;
    create(b, &id, 2 * MIB);
    struct uuid copy = clone_of(b, &id, &base);
    shell("cd %s && mv %s.vhd found.vhd && rm %s.smapi && mv %s.vhd aside", b->location, copy.text, copy.text,
          base.text);
    struct plan p = bench_plan("vdi_introduce", OTHER_UUID);
    p.name = "found.vhd";
    must_fail(b, backend_vdi_introduce(b->sr, &p, "found.vhd", b->arena, &out, &b->fault), FAULT_VDIUnavailable);
    assert_true(stands(b, "found.vhd"));
    shell("cd %s && mv aside %s.vhd", b->location, base.text);
    must(b, backend_vdi_introduce(b->sr, &p, "found.vhd", b->arena, &out, &b->fault));
    assert_string_equal(out.parent.text, base.text);
    assert_true(stands(b, OTHER_UUID ".vhd"));
    bench_free(b);
}

/* ------------------------------------------------------------------ hostile and foreign directories */

static void assert_damaged(struct bench *b, const struct uuid *uuid, const char *says)
{
    struct vdi row = row_of(b, uuid);
    assert_int_equal(row.state, VDI_DAMAGED);
    if (!strstr(row.damage, says))
        fail_msg("\"%s\" does not say \"%s\"", row.damage, says);
}

static void make_child_of(struct bench *b, const struct uuid *id, const struct uuid *parent)
{
    struct fault f;
    struct kit k = kit_of(b);
    AUTO_FD int parent_fd = kit_fd(&k, parent);
    AUTO_FD int fd = kit_new(&k, id);
    assert_sound(image_vhd.make_child(fd, id, parent_fd, parent, &f), f);
}

static void a_damaged_parent_damages_its_children_and_nothing_else(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid good = uuid_random(), good_base, id = U(DISK_UUID), base, child = uuid_random();
    struct vdi out, out_base;
    create(b, &good, 2 * MIB);
    clone_of(b, &good, &good_base);
    create(b, &id, 2 * MIB);
    struct uuid copy = clone_of(b, &id, &base);
    make_child_of(b, &child, &id);
    shell("mv %s/%s.vhd %s/aside", b->location, base.text, b->top);
    assert_damaged(b, &id, base.text);
    assert_damaged(b, &id, "missing");
    assert_damaged(b, &copy, "missing");
    assert_damaged(b, &child, "is damaged");
    struct uuid made = uuid_random(), left = uuid_random();
    const struct plan p = fork_plan(&id, &made, &left, true);
    struct vdi row = row_of(b, &id);
    row.state = VDI_LIVE;
    must_fail(b, backend_vdi_fork(b->sr, &p, &row, &row, b->arena, &out, &out_base, &b->fault), FAULT_VDIUnavailable);
    must_undo(b, &p, entries(b));
    shell("head -c 700 %s/aside > %s/%s.vhd", b->top, b->location, base.text);
    assert_damaged(b, &id, "is damaged");
    shell("cp %s/%s.vhd %s/%s.vhd", b->location, good.text, b->location, base.text);
    assert_damaged(b, &copy, "identifiers differ");
    assert_true(row_of(b, &good).state == VDI_LIVE && row_of(b, &good_base).state == VDI_LIVE);
    shell("rm %s/%s.vhd; mv %s/aside %s/%s.vhd", b->location, base.text, b->top, b->location, base.text);
    assert_true(row_of(b, &id).hidden && row_of(b, &child).state == VDI_LIVE);
    bench_free(b);
}

static void loops_of_parents_are_damaged_and_the_rest_is_served(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid root = uuid_random(), one = uuid_random(), two = uuid_random(), below = uuid_random(),
                good = U(DISK_UUID);
    create(b, &good, 2 * MIB);
    create(b, &root, 2 * MIB);
    make_child_of(b, &one, &root);
    make_child_of(b, &two, &one);
    make_child_of(b, &below, &two);
    struct kit k = kit_of(b);
    struct fault f;
    AUTO_FD int fd = kit_fd(&k, &one);
    AUTO_FD int to = kit_fd(&k, &two);
    const struct image_journal journal = {k.dir, "journal"};
    assert_sound(image_vhd.set_parent(fd, to, &two, &image_vhd, &journal, &f), f);
    assert_damaged(b, &one, "comes back");
    assert_damaged(b, &two, "comes back");
    assert_damaged(b, &below, "is damaged");
    assert_true(row_of(b, &good).state == VDI_LIVE && row_of(b, &root).state == VDI_LIVE);
    struct vdi row = row_of(b, &below);
    const char *path;
    row.state = VDI_LIVE;
    must_fail(b, backend_vdi_attach(b->sr, &row, false, b->arena, &path, &b->fault), FAULT_VDILoad);
    must_fail(b, backend_vdi_read(b->sr, &row, -1, &b->fault), FAULT_VDILoad);
    bench_free(b);
}

static void any_flipped_bit_leaves_the_other_disks_served(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), base, good = U(OTHER_UUID);
    uint64_t seed = 21;
    create(b, &id, 2 * MIB);
    create(b, &good, 2 * MIB);
    clone_of(b, &id, &base);
    struct kit k = kit_of(b);
    AUTO_FD int fd = kit_fd(&k, &base);
    size_t length;
    AUTO_FREE unsigned char *data = kit_bytes(fd, &length);
    for (int i = 0; i < 200; i++) {
        size_t at = kit_random(&seed) % length;
        unsigned char flipped = (unsigned char) (data[at] ^ (1U << (kit_random(&seed) % 8)));
        assert_int_equal(io_write_at(fd, &flipped, 1, at), 0);
        assert_int_equal(row_of(b, &good).state, VDI_LIVE);
        assert_int_equal(bench_scan(b, NULL).count, 4);
        assert_int_equal(io_write_at(fd, data + at, 1, at), 0);
    }
    assert_int_equal(row_of(b, &id).state, VDI_LIVE);
    bench_free(b);
}

static void a_snapshot_of_the_older_manager_in_progress_is_told_and_left(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct uuid id = U(DISK_UUID), other = U(OTHER_UUID);
    create(b, &id, 2 * MIB);
    shell("cd %s && ln " DISK_UUID ".vhd " OTHER_UUID ".vhd && touch " DISK_UUID ".vhd.new", b->location);
    int before = entries(b);
    bench_restart(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    assert_damaged(b, &id, "more than one name");
    assert_damaged(b, &other, "more than one name");
    assert_int_equal(entries(b), before);
    bench_free(b);
}

/* ------------------------------------------------------------------ no space */

/* At whatever number of free blocks it stops: 44 and nothing changed, or done. */
static void a_fork_without_space_changes_nothing(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    struct uuid id = U(DISK_UUID), made = uuid_random(), left = uuid_random();
    struct vdi out, base;
    int refused = 0;
    shell("mkdir %s && mount -t tmpfs -o size=256k none %s", b->location, b->location);
    bench_create_sr(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    create(b, &id, 2 * MIB);
    for (int blocks = 0; blocks < 20; blocks++) {
        shell("cd %s && rm -f ballast; dd if=/dev/zero of=ballast bs=4k status=none 2>/dev/null; "
              "truncate -s -%dk ballast",
              b->location, blocks * 4);
        int before = entries(b);
        const struct plan p = fork_plan(&id, &made, &left, false);
        struct vdi row = row_of(b, &id), wanted = row;
        wanted.uuid = made;
        int r = backend_vdi_fork(b->sr, &p, &wanted, &row, b->arena, &out, &base, &b->fault);
        if (r == 0)
            break;
        refused++;
        must_fail(b, r, FAULT_SRNoSpace);
        must_undo(b, &p, before);
        row = row_of(b, &id);
        assert_false(uuid_is(&row.parent));
    }
    assert_true(refused > 3 && refused < 20);
    assert_true(is_listed(b, &made) && row_of(b, &left).hidden);
    bench_free(b);
}

int main(void)
{
    /* A /tmp of our own in memory: syncs cost nothing, and nothing stays behind. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/tmp", "tmpfs", 0, NULL) < 0)
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_trees_keep_every_disk_as_it_was_written),
        cmocka_unit_test(the_default_format_is_vhd_with_its_sizes),
        cmocka_unit_test(a_base_is_hidden_and_can_only_be_read),
        cmocka_unit_test(sources_that_cannot_be_forked_are_refused_and_nothing_changes),
        cmocka_unit_test(a_chain_never_gets_deeper_than_30),
        cmocka_unit_test(a_parent_that_is_deleted_stays_hidden_and_goes_with_its_last_child),
        cmocka_unit_test(a_raw_parent_is_neither_deleted_nor_hidden),
        cmocka_unit_test(a_visible_base_outlives_its_children),
        cmocka_unit_test(while_an_image_cannot_be_read_no_base_goes),
        cmocka_unit_test(a_base_keeps_its_size),
        cmocka_unit_test(a_grown_disk_keeps_its_size_when_it_is_reset),
        cmocka_unit_test(composing_refuses_roots_loops_and_parents),
        cmocka_unit_test(a_raw_disk_can_become_a_parent),
        cmocka_unit_test(what_is_read_out_is_sparse_in_a_file_and_whole_in_a_pipe),
        cmocka_unit_test(a_child_is_introduced_only_beside_its_parent),
        cmocka_unit_test(a_damaged_parent_damages_its_children_and_nothing_else),
        cmocka_unit_test(loops_of_parents_are_damaged_and_the_rest_is_served),
        cmocka_unit_test(any_flipped_bit_leaves_the_other_disks_served),
        cmocka_unit_test(a_snapshot_of_the_older_manager_in_progress_is_told_and_left),
        cmocka_unit_test(a_fork_without_space_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
