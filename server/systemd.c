/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { FIRST_FD = 3, FDS_MAX = 16 };

/* A number of the environment; 0 when it is not there or none. */
static unsigned long long number_of(const char *name)
{
    const char *text = getenv(name);
    char *end;
    if (!text || *text < '0' || *text > '9')
        return 0;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    return errno || *end ? 0 : n;
}

static int want(int fd, int option, int value)
{
    int found = -1;
    socklen_t length = sizeof found;
    return getsockopt(fd, SOL_SOCKET, option, &found, &length) == 0 && found == value ? 0 : -1;
}

static int family_of(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    return getsockname(fd, (struct sockaddr *) &address, &length) < 0 ? AF_UNSPEC : address.ss_family;
}

static int take_socket(int fd, const char *name, struct systemd *out, struct fault *f)
{
    int family = family_of(fd);
    bool local = strcmp(name, "socket") == 0 || (strcmp(name, "https") != 0 && family == AF_UNIX);
    int *place = local ? &out->socket : &out->https;
    if (want(fd, SO_ACCEPTCONN, 1) < 0 || want(fd, SO_TYPE, SOCK_STREAM) < 0)
        return fault_set(f, FAULT_InvalidArg, "the passed descriptor %d (%s) is no listening stream socket", fd, name);
    if (local != (family == AF_UNIX) || (!local && family != AF_INET && family != AF_INET6))
        return fault_set(f, FAULT_InvalidArg, "the passed socket %d (%s) is of the wrong family", fd, name);
    if (*place >= 0)
        return fault_set(f, FAULT_InvalidArg, "two sockets were passed for %s", local ? "\"socket\"" : "\"https\"");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return fault_errno(f, FAULT_InvalidArg, "set up the passed socket %d", fd);
    *place = fd;
    return 0;
}

/* The names of LISTEN_FDNAMES, separated by colons; "" for those it leaves out. */
static int take_sockets(unsigned count, const char *names, struct systemd *out, struct fault *f)
{
    for (unsigned i = 0; i < count; i++) {
        char name[64];
        size_t length = strcspn(names, ":");
        snprintf(name, sizeof name, "%.*s", (int) (length < sizeof name ? length : 0), names);
        names += names[length] == ':' ? length + 1 : length;
        if (take_socket(FIRST_FD + (int) i, name, out, f) < 0)
            return -1;
    }
    return 0;
}

static unsigned watchdog(void)
{
    unsigned long long us = number_of("WATCHDOG_USEC"), pid = number_of("WATCHDOG_PID");
    if (us == 0 || (getenv("WATCHDOG_PID") && pid != (unsigned long long) getpid()))
        return 0;
    unsigned long long seconds = us / 1000000 / 3;
    return seconds < 1 ? 1 : seconds > 3600 ? 3600 : (unsigned) seconds;
}

static void forget_environment(void)
{
    static const char *const names[] = {"LISTEN_PID",    "LISTEN_FDS",   "LISTEN_FDNAMES",
                                        "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        unsetenv(names[i]);
}

int systemd_meet(struct systemd *out, struct fault *f)
{
    struct systemd s = {.https = -1, .socket = -1, .watchdog_seconds = watchdog()};
    const char *notify = getenv("NOTIFY_SOCKET"), *names = getenv("LISTEN_FDNAMES");
    unsigned long long count = number_of("LISTEN_FDS");
    int r = 0;
    if (notify && strlen(notify) < sizeof s.notify)
        snprintf(s.notify, sizeof s.notify, "%s", notify);
    if (number_of("LISTEN_PID") != (unsigned long long) getpid())
        count = 0;
    if (count > FDS_MAX)
        r = fault_set(f, FAULT_InvalidArg, "%llu sockets were passed; two are of use", count);
    else
        r = take_sockets((unsigned) count, names ? names : "", &s, f);
    forget_environment();
    if (r == 0)
        *out = s;
    return r;
}

void systemd_tell(const struct systemd *s, const char *fmt, ...)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char message[512];
    size_t length = strlen(s->notify);
    if (length == 0)
        return;
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    memcpy(address.sun_path, s->notify, length);
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    if (fd >= 0)
        sendto(fd, message, strlen(message), MSG_NOSIGNAL, (const struct sockaddr *) &address,
               (socklen_t) (offsetof(struct sockaddr_un, sun_path) + length));
}
