/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 1024 };

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static int parse_address(const char *text, unsigned port, union address *out, socklen_t *length, struct fault *f)
{
    union address a = {.v6 = {0}};
    if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons((uint16_t) port);
        *length = sizeof a.v4;
    } else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons((uint16_t) port);
        *length = sizeof a.v6;
    } else {
        return fault_set(f, FAULT_InvalidArg, "server.listen: \"%s\" is no IPv4 or IPv6 address in digits", text);
    }
    *out = a;
    return 0;
}

unsigned listener_port(int fd)
{
    union address a = {.v6 = {0}};
    socklen_t length = sizeof a;
    if (getsockname(fd, &a.any, &length) < 0)
        return 0;
    if (a.any.sa_family != AF_INET && a.any.sa_family != AF_INET6)
        return 0;
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

int listener_tcp(const char *address, unsigned port, int *fd, struct fault *f)
{
    union address a = {.v6 = {0}};
    socklen_t length = 0;
    if (parse_address(address, port, &a, &length, f) < 0)
        return -1;
    AUTO_FD int s = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return fault_errno(f, FAULT_EIO, "make a socket for %s", address);
    const int one = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, &a.any, length) < 0 || listen(s, BACKLOG) < 0)
        return fault_errno(f, FAULT_EIO, "listen on %s port %u", address, port);
    *fd = TAKE_FD(s);
    return 0;
}

void listener_no_delay(int fd)
{
    const int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int unix_address(const char *path, const char *suffix, struct sockaddr_un *out, struct fault *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path, sizeof a.sun_path, "%s%s", path, suffix);
    if (n < 0 || (size_t) n >= sizeof a.sun_path)
        return fault_set(f, FAULT_InvalidArg, "server.socket: %s is longer than %zu characters", path,
                         sizeof a.sun_path - 1 - strlen(suffix));
    *out = a;
    return 0;
}

/* Whether path may be taken: nothing there, or a socket on which nobody listens. */
static int check_free(const char *path, const struct sockaddr_un *address, struct fault *f)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : fault_errno(f, FAULT_EIO, "look at %s", path);
    if (!S_ISSOCK(st.st_mode))
        return fault_set(f, FAULT_EIO, "%s is there and is no socket", path);
    AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return fault_errno(f, FAULT_EIO, "make a socket");
    if (connect(s, (const struct sockaddr *) address, sizeof *address) == 0 || errno == EAGAIN)
        return fault_set(f, FAULT_EIO, "another process answers on %s", path);
    return errno == ECONNREFUSED ? 0 : fault_errno(f, FAULT_EIO, "try %s", path);
}

/* The file is never more open than 0600, not even for a moment. */
static int bind_private(int fd, const struct sockaddr_un *address)
{
    mode_t old = umask(0177);
    int r = bind(fd, (const struct sockaddr *) address, sizeof *address);
    int saved = errno;
    umask(old);
    errno = saved;
    return r;
}

int listener_unix(const char *path, int *fd, struct listener_name *name, struct fault *f)
{
    struct sockaddr_un address, fresh;
    if (unix_address(path, "", &address, f) < 0 || unix_address(path, ".new", &fresh, f) < 0 ||
        check_free(path, &address, f) < 0)
        return -1;
    AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0)
        return fault_errno(f, FAULT_EIO, "make a socket");
    struct stat st;
    unlink(fresh.sun_path);
    if (bind_private(s, &fresh) < 0 || listen(s, BACKLOG) < 0 || lstat(fresh.sun_path, &st) < 0 ||
        rename(fresh.sun_path, path) < 0) {
        fault_errno(f, FAULT_EIO, "listen on %s", path);
        unlink(fresh.sun_path);
        return -1;
    }
    *name = (struct listener_name){path, st.st_dev, st.st_ino};
    *fd = TAKE_FD(s);
    return 0;
}

void listener_unix_remove(const struct listener_name *name)
{
    struct stat st;
    if (lstat(name->path, &st) == 0 && st.st_dev == name->device && st.st_ino == name->inode)
        unlink(name->path);
}
