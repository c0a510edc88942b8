/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/hold.h"

#include "server/base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <time.h>

#define LOOK_AGAIN_NS 20000000L /* flock(2) has no deadline */

static void path_of(char out[PATH_MAX], const char *dir, const struct uuid *sr)
{
    snprintf(out, PATH_MAX, "%s/%s.lock", dir, sr->text);
}

/* 0, or -1 with errno; EWOULDBLOCK when somebody had it all the time. */
static int lock_alone(int fd, unsigned seconds, void (*waiting)(void *arg), void *arg)
{
    const struct timespec pause = {.tv_nsec = LOOK_AGAIN_NS};
    int64_t deadline = clock_boot_ns() + (int64_t) seconds * 1000000000;
    int failed = flock(fd, LOCK_EX | LOCK_NB);
    if (failed && errno == EWOULDBLOCK && waiting)
        waiting(arg);
    while (failed && (errno == EWOULDBLOCK || errno == EINTR) && clock_boot_ns() < deadline) {
        nanosleep(&pause, NULL);
        failed = flock(fd, LOCK_EX | LOCK_NB);
    }
    return failed;
}

/* Between the two locks of one descriptor it has none; but only this process, under the turn of the SR, takes any. */
int hold_take(const char *dir, const struct uuid *sr, unsigned seconds, void (*waiting)(void *arg), void *arg, int *out,
              struct fault *f)
{
    char path[PATH_MAX];
    path_of(path, dir, sr);
    AUTO_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fault_errno(f, FAULT_EIO, "open %s", path);
    if (lock_alone(fd, seconds, waiting, arg) < 0) {
        if (errno != EWOULDBLOCK)
            return fault_errno(f, FAULT_EIO, "lock %s", path);
        return fault_set(f, FAULT_SRUnavailable,
                         "a program that was started for SR %s before still runs (fuser %s tells which): its work is "
                         "waited for",
                         sr->text, path);
    }
    if (flock(fd, LOCK_SH) < 0)
        return fault_errno(f, FAULT_EIO, "lock %s", path);
    *out = TAKE_FD(fd);
    return 0;
}

void hold_drop(const char *dir, const struct uuid *sr, int fd)
{
    char path[PATH_MAX];
    if (fd < 0)
        return;
    path_of(path, dir, sr);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlink(path);
    close(fd);
}
