/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/nfs.h"

#include "server/base/cmd.h"
#include "server/base/text.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

enum { MOUNT_SECONDS = 45, EXPORTS_SECONDS = 10, REACH_MILLISECONDS = 5000, DOCUMENT_MAX = 128 * 1024 };

static bool is_ipv6(const char *server)
{
    return strchr(server, ':') != NULL;
}

const char *nfs_source_text(const struct nfs_source *s, struct arena *a)
{
    return is_ipv6(s->server) ? arena_printf(a, "[%s]:%s", s->server, s->path)
                              : arena_printf(a, "%s:%s", s->server, s->path);
}

/* ------------------------------------------------------------------ mount.nfs */

/* Nothing on an SR is a device or a program. What the directory holds is asked of the server each time, as other hosts
   change it too. A soft mount's errors come after timeo × retrans; a hard one asks again as often, for ever. retry=0:
   mount.nfs itself gives up at the first failure, whoever called may try again. */
static const char *mount_options(const struct nfs_source *s, struct arena *a)
{
    return arena_printf(a,
                        "%s,proto=%s,vers=%s,acdirmin=0,acdirmax=0,timeo=%d,retrans=%d,retry=0,nosuid,nodev,noexec%s%s",
                        s->hard ? "hard" : "soft", is_ipv6(s->server) ? "tcp6" : "tcp", s->version, s->hard ? 100 : 50,
                        s->hard ? 2 : 3, s->options[0] ? "," : "", s->options);
}

/* What mount.nfs says, and what that means. The first that fits decides. */
static const struct reason {
    const char *said;
    enum fault_code code;
} reasons[] = {
    {"requested NFS version or transport protocol is not supported", FAULT_NFSVersion},
    {"Protocol not supported", FAULT_NFSVersion},
    {"Failed to resolve server", FAULT_DNSError},
    {"Connection refused", FAULT_NFSTarget},
    {"Connection timed out", FAULT_NFSTarget},
    {"No route to host", FAULT_NFSTarget},
    {"Network is unreachable", FAULT_NFSTarget},
    {"No such file or directory", FAULT_ConfigServerPathBad},
    {"Not a directory", FAULT_ConfigServerPathBad},
};

static enum fault_code reason_of(const struct cmd_result *r)
{
    for (size_t i = 0; i < COUNT_OF(reasons) && !r->timed_out; i++)
        if (strstr(r->err, reasons[i].said))
            return reasons[i].code;
    return FAULT_NFSMount;
}

int nfs_mount(const struct nfs_source *s, const char *path, struct arena *a, struct fault *f)
{
    const char *source = nfs_source_text(s, a);
    const char *const argv[] = {"/sbin/mount.nfs", source, path, "-o", mount_options(s, a), NULL};
    const struct cmd cmd = {.argv = argv, .seconds = MOUNT_SECONDS, .hold = s->hold};
    struct cmd_result r;
    if (cmd_run(&cmd, a, &r, f) < 0)
        return -1;
    if (r.status == 0)
        return 0;
    return fault_set(f, reason_of(&r), "mount %.200s: %.400s", source, cmd_failure(&cmd, &r, a));
}

/* ------------------------------------------------------------------ showmount */

/* One line "path client,client": the path may hold blanks, the clients never do. */
static void export_to(struct text *xml, const char *server, const char *line, size_t length, struct arena *a)
{
    const char *text = arena_copy(a, line, length);
    const char *clients = strrchr(text, ' ');
    if (!clients || text[0] != '/')
        return;
    size_t end = (size_t) (clients - text);
    while (end > 0 && text[end - 1] == ' ')
        end--;
    text_add(xml, "\t<Export>\n\t\t<Target>");
    text_add_xml(xml, server);
    text_add(xml, "</Target>\n\t\t<Path>");
    text_add_xml(xml, arena_copy(a, text, end));
    text_add(xml, "</Path>\n\t\t<Accesslist>");
    text_add_xml(xml, clients + 1);
    text_add(xml, "</Accesslist>\n\t</Export>\n");
}

static const char *exports_xml(const char *server, const char *listed, struct arena *a)
{
    AUTO_TEXT struct text xml = TEXT_OF(DOCUMENT_MAX);
    text_add(&xml, "<?xml version=\"1.0\" ?>\n<nfs-exports>\n");
    for (const char *line = listed; *line && xml.length < DOCUMENT_MAX - 16384;) {
        size_t length = strcspn(line, "\n");
        if (length < 4096)
            export_to(&xml, server, line, length, a);
        line += length + (line[length] == '\n');
    }
    text_add(&xml, "</nfs-exports>\n");
    return arena_copy(a, xml.data, xml.length);
}

const char *nfs_exports(const char *server, struct arena *a)
{
    const char *const argv[] = {"/sbin/showmount", "--no-headers", "--exports", server, NULL};
    const struct cmd cmd = {.argv = argv, .seconds = EXPORTS_SECONDS, .hold = -1};
    struct cmd_result r;
    struct fault ignored;
    if (cmd_run(&cmd, a, &r, &ignored) < 0 || r.status != 0)
        return NULL;
    return exports_xml(server, r.out, a);
}

/* ------------------------------------------------------------------ the server's port */

/* 0, or an errno. */
static int reach_address(const struct addrinfo *at)
{
    int error = 0;
    socklen_t size = sizeof error;
    AUTO_FD int fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
    if (fd < 0)
        return errno;
    if (connect(fd, at->ai_addr, at->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    struct pollfd waits = {.fd = fd, .events = POLLOUT};
    if (poll(&waits, 1, REACH_MILLISECONDS) <= 0)
        return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

int nfs_reach(const char *server, struct fault *f)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int failed = getaddrinfo(server, "2049", &hints, &list);
    if (failed)
        return fault_set(f, FAULT_DNSError, "server %.200s: %s", server, gai_strerror(failed));
    int error = ENOENT, tried = 0;
    for (const struct addrinfo *at = list; at && error && tried < 4; at = at->ai_next, tried++)
        error = reach_address(at);
    freeaddrinfo(list);
    if (!error)
        return 0;
    errno = error;
    return fault_errno(f, FAULT_NFSTarget, "connect to port 2049 of server %.200s", server);
}
