/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iso: every .iso and .img in a directory is a disk, read-only, its file's name its location. The directory is looked
   after by others; what was made here (a suspend image, by vdi_create) has a sidecar as in the file layout, can be
   written and is removed again. Names come from readdir and are compared, never built from what a caller says; they are
   opened beneath the directory and nowhere else. */
#include "backends/directory.h"
#include "backends/layouts/file.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

enum { DISCS_MAX = 100000 };

#define CREATED "created" /* in sm_config, as xapi's storage manager has it */

/* ------------------------------------------------------------------ names */

/* The length of the well-formed UTF-8 sequence at s, of at least two bytes, that XML can carry; 0 for none. */
static size_t sequence_length(const unsigned char *s)
{
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool outside = (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf4 && s[1] > 0x8f);
    bool noncharacter = s[0] == 0xef && s[1] == 0xbf && s[2] > 0xbd;
    return overlong || outside || noncharacter ? 0 : length;
}

static bool is_plain_text(const char *name)
{
    for (const unsigned char *s = (const unsigned char *) name; *s;) {
        size_t length = *s < 0x80 ? (size_t) (*s >= 0x20 && *s != 0x7f) : sequence_length(s);
        if (length == 0)
            return false;
        s += length;
    }
    return true;
}

static bool has_suffix(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && (strcasecmp(name + length - 4, ".iso") == 0 || strcasecmp(name + length - 4, ".img") == 0);
}

static bool is_disc(const char *name)
{
    return name[0] != '.' && !strchr(name, '/') && has_suffix(name) && is_plain_text(name);
}

/* Links stay inside; what is no plain file is none of ours. -1 with errno. */
static int open_disc(const struct sr *sr, const char *name, int flags, struct stat *out)
{
    struct open_how how = {.flags = (unsigned) (flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY),
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    AUTO_FD int fd = (int) syscall(SYS_openat2, sr->place.dir, name, &how, sizeof how);
    if (fd < 0 || fstat(fd, out) < 0)
        return -1;
    if (!S_ISREG(out->st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return TAKE_FD(fd);
}

/* ------------------------------------------------------------------ SR */

static int iso_sr_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f; /* no mark is left: identity is where it is */
    return 0;
}

static int iso_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f)
{
    (void) sr, (void) plan, (void) f; /* nothing was made for it */
    return 0;
}

static bool is_stray(const char *name)
{
    struct temporary t;
    return temporary_parse(name, &t) && (t.kind == TEMPORARY_NEW || t.kind == TEMPORARY_LABELS);
}

static int iso_sr_attach(struct sr *sr, struct fault *f)
{
    AUTO_DIR DIR *entries = directory_entries(sr->place.dir);
    if (!entries)
        return fault_errno(f, FAULT_SRUnavailable, "list %s", sr->place.path);
    return 0;
}

static int iso_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f)
{
    struct statvfs fs;
    if (fstatvfs(sr->place.dir, &fs) < 0)
        return fault_errno(f, FAULT_SRScan, "look at %s", sr->place.path);
    *out = (struct sr_totals){.physical_size = (uint64_t) fs.f_blocks * fs.f_frsize,
                              .physical_utilisation = (uint64_t) (fs.f_blocks - fs.f_bfree) * fs.f_frsize};
    return 0;
}

/* ------------------------------------------------------------------ scan */

static int by_location(const void *a, const void *b)
{
    const struct vdi *const *x = a, *const *y = b;
    return strcmp((*x)->location, (*y)->location);
}

/* The rows, sorted by location. */
static const struct vdi **sorted(const struct vdi_list *known, struct arena *a)
{
    const struct vdi **rows = ARENA_ARRAY(a, const struct vdi *, known->count + 1);
    for (size_t i = 0; i < known->count; i++)
        rows[i] = &known->items[i];
    if (known->count)
        qsort(rows, known->count, sizeof *rows, by_location);
    return rows;
}

static const struct vdi *row_of(const struct vdi **rows, size_t count, const char *location)
{
    const struct vdi key = {.location = location}, *wanted = &key;
    const struct vdi **found = count ? bsearch(&wanted, rows, count, sizeof *rows, by_location) : NULL;
    return found ? *found : NULL;
}

/* A name of the form "<uuid>.iso" is the uuid's. */
static struct uuid uuid_in_name(const char *name)
{
    struct uuid uuid = UUID_NONE;
    if (strlen(name) == UUID_TEXT + 4)
        uuid_parse(name, UUID_TEXT, &uuid);
    return uuid;
}

static struct vdi new_disc(const struct sr *sr, const char *name, struct arena *a)
{
    struct claim claim;
    struct vdi vdi = vdi_blank();
    struct uuid named = uuid_in_name(name);
    vdi.uuid = uuid_is(&named) ? named : uuid_random();
    vdi.location = arena_text(a, name);
    vdi.label = vdi.location;
    vdi.type = "user";
    vdi.read_only = true;
    if (uuid_is(&named))
        sidecar_read(sr->place.dir, a, &vdi, &claim);
    return vdi;
}

static void describe_size(struct vdi *vdi, const struct stat *st)
{
    vdi->state = VDI_LIVE;
    vdi->damage = "";
    vdi->size = (uint64_t) st->st_size;
    vdi->utilisation = vdi->size;
}

struct scan {
    const struct sr *sr;
    const struct vdi **rows;
    size_t row_count;
    struct arena *arena;
    struct vdi_list found;
    uint64_t sum;
};

static void scan_entry(struct scan *s, const char *name)
{
    struct stat st;
    AUTO_FD int fd = is_disc(name) ? open_disc(s->sr, name, O_RDONLY, &st) : -1;
    if (fd < 0)
        return;
    const struct vdi *row = row_of(s->rows, s->row_count, name);
    struct vdi vdi = row ? *row : new_disc(s->sr, name, s->arena);
    if (vdi.state == VDI_CREATING || vdi.state == VDI_DELETING)
        return;
    describe_size(&vdi, &st);
    s->sum += vdi.size;
    *vdi_list_add(s->arena, &s->found) = vdi;
}

static int iso_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                       struct sr_totals *totals, struct fault *f)
{
    struct scan s = {.sr = sr, .rows = sorted(known, a), .row_count = known->count, .arena = a};
    AUTO_DIR DIR *entries = directory_entries(sr->place.dir);
    if (!entries)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    errno = 0;
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries)) {
        if (s.found.count >= DISCS_MAX)
            return fault_set(f, FAULT_SRScan, "%s holds more than %d discs", sr->place.path, DISCS_MAX);
        scan_entry(&s, e->d_name);
        errno = 0;
    }
    if (errno)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    if (iso_sr_totals(sr, totals, f) < 0)
        return -1;
    totals->virtual_allocation = s.sum;
    *out = s.found;
    return 0;
}

/* ------------------------------------------------------------------ create */

/* What a disk that is made here is to be called: as sm_config says, or by its uuid. The characters of a name that a
   caller chooses are few. */
static int wanted_name(const struct vdi *wanted, struct arena *a, const char **out, struct fault *f)
{
    const char *path = pairs_get(&wanted->sm_config, "path");
    if (!path) {
        *out = arena_printf(a, "%s.img", wanted->uuid.text);
        return 0;
    }
    if (!has_suffix(path))
        return fault_set(f, FAULT_ISOMustHaveISOExtension, "sm_config path \"%.200s\" ends neither in .iso nor in .img",
                         path);
    for (const char *c = path; *c; c++)
        if (!isalnum((unsigned char) *c) && !strchr(".-_", *c))
            return fault_set(f, FAULT_BadCharacter,
                             "sm_config path \"%.200s\" has characters that are no letters, "
                             "digits, \".\", \"-\" and \"_\"",
                             path);
    if (path[0] == '.' || strlen(path) > 200)
        return fault_set(f, FAULT_BadCharacter, "sm_config path \"%.200s\" is no name of a file", path);
    *out = arena_text(a, path);
    return 0;
}

static int made_disc(const struct vdi *wanted, const char *name, const struct stat *st, struct arena *a,
                     struct vdi *out)
{
    struct vdi vdi = layout_copy(a, wanted);
    vdi.location = arena_text(a, name);
    vdi.format = "";
    pairs_set(a, &vdi.sm_config, CREATED, "true");
    describe_size(&vdi, st);
    *out = vdi;
    return 0;
}

static int make_temp(struct sr *sr, const char *temp, uint64_t size, struct stat *st, struct fault *f)
{
    AUTO_FD int fd = io_open_beneath(sr->place.dir, temp, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fault_errno(f, FAULT_VDICreate, "make %s", temp);
    if (POINT(create_temp_made) < 0 || ftruncate(fd, (off_t) size) < 0 || POINT(create_temp_written) < 0)
        return fault_errno(f, FAULT_VDICreate, "size %s", temp);
    if (file_sync(sr, fd, temp, f) < 0)
        return -1;
    if (POINT(create_temp_synced) < 0 || fstat(fd, st) < 0)
        return fault_errno(f, FAULT_VDICreate, "look at %s", temp);
    return 0;
}

/* The sidecar comes before the name: it says which inode of which operation the name is to be, for settle. */
static int iso_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                          struct vdi *out, struct fault *f)
{
    char temp[TEMPORARY_NAME];
    const char *name;
    struct stat st;
    struct vdi disc;
    if (wanted_name(wanted, a, &name, f) < 0)
        return -1;
    temporary_name(temp, &plan->op, TEMPORARY_NEW, &plan->vdi);
    if (make_temp(sr, temp, plan->size, &st, f) < 0)
        return -1;
    made_disc(wanted, name, &st, a, &disc);
    const struct claim claim = {.op = plan->op, .inode = st.st_ino};
    if (sidecar_write(sr, &disc, &claim, f) < 0)
        return -1;
    if (image_publish(sr->place.dir, temp, name) < 0)
        return fault_errno(f, errno == EEXIST ? FAULT_VDIExists : FAULT_VDICreate, "give %s its name", name);
    if (POINT(create_published) < 0)
        return fault_errno(f, FAULT_VDICreate, "give %s its name", name);
    if (file_sync(sr, sr->place.dir, sr->place.path, f) < 0)
        return -1;
    *out = disc;
    return 0;
}

/* ------------------------------------------------------------------ delete */

/* The sidecar of a disk that was made here, if the file at its location is still the one it was written for. */
static bool read_claim(struct sr *sr, const struct uuid *uuid, const char *name, struct arena *a, struct claim *out)
{
    struct vdi vdi = vdi_blank();
    struct stat st;
    vdi.uuid = *uuid;
    return sidecar_read(sr->place.dir, a, &vdi, out) && fstatat(sr->place.dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(st.st_mode) && st.st_ino == out->inode;
}

static int remove_made(struct sr *sr, const struct uuid *uuid, const char *name, bool published, struct fault *f)
{
    char sidecar[FILE_NAME];
    sidecar_name(sidecar, uuid);
    if ((published && file_remove(sr->place.dir, name) < 0) || POINT(delete_unlinked) < 0 ||
        file_remove(sr->place.dir, sidecar) < 0)
        return fault_errno(f, FAULT_VDIRemove, "remove %.200s", name);
    return file_sync(sr, sr->place.dir, sr->place.path, f);
}

/* What others have put there is never removed: the row goes, and the next scan finds it again. */
static int iso_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                          struct deletion *deleted, struct fault *f)
{
    struct claim claim;
    (void) plan, (void) deleted;
    const char *created = pairs_get(&vdi->sm_config, CREATED);
    if (!created)
        return 0;
    return remove_made(sr, &vdi->uuid, vdi->location, read_claim(sr, &vdi->uuid, vdi->location, a, &claim), f);
}

/* ------------------------------------------------------------------ use */

/* No backend has exclusive access to such a directory, so that attaching checks all that activating would. */
static int iso_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                          struct fault *f)
{
    struct stat st;
    AUTO_FD int fd = is_disc(vdi->location) ? open_disc(sr, vdi->location, writable ? O_RDWR : O_RDONLY, &st) : -1;
    if (!is_disc(vdi->location))
        return fault_set(f, FAULT_ISOMustHaveISOExtension, "location %.200s is no name of a disc", vdi->location);
    if (fd < 0)
        return fault_errno(f, FAULT_VDIMissing, "open %.200s in %s", vdi->location, sr->place.path);
    *path = arena_printf(a, "%s/%s", sr->place.path, vdi->location);
    return 0;
}

static int iso_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) sr, (void) vdi, (void) f; /* attaching made nothing */
    return 0;
}

static int iso_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f)
{
    (void) epoch;
    struct stat st;
    AUTO_FD int fd = open_disc(sr, vdi->location, writable ? O_RDWR : O_RDONLY, &st);
    return fd < 0 ? fault_errno(f, FAULT_VDIMissing, "open %.200s in %s", vdi->location, sr->place.path) : 0;
}

static int iso_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    (void) sr, (void) vdi, (void) f; /* nothing here holds the file open */
    return 0;
}

/* ------------------------------------------------------------------ settle */

static int sweep(struct sr *sr, const struct plan *plan, struct fault *f)
{
    AUTO_DIR DIR *entries = directory_entries(sr->place.dir);
    if (!entries)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries))
        if (is_stray(e->d_name) && strncmp(e->d_name, plan->op.text, 8) == 0 &&
            file_remove(sr->place.dir, e->d_name) < 0)
            return fault_errno(f, FAULT_VDIRemove, "remove %s", e->d_name);
    return 0;
}

/* Only a file that this operation's own sidecar names is this operation's. */
static int settle_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                         enum settled *how, struct vdi *out, struct fault *f)
{
    const char *name;
    struct claim claim = {.inode = 0};
    struct stat st;
    *how = SETTLED_UNDONE;
    if (!wanted || wanted_name(wanted, a, &name, f) < 0)
        return 0; /* create refused it */
    struct vdi none = vdi_blank();
    none.uuid = plan->vdi;
    bool ours = read_claim(sr, &plan->vdi, name, a, &claim) && uuid_equal(&claim.op, &plan->op);
    if (ours && plan->keep && fstatat(sr->place.dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        *how = SETTLED_DONE;
        return made_disc(wanted, name, &st, a, out);
    }
    bool sidecar = sidecar_read(sr->place.dir, a, &none, &claim) && uuid_equal(&claim.op, &plan->op);
    return sidecar ? remove_made(sr, &plan->vdi, name, ours, f) : 0;
}

static int iso_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                      enum settled *how, struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f)
{
    (void) base;
    if (strcmp(plan->method, "sr_create") == 0 || strcmp(plan->method, "sr_delete") == 0) {
        *how = strcmp(plan->method, "sr_delete") == 0 ? SETTLED_DONE : SETTLED_UNDONE;
        return 0;
    }
    if (sweep(sr, plan, f) < 0)
        return -1;
    *how = SETTLED_UNDONE;
    if (strcmp(plan->method, "vdi_create") == 0)
        return settle_create(sr, plan, wanted, a, how, vdi, f);
    if (strcmp(plan->method, "vdi_delete") != 0)
        return 0;
    *how = SETTLED_DONE;
    return wanted ? iso_vdi_delete(sr, plan, wanted, a, deleted, f) : 0;
}

/* No recognise, sr_check, vdi_introduce: there is nothing to recognise but the place, and a scan finds every disc. No
   vdi_update: labels are rows. No resize, snapshot, clone, read, reset, compose: discs do not change. */
const struct layout layout_iso = {
    .name = "iso",
    .unmarked = true,
    .sr_create = iso_sr_create,
    .sr_delete = iso_sr_delete,
    .sr_attach = iso_sr_attach,
    .sr_scan = iso_sr_scan,
    .sr_totals = iso_sr_totals,
    .vdi_create = iso_vdi_create,
    .vdi_delete = iso_vdi_delete,
    .vdi_attach = iso_vdi_attach,
    .vdi_detach = iso_vdi_detach,
    .vdi_activate = iso_vdi_activate,
    .vdi_deactivate = iso_vdi_deactivate,
    .settle = iso_settle,
};
