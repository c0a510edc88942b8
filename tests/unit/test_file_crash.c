/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every changing operation of the file layout is killed before each of its mutating system calls, and at each fault
   point; its recovery is killed in the same way, at every third call (SMAPI_DEEP: at each); then recovery runs once
   more. The oracle: whole or absent, and nothing left over. The calls are counted by the linker's --wrap. */
#include "backends/images/vhd.h"
#include "server/base/point.h"
#include "server/base/units.h"
#include "tests/unit/test_file_bench.h"
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>

static long calls_until_kill = -1;

static void count_call(void)
{
    if (calls_until_kill > 0 && --calls_until_kill == 0) {
        kill(getpid(), SIGKILL);
        pause();
    }
}

/* clang-format off */
#define WRAP(name, parameters, arguments) \
    int __real_##name parameters; \
    int __wrap_##name parameters; \
    int __wrap_##name parameters { count_call(); return __real_##name arguments; }
WRAP(fsync, (int fd), (fd))
WRAP(ftruncate, (int fd, off_t length), (fd, length))
WRAP(renameat, (int d, const char *n, int e, const char *m), (d, n, e, m))
WRAP(renameat2, (int d, const char *n, int e, const char *m, unsigned flags), (d, n, e, m, flags))
WRAP(unlinkat, (int d, const char *n, int flags), (d, n, flags))
WRAP(unlink, (const char *n), (n))
WRAP(linkat, (int d, const char *n, int e, const char *m, int flags), (d, n, e, m, flags))
WRAP(fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(futimens, (int fd, const struct timespec *times), (fd, times))
WRAP(symlink, (const char *to, const char *n), (to, n))
WRAP(mkdirat, (int d, const char *n, mode_t mode), (d, n, mode))
/* clang-format on */

ssize_t __real_write(int fd, const void *data, size_t length);
ssize_t __wrap_write(int fd, const void *data, size_t length);
ssize_t __wrap_write(int fd, const void *data, size_t length)
{
    count_call();
    return __real_write(fd, data, length);
}

ssize_t __real_pwrite(int fd, const void *data, size_t length, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t at);
ssize_t __wrap_pwrite(int fd, const void *data, size_t length, off_t at)
{
    count_call();
    return __real_pwrite(fd, data, length, at);
}

/* openat2, which has no function in the C library: counted when it makes a file. */
long __real_syscall(long number, int dir, const char *name, struct open_how *how, size_t size);
long __wrap_syscall(long number, int dir, const char *name, struct open_how *how, size_t size);
long __wrap_syscall(long number, int dir, const char *name, struct open_how *how, size_t size)
{
    if (number == SYS_openat2 && (how->flags & O_CREAT))
        count_call();
    return __real_syscall(number, dir, name, how, size);
}

/* ------------------------------------------------------------------ the operations */

#define SIZE 8192

struct scenario {
    const char *method;
    bool keep;
    void (*setup)(struct bench *b, struct plan *p);
    int (*run)(struct bench *b, const struct plan *p, struct fault *f);
    /* After recovery came to how. */
    void (*oracle)(struct bench *b, enum settled how, const struct vdi *out);
};

static void setup_empty(struct bench *b, struct plan *p)
{
    bench_create_sr(b);
    p->vdi = U(DISK_UUID);
    p->size = SIZE;
}

static void setup_disk(struct bench *b, struct plan *p)
{
    setup_empty(b, p);
    must(b, backend_sr_attach(b->sr, &b->fault));
    struct vdi disk = bench_create_disk(b, DISK_UUID, 4096);
    must(b, backend_vdi_locate(b->sr, &disk, b->arena, p, &b->fault));
}

static void setup_found(struct bench *b, struct plan *p)
{
    setup_empty(b, p);
    shell("truncate -s %d '%s/found.raw'", SIZE, b->location);
    p->name = "found.raw";
}

static void setup_nothing(struct bench *b, struct plan *p)
{
    (void) b, (void) p;
}

static void setup_directory(struct bench *b, struct plan *p)
{
    (void) p;
    shell("mkdir %s", b->location);
}

static void setup_given(struct bench *b, struct plan *p)
{
    setup_directory(b, p);
    bench_create_sr(b);
}

static struct vdi row_of_disk(void)
{
    struct vdi vdi = wanted_disk(DISK_UUID, SIZE);
    vdi.label = "after";
    return vdi;
}

static int run_create(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi wanted = row_of_disk(), out;
    return backend_vdi_create(b->sr, p, &wanted, b->arena, &out, f);
}

static int run_delete(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi disk = row_of_disk();
    return backend_vdi_delete(b->sr, p, &disk, b->arena, &b->deleted, f);
}

static int run_resize(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi disk = row_of_disk(), out;
    return backend_vdi_resize(b->sr, p, &disk, b->arena, &out, f);
}

static int run_update(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi disk = row_of_disk(), out;
    return backend_vdi_update(b->sr, p, &disk, b->arena, &out, f);
}

static int run_introduce(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi out;
    return backend_vdi_introduce(b->sr, p, "found.raw", b->arena, &out, f);
}

static int run_sr_create(struct bench *b, const struct plan *p, struct fault *f)
{
    return backend_sr_create(b->sr, p, f);
}

static int run_sr_delete(struct bench *b, const struct plan *p, struct fault *f)
{
    return backend_sr_attach(b->sr, f) < 0 ? -1 : backend_sr_delete(b->sr, p, f);
}

static void absent_or_whole(struct bench *b, enum settled how, const struct vdi *out)
{
    struct vdi_list list = bench_scan(b, NULL);
    assert_int_not_equal(how, SETTLED_STUCK);
    assert_int_equal(list.count, how == SETTLED_DONE);
    assert_int_equal(entries(b), how == SETTLED_DONE ? 3 : 1);
    if (how == SETTLED_UNDONE)
        return;
    assert_int_equal(list.items[0].size, SIZE);
    assert_string_equal(list.items[0].label, "after");
    assert_int_equal(out->size, SIZE);
    assert_string_equal(out->uuid.text, DISK_UUID);
}

static void absent(struct bench *b, enum settled how, const struct vdi *out)
{
    assert_int_equal(how, SETTLED_UNDONE);
    absent_or_whole(b, how, out);
}

static void deleted(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_int_equal(how, SETTLED_DONE);
    assert_int_equal(entries(b), 1);
}

static void old_or_new_size(struct bench *b, enum settled how, const struct vdi *out)
{
    struct vdi_list list = bench_scan(b, NULL);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.items[0].size, how == SETTLED_DONE ? SIZE : 4096);
    assert_int_equal(entries(b), 3);
    if (how == SETTLED_DONE)
        assert_int_equal(out->size, SIZE);
}

static void old_or_new_label(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_string_equal(bench_scan(b, NULL).items[0].label, how == SETTLED_DONE ? "after" : "label <&> \xc3\xa4");
    assert_int_equal(entries(b), 3);
}

static void found_or_taken(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_int_equal(stands(b, "found.raw"), how == SETTLED_UNDONE);
    assert_int_equal(stands(b, DISK_UUID ".raw"), how == SETTLED_DONE);
    assert_int_equal(entries(b), how == SETTLED_DONE ? 3 : 2);
}

static void found_again(struct bench *b, enum settled how, const struct vdi *out)
{
    assert_int_equal(how, SETTLED_UNDONE);
    found_or_taken(b, how, out);
}

static void clean_above(const struct bench *b)
{
    shell("test -z \"$(ls -A %s | grep -v -x -e base -e sr)\"", b->top);
    shell("test -z \"$(ls -A %s 2>/dev/null | grep -v link)\"", b->base);
}

static void no_directory(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_int_equal(how, strcmp(b->fault.detail, "create") == 0 ? SETTLED_UNDONE : SETTLED_DONE);
    assert_int_equal(entries(b), -1);
    clean_above(b);
}

static void empty_directory(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_int_equal(how, strcmp(b->fault.detail, "create") == 0 ? SETTLED_UNDONE : SETTLED_DONE);
    assert_int_equal(entries(b), 0);
    clean_above(b);
}

/* ------------------------------------------------------------------ trees */

#define MADE_UUID    "dddddddd-2222-3333-4444-555555555555"
#define BASE_UUID    "eeeeeeee-2222-3333-4444-555555555555"
#define VHD_SIZE     (UINT64_C(2) << 20)
#define OTHER_PARENT "ffffffff-2222-3333-4444-555555555555"
#define LARGE        (UINT64_C(1) << 30)

static int open_beside(void *context, const struct uuid *vdi, int *fd, struct fault *f)
{
    struct bench *b = context;
    char name[64];
    snprintf(name, sizeof name, "%s.vhd", vdi->text);
    *fd = openat(b->sr->place.dir, name, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? fault_errno(f, FAULT_VDILoad, "open %s", name) : 0;
}

/* Puts a word into a sector of the disk. */
static void put(struct bench *b, const char *uuid, uint64_t sector, const char *word)
{
    struct vhd_chain *chain;
    char data[SECTOR_SIZE] = "", name[64];
    snprintf(name, sizeof name, "%s.vhd", uuid);
    memcpy(data, word, strlen(word));
    AUTO_FD int fd = openat(b->sr->place.dir, name, O_RDWR | O_CLOEXEC);
    must(b, vhd_chain_open(fd, true, open_beside, b, &chain, &b->fault));
    must(b, vhd_chain_write(chain, data, sizeof data, sector * SECTOR_SIZE, &b->fault));
    vhd_chain_close(chain);
}

/* The disk as a whole is there and holds that word; NULL: zeros. */
static void holds(struct bench *b, const char *uuid, uint64_t sector, const char *word)
{
    struct vhd_chain *chain;
    char data[SECTOR_SIZE], name[64];
    snprintf(name, sizeof name, "%s.vhd", uuid);
    AUTO_FD int fd = openat(b->sr->place.dir, name, O_RDONLY | O_CLOEXEC);
    must(b, vhd_check(fd, &b->fault));
    must(b, vhd_chain_open(fd, false, open_beside, b, &chain, &b->fault));
    must(b, vhd_chain_read(chain, data, sizeof data, sector * SECTOR_SIZE, &b->fault));
    data[SECTOR_SIZE - 1] = '\0';
    assert_string_equal(data, word);
    vhd_chain_close(chain);
}

static struct vdi row_in(struct bench *b, const char *uuid)
{
    struct vdi_list list = bench_scan(b, NULL);
    for (size_t i = 0; i < list.count; i++)
        if (strcmp(list.items[i].uuid.text, uuid) == 0)
            return list.items[i];
    fail_msg("disk %s is not there", uuid);
    return vdi_blank();
}

static void make_vhd(struct bench *b, const char *uuid)
{
    struct plan p = bench_plan("vdi_create", uuid);
    struct vdi wanted = wanted_disk(uuid, VHD_SIZE), out;
    wanted.format = "vhd";
    p.size = VHD_SIZE;
    must(b, backend_vdi_create(b->sr, &p, &wanted, b->arena, &out, &b->fault));
}

static void fork_disk(struct bench *b, const char *uuid, const char *made, const char *base)
{
    struct plan p = bench_plan("vdi_clone", uuid);
    struct vdi row = row_in(b, uuid), wanted = wanted_disk(made, VHD_SIZE), out, left;
    p.made = U(made);
    p.base = U(base);
    must(b, backend_vdi_fork(b->sr, &p, &wanted, &row, b->arena, &out, &left, &b->fault));
}

static void setup_vhd(struct bench *b, struct plan *p)
{
    setup_empty(b, p);
    must(b, backend_sr_attach(b->sr, &b->fault));
    make_vhd(b, DISK_UUID);
    put(b, DISK_UUID, 7, "content");
    p->size = VHD_SIZE;
}

static void setup_fork(struct bench *b, struct plan *p)
{
    setup_vhd(b, p);
    p->made = U(MADE_UUID);
    p->base = U(BASE_UUID);
    p->read_only = strcmp(p->method, "vdi_snapshot") == 0;
}

/* A disk of three images, the last of its tree. */
static void setup_chain(struct bench *b, struct plan *p)
{
    static const char *const bases[] = {BASE_UUID, "eeeeeee1-2222-3333-4444-555555555555"};
    setup_vhd(b, p);
    for (size_t i = 0; i < COUNT_OF(bases); i++) {
        struct plan d = bench_plan("vdi_delete", MADE_UUID);
        struct vdi row = wanted_disk(MADE_UUID, VHD_SIZE);
        fork_disk(b, DISK_UUID, MADE_UUID, bases[i]);
        must(b, backend_vdi_delete(b->sr, &d, &row, b->arena, &b->deleted, &b->fault));
    }
    struct vdi row = row_in(b, DISK_UUID);
    must(b, backend_vdi_locate(b->sr, &row, b->arena, p, &b->fault));
}

/* A visible disk that has a child. */
static void setup_parent(struct bench *b, struct plan *p)
{
    struct uuid child = U(MADE_UUID), disk = U(DISK_UUID);
    setup_vhd(b, p);
    AUTO_FD int parent = openat(b->sr->place.dir, DISK_UUID ".vhd", O_RDONLY | O_CLOEXEC);
    AUTO_FD int fd = openat(b->sr->place.dir, MADE_UUID ".vhd", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(b, image_vhd.make_child(fd, &child, parent, &disk, &b->fault));
}

static void setup_growing(struct bench *b, struct plan *p)
{
    setup_vhd(b, p);
    p->size = LARGE;
}

static void setup_child(struct bench *b, struct plan *p)
{
    setup_vhd(b, p);
    fork_disk(b, DISK_UUID, MADE_UUID, BASE_UUID);
    put(b, DISK_UUID, 9, "own");
}

static void setup_compose(struct bench *b, struct plan *p)
{
    setup_child(b, p);
    make_vhd(b, OTHER_PARENT);
    put(b, OTHER_PARENT, 7, "other");
    p->base = U(OTHER_PARENT);
}

static struct vdi row_of_vhd(const char *uuid)
{
    struct vdi row = wanted_disk(uuid, VHD_SIZE);
    row.format = "vhd";
    return row;
}

static int run_fork(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi row = row_of_vhd(DISK_UUID), wanted = row_of_vhd(MADE_UUID), made, base;
    return backend_vdi_fork(b->sr, p, &wanted, &row, b->arena, &made, &base, f);
}

static int run_grow(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi row = row_of_vhd(DISK_UUID), out;
    return backend_vdi_resize(b->sr, p, &row, b->arena, &out, f);
}

static int run_reset(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi row = row_of_vhd(DISK_UUID), out;
    return backend_vdi_reset(b->sr, p, &row, b->arena, &out, f);
}

static int run_compose(struct bench *b, const struct plan *p, struct fault *f)
{
    struct vdi row = row_of_vhd(DISK_UUID), parent = row_of_vhd(OTHER_PARENT), out, base;
    return backend_vdi_compose(b->sr, p, &row, &parent, b->arena, &out, &base, f);
}

static void alone_or_forked(struct bench *b, enum settled how, const struct vdi *out)
{
    struct vdi disk = row_in(b, DISK_UUID);
    assert_int_not_equal(how, SETTLED_STUCK);
    holds(b, DISK_UUID, 7, "content");
    assert_int_equal(disk.state, VDI_LIVE);
    assert_int_equal(entries(b), how == SETTLED_DONE ? 7 : 3);
    assert_string_equal(disk.parent.text, how == SETTLED_DONE ? BASE_UUID : "");
    if (how == SETTLED_UNDONE)
        return;
    struct vdi made = row_in(b, MADE_UUID), base = row_in(b, BASE_UUID);
    holds(b, MADE_UUID, 7, "content");
    assert_true(made.state == VDI_LIVE && !made.hidden && base.state == VDI_LIVE && base.hidden && !base.managed);
    assert_string_equal(made.parent.text, BASE_UUID);
    assert_string_equal(base.label, "base copy");
    assert_string_equal(out->uuid.text, MADE_UUID);
    shell("test $(stat -c %%a %s/" BASE_UUID ".vhd) = 400", b->location);
}

static void tree_deleted(struct bench *b, enum settled how, const struct vdi *out)
{
    deleted(b, how, out);
    assert_false(b->deleted.kept);
    assert_int_equal(b->deleted.gone_count, 2);
}

static void kept_hidden(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_int_equal(how, SETTLED_DONE);
    assert_true(b->deleted.kept);
    struct vdi disk = row_in(b, DISK_UUID);
    assert_true(disk.hidden && disk.state == VDI_LIVE);
    holds(b, MADE_UUID, 7, "content");
    assert_int_equal(entries(b), 4);
}

static void small_or_grown(struct bench *b, enum settled how, const struct vdi *out)
{
    struct vdi disk = row_in(b, DISK_UUID);
    assert_int_not_equal(how, SETTLED_STUCK);
    holds(b, DISK_UUID, 7, "content");
    assert_int_equal(disk.size, how == SETTLED_DONE ? LARGE : VHD_SIZE);
    assert_int_equal(entries(b), 3);
    if (how == SETTLED_DONE)
        assert_int_equal(out->size, LARGE);
}

static void as_it_was_or_empty(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    assert_int_not_equal(how, SETTLED_STUCK);
    holds(b, DISK_UUID, 7, "content");
    holds(b, DISK_UUID, 9, how == SETTLED_DONE ? "" : "own");
    assert_int_equal(entries(b), 7);
}

static void on_the_old_parent_or_the_new(struct bench *b, enum settled how, const struct vdi *out)
{
    (void) out;
    struct vdi disk = row_in(b, DISK_UUID), other = row_in(b, OTHER_PARENT);
    assert_int_not_equal(how, SETTLED_STUCK);
    assert_string_equal(disk.parent.text, how == SETTLED_DONE ? OTHER_PARENT : BASE_UUID);
    assert_true(disk.state == VDI_LIVE && other.hidden == (how == SETTLED_DONE));
    assert_string_equal(other.label, "label <&> \xc3\xa4");
    holds(b, DISK_UUID, 7, how == SETTLED_DONE ? "other" : "content");
    holds(b, DISK_UUID, 9, "own");
    assert_int_equal(entries(b), 9);
}

static const struct scenario scenarios[] = {
    {"vdi_create", false, setup_empty, run_create, absent},
    {"vdi_create", true, setup_empty, run_create, absent_or_whole},
    {"vdi_delete", false, setup_disk, run_delete, deleted},
    {"vdi_resize", false, setup_disk, run_resize, old_or_new_size},
    {"vdi_update", false, setup_disk, run_update, old_or_new_label},
    {"vdi_introduce", false, setup_found, run_introduce, found_again},
    {"vdi_introduce", true, setup_found, run_introduce, found_or_taken},
    {"vdi_clone", false, setup_fork, run_fork, alone_or_forked},
    {"vdi_snapshot", true, setup_fork, run_fork, alone_or_forked},
    {"vdi_delete", false, setup_chain, run_delete, tree_deleted},
    {"vdi_delete", false, setup_parent, run_delete, kept_hidden},
    {"vdi_resize", false, setup_growing, run_grow, small_or_grown},
    {"vdi_epoch_begin", false, setup_child, run_reset, as_it_was_or_empty},
    {"vdi_compose", false, setup_compose, run_compose, on_the_old_parent_or_the_new},
    {"sr_create", false, setup_nothing, run_sr_create, no_directory},
    {"sr_create", true, setup_directory, run_sr_create, empty_directory},
    {"sr_delete", false, setup_empty, run_sr_delete, no_directory},
    {"sr_delete", true, setup_given, run_sr_delete, empty_directory},
};

/* ------------------------------------------------------------------ killing */

static bool is_of_sr(const struct scenario *s)
{
    return strncmp(s->method, "sr_", 3) == 0;
}

/* As a daemon that starts does it. */
static int recover(struct bench *b, const struct scenario *s, const struct plan *p, enum settled *how, struct vdi *out)
{
    struct vdi wanted = row_of_disk(), base;
    if (!is_of_sr(s) && backend_sr_attach(b->sr, &b->fault) < 0)
        return -1;
    return backend_settle(b->sr, p, is_of_sr(s) ? NULL : &wanted, b->arena, how, out, &base, &b->deleted, &b->fault);
}

/* Where a child is to die: before its n-th mutating call, or at a fault point. */
struct death {
    long call;
    int point; /* -1 for none */
};

static void arm(const struct death *d)
{
    char spec[80];
    calls_until_kill = d->call;
    if (d->point < 0)
        return;
    snprintf(spec, sizeof spec, "%s:kill", point_rows[d->point].name);
    setenv("SMAPI_POINT", spec, 1);
    assert_int_equal(point_arm_from_environment(), 0);
}

/* True when the child died there, false when it came to its end first. */
static bool killed(struct bench *b, const struct scenario *s, const struct plan *p, const struct death *d,
                   bool in_recovery)
{
    pid_t child = fork();
    if (child == 0) {
        enum settled how;
        struct vdi out;
        int r = 0;
        if (!in_recovery && !is_of_sr(s))
            r = backend_sr_attach(b->sr, &b->fault);
        arm(d);
        r = r < 0 ? r : in_recovery ? recover(b, s, p, &how, &out) : s->run(b, p, &b->fault);
        if (r < 0)
            fprintf(stderr, "%s: %s\n", s->method, b->fault.detail);
        _exit(r < 0 ? 1 : 0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return false;
}

/* One run: dies at first, recovers and dies there at second (when it is armed), recovers, is judged. The answers say
   whether each death was met. */
static bool one_run(const struct scenario *s, const struct death *first, const struct death *second, bool *second_met)
{
    struct bench *b = bench_new();
    struct plan p = bench_plan(s->method, NULL);
    enum settled how, again;
    struct vdi out, same;
    p.keep = s->keep;
    s->setup(b, &p);
    bench_restart(b);
    bool met = killed(b, s, &p, first, false);
    *second_met = second->call > 0 && killed(b, s, &p, second, true);
    bench_restart(b);
    must(b, recover(b, s, &p, &how, &out));
    snprintf(b->fault.detail, sizeof b->fault.detail, "%s", s->method + 3);
    s->oracle(b, how, &out);
    bench_restart(b);
    must(b, recover(b, s, &p, &again, &same));
    assert_int_equal(how, again);
    snprintf(b->fault.detail, sizeof b->fault.detail, "%s", s->method + 3);
    s->oracle(b, again, &same);
    bench_free(b);
    return met;
}

static const struct death never = {.call = -1, .point = -1};

static void a_kill_before_any_call_leaves_whole_or_absent(void **state)
{
    (void) state;
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        bool met = true, second_met;
        long n = 0;
        while (met) {
            const struct death d = {.call = ++n, .point = -1};
            met = one_run(&scenarios[i], &d, &never, &second_met);
        }
        print_message("           %s: %ld calls\n", scenarios[i].method, n - 1);
        assert_true(n > 2);
    }
}

static void a_kill_inside_recovery_leaves_whole_or_absent(void **state)
{
    (void) state;
    const long turn = getenv("SMAPI_DEEP") ? 1 : 3; /* of so many second deaths one */
    size_t runs = 0;
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        bool met = true;
        for (long n = 1; met; n++) {
            bool second_met = true;
            for (long m = 1 + n % turn; met && second_met; m += turn, runs++) {
                const struct death d = {.call = n, .point = -1}, e = {.call = m, .point = -1};
                met = one_run(&scenarios[i], &d, &e, &second_met);
            }
        }
    }
    print_message("           %zu runs\n", runs);
    assert_true(runs > 200);
}

static bool is_of_layout(const char *name)
{
    static const char *const begins[] = {"create_", "delete_", "resize_", "sr_",
                                         "fork_",   "hide_",   "reset_",  "compose_"};
    for (size_t i = 0; i < COUNT_OF(begins); i++)
        if (strncmp(name, begins[i], strlen(begins[i])) == 0)
            return true;
    return false;
}

/* The operation fails there once, and is settled by the process that made it. False when it never came there. */
static bool failed(const struct scenario *s, int point, const char *action)
{
    struct bench *b = bench_new();
    struct plan p = bench_plan(s->method, NULL);
    struct vdi wanted = row_of_disk(), out, base;
    enum settled how;
    char spec[80];
    p.keep = s->keep;
    s->setup(b, &p);
    bench_restart(b);
    must(b, backend_sr_attach(b->sr, &b->fault));
    snprintf(spec, sizeof spec, "%s:%s", point_rows[point].name, action);
    setenv("SMAPI_POINT", spec, 1);
    assert_int_equal(point_arm_from_environment(), 0);
    bool met = s->run(b, &p, &b->fault) < 0;
    setenv("SMAPI_POINT", "result_committed:eio", 1); /* which no layout passes */
    assert_int_equal(point_arm_from_environment(), 0);
    if (met) {
        assert_int_equal(b->fault.code == FAULT_SRNoSpace, strcmp(action, "enospc") == 0);
        must(b, backend_settle(b->sr, &p, &wanted, b->arena, &how, &out, &base, &b->deleted, &b->fault));
        s->oracle(b, how, &out);
    }
    bench_free(b);
    return met;
}

static void a_failure_at_any_point_is_undone_or_finished_at_once(void **state)
{
    (void) state;
    static const char *const actions[] = {"eio", "enospc"};
    for (int point = 0; point < POINT_COUNT; point++) {
        bool met = false;
        if (!is_of_layout(point_rows[point].name) || strncmp(point_rows[point].name, "sr_", 3) == 0)
            continue;
        for (size_t i = 0; i < COUNT_OF(scenarios); i++)
            for (size_t a = 0; a < COUNT_OF(actions) && !is_of_sr(&scenarios[i]); a++)
                met |= failed(&scenarios[i], point, actions[a]);
        if (!met)
            fail_msg("no failure at point %s", point_rows[point].name);
    }
}

static void every_point_of_the_layout_is_passed_and_survived(void **state)
{
    (void) state;
    for (int point = 0; point < POINT_COUNT; point++) {
        const char *name = point_rows[point].name;
        bool ours = is_of_layout(name);
        bool passed = false, second_met;
        const struct death d = {.call = -1, .point = point};
        for (size_t i = 0; ours && i < COUNT_OF(scenarios); i++)
            passed |= one_run(&scenarios[i], &d, &never, &second_met);
        if (passed != ours)
            fail_msg("point %s was never passed", name);
    }
}

int main(void)
{
    /* A /tmp of our own in memory: syncs cost nothing, and nothing stays behind. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", "/tmp", "tmpfs", 0, NULL) < 0)
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kill_before_any_call_leaves_whole_or_absent),
        cmocka_unit_test(a_kill_inside_recovery_leaves_whole_or_absent),
        cmocka_unit_test(a_failure_at_any_point_is_undone_or_finished_at_once),
        cmocka_unit_test(every_point_of_the_layout_is_passed_and_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
