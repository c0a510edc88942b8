/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/test_file_bench.h"

#include <sys/statvfs.h>

/* ------------------------------------------------------------------ fsync that fails on demand (--wrap=fsync) */

static int fsyncs_until_failure = -1;

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    if (fsyncs_until_failure >= 0 && fsyncs_until_failure-- == 0) {
        errno = EIO;
        return -1;
    }
    return __real_fsync(fd);
}

static void write_file(const struct bench *b, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", b->location, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* ------------------------------------------------------------------ sr_create, sr_delete */

static void a_new_sr_is_marked_and_left_disconnected(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    struct stat st;
    char link[160];
    bench_create_sr(b);
    snprintf(link, sizeof link, "%s/%s", b->base, SR_UUID);
    assert_int_equal(lstat(link, &st), -1);
    assert_int_equal(stat(b->location, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_true(stands(b, "sr.smapi"));
    assert_int_equal(entries(b), 1);
    struct plan p = bench_plan("sr_create", NULL);
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_SRExists);
    bench_free(b);
}

static void attaching_and_detaching_are_idempotent_and_leave_no_link(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct stat here, there;
    char link[160];
    snprintf(link, sizeof link, "%s/%s", b->base, SR_UUID);
    must(b, backend_sr_attach(b->sr, &b->fault));
    assert_int_equal(stat(link, &there) | stat(b->location, &here), 0);
    assert_int_equal(here.st_ino, there.st_ino);
    must(b, backend_sr_detach(b->sr, &b->fault));
    must(b, backend_sr_detach(b->sr, &b->fault));
    assert_int_equal(lstat(link, &there), -1);
    bench_free(b);
}

static void an_sr_survives_a_restart_of_the_daemon(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    bench_create_disk(b, DISK_UUID, 4096);
    bench_restart(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    assert_int_equal(bench_scan(b, NULL).count, 1);
    bench_free(b);
}

static void places_that_are_no_place_are_refused(void **state)
{
    (void) state;
    static const char *const places[] = {"/",      "/proc/smapi-x", "/sys/x",       "/dev/x",
                                         "/etc/x", "/usr/lib/x",    "/tmp/../etc/x"};
    struct bench *b = bench_new();
    struct plan p = bench_plan("sr_create", NULL);
    enum settled how;
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        pairs_set(b->arena, &b->sr->config, "location", places[i]);
        must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_InvalidArg);
        must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, NULL, NULL, &b->deleted, &b->fault));
        assert_int_equal(how, SETTLED_UNDONE);
        must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_InvalidArg);
    }
    shell("ln -s /etc %s/inner", b->top);
    pairs_set(b->arena, &b->sr->config, "location", arena_printf(b->arena, "%s/inner/x", b->top));
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_InvalidArg);
    pairs_set(b->arena, &b->sr->config, "location", arena_printf(b->arena, "%s/base/x", b->top));
    shell("mkdir %s", b->base);
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_InvalidArg);
    bench_free(b);
}

static void an_sr_is_not_made_inside_another(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct plan p = bench_plan("sr_create", NULL);
    shell("mkdir %s/deep", b->location);
    bench_restart(b);
    b->sr->uuid = U(OTHER_UUID);
    pairs_set(b->arena, &b->sr->config, "location", arena_printf(b->arena, "%s/deep/er", b->location));
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_InvalidArg);
    pairs_set(b->arena, &b->sr->config, "location", arena_printf(b->arena, "%s/deep", b->location));
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_InvalidArg);
    bench_free(b);
}

static void unusable_places_fail_with_61(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    struct plan p = bench_plan("sr_create", NULL);
    enum settled how;
    shell("touch %s/file; ln -s / %s/link; mkdir %s/ro; mount -t tmpfs -o ro none %s/ro", b->top, b->top, b->top,
          b->top);
    static const char *const names[] = {"missing/sr", "file", "file/sr", "link", "ro", "ro/sr"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        pairs_set(b->arena, &b->sr->config, "location", arena_printf(b->arena, "%s/%s", b->top, names[i]));
        must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_FileSRCreate);
        must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, NULL, NULL, &b->deleted, &b->fault));
        assert_int_equal(how, SETTLED_UNDONE);
    }
    shell("umount %s/ro", b->top);
    bench_free(b);
}

static void a_place_that_holds_anything_is_refused_but_for_lost_and_found(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    struct plan p = bench_plan("sr_create", NULL);
    enum settled how;
    shell("mkdir %s %s/lost+found", b->location, b->location);
    write_file(b, ".hidden", "");
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_SRExists);
    must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, NULL, NULL, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    assert_true(stands(b, ".hidden"));
    shell("rm %s/.hidden", b->location);
    must(b, backend_sr_create(b->sr, &p, &b->fault));
    bench_free(b);
}

static void undoing_a_refused_create_leaves_the_sr_that_was_there(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    enum settled how;
    bench_create_disk(b, DISK_UUID, 512);
    bench_restart(b);
    struct plan p = bench_plan("sr_create", NULL);
    must_fail(b, backend_sr_create(b->sr, &p, &b->fault), FAULT_SRExists);
    must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, NULL, NULL, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    must(b, backend_sr_attach(b->sr, &b->fault));
    assert_int_equal(bench_scan(b, NULL).count, 1);
    bench_free(b);
}

static void deleting_removes_the_directory_only_if_it_was_made(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct plan p = bench_plan("sr_delete", NULL);
    struct stat st;
    must(b, backend_sr_delete(b->sr, &p, &b->fault));
    assert_int_equal(stat(b->location, &st), -1);
    shell("test -z \"$(ls -A %s | grep -v base)\" && test -z \"$(ls -A %s)\"", b->top, b->base);
    shell("mkdir %s", b->location);
    bench_create_sr(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    p = bench_plan("sr_delete", NULL);
    must(b, backend_sr_delete(b->sr, &p, &b->fault));
    assert_int_equal(entries(b), 0);
    bench_free(b);
}

static void an_sr_that_holds_a_disk_or_a_foreign_file_is_not_deleted(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct plan p = bench_plan("sr_delete", NULL);
    enum settled how;
    bench_create_disk(b, DISK_UUID, 512);
    must_fail(b, backend_sr_delete(b->sr, &p, &b->fault), FAULT_SRNotEmpty);
    must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, NULL, NULL, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    struct plan d = bench_plan("vdi_delete", DISK_UUID);
    struct vdi disk = wanted_disk(DISK_UUID, 512);
    must(b, backend_vdi_delete(b->sr, &d, &disk, b->arena, &b->deleted, &b->fault));
    write_file(b, "holiday.jpg", "x");
    assert_int_equal(backend_sr_delete(b->sr, &p, &b->fault), -1);
    assert_non_null(strstr(b->fault.detail, "holiday.jpg"));
    must_fail(b, -1, FAULT_SRNotEmpty);
    shell("rm %s/holiday.jpg", b->location);
    must(b, backend_sr_delete(b->sr, &p, &b->fault));
    bench_free(b);
}

/* ------------------------------------------------------------------ sr_attach */

static void a_missing_marker_is_not_an_empty_sr(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    must(b, backend_sr_detach(b->sr, &b->fault));
    shell("mkdir %s/else && mount --bind %s/else %s", b->top, b->top, b->location);
    must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_SRUnavailable);
    assert_int_equal(entries(b), 0);
    pairs_set(b->arena, &b->sr->config, "adopt", "true");
    shell("umount %s && mount --bind %s/else %s && touch %s/stray", b->location, b->top, b->location, b->location);
    must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_SRUnavailable);
    shell("rm %s/stray", b->location);
    must(b, backend_sr_attach(b->sr, &b->fault));
    assert_true(stands(b, "sr.smapi"));
    bench_free(b);
}

static void a_place_that_changes_under_an_attached_sr_is_noticed(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 512), out;
    const char *path;
    struct vdi_list none = {0}, list;
    struct sr_totals t;
    struct plan p = bench_plan("vdi_create", OTHER_UUID);
    struct vdi wanted = wanted_disk(OTHER_UUID, 512);
    shell("mkdir %s/else && mount --bind %s/else %s", b->top, b->top, b->location);
    must_fail(b, backend_sr_check(b->sr, &b->fault), FAULT_SRUnavailable);
    must_fail(b, backend_sr_scan(b->sr, &none, b->arena, &list, &t, &b->fault), FAULT_SRUnavailable);
    must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_SRUnavailable);
    must_fail(b, backend_vdi_attach(b->sr, &disk, true, b->arena, &path, &b->fault), FAULT_SRUnavailable);
    must(b, backend_vdi_detach(b->sr, &disk, &b->fault));
    shell("umount %s", b->location);
    must(b, backend_sr_check(b->sr, &b->fault));
    shell("mv %s/sr.smapi %s/gone", b->location, b->location);
    must_fail(b, backend_sr_check(b->sr, &b->fault), FAULT_SRUnavailable);
    bench_free(b);
}

static void a_foreign_marker_or_owner_is_refused_by_name(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    bench_restart(b);
    b->settings.server = U(OTHER_UUID);
    assert_int_equal(backend_sr_attach(b->sr, &b->fault), -1);
    assert_non_null(strstr(b->fault.detail, SERVER_UUID));
    must_fail(b, -1, FAULT_SRInUse);
    b->settings.server = U(SERVER_UUID);
    b->sr->uuid = U(OTHER_UUID);
    assert_int_equal(backend_sr_attach(b->sr, &b->fault), -1);
    assert_non_null(strstr(b->fault.detail, SR_UUID));
    must_fail(b, -1, FAULT_SRUnavailable);
    write_file(b, "sr.smapi", "{\"format\": 1, \"sr\"");
    b->sr->uuid = U(SR_UUID);
    must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_SRUnavailable);
    write_file(b, "sr.smapi",
               "{\"format\": 2, \"sr\": \"" SR_UUID "\", \"server\": \"" SERVER_UUID "\", \"op\": \"" OTHER_UUID "\"}");
    must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_SRUnavailable);
    bench_free(b);
}

static void disks_of_the_older_manager_are_adopted_and_its_files_left_alone(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    shell("mkdir %s", b->location);
    shell("truncate -s 1M %s/%s.raw", b->location, DISK_UUID);
    shell("cd %s && touch filelog.txt .journal-%s %s.cbtlog leaf_%s sm-hardlink.conf", b->location, DISK_UUID,
          DISK_UUID, DISK_UUID);
    must(b, backend_sr_attach(b->sr, &b->fault));
    struct vdi_list list = bench_scan(b, NULL);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.items[0].size, 1 << 20);
    assert_string_equal(list.items[0].location, DISK_UUID);
    assert_string_equal(pairs_get(&list.items[0].sm_config, "type"), "raw");
    assert_int_equal(entries(b), 7);
    bench_free(b);
}

static void strays_of_dead_operations_go_at_attach_and_nothing_else(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    bench_create_disk(b, DISK_UUID, 512);
    bench_restart(b);
    int before = entries(b);
    write_file(b, "12345678-new-" OTHER_UUID ".smapi", "x");
    write_file(b, "12345678-del-" OTHER_UUID ".smapi", "x");
    write_file(b, "12345678-labels-" OTHER_UUID ".smapi", "x");
    write_file(b, "12345678-other-" OTHER_UUID ".smapi", "x");
    write_file(b, "1234567-new-" OTHER_UUID ".smapi", "x");
    must(b, backend_sr_attach(b->sr, &b->fault));
    assert_int_equal(entries(b), before + 2);
    bench_free(b);
}

static void the_link_accepts_what_leads_there_and_nothing_else(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    bench_create_sr(b);
    shell("mkdir -p %s %s/else && ln -s %s/else %s/" SR_UUID, b->base, b->top, b->top, b->base);
    must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_SRUnavailable);
    shell("rm %s/" SR_UUID " && mkdir %s/" SR_UUID, b->base, b->base);
    must_fail(b, backend_sr_attach(b->sr, &b->fault), FAULT_SRUnavailable);
    shell("mount --bind %s %s/" SR_UUID, b->location, b->base);
    must(b, backend_sr_attach(b->sr, &b->fault));
    must(b, backend_sr_detach(b->sr, &b->fault));
    shell("mountpoint -q %s/" SR_UUID " && umount %s/" SR_UUID, b->base, b->base);
    bench_free(b);
}

/* ------------------------------------------------------------------ disks */

static void a_new_disk_is_whole_and_keeps_its_labels(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 1000);
    struct stat st;
    char path[160];
    assert_int_equal(disk.size, 1024);
    assert_string_equal(disk.location, DISK_UUID);
    snprintf(path, sizeof path, "%s/%s.raw", b->location, DISK_UUID);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1024);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(entries(b), 3);
    bench_restart(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    struct vdi_list list = bench_scan(b, NULL);
    assert_int_equal(list.count, 1);
    assert_string_equal(list.items[0].label, "label <&> \xc3\xa4");
    assert_string_equal(list.items[0].description, "line\nline");
    bench_free(b);
}

static void a_uuid_that_stands_is_not_made_again(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    bench_create_disk(b, DISK_UUID, 4096);
    struct plan p = bench_plan("vdi_create", DISK_UUID);
    struct vdi wanted = wanted_disk(DISK_UUID, 512), out;
    enum settled how;
    p.size = 512;
    must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_VDIExists);
    must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    struct vdi_list list = bench_scan(b, NULL);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.items[0].size, 4096);
    bench_free(b);
}

static void undoing_a_create_spares_an_image_that_others_put_there(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct plan p = bench_plan("vdi_create", DISK_UUID);
    struct vdi wanted = wanted_disk(DISK_UUID, 512), out;
    enum settled how;
    p.size = 512;
    must(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault));
    shell("cd %s && echo precious > new && mv new " DISK_UUID ".raw", b->location);
    must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    shell("grep -q precious %s/" DISK_UUID ".raw", b->location);
    bench_free(b);
}

static void sizes_and_formats_that_cannot_be_are_refused(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct plan p = bench_plan("vdi_create", DISK_UUID);
    struct vdi wanted = wanted_disk(DISK_UUID, 0), out;
    static const uint64_t sizes[] = {0, UINT64_MAX, INT64_MAX, (uint64_t) INT64_MAX - 511};
    enum settled how;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        wanted.size = sizes[i];
        must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_VDISize);
        must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    }
    wanted.size = 512;
    wanted.format = "cow";
    must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_VDIType);
    assert_int_equal(entries(b), 1);
    bench_free(b);
}

static void a_full_file_system_is_44_and_nothing_stays_behind(void **state)
{
    (void) state;
    struct bench *b = bench_new();
    struct plan p = bench_plan("vdi_create", DISK_UUID);
    struct vdi wanted = wanted_disk(DISK_UUID, 1 << 20), out;
    enum settled how;
    shell("mkdir %s && mount -t tmpfs -o size=64k,nr_inodes=64 none %s", b->location, b->location);
    bench_create_sr(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    shell("cd %s && head -c 52k /dev/zero > ballast; n=0; while head -c 4k /dev/zero > b$n 2>/dev/null; do "
          "n=$((n+1)); done; rm -f b$n",
          b->location);
    int before = entries(b);
    must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_SRNoSpace);
    must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    assert_int_equal(entries(b), before);
    shell("rm %s/b*; i=0; while touch %s/i$i 2>/dev/null; do i=$((i+1)); done", b->location, b->location);
    shell("rm %s/i0", b->location); /* room for the image, none for its sidecar */
    before = entries(b);
    p = bench_plan("vdi_create", DISK_UUID);
    must_fail(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault), FAULT_SRNoSpace);
    must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    assert_int_equal(entries(b), before);
    must(b, backend_sr_check(b->sr, &b->fault));
    bench_free(b);
}

static void deleting_is_idempotent_and_takes_the_sidecar(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 512);
    struct plan p = bench_plan("vdi_delete", DISK_UUID);
    must(b, backend_vdi_locate(b->sr, &disk, b->arena, &p, &b->fault));
    assert_true(p.inode != 0);
    disk.state = VDI_DELETING;
    must(b, backend_vdi_delete(b->sr, &p, &disk, b->arena, &b->deleted, &b->fault));
    assert_int_equal(entries(b), 1);
    must(b, backend_vdi_delete(b->sr, &p, &disk, b->arena, &b->deleted, &b->fault));
    bench_free(b);
}

static void only_the_inode_that_was_meant_is_deleted(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 512);
    struct plan p = bench_plan("vdi_delete", DISK_UUID);
    enum settled how;
    must(b, backend_vdi_locate(b->sr, &disk, b->arena, &p, &b->fault));
    shell("cd %s && echo precious > new && mv new %s.raw", b->location, DISK_UUID);
    must_fail(b, backend_vdi_delete(b->sr, &p, &disk, b->arena, &b->deleted, &b->fault), FAULT_VDIUnavailable);
    must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, &disk, &disk, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_STUCK);
    shell("grep -q precious %s/%s.raw", b->location, DISK_UUID);
    bench_free(b);
}

static void a_raw_disk_grows_and_never_shrinks(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 4096), out;
    struct plan p = bench_plan("vdi_resize", DISK_UUID);
    enum settled how;
    p.size = 10000;
    must(b, backend_vdi_resize(b->sr, &p, &disk, b->arena, &out, &b->fault));
    assert_int_equal(out.size, 10240);
    assert_string_equal(out.label, disk.label);
    must(b, backend_vdi_resize(b->sr, &p, &out, b->arena, &out, &b->fault));
    p.size = 4096;
    p.keep = true;
    must_fail(b, backend_vdi_resize(b->sr, &p, &out, b->arena, &out, &b->fault), FAULT_VDISize);
    must(b, backend_settle(b->sr, &p, &out, b->arena, &how, &out, &disk, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_UNDONE);
    p.size = INT64_MAX - 1000;
    must_fail(b, backend_vdi_resize(b->sr, &p, &out, b->arena, &out, &b->fault), FAULT_VDISize);
    assert_int_equal(bench_scan(b, NULL).items[0].size, 10240);
    bench_free(b);
}

static void updated_labels_survive_a_lost_database(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 4096), out;
    struct plan p = bench_plan("vdi_update", DISK_UUID);
    disk.label = "new \"name\"\t\\";
    disk.read_only = true;
    disk.type = "system";
    pairs_set(b->arena, &disk.sm_config, "key", "value");
    must(b, backend_vdi_update(b->sr, &p, &disk, b->arena, &out, &b->fault));
    struct vdi_list list = bench_scan(b, NULL);
    assert_string_equal(list.items[0].label, "new \"name\"\t\\");
    assert_string_equal(list.items[0].type, "system");
    assert_string_equal(pairs_get(&list.items[0].sm_config, "key"), "value");
    assert_true(list.items[0].read_only);
    char *big = arena_alloc(b->arena, 70000);
    memset(big, 'x', 69999);
    disk.label = big;
    must_fail(b, backend_vdi_update(b->sr, &p, &disk, b->arena, &out, &b->fault), FAULT_InvalidArg);
    assert_string_equal(bench_scan(b, NULL).items[0].label, "new \"name\"\t\\");
    bench_free(b);
}

static void a_broken_sidecar_costs_the_labels_only(void **state)
{
    (void) state;
    static const char *const broken[] = {"",
                                         "{",
                                         "[]",
                                         "{\"format\": 1, \"uuid\": \"" OTHER_UUID "\", \"label\": \"x\"}",
                                         "{\"format\": 1, \"uuid\": \"" DISK_UUID "\", \"label\": 7}",
                                         "\xff\xfe"};
    struct bench *b = bench_attached();
    bench_create_disk(b, DISK_UUID, 4096);
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        write_file(b, DISK_UUID ".smapi", broken[i]);
        struct vdi_list list = bench_scan(b, NULL);
        assert_int_equal(list.count, 1);
        assert_int_equal(list.items[0].state, VDI_LIVE);
        assert_string_equal(list.items[0].label, "");
    }
    write_file(b, DISK_UUID ".smapi", "{\"format\": 1, \"uuid\": \"" DISK_UUID "\", \"label\": \"a\\u0001b\\ufffe\"}");
    assert_string_equal(bench_scan(b, NULL).items[0].label, "a?b???");
    bench_free(b);
}

static void attaching_gives_the_path_and_checks_the_image(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 4096);
    const char *path;
    struct stat st;
    must(b, backend_vdi_attach(b->sr, &disk, true, b->arena, &path, &b->fault));
    assert_string_equal(path, arena_printf(b->arena, "%s/" SR_UUID "/" DISK_UUID ".raw", b->base));
    assert_int_equal(stat(path, &st), 0);
    must(b, backend_vdi_activate(b->sr, &disk, 1, true, &b->fault));
    must(b, backend_vdi_deactivate(b->sr, &disk, &b->fault));
    shell("truncate -s 0 %s/" DISK_UUID ".raw", b->location);
    must_fail(b, backend_vdi_attach(b->sr, &disk, true, b->arena, &path, &b->fault), FAULT_VDILoad);
    shell("rm %s/" DISK_UUID ".raw", b->location);
    must_fail(b, backend_vdi_attach(b->sr, &disk, false, b->arena, &path, &b->fault), FAULT_VDIUnavailable);
    must_fail(b, backend_vdi_activate(b->sr, &disk, 2, true, &b->fault), FAULT_VDIUnavailable);
    must(b, backend_vdi_deactivate(b->sr, &disk, &b->fault));
    bench_free(b);
}

static void introducing_takes_images_by_uuid_or_by_file_name(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct plan p = bench_plan("vdi_introduce", DISK_UUID);
    struct vdi out;
    must_fail(b, backend_vdi_introduce(b->sr, &p, DISK_UUID, b->arena, &out, &b->fault), FAULT_VDIUnavailable);
    shell("cd %s && truncate -s 8k " DISK_UUID ".raw && truncate -s 4k 'copied disk.raw'", b->location);
    must(b, backend_vdi_introduce(b->sr, &p, DISK_UUID, b->arena, &out, &b->fault));
    assert_int_equal(out.size, 8192);
    must(b, backend_vdi_introduce(b->sr, &p, DISK_UUID ".raw", b->arena, &out, &b->fault));
    p = bench_plan("vdi_introduce", OTHER_UUID);
    must_fail(b, backend_vdi_introduce(b->sr, &p, DISK_UUID ".raw", b->arena, &out, &b->fault), FAULT_InvalidArg);
    must(b, backend_vdi_introduce(b->sr, &p, "copied disk.raw", b->arena, &out, &b->fault));
    assert_string_equal(out.location, OTHER_UUID);
    assert_true(stands(b, OTHER_UUID ".raw") && !stands(b, "copied disk.raw"));
    static const char *const bad[] = {"../x.raw", "/x.raw", ".x.raw", "x", "", "a\nb.raw", ".raw"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        must_fail(b, backend_vdi_introduce(b->sr, &p, bad[i], b->arena, &out, &b->fault), FAULT_InvalidArg);
    shell("cd %s && truncate -s 4k second.raw && ln -s second.raw link.raw", b->location);
    must_fail(b, backend_vdi_introduce(b->sr, &p, "second.raw", b->arena, &out, &b->fault), FAULT_VDIExists);
    must_fail(b, backend_vdi_introduce(b->sr, &p, "link.raw", b->arena, &out, &b->fault), FAULT_VDIUnavailable);
    must_fail(b, backend_vdi_introduce(b->sr, &p, "none.raw", b->arena, &out, &b->fault), FAULT_VDIUnavailable);
    assert_true(stands(b, "second.raw"));
    bench_free(b);
}

/* ------------------------------------------------------------------ scan */

static const struct vdi *listed(const struct vdi_list *l, const char *uuid)
{
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->items[i].uuid.text, uuid) == 0)
            return &l->items[i];
    fail_msg("disk %s is not listed", uuid);
    return &l->items[0];
}

static void hostile_entries_are_damaged_disks_and_spoil_no_other(void **state)
{
    (void) state;
    static const char *const kinds[] = {"ln -s /etc/passwd", "mkfifo", "mkdir", "ln sr.smapi", "touch"};
    struct bench *b = bench_attached();
    struct vdi disk = bench_create_disk(b, DISK_UUID, 4096);
    char uuid[] = "eeeeeee0-2222-3333-4444-555555555555";
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        uuid[7] = (char) ('0' + i);
        shell("cd %s && %s %s.raw", b->location, kinds[i], uuid);
    }
    uuid[7] = '5';
    assert_int_equal(mknod(arena_printf(b->arena, "%s/%s.raw", b->location, uuid), S_IFBLK | 0600, makedev(7, 99)), 0);
    struct vdi_list list = bench_scan(b, NULL);
    assert_int_equal(list.count, 7);
    assert_int_equal(listed(&list, DISK_UUID)->state, VDI_LIVE);
    for (int i = 0; i < 6; i++) {
        uuid[7] = (char) ('0' + i);
        const struct vdi *bad = listed(&list, uuid);
        assert_int_equal(bad->state, VDI_DAMAGED);
        assert_true(bad->damage[0] != '\0');
        struct vdi served = *bad;
        struct plan p = bench_plan("vdi_resize", uuid);
        const char *path;
        p.size = 8192;
        served.state = VDI_LIVE;
        assert_int_equal(backend_vdi_attach(b->sr, &served, true, b->arena, &path, &b->fault), -1);
        assert_int_equal(backend_vdi_resize(b->sr, &p, &served, b->arena, &served, &b->fault), -1);
    }
    shell("ln %s/" DISK_UUID ".raw %s/second-name", b->location, b->location);
    const char *path;
    must_fail(b, backend_vdi_attach(b->sr, &disk, true, b->arena, &path, &b->fault), FAULT_VDIUnavailable);
    list = bench_scan(b, NULL);
    assert_int_equal(listed(&list, DISK_UUID)->state, VDI_DAMAGED);
    bench_free(b);
}

static void what_operations_work_on_is_not_reported(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi_list known = {0};
    struct vdi *row = vdi_list_add(b->arena, &known);
    *row = bench_create_disk(b, DISK_UUID, 4096);
    write_file(b, "12345678-new-" OTHER_UUID ".smapi", "x");
    row->state = VDI_CREATING;
    assert_int_equal(bench_scan(b, &known).count, 0);
    row->state = VDI_DELETING;
    assert_int_equal(bench_scan(b, &known).count, 0);
    row->state = VDI_QUARANTINED;
    assert_int_equal(bench_scan(b, &known).items[0].state, VDI_QUARANTINED);
    row->state = VDI_DAMAGED;
    row->label = "kept in the rows";
    struct vdi_list list = bench_scan(b, &known);
    assert_int_equal(list.items[0].state, VDI_LIVE);
    assert_string_equal(list.items[0].label, "kept in the rows");
    bench_free(b);
}

static void totals_are_those_of_the_file_system_and_the_disks(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct statvfs fs;
    struct vdi_list none = {0}, out;
    struct sr_totals t;
    bench_create_disk(b, DISK_UUID, 4096);
    bench_create_disk(b, OTHER_UUID, 1 << 20);
    shell("head -c 8192 /dev/zero > %s/" DISK_UUID ".raw; sync", b->location);
    must(b, backend_sr_scan(b->sr, &none, b->arena, &out, &t, &b->fault));
    assert_int_equal(statvfs(b->location, &fs), 0);
    assert_int_equal(t.physical_size, (uint64_t) fs.f_blocks * fs.f_frsize);
    assert_true(t.physical_utilisation > 0 && t.physical_utilisation < t.physical_size);
    assert_int_equal(t.virtual_allocation, 8192 + (1 << 20));
    assert_int_equal(listed(&out, DISK_UUID)->utilisation, 8192);
    assert_int_equal(listed(&out, OTHER_UUID)->utilisation, 0);
    bench_free(b);
}

static void a_changed_image_is_seen_by_the_next_scan(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct timespec old[2] = {{1000000000, 0}, {1000000000, 0}};
    char path[160];
    bench_create_disk(b, DISK_UUID, 4096);
    snprintf(path, sizeof path, "%s/%s.raw", b->location, DISK_UUID);
    sleep(3); /* until it is believed */
    for (int i = 0; i < 2; i++)
        assert_int_equal(bench_scan(b, NULL).items[0].size, 4096);
    assert_int_equal(truncate(path, 8192), 0);
    utimensat(AT_FDCWD, path, old, 0);
    assert_int_equal(bench_scan(b, NULL).items[0].size, 8192);
    shell("rm %s; mkfifo %s", path, path);
    assert_int_equal(bench_scan(b, NULL).items[0].state, VDI_DAMAGED);
    shell("rm %s", path);
    assert_int_equal(bench_scan(b, NULL).count, 0);
    bench_free(b);
}

/* ------------------------------------------------------------------ probe */

static void probing_finds_marked_and_older_srs_here_and_below(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct found_list found = {0};
    struct pair items[] = {{"location", b->top}};
    struct pairs config = {items, 1};
    shell("cd %s && mkdir " OTHER_UUID " plain && touch " OTHER_UUID "/" DISK_UUID ".raw plain/" DISK_UUID ".raw"
          " && ln -s sr link && mkdir " DISK_UUID,
          b->top);
    must(b, backend_sr_probe(b->sr->type, &config, NULL, &b->settings, b->arena, &found, &b->fault));
    assert_int_equal(found.count, 2);
    for (size_t i = 0; i < 2; i++) {
        bool marked = strcmp(found.items[i].uuid.text, SR_UUID) == 0;
        assert_string_equal(found.items[i].path, arena_printf(b->arena, "%s/%s", b->top, marked ? "sr" : OTHER_UUID));
        assert_true(marked || strcmp(found.items[i].uuid.text, OTHER_UUID) == 0);
    }
    items[0].value = b->location;
    must(b, backend_sr_probe(b->sr->type, &config, NULL, &b->settings, b->arena, &found, &b->fault));
    assert_int_equal(found.count, 1);
    assert_true(found.items[0].size > 0);
    items[0].value = "/nonexistent/place";
    must_fail(b, backend_sr_probe(b->sr->type, &config, NULL, &b->settings, b->arena, &found, &b->fault),
              FAULT_SRUnavailable);
    bench_free(b);
}

/* ------------------------------------------------------------------ failed syncs */

static void a_failed_sync_poisons_the_sr_until_it_is_attached_again(void **state)
{
    (void) state;
    struct bench *b = bench_attached();
    struct vdi wanted = wanted_disk(DISK_UUID, 4096), out;
    int failures = 0;
    for (int n = 0; n < 10; n++) {
        struct plan p = bench_plan("vdi_create", DISK_UUID);
        enum settled how;
        p.size = 4096;
        fsyncs_until_failure = n;
        int r = backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault);
        fsyncs_until_failure = -1;
        if (r == 0)
            break;
        failures++;
        must_fail(b, r, FAULT_EIO);
        assert_int_equal(backend_sr_check(b->sr, &b->fault), -1);
        assert_non_null(strstr(b->fault.detail, "Input/output error"));
        must_fail(b, -1, FAULT_SRUnavailable);
        must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &out, &b->deleted, &b->fault));
        assert_int_equal(how, SETTLED_UNDONE);
        assert_int_equal(entries(b), 1);
        must(b, backend_sr_attach(b->sr, &b->fault));
        must(b, backend_sr_check(b->sr, &b->fault));
    }
    assert_int_equal(failures, 4);
    struct plan p = bench_plan("vdi_delete", DISK_UUID);
    enum settled how;
    fsyncs_until_failure = 0;
    must_fail(b, backend_vdi_delete(b->sr, &p, &wanted, b->arena, &b->deleted, &b->fault), FAULT_EIO);
    fsyncs_until_failure = -1;
    must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_STUCK);
    must(b, backend_sr_attach(b->sr, &b->fault));
    must(b, backend_settle(b->sr, &p, NULL, b->arena, &how, &out, &out, &b->deleted, &b->fault));
    assert_int_equal(how, SETTLED_DONE);
    bench_free(b);
}

int main(void)
{
    if (geteuid() != 0)
        return 77; /* mounts are needed */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_sr_is_marked_and_left_disconnected),
        cmocka_unit_test(attaching_and_detaching_are_idempotent_and_leave_no_link),
        cmocka_unit_test(an_sr_survives_a_restart_of_the_daemon),
        cmocka_unit_test(places_that_are_no_place_are_refused),
        cmocka_unit_test(an_sr_is_not_made_inside_another),
        cmocka_unit_test(unusable_places_fail_with_61),
        cmocka_unit_test(a_place_that_holds_anything_is_refused_but_for_lost_and_found),
        cmocka_unit_test(undoing_a_refused_create_leaves_the_sr_that_was_there),
        cmocka_unit_test(deleting_removes_the_directory_only_if_it_was_made),
        cmocka_unit_test(an_sr_that_holds_a_disk_or_a_foreign_file_is_not_deleted),
        cmocka_unit_test(a_missing_marker_is_not_an_empty_sr),
        cmocka_unit_test(a_place_that_changes_under_an_attached_sr_is_noticed),
        cmocka_unit_test(a_foreign_marker_or_owner_is_refused_by_name),
        cmocka_unit_test(disks_of_the_older_manager_are_adopted_and_its_files_left_alone),
        cmocka_unit_test(strays_of_dead_operations_go_at_attach_and_nothing_else),
        cmocka_unit_test(the_link_accepts_what_leads_there_and_nothing_else),
        cmocka_unit_test(a_new_disk_is_whole_and_keeps_its_labels),
        cmocka_unit_test(a_uuid_that_stands_is_not_made_again),
        cmocka_unit_test(undoing_a_create_spares_an_image_that_others_put_there),
        cmocka_unit_test(sizes_and_formats_that_cannot_be_are_refused),
        cmocka_unit_test(a_full_file_system_is_44_and_nothing_stays_behind),
        cmocka_unit_test(deleting_is_idempotent_and_takes_the_sidecar),
        cmocka_unit_test(only_the_inode_that_was_meant_is_deleted),
        cmocka_unit_test(a_raw_disk_grows_and_never_shrinks),
        cmocka_unit_test(updated_labels_survive_a_lost_database),
        cmocka_unit_test(a_broken_sidecar_costs_the_labels_only),
        cmocka_unit_test(attaching_gives_the_path_and_checks_the_image),
        cmocka_unit_test(introducing_takes_images_by_uuid_or_by_file_name),
        cmocka_unit_test(hostile_entries_are_damaged_disks_and_spoil_no_other),
        cmocka_unit_test(what_operations_work_on_is_not_reported),
        cmocka_unit_test(totals_are_those_of_the_file_system_and_the_disks),
        cmocka_unit_test(a_changed_image_is_seen_by_the_next_scan),
        cmocka_unit_test(probing_finds_marked_and_older_srs_here_and_below),
        cmocka_unit_test(a_failed_sync_poisons_the_sr_until_it_is_attached_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
