/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/pem.h"

#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { PEM_MAX = 1 << 20 };

void pem_free(struct pem *p)
{
    if (p->data)
        explicit_bzero(p->data, p->size);
    free(p->data);
    *p = (struct pem){0};
}

static int64_t nanoseconds(const struct timespec *t)
{
    return (int64_t) t->tv_sec * 1000000000 + t->tv_nsec;
}

static struct pem_mark mark_of(const struct stat *st)
{
    return (struct pem_mark){st->st_dev, st->st_ino, (uint64_t) st->st_size, nanoseconds(&st->st_mtim),
                             nanoseconds(&st->st_ctim)};
}

static int check_secret(const char *path, const struct stat *st, struct fault *f)
{
    mode_t mode = st->st_mode & 07777;
    if (mode != 0600 && mode != 0400)
        return fault_set(f, FAULT_InvalidArg, "%s has mode %04o: a key must have 0600 or 0400", path, (unsigned) mode);
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return fault_set(f, FAULT_InvalidArg, "%s belongs to uid %u: a key must belong to the daemon's user or root",
                         path, (unsigned) st->st_uid);
    return 0;
}

int pem_read(const char *path, bool secret, struct pem *out, struct pem_mark *mark, struct fault *f)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_InvalidArg, "open %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > PEM_MAX)
        return fault_set(f, FAULT_InvalidArg, "%s is no file of 1 byte to 1 MiB", path);
    if (secret && check_secret(path, &st, f) < 0)
        return -1;
    AUTO_PEM struct pem p = {malloc((size_t) st.st_size), (unsigned) st.st_size};
    if (!p.data)
        abort();
    if (io_read_at(fd, p.data, p.size, 0) < 0)
        return fault_errno(f, FAULT_InvalidArg, "read %s", path);
    *out = p;
    p = (struct pem){0};
    if (mark)
        *mark = mark_of(&st);
    return 0;
}

struct pem_mark pem_mark_of(const char *path)
{
    struct stat st;
    return stat(path, &st) < 0 ? (struct pem_mark){0} : mark_of(&st);
}

bool pem_mark_equal(const struct pem_mark *a, const struct pem_mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size && a->modified_ns == b->modified_ns &&
           a->changed_ns == b->changed_ns;
}
