/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/directory.h"
#include "backends/layouts/file.h"
#include "backends/types.h"
#include "server/base/clock.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

/* ------------------------------------------------------------------ what is in a directory */

enum file_entry file_entry_of(const char *name)
{
    struct uuid uuid;
    struct temporary temp;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lost+found") == 0)
        return ENTRY_NOTHING;
    if (strcmp(name, MARKER_NAME) == 0)
        return ENTRY_MARKER;
    if (image_format_of_file(name, &uuid))
        return ENTRY_IMAGE;
    if (temporary_parse(name, &temp))
        return ENTRY_TEMPORARY;
    if (strlen(name) == UUID_TEXT + sizeof OWN_SUFFIX - 1 && strcmp(name + UUID_TEXT, OWN_SUFFIX) == 0 &&
        uuid_parse(name, UUID_TEXT, &uuid))
        return ENTRY_SIDECAR;
    return ENTRY_FOREIGN;
}

/* One name of each kind that is there ("" for none). */
struct census {
    char image[NAME_MAX + 1], foreign[NAME_MAX + 1];
};

static int take_census(int dir, struct census *out)
{
    struct census c = {.image = "", .foreign = ""};
    AUTO_DIR DIR *entries = directory_entries(dir);
    if (!entries)
        return -1;
    errno = 0;
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries)) {
        enum file_entry kind = file_entry_of(e->d_name);
        if (kind == ENTRY_IMAGE && !c.image[0])
            snprintf(c.image, sizeof c.image, "%s", e->d_name);
        if (kind == ENTRY_FOREIGN && !c.foreign[0])
            snprintf(c.foreign, sizeof c.foreign, "%s", e->d_name);
    }
    if (errno)
        return -1;
    *out = c;
    return 0;
}

/* The uuid a directory made by the older manager is named by. */
static bool named_by_uuid(int dir, struct uuid *out)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return false;
    path[length] = '\0';
    const char *slash = strrchr(path, '/');
    return slash && uuid_parse_text(slash + 1, out);
}

bool file_recognise(const struct place *place, struct uuid *out)
{
    int dir = place->dir;
    struct marker m;
    struct census c;
    struct uuid uuid;
    enum marker_found found = marker_read(dir, &m);
    if (found == MARKER_SOUND)
        *out = m.sr;
    if (found != MARKER_NONE || !named_by_uuid(dir, &uuid) || take_census(dir, &c) < 0 || !c.image[0])
        return found == MARKER_SOUND;
    *out = uuid;
    return true;
}

/* ------------------------------------------------------------------ removing what is ours */

/* Says of a name whether it goes. */
typedef bool doomed(const char *name, const void *arg);

/* Removes every name of which it is said, without a sync. A directory never goes. -1 with errno. */
static int sweep(int dir, doomed *says, const void *arg)
{
    AUTO_DIR DIR *entries = directory_entries(dir);
    if (!entries)
        return -1;
    errno = 0;
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries)) {
        if (says(e->d_name, arg) && file_remove(dir, e->d_name) < 0 && errno != EISDIR)
            return -1;
        errno = 0;
    }
    return errno ? -1 : 0;
}

static bool is_sidecar_or_temporary(const char *name, const void *arg)
{
    (void) arg;
    enum file_entry kind = file_entry_of(name);
    return kind == ENTRY_SIDECAR || kind == ENTRY_TEMPORARY;
}

/* What any operation left that died with its database. Journals of a grow are reverted, not removed; claims that follow
   another stay as long as the SR (file_claim.c). */
static bool is_stray(const char *name, const void *arg)
{
    (void) arg;
    struct temporary t;
    return temporary_parse(name, &t) && t.kind != TEMPORARY_GROW && t.kind != TEMPORARY_TAKE;
}

static bool is_of_operation(const char *name, const void *arg)
{
    const struct plan *plan = arg;
    struct temporary t;
    return temporary_parse(name, &t) && memcmp(t.op8, plan->op.text, 8) == 0 && t.kind != TEMPORARY_GROW &&
           t.kind != TEMPORARY_MADE && t.kind != TEMPORARY_TAKE;
}

int file_sweep_operation(int dir, const struct plan *plan)
{
    return sweep(dir, is_of_operation, plan);
}

/* ------------------------------------------------------------------ create */

static void note_name(char out[TEMPORARY_NAME], const struct plan *plan)
{
    temporary_name(out, &plan->op, TEMPORARY_MADE, &plan->sr);
}

static int make_marker(struct sr *sr, const struct uuid *op, bool made, struct fault *f)
{
    const struct marker m = {
        .sr = sr->uuid, .server = sr->settings->server, .op = *op, .made = made, .since = clock_wall_s()};
    if (marker_make(sr->place.dir, &m) == 0)
        return 0;
    int saved = errno;
    struct marker theirs;
    if (marker_read(sr->place.dir, &theirs) == MARKER_SOUND && marker_check(sr, &theirs, f) < 0)
        return -1; /* somebody was quicker */
    errno = saved;
    return fault_errno(f, FAULT_SRLog, "write the marker of SR %s", sr->uuid.text);
}

int file_sr_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    char note[TEMPORARY_NAME];
    struct marker old;
    int dir = sr->place.dir;
    note_name(note, plan);
    bool made = faccessat(dir, note, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    if (marker_read(dir, &old) != MARKER_NONE)
        return fault_set(f, FAULT_SRExists, "%s holds the marker of an SR", sr->place.path);
    if (make_marker(sr, &plan->op, made, f) < 0)
        return -1;
    if (POINT(sr_create_marked) < 0 || file_remove(dir, note) < 0 || fsync(dir) < 0)
        return fault_errno(f, FAULT_FileSRCreate, "finish the directory of SR %s", sr->uuid.text);
    return 0;
}

/* An empty file that outlives the marker and says that the directory may go. */
static int leave_note(int dir, const struct plan *plan)
{
    char name[TEMPORARY_NAME];
    note_name(name, plan);
    AUTO_FD int fd = io_open_beneath(dir, name, O_WRONLY | O_CREAT, 0600);
    return fd < 0 ? -1 : fsync(dir);
}

/* The marker goes last; a directory that was made for the SR gets the note first. */
static int unmark(int dir, const struct marker *m, const struct plan *plan)
{
    if (m->made && leave_note(dir, plan) < 0)
        return -1;
    if (file_remove(dir, MARKER_NAME) < 0 || POINT(sr_delete_unmarked) < 0)
        return -1;
    return fsync(dir);
}

int file_sr_undo(struct sr *sr, const struct plan *plan, struct fault *f)
{
    struct marker m;
    struct census c;
    int dir = sr->place.dir;
    if (marker_read(dir, &m) != MARKER_SOUND || !uuid_equal(&m.op, &plan->op))
        return 0; /* nothing was marked, or it is the mark of an SR that was there before */
    if (take_census(dir, &c) < 0)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    if (c.image[0])
        return fault_set(f, FAULT_SRNotEmpty, "%s holds %s", sr->place.path, c.image);
    if (unmark(dir, &m, plan) < 0)
        return fault_errno(f, FAULT_FileSRDelete, "unmark %s", sr->place.path);
    return 0;
}

/* ------------------------------------------------------------------ delete */

/* Whether nothing but our own files is in the place; the reason otherwise in f. */
static int check_empty(struct sr *sr, bool *empty, struct fault *f)
{
    struct census c;
    if (take_census(sr->place.dir, &c) < 0)
        return fault_errno(f, FAULT_SRScan, "list %s", sr->place.path);
    *empty = !c.image[0] && !c.foreign[0];
    if (c.image[0])
        fault_set(f, FAULT_SRNotEmpty, "SR %s still holds image %s", sr->uuid.text, c.image);
    else if (c.foreign[0])
        fault_set(f, FAULT_SRNotEmpty, "%s holds %s, which is not ours", sr->place.path, c.foreign);
    return 0;
}

int file_sr_clear(struct sr *sr, const struct plan *plan, bool *empty, struct fault *f)
{
    struct marker m = {.made = false};
    int dir = sr->place.dir;
    enum marker_found found = marker_read(dir, &m);
    if (found == MARKER_BAD)
        return fault_set(f, FAULT_SRUnavailable, "the marker in %s cannot be read", sr->place.path);
    if ((found == MARKER_SOUND && marker_check(sr, &m, f) < 0) || check_empty(sr, empty, f) < 0)
        return -1;
    if (!*empty || found == MARKER_NONE)
        return 0;
    if (sweep(dir, is_sidecar_or_temporary, NULL) < 0 || POINT(sr_delete_cleared) < 0)
        return fault_errno(f, FAULT_FileSRDelete, "clear %s", sr->place.path);
    if (unmark(dir, &m, plan) < 0)
        return fault_errno(f, FAULT_FileSRDelete, "unmark %s", sr->place.path);
    return 0;
}

int file_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f)
{
    bool empty = false;
    if (file_sr_clear(sr, plan, &empty, f) < 0)
        return -1;
    return empty ? 0 : -1;
}

/* ------------------------------------------------------------------ attach */

/* The caller's word that a place without any mark is the SR's. */
static bool adopts(const struct sr *sr)
{
    const char *adopt = pairs_get(&sr->config, "adopt");
    return adopt && strcmp(adopt, "true") == 0;
}

/* A place without a marker: one with images is an SR of the older manager; an empty one only by the caller's word. */
static int check_adoptable(struct sr *sr, struct fault *f)
{
    struct census c;
    if (take_census(sr->place.dir, &c) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "list %s", sr->place.path);
    if (c.image[0])
        return 0;
    if (c.foreign[0])
        return fault_set(f, FAULT_SRUnavailable, "%s has neither marker nor images of an SR, but holds %s",
                         sr->place.path, c.foreign);
    if (adopts(sr))
        return 0;
    return fault_set(f, FAULT_SRUnavailable,
                     "%s is empty and has no marker of SR %s: is something not mounted? adopt=true in device_config "
                     "takes it over",
                     sr->place.path, sr->uuid.text);
}

static int check_marker(struct sr *sr, struct fault *f)
{
    struct marker m;
    struct uuid op = uuid_random();
    switch (marker_read(sr->place.dir, &m)) {
    case MARKER_SOUND:
        return marker_check(sr, &m, f);
    case MARKER_BAD:
        return fault_set(f, FAULT_SRUnavailable, "the marker %s/%s cannot be read", sr->place.path, MARKER_NAME);
    case MARKER_NONE:
        break;
    }
    return check_adoptable(sr, f) < 0 ? -1 : make_marker(sr, &op, false, f);
}

/* Undoes a grow whose operation died with its database. */
static int revert_grow(struct sr *sr, const char *name, const struct uuid *vdi, struct fault *f)
{
    struct image_file file;
    struct fault ignored;
    if (image_open(sr, vdi, "", O_RDWR, &file, &ignored) < 0)
        return 0; /* without its image it stays, for people to look at */
    AUTO_FD int fd = file.fd;
    const struct image_journal journal = {sr->place.dir, name};
    return file.format->revert ? file.format->revert(fd, &journal, f) : 0;
}

static int revert_grows(struct sr *sr, struct fault *f)
{
    AUTO_DIR DIR *entries = directory_entries(sr->place.dir);
    if (!entries)
        return fault_errno(f, FAULT_SRUnavailable, "list %s", sr->place.path);
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries)) {
        struct temporary t;
        if (temporary_parse(e->d_name, &t) && t.kind == TEMPORARY_GROW && revert_grow(sr, e->d_name, &t.uuid, f) < 0)
            return -1;
    }
    return 0;
}

static int state_make(struct sr *sr, struct fault *f)
{
    struct stat marker;
    if (fstatat(sr->place.dir, MARKER_NAME, &marker, AT_SYMLINK_NOFOLLOW) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "the marker of SR %s in %s", sr->uuid.text, sr->place.path);
    struct file_sr *state = calloc(1, sizeof *state);
    if (!state)
        abort();
    state->marker = marker;
    pthread_mutex_init(&state->mutex, NULL);
    sr->state = state;
    return 0;
}

int file_sr_attach(struct sr *sr, struct fault *f)
{
    int dir = sr->place.dir;
    if (check_marker(sr, f) < 0 || revert_grows(sr, f) < 0)
        return -1;
    if (sweep(dir, is_stray, NULL) < 0 || fsync(dir) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "tidy up %s", sr->place.path);
    return state_make(sr, f);
}

int file_sr_look(struct sr *sr, struct fault *f)
{
    struct marker m;
    if (marker_read(sr->place.dir, &m) != MARKER_SOUND)
        return fault_set(f, FAULT_SRUnavailable, "%s has no sound marker of SR %s", sr->place.path, sr->uuid.text);
    return marker_check(sr, &m, f) < 0 ? -1 : state_make(sr, f);
}

void file_sr_detach(struct sr *sr)
{
    struct file_sr *state = TAKE(sr->state);
    if (!state)
        return;
    scan_cache_free(state->cache);
    pthread_mutex_destroy(&state->mutex);
    free(state);
}

static int tell_change(const struct sr *sr, struct fault *f)
{
    struct marker m;
    if (marker_read(sr->place.dir, &m) == MARKER_SOUND && marker_check(sr, &m, f) < 0) {
        f->code = FAULT_SRUnavailable; /* it was this server's when it was attached */
        return -1;
    }
    return fault_set(f, FAULT_SRUnavailable, "the marker of SR %s in %s was changed by others: attach it again",
                     sr->uuid.text, sr->place.path);
}

int file_sr_check(struct sr *sr, struct fault *f)
{
    const struct file_sr *state = sr->state;
    struct stat now;
    if (fstatat(sr->place.dir, MARKER_NAME, &now, AT_SYMLINK_NOFOLLOW) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "the marker of SR %s in %s", sr->uuid.text, sr->place.path);
    if (now.st_ino != state->marker.st_ino || now.st_size != state->marker.st_size ||
        now.st_mtim.tv_sec != state->marker.st_mtim.tv_sec || now.st_mtim.tv_nsec != state->marker.st_mtim.tv_nsec)
        return tell_change(sr, f);
    return 0;
}
