/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* shim.so, preloaded into smapid by tests/crash/shim.py: stands between the program and the C library at every call
   that changes what is beneath SHIM_ROOT (the state directory, the SRs' directories, the links that lead to them). It
   counts these calls, kills the process at the n-th, answers an error there instead, or appends what each one did to a
   log from which tests rebuild what a power cut may leave.

   The test tells it what to do, while the process runs, through SHIM_CONTROL, a file both map (struct control).
   SHIM_INODES names lines "<inode> <shown>": a tree that was rebuilt shows the inode numbers of the one it stands for.

   With SHIM_SERVER the process stops before main, linked and relocated, which is the larger part of its start, and
   forks a child that goes on for each byte it reads from descriptor SERVER_ASK; it writes the child's pid, then its
   wait status, as two 32-bit numbers to SERVER_TELL.

   Calls that this file does not know are not seen: what the C library does inside itself (fopen for writing, which
   nothing here uses on such files), and writes through mappings (SQLite is set not to). */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum action {
    ACT_NONE,
    ACT_KILL,      /* before the call */
    ACT_KILL_HALF, /* a write: after its first half; else as ACT_KILL */
    ACT_FAIL,      /* the call fails and is not made */
    ACT_FAIL_ON,   /* it and all that follow */
    ACT_SWALLOW,   /* it is not made and said to have succeeded: a harness that does not notice is blind */
    ACT_HIDE,      /* it fails, and the program is told of success, as one that does not look would believe */
};

/* Shared with the test; the order is that of shim.py. Each but count and acted is written by the test alone. */
struct control {
    _Atomic int64_t action, at, error, counting, count, acted, logging, closing;
};

enum { MAP_MAX = 4096, SERVER_ASK = 198, SERVER_TELL = 199 };

/* What a call is about to do. */
struct event {
    const char *op; /* its name in the log */
    int fd;         /* or -1: then by name */
    int dir, dir2;
    const char *name, *name2;
    const void *data;
    size_t length; /* of data; of ftruncate and fallocate the size; of what makes a file its mode */
    int64_t offset;
    bool write, positioned; /* positioned: a write at offset, which then is not where the descriptor stands */

    /* Of enter. */
    bool made;  /* the result is there already */
    int hidden; /* the error it stands for */
    long result;
    uint64_t inode, other;
    char path[PATH_MAX], path2[PATH_MAX];
};

/* One entry of the log; path, path2 and data follow. Read by shim.py. */
struct record {
    uint32_t size;
    int32_t error;
    char op[16];
    uint64_t inode, other; /* other: what stood under path2 (rename, link) or path (unlink) before */
    int64_t offset, length;
    uint32_t path, path2, data, is_directory;
};

static struct control none, *control = &none;
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint64_t real, shown;
} shown_inodes[MAP_MAX];
static size_t shown_count;

static long raw(long number, long a, long b, long c, long d, long e)
{
    static long (*real)(long, ...);
    if (!real)
        *(void **) &real = dlsym(RTLD_NEXT, "syscall");
    return real(number, a, b, c, d, e);
}

static int raw_stat(int dir, const char *path, struct stat *out)
{
    int flags = AT_SYMLINK_NOFOLLOW | (path[0] ? 0 : AT_EMPTY_PATH);
    return (int) raw(SYS_newfstatat, dir, (long) path, (long) out, flags, 0);
}

/* ------------------------------------------------------------------ start */

static void read_inodes(const char *path)
{
    FILE *file = fopen(path, "re");
    while (file && shown_count < MAP_MAX &&
           fscanf(file, "%lu %lu", &shown_inodes[shown_count].real, &shown_inodes[shown_count].shown) == 2)
        shown_count++;
    if (file)
        fclose(file);
}

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("SHIM_CONTROL"), *top = getenv("SHIM_ROOT"), *log = getenv("SHIM_LOG");
    if (!where || !top)
        return;
    int fd = (int) raw(SYS_openat, AT_FDCWD, (long) where, O_RDWR | O_CLOEXEC, 0, 0);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        abort();
    raw(SYS_close, fd, 0, 0, 0, 0);
    control = page;
    snprintf(root, sizeof root, "%s/", top);
    root_length = strlen(root);
    if (log)
        log_fd = (int) raw(SYS_openat, AT_FDCWD, (long) log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600, 0);
}

static void tell(int32_t number)
{
    if (raw(SYS_write, SERVER_TELL, (long) &number, sizeof number, 0, 0) != sizeof number)
        _exit(1);
}

/* Returns in each child. */
static void serve(void)
{
    char asked;
    while (raw(SYS_read, SERVER_ASK, (long) &asked, 1, 0, 0) == 1) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            raw(SYS_close, SERVER_ASK, 0, 0, 0, 0);
            raw(SYS_close, SERVER_TELL, 0, 0, 0, 0);
            return;
        }
        tell(child);
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        tell(status);
    }
    _exit(0);
}

typedef int main_function(int, char **, char **);
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end);
/* The libraries are set up when this is called, and the program has done nothing yet. */
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end)
{
    static __typeof__(__libc_start_main) *real;
    *(void **) &real = dlsym(RTLD_NEXT, "__libc_start_main");
    if (root_length && getenv("SHIM_SERVER"))
        serve();
    if (root_length && getenv("SHIM_INODES"))
        read_inodes(getenv("SHIM_INODES"));
    return real(main, argc, argv, init, fini, rtld_fini, stack_end);
}

/* ------------------------------------------------------------------ whether a call is watched */

/* The path of a descriptor, or of a name in a directory; relative to the root, or false when it is not beneath it. */
static bool find_path(int fd, const char *name, char out[PATH_MAX])
{
    char link[64], full[2 * PATH_MAX];
    size_t length = 0;
    if (!name || name[0] != '/') {
        snprintf(link, sizeof link, fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
        long n = raw(SYS_readlinkat, AT_FDCWD, (long) link, (long) full, PATH_MAX - 1, 0);
        if (n <= 0)
            return false;
        length = (size_t) n;
    }
    snprintf(full + length, sizeof full - length, "%s%s", name && length ? "/" : "", name ? name : "");
    size_t whole = strlen(full);
    if (whole + 1 == root_length && memcmp(full, root, whole) == 0)
        full[whole] = '/', full[whole + 1] = '\0';
    if (strncmp(full, root, root_length) != 0)
        return false;
    snprintf(out, PATH_MAX, "%.*s", PATH_MAX - 1, full + root_length);
    return true;
}

static uint64_t inode_at(int dir, const char *name)
{
    struct stat st;
    return raw_stat(dir, name, &st) == 0 ? st.st_ino : 0;
}

static bool is_watched(struct event *e)
{
    if (e->fd >= 0)
        return find_path(e->fd, NULL, e->path);
    if (!find_path(e->dir, e->name, e->path))
        return false;
    return !e->name2 || find_path(e->dir2, e->name2, e->path2);
}

static void look(struct event *e)
{
    if (e->fd >= 0)
        e->inode = inode_at(e->fd, "");
    else
        e->inode = inode_at(e->dir, e->name);
    if (e->name2)
        e->other = inode_at(e->dir2, e->name2);
}

/* ------------------------------------------------------------------ what is done to it */

static _Noreturn void die(void)
{
    raw(SYS_kill, getpid(), SIGKILL, 0, 0, 0);
    for (;;)
        pause();
}

static void write_half(const struct event *e)
{
    if (!e->write || e->length < 2)
        return;
    if (!e->positioned)
        raw(SYS_write, e->fd, (long) e->data, (long) (e->length / 2), 0, 0);
    else
        raw(SYS_pwrite64, e->fd, (long) e->data, (long) (e->length / 2), e->offset, 0);
}

static void act(struct event *e)
{
    enum action action = (enum action) control->action;
    if (!control->counting)
        return;
    int64_t count = ++control->count;
    if (action == ACT_NONE || count < control->at || (count > control->at && action != ACT_FAIL_ON))
        return;
    control->acted++;
    if (action == ACT_KILL_HALF)
        write_half(e);
    if (action == ACT_KILL || action == ACT_KILL_HALF)
        die();
    e->made = true;
    e->hidden = action == ACT_HIDE ? (int) control->error : 0;
    e->result = action == ACT_SWALLOW || e->hidden ? (long) (e->write ? e->length : 0) : -1;
    errno = e->result < 0 ? (int) control->error : 0;
}

/* Whether the call is watched; then leave must follow, and the call itself only when it is not made yet. */
static bool enter(struct event *e)
{
    int saved = errno;
    if (!root_length || !is_watched(e)) {
        errno = saved;
        return false;
    }
    pthread_mutex_lock(&turn);
    look(e);
    errno = saved;
    act(e);
    return true;
}

static void append(const struct event *e, long result, int error)
{
    struct stat st = {0};
    struct record r = {
        .error = result < 0 ? error : e->hidden, .inode = e->inode, .other = e->other, .offset = e->offset};
    bool creates = e->fd < 0 && !e->name2;
    if (result >= 0 && creates)
        raw_stat(e->dir, e->name, &st);
    else if (e->fd >= 0)
        raw_stat(e->fd, "", &st);
    if (creates) { /* inode: what stands now; other: what stood before */
        r.other = e->inode;
        r.inode = st.st_ino;
    }
    r.is_directory = S_ISDIR(st.st_mode);
    r.length = (int64_t) e->length;
    r.data = e->write && result >= 0 ? (uint32_t) result : e->data && !e->write ? (uint32_t) e->length : 0;
    r.path = (uint32_t) strlen(e->path);
    r.path2 = (uint32_t) strlen(e->path2);
    r.size = (uint32_t) sizeof r + r.path + r.path2 + r.data;
    snprintf(r.op, sizeof r.op, "%s", e->op);
    struct iovec parts[] = {{&r, sizeof r},
                            {(void *) (uintptr_t) e->path, r.path},
                            {(void *) (uintptr_t) e->path2, r.path2},
                            {(void *) (uintptr_t) e->data, r.data}};
    if (raw(SYS_writev, log_fd, (long) parts, 4, 0, 0) != (long) r.size)
        abort();
}

static void leave(const struct event *e, long result)
{
    int saved = errno;
    if (log_fd >= 0 && control->logging && (!e->made || result < 0 || e->hidden))
        append(e, result, saved);
    pthread_mutex_unlock(&turn);
    errno = saved;
}

/* ------------------------------------------------------------------ the calls */

#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(name) *real_;                                                                                \
        if (!real_)                                                                                                    \
            *(void **) &real_ = dlsym(RTLD_NEXT, #name);                                                               \
        real_;                                                                                                         \
    })

#define THROUGH(what_, call)                                                                                           \
    ({                                                                                                                 \
        struct event e_ = (what_);                                                                                     \
        bool watched_ = enter(&e_);                                                                                    \
        long r_ = e_.made ? e_.result : (long) (call);                                                                 \
        if (watched_)                                                                                                  \
            leave(&e_, r_);                                                                                            \
        r_;                                                                                                            \
    })

#define BY_FD(what, f, ...)      ((struct event){.op = what, .fd = f, ##__VA_ARGS__})
#define BY_NAME(what, d, n, ...) ((struct event){.op = what, .fd = -1, .dir = d, .name = n, ##__VA_ARGS__})

int fsync(int fd)
{
    return (int) THROUGH(BY_FD("fsync", fd), REAL(fsync)(fd));
}

int fdatasync(int fd)
{
    return (int) THROUGH(BY_FD("fdatasync", fd), REAL(fdatasync)(fd));
}

ssize_t write(int fd, const void *data, size_t length)
{
    struct event e = BY_FD("write", fd, .data = data, .length = length, .write = true);
    char path[PATH_MAX];
    if (root_length && fd > 2 && find_path(fd, NULL, path))
        e.offset = raw(SYS_lseek, fd, 0, SEEK_CUR, 0, 0);
    return THROUGH(e, REAL(write)(fd, data, length));
}

#define PWRITE(name)                                                                                                   \
    ssize_t name(int fd, const void *data, size_t length, off_t offset)                                                \
    {                                                                                                                  \
        return THROUGH(                                                                                                \
            BY_FD("write", fd, .data = data, .length = length, .write = true, .positioned = true, .offset = offset),   \
            REAL(name)(fd, data, length, offset));                                                                     \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                                                                 \
    int name(int fd, off_t size)                                                                                       \
    {                                                                                                                  \
        return (int) THROUGH(BY_FD("truncate", fd, .length = (size_t) size), REAL(name)(fd, size));                    \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define FALLOCATE(name)                                                                                                \
    int name(int fd, int mode, off_t offset, off_t length)                                                             \
    {                                                                                                                  \
        struct event e = BY_FD(mode ? "punch" : "allocate", fd, .offset = offset, .length = (size_t) length);          \
        return (int) THROUGH(e, REAL(name)(fd, mode, offset, length));                                                 \
    }
FALLOCATE(fallocate)
FALLOCATE(fallocate64)

#define POSIX_FALLOCATE(name)                                                                                          \
    int name(int fd, off_t offset, off_t length)                                                                       \
    {                                                                                                                  \
        struct event e = BY_FD("allocate", fd, .offset = offset, .length = (size_t) length);                           \
        long r = THROUGH(e, REAL(name)(fd, offset, length));                                                           \
        return r < 0 ? errno : (int) r; /* it returns the error */                                                     \
    }
POSIX_FALLOCATE(posix_fallocate)
POSIX_FALLOCATE(posix_fallocate64)

int fchmod(int fd, mode_t mode)
{
    return (int) THROUGH(BY_FD("chmod", fd, .length = mode), REAL(fchmod)(fd, mode));
}

int fchown(int fd, uid_t user, gid_t group)
{
    return (int) THROUGH(BY_FD("chown", fd), REAL(fchown)(fd, user, group));
}

int futimens(int fd, const struct timespec times[2])
{
    return (int) THROUGH(BY_FD("utimes", fd), REAL(futimens)(fd, times));
}

int unlinkat(int dir, const char *name, int flags)
{
    struct event e = BY_NAME(flags & AT_REMOVEDIR ? "rmdir" : "unlink", dir, name);
    return (int) THROUGH(e, REAL(unlinkat)(dir, name, flags));
}

int unlink(const char *name)
{
    return (int) THROUGH(BY_NAME("unlink", AT_FDCWD, name), REAL(unlink)(name));
}

int rmdir(const char *name)
{
    return (int) THROUGH(BY_NAME("rmdir", AT_FDCWD, name), REAL(rmdir)(name));
}

int mkdirat(int dir, const char *name, mode_t mode)
{
    return (int) THROUGH(BY_NAME("mkdir", dir, name, .length = mode), REAL(mkdirat)(dir, name, mode));
}

int mkdir(const char *name, mode_t mode)
{
    return (int) THROUGH(BY_NAME("mkdir", AT_FDCWD, name, .length = mode), REAL(mkdir)(name, mode));
}

int symlinkat(const char *to, int dir, const char *name)
{
    struct event e = BY_NAME("symlink", dir, name, .data = to, .length = strlen(to));
    return (int) THROUGH(e, REAL(symlinkat)(to, dir, name));
}

int symlink(const char *to, const char *name)
{
    struct event e = BY_NAME("symlink", AT_FDCWD, name, .data = to, .length = strlen(to));
    return (int) THROUGH(e, REAL(symlink)(to, name));
}

int linkat(int dir, const char *name, int dir2, const char *name2, int flags)
{
    struct event e = BY_NAME("link", dir, name, .dir2 = dir2, .name2 = name2);
    return (int) THROUGH(e, REAL(linkat)(dir, name, dir2, name2, flags));
}

int link(const char *name, const char *name2)
{
    struct event e = BY_NAME("link", AT_FDCWD, name, .dir2 = AT_FDCWD, .name2 = name2);
    return (int) THROUGH(e, REAL(link)(name, name2));
}

int renameat2(int dir, const char *name, int dir2, const char *name2, unsigned flags)
{
    struct event e = BY_NAME("rename", dir, name, .dir2 = dir2, .name2 = name2);
    return (int) THROUGH(e, REAL(renameat2)(dir, name, dir2, name2, flags));
}

int renameat(int dir, const char *name, int dir2, const char *name2)
{
    return renameat2(dir, name, dir2, name2, 0);
}

int rename(const char *name, const char *name2)
{
    return renameat2(AT_FDCWD, name, AT_FDCWD, name2, 0);
}

/* An error of close says that something written before is lost; the descriptor is gone all the same. */
int close(int fd)
{
    int flags = control->closing ? (int) raw(SYS_fcntl, fd, F_GETFL, 0, 0, 0) : O_RDONLY;
    if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
        return REAL(close)(fd);
    struct event e = BY_FD("close", fd);
    if (!enter(&e))
        return REAL(close)(fd);
    if (log_fd >= 0 && control->logging)
        append(&e, e.result, (int) control->error); /* while the descriptor can still be asked */
    int r = REAL(close)(fd), error = e.made ? (int) control->error : errno;
    pthread_mutex_unlock(&turn);
    errno = error;
    return e.made ? (int) e.result : r;
}

/* ------------------------------------------------------------------ opening */

static bool makes(int flags)
{
    return flags & (O_CREAT | O_TRUNC);
}

/* A file that is made or cut; one that is there and stays as it is counts too, as the program cannot know. */
static struct event opening(int dir, const char *name, int flags, mode_t mode)
{
    return BY_NAME(flags & O_TRUNC ? "create_empty" : "create", dir, name, .length = mode);
}

static mode_t mode_of(int flags, va_list rest)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t) va_arg(rest, int) : 0;
}

static int open_through(int dir, const char *name, int flags, mode_t mode)
{
    if (!makes(flags))
        return (int) raw(SYS_openat, dir, (long) name, flags, (long) mode, 0);
    struct event e = opening(dir, name, flags, mode);
    return (int) THROUGH(e, raw(SYS_openat, dir, (long) name, flags, (long) mode, 0));
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        return open_through(AT_FDCWD, path, flags, mode);                                                              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
    int name(int dir, const char *path, int flags, ...)                                                                \
    {                                                                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        return open_through(dir, path, flags, mode);                                                                   \
    }
OPENAT(openat)
OPENAT(openat64)

/* openat2 has no function of its own. */
long syscall(long number, ...)
{
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long), d = va_arg(rest, long);
    long f = va_arg(rest, long), g = va_arg(rest, long);
    va_end(rest);
    static __typeof__(syscall) *real;
    if (!real)
        *(void **) &real = dlsym(RTLD_NEXT, "syscall");
    if (number != SYS_openat2)
        return real(number, a, b, c, d, f, g);
    const struct open_how *how = (const struct open_how *) c;
    int flags = (int) how->flags;
    if (!makes(flags))
        return real(number, a, b, c, d);
    struct event e = opening((int) a, (const char *) b, flags, (mode_t) how->mode);
    return THROUGH(e, real(number, a, b, c, d));
}

/* ------------------------------------------------------------------ inode numbers of a rebuilt tree */

static int show(int result, struct stat *st)
{
    for (size_t i = 0; result == 0 && i < shown_count; i++) {
        if (shown_inodes[i].real == st->st_ino) {
            st->st_ino = shown_inodes[i].shown;
            break;
        }
    }
    return result;
}

int fstat(int fd, struct stat *out)
{
    return show((int) raw(SYS_fstat, fd, (long) out, 0, 0, 0), out);
}

int stat(const char *path, struct stat *out)
{
    return show((int) raw(SYS_newfstatat, AT_FDCWD, (long) path, (long) out, 0, 0), out);
}

int lstat(const char *path, struct stat *out)
{
    return show((int) raw(SYS_newfstatat, AT_FDCWD, (long) path, (long) out, AT_SYMLINK_NOFOLLOW, 0), out);
}

int fstatat(int dir, const char *path, struct stat *out, int flags)
{
    return show((int) raw(SYS_newfstatat, dir, (long) path, (long) out, flags, 0), out);
}

/* The names SQLite and others built for large files use; the structures are the same here. */
int fstat64(int fd, struct stat64 *out)
{
    return fstat(fd, (struct stat *) out);
}

int stat64(const char *path, struct stat64 *out)
{
    return stat(path, (struct stat *) out);
}

int lstat64(const char *path, struct stat64 *out)
{
    return lstat(path, (struct stat *) out);
}

int fstatat64(int dir, const char *path, struct stat64 *out, int flags)
{
    return fstatat(dir, path, (struct stat *) out, flags);
}
