/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/place.h"

#include "server/base/clock.h"
#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

/* The log at its longest, and as much again for the pages that go from it to the end of the database. */
#define RESERVE (8 << 20)

static const struct remote_type {
    uint64_t magic;
    const char *name;
} remote_types[] = {
    {NFS_SUPER_MAGIC, "nfs"}, {SMB_SUPER_MAGIC, "smb"},   {CIFS_SUPER_MAGIC, "cifs"}, {SMB2_SUPER_MAGIC, "smb2"},
    {AFS_FS_MAGIC, "afs"},    {AFS_SUPER_MAGIC, "afs"},   {CEPH_SUPER_MAGIC, "ceph"}, {CODA_SUPER_MAGIC, "coda"},
    {V9FS_MAGIC, "9p"},       {FUSE_SUPER_MAGIC, "fuse"},
};

const char *place_remote_type(uint64_t magic)
{
    for (size_t i = 0; i < COUNT_OF(remote_types); i++)
        if (remote_types[i].magic == magic)
            return remote_types[i].name;
    return NULL;
}

static int check_directory(int fd, const char *dir, struct fault *f)
{
    struct stat st;
    struct statfs fs;
    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return fault_errno(f, FAULT_EIO, "look at the state directory %s", dir);
    if (st.st_uid != geteuid())
        return fault_set(f, FAULT_EIO, "the state directory %s belongs to uid %u, we are %u", dir, st.st_uid,
                         geteuid());
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return fault_set(f, FAULT_EIO, "the state directory %s has mode %04o: others may write to it; want 0700", dir,
                         st.st_mode & 07777);
    const char *remote = place_remote_type((uint32_t) fs.f_type);
    if (remote)
        return fault_set(f, FAULT_EIO, "the state directory %s is on %s; the database needs a local disk", dir, remote);
    return 0;
}

/* Makes the name durable in the directory above. */
static int sync_parent(int fd)
{
    AUTO_FD int parent = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return parent < 0 || fsync(parent) < 0 ? -1 : 0;
}

static int open_directory(const char *dir, bool look, int *out, struct fault *f)
{
    bool made = !look && mkdir(dir, 0700) == 0;
    if (!look && !made && errno != EEXIST)
        return fault_errno(f, FAULT_EIO, "make the state directory %s", dir);
    AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fault_errno(f, FAULT_EIO, "open the state directory %s", dir);
    if (check_directory(fd, dir, f) < 0)
        return -1;
    if (made && sync_parent(fd) < 0)
        return fault_errno(f, FAULT_EIO, "sync the directory above %s", dir);
    *out = TAKE_FD(fd);
    return 0;
}

static int refuse_second(int fd, const char *dir, bool *in_use, struct fault *f)
{
    char pid[16] = "";
    ssize_t n = pread(fd, pid, sizeof pid - 1, 0);
    int digits = 0;
    while (digits < n && pid[digits] >= '0' && pid[digits] <= '9')
        digits++;
    *in_use = true;
    if (digits == 0)
        return fault_set(f, FAULT_LockErr, "the state directory %s is in use by another process", dir);
    return fault_set(f, FAULT_LockErr, "the state directory %s is in use by process %.*s", dir, digits, pid);
}

static int write_pid(int fd)
{
    char pid[16];
    int n = snprintf(pid, sizeof pid, "%d\n", getpid());
    return ftruncate(fd, 0) < 0 ? -1 : io_write_at(fd, pid, (size_t) n, 0);
}

/* An open file description lock: unlike SQLite's own, it is not lost when this process closes the file elsewhere. */
static int take_lock(int directory, const char *dir, int *out, bool *in_use, struct fault *f)
{
    AUTO_FD int fd = openat(directory, "smapid.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fault_errno(f, FAULT_EIO, "open %s/smapid.lock", dir);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &whole) < 0)
        return errno == EAGAIN || errno == EACCES ? refuse_second(fd, dir, in_use, f)
                                                  : fault_errno(f, FAULT_EIO, "lock %s/smapid.lock", dir);
    if (write_pid(fd) < 0)
        return fault_errno(f, FAULT_EIO, "write our pid to %s/smapid.lock", dir);
    *out = TAKE_FD(fd);
    return 0;
}

static bool is_there(int directory)
{
    struct stat st;
    return fstatat(directory, "smapid.db", &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size > 0;
}

static int check_there(int directory, const char *dir, struct fault *f)
{
    return is_there(directory) ? 0 : fault_set(f, FAULT_EIO, "there is no database in the state directory %s", dir);
}

/* A server that has a name has had a database: an empty one in its stead would have forgotten who holds what. */
static int check_lost(int directory, const char *dir, struct fault *f)
{
    if (is_there(directory) || faccessat(directory, "smapid.server", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    return fault_set(f, FAULT_SRUnavailable, "the database of the state directory %s is gone", dir);
}

static int check_database(int directory, const char *dir, enum place_use use, struct fault *f)
{
    switch (use) {
    case PLACE_SERVE:
        return check_lost(directory, dir, f);
    case PLACE_LOOK:
        return check_there(directory, dir, f);
    case PLACE_REBUILD:
        break;
    }
    bool gone = unlinkat(directory, "smapid.db.new", 0) == 0 || errno == ENOENT;
    bool log_gone = unlinkat(directory, "smapid.db.new-wal", 0) == 0 || errno == ENOENT;
    return gone && log_gone ? 0 : fault_errno(f, FAULT_EIO, "remove what an earlier rebuild left in %s", dir);
}

/* SQLite would make the file with mode 0644; its log takes the mode of the database. */
static int make_database(int directory, const char *dir, const char *name, struct fault *f)
{
    AUTO_FD int fd = openat(directory, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_EIO, "open %s/%s", dir, name);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
        return fault_set(f, FAULT_EIO, "%s/%s is not a file of ours", dir, name);
    if (fchmod(fd, 0600) < 0 || fsync(directory) < 0)
        return fault_errno(f, FAULT_EIO, "make %s/%s durable and private", dir, name);
    return 0;
}

static int rename_if_there(const struct place *p, const char *from, const char *to)
{
    return renameat2(p->directory, from, p->directory, to, RENAME_NOREPLACE) < 0 && errno != ENOENT ? -1 : 0;
}

static bool name_is_free(const struct place *p, const char *name)
{
    return faccessat(p->directory, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

/* A name for an old database and its log: of this second, and with a number when there is such a one already. */
static void name_kept(const struct place *p, char kept[PLACE_KEPT], char kept_log[PLACE_KEPT + 8])
{
    char now[CLOCK_TEXT], more[16] = "";
    clock_text(clock_wall_s(), now);
    for (unsigned n = 2; n < 10000; n++) {
        snprintf(kept, PLACE_KEPT, "smapid.db.broken-%s%s", now, more);
        snprintf(kept_log, PLACE_KEPT + 8, "%s-wal", kept);
        if (name_is_free(p, kept) && name_is_free(p, kept_log))
            return;
        snprintf(more, sizeof more, "-%u", n);
    }
}

/* The old one goes aside first. Cut off in between there is none, and a start says so. */
int place_swap(const struct place *p, char kept[PLACE_KEPT], struct fault *f)
{
    char kept_log[PLACE_KEPT + 8];
    name_kept(p, kept, kept_log);
    if (rename_if_there(p, "smapid.db", kept) < 0 || rename_if_there(p, "smapid.db-wal", kept_log) < 0 ||
        fsync(p->directory) < 0)
        return fault_errno(f, FAULT_EIO, "put the old smapid.db aside as %s", kept);
    if (renameat(p->directory, "smapid.db.new", p->directory, "smapid.db") < 0 || fsync(p->directory) < 0)
        return fault_errno(f, FAULT_EIO, "give smapid.db.new its name");
    return 0;
}

static int open_reserve(int directory, const char *dir, int *out, struct fault *f)
{
    int fd = openat(directory, "smapid.reserve", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fault_errno(f, FAULT_EIO, "open %s/smapid.reserve", dir);
    *out = fd;
    return 0;
}

bool place_reserve(struct place *p)
{
    if (fallocate(p->reserve, 0, 0, RESERVE) == 0)
        return true;
    place_spend_reserve(p);
    return false;
}

void place_spend_reserve(struct place *p)
{
    int gone = ftruncate(p->reserve, 0);
    (void) gone; /* what it does not free is missed by the writes that follow, and they say so */
}

int place_read_server(const struct place *p, struct uuid *out, struct fault *f)
{
    AUTO_FREE char *text = NULL;
    size_t length;
    *out = UUID_NONE;
    if (io_read_file(p->directory, "smapid.server", 64, &text, &length) < 0)
        return errno == ENOENT ? 0 : fault_errno(f, FAULT_EIO, "read smapid.server of the state directory");
    if (length != UUID_TEXT + 1 || !uuid_parse(text, UUID_TEXT, out))
        return fault_set(f, FAULT_EIO, "smapid.server of the state directory holds no uuid");
    return 0;
}

int place_write_server(const struct place *p, const struct uuid *server, struct fault *f)
{
    char text[UUID_TEXT + 2];
    int length = snprintf(text, sizeof text, "%s\n", server->text);
    if (io_replace_file(p->directory, "smapid.server", "smapid.server.new", text, (size_t) length, 0600) < 0)
        return fault_errno(f, FAULT_EIO, "write smapid.server of the state directory");
    return 0;
}

int place_read_epochs(const struct place *p, struct place_epochs *out, struct fault *f)
{
    AUTO_FREE char *text = NULL;
    size_t length;
    unsigned long long end, seq;
    int used = -1;
    *out = (struct place_epochs){0};
    if (io_read_file(p->directory, "smapid.epoch", 64, &text, &length) < 0)
        return errno == ENOENT ? 0 : fault_errno(f, FAULT_EIO, "read smapid.epoch of the state directory");
    if (sscanf(text, "%20llu %20llu\n%n", &end, &seq, &used) != 2 || used < 0 || (size_t) used != length ||
        end > (unsigned long long) INT64_MAX)
        return fault_set(f, FAULT_EIO, "smapid.epoch of the state directory holds no epoch and count of starts");
    *out = (struct place_epochs){end, seq};
    return 0;
}

int place_write_epochs(const struct place *p, const struct place_epochs *epochs, struct fault *f)
{
    char text[64];
    int length = snprintf(text, sizeof text, "%llu %llu\n", (unsigned long long) epochs->end,
                          (unsigned long long) epochs->start_seq);
    if (io_replace_file(p->directory, "smapid.epoch", "smapid.epoch.new", text, (size_t) length, 0600) < 0)
        return fault_errno(f, FAULT_EIO, "write smapid.epoch of the state directory");
    return 0;
}

int place_open(const char *dir, enum place_use use, struct place *out, bool *in_use, struct fault *f)
{
    AUTO_FD int directory = -1;
    AUTO_FD int lock = -1;
    AUTO_FD int reserve = -1;
    const char *name = use == PLACE_REBUILD ? "smapid.db.new" : "smapid.db";
    if (open_directory(dir, use == PLACE_LOOK, &directory, f) < 0 || take_lock(directory, dir, &lock, in_use, f) < 0 ||
        check_database(directory, dir, use, f) < 0 || make_database(directory, dir, name, f) < 0 ||
        open_reserve(directory, dir, &reserve, f) < 0)
        return -1;
    *out = (struct place){TAKE_FD(directory), TAKE_FD(lock), TAKE_FD(reserve)};
    return 0;
}

void place_close(struct place *p)
{
    own_fd(&p->reserve);
    own_fd(&p->lock);
    own_fd(&p->directory);
    *p = PLACE_NONE;
}
