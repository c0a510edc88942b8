/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The door to outside programs, with real children. */
#include "server/base/cmd.h"

#include "server/base/clock.h"
#include "tests/unit/check.h"
#include "tests/unit/replay_help.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>

struct fixture {
    struct arena *a;
    struct fault f;
    struct cmd_result r;
};

static int setup(void **state)
{
    struct fixture *x = calloc(1, sizeof *x);
    x->a = arena_new(64U << 20);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    arena_free(x->a);
    free(x);
    return 0;
}

static void run(struct fixture *x, const struct cmd *cmd)
{
    if (cmd_run(cmd, x->a, &x->r, &x->f) < 0)
        fail_msg("%s", x->f.detail);
}

/* Tests may use a shell; the programs of the daemon may not. */
static void run_script(struct fixture *x, const char *script, const char *input, unsigned seconds, int hold)
{
    const char *const argv[] = {"/bin/sh", "-c", script, NULL};
    run(x, &(struct cmd){.argv = argv, .input = input, .seconds = seconds, .hold = hold});
}

static void a_program_gets_its_words_as_they_are(void **state)
{
    struct fixture *x = *state;
    const char *const argv[] = {"/usr/bin/printf", "<%s>", "two words", "$HOME;`id`", "", "*", NULL};
    run(x, &(struct cmd){.argv = argv, .hold = -1});
    assert_int_equal(x->r.status, 0);
    assert_string_equal(x->r.out, "<two words><$HOME;`id`><><*>");
    assert_string_equal(x->r.err, "");
}

static void the_environment_is_fixed_and_the_directory_the_root(void **state)
{
    struct fixture *x = *state;
    setenv("LD_LIBRARY_PATH", "/tmp", 1);
    const char *const argv[] = {"/usr/bin/env", NULL};
    run(x, &(struct cmd){.argv = argv, .hold = -1});
    unsetenv("LD_LIBRARY_PATH");
    assert_string_equal(x->r.out, "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/\n");
    run_script(x, "pwd", NULL, 0, -1);
    assert_string_equal(x->r.out, "/\n");
}

static void status_output_and_errors_come_back(void **state)
{
    struct fixture *x = *state;
    run_script(x, "echo out; echo first >&2; echo second >&2; exit 5", NULL, 0, -1);
    assert_int_equal(x->r.status, 5);
    assert_false(x->r.timed_out);
    assert_string_equal(x->r.out, "out\n");
    const char *const argv[] = {"/bin/sh", NULL};
    struct cmd cmd = {.argv = argv, .hold = -1};
    assert_string_equal(cmd_failure(&cmd, &x->r, x->a), "/bin/sh exited with 5: first");
    run_script(x, "kill -TERM $$", NULL, 0, -1);
    assert_int_equal(x->r.status, 128 + SIGTERM);
    assert_string_equal(cmd_failure(&cmd, &x->r, x->a), "/bin/sh was ended by signal 15");
}

static void a_program_that_is_not_installed_is_named(void **state)
{
    struct fixture *x = *state;
    const char *const argv[] = {"/usr/sbin/no-such-program", NULL};
    assert_int_equal(cmd_run(&(struct cmd){.argv = argv, .hold = -1}, x->a, &x->r, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_InvalidDev);
    assert_string_equal(x->f.detail, "/usr/sbin/no-such-program is not installed on this host");
}

static void binary_output_is_whole(void **state)
{
    struct fixture *x = *state;
    run_script(x, "printf 'a\\0b\\377'", NULL, 0, -1);
    assert_int_equal(x->r.out_length, 4);
    assert_memory_equal(x->r.out, "a\0b\xff", 5);
}

static void output_is_kept_up_to_its_limit(void **state)
{
    struct fixture *x = *state;
    run_script(x, "head -c 20000000 /dev/zero; head -c 100000 /dev/zero >&2; exit 3", NULL, 0, -1);
    assert_true(x->r.cut);
    assert_int_equal(x->r.out_length, CMD_OUTPUT);
    assert_int_equal(x->r.err_length, CMD_ERRORS);
    assert_int_equal(x->r.status, 3);
    run_script(x, "head -c 16777216 /dev/zero", NULL, 0, -1);
    assert_false(x->r.cut);
    assert_int_equal(x->r.out_length, CMD_OUTPUT);
}

static void input_is_read_whole_then_ends(void **state)
{
    struct fixture *x = *state;
    char *longest = arena_alloc(x->a, CMD_INPUT + 2);
    memset(longest, 'x', CMD_INPUT);
    run_script(x, "wc -c", longest, 0, -1);
    assert_string_equal(x->r.out, "65536\n");
    run_script(x, "wc -c", NULL, 0, -1);
    assert_string_equal(x->r.out, "0\n");
    run_script(x, "exit 0", longest, 0, -1);
    assert_int_equal(x->r.status, 0);
    longest[CMD_INPUT] = 'x';
    const char *const argv[] = {"/bin/true", NULL};
    assert_int_equal(cmd_run(&(struct cmd){.argv = argv, .input = longest, .hold = -1}, x->a, &x->r, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_EIO);
}

static void at_its_deadline_the_whole_group_is_killed(void **state)
{
    struct fixture *x = *state;
    run_script(x, "sleep 300 & echo $!; echo busy >&2; wait", NULL, 1, -1);
    assert_true(x->r.timed_out);
    assert_int_equal(x->r.status, 128 + SIGKILL);
    pid_t sleeper = (pid_t) atoi(x->r.out);
    assert_true(sleeper > 1);
    char path[64], state_line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int) sleeper);
    for (int tries = 0; tries < 500 && kill(sleeper, 0) == 0; tries++) {
        AUTO_FILE FILE *stat = fopen(path, "re");
        if (stat && fgets(state_line, sizeof state_line, stat) && strstr(state_line, ") Z "))
            break; /* dead, and nobody of ours has to collect it */
        usleep(10000);
    }
    assert_true(kill(sleeper, 0) < 0 || strstr(state_line, ") Z "));
    const char *const argv[] = {"/bin/sh", NULL};
    struct cmd cmd = {.argv = argv, .seconds = 1, .hold = -1};
    assert_string_equal(cmd_failure(&cmd, &x->r, x->a), "/bin/sh did not end within 1 s and was killed: busy");
}

static void what_stays_in_the_background_is_not_waited_for(void **state)
{
    struct fixture *x = *state;
    run_script(x, "sleep 30 & echo $!", NULL, 25, -1);
    assert_false(x->r.timed_out);
    assert_int_equal(x->r.status, 0);
    pid_t sleeper = (pid_t) atoi(x->r.out);
    assert_true(sleeper > 1 && kill(sleeper, SIGKILL) == 0);
}

static void no_descriptor_is_inherited_but_hold(void **state)
{
    struct fixture *x = *state;
    int plain = open("/dev/null", O_RDONLY); // NOLINT(android-cloexec-open): that is what is tested
    int high = fcntl(plain, F_DUPFD, 200);
    assert_true(plain >= 0 && high >= 200);
    run_script(x, "for n in /proc/self/fd/*; do echo ${n##*/}; done; readlink /proc/$$/fd/3", NULL, 0, -1);
    assert_null(strstr(x->r.out, "200"));
    assert_null(strstr(x->r.out, "/dev/null"));
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    run_script(x, "readlink /proc/$$/fd/0; ls /proc/$$/fd; :", NULL, 0, zero);
    assert_string_equal(x->r.out, "/dev/zero\n0\n1\n2\n");
    run_script(x, "cat; readlink /proc/$$/fd/3; ls /proc/$$/fd; :", "input\n", 0, zero);
    assert_string_equal(x->r.out, "input\n/dev/zero\n0\n1\n2\n3\n");
    close(zero);
    close(plain);
    close(high);
}

static void the_child_keeps_hold_over_the_death_of_its_parent(void **state)
{
    struct fixture *x = *state;
    char path[] = "/tmp/test_cmd.XXXXXX";
    int made = mkstemp(path);
    assert_true(made >= 0);
    close(made);
    pid_t daemon = fork();
    assert_true(daemon >= 0);
    if (daemon == 0) {
        int hold = open(path, O_RDWR | O_CLOEXEC);
        if (hold < 0 || flock(hold, LOCK_EX) < 0)
            _exit(1);
        run_script(x, "kill -KILL $PPID; sleep 1", NULL, 10, hold);
        _exit(2);
    }
    int status = 0;
    while (waitpid(daemon, &status, 0) < 0 && errno == EINTR)
        ;
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    AUTO_FD int again = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(again, LOCK_EX | LOCK_NB), -1);
    assert_int_equal(flock(again, LOCK_EX), 0);
    unlink(path);
}

static void signals_the_daemon_ignores_reach_the_child(void **state)
{
    struct fixture *x = *state;
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    sigset_t blocked, old;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, &old);
    run_script(x, "sed -n 's/^Sig[BI][lg][kn]://p' /proc/self/status", NULL, 0, -1);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    signal(SIGPIPE, before);
    char *rest;
    assert_int_equal(strtoull(x->r.out, &rest, 16), 0);
    assert_int_equal(strtoull(rest, &rest, 16) & 1ULL << (SIGPIPE - 1), 0);
    assert_string_equal(rest, "\n");
}

static void a_recording_is_replayed_in_order(void **state)
{
    struct fixture *x = *state;
    replay_start("example/two_commands");
    const char *const first[] = {"/sbin/example", "--name", "two words", "", NULL};
    run(x, &(struct cmd){.argv = first, .input = "a secret\n", .hold = -1});
    assert_int_equal(x->r.status, 5);
    assert_string_equal(x->r.out, "first line\n> second line\n");
    assert_string_equal(x->r.err, "Cannot open it.\nGiving up.\n");
    const char *const again[] = {"/sbin/example", "--again", NULL};
    run(x, &(struct cmd){.argv = again, .hold = -1});
    assert_true(x->r.timed_out);
    const char *const other[] = {"/sbin/other", NULL};
    assert_int_equal(cmd_run(&(struct cmd){.argv = other, .hold = -1}, x->a, &x->r, &x->f), -1);
    assert_int_equal(x->f.code, FAULT_InvalidDev);
    replay_end();
    run_script(x, "echo real again", NULL, 0, -1);
    assert_string_equal(x->r.out, "real again\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_program_gets_its_words_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(the_environment_is_fixed_and_the_directory_the_root, setup, teardown),
        cmocka_unit_test_setup_teardown(status_output_and_errors_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_program_that_is_not_installed_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(binary_output_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(output_is_kept_up_to_its_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(input_is_read_whole_then_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(at_its_deadline_the_whole_group_is_killed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_stays_in_the_background_is_not_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(no_descriptor_is_inherited_but_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(the_child_keeps_hold_over_the_death_of_its_parent, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_the_daemon_ignores_reach_the_child, setup, teardown),
        cmocka_unit_test_setup_teardown(a_recording_is_replayed_in_order, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
