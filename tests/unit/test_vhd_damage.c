/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images cut short, flipped, forged and left by killed writers: refused with a sentence, or read as they were. */
#include "server/base/io.h"
#include "server/base/units.h"
#include "tests/unit/vhd_kit.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK (2 * MIB)

static size_t largest_allocation;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *__wrap_malloc(size_t size)
{
    if (size > largest_allocation)
        largest_allocation = size;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    if (count * size > largest_allocation)
        largest_allocation = count * size;
    return __real_calloc(count, size);
}

/* A child of two blocks (of three), over a base with one, and all it holds. */
struct scene {
    struct kit kit;
    struct uuid base, id;
    int fd;
    unsigned char *model, *bytes;
    size_t length;
    uint64_t seed;
    struct image_info info;
};

static void scene_begin(struct scene *s)
{
    struct fault f;
    *s = (struct scene){.seed = 21, .base = uuid_random(), .id = uuid_random()};
    kit_open(&s->kit);
    s->model = calloc(1, 3 * BLOCK);
    AUTO_FD int base = kit_new(&s->kit, &s->base);
    assert_sound(image_vhd.make(base, &s->base, 3 * BLOCK, &f), f);
    kit_write(&s->kit, &s->base, s->model, 2 * BLOCK, 64 * SECTOR_SIZE, &s->seed);
    s->fd = kit_new(&s->kit, &s->id);
    assert_sound(image_vhd.make_child(s->fd, &s->id, base, &s->base, &f), f);
    kit_write(&s->kit, &s->id, s->model, BLOCK + 40 * SECTOR_SIZE, 100 * SECTOR_SIZE, &s->seed);
    kit_write(&s->kit, &s->id, s->model, 2 * SECTOR_SIZE, 9 * SECTOR_SIZE, &s->seed);
    s->bytes = kit_bytes(s->fd, &s->length);
    assert_sound(image_vhd.info(s->fd, &s->info, &f), f);
}

static void scene_end(struct scene *s)
{
    close(s->fd);
    free(s->model);
    free(s->bytes);
    kit_close(&s->kit);
}

static void put(struct scene *s, uint64_t at, uint64_t value, size_t width)
{
    unsigned char raw[8];
    for (size_t i = 0; i < width; i++)
        raw[i] = (unsigned char) (value >> (8 * (width - 1 - i)));
    assert_int_equal(io_write_at(s->fd, raw, width, at), 0);
}

static void fix_checksum(struct scene *s, uint64_t at, size_t length, size_t checksum_at)
{
    unsigned char raw[1024];
    uint32_t sum = 0;
    assert_int_equal(io_read_at(s->fd, raw, length, at), 0);
    memset(raw + checksum_at, 0, 4);
    for (size_t i = 0; i < length; i++)
        sum += raw[i];
    put(s, at + checksum_at, ~sum, 4);
}

static void put_back(struct scene *s)
{
    assert_int_equal(io_write_at(s->fd, s->bytes, s->length, 0), 0);
    assert_int_equal(ftruncate(s->fd, (off_t) s->length), 0);
}

/* Reads the whole disk; 0, or -1 with VDILoad and a sentence, which nothing else may be. */
static int read_disk(struct scene *s, unsigned char *out, struct fault *f)
{
    struct vhd_chain *chain;
    int r = vhd_chain_open(s->fd, false, kit_open_parent, &s->kit, &chain, f);
    if (r == 0) {
        r = vhd_chain_read(chain, out, 3 * BLOCK, 0, f);
        vhd_chain_close(chain);
    }
    if (r < 0) {
        assert_int_equal(f->code, FAULT_VDILoad);
        assert_true(strlen(f->detail) > 10);
    }
    return r;
}

static void assert_refused(struct scene *s, const char *says)
{
    struct fault f;
    struct image_info info;
    assert_int_equal(image_vhd.info(s->fd, &info, &f), -1);
    assert_int_equal(f.code, FAULT_VDILoad);
    if (!strstr(f.detail, says))
        fail_msg("\"%s\" does not say \"%s\"", f.detail, says);
}

static void assert_reads_as_written(struct scene *s)
{
    struct fault f;
    AUTO_FREE unsigned char *found = malloc(3 * BLOCK);
    assert_sound(read_disk(s, found, &f), f);
    assert_true(memcmp(found, s->model, 3 * BLOCK) == 0);
}

static void a_file_cut_anywhere_is_refused_or_whole(void **state)
{
    (void) state;
    struct scene s;
    struct fault f;
    size_t whole = 0;
    AUTO_FREE unsigned char *found = malloc(3 * BLOCK);
    scene_begin(&s);
    for (size_t cut = 0; cut < s.length; cut += cut < 6000 || cut > s.length - 1500 ? 31 : 9973) {
        assert_int_equal(ftruncate(s.fd, (off_t) cut), 0);
        if (read_disk(&s, found, &f) == 0) {
            assert_true(memcmp(found, s.model, 3 * BLOCK) == 0);
            whole++;
        } else {
            /* the last block holds sectors up to 11 of its own, all else behind them may go */
            assert_true(cut < s.length - 512 - BLOCK + 11 * SECTOR_SIZE);
        }
        put_back(&s);
    }
    assert_true(whole > 16);
    scene_end(&s);
}

static bool is_same_info(const struct image_info *a, const struct image_info *b)
{
    return a->size == b->size && a->differencing == b->differencing && uuid_equal(&a->parent, &b->parent) &&
           memcmp(a->id, b->id, 16) == 0 && memcmp(a->parent_id, b->parent_id, 16) == 0;
}

/* Every bit of both footers, the header and the batmap's header. */
static void a_flipped_bit_is_refused_or_changes_nothing(void **state)
{
    (void) state;
    struct scene s;
    scene_begin(&s);
    const struct {
        size_t at, length;
        bool twice; /* kept a second time */
    } places[] = {{0, 512, true}, {512, 1024, false}, {2048, 28, false}, {s.length - 512, 512, true}};
    for (size_t p = 0; p < COUNT_OF(places); p++)
        for (size_t bit = 0; bit < places[p].length * 8; bit++) {
            struct fault f;
            struct image_info info;
            size_t at = places[p].at + bit / 8;
            put(&s, at, s.bytes[at] ^ (1U << bit % 8), 1);
            int r = image_vhd.info(s.fd, &info, &f);
            put(&s, at, s.bytes[at], 1);
            if (r == 0)
                assert_true(is_same_info(&info, &s.info));
            else
                assert_int_equal(f.code, FAULT_VDILoad);
            if (places[p].twice)
                assert_int_equal(r, 0);
            if (places[p].at == 512)
                assert_int_equal(r, -1);
        }
    scene_end(&s);
}

/* Forged fields under right checksums. */
static void absurd_fields_are_refused(void **state)
{
    (void) state;
    static const struct {
        uint64_t at, value;
        size_t width;
        const char *says;
    } footers[] =
        {
            {12, 0x00020000, 4, "format version"},
            {60, 0, 4, "disk type"},
            {60, 7, 4, "disk type"},
            {48, 0, 8, "virtual size"},
            {48, 513, 8, "virtual size"},
            {48, UINT64_MAX - 511, 8, "virtual size"},
            {48, 2041 * GIB, 8, "virtual size"},
            {48, 8 * MIB, 8, "BAT of 3 entries for 4"},
            {16, 0, 8, "a header at"},
            {16, UINT64_MAX, 8, "a header at"},
            {16, 1, 8, "a header at"},
            {16, 1024, 8, "header has no cookie"},
            {32, 1, 4, "tapdisk 0.1"},
        },
      headers[] =
          {
              {24, 2, 4, "header version"},
              {16, 0, 8, "a BAT of"},
              {16, UINT64_MAX - 511, 8, "a BAT of"},
              {16, 1537, 8, "a BAT of"},
              {28, 2, 4, "BAT of 2 entries"},
              {28, 0xffffffff, 4, "a BAT of"},
              {32, 0, 4, "blocks of"},
              {32, 3 * MIB, 4, "blocks of"},
              {32, 256 * 1024, 4, "blocks of"},
              {32, 0x80000000, 4, "blocks of"},
              {576 + 4, 0, 4, "parent locator 0"},
              {576 + 4, 0xfffffe00, 4, "parent locator 0"},
              {576 + 8, 513, 4, "parent locator 0"},
              {576 + 16, 0, 8, "parent locator 0"},
              {576 + 16, UINT64_MAX - 511, 8, "parent locator 0"},
          },
      batmaps[] = {
          {0, 0, 8, "no batmap"},    {8, 0, 8, "a batmap of"},           {8, UINT64_MAX - 511, 8, "a batmap of"},
          {16, 0, 4, "a batmap of"}, {16, 0xffffffff, 4, "a batmap of"}, {20, 0x00010003, 4, "a batmap of"},
      };
    struct scene s;
    scene_begin(&s);
    for (size_t i = 0; i < COUNT_OF(footers); i++) {
        for (int end = 0; end < 2; end++) {
            put(&s, footers[i].at + (end ? s.length - 512 : 0), footers[i].value, footers[i].width);
            fix_checksum(&s, end ? s.length - 512 : 0, 512, 64);
        }
        assert_refused(&s, footers[i].says);
        put_back(&s);
    }
    for (size_t i = 0; i < COUNT_OF(headers); i++) {
        put(&s, 512 + headers[i].at, headers[i].value, headers[i].width);
        fix_checksum(&s, 512, 1024, 36);
        assert_refused(&s, headers[i].says);
        put_back(&s);
    }
    for (size_t i = 0; i < COUNT_OF(batmaps); i++) {
        put(&s, 2048 + batmaps[i].at, batmaps[i].value, batmaps[i].width);
        assert_refused(&s, batmaps[i].says);
        put_back(&s);
    }
    scene_end(&s);
}

static void blocks_in_wrong_places_are_refused(void **state)
{
    (void) state;
    static const struct {
        uint32_t block, entry; /* block 1 stands at sector 15, block 0 behind it at 4119 */
        const char *says;
        bool reads; /* an overlap is seen by the check alone */
    } cases[] = {
        {0, 0, "over the metadata", false},    {0, 8, "over the metadata", false},
        {2, 8000, "behind the footer", false}, {2, 0xfffffffe, "behind the footer", false},
        {2, 15, "over another", true},         {2, 16, "over another", true},
        {0, 4111, "over another", true},
    };
    struct scene s;
    struct fault f;
    AUTO_FREE unsigned char *found = malloc(3 * BLOCK);
    scene_begin(&s);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct vhd_chain *chain;
        put(&s, 1536 + 4 * cases[i].block, cases[i].entry, 4);
        assert_int_equal(vhd_check(s.fd, &f), -1);
        if (!strstr(f.detail, cases[i].says))
            fail_msg("\"%s\" does not say \"%s\"", f.detail, cases[i].says);
        assert_int_equal(vhd_chain_open(s.fd, true, kit_open_parent, &s.kit, &chain, &f), -1);
        assert_int_equal(read_disk(&s, found, &f), cases[i].reads ? 0 : -1);
        put_back(&s);
    }
    scene_end(&s);
}

static void footers_of_two_disks_a_disabled_one_and_a_wrong_batmap_are_refused(void **state)
{
    (void) state;
    struct scene s;
    struct fault f;
    scene_begin(&s);
    put(&s, s.length - 512 + 48, 2 * BLOCK, 8);
    fix_checksum(&s, s.length - 512, 512, 64);
    assert_refused(&s, "different disks");
    put_back(&s);
    for (int end = 0; end < 2; end++)
        assert_int_equal(io_write_at(s.fd, "v_poison", 8, end ? s.length - 512 : 0), 0);
    assert_refused(&s, "marked as disabled");
    put_back(&s);
    put(&s, 2560, 0x80, 1); /* a bit of the batmap, whose checksum stays */
    assert_int_equal(vhd_check(s.fd, &f), -1);
    assert_non_null(strstr(f.detail, "batmap has a wrong checksum"));
    put(&s, 2560, 0x20, 1); /* block 2 full, which is nowhere */
    put(&s, 2048 + 24, 0xffffffff - 0x20, 4);
    assert_int_equal(vhd_check(s.fd, &f), -1);
    assert_non_null(strstr(f.detail, "block 2 is full"));
    put_back(&s);
    assert_sound(vhd_check(s.fd, &f), f);
    scene_end(&s);
}

/* tapdisk fills the last footer with c7 while it writes; killed, it leaves that, or a block over it. */
static void an_image_left_by_a_killed_writer_reads_and_gets_its_footer_back(void **state)
{
    (void) state;
    struct scene s;
    struct stat st;
    unsigned char end[512];
    scene_begin(&s);
    for (int cut = 0; cut < 2; cut++) {
        if (cut)
            assert_int_equal(ftruncate(s.fd, (off_t) (s.length - 512 - BLOCK + 11 * SECTOR_SIZE)), 0);
        else
            for (size_t i = 0; i < 512; i++)
                put(&s, s.length - 512 + i, 0xc7, 1);
        assert_reads_as_written(&s);
        kit_write(&s.kit, &s.id, s.model, 300 * SECTOR_SIZE, SECTOR_SIZE, &s.seed);
        assert_reads_as_written(&s);
        assert_int_equal(fstat(s.fd, &st), 0);
        assert_int_equal(st.st_size, s.length);
        assert_int_equal(io_read_at(s.fd, end, sizeof end, s.length - 512), 0);
        assert_memory_equal(end, s.bytes, 512);
        put_back(&s);
        memcpy(s.model + 300 * SECTOR_SIZE, (unsigned char[SECTOR_SIZE]){0}, SECTOR_SIZE);
    }
    scene_end(&s);
}

static void put_name(struct scene *s, uint64_t at, const char *text, int low, size_t room)
{
    unsigned char raw[512] = {0};
    for (size_t i = 0; text[i]; i++)
        raw[low < 0 ? i : 2 * i + (size_t) low] = (unsigned char) text[i];
    assert_int_equal(io_write_at(s->fd, raw, room, at), 0);
}

/* Puts a parent's path in all places a name can stand; only tells which VDI it is. */
static void name_parent(struct scene *s, const char *url, const char *windows, const char *name)
{
    static const uint64_t locators = 2560 + 512;
    put_name(s, locators, url, -1, 512);
    put_name(s, locators + 512, windows, 0, 512);
    put_name(s, locators + 1024, windows, 0, 512);
    put_name(s, 512 + 64, name, 1, 512);
    put(s, 512 + 576 + 8, strlen(url), 4);
    put(s, 512 + 600 + 8, 2 * strlen(windows), 4);
    put(s, 512 + 624 + 8, 2 * strlen(windows), 4);
    fix_checksum(s, 512, 1024, 36);
}

static void a_parent_is_known_by_the_uuid_in_its_base_name(void **state)
{
    (void) state;
#define U "c0ffee00-1111-4222-8333-444455556666"
    static const struct {
        const char *url, *windows, *name, *uuid;
    } cases[] = {
        {"file://./" U ".vhd", "", "", U},
        {"file:///etc/../run/sr-mount/x/" U ".vhd", "", "", U},
        {"file://./VHD-" U, "", "", U},
        {"file://./LV-" U, "", "", U},
        {"file://" U ".raw", "", "", U},
        {"/" U ".vhd", ".\\" U ".vhd", "", U},
        {"file:///etc/shadow", "C:\\images\\" U ".vhd", "", U},
        {"file://./" U ".vhd/passwd", "", U ".vhd", U},
        {"file://./" U ".vhdx", "..\\..\\shadow", "shadow", ""},
        {"file://", "", "", ""},
    };
    struct scene s;
    scene_begin(&s);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fault f;
        struct image_info info;
        name_parent(&s, cases[i].url, cases[i].windows, cases[i].name);
        assert_sound(image_vhd.info(s.fd, &info, &f), f);
        assert_string_equal(info.parent.text, cases[i].uuid);
    }
    scene_end(&s);
}

static void checking_the_largest_disk_takes_at_most_8_mib(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct vhd_chain *chain;
    struct uuid id = uuid_random();
    unsigned char sector[SECTOR_SIZE] = {1};
    kit_open(&k);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(image_vhd.make(fd, &id, 2040 * GIB, &f), f);
    assert_int_equal(ftruncate(fd, (off_t) (4096 * GIB)), 0); /* no footer at its end, and all a BAT can reach */
    largest_allocation = 0;
    assert_sound(vhd_check(fd, &f), f);
    assert_sound(vhd_chain_open(fd, true, kit_open_parent, &k, &chain, &f), f);
    assert_sound(vhd_chain_write(chain, sector, sizeof sector, 2040 * GIB - SECTOR_SIZE, &f), f);
    vhd_chain_close(chain);
    assert_true(largest_allocation > MIB && largest_allocation <= 8 * MIB);
    assert_sound(vhd_check(fd, &f), f);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_anywhere_is_refused_or_whole),
        cmocka_unit_test(a_flipped_bit_is_refused_or_changes_nothing),
        cmocka_unit_test(absurd_fields_are_refused),
        cmocka_unit_test(blocks_in_wrong_places_are_refused),
        cmocka_unit_test(footers_of_two_disks_a_disabled_one_and_a_wrong_batmap_are_refused),
        cmocka_unit_test(an_image_left_by_a_killed_writer_reads_and_gets_its_footer_back),
        cmocka_unit_test(a_parent_is_known_by_the_uuid_in_its_base_name),
        cmocka_unit_test(checking_the_largest_disk_takes_at_most_8_mib),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
