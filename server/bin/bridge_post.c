/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/bridge_post.h"

#include "server/base/clock.h"
#include "server/base/text.h"
#include "server/base/uuid.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>

#define HEAD_MAX      16384U
#define NS_PER_US     1000LL
#define US_PER_SECOND 1000000LL

/* The head of an answer, and what arrived behind it. */
struct head {
    char data[HEAD_MAX + 1];
    size_t received, length; /* length: of the head, with its empty line */
    unsigned status;
    bool has_content_length;
    size_t content_length;
};

static int too_late(const struct bridge_request *r, const char *what, struct fault *f)
{
    return fault_set(f, FAULT_DeadlineExceeded, "%s smapid at %s took more than %u s; the call may still be under way",
                     what, r->conf->socket, r->conf->deadline_seconds);
}

/* Lets the next call on the socket block until the deadline and no longer; it then fails with EAGAIN. */
static int limit(int fd, int option, const char *what, const struct bridge_request *r, struct fault *f)
{
    int64_t left_us = (r->deadline - clock_boot_ns()) / NS_PER_US;
    if (left_us <= 0)
        return too_late(r, what, f);
    struct timeval time = {.tv_sec = left_us / US_PER_SECOND, .tv_usec = left_us % US_PER_SECOND};
    if (setsockopt(fd, SOL_SOCKET, option, &time, sizeof time) < 0)
        return fault_errno(f, FAULT_EIO, "limit a socket");
    return 0;
}

static int connect_daemon(const struct bridge_request *r, int *out, struct fault *f)
{
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fault_errno(f, FAULT_EIO, "make a socket");
    if (limit(fd, SO_SNDTIMEO, "connecting to", r, f) < 0)
        return -1;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, r->conf->socket, sizeof address.sun_path);
    if (connect(fd, (const struct sockaddr *) &address, sizeof address) < 0) {
        if (errno == EAGAIN)
            return too_late(r, "connecting to", f);
        return fault_errno(f, FAULT_SRUnavailable, "no smapid answers at %s", r->conf->socket);
    }
    *out = TAKE_FD(fd);
    return 0;
}

/* traceparent as W3C Trace Context writes it: 00-<32>-<16>-<2> lower-case hexadecimal digits. */
static bool is_traceparent(const char *s)
{
    static const char form[] = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    if (strlen(s) != sizeof form - 1)
        return false;
    for (size_t i = 0; i < sizeof form - 1; i++)
        if (form[i] == 'x' ? !strchr("0123456789abcdef", s[i]) : s[i] != form[i])
            return false;
    return true;
}

static bool is_plain(const char *s)
{
    size_t length = 0;
    while (s[length] > ' ' && s[length] <= '~')
        length++;
    return length > 0 && length <= 64 && s[length] == '\0';
}

static void write_head(struct text *t, const struct bridge_request *r)
{
    text_printf(t,
                "POST %s%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: text/xml\r\n"
                "Content-Length: %zu\r\nX-SMAPI-Op-Id: %s\r\n",
                r->type ? "/sm/" : "/RPC2", r->type ? r->type : "", r->length, uuid_random().text);
    const char *trace = getenv("TRACEPARENT"), *originator = getenv("ORIGINATOR");
    if (trace && is_traceparent(trace))
        text_printf(t, "traceparent: %s\r\n", trace);
    if (originator && is_plain(originator))
        text_printf(t, "originator: %s\r\n", originator);
    text_add(t, "\r\n");
}

/* Past n sent bytes. */
static void advance(struct iovec *parts, size_t count, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        size_t part = n < parts[i].iov_len ? n : parts[i].iov_len;
        parts[i].iov_base = (char *) parts[i].iov_base + part;
        parts[i].iov_len -= part;
        n -= part;
    }
}

static int send_call(int fd, const struct bridge_request *r, struct fault *f)
{
    AUTO_TEXT struct text head = TEXT_OF(1024);
    write_head(&head, r);
    struct iovec parts[2] = {{head.data, head.length}, {r->body, r->length}};
    while (parts[0].iov_len + parts[1].iov_len > 0) {
        if (limit(fd, SO_SNDTIMEO, "sending to", r, f) < 0)
            return -1;
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = COUNT_OF(parts)};
        ssize_t n = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (n >= 0)
            advance(parts, COUNT_OF(parts), (size_t) n);
        else if (errno == EPIPE || errno == ECONNRESET)
            return 0; /* it refused before it had all; its answer, if any, is still to be read */
        else if (errno != EAGAIN && errno != EINTR)
            return fault_errno(f, FAULT_EIO, "send to smapid at %s", r->conf->socket);
    }
    return 0;
}

/* At least one byte. The end of the stream is a fault: whoever calls wants more. */
static int receive(int fd, char *out, size_t size, const struct bridge_request *r, size_t *got, struct fault *f)
{
    for (;;) {
        if (limit(fd, SO_RCVTIMEO, "the answer of", r, f) < 0)
            return -1;
        ssize_t n = recv(fd, out, size, 0);
        if (n > 0) {
            *got = (size_t) n;
            return 0;
        }
        if (n == 0)
            return fault_set(f, FAULT_EIO, "smapid at %s closed before its answer was whole; the call may be done",
                             r->conf->socket);
        if (errno != EAGAIN && errno != EINTR)
            return fault_errno(f, FAULT_EIO, "receive from smapid at %s", r->conf->socket);
    }
}

static int bad_head(const struct bridge_request *r, const char *why, struct fault *f)
{
    return fault_set(f, FAULT_EIO, "what answers at %s is not smapid: %s", r->conf->socket, why);
}

static bool read_length(const char *value, size_t length, size_t *out)
{
    size_t n = 0;
    if (length == 0 || length > 9)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return false;
        n = n * 10 + (size_t) (value[i] - '0');
    }
    *out = n;
    return true;
}

/* One header line, NUL-terminated. */
static int read_header(const char *line, const struct bridge_request *r, struct head *h, struct fault *f)
{
    if (strncasecmp(line, "transfer-encoding:", 18) == 0)
        return bad_head(r, "its answer is in chunks", f);
    if (strncasecmp(line, "content-length:", 15) != 0)
        return 0;
    const char *value = line + 15 + strspn(line + 15, " \t");
    if (h->has_content_length || !read_length(value, strcspn(value, " \t"), &h->content_length))
        return bad_head(r, "the length of its answer makes no sense", f);
    h->has_content_length = true;
    return 0;
}

/* Cuts the head into lines in place. */
static int read_lines(const struct bridge_request *r, struct head *h, struct fault *f)
{
    const char *s = h->data;
    if (strncmp(s, "HTTP/1.", 7) != 0 || strspn(s + 7, "01") != 1 || s[8] != ' ' || strspn(s + 9, "0123456789") != 3)
        return bad_head(r, "no HTTP status line", f);
    h->status = (unsigned) ((s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0'));
    char *line = strstr(h->data, "\r\n") + 2;
    while (*line != '\r') {
        char *end = strstr(line, "\r\n");
        *end = '\0';
        if (read_header(line, r, h, f) < 0)
            return -1;
        line = end + 2;
    }
    if (!h->has_content_length)
        return bad_head(r, "its answer has no length", f);
    if (h->content_length > BRIDGE_REPLY_MAX)
        return fault_set(f, FAULT_EIO, "the answer of smapid at %s is of %zu bytes, more than %lu", r->conf->socket,
                         h->content_length, BRIDGE_REPLY_MAX);
    return 0;
}

static int receive_head(int fd, const struct bridge_request *r, struct head *h, struct fault *f)
{
    for (;;) {
        h->data[h->received] = '\0';
        if (strlen(h->data) < h->received && !strstr(h->data, "\r\n\r\n"))
            return bad_head(r, "a NUL in its head", f);
        const char *end = strstr(h->data, "\r\n\r\n");
        if (end) {
            h->length = (size_t) (end - h->data) + 4;
            return read_lines(r, h, f);
        }
        if (h->received >= 5 && strncmp(h->data, "HTTP/", 5) != 0)
            return bad_head(r, "no HTTP status line", f);
        if (h->received == HEAD_MAX)
            return bad_head(r, "its head has no end", f);
        size_t got;
        if (receive(fd, h->data + h->received, HEAD_MAX - h->received, r, &got, f) < 0)
            return -1;
        h->received += got;
    }
}

static int receive_body(int fd, const struct bridge_request *r, const struct head *h, char **out, struct fault *f)
{
    AUTO_FREE char *body = malloc(h->content_length + 1);
    if (!body)
        return fault_errno(f, FAULT_EIO, "keep an answer of %zu bytes", h->content_length);
    size_t have = h->received - h->length;
    if (have > h->content_length)
        return bad_head(r, "its answer is longer than it says", f);
    memcpy(body, h->data + h->length, have);
    while (have < h->content_length) {
        size_t got;
        if (receive(fd, body + have, h->content_length - have, r, &got, f) < 0)
            return -1;
        have += got;
    }
    body[have] = '\0';
    *out = TAKE(body);
    return 0;
}

static int check_answer(const struct bridge_request *r, const struct head *h, const char *body, struct fault *f)
{
    assert(body);
    if (h->status != 200)
        return fault_set(f, h->status / 100 == 4 ? FAULT_BadRequest : FAULT_EIO, "smapid at %s answers HTTP %u: %.*s",
                         r->conf->socket, h->status, (int) strcspn(body, "\r\n"), body);
    if (strncmp(body, "<?xml", 5) != 0)
        return bad_head(r, "its answer is no XML document", f);
    return 0;
}

int bridge_post(const struct bridge_request *r, char **out, size_t *out_length, struct fault *f)
{
    AUTO_FD int fd = -1;
    static struct head head; /* pages of zeros cost nothing until they are touched */
    AUTO_FREE char *body = NULL;
    head.received = 0;
    head.has_content_length = false;
    if (connect_daemon(r, &fd, f) < 0 || send_call(fd, r, f) < 0 || receive_head(fd, r, &head, f) < 0 ||
        receive_body(fd, r, &head, &body, f) < 0 || check_answer(r, &head, body, f) < 0)
        return -1;
    *out = TAKE(body);
    *out_length = head.content_length;
    return 0;
}
