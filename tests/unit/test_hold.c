/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recovery waits for programs that outlive the process that started them. The process is a real one, killed with
   SIGKILL, the program cat(1) on a pipe, which ends when the test lets it. */
#include "handlers/registry.h"
#include "server/base/cmd.h"
#include "tests/unit/check.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SR "aaaaaaaa-0000-4000-8000-000000000001"

struct scene {
    char dir[64], fifo[96], lock[128];
};

static int setup(void **state)
{
    struct scene *p = calloc(1, sizeof *p);
    assert_non_null(p);
    snprintf(p->dir, sizeof p->dir, "/tmp/smapi-hold-XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    snprintf(p->fifo, sizeof p->fifo, "%s/fifo", p->dir);
    snprintf(p->lock, sizeof p->lock, "%s/" SR ".lock", p->dir);
    assert_int_equal(mkfifo(p->fifo, 0600), 0);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct scene *p = *state;
    unlink(p->fifo);
    unlink(p->lock);
    assert_int_equal(rmdir(p->dir), 0);
    free(p);
    return 0;
}

static struct sr *add(struct registry *r)
{
    struct uuid uuid = UUID_NONE;
    const struct pairs none = {0};
    assert_true(uuid_parse_text(SR, &uuid));
    return registry_add(r, &uuid, sr_type_find("dummy"), &none, STANDING_RECOVERING);
}

/* A daemon that runs one program for the SR and waits for it. */
static void serve(const struct scene *p)
{
    static const struct backend_settings settings = {.mount_base = "/nowhere"};
    struct fault f;
    struct cmd_result result;
    struct registry *r = registry_new(&settings, p->dir);
    struct sr *sr = add(r);
    const char *const argv[] = {"/bin/cat", p->fifo, NULL};
    if (registry_hold(r, sr, 1, &f) < 0)
        _exit(1);
    const struct cmd cmd = {.argv = argv, .hold = sr->hold};
    cmd_run(&cmd, arena_new(1 << 20), &result, &f);
    _exit(2);
}

/* Starts one, waits until its program runs, and kills it. Returns the writing end that keeps the program alive. */
static int leave_a_program(const struct scene *p)
{
    pid_t daemon = fork();
    assert_true(daemon >= 0);
    if (daemon == 0)
        serve(p);
    int fd = open(p->fifo, O_WRONLY | O_CLOEXEC); /* waits for the reader */
    assert_true(fd >= 0);
    assert_int_equal(kill(daemon, SIGKILL), 0);
    int status;
    assert_int_equal(waitpid(daemon, &status, 0), daemon);
    assert_true(WIFSIGNALED(status));
    return fd;
}

static void recovery_does_not_act_before_a_program_of_the_killed_daemon_is_gone(void **state)
{
    static const struct backend_settings settings = {.mount_base = "/nowhere"};
    const struct scene *p = *state;
    struct fault f = {0};
    int fd = leave_a_program(p);
    struct registry *r = registry_new(&settings, p->dir);
    struct sr *sr = add(r);
    assert_int_equal(registry_hold(r, sr, 0, &f), -1);
    assert_int_equal(f.code, FAULT_SRUnavailable);
    assert_non_null(strstr(f.detail, "still runs"));
    assert_int_equal(sr->hold, -1);
    assert_int_equal(registry_serves(r, &sr->uuid, false, &f), -1);
    assert_non_null(strstr(f.detail, "a program of the previous start still runs"));
    close(fd); /* cat comes to the end of its file */
    assert_int_equal(registry_hold(r, sr, 60, &f), 0);
    assert_true(sr->hold >= 0);
    registry_free(r);
}

static void nothing_is_waited_for_when_nothing_runs(void **state)
{
    static const struct backend_settings settings = {.mount_base = "/nowhere"};
    const struct scene *p = *state;
    struct fault f = {0};
    struct registry *r = registry_new(&settings, p->dir);
    struct sr *sr = add(r);
    for (int i = 0; i < 3; i++)
        assert_int_equal(registry_hold(r, sr, 0, &f), 0);
    registry_remove(r, sr);
    assert_int_equal(access(p->lock, F_OK), -1); /* an SR that is no more leaves no file */
    registry_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(recovery_does_not_act_before_a_program_of_the_killed_daemon_is_gone, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(nothing_is_waited_for_when_nothing_runs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
