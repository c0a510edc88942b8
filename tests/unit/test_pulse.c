/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The watch over a server, with a statx that answers when it is told to. */
#include "backends/pulse.h"

#include "tests/unit/check.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool silent;
    int error;
    unsigned waiting;
} server = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int __real_statx(int dir, const char *path, int flags, unsigned mask, struct statx *out);
int __wrap_statx(int dir, const char *path, int flags, unsigned mask, struct statx *out);
int __wrap_statx(int dir, const char *path, int flags, unsigned mask, struct statx *out)
{
    pthread_mutex_lock(&server.mutex);
    server.waiting++;
    pthread_cond_broadcast(&server.changed);
    while (server.silent)
        pthread_cond_wait(&server.changed, &server.mutex);
    server.waiting--;
    int error = server.error;
    pthread_cond_broadcast(&server.changed);
    pthread_mutex_unlock(&server.mutex);
    if (!error)
        return __real_statx(dir, path, flags, mask, out);
    errno = error;
    return -1;
}

static void set_server(bool silent, int error)
{
    pthread_mutex_lock(&server.mutex);
    server.silent = silent;
    server.error = error;
    pthread_cond_broadcast(&server.changed);
    pthread_mutex_unlock(&server.mutex);
}

static void wait_waiting(unsigned count)
{
    pthread_mutex_lock(&server.mutex);
    while (server.waiting != count)
        pthread_cond_wait(&server.changed, &server.mutex);
    pthread_mutex_unlock(&server.mutex);
}

static int descriptors(void)
{
    int count = 0;
    AUTO_DIR DIR *entries = opendir("/proc/self/fd");
    while (readdir(entries))
        count++;
    return count;
}

static void a_server_that_answers_is_felt(void **state)
{
    (void) state;
    struct fault f;
    int before = descriptors();
    AUTO_FD int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
    struct pulse *p = pulse_start(dir);
    assert_non_null(p);
    assert_int_equal(pulse_feel(p, "the server", &f), 0);
    assert_int_equal(pulse_known(p, "the server", &f), 0);
    pulse_stop(p);
    pulse_stop(NULL);
    assert_int_equal(descriptors(), before + 1);
}

static void one_that_is_silent_is_told_so_and_comes_back(void **state)
{
    (void) state;
    struct fault f;
    AUTO_FD int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
    struct pulse *p = pulse_start(dir);
    assert_int_equal(pulse_feel(p, "the server", &f), 0);
    set_server(true, 0);
    wait_waiting(1); /* it asks by itself */
    assert_int_equal(pulse_known(p, "the server", &f), 0);
    assert_int_equal(pulse_feel(p, "the server", &f), -1);
    assert_int_equal(f.code, FAULT_SRUnavailable);
    sleep(1);
    assert_int_equal(pulse_known(p, "the server", &f), -1);
    assert_non_null(strstr(f.detail, "the server has not answered for "));
    set_server(false, 0);
    wait_waiting(0);
    while (pulse_known(p, "the server", &f) < 0)
        usleep(1000);
    assert_int_equal(pulse_feel(p, "the server", &f), 0);
    pulse_stop(p);
}

static void an_error_is_an_answer(void **state)
{
    (void) state;
    struct fault f;
    AUTO_FD int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
    set_server(false, ESTALE);
    struct pulse *p = pulse_start(dir);
    assert_int_equal(pulse_feel(p, "the server", &f), -1);
    assert_non_null(strstr(f.detail, strerror(ESTALE)));
    set_server(false, 0);
    while (pulse_feel(p, "the server", &f) < 0)
        usleep(1000);
    pulse_stop(p);
}

static void a_watch_that_hangs_can_be_left(void **state)
{
    (void) state;
    int before = descriptors();
    AUTO_FD int dir = open("/tmp", O_RDONLY | O_DIRECTORY);
    set_server(true, 0);
    struct pulse *p = pulse_start(dir);
    wait_waiting(1);
    pulse_stop(p);
    set_server(false, 0);
    wait_waiting(0);
    while (descriptors() > before + 1) /* the thread tidies up after itself */
        usleep(1000);
}

static void a_directory_is_opened_unless_its_server_is_silent(void **state)
{
    (void) state;
    AUTO_FD int dir = pulse_open_directory("/tmp");
    assert_true(dir >= 0);
    assert_int_equal(pulse_open_directory("/no/such/directory"), -1);
    assert_int_equal(errno, ENOENT);
    set_server(true, 0);
    assert_int_equal(pulse_open_directory("/tmp"), -1);
    assert_int_equal(errno, ETIMEDOUT);
    set_server(false, 0);
    wait_waiting(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_answers_is_felt),
        cmocka_unit_test(one_that_is_silent_is_told_so_and_comes_back),
        cmocka_unit_test(an_error_is_an_answer),
        cmocka_unit_test(a_watch_that_hangs_can_be_left),
        cmocka_unit_test(a_directory_is_opened_unless_its_server_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
