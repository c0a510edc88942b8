/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/scsi/sysfs.h"

#include "server/base/clock.h"
#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { ATTRIBUTE_MAX = 4096, SESSIONS_MAX = 1024, DISKS_MAX = 16384, SECTOR = 512, EVENT_WAIT_MS = 100 };

#define RENEW_NS (15 * INT64_C(1000000000))

const char *scsi_sysfs = "/sys";

/* ------------------------------------------------------------------ attributes */

/* The bytes of an attribute; 0 when it is not there or cannot be read. */
static size_t read_bytes(const char *path, unsigned char out[ATTRIBUTE_MAX])
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, out, ATTRIBUTE_MAX);
    return length < 0 ? 0 : (size_t) length;
}

const char *sysfs_text(struct arena *a, const char *path)
{
    unsigned char bytes[ATTRIBUTE_MAX];
    size_t length = read_bytes(path, bytes), from = 0;
    while (length && (bytes[length - 1] == '\n' || bytes[length - 1] == ' ' || bytes[length - 1] == '\0'))
        length--;
    while (from < length && bytes[from] == ' ')
        from++;
    return arena_copy(a, (const char *) bytes + from, length - from);
}

uint64_t sysfs_number(struct arena *a, const char *path)
{
    return strtoull(sysfs_text(a, path), NULL, 10);
}

static int write_text(const char *path, const char *text, struct fault *f)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || io_write(fd, text, strlen(text)) < 0)
        return fault_errno(f, FAULT_ISCSIDevice, "write %s to %s", text, path);
    return 0;
}

static DIR *list(const char *path)
{
    return opendir(path);
}

/* The number behind this prefix; false when the name is another. */
static bool numbered(const char *name, const char *prefix, unsigned *out)
{
    size_t length = strlen(prefix);
    char *end;
    if (strncmp(name, prefix, length) != 0 || name[length] < '0' || name[length] > '9')
        return false;
    unsigned long n = strtoul(name + length, &end, 10);
    *out = (unsigned) n;
    return *end == '\0' && n <= UINT_MAX;
}

/* ------------------------------------------------------------------ sessions */

static bool iface_fits(const char *iface, const char *wanted)
{
    size_t length = strlen(wanted);
    return wanted[length - 1] == '*' ? strncmp(iface, wanted, length - 1) == 0 : strcmp(iface, wanted) == 0;
}

/* /sys/class/iscsi_session/session1/device is …/host3/session1: its parent tells the host. */
static bool session_host(const char *path, unsigned *out)
{
    char real[PATH_MAX];
    if (!realpath(path, real))
        return false;
    char *slash = strrchr(real, '/');
    if (!slash)
        return false;
    *slash = '\0';
    slash = strrchr(real, '/');
    return slash && numbered(slash + 1, "host", out);
}

static void read_portal(struct arena *a, struct iscsi_session *s)
{
    const char *base = arena_printf(a, "%s/class/iscsi_connection/connection%u:0", scsi_sysfs, s->sid);
    const char *address = sysfs_text(a, arena_printf(a, "%s/persistent_address", base));
    unsigned port = (unsigned) sysfs_number(a, arena_printf(a, "%s/persistent_port", base));
    if (!portal_parse(address, port, &s->portal))
        s->portal = (struct portal){.port = 0};
}

static bool read_session(struct arena *a, unsigned sid, const char *wanted, struct iscsi_session *out)
{
    const char *base = arena_printf(a, "%s/class/iscsi_session/session%u", scsi_sysfs, sid);
    struct iscsi_session s = {.sid = sid, .iface = sysfs_text(a, arena_printf(a, "%s/ifacename", base))};
    if (!iface_fits(s.iface, wanted) || !session_host(arena_printf(a, "%s/device", base), &s.host))
        return false;
    s.target = sysfs_text(a, arena_printf(a, "%s/targetname", base));
    s.initiator = sysfs_text(a, arena_printf(a, "%s/initiatorname", base));
    s.logged_in = strcmp(sysfs_text(a, arena_printf(a, "%s/state", base)), "LOGGED_IN") == 0;
    read_portal(a, &s);
    *out = s;
    return true;
}

static int by_sid(const void *a, const void *b)
{
    const struct iscsi_session *x = a, *y = b;
    return x->sid < y->sid ? -1 : x->sid > y->sid;
}

int iscsi_sessions(const char *iface, struct arena *a, struct iscsi_session **out, size_t *count, struct fault *f)
{
    struct iscsi_session *found = ARENA_ARRAY(a, struct iscsi_session, SESSIONS_MAX);
    size_t n = 0;
    AUTO_DIR DIR *entries = list(arena_printf(a, "%s/class/iscsi_session", scsi_sysfs));
    if (!entries && errno != ENOENT)
        return fault_errno(f, FAULT_ISCSIQueryDaemon, "list the kernel's iSCSI sessions");
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < SESSIONS_MAX; e = readdir(entries)) {
        unsigned sid;
        if (numbered(e->d_name, "session", &sid) && read_session(a, sid, iface, &found[n]))
            n++;
    }
    if (n)
        qsort(found, n, sizeof *found, by_sid);
    *out = found;
    *count = n;
    return 0;
}

int iscsi_session_wait(unsigned sid, unsigned seconds, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    return write_text(arena_printf(a, "%s/class/iscsi_session/session%u/recovery_tmo", scsi_sysfs, sid),
                      arena_printf(a, "%u", seconds), f);
}

/* ------------------------------------------------------------------ identity */

static const char *hex_of(struct arena *a, char kind, const unsigned char *bytes, size_t length)
{
    char *text = arena_alloc(a, 2 * length + 2);
    text[0] = kind;
    for (size_t i = 0; i < length; i++)
        snprintf(text + 1 + 2 * i, 3, "%02x", bytes[i]);
    return text;
}

/* Text of a designator: blanks at its end go, runs within become "_", as udev and scsi_id write them. */
static const char *text_of(struct arena *a, char kind, const unsigned char *bytes, size_t length)
{
    char *text = arena_alloc(a, length + 2);
    size_t n = 0;
    text[n++] = kind;
    while (length && (bytes[length - 1] == ' ' || bytes[length - 1] == '\0'))
        length--;
    for (size_t i = 0; i < length; i++) {
        bool blank = bytes[i] <= ' ' || bytes[i] > '~';
        if (blank && n > 1 && text[n - 1] == '_')
            continue;
        text[n++] = blank || bytes[i] == '/' ? '_' : (char) bytes[i];
    }
    text[n] = '\0';
    return n > 1 ? text : "";
}

/* How much a designator is to be preferred, 0 for none of use: NAA of 16 bytes, NAA of 8, EUI-64, T10 vendor. */
static int rank(const unsigned char *d, size_t length)
{
    unsigned association = d[1] >> 4 & 3U, type = d[1] & 15U, naa = length ? d[4] >> 4 : 0;
    if (association != 0 || length == 0)
        return 0;
    if (type == 3)
        return naa == 6 && length == 16 ? 4 : length == 8 ? 3 : 0;
    return type == 2 ? 2 : type == 1 ? 1 : 0;
}

const char *scsi_id_of_page(const unsigned char *page, size_t length, struct arena *a)
{
    const unsigned char *best = NULL;
    size_t end = length >= 4 ? 4U + ((size_t) page[2] << 8 | page[3]) : 0;
    if (length < 4 || page[1] != 0x83)
        return "";
    if (end > length)
        end = length;
    for (size_t at = 4; at + 4 <= end && at + 4U + page[at + 3] <= end; at += 4U + page[at + 3])
        if (rank(page + at, page[at + 3]) > (best ? rank(best, best[3]) : 0))
            best = page + at;
    if (!best)
        return "";
    unsigned type = best[1] & 15U;
    return type == 1 ? text_of(a, '1', best + 4, best[3]) : hex_of(a, type == 3 ? '3' : '2', best + 4, best[3]);
}

/* ------------------------------------------------------------------ disks */

/* The name of the block device of a SCSI device directory; "" when it has none yet. */
static const char *block_name(struct arena *a, const char *device)
{
    AUTO_DIR DIR *entries = list(arena_printf(a, "%s/block", device));
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries))
        if (e->d_name[0] != '.')
            return arena_text(a, e->d_name);
    return "";
}

/* device: a directory named H:C:T:L. False when it is no disk. */
static bool read_disk(struct arena *a, const char *device, struct scsi_disk *out)
{
    unsigned char page[ATTRIBUTE_MAX];
    const char *slash = strrchr(device, '/');
    struct scsi_disk d = {0};
    if (sscanf(slash ? slash + 1 : device, "%u:%*u:%*u:%" SCNu64, &d.host, &d.lun) != 2 ||
        strcmp(sysfs_text(a, arena_printf(a, "%s/type", device)), "0") != 0)
        return false;
    d.name = block_name(a, device);
    d.vendor = sysfs_text(a, arena_printf(a, "%s/vendor", device));
    d.id = scsi_id_of_page(page, read_bytes(arena_printf(a, "%s/vpd_pg83", device), page), a);
    size_t length = read_bytes(arena_printf(a, "%s/vpd_pg80", device), page);
    d.serial = length > 4 ? text_of(a, ' ', page + 4, length - 4) + 1 : "";
    d.size = d.name[0] ? sysfs_number(a, arena_printf(a, "%s/block/%s/size", device, d.name)) * SECTOR : 0;
    *out = d;
    return true;
}

static int by_lun(const void *a, const void *b)
{
    const struct scsi_disk *x = a, *y = b;
    return x->lun < y->lun ? -1 : x->lun > y->lun;
}

int scsi_disks(unsigned host, struct arena *a, struct scsi_disk **out, size_t *count, struct fault *f)
{
    const char *base = arena_printf(a, "%s/bus/scsi/devices", scsi_sysfs);
    const char *prefix = arena_printf(a, "%u:", host);
    size_t n = 0, room = 0;
    struct scsi_disk *found = NULL;
    AUTO_DIR DIR *entries = list(base);
    if (!entries && errno != ENOENT)
        return fault_errno(f, FAULT_ISCSIDevice, "list the kernel's SCSI devices");
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < DISKS_MAX; e = readdir(entries)) {
        if (strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        found = arena_grown(a, found, n, &room, sizeof *found);
        if (read_disk(a, arena_printf(a, "%s/%s", base, e->d_name), &found[n]))
            n++;
    }
    if (n)
        qsort(found, n, sizeof *found, by_lun);
    *out = found;
    *count = n;
    return 0;
}

/* The name a block device of this path has in the kernel; NULL when there is none. */
static const char *kernel_name(struct arena *a, const char *path)
{
    char real[PATH_MAX];
    if (!realpath(path, real) || strncmp(real, "/dev/", 5) != 0)
        return NULL;
    return arena_text(a, real + 5);
}

static bool disk_named(const char *name, struct arena *a, struct scsi_disk *out)
{
    char real[PATH_MAX];
    return realpath(arena_printf(a, "%s/class/block/%s/device", scsi_sysfs, name), real) && read_disk(a, real, out);
}

bool scsi_disk_at(const char *path, struct arena *a, struct scsi_disk *out)
{
    const char **names;
    size_t count;
    struct fault ignored;
    return scsi_paths(path, a, &names, &count, &ignored) == 0 && disk_named(names[0], a, out);
}

bool scsi_disk_ready(const struct scsi_disk *disk)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    unsigned wanted_major, wanted_minor;
    struct stat st;
    if (!disk->name[0] || !disk->size)
        return false;
    AUTO_FD int fd = open(arena_printf(a, "/dev/%s", disk->name), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    const char *number = sysfs_text(a, arena_printf(a, "%s/class/block/%s/dev", scsi_sysfs, disk->name));
    return fd >= 0 && fstat(fd, &st) == 0 && sscanf(number, "%u:%u", &wanted_major, &wanted_minor) == 2 &&
           major(st.st_rdev) == wanted_major && minor(st.st_rdev) == wanted_minor;
}

int scsi_paths(const char *path, struct arena *a, const char ***out, size_t *count, struct fault *f)
{
    const char *name = kernel_name(a, path);
    struct scsi_disk disk;
    size_t n = 0;
    if (!name)
        return fault_errno(f, FAULT_ISCSIDevice, "find block device %s", path);
    const char **names = ARENA_ARRAY(a, const char *, SESSIONS_MAX);
    AUTO_DIR DIR *entries = list(arena_printf(a, "%s/class/block/%s/slaves", scsi_sysfs, name));
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && n < SESSIONS_MAX; e = readdir(entries))
        if (e->d_name[0] != '.')
            names[n++] = arena_text(a, e->d_name);
    if (n == 0)
        names[n++] = name;
    for (size_t i = 0; i < n; i++)
        if (!disk_named(names[i], a, &disk))
            return fault_set(f, FAULT_ISCSIDevice, "%s, beneath %s, is no SCSI disk", names[i], path);
    *out = names;
    *count = n;
    return 0;
}

/* ------------------------------------------------------------------ changes */

int scsi_scan(unsigned host, const char *lun, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    return write_text(arena_printf(a, "%s/class/scsi_host/host%u/scan", scsi_sysfs, host),
                      arena_printf(a, "- - %s", lun), f);
}

int scsi_forget(const struct scsi_disk *disk, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    const char *path =
        arena_printf(a, "%s/bus/scsi/devices/%u:0:0:%" PRIu64 "/delete", scsi_sysfs, disk->host, disk->lun);
    return write_text(path, "1", f) < 0 && errno != ENOENT && errno != ENODEV ? -1 : 0;
}

/* The disk's device as it is now; "" while it has none. */
static const char *name_now(const struct scsi_disk *disk, struct arena *a)
{
    struct scsi_disk *disks;
    size_t count;
    struct fault ignored;
    if (scsi_disks(disk->host, a, &disks, &count, &ignored) < 0)
        return "";
    for (size_t i = 0; i < count; i++)
        if (disks[i].lun == disk->lun && strcmp(disks[i].id, disk->id) == 0 && scsi_disk_ready(&disks[i]))
            return disks[i].name;
    return "";
}

int scsi_renew(const struct scsi_disk *disk, struct arena *a, const char **name, struct fault *f)
{
    AUTO_FD int events = scsi_events_open();
    int64_t until = clock_boot_ns() + RENEW_NS;
    if (scsi_forget(disk, f) < 0 || scsi_scan(disk->host, arena_printf(a, "%" PRIu64, disk->lun), f) < 0)
        return -1;
    while (!(*name = name_now(disk, a))[0]) {
        if (clock_boot_ns() >= until)
            return fault_set(f, FAULT_ISCSIDevice, "LUN %" PRIu64 ", %s, is not found again after 15 s", disk->lun,
                             disk->id);
        scsi_events_wait(events, until);
    }
    return 0;
}

int scsi_rescan(const char *name, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(1 << 20);
    return write_text(arena_printf(a, "%s/class/block/%s/device/rescan", scsi_sysfs, name), "1", f);
}

/* ------------------------------------------------------------------ events */

int scsi_events_open(void)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1U | 2U}; /* the kernel's, udev's */
    AUTO_FD int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || bind(fd, (const struct sockaddr *) &address, sizeof address) < 0)
        return -1;
    return TAKE_FD(fd);
}

void scsi_events_wait(int events, int64_t deadline_ns)
{
    char event[8192];
    struct pollfd watched = {.fd = events, .events = POLLIN};
    int64_t left_ms = (deadline_ns - clock_boot_ns()) / 1000000;
    if (left_ms <= 0)
        return;
    poll(&watched, events >= 0, left_ms < EVENT_WAIT_MS ? (int) left_ms : EVENT_WAIT_MS);
    while (events >= 0 && recv(events, event, sizeof event, 0) > 0)
        ;
}
