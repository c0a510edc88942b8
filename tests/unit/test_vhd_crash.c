/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every change of an image, killed at each of its writes, and cut off by a power failure that keeps some unsynced
   writes and loses others. pwrite, ftruncate, fallocate, unlinkat and the syncs are this file's (linked with --wrap).
 */
#include "backends/images/vhd_layout.h"
#include "backends/images/vhd_make.h"
#include "server/base/io.h"
#include "tests/unit/vhd_kit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define KILLED 77

/* How many changes are left before the process dies; torn: the last is done by half. */
static int changes_left = -1;
static bool torn;

enum kind { CHANGE_WRITE, CHANGE_TRUNCATE, CHANGE_PUNCH, CHANGE_SYNC };
struct change {
    enum kind kind;
    uint64_t at, length;
    unsigned char *data;
};
#define CHANGES_CEILING 512
static struct change changes[CHANGES_CEILING];
static size_t change_count;
static bool recording;

ssize_t __real_pwrite(int fd, const void *data, size_t length, off_t at);
int __real_ftruncate(int fd, off_t length);
int __real_fallocate(int fd, int mode, off_t at, off_t length);
int __real_unlinkat(int dir, const char *name, int flags);
int __real_fdatasync(int fd);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t at);
int __wrap_ftruncate(int fd, off_t length);
int __wrap_fallocate(int fd, int mode, off_t at, off_t length);
int __wrap_unlinkat(int dir, const char *name, int flags);
int __wrap_fdatasync(int fd);

static bool is_last_change(void)
{
    return changes_left >= 0 && changes_left-- == 0;
}

static void record(enum kind kind, uint64_t at, uint64_t length, const void *data)
{
    if (!recording)
        return;
    assert_true(change_count < CHANGES_CEILING);
    struct change *c = &changes[change_count++];
    *c = (struct change){.kind = kind, .at = at, .length = length};
    if (data) {
        c->data = malloc(length);
        memcpy(c->data, data, length);
    }
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t at)
{
    if (is_last_change()) {
        if (torn && length > SECTOR_SIZE && __real_pwrite(fd, data, length / 2 / SECTOR_SIZE * SECTOR_SIZE, at) < 0)
            _exit(1);
        _exit(KILLED);
    }
    record(CHANGE_WRITE, (uint64_t) at, length, data);
    return __real_pwrite(fd, data, length, at);
}

int __wrap_ftruncate(int fd, off_t length)
{
    if (is_last_change())
        _exit(KILLED);
    record(CHANGE_TRUNCATE, 0, (uint64_t) length, NULL);
    return __real_ftruncate(fd, length);
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t length)
{
    if (is_last_change())
        _exit(KILLED);
    record(CHANGE_PUNCH, (uint64_t) at, (uint64_t) length, NULL);
    return __real_fallocate(fd, mode, at, length);
}

int __wrap_unlinkat(int dir, const char *name, int flags)
{
    if (is_last_change())
        _exit(KILLED);
    return __real_unlinkat(dir, name, flags);
}

int __wrap_fdatasync(int fd)
{
    record(CHANGE_SYNC, 0, 0, NULL);
    return __real_fdatasync(fd);
}

/* Runs the change in a process that dies at its n-th write. True when it came to its end instead. */
static bool run_until(int n, bool half, void (*change)(void *), void *context)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        changes_left = n;
        torn = half;
        change(context);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == KILLED || WEXITSTATUS(status) == 0));
    return WEXITSTATUS(status) == 0;
}

struct scene {
    struct kit kit;
    struct uuid base, id;
    unsigned char *model;
    uint64_t size, seed;
    struct image_journal journal;
    uint64_t wanted; /* of a grow */
};

static void scene_begin(struct scene *s, uint64_t size, bool child)
{
    struct fault f;
    *s = (struct scene){.size = size, .seed = 9, .base = uuid_random(), .id = uuid_random()};
    kit_open(&s->kit);
    s->journal = (struct image_journal){s->kit.dir, "journal.smapi"};
    s->model = calloc(1, size);
    AUTO_FD int fd = kit_new(&s->kit, &s->id);
    if (!child) {
        assert_sound(image_vhd.make(fd, &s->id, size, &f), f);
        return;
    }
    AUTO_FD int base = kit_new(&s->kit, &s->base);
    assert_sound(image_vhd.make(base, &s->base, size, &f), f);
    kit_write(&s->kit, &s->base, s->model, 0, 9 * SECTOR_SIZE, &s->seed);
    assert_sound(image_vhd.make_child(fd, &s->id, base, &s->base, &f), f);
}

static void scene_end(struct scene *s)
{
    free(s->model);
    kit_close(&s->kit);
}

static void scene_write(struct scene *s, uint64_t first, uint64_t count)
{
    kit_write(&s->kit, &s->id, s->model, first * SECTOR_SIZE, count * SECTOR_SIZE, &s->seed);
}

static void assert_bytes(struct scene *s, const unsigned char *expected, size_t length)
{
    size_t found_length;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    AUTO_FREE unsigned char *found = kit_bytes(fd, &found_length);
    assert_int_equal(found_length, length);
    assert_true(memcmp(found, expected, length) == 0);
}

static bool has_journal(struct scene *s)
{
    return faccessat(s->kit.dir, s->journal.name, F_OK, 0) == 0;
}

static void grow(void *context)
{
    struct scene *s = context;
    struct fault f;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    if (image_vhd.grow(fd, s->wanted, &s->journal, &f) < 0)
        _exit(1);
}

static void revert(void *context)
{
    struct scene *s = context;
    struct fault f;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    if (image_vhd.revert(fd, &s->journal, &f) < 0)
        _exit(1);
}

static void revert_now(struct scene *s)
{
    struct fault f;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    assert_sound(image_vhd.revert(fd, &s->journal, &f), f);
    assert_false(has_journal(s));
}

/* Kills the grow at each write (or at one of so many), reverts, and lets it through in the end. */
static void grow_through_deaths(struct scene *s, uint64_t wanted, int stride)
{
    size_t length;
    s->wanted = wanted;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    AUTO_FREE unsigned char *before = kit_bytes(fd, &length);
    int n = 0;
    while (!run_until(n, n % 2, grow, s)) {
        revert_now(s);
        assert_bytes(s, before, length);
        n += stride;
    }
    assert_true(n > 5);
    assert_false(has_journal(s));
}

/* The disk as it was, and zeros behind it. */
static void assert_grown(struct scene *s)
{
    struct fault f;
    struct image_info info;
    struct vhd_chain *chain;
    struct vhd_extent e;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    AUTO_FREE unsigned char *found = malloc(s->size);
    assert_sound(vhd_check(fd, &f), f);
    assert_sound(image_vhd.info(fd, &info, &f), f);
    assert_int_equal(info.size, s->wanted);
    assert_sound(vhd_chain_open(fd, false, kit_open_parent, &s->kit, &chain, &f), f);
    assert_sound(vhd_chain_read(chain, found, s->size, 0, &f), f);
    assert_true(memcmp(found, s->model, s->size) == 0);
    assert_sound(vhd_chain_extent(chain, s->size, &e, &f), f);
    assert_int_equal(e.length, 0);
    vhd_chain_close(chain);
}

static void write_at_new_end(struct scene *s)
{
    struct fault f;
    struct vhd_chain *chain;
    unsigned char data[SECTOR_SIZE], found[SECTOR_SIZE];
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    memset(data, 0x5a, sizeof data);
    assert_sound(vhd_chain_open(fd, true, kit_open_parent, &s->kit, &chain, &f), f);
    assert_sound(vhd_chain_write(chain, data, sizeof data, s->wanted - sizeof data, &f), f);
    assert_sound(vhd_chain_read(chain, found, sizeof found, s->wanted - sizeof data, &f), f);
    assert_memory_equal(found, data, sizeof data);
    vhd_chain_close(chain);
    assert_sound(vhd_check(fd, &f), f);
}

enum origin { OURS, UNFINISHED, FOREIGN, EARLY };

/* UNFINISHED: a killed writer has left no footer at the end. FOREIGN: by a program that knows no batmap. EARLY: by one
   of Xen's first, that made none. */
static void become(struct scene *s, enum origin origin)
{
    unsigned char raw[VHD_FOOTER_SIZE];
    struct vhd_footer footer;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    uint64_t end = (uint64_t) lseek(fd, 0, SEEK_END) - sizeof raw;
    assert_int_equal(io_read_at(fd, raw, sizeof raw, 0), 0);
    assert_null(vhd_footer_in(raw, &footer));
    if (origin == FOREIGN || origin == EARLY) {
        memcpy(footer.creator, origin == EARLY ? "tap" : "qem2", 4);
        footer.creator_version = origin == EARLY ? VHD_BATMAP_FIRST : footer.creator_version;
        vhd_footer_out(&footer, raw);
        assert_int_equal(io_write_at(fd, raw, sizeof raw, 0), 0);
    }
    if (origin == EARLY)
        assert_int_equal(vhd_fill(fd, 0, 2048, VHD_BATMAP_SECTOR), 0);
    if (origin == UNFINISHED)
        memset(raw, 0xc7, sizeof raw);
    assert_int_equal(io_write_at(fd, raw, sizeof raw, end), 0);
}

static void a_grow_killed_at_any_write_reverts_byte_for_byte(void **state)
{
    (void) state;
    static const struct {
        uint64_t blocks, wanted; /* of 2 MiB */
        bool child, filled;
        enum origin origin;
    } cases[] = {
        {1, 2, false, false, OURS},   /* fits the padding */
        {1, 512, false, false, OURS}, /* an empty image: tables grow over the footer */
        {3, 129, false, true, OURS},  /* a sector more, up to the first block */
        {3, 600, false, true, OURS},  /* moves the first block */
        {3, 600, true, true, OURS},   /* and parent locators */
        {3, 600, true, true, UNFINISHED}, {3, 600, false, true, FOREIGN},
        {3, 600, true, true, EARLY},      {2, 150000, true, true, OURS}, /* 293 GiB */
        {2, 150000, true, false, OURS},   {1, 600, false, false, UNFINISHED},
        {3, 1044480, false, true, OURS}, /* the largest, over all blocks there are */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct scene s;
        scene_begin(&s, cases[i].blocks * VHD_BLOCK_SIZE, cases[i].child);
        for (uint64_t block = cases[i].blocks; cases[i].filled && block-- > 0;)
            scene_write(&s, block * 4096 + 100, 30);
        become(&s, cases[i].origin);
        grow_through_deaths(&s, cases[i].wanted * VHD_BLOCK_SIZE, cases[i].wanted > 1000000 ? 9 : 1);
        assert_grown(&s);
        write_at_new_end(&s);
        scene_end(&s);
    }
}

/* Others set bits of full blocks, and rest on them. */
static void a_grow_keeps_the_batmap_and_moves_what_it_says(void **state)
{
    (void) state;
    struct scene s;
    struct vhd_batmap map;
    unsigned char raw[VHD_BATMAP_SECTOR], bits = 0x40;
    scene_begin(&s, 3 * UINT64_C(2097152), true);
    scene_write(&s, 4096, 4096);
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    assert_int_equal(io_read_at(fd, raw, sizeof raw, 2048), 0);
    assert_null(vhd_batmap_in(raw, &map));
    map.checksum = ~(uint32_t) bits;
    map.rest[0] = 1; /* the marker */
    vhd_batmap_out(&map, raw);
    assert_int_equal(io_write_at(fd, raw, sizeof raw, 2048), 0);
    assert_int_equal(io_write_at(fd, &bits, 1, map.offset), 0);
    s.wanted = 150000 * UINT64_C(2097152);
    grow(&s);
    assert_grown(&s);
    assert_int_equal(io_read_at(fd, raw, sizeof raw, 1536 + vhd_padded(150000 * 4)), 0);
    assert_null(vhd_batmap_in(raw, &map));
    assert_int_equal(map.offset, 1536 + vhd_padded(150000 * 4) + 512);
    assert_int_equal(map.sectors, (150000 / 8 + 511) / 512);
    assert_int_equal(map.checksum, ~(uint32_t) bits);
    assert_int_equal(map.rest[0], 1);
    assert_int_equal(io_read_at(fd, raw, sizeof raw, map.offset), 0);
    assert_int_equal(raw[0], bits);
    scene_end(&s);
}

/* Where the BAT ends then, the disk's first sector lay, in which a guest writes what it likes. */
static void of_an_image_without_a_batmap_nothing_is_taken_for_one_when_it_grew(void **state)
{
    (void) state;
    struct scene s;
    unsigned char raw[VHD_BATMAP_SECTOR], entry[4];
    scene_begin(&s, 3 * VHD_BLOCK_SIZE, false);
    scene_write(&s, 0, 30);
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    assert_int_equal(io_read_at(fd, raw, sizeof raw, 2048), 0);
    become(&s, EARLY);
    assert_int_equal(io_read_at(fd, entry, sizeof entry, 1536), 0);
    assert_int_equal(vhd_get32(entry) * SECTOR_SIZE + VHD_BITMAP_SIZE, 1536 + vhd_padded(600 * 4));
    assert_int_equal(io_write_at(fd, raw, sizeof raw, 1536 + vhd_padded(600 * 4)), 0);
    memcpy(s.model, raw, sizeof raw);
    s.wanted = 600 * VHD_BLOCK_SIZE;
    grow(&s);
    assert_grown(&s);
    write_at_new_end(&s);
    scene_end(&s);
}

static void a_fixed_image_grows_and_reverts(void **state)
{
    (void) state;
    struct fault f;
    struct scene s;
    unsigned char footer[VHD_FOOTER_SIZE];
    scene_begin(&s, 2 * VHD_BLOCK_SIZE, false);
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    struct vhd_footer fixed;
    assert_int_equal(io_read_at(fd, footer, sizeof footer, 0), 0);
    assert_null(vhd_footer_in(footer, &fixed));
    fixed.type = VHD_FIXED;
    fixed.data_offset = VHD_NOWHERE;
    vhd_footer_out(&fixed, footer);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(io_write_at(fd, footer, sizeof footer, s.size), 0);
    scene_write(&s, 10, 8);
    scene_write(&s, s.size / SECTOR_SIZE - 1, 1);
    grow_through_deaths(&s, 4 * VHD_BLOCK_SIZE, 1);
    s.model = realloc(s.model, s.wanted);
    memset(s.model + s.size, 0, s.wanted - s.size);
    kit_assert_disk(&s.kit, &s.id, s.model, s.wanted, &s.seed);
    assert_sound(image_vhd.grow(fd, s.wanted, &s.journal, &f), f); /* again: nothing to do */
    assert_int_equal(image_vhd.grow(fd, s.size, &s.journal, &f), -1);
    assert_int_equal(f.code, FAULT_VDISize);
    scene_end(&s);
}

static void a_revert_killed_at_any_write_can_be_repeated(void **state)
{
    (void) state;
    struct scene s;
    size_t length;
    scene_begin(&s, 2 * VHD_BLOCK_SIZE, true);
    scene_write(&s, 100, 30);
    s.wanted = 600 * UINT64_C(2097152);
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    AUTO_FREE unsigned char *before = kit_bytes(fd, &length);
    for (int n = 0; !run_until(n, false, grow, &s); n++) {
        for (int m = n % 7; !run_until(m, true, revert, &s); m += 3)
            assert_true(has_journal(&s));
        assert_false(has_journal(&s));
        assert_bytes(&s, before, length);
    }
    scene_end(&s);
}

static void a_journal_that_is_not_whole_or_not_ours_changes_nothing(void **state)
{
    (void) state;
    struct fault f;
    struct scene s, other;
    size_t length, journal_length;
    scene_begin(&s, VHD_BLOCK_SIZE, false);
    scene_begin(&other, VHD_BLOCK_SIZE, false);
    s.wanted = 300 * UINT64_C(2097152);
    assert_false(run_until(8, false, grow, &s));
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    AUTO_FD int other_fd = kit_fd(&other.kit, &other.id);
    assert_int_equal(image_vhd.revert(other_fd, &s.journal, &f), -1);
    assert_true(has_journal(&s));
    AUTO_FREE unsigned char *half_grown = kit_bytes(fd, &length);
    AUTO_FD int journal = openat(s.kit.dir, s.journal.name, O_RDONLY);
    AUTO_FREE unsigned char *kept = kit_bytes(journal, &journal_length);
    for (size_t i = 0; i <= journal_length; i += i < 200 ? 1 : 61) {
        AUTO_FD int bad = openat(s.kit.dir, s.journal.name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        size_t cut = i % 3 ? journal_length : i;
        kept[i % journal_length] ^= 0x10;
        assert_int_equal(io_write_at(bad, kept, cut, 0), 0);
        kept[i % journal_length] ^= 0x10;
        if (cut == journal_length && i == journal_length)
            continue;
        revert_now(&s);
        assert_bytes(&s, half_grown, length);
    }
    scene_end(&s);
    scene_end(&other);
}

struct stroke {
    uint64_t first, count; /* sectors */
};

/* New block, new sectors of a block, old sectors, across blocks, the last sector. */
static const struct stroke strokes[] = {{100, 30}, {120, 40}, {105, 3}, {4090, 20}, {3 * 4096 - 1, 1}, {8000, 300}};

static void write_strokes(struct scene *s, const unsigned char *data)
{
    struct fault f;
    struct vhd_chain *chain;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    assert_sound(vhd_chain_open(fd, true, kit_open_parent, &s->kit, &chain, &f), f);
    for (size_t i = 0; i < COUNT_OF(strokes); i++)
        assert_sound(vhd_chain_write(chain, data, strokes[i].count * SECTOR_SIZE, strokes[i].first * SECTOR_SIZE, &f),
                     f);
    vhd_chain_close(chain);
}

static bool is_struck(uint64_t sector)
{
    for (size_t i = 0; i < COUNT_OF(strokes); i++)
        if (sector >= strokes[i].first && sector < strokes[i].first + strokes[i].count)
            return true;
    return false;
}

static bool is_filled(const unsigned char *sector, unsigned char value)
{
    for (size_t i = 0; i < SECTOR_SIZE; i++)
        if (sector[i] != value)
            return false;
    return true;
}

/* Sound, and each sector as before or as written (all of 0xa5). */
static void assert_old_or_new(struct scene *s)
{
    struct fault f;
    struct vhd_chain *chain;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    AUTO_FREE unsigned char *found = malloc(s->size);
    assert_sound(vhd_check(fd, &f), f);
    assert_sound(vhd_chain_open(fd, false, kit_open_parent, &s->kit, &chain, &f), f);
    assert_sound(vhd_chain_read(chain, found, s->size, 0, &f), f);
    vhd_chain_close(chain);
    for (uint64_t i = 0; i < s->size / SECTOR_SIZE; i++) {
        const unsigned char *at = found + i * SECTOR_SIZE;
        if (memcmp(at, s->model + i * SECTOR_SIZE, SECTOR_SIZE) != 0 && !(is_struck(i) && is_filled(at, 0xa5)))
            fail_msg("sector %llu is neither old nor new", (unsigned long long) i);
    }
}

static void strike(void *context)
{
    static unsigned char data[300 * SECTOR_SIZE];
    memset(data, 0xa5, sizeof data);
    write_strokes(context, data);
}

static void put_back(struct scene *s, const unsigned char *data, size_t length)
{
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(io_write_at(fd, data, length, 0), 0);
}

static void scene_for_strokes(struct scene *s, bool child)
{
    scene_begin(s, 3 * UINT64_C(2097152), child);
    scene_write(s, 4096 + 50, 70);
}

static void a_write_killed_anywhere_leaves_each_sector_old_or_new(void **state)
{
    (void) state;
    for (int child = 0; child < 2; child++) {
        struct scene s;
        size_t length;
        bool done = false;
        scene_for_strokes(&s, child);
        AUTO_FD int fd = kit_fd(&s.kit, &s.id);
        AUTO_FREE unsigned char *before = kit_bytes(fd, &length);
        for (int n = 0; !done; n++) {
            done = run_until(n, n % 2, strike, &s);
            assert_old_or_new(&s);
            strike(&s); /* and goes on from there */
            assert_old_or_new(&s);
            put_back(&s, before, length);
        }
        scene_end(&s);
    }
}

/* Does a change to the file, of a write only some of its pages. */
static void apply(int fd, const struct change *c, bool all, uint64_t *seed)
{
    if (c->kind == CHANGE_TRUNCATE && (all || kit_random(seed) % 2))
        assert_int_equal(ftruncate(fd, (off_t) c->length), 0);
    if (c->kind == CHANGE_PUNCH && (all || kit_random(seed) % 2))
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) c->at, (off_t) c->length),
                         0);
    if (c->kind != CHANGE_WRITE)
        return;
    for (uint64_t done = 0; done < c->length;) {
        uint64_t page = 4096 - (c->at + done) % 4096, left = c->length - done, n = page < left ? page : left;
        if (all || kit_random(seed) % 2)
            assert_int_equal(io_write_at(fd, c->data + done, n, c->at + done), 0);
        done += n;
    }
}

/* All changes of before the sync numbered last, and some of those up to the next. */
static void cut_power(struct scene *s, size_t last, uint64_t *seed)
{
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    size_t syncs = 0;
    for (size_t i = 0; i < change_count && syncs <= last; i++) {
        apply(fd, &changes[i], syncs < last, seed);
        syncs += changes[i].kind == CHANGE_SYNC;
    }
}

static void a_power_cut_between_any_syncs_leaves_each_sector_old_or_new(void **state)
{
    (void) state;
    struct scene s;
    size_t length, syncs = 0;
    scene_for_strokes(&s, true);
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    AUTO_FREE unsigned char *before = kit_bytes(fd, &length);
    recording = true;
    strike(&s);
    recording = false;
    for (size_t i = 0; i < change_count; i++)
        syncs += changes[i].kind == CHANGE_SYNC;
    assert_true(syncs >= 6);
    for (size_t last = 0; last <= syncs; last++)
        for (int round = 0; round < 12; round++) {
            put_back(&s, before, length);
            cut_power(&s, last, &s.seed);
            assert_old_or_new(&s);
        }
    for (size_t i = 0; i < change_count; i++)
        free(changes[i].data);
    change_count = 0;
    scene_end(&s);
}

static void hide(void *context)
{
    struct scene *s = context;
    struct fault f;
    AUTO_FD int fd = kit_fd(&s->kit, &s->id);
    if (image_vhd.hide(fd, true, &f) < 0)
        _exit(1);
}

static void a_hide_killed_anywhere_leaves_a_sound_image(void **state)
{
    (void) state;
    struct fault f;
    struct image_info info;
    struct scene s;
    scene_for_strokes(&s, true);
    bool hidden[4] = {false};
    AUTO_FD int fd = kit_fd(&s.kit, &s.id);
    int n = 0;
    for (bool done = false; !done; n++) {
        done = run_until(n, false, hide, &s);
        assert_sound(vhd_check(fd, &f), f);
        assert_sound(image_vhd.info(fd, &info, &f), f);
        hidden[n] = info.hidden;
        assert_sound(image_vhd.hide(fd, false, &f), f);
    }
    assert_int_equal(n, 3);
    assert_true(!hidden[0] && hidden[1] && hidden[2]);
    scene_end(&s);
}

static void blocks_that_moved_read_right_by_7zz(void **state)
{
    (void) state;
    struct scene s;
    if (!kit_has("7zz"))
        skip();
    scene_begin(&s, 3 * UINT64_C(2097152), false);
    for (uint64_t block = 0; block < 3; block++)
        scene_write(&s, block * 4096 + 100, 30);
    s.wanted = 300 * UINT64_C(2097152);
    grow(&s);
    s.model = realloc(s.model, s.wanted);
    memset(s.model + s.size, 0, s.wanted - s.size);
    kit_assert_7zz(&s.kit, &s.id, s.model, s.wanted);
    scene_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grow_killed_at_any_write_reverts_byte_for_byte),
        cmocka_unit_test(a_grow_keeps_the_batmap_and_moves_what_it_says),
        cmocka_unit_test(of_an_image_without_a_batmap_nothing_is_taken_for_one_when_it_grew),
        cmocka_unit_test(a_fixed_image_grows_and_reverts),
        cmocka_unit_test(a_revert_killed_at_any_write_can_be_repeated),
        cmocka_unit_test(a_journal_that_is_not_whole_or_not_ours_changes_nothing),
        cmocka_unit_test(a_write_killed_anywhere_leaves_each_sector_old_or_new),
        cmocka_unit_test(a_power_cut_between_any_syncs_leaves_each_sector_old_or_new),
        cmocka_unit_test(a_hide_killed_anywhere_leaves_a_sound_image),
        cmocka_unit_test(blocks_that_moved_read_right_by_7zz),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
