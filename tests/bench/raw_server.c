/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What raw_client talks to: reads a call, makes durable what it is told to, answers the bytes of a file.
   bench_raw_server SOCKET REPLY [append FILE | create DIRECTORY]
     append: 4 KiB at the end of FILE, fdatasync: the least a durable commit can be
     create: a new file as large as an empty dynamic VHD of 100 GiB, fdatasync, fsync of DIRECTORY, and such an append
 */
#include "server/base/io.h"
#include "server/base/own.h"
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { COMMIT = 4096, VHD_100_GIB = 206848, MOST = 65536 };

struct durable {
    int log, directory; /* -1: not asked for */
    unsigned made;
};

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(EXIT_FAILURE);
}

static void append(int fd)
{
    static char block[COMMIT] = {1};
    need(io_write(fd, block, sizeof block) == 0 && fdatasync(fd) == 0, "append");
}

static void create(struct durable *d)
{
    static char image[VHD_100_GIB] = {1};
    char name[32];
    snprintf(name, sizeof name, "%u", d->made++);
    AUTO_FD int fd = openat(d->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    need(fd >= 0 && io_write(fd, image, sizeof image) == 0, "create");
    need(fdatasync(fd) == 0 && fsync(d->directory) == 0, "sync");
}

static void read_whole(int fd, void *out, size_t length)
{
    for (size_t have = 0; have < length;) {
        ssize_t n = read(fd, (char *) out + have, length - have);
        need(n > 0, "read a call");
        have += (size_t) n;
    }
}

static void serve(int fd, struct durable *d, const char *reply, size_t reply_length)
{
    static char call[MOST];
    uint32_t length;
    read_whole(fd, &length, sizeof length);
    need(length <= sizeof call, "length");
    read_whole(fd, call, length);
    if (d->directory >= 0)
        create(d);
    if (d->log >= 0)
        append(d->log);
    need(io_write(fd, reply, reply_length) == 0, "answer");
}

static void prepare(struct durable *d, int argc, char **argv)
{
    *d = (struct durable){.log = -1, .directory = -1};
    if (argc < 5)
        return;
    int at = AT_FDCWD;
    const char *log = argv[4];
    if (strcmp(argv[3], "create") == 0) {
        at = d->directory = open(argv[4], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        log = "log";
    }
    d->log = openat(at, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    need(d->log >= 0, argv[4]);
}

int main(int argc, char **argv)
{
    static char reply[MOST];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct durable durable;
    if (argc < 3 || strlen(argv[1]) >= sizeof address.sun_path)
        return 2;
    AUTO_FILE FILE *file = fopen(argv[2], "r");
    need(file, argv[2]);
    size_t reply_length = fread(reply, 1, sizeof reply, file);
    prepare(&durable, argc, argv);
    memcpy(address.sun_path, argv[1], strlen(argv[1]));
    AUTO_FD int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    need(listener >= 0 && bind(listener, (struct sockaddr *) &address, sizeof address) == 0, argv[1]);
    need(listen(listener, 64) == 0, "listen");
    for (;;) {
        AUTO_FD int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        need(fd >= 0, "accept");
        serve(fd, &durable, reply, reply_length);
    }
}
