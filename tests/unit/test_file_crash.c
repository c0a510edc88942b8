/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every changing operation of the file layout is killed before each of its mutating system calls, and at each fault
   point; its recovery is killed in the same way; then recovery runs once more. The oracle: whole or absent, and nothing
   left over. The calls are counted by the linker's --wrap. */
#include "server/base/point.h"
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

static const struct scenario scenarios[] = {
    {"vdi_create", false, setup_empty, run_create, absent},
    {"vdi_create", true, setup_empty, run_create, absent_or_whole},
    {"vdi_delete", false, setup_disk, run_delete, deleted},
    {"vdi_resize", false, setup_disk, run_resize, old_or_new_size},
    {"vdi_update", false, setup_disk, run_update, old_or_new_label},
    {"vdi_introduce", false, setup_found, run_introduce, found_again},
    {"vdi_introduce", true, setup_found, run_introduce, found_or_taken},
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
    size_t runs = 0;
    for (size_t i = 0; i < COUNT_OF(scenarios); i++) {
        bool met = true;
        for (long n = 1; met; n++) {
            bool second_met = true;
            for (long m = 1; met && second_met; m++, runs++) {
                const struct death d = {.call = n, .point = -1}, e = {.call = m, .point = -1};
                met = one_run(&scenarios[i], &d, &e, &second_met);
            }
        }
    }
    print_message("           %zu runs\n", runs);
    assert_true(runs > 200);
}

static void every_point_of_the_layout_is_passed_and_survived(void **state)
{
    (void) state;
    for (int point = 0; point < POINT_COUNT; point++) {
        const char *name = point_rows[point].name;
        bool ours = strncmp(name, "create_", 7) == 0 || strncmp(name, "delete_", 7) == 0 ||
                    strncmp(name, "resize_", 7) == 0 || strncmp(name, "sr_", 3) == 0;
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
        cmocka_unit_test(every_point_of_the_layout_is_passed_and_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
