/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random writes over random trees, against plain bytes and other programs.
   SMAPI_VHD_TREES: how many trees (20); SMAPI_VHD_SEED: where the sequence begins (1). */
#include "backends/images/vhd_layout.h"
#include "server/base/io.h"
#include "tests/unit/vhd_kit.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 12
#define DEPTH 8

struct node {
    struct uuid id;
    unsigned char *model;
    uint64_t size;
    size_t depth;
    bool has_child, grew; /* grew: larger than a parent of its, which 7zz cannot read */
};

struct tree {
    struct kit kit;
    struct node nodes[NODES];
    size_t count;
    uint64_t seed;
};

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static void tree_begin(struct tree *t, uint64_t seed)
{
    struct fault f;
    struct node *n = &t->nodes[0];
    *t = (struct tree){.seed = seed, .count = 1};
    kit_open(&t->kit);
    *n = (struct node){.id = uuid_random(), .size = (1 + kit_random(&t->seed) % 6) * VHD_BLOCK_SIZE, .depth = 1};
    n->model = calloc(1, n->size);
    AUTO_FD int fd = kit_new(&t->kit, &n->id);
    assert_sound(image_vhd.make(fd, &n->id, n->size, &f), f);
}

static void tree_end(struct tree *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->nodes[i].model);
    kit_close(&t->kit);
}

static void add_child(struct tree *t, struct node *parent)
{
    struct fault f;
    struct node *n = &t->nodes[t->count];
    if (t->count == NODES || parent->depth == DEPTH)
        return;
    *n = (struct node){.id = uuid_random(), .size = parent->size, .depth = parent->depth + 1, .grew = parent->grew};
    n->model = malloc(n->size);
    memcpy(n->model, parent->model, n->size);
    AUTO_FD int fd = kit_new(&t->kit, &n->id);
    AUTO_FD int parent_fd = kit_fd(&t->kit, &parent->id);
    assert_sound(image_vhd.make_child(fd, &n->id, parent_fd, &parent->id, &f), f);
    assert_sound(image_vhd.hide(parent_fd, true, &f), f);
    parent->has_child = true;
    t->count++;
}

static void write_somewhere(struct tree *t, struct node *n)
{
    uint64_t total = n->size / SECTOR_SIZE, first = kit_random(&t->seed) % total;
    uint64_t most = kit_random(&t->seed) % 4 ? 40 : 6000, count = 1 + kit_random(&t->seed) % most;
    if (count > total - first)
        count = total - first;
    kit_write(&t->kit, &n->id, n->model, first * SECTOR_SIZE, count * SECTOR_SIZE, &t->seed);
}

static void grow(struct tree *t, struct node *n)
{
    struct fault f;
    struct image_journal journal = {t->kit.dir, "journal"};
    uint64_t size = n->size + (1 + kit_random(&t->seed) % 3) * VHD_BLOCK_SIZE;
    AUTO_FD int fd = kit_fd(&t->kit, &n->id);
    assert_sound(image_vhd.grow(fd, size, &journal, &f), f);
    n->model = realloc(n->model, size);
    memset(n->model + n->size, 0, size - n->size);
    n->size = size;
    n->grew = n->depth > 1 || n->grew;
}

static void step(struct tree *t)
{
    struct node *n = &t->nodes[kit_random(&t->seed) % t->count];
    uint32_t what = kit_random(&t->seed) % 10;
    if (what < 3)
        add_child(t, kit_random(&t->seed) % 2 ? n : &t->nodes[t->count - 1]);
    else if (!n->has_child && what == 9)
        grow(t, n);
    else if (!n->has_child)
        write_somewhere(t, n);
}

/* 7zz takes the hidden mark, in bytes the specification reserves, for damage. */
static void assert_hidden_and_show(struct tree *t, const struct node *n)
{
    struct fault f;
    struct image_info info;
    AUTO_FD int fd = kit_fd(&t->kit, &n->id);
    assert_sound(image_vhd.info(fd, &info, &f), f);
    assert_int_equal(info.hidden, n->has_child);
    assert_sound(image_vhd.hide(fd, false, &f), f);
}

static void assert_tree(struct tree *t)
{
    for (size_t i = 0; i < t->count; i++) {
        kit_assert_disk(&t->kit, &t->nodes[i].id, t->nodes[i].model, t->nodes[i].size, &t->seed);
        assert_hidden_and_show(t, &t->nodes[i]);
    }
    for (size_t i = 0; i < t->count && kit_has("7zz"); i++)
        if (!t->nodes[i].grew)
            kit_assert_7zz(&t->kit, &t->nodes[i].id, t->nodes[i].model, t->nodes[i].size);
}

static void every_node_of_random_trees_reads_as_written(void **state)
{
    (void) state;
    uint64_t trees = setting("SMAPI_VHD_TREES", 20), seed = setting("SMAPI_VHD_SEED", 1);
    for (uint64_t i = 0; i < trees; i++) {
        struct tree t;
        tree_begin(&t, seed + i);
        for (int s = 0; s < 40; s++)
            step(&t);
        assert_tree(&t);
        tree_end(&t);
    }
}

static void a_chain_of_30_reads_and_one_of_31_is_refused(void **state)
{
    (void) state;
    struct fault f;
    struct vhd_chain *chain;
    struct kit k;
    struct uuid ids[VHD_CHAIN_LIMIT + 1];
    unsigned char model[VHD_BLOCK_SIZE] = {0};
    uint64_t seed = 7;
    kit_open(&k);
    for (size_t i = 0; i < COUNT_OF(ids); i++) {
        ids[i] = uuid_random();
        AUTO_FD int fd = kit_new(&k, &ids[i]);
        AUTO_FD int parent = i ? kit_fd(&k, &ids[i - 1]) : -1;
        if (i == 0)
            assert_sound(image_vhd.make(fd, &ids[i], sizeof model, &f), f);
        else
            assert_sound(image_vhd.make_child(fd, &ids[i], parent, &ids[i - 1], &f), f);
        if (i < VHD_CHAIN_LIMIT)
            kit_write(&k, &ids[i], model, i * 7 * SECTOR_SIZE, 11 * SECTOR_SIZE, &seed);
    }
    kit_assert_disk(&k, &ids[VHD_CHAIN_LIMIT - 1], model, sizeof model, &seed);
    if (kit_has("7zz"))
        kit_assert_7zz(&k, &ids[VHD_CHAIN_LIMIT - 1], model, sizeof model);
    AUTO_FD int last = kit_fd(&k, &ids[VHD_CHAIN_LIMIT]);
    assert_int_equal(vhd_chain_open(last, false, kit_open_parent, &k, &chain, &f), -1);
    assert_int_equal(f.code, FAULT_VDILoad);
    assert_non_null(strstr(f.detail, "more than 30"));
    kit_close(&k);
}

static void a_child_of_a_raw_disk_reads_through_it(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct image_info info;
    struct uuid parent = uuid_random(), id = uuid_random();
    char name[64];
    uint64_t seed = 3, size = 2 * VHD_BLOCK_SIZE;
    AUTO_FREE unsigned char *model = calloc(1, size);
    kit_open(&k);
    snprintf(name, sizeof name, "%s.raw", parent.text);
    AUTO_FD int raw = openat(k.dir, name, O_RDWR | O_CREAT, 0600);
    for (size_t i = 0; i < size / 2; i++)
        model[i] = (unsigned char) kit_random(&seed);
    assert_int_equal(io_write_at(raw, model, size / 2, 0), 0);
    assert_int_equal(ftruncate(raw, (off_t) size), 0);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(vhd_make_child_of_raw(fd, &id, raw, &parent, &f), f);
    kit_write(&k, &id, model, 5 * SECTOR_SIZE, 3 * SECTOR_SIZE, &seed);
    kit_write(&k, &id, model, size - SECTOR_SIZE, SECTOR_SIZE, &seed);
    kit_assert_disk(&k, &id, model, size, &seed);
    assert_sound(image_vhd.info(fd, &info, &f), f);
    assert_true(info.differencing);
    assert_string_equal(info.parent.text, parent.text);
    kit_close(&k);
}

/* An image of 4 MiB whose BAT has eight entries for blocks of 512 KiB. */
static void make_small_blocks(int fd, const struct uuid *id)
{
    struct fault f;
    struct vhd_header header;
    unsigned char raw[VHD_HEADER_SIZE], entries[8 * 4];
    assert_sound(image_vhd.make(fd, id, 4 * MIB, &f), f);
    assert_int_equal(io_read_at(fd, raw, sizeof raw, VHD_HEADER_AT), 0);
    assert_null(vhd_header_in(raw, &header));
    header.block_size = VHD_BLOCK_SMALL;
    header.max_entries = 8;
    vhd_header_out(&header, raw);
    memset(entries, 0xff, sizeof entries);
    assert_int_equal(io_write_at(fd, raw, sizeof raw, VHD_HEADER_AT), 0);
    assert_int_equal(io_write_at(fd, entries, sizeof entries, VHD_BAT_AT), 0);
}

static void blocks_of_512_kib_read_as_written_under_blocks_of_2_mib(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct uuid base = uuid_random(), child = uuid_random();
    uint64_t seed = 4;
    AUTO_FREE unsigned char *model = calloc(1, 4 * MIB);
    kit_open(&k);
    AUTO_FD int base_fd = kit_new(&k, &base);
    AUTO_FD int child_fd = kit_new(&k, &child);
    make_small_blocks(base_fd, &base);
    kit_write(&k, &base, model, 1000 * SECTOR_SIZE, 2000 * SECTOR_SIZE, &seed);
    kit_write(&k, &base, model, 8191 * SECTOR_SIZE, SECTOR_SIZE, &seed);
    kit_assert_disk(&k, &base, model, 4 * MIB, &seed);
    assert_sound(image_vhd.make_child(child_fd, &child, base_fd, &base, &f), f);
    kit_write(&k, &child, model, 1500 * SECTOR_SIZE, 30 * SECTOR_SIZE, &seed);
    kit_assert_disk(&k, &child, model, 4 * MIB, &seed);
    if (kit_has("7zz"))
        kit_assert_7zz(&k, &child, model, 4 * MIB);
    kit_close(&k);
}

static void assert_refused(struct kit *k, const struct uuid *id, const char *says)
{
    struct fault f;
    struct vhd_chain *chain;
    AUTO_FD int fd = kit_fd(k, id);
    assert_int_equal(vhd_chain_open(fd, false, kit_open_parent, k, &chain, &f), -1);
    assert_int_equal(f.code, FAULT_VDILoad);
    if (!strstr(f.detail, says))
        fail_msg("\"%s\" does not say \"%s\"", f.detail, says);
}

static void make_pair(struct kit *k, struct uuid *base, struct uuid *child)
{
    struct fault f;
    *base = uuid_random();
    *child = uuid_random();
    AUTO_FD int base_fd = kit_new(k, base);
    AUTO_FD int child_fd = kit_new(k, child);
    assert_sound(image_vhd.make(base_fd, base, VHD_BLOCK_SIZE, &f), f);
    assert_sound(image_vhd.make_child(child_fd, child, base_fd, base, &f), f);
}

static void missing_changed_and_cyclic_parents_are_refused(void **state)
{
    (void) state;
    struct kit k;
    struct uuid base, child, other_base, other_child;
    char from[64], to[64];
    kit_open(&k);
    make_pair(&k, &base, &child);
    make_pair(&k, &other_base, &other_child);
    snprintf(from, sizeof from, "%s.vhd", other_base.text);
    snprintf(to, sizeof to, "%s.vhd", base.text);
    assert_int_equal(renameat(k.dir, from, k.dir, to), 0);
    assert_refused(&k, &child, "identifiers differ");
    assert_refused(&k, &other_child, "no image");
    snprintf(from, sizeof from, "%s.vhd", child.text);
    assert_int_equal(unlinkat(k.dir, to, 0), 0);
    assert_int_equal(linkat(k.dir, from, k.dir, to, 0), 0);
    assert_refused(&k, &child, "a loop");
    kit_close(&k);
}

/* Enough of a disk to fill an image of another program. */
static void write_raw(struct kit *k, const char *name, unsigned char *model, uint64_t size, uint64_t *seed)
{
    AUTO_FD int fd = openat(k->dir, name, O_RDWR | O_CREAT, 0600);
    memset(model, 0, size);
    for (uint64_t i = 0; i < size / 3; i++)
        model[i] = (unsigned char) kit_random(seed);
    model[size - 1] = 1;
    assert_int_equal(io_write_at(fd, model, size, 0), 0);
}

static void convert(struct kit *k, const char *from_format, const char *to_format, const char *option, const char *from,
                    const char *to)
{
    unsigned char none[1];
    const char *const argv[] = {"qemu-img", "convert", "-f", from_format, "-O", to_format,
                                "-o",       option,    from, to,          NULL};
    assert_int_equal(kit_output(k, argv, none, sizeof none), 0);
}

/* qemu-img reads the image as the model. */
static void assert_qemu(struct kit *k, const char *name, const unsigned char *model, uint64_t size)
{
    convert(k, "vpc", "raw", "preallocation=off", name, "out");
    kit_assert_file(k, "out", model, size);
}

static void images_of_qemu_read_right_and_ours_are_read_right_by_it(void **state)
{
    (void) state;
    static const char *const kinds[] = {"dynamic", "fixed"};
    struct fault f;
    struct kit k;
    struct image_info info;
    uint64_t seed = 11, size = 5 * VHD_BLOCK_SIZE;
    AUTO_FREE unsigned char *model = malloc(size);
    if (!kit_has("qemu-img"))
        skip();
    kit_open(&k);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct uuid id = uuid_random();
        char name[64], option[64];
        write_raw(&k, "raw", model, size, &seed);
        snprintf(name, sizeof name, "%s.vhd", id.text);
        snprintf(option, sizeof option, "subformat=%s,force_size=on", kinds[i]);
        convert(&k, "raw", "vpc", option, "raw", name);
        AUTO_FD int fd = kit_fd(&k, &id);
        assert_sound(image_vhd.info(fd, &info, &f), f);
        assert_int_equal(info.size, size);
        assert_false(info.differencing || info.hidden);
        kit_assert_disk(&k, &id, model, size, &seed);
        kit_write(&k, &id, model, 6000 * SECTOR_SIZE, 3000 * SECTOR_SIZE, &seed);
        kit_assert_disk(&k, &id, model, size, &seed);
        assert_qemu(&k, name, model, size);
    }
    kit_close(&k);
}

static void an_image_of_ours_is_whole_for_qemu(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct uuid id = uuid_random();
    uint64_t seed = 12, size = 3 * VHD_BLOCK_SIZE;
    AUTO_FREE unsigned char *model = calloc(1, size);
    char name[64];
    if (!kit_has("qemu-img"))
        skip();
    kit_open(&k);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(image_vhd.make(fd, &id, size, &f), f);
    kit_write(&k, &id, model, 4000 * SECTOR_SIZE, 300 * SECTOR_SIZE, &seed);
    kit_write(&k, &id, model, 0, SECTOR_SIZE, &seed);
    snprintf(name, sizeof name, "%s.vhd", id.text);
    assert_qemu(&k, name, model, size);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_node_of_random_trees_reads_as_written),
        cmocka_unit_test(a_chain_of_30_reads_and_one_of_31_is_refused),
        cmocka_unit_test(a_child_of_a_raw_disk_reads_through_it),
        cmocka_unit_test(blocks_of_512_kib_read_as_written_under_blocks_of_2_mib),
        cmocka_unit_test(missing_changed_and_cyclic_parents_are_refused),
        cmocka_unit_test(images_of_qemu_read_right_and_ours_are_read_right_by_it),
        cmocka_unit_test(an_image_of_ours_is_whole_for_qemu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
