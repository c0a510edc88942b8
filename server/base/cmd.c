/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/cmd.h"

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/text.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#define DEFAULT_SECONDS 60
#define SECOND_NS       1000000000LL
#define LAST_WAIT_NS    (5 * SECOND_NS) /* for a child that was killed */
#define STRAYS          64

static cmd_runner *_Atomic replaced;

/* Children that were killed and have not ended; what finds no room here is collected by whoever ends this process. */
static struct {
    pthread_mutex_t lock;
    pid_t pids[STRAYS];
    size_t count;
} strays = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* A child that runs, and what it has printed so far. */
struct child {
    pid_t pid;
    int pidfd;
    int pipes[2]; /* its standard output and error; -1 once at their end */
    struct text printed[2];
    bool cut;
};

static void strays_collect(void)
{
    pthread_mutex_lock(&strays.lock);
    size_t kept = 0;
    for (size_t i = 0; i < strays.count; i++)
        if (waitpid(strays.pids[i], NULL, WNOHANG) == 0)
            strays.pids[kept++] = strays.pids[i];
    strays.count = kept;
    pthread_mutex_unlock(&strays.lock);
}

static void strays_add(pid_t pid)
{
    pthread_mutex_lock(&strays.lock);
    if (strays.count < STRAYS)
        strays.pids[strays.count++] = pid;
    pthread_mutex_unlock(&strays.lock);
}

/* Ours must stand above the numbers the child gets them under. */
static int above_standard(int fd)
{
    if (fd < 0 || fd > 3)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 4);
    int reason = errno;
    close(fd);
    errno = reason;
    return moved;
}

static int pipe_above(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    ends[0] = above_standard(ends[0]);
    ends[1] = above_standard(ends[1]);
    if (ends[0] >= 0 && ends[1] >= 0)
        return 0;
    int reason = errno;
    own_fd(&ends[0]);
    own_fd(&ends[1]);
    errno = reason;
    return -1;
}

/* What the child reads; -1 with errno. */
static int open_input(const struct cmd *cmd)
{
    const char *input = cmd->input;
    if (!input)
        return above_standard(cmd->hold >= 0 ? fcntl(cmd->hold, F_DUPFD_CLOEXEC, 4)
                                             : open("/dev/null", O_RDONLY | O_CLOEXEC));
    size_t length = strlen(input);
    int ends[2];
    if (pipe_above(ends) < 0)
        return -1;
    /* A pipe of this capacity takes all of it at once, so that the write never waits. */
    bool whole = length <= CMD_INPUT && fcntl(ends[1], F_SETPIPE_SZ, CMD_INPUT) >= 0 &&
                 write(ends[1], input, length) == (ssize_t) length;
    int reason = length > CMD_INPUT ? E2BIG : errno;
    close(ends[1]);
    if (whole)
        return ends[0];
    close(ends[0]);
    errno = reason;
    return -1;
}

static int spawn_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int failed =
        posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    failed = failed ? failed : posix_spawnattr_setpgroup(attributes, 0);
    failed = failed ? failed : posix_spawnattr_setsigmask(attributes, &none);
    return failed ? failed : posix_spawnattr_setsigdefault(attributes, &all);
}

/* in, out and err become 0, 1 and 2, and hold 3 where it is not 0 already; nothing else stays open. */
static int spawn_files(posix_spawn_file_actions_t *files, const int standard[3], const struct cmd *cmd)
{
    int failed = 0, hold = cmd->input ? cmd->hold : -1;
    for (int i = 0; i < 3 && !failed; i++)
        failed = posix_spawn_file_actions_adddup2(files, standard[i], i);
    if (!failed && hold >= 0)
        failed = posix_spawn_file_actions_adddup2(files, hold, 3);
    failed = failed ? failed : posix_spawn_file_actions_addclosefrom_np(files, hold >= 0 ? 4 : 3);
    return failed ? failed : posix_spawn_file_actions_addchdir_np(files, "/");
}

/* argv and environment are not const in posix_spawn's signature, though it writes to neither. */
static char *const *unconst(const char *const *vector)
{
    union {
        const char *const *in;
        char *const *out;
    } u = {.in = vector};
    return u.out;
}

static int spawn(const struct cmd *cmd, const int standard[3], pid_t *pid)
{
    static const char *const environment[] = {"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", NULL};
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    int failed = posix_spawnattr_init(&attributes);
    if (failed)
        return failed;
    failed = posix_spawn_file_actions_init(&files);
    if (!failed) {
        failed = spawn_attributes(&attributes);
        failed = failed ? failed : spawn_files(&files, standard, cmd);
        if (!failed)
            failed = posix_spawn(pid, cmd->argv[0], &files, &attributes, unconst(cmd->argv), unconst(environment));
        posix_spawn_file_actions_destroy(&files);
    }
    posix_spawnattr_destroy(&attributes);
    return failed;
}

static int start_failed(const struct cmd *cmd, int reason, struct fault *f)
{
    if (reason == ENOENT)
        return fault_set(f, FAULT_InvalidDev, "%s is not installed on this host", cmd->argv[0]);
    errno = reason;
    return fault_errno(f, FAULT_EIO, "start %s", cmd->argv[0]);
}

static int child_start(const struct cmd *cmd, struct child *child, struct fault *f)
{
    AUTO_FD int in = open_input(cmd);
    int out[2] = {-1, -1}, err[2] = {-1, -1};
    if (in < 0 || pipe_above(out) < 0 || pipe_above(err) < 0) {
        int reason = errno;
        own_fd(&out[0]);
        own_fd(&out[1]);
        errno = reason;
        return fault_errno(f, FAULT_EIO, "pipes for %s", cmd->argv[0]);
    }
    int failed = spawn(cmd, (const int[]){in, out[1], err[1]}, &child->pid);
    close(out[1]);
    close(err[1]);
    child->pipes[0] = out[0];
    child->pipes[1] = err[0];
    if (failed)
        return start_failed(cmd, failed, f);
    for (int i = 0; i < 2; i++)
        fcntl(child->pipes[i], F_SETFL, O_NONBLOCK);
    child->pidfd = pidfd_open(child->pid, 0);
    if (child->pidfd >= 0)
        return 0;
    fault_errno(f, FAULT_EIO, "watch %s", cmd->argv[0]);
    kill(-child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    return -1;
}

static void child_close(struct child *child)
{
    own_fd(&child->pidfd);
    for (int i = 0; i < 2; i++) {
        own_fd(&child->pipes[i]);
        text_free(&child->printed[i]);
    }
}

/* Takes what is there to be read, up to one buffer; false when there is nothing now, or no more ever. */
static bool child_read(struct child *child, int which)
{
    char buffer[16384];
    ssize_t got = read(child->pipes[which], buffer, sizeof buffer);
    if (got < 0 && errno == EINTR)
        return true;
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            close(TAKE_FD(child->pipes[which]));
        return false;
    }
    struct text *t = &child->printed[which];
    size_t room = t->ceiling - t->length;
    child->cut = child->cut || (size_t) got > room;
    text_add_bytes(t, buffer, (size_t) got < room ? (size_t) got : room);
    return true;
}

/* What stands in the pipes when the program has ended. What it left running in the background may go on writing, so
   that an end of file is not waited for. */
static void child_drain(struct child *child)
{
    for (int i = 0; i < 2; i++)
        for (int buffers = 0; buffers < 64 && child->pipes[i] >= 0 && child_read(child, i); buffers++)
            ;
}

/* Reads until the program ends; false when it does not before the time. */
static bool child_watch(struct child *child, int64_t until_ns)
{
    for (;;) {
        int64_t left = until_ns - clock_boot_ns();
        if (left <= 0)
            return false;
        struct pollfd watched[3] = {{.fd = child->pidfd, .events = POLLIN},
                                    {.fd = child->pipes[0], .events = POLLIN},
                                    {.fd = child->pipes[1], .events = POLLIN}};
        int64_t milliseconds = left / 1000000 + 1;
        int ready = poll(watched, 3, milliseconds < 60000 ? (int) milliseconds : 60000);
        if (ready <= 0)
            continue;
        if (watched[0].revents)
            return true;
        for (int i = 0; i < 2; i++)
            if (watched[i + 1].revents)
                child_read(child, i);
    }
}

static int exit_status(pid_t pid)
{
    siginfo_t info = {0};
    while (waitid(P_PID, (id_t) pid, &info, WEXITED) < 0)
        if (errno != EINTR)
            return 255;
    return info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
}

/* What arena_copy made of nothing printed is "". */
static void take_result(struct child *child, struct arena *a, struct cmd_result *r)
{
    const char *data[2];
    for (int i = 0; i < 2; i++)
        data[i] = arena_copy(a, child->printed[i].data ? child->printed[i].data : "", child->printed[i].length);
    r->out = data[0];
    r->err = data[1];
    r->out_length = child->printed[0].length;
    r->err_length = child->printed[1].length;
    r->cut = child->cut;
}

static void log_run(const struct cmd *cmd, const struct cmd_result *r)
{
    AUTO_TEXT struct text line = TEXT_OF(900);
    for (const char *const *word = cmd->argv; *word; word++)
        text_printf(&line, "%s%s", word == cmd->argv ? "" : " ", *word);
    log_line(LOG_DEBUG, "ran %s: %s %d after %lld ms", line.data, r->timed_out ? "killed," : "exited with", r->status,
             (long long) (r->took_ns / 1000000));
}

static int run_real(const struct cmd *cmd, struct arena *a, struct cmd_result *out, struct fault *f)
{
    struct child child = {
        .pidfd = -1, .pipes = {-1, -1}, .printed = {{.ceiling = CMD_OUTPUT}, {.ceiling = CMD_ERRORS}}};
    strays_collect();
    int64_t started = clock_boot_ns();
    if (child_start(cmd, &child, f) < 0) {
        child_close(&child);
        return -1;
    }
    struct cmd_result r = {.status = 128 + SIGKILL};
    bool ended = child_watch(&child, started + (cmd->seconds ? cmd->seconds : DEFAULT_SECONDS) * SECOND_NS);
    if (!ended) {
        r.timed_out = true;
        kill(-child.pid, SIGKILL);
        ended = child_watch(&child, clock_boot_ns() + LAST_WAIT_NS);
    }
    if (ended)
        r.status = exit_status(child.pid);
    else
        strays_add(child.pid);
    child_drain(&child);
    take_result(&child, a, &r);
    child_close(&child);
    r.took_ns = clock_boot_ns() - started;
    log_run(cmd, &r);
    *out = r;
    return 0;
}

int cmd_run(const struct cmd *cmd, struct arena *a, struct cmd_result *out, struct fault *f)
{
    assert(cmd->argv[0][0] == '/' && cmd->hold != 0);
    cmd_runner *runner = replaced;
    return runner ? runner(cmd, a, out, f) : run_real(cmd, a, out, f);
}

void cmd_replace_runner(cmd_runner *runner)
{
    replaced = runner;
}

const char *cmd_failure(const struct cmd *cmd, const struct cmd_result *result, struct arena *a)
{
    const char *line = result->err + strspn(result->err, " \t\r\n");
    int length = (int) strcspn(line, "\r\n");
    const char *colon = length ? ": " : "";
    if (result->timed_out)
        return arena_printf(a, "%s did not end within %u s and was killed%s%.*s", cmd->argv[0],
                            cmd->seconds ? cmd->seconds : DEFAULT_SECONDS, colon, length, line);
    if (result->status > 128)
        return arena_printf(a, "%s was ended by signal %d%s%.*s", cmd->argv[0], result->status - 128, colon, length,
                            line);
    return arena_printf(a, "%s exited with %d%s%.*s", cmd->argv[0], result->status, colon, length, line);
}
