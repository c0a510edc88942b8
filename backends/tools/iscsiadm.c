/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/iscsiadm.h"

#include "backends/directory.h"
#include "backends/scsi/name.h"
#include "backends/scsi/sysfs.h"
#include "server/base/cmd.h"
#include "server/base/io.h"
#include "server/base/text.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ISCSIADM "/sbin/iscsiadm"
#define MARK     "# smapid "

enum { RECORD_MAX = 16384, OFFERS_MAX = 4096, PATHS_MAX = 4096, IFACES_MAX = 256 };
enum { DISCOVERY_SECONDS = 30, LOGIN_SECONDS = 60, LOGOUT_SECONDS = 60 };

/* What iscsiadm exits with. */
enum { EXIT_GONE = 2, EXIT_TIMEOUT = 8, EXIT_PDU_TIMEOUT = 11, EXIT_SESSION_EXISTS = 15, EXIT_DAEMON_BUSY = 18 };
enum { EXIT_FATAL_LOGIN = 19, EXIT_NO_DAEMON = 20, EXIT_NO_OBJECT = 21, EXIT_NO_SYSFS = 22, EXIT_AUTHORISATION = 24 };
enum { EXIT_LOGIN = 5, EXIT_TRANSPORT = 4 };

const char *iscsiadm_database;

/* ------------------------------------------------------------------ the database */

/* Debian has it in /etc/iscsi, Red Hat and Xen hosts in /var/lib/iscsi. */
static const char *database(void)
{
    if (iscsiadm_database)
        return iscsiadm_database;
    return access("/var/lib/iscsi", F_OK) == 0 ? "/var/lib/iscsi" : "/etc/iscsi";
}

static const char *iface_path(struct arena *a, const char *iface)
{
    return arena_printf(a, "%s/ifaces/%s", database(), iface);
}

static const char *portal_directory(struct arena *a, const struct portal *p)
{
    char address[ADDRESS_TEXT];
    portal_address(p, address);
    return arena_printf(a, "%s,%u", address, p->port);
}

static int make_directories(struct arena *a, const char *path)
{
    for (const char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        const char *part = slash ? arena_copy(a, path, (size_t) (slash - path)) : path;
        if (mkdir(part, 0700) < 0 && errno != EEXIST)
            return -1;
        if (!slash)
            return 0;
    }
}

/* A record nobody else may read, at once whole as far as any reader sees: iscsiadm reads it only when told. */
static int write_record(struct arena *a, const char *directory, const char *name, const char *text)
{
    const char *path = arena_printf(a, "%s/%s", directory, name);
    if (make_directories(a, directory) < 0 || (unlink(path) < 0 && errno != ENOENT))
        return -1;
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 || io_write(fd, text, strlen(text)) < 0 ? -1 : 0;
}

/* A line "key = value" that cannot become two. */
static int bad_line(const char *what, const char *value, struct fault *f)
{
    for (const char *c = value ? value : ""; *c; c++)
        if ((unsigned char) *c < 0x20 || *c == 0x7f)
            return fault_set(f, FAULT_BadCharacter, "%s holds a control character", what);
    if (value && strlen(value) > 255)
        return fault_set(f, FAULT_BadCharacter, "%s has more than 255 bytes", what);
    return 0;
}

static int check_texts(const struct iscsi_initiator *who, struct fault *f)
{
    if (bad_line("chapuser", who->user, f) < 0 || bad_line("chappassword", secret_reveal(who->password), f) < 0)
        return -1;
    if (bad_line("incoming_chapuser", who->user_in, f) < 0)
        return -1;
    return bad_line("incoming_chappassword", secret_reveal(who->password_in), f);
}

static void add_chap(struct text *t, const char *prefix, const struct iscsi_initiator *who)
{
    const char *password = secret_reveal(who->password), *password_in = secret_reveal(who->password_in);
    if (!who->user || !password)
        return;
    text_printf(t, "%s.auth.authmethod = CHAP\n%s.auth.username = %s\n%s.auth.password = %s\n", prefix, prefix,
                who->user, prefix, password);
    if (who->user_in && password_in)
        text_printf(t, "%s.auth.username_in = %s\n%s.auth.password_in = %s\n", prefix, who->user_in, prefix,
                    password_in);
}

static void add_iface(struct text *t, const struct iscsi_initiator *who)
{
    text_printf(t, "iface.iscsi_ifacename = %s\niface.transport_name = tcp\n", who->iface);
    if (who->name)
        text_printf(t, "iface.initiatorname = %s\n", who->name);
}

/* Texts with passwords in them live no longer than needed. */
static void forget(struct text *t)
{
    if (t->data)
        explicit_bzero(t->data, t->length);
    text_free(t);
}
#define AUTO_SECRET_TEXT __attribute__((cleanup(forget)))

static void add_record(struct text *t, const struct iscsi_initiator *who, const struct iscsi_offer *offer)
{
    char address[ADDRESS_TEXT];
    portal_address(&offer->portal, address);
    text_printf(t, "node.name = %s\nnode.tpgt = %u\nnode.startup = manual\nnode.conn[0].startup = manual\n",
                offer->target, offer->group);
    text_printf(t, "node.conn[0].address = %s\nnode.conn[0].port = %u\n", address, offer->portal.port);
    /* LUNs are asked for one by one; a refused login is told at once and not tried for minutes. */
    text_add(t, "node.session.scan = manual\nnode.session.initial_login_retry_max = 1\n");
    text_printf(t, "node.session.timeo.replacement_timeout = %d\n", ISCSI_IMPATIENT);
    add_iface(t, who);
    add_chap(t, "node.session", who);
}

const char *iscsiadm_record(const struct iscsi_initiator *who, const struct iscsi_offer *offer, struct arena *a)
{
    AUTO_SECRET_TEXT struct text t = TEXT_OF(RECORD_MAX);
    add_record(&t, who, offer);
    return arena_text(a, t.data);
}

int iscsiadm_begin(const struct iscsi_initiator *who, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    AUTO_TEXT struct text t = TEXT_OF(RECORD_MAX);
    if (check_texts(who, f) < 0)
        return -1;
    add_iface(&t, who);
    const char *directory = arena_printf(a, "%s/ifaces", database());
    if (write_record(a, directory, who->iface, t.data) < 0)
        return fault_errno(f, FAULT_ISCSIInitiator, "write interface record %s/%s", directory, who->iface);
    return 0;
}

int iscsiadm_add(const struct iscsi_initiator *who, const struct iscsi_offer *offer, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    AUTO_SECRET_TEXT struct text t = TEXT_OF(RECORD_MAX);
    if (check_texts(who, f) < 0)
        return -1;
    add_record(&t, who, offer);
    const char *directory = arena_printf(a, "%s/nodes/%s/%s,%u", database(), offer->target,
                                         portal_directory(a, &offer->portal), offer->group);
    if (write_record(a, directory, who->iface, t.data) < 0)
        return fault_errno(f, FAULT_ISCSILogin, "write node record %s/%s", directory, who->iface);
    return 0;
}

/* ------------------------------------------------------------------ discovery */

/* CHAP at discovery takes a record of the portal. One that is there is the administrator's, and says how. */
static int write_discovery(struct arena *a, const struct iscsi_initiator *who, const struct portal *portal,
                           const char **written, struct fault *f)
{
    AUTO_SECRET_TEXT struct text t = TEXT_OF(RECORD_MAX);
    char address[ADDRESS_TEXT];
    const char *directory = arena_printf(a, "%s/send_targets/%s", database(), portal_directory(a, portal));
    *written = NULL;
    if (!who->user || access(arena_printf(a, "%s/st_config", directory), F_OK) == 0)
        return 0;
    portal_address(portal, address);
    text_printf(&t, MARK "%s\ndiscovery.startup = manual\ndiscovery.type = sendtargets\n", who->iface);
    text_printf(&t, "discovery.sendtargets.address = %s\ndiscovery.sendtargets.port = %u\n", address, portal->port);
    add_chap(&t, "discovery.sendtargets", who);
    *written = directory;
    if (write_record(a, directory, "st_config", t.data) < 0)
        return fault_errno(f, FAULT_ISCSIDiscovery, "write discovery record %s", directory);
    return 0;
}

static void remove_discovery(struct arena *a, const char *directory)
{
    if (!directory)
        return;
    unlink(arena_printf(a, "%s/st_config", directory));
    rmdir(directory);
}

/* iscsiadm ends with the same number when nothing is offered, when iscsid does not run, and when the kernel has no
   iSCSI; only its words tell them apart. */
static bool offers_nothing(const struct cmd_result *r)
{
    return r->status == EXIT_NO_OBJECT && strstr(r->err, "No portals found");
}

static enum fault_code discovery_fault(const struct cmd_result *r)
{
    switch (r->status) {
    case EXIT_NO_OBJECT:
        return strstr(r->err, "iscsid is not running") ? FAULT_ISCSIDaemon : FAULT_ISCSIQueryDaemon;
    case EXIT_AUTHORISATION:
    case EXIT_FATAL_LOGIN:
        return FAULT_ISCSILogin;
    case EXIT_NO_DAEMON:
        return FAULT_ISCSIDaemon;
    case EXIT_TRANSPORT:
    case EXIT_TIMEOUT:
    case EXIT_PDU_TIMEOUT:
        return FAULT_ISCSITarget;
    default:
        return FAULT_ISCSIDiscovery;
    }
}

/* "10.0.0.1:3260,1 iqn.…" or "[fd00::1]:3260,1 iqn.…". */
static bool parse_offer(const char *line, size_t length, struct arena *a, struct iscsi_offer *out)
{
    char host[ADDRESS_NAME + 1];
    const char *blank = memchr(line, ' ', length), *comma = memchr(line, ',', length);
    if (!blank || !comma || comma > blank)
        return false;
    unsigned port = ISCSI_PORT;
    struct iscsi_offer offer = {.group = (unsigned) strtoul(comma + 1, NULL, 10)};
    if (!portal_split(line, (size_t) (comma - line), host, &port) || !portal_parse(host, port, &offer.portal))
        return false;
    offer.target = arena_copy(a, blank + 1, length - (size_t) (blank + 1 - line));
    if (iscsi_name_bad(offer.target))
        return false;
    *out = offer;
    return true;
}

size_t iscsiadm_parse_offers(const char *text, struct arena *a, struct iscsi_offer **out)
{
    size_t lines = 1, n = 0;
    for (const char *c = text; *c; c++)
        lines += *c == '\n';
    if (lines > OFFERS_MAX)
        lines = OFFERS_MAX;
    struct iscsi_offer *offers = ARENA_ARRAY(a, struct iscsi_offer, lines);
    for (const char *line = text; *line && n < lines;) {
        size_t length = strcspn(line, "\n");
        if (parse_offer(line, length, a, &offers[n]))
            n++;
        line += length + (line[length] == '\n');
    }
    *out = offers;
    return n;
}

int iscsiadm_discover(const struct iscsi_initiator *who, const struct portal *portal, struct arena *a,
                      struct iscsi_offer **out, size_t *count, struct fault *f)
{
    char where[PORTAL_TEXT];
    const char *record;
    struct cmd_result r = {0};
    portal_text(portal, where);
    const char *const argv[] = {ISCSIADM,   "-m", "discoverydb",   "-t", "sendtargets", "-p", where, "-I",
                                who->iface, "-o", "nonpersistent", "-D", NULL};
    const struct cmd cmd = {.argv = argv, .seconds = DISCOVERY_SECONDS, .hold = who->hold};
    if (write_discovery(a, who, portal, &record, f) < 0) {
        remove_discovery(a, record);
        return -1;
    }
    int failed = cmd_run(&cmd, a, &r, f);
    remove_discovery(a, record);
    if (failed)
        return -1;
    if (offers_nothing(&r)) {
        *count = 0;
        return 0;
    }
    if (r.status)
        return fault_set(f, discovery_fault(&r), "ask portal %s for its targets: %s", where, cmd_failure(&cmd, &r, a));
    *count = iscsiadm_parse_offers(r.out, a, out);
    return 0;
}

/* ------------------------------------------------------------------ sessions */

static enum fault_code login_fault(int status)
{
    switch (status) {
    case EXIT_NO_DAEMON:
        return FAULT_ISCSIDaemon;
    case EXIT_TRANSPORT:
    case EXIT_TIMEOUT:
    case EXIT_PDU_TIMEOUT:
        return FAULT_ISCSITarget;
    default:
        return FAULT_ISCSILogin;
    }
}

int iscsiadm_login(const struct iscsi_initiator *who, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct cmd_result r = {0};
    const char *const argv[] = {ISCSIADM, "-m", "node", "-I", who->iface, "-l", NULL};
    const struct cmd cmd = {.argv = argv, .seconds = LOGIN_SECONDS, .hold = who->hold};
    if (cmd_run(&cmd, a, &r, f) < 0)
        return -1;
    if (r.status == 0 || r.status == EXIT_SESSION_EXISTS)
        return 0;
    return fault_set(f, login_fault(r.status), "log in: %s", cmd_failure(&cmd, &r, a));
}

int iscsiadm_remember(const char *iface, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    const struct iscsi_initiator who = {.iface = iface, .hold = -1};
    return access(iface_path(a, iface), F_OK) == 0 ? 0 : iscsiadm_begin(&who, f);
}

int iscsiadm_logout(unsigned sid, int hold, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct cmd_result r = {0};
    const char *const argv[] = {ISCSIADM, "-m", "session", "-r", arena_printf(a, "%u", sid), "-u", NULL};
    const struct cmd cmd = {.argv = argv, .seconds = LOGOUT_SECONDS, .hold = hold};
    if (cmd_run(&cmd, a, &r, f) < 0)
        return -1;
    if (r.status == 0 || r.status == EXIT_GONE || r.status == EXIT_NO_OBJECT || r.status == EXIT_NO_SYSFS)
        return 0;
    return fault_set(f, FAULT_ISCSILogout, "end session %u: %s", sid, cmd_failure(&cmd, &r, a));
}

/* ------------------------------------------------------------------ leaving nothing behind */

typedef int visitor(struct arena *a, const char *path, const char *iface);

/* Calls visit for each entry of a directory, and goes on whatever it answers. -1 with errno when one failed. */
static int each(struct arena *a, const char *path, const char *iface, visitor *visit)
{
    int result = 0, left = PATHS_MAX;
    AUTO_DIR DIR *entries = opendir(path);
    if (!entries)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    for (const struct dirent *e = readdir(entries); e && left > 0; e = readdir(entries), left--)
        if (e->d_name[0] != '.' && visit(a, arena_printf(a, "%s/%s", path, e->d_name), iface) < 0)
            result = -1;
    return result;
}

/* Removes a directory if it is empty. */
static void tidy(const char *directory)
{
    rmdir(directory);
}

static int forget_node(struct arena *a, const char *portal, const char *iface)
{
    if (unlink(arena_printf(a, "%s/%s", portal, iface)) < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    tidy(portal);
    return 0;
}

static int forget_target(struct arena *a, const char *target, const char *iface)
{
    int result = each(a, target, iface, forget_node);
    tidy(target);
    return result;
}

/* Only a record whose first line says that it is this interface's. */
static int forget_discovery(struct arena *a, const char *directory, const char *iface)
{
    char line[256] = "";
    const char *wanted = arena_printf(a, MARK "%s\n", iface);
    AUTO_FD int fd = open(arena_printf(a, "%s/st_config", directory), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || read(fd, line, sizeof line - 1) <= 0 || strncmp(line, wanted, strlen(wanted)) != 0)
        return 0;
    remove_discovery(a, directory);
    return 0;
}

int iscsiadm_end(const char *iface, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    if (each(a, arena_printf(a, "%s/nodes", database()), iface, forget_target) < 0)
        return fault_errno(f, FAULT_ISCSIDetach, "remove node records of %s", iface);
    if (each(a, arena_printf(a, "%s/send_targets", database()), iface, forget_discovery) < 0)
        return fault_errno(f, FAULT_ISCSIDetach, "remove discovery records of %s", iface);
    if (unlink(iface_path(a, iface)) < 0 && errno != ENOENT)
        return fault_errno(f, FAULT_ISCSIDetach, "remove interface record %s", iface);
    return 0;
}

int iscsiadm_ifaces(const char *prefix, struct arena *a, const char ***out, size_t *count)
{
    size_t n = 0;
    const char **names = ARENA_ARRAY(a, const char *, IFACES_MAX);
    AUTO_DIR DIR *entries = opendir(arena_printf(a, "%s/ifaces", database()));
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < IFACES_MAX; e = readdir(entries))
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
            names[n++] = arena_text(a, e->d_name);
    *out = names;
    *count = n;
    return 0;
}

const char *iscsiadm_host_name(struct arena *a)
{
    static const char key[] = "InitiatorName=";
    char text[4096] = "";
    AUTO_FD int fd =
        open(arena_printf(a, "%s/initiatorname.iscsi", iscsiadm_database ? iscsiadm_database : "/etc/iscsi"),
             O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
        return NULL;
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, key, sizeof key - 1) != 0)
            continue;
        const char *name = line + sizeof key - 1;
        const char *value = arena_copy(a, name, strcspn(name, " \t\r\n"));
        return iscsi_name_bad(value) ? NULL : value;
    }
    return NULL;
}
