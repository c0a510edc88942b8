/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images byte for byte, put together here from the format's published offsets and nothing of the program's. */
#include "tests/unit/vhd_kit.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define ID     "00112233-4455-6677-8899-aabbccddeeff"
#define PARENT "c0ffee00-1111-4222-8333-444455556666"
#define KIB    UINT64_C(1024)

static void put(unsigned char *at, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++)
        at[i] = (unsigned char) (value >> (8 * (width - 1 - i)));
}

static uint64_t get(const unsigned char *at, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value = value << 8 | at[i];
    return value;
}

static void put_checksum(unsigned char *structure, size_t length, size_t at)
{
    uint32_t sum = 0;
    memset(structure + at, 0, 4);
    for (size_t i = 0; i < length; i++)
        sum += structure[i];
    put(structure + at, ~sum, 4);
}

struct wanted {
    uint64_t size;
    uint32_t geometry, entries, type, timestamp, parent_timestamp;
    bool hidden;
};

static void expect_footer(unsigned char *out, const struct wanted *w)
{
    memset(out, 0, 512);
    memcpy(out, "conectix", 8);
    put(out + 8, 2, 4);           /* features */
    put(out + 12, 0x00010000, 4); /* format version */
    put(out + 16, 512, 8);        /* data offset */
    put(out + 24, w->timestamp, 4);
    memcpy(out + 28, "tap\0", 4);
    put(out + 32, 0x00010003, 4); /* creator version */
    put(out + 36, 0, 4);          /* creator's system */
    put(out + 40, w->size, 8);
    put(out + 48, w->size, 8);
    put(out + 56, w->geometry, 4);
    put(out + 60, w->type, 4);
    for (unsigned i = 0; i < 16; i++)
        out[68 + i] = (unsigned char) (i * 0x11);
    out[85] = w->hidden;
    put_checksum(out, 512, 64);
}

static void expect_utf16(unsigned char *out, const char *text, size_t low)
{
    for (size_t i = 0; text[i]; i++)
        out[2 * i + low] = (unsigned char) text[i];
}

static void expect_locator(unsigned char *header, size_t i, const char *code, uint64_t length, uint64_t at)
{
    unsigned char *out = header + 576 + 24 * i;
    memcpy(out, code, 4);
    put(out + 4, 512, 4); /* in bytes */
    put(out + 8, length, 4);
    put(out + 16, at, 8);
}

static void expect_header(unsigned char *out, const struct wanted *w, uint64_t locators)
{
    memset(out, 0, 1024);
    memcpy(out, "cxsparse", 8);
    memset(out + 8, 0xff, 8);
    put(out + 16, 1536, 8); /* the BAT */
    put(out + 24, 0x00010000, 4);
    put(out + 28, w->entries, 4);
    put(out + 32, 2048 * KIB, 4);
    if (w->type == 4) {
        for (unsigned i = 0; i < 16; i++)
            out[40 + i] = (unsigned char) (i * 0x11);
        put(out + 56, w->parent_timestamp, 4);
        expect_utf16(out + 64, PARENT ".vhd", 1);
        expect_locator(out, 0, "MacX", strlen("file://./" PARENT ".vhd"), locators);
        expect_locator(out, 1, "W2ku", 2 * strlen(".\\" PARENT ".vhd"), locators + 512);
        expect_locator(out, 2, "W2ru", 2 * strlen(".\\" PARENT ".vhd"), locators + 1024);
    }
    put_checksum(out, 1024, 36);
}

static uint64_t padded(uint64_t n)
{
    return (n + 511) / 512 * 512;
}

/* The whole image; free. */
static unsigned char *expect_image(const struct wanted *w, size_t *length)
{
    uint64_t bat_end = 1536 + padded(w->entries * UINT64_C(4)), map = padded((w->entries + 7) / 8);
    uint64_t locators = bat_end + 512 + map, end = locators + (w->type == 4 ? 3 * 512 : 0);
    unsigned char *out = calloc(1, end + 512);
    assert_non_null(out);
    expect_footer(out, w);
    expect_header(out + 512, w, locators);
    memset(out + 1536, 0xff, w->entries * UINT64_C(4));
    memcpy(out + bat_end, "tdbatmap", 8);
    put(out + bat_end + 8, bat_end + 512, 8);
    put(out + bat_end + 16, map / 512, 4);
    put(out + bat_end + 20, 0x00010002, 4);
    put(out + bat_end + 24, 0xffffffff, 4); /* checksum of a clear map */
    if (w->type == 4) {
        memcpy(out + locators, "file://./" PARENT ".vhd", strlen("file://./" PARENT ".vhd"));
        expect_utf16(out + locators + 512, ".\\" PARENT ".vhd", 0);
        expect_utf16(out + locators + 1024, ".\\" PARENT ".vhd", 0);
    }
    expect_footer(out + end, w);
    *length = end + 512;
    return out;
}

static void assert_image(int fd, const struct wanted *w)
{
    size_t length, expected_length;
    AUTO_FREE unsigned char *found = kit_bytes(fd, &length);
    AUTO_FREE unsigned char *expected = expect_image(w, &expected_length);
    assert_int_equal(length, expected_length);
    for (size_t i = 0; i < length; i++)
        if (found[i] != expected[i])
            fail_msg("byte %zu is %02x, not %02x", i, found[i], expected[i]);
}

static uint32_t now(void)
{
    return (uint32_t) (time(NULL) - 946684800);
}

/* The timestamp that was written, which is the present. */
static uint32_t assert_fresh(int fd)
{
    unsigned char raw[512];
    assert_int_equal(pread(fd, raw, sizeof raw, 0), 512);
    uint32_t stamp = (uint32_t) get(raw + 24, 4);
    assert_in_range(stamp, now() - 5, now());
    return stamp;
}

static struct uuid uuid_of(const char *text)
{
    struct uuid u;
    assert_true(uuid_parse_text(text, &u));
    return u;
}

static void a_new_image_is_byte_for_byte_what_xens_tools_make(void **state)
{
    (void) state;
    /* geometry: cylinders << 16 | heads << 8 | sectors, by the specification's appendix on paper */
    static const struct wanted cases[] = {
        {.size = 2048 * KIB, .geometry = 60U << 16 | 4 << 8 | 17, .entries = 1, .type = 3},
        {.size = 1024 * 1024 * KIB, .geometry = 2080U << 16 | 16 << 8 | 63, .entries = 512, .type = 3},
        {.size = 1026 * 1024 * KIB, .geometry = 2084U << 16 | 16 << 8 | 63, .entries = 513, .type = 3},
        {.size = 2040 * 1024 * 1024 * KIB, .geometry = 65535U << 16 | 16 << 8 | 255, .entries = 1044480, .type = 3},
    };
    struct uuid id = uuid_of(ID);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fault f;
        struct wanted w = cases[i];
        struct kit k;
        kit_open(&k);
        AUTO_FD int fd = kit_new(&k, &id);
        assert_sound(image_vhd.make(fd, &id, w.size, &f), f);
        w.timestamp = assert_fresh(fd);
        assert_image(fd, &w);
        assert_sound(vhd_check(fd, &f), f);
        kit_close(&k);
    }
}

static void a_child_is_byte_for_byte_what_xens_tools_make(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct stat st;
    struct image_info info;
    struct uuid id = uuid_of(ID), parent = uuid_of(PARENT);
    struct wanted w = {.size = 20480 * KIB, .geometry = 602U << 16 | 4 << 8 | 17, .entries = 10, .type = 4};
    kit_open(&k);
    AUTO_FD int parent_fd = kit_new(&k, &parent);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(image_vhd.make(parent_fd, &id, w.size, &f), f); /* the parent's own identifier is ID here */
    assert_int_equal(fstat(parent_fd, &st), 0);
    w.parent_timestamp = (uint32_t) (st.st_mtime - 946684800);
    assert_sound(image_vhd.make_child(fd, &id, parent_fd, &parent, &f), f);
    w.timestamp = assert_fresh(fd);
    assert_image(fd, &w);
    assert_sound(image_vhd.info(fd, &info, &f), f);
    assert_true(info.differencing);
    assert_string_equal(info.parent.text, PARENT);
    assert_memory_equal(info.parent_id, info.id, 16);
    kit_close(&k);
}

static void hiding_changes_the_hidden_byte_and_the_checksums_alone(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct image_info info;
    struct uuid id = uuid_of(ID);
    struct wanted w = {.size = 2048 * KIB, .geometry = 60U << 16 | 4 << 8 | 17, .entries = 1, .type = 3};
    kit_open(&k);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(image_vhd.make(fd, &id, w.size, &f), f);
    w.timestamp = assert_fresh(fd);
    for (int i = 0; i < 2; i++) {
        w.hidden = i == 0;
        assert_sound(image_vhd.hide(fd, w.hidden, &f), f);
        assert_image(fd, &w);
        assert_sound(image_vhd.info(fd, &info, &f), f);
        assert_int_equal(info.hidden, w.hidden);
    }
    kit_close(&k);
}

static void a_written_block_lies_on_a_page_behind_its_bitmap(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct uuid id = uuid_of(ID);
    size_t length;
    uint64_t seed = 5;
    AUTO_FREE unsigned char *model = calloc(1, 4096 * KIB);
    kit_open(&k);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(image_vhd.make(fd, &id, 4096 * KIB, &f), f);
    kit_write(&k, &id, model, 2048 * KIB + 3 * 512, 2 * 512, &seed);
    AUTO_FREE unsigned char *found = kit_bytes(fd, &length);
    /* metadata ends at 3072; the bitmap stands in the sector before the page at 4096 */
    assert_int_equal(get(found + 1536, 4), 0xffffffff);
    assert_int_equal(get(found + 1540, 4), 7);
    assert_int_equal(found[3584], 0x18);
    for (size_t i = 3585; i < 4096; i++)
        assert_int_equal(found[i], 0);
    assert_memory_equal(found + 4096 + 3 * 512, model + 2048 * KIB + 3 * 512, 1024);
    assert_int_equal(length, 4096 + 2048 * KIB + 512);
    assert_memory_equal(found + length - 512, found, 512);
    assert_int_equal(get(found + 3072, 8), 0); /* the old footer is gone */
    kit_close(&k);
}

static void sizes_round_up_to_2_mib_within_the_limits(void **state)
{
    (void) state;
    struct fault f;
    uint64_t size;
    static const struct {
        uint64_t wanted, gets; /* 0: refused */
    } cases[] = {
        {0, 0},
        {1, 2097152},
        {2097152, 2097152},
        {2097153, 4194304},
        {UINT64_C(2190433320959), UINT64_C(2190433320960)},
        {UINT64_C(2190433320960), UINT64_C(2190433320960)},
        {UINT64_C(2190433320961), 0},
        {UINT64_MAX, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int r = image_vhd.round(cases[i].wanted, &size, &f);
        assert_int_equal(r, cases[i].gets ? 0 : -1);
        if (r == 0)
            assert_int_equal(size, cases[i].gets);
        else
            assert_int_equal(f.code, FAULT_VDISize);
    }
    assert_non_null(strstr(f.detail, "2097152"));
    assert_non_null(strstr(f.detail, "2190433320960"));
}

/* Header fields as libvhdi reads them. */
static void vhdiinfo_reads_our_headers(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct uuid id = uuid_of(ID);
    char name[64];
    unsigned char output[2048] = "";
    const char *text = (const char *) output;
    if (!kit_has("vhdiinfo"))
        skip();
    kit_open(&k);
    AUTO_FD int fd = kit_new(&k, &id);
    assert_sound(image_vhd.make(fd, &id, 20480 * KIB, &f), f);
    snprintf(name, sizeof name, "%s.vhd", id.text);
    assert_true(kit_output(&k, (const char *const[]){"vhdiinfo", name, NULL}, output, sizeof output - 1) > 100);
    assert_non_null(strstr(text, "1.0"));
    assert_non_null(strstr(text, "Dynamic"));
    assert_non_null(strstr(text, "20971520 bytes"));
    assert_non_null(strstr(text, ID));
    kit_close(&k);
}

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return x < y ? -1 : x > y;
}

static double nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

/* The work over a plain stat and two reads, warm, at the median: 6 us, of which debug builds and sanitizers get more.
 */
static void info_costs_little_more_than_its_reads(void **state)
{
    (void) state;
    struct fault f;
    struct kit k;
    struct image_info info;
    struct stat st;
    struct uuid id = uuid_of(ID), child = uuid_of(PARENT);
    unsigned char raw[1536];
    double times[1001];
    kit_open(&k);
    AUTO_FD int fd = kit_new(&k, &id);
    AUTO_FD int child_fd = kit_new(&k, &child);
    assert_sound(image_vhd.make(fd, &id, 2048 * 1024 * KIB, &f), f);
    assert_sound(image_vhd.make_child(child_fd, &child, fd, &id, &f), f);
    for (size_t i = 0; i < COUNT_OF(times); i++) {
        double begin = nanoseconds();
        assert_int_equal(fstat(child_fd, &st), 0);
        assert_int_equal(pread(child_fd, raw, 512, st.st_size - 512), 512);
        assert_int_equal(pread(child_fd, raw, sizeof raw, 0), sizeof raw);
        double between = nanoseconds();
        assert_sound(image_vhd.info(child_fd, &info, &f), f);
        times[i] = nanoseconds() - between - (between - begin);
    }
    qsort(times, COUNT_OF(times), sizeof *times, compare_times);
    double median = times[COUNT_OF(times) / 2];
    print_message("info of a child costs %.1f us over its reads\n", median / 1000);
    assert_true(median < 60000);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_image_is_byte_for_byte_what_xens_tools_make),
        cmocka_unit_test(a_child_is_byte_for_byte_what_xens_tools_make),
        cmocka_unit_test(hiding_changes_the_hidden_byte_and_the_checksums_alone),
        cmocka_unit_test(a_written_block_lies_on_a_page_behind_its_bitmap),
        cmocka_unit_test(sizes_round_up_to_2_mib_within_the_limits),
        cmocka_unit_test(vhdiinfo_reads_our_headers),
        cmocka_unit_test(info_costs_little_more_than_its_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
