/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/scsi/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { PORT_MAX = 65535 };

static const unsigned char v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool portal_parse(const char *address, unsigned port, struct portal *out)
{
    struct portal p = {.port = port};
    char bare[ADDRESS_TEXT];
    size_t length = strlen(address);
    bool bracketed = length > 2 && address[0] == '[' && address[length - 1] == ']';
    if (length - (bracketed ? 2 : 0) >= sizeof bare)
        return false;
    snprintf(bare, sizeof bare, "%.*s", (int) (length - (bracketed ? 2 : 0)), address + (bracketed ? 1 : 0));
    memcpy(p.bytes, v4_prefix, sizeof v4_prefix);
    if ((bracketed || inet_pton(AF_INET, bare, p.bytes + 12) != 1) && inet_pton(AF_INET6, bare, p.bytes) != 1)
        return false;
    *out = p;
    return true;
}

bool portal_equal(const struct portal *a, const struct portal *b)
{
    return a->port == b->port && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

static bool is_v4(const struct portal *p)
{
    return memcmp(p->bytes, v4_prefix, sizeof v4_prefix) == 0;
}

void portal_address(const struct portal *p, char out[ADDRESS_TEXT])
{
    if (is_v4(p))
        inet_ntop(AF_INET, p->bytes + 12, out, ADDRESS_TEXT);
    else
        inet_ntop(AF_INET6, p->bytes, out, ADDRESS_TEXT);
}

void portal_text(const struct portal *p, char out[PORTAL_TEXT])
{
    char address[ADDRESS_TEXT];
    portal_address(p, address);
    snprintf(out, PORTAL_TEXT, is_v4(p) ? "%s:%u" : "[%s]:%u", address, p->port);
}

bool portal_is_name(const char *host)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
    if (!host[0] || strlen(host) > ADDRESS_NAME)
        return false;
    for (const char *at = host; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        size_t length = strcspn(at, ".");
        if (length == 0 || length > 63 || strspn(at, letters) < length || at[0] == '-' || at[length - 1] == '-')
            return false;
    }
    return true;
}

static bool read_port(const char *s, size_t length, unsigned *out)
{
    unsigned n = 0;
    if (length == 0 || length > 5)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        n = n * 10 + (unsigned) (s[i] - '0');
    }
    if (n == 0 || n > PORT_MAX)
        return false;
    *out = n;
    return true;
}

bool portal_split(const char *word, size_t length, char host[ADDRESS_NAME + 1], unsigned *port)
{
    const char *colon = memchr(word, ':', length), *end = word + length;
    if (length && word[0] == '[') {
        const char *close = memchr(word, ']', length);
        if (!close || (close + 1 < end && close[1] != ':'))
            return false;
        colon = close + 1 < end ? close + 1 : NULL;
    } else if (colon && memchr(colon + 1, ':', (size_t) (end - colon - 1))) {
        colon = NULL; /* two colons: a bare IPv6 address */
    }
    size_t host_length = colon ? (size_t) (colon - word) : length;
    if (host_length == 0 || host_length > ADDRESS_NAME)
        return false;
    if (colon && !read_port(colon + 1, (size_t) (end - colon - 1), port))
        return false;
    memcpy(host, word, host_length);
    host[host_length] = '\0';
    return true;
}

int portal_resolve(const char *host, unsigned port, struct portal *out, struct fault *f)
{
    struct portal p = {.port = port};
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (portal_parse(host, port, out))
        return 0;
    int failed = getaddrinfo(host, NULL, &hints, &found);
    if (failed)
        return fault_set(f, FAULT_DNSError, "resolve %.253s: %s", host, gai_strerror(failed));
    if (found->ai_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *) found->ai_addr;
        memcpy(p.bytes, v4_prefix, sizeof v4_prefix);
        memcpy(p.bytes + 12, &v4->sin_addr, 4);
    } else {
        const struct sockaddr_in6 *v6 = (const void *) found->ai_addr;
        memcpy(p.bytes, &v6->sin6_addr, 16);
    }
    freeaddrinfo(found);
    *out = p;
    return 0;
}

static int start_connect(const struct portal *p, int fd)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t) p->port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t) p->port)};
    memcpy(&v4.sin_addr, p->bytes + 12, 4);
    memcpy(&v6.sin6_addr, p->bytes, 16);
    return is_v4(p) ? connect(fd, (const struct sockaddr *) &v4, sizeof v4)
                    : connect(fd, (const struct sockaddr *) &v6, sizeof v6);
}

int portal_answers(const struct portal *p, unsigned seconds, struct fault *f)
{
    char text[PORTAL_TEXT];
    int reason = 0;
    socklen_t size = sizeof reason;
    portal_text(p, text);
    AUTO_FD int fd = socket(is_v4(p) ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fault_errno(f, FAULT_ISCSITarget, "make a socket for %s", text);
    if (start_connect(p, fd) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return fault_errno(f, FAULT_ISCSITarget, "connect to portal %s", text);
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    if (poll(&wait, 1, (int) seconds * 1000) <= 0)
        return fault_set(f, FAULT_ISCSITarget, "portal %s does not answer within %u s", text, seconds);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &size) < 0 || reason == 0)
        return 0;
    errno = reason;
    return fault_errno(f, FAULT_ISCSITarget, "connect to portal %s", text);
}
