/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/dm.h"

#include "server/base/cmd.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/sysmacros.h>
#include <time.h>

#define CONTROL      "/dev/mapper/control"
#define REMOVE_TRIES 60 /* udev may look at a device that was just closed */
#define REMOVE_PAUSE 50000000L
#define TELL_MAX     64

/* As libdevmapper and the rules it brings for udev have them. */
#define COOKIE_MAGIC        0x0d4dU
#define DM_UDEV_FLAGS_SHIFT 16
#define PRIMARY_SOURCE      0x0040U
#define COOKIE_TRIES        64
#define COOKIE_SECONDS      10

static bool has_control(void)
{
    AUTO_FD int fd = open(CONTROL, O_RDWR | O_CLOEXEC);
    return fd >= 0;
}

/* Once in the life of the process. */
static void load_module(void)
{
    static const char *const argv[] = {"/sbin/modprobe", "--quiet", "dm-mod", NULL};
    static atomic_flag tried = ATOMIC_FLAG_INIT;
    const struct cmd cmd = {.argv = argv, .seconds = 20, .hold = -1};
    struct cmd_result ignored;
    struct fault none;
    AUTO_ARENA struct arena *a = arena_new(1U << 20);
    if (!atomic_flag_test_and_set(&tried))
        cmd_run(&cmd, a, &ignored, &none);
}

bool dm_available(void)
{
    if (!has_control())
        load_module();
    return has_control();
}

void dm_uuid(char out[DM_UUID_SIZE], const char *vg_uuid, const char *lv_uuid)
{
    const char *const parts[] = {"LVM-", vg_uuid, lv_uuid};
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        for (const char *c = parts[i]; *c && n + 1 < DM_UUID_SIZE; c++)
            if (*c != '-' || i == 0)
                out[n++] = *c;
    out[n] = '\0';
}

static dev_t decoded(uint64_t dev)
{
    return makedev((unsigned) ((dev >> 8) & 0xfff), (unsigned) ((dev & 0xff) | ((dev >> 12) & 0xfff00)));
}

/* One request about one device. 1: done; 0: there is no such device, or no device-mapper; -1 with errno. */
static int request(unsigned long what, const char *uuid, uint32_t event, struct dm_ioctl *io)
{
    AUTO_FD int fd = open(CONTROL, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ENODEV || errno == ENXIO ? 0 : -1;
    *io = (struct dm_ioctl){
        .version = {DM_VERSION_MAJOR, 0, 0}, .data_size = sizeof *io, .data_start = sizeof *io, .event_nr = event};
    snprintf(io->uuid, sizeof io->uuid, "%s", uuid);
    if (ioctl(fd, what, io) == 0)
        return 1;
    return errno == ENXIO ? 0 : -1;
}

int dm_find(const char *uuid, struct dm_device *out, struct fault *f)
{
    struct dm_ioctl io;
    int r = request(DM_DEV_STATUS, uuid, 0, &io);
    if (r < 0)
        return fault_errno(f, FAULT_EIO, "ask device-mapper for %s", uuid);
    if (r > 0)
        *out = (struct dm_device){.number = decoded(io.dev),
                                  .open = io.open_count < 0 ? 0U : (unsigned) io.open_count,
                                  .suspended = io.flags & DM_SUSPEND_FLAG};
    return r;
}

/* ------------------------------------------------------------------ waiting for udev */

/* udevd tells by a semaphore, whose key is in the device's event, that it is done with it: then all links are gone, and
   none of them can be mistaken for one of the device's next life. */
struct cookie {
    int semaphore; /* -1: nobody would tell */
    uint32_t number;
};

static bool udev_runs(void)
{
    return access("/run/udev/control", F_OK) == 0;
}

static struct cookie cookie_new(void)
{
    struct cookie c = {.semaphore = -1};
    for (int i = 0; i < COOKIE_TRIES && c.semaphore < 0 && udev_runs(); i++) {
        uint16_t number;
        if (getrandom(&number, sizeof number, 0) != sizeof number || number == 0)
            continue;
        c.number = number;
        c.semaphore =
            semget((key_t) ((uint32_t) COOKIE_MAGIC << DM_UDEV_FLAGS_SHIFT | number), 1, IPC_CREAT | IPC_EXCL | 0600);
    }
    if (c.semaphore >= 0 && semctl(c.semaphore, 0, SETVAL, 1) < 0) {
        semctl(c.semaphore, 0, IPC_RMID);
        c.semaphore = -1;
    }
    return c;
}

/* Until the event is done with, or for some seconds. */
static void cookie_wait(const struct cookie *c)
{
    const struct timespec limit = {.tv_sec = COOKIE_SECONDS};
    struct sembuf zero = {.sem_num = 0};
    while (semtimedop(c->semaphore, &zero, 1, &limit) < 0 && errno == EINTR)
        ;
}

static void cookie_free(const struct cookie *c)
{
    if (c->semaphore >= 0)
        semctl(c->semaphore, 0, IPC_RMID);
}
#define AUTO_COOKIE __attribute__((cleanup(cookie_free)))

int dm_remove(const char *uuid, struct fault *f)
{
    struct dm_ioctl io;
    const struct timespec pause = {.tv_nsec = REMOVE_PAUSE};
    AUTO_COOKIE const struct cookie cookie = cookie_new();
    uint32_t event = cookie.semaphore < 0 ? 0 : cookie.number | PRIMARY_SOURCE << DM_UDEV_FLAGS_SHIFT;
    int r = request(DM_DEV_REMOVE, uuid, event, &io);
    for (int i = 0; r < 0 && errno == EBUSY && i < REMOVE_TRIES; i++) {
        nanosleep(&pause, NULL);
        r = request(DM_DEV_REMOVE, uuid, event, &io);
    }
    if (r < 0)
        return fault_errno(f, errno == EBUSY ? FAULT_VDIInUse : FAULT_EIO, "remove device %s", uuid);
    if (r > 0 && event && io.flags & DM_UEVENT_GENERATED_FLAG)
        cookie_wait(&cookie);
    return 0;
}

/* ------------------------------------------------------------------ messages */

int dm_tell(const char *uuid, const char *text, struct fault *f)
{
    enum { HEAD = sizeof(struct dm_ioctl) + sizeof(struct dm_target_msg) }; /* whose sector is zero */
    union {
        struct dm_ioctl io;
        char bytes[HEAD + TELL_MAX];
    } m = {.io = {.version = {DM_VERSION_MAJOR, 0, 0}, .data_size = sizeof m, .data_start = sizeof m.io}};
    AUTO_FD int fd = open(CONTROL, O_RDWR | O_CLOEXEC);
    memset(m.bytes + sizeof m.io, 0, sizeof m - sizeof m.io);
    snprintf(m.io.uuid, sizeof m.io.uuid, "%s", uuid);
    snprintf(m.bytes + HEAD, TELL_MAX, "%s", text);
    if (fd < 0 ? errno == ENOENT || errno == ENODEV || errno == ENXIO
               : ioctl(fd, DM_TARGET_MSG, &m) == 0 || errno == ENXIO)
        return 0;
    return fault_errno(f, FAULT_EIO, "tell device %s to %s", uuid, text);
}

/* ------------------------------------------------------------------ a group */

/* "VG-LV", each with the dashes in it doubled. */
static bool is_of_group(const char *name, const char *vg)
{
    for (; *vg; vg++) {
        if (*name++ != *vg || (*vg == '-' && *name++ != '-'))
            return false;
    }
    return name[0] == '-' && name[1] != '-';
}

/* A line of a device's directory in sysfs; false when it has none. */
static bool read_line(int dir, const char *path, char *out, size_t size)
{
    AUTO_FD int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, out, size - 1);
    if (length <= 0)
        return false;
    out[length] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return true;
}

int dm_remove_group(const char *vg, struct fault *f)
{
    int failed = 0;
    AUTO_DIR DIR *entries = opendir("/sys/block");
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        char name[DM_NAME_LEN + 1], uuid[DM_UUID_SIZE], path[300];
        snprintf(path, sizeof path, "%s/dm/name", e->d_name);
        if (strncmp(e->d_name, "dm-", 3) != 0 || !read_line(dirfd(entries), path, name, sizeof name) ||
            !is_of_group(name, vg))
            continue;
        snprintf(path, sizeof path, "%s/dm/uuid", e->d_name);
        if (read_line(dirfd(entries), path, uuid, sizeof uuid) && strncmp(uuid, "LVM-", 4) == 0 &&
            dm_remove(uuid, f) < 0)
            failed = -1;
    }
    return failed;
}
