/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/io.h"

#include "server/base/own.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

void *io_buffer(size_t size)
{
    void *buffer;
    if (posix_memalign(&buffer, IO_ALIGNMENT, size) != 0)
        abort();
    return buffer;
}

int io_read_at(int fd, void *out, size_t length, uint64_t offset)
{
    char *at = out;
    while (length > 0) {
        ssize_t n = pread(fd, at, length, (off_t) offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = 0;
        if (n <= 0)
            return -1;
        at += n;
        offset += (uint64_t) n;
        length -= (size_t) n;
    }
    return 0;
}

int io_write_at(int fd, const void *data, size_t length, uint64_t offset)
{
    const char *at = data;
    while (length > 0) {
        ssize_t n = pwrite(fd, at, length, (off_t) offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        offset += (uint64_t) n;
        length -= (size_t) n;
    }
    return 0;
}

int io_write(int fd, const void *data, size_t length)
{
    const char *at = data;
    while (length > 0) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        at += n;
        length -= (size_t) n;
    }
    return 0;
}

int io_open_beneath(int dir, const char *name, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK),
        .mode = flags & O_CREAT ? mode : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };
    return (int) syscall(SYS_openat2, dir, name, &how, sizeof how);
}

int io_read_file(int dir, const char *name, size_t ceiling, char **out, size_t *out_length)
{
    AUTO_FD int fd = io_open_beneath(dir, name, O_RDONLY, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t) st.st_size > ceiling) {
        errno = S_ISREG(st.st_mode) ? EFBIG : EINVAL;
        return -1;
    }
    size_t length = (size_t) st.st_size;
    AUTO_FREE char *data = calloc(1, length + 1);
    if (!data || io_read_at(fd, data, length, 0) < 0)
        return -1;
    *out = TAKE(data);
    *out_length = length;
    return 0;
}

/* Writes and syncs temp; -1 with errno. */
static int write_temp(int dir, const char *temp, const void *data, size_t length, mode_t mode)
{
    AUTO_FD int fd = io_open_beneath(dir, temp, O_WRONLY | O_CREAT | O_TRUNC, mode);
    if (fd < 0)
        return -1;
    return io_write(fd, data, length) < 0 || fsync(fd) < 0 ? -1 : 0;
}

int io_replace_file(int dir, const char *name, const char *temp, const void *data, size_t length, mode_t mode)
{
    if (write_temp(dir, temp, data, length, mode) == 0 && renameat(dir, temp, dir, name) == 0)
        return fsync(dir);
    int saved = errno;
    unlinkat(dir, temp, 0);
    errno = saved;
    return -1;
}
