/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount_nfs: the SR is the directory <serverpath>/<sr> of an NFS server, mounted on <mount_base>/<sr>. What must be
   done above it, in serverpath, is done on a visit. */
#include "backends/tools/nfs.h"
#include "backends/directory.h"
#include "backends/made.h"
#include "backends/probe.h"
#include "backends/tools/mounts.h"
#include "backends/transports/mount.h"
#include "backends/transports/transport.h"
#include "backends/types.h"
#include "backends/visit.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { JOB_ARENA = 64 << 20 };

static const char *value_or(const struct pairs *config, const char *key, const char *otherwise)
{
    const char *value = pairs_get(config, key);
    return value && value[0] ? value : otherwise;
}

static struct nfs_source source_of(const struct pairs *config, int hold)
{
    return (struct nfs_source){.server = value_or(config, "server", ""),
                               .path = value_or(config, "serverpath", "/"),
                               .version = value_or(config, "nfsversion", "3"),
                               .hard = strcmp(value_or(config, "nfs_mode", "hard"), "hard") == 0,
                               .options = value_or(config, "options", ""),
                               .hold = hold};
}

/* The SR's own directory on the server. */
static struct nfs_source directory_of(const struct sr *sr, struct arena *a)
{
    struct nfs_source s = source_of(&sr->config, sr->hold);
    s.path = arena_printf(a, "%s/%s", strcmp(s.path, "/") ? s.path : "", sr->uuid.text);
    return s;
}

/* Without serverpath the answer is what there is to choose from; a is where the fault's document goes. */
static int need_serverpath(const struct pairs *config, struct arena *a, struct fault *f)
{
    const char *server = value_or(config, "server", "");
    if (value_or(config, "serverpath", NULL))
        return 0;
    fault_set(f, FAULT_ConfigServerPathMissing, "device_config of type nfs needs serverpath, an export of %.200s",
              server);
    if (a)
        fault_document(f, nfs_exports(server, a));
    return -1;
}

/* ------------------------------------------------------------------ visits to serverpath */

struct job {
    struct nfs_source source;
    struct arena *arena;
    struct sr *sr;
    const struct plan *plan;
    const struct layout *layout;
    struct found_list *found;
    bool reached; /* the work began */
};

static int job_mount(void *arg, const char *path, struct fault *f)
{
    struct job *job = arg;
    return nfs_mount(&job->source, path, job->arena, f);
}

/* Soft, whatever the SR is: a visit has no disk whose guest would see the error. */
static int visit_server(struct job *job, int (*work)(void *, int, struct fault *), const struct pairs *config, int hold,
                        const struct backend_settings *settings, struct fault *f)
{
    const struct visit v = {.mount = job_mount, .work = work, .arg = job};
    job->source = source_of(config, hold);
    job->source.hard = false;
    return nfs_reach(job->source.server, f) < 0 ? -1 : visit(&v, settings, f);
}

static int visit_for(struct sr *sr, const struct plan *plan, int (*work)(void *, int, struct fault *), bool *reached,
                     struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    struct job job = {.arena = a, .sr = sr, .plan = plan};
    int r = visit_server(&job, work, &sr->config, sr->hold, sr->settings, f);
    *reached = job.reached;
    return r;
}

/* ------------------------------------------------------------------ create, destroy */

static int make_directory(void *arg, int dir, struct fault *f)
{
    struct job *job = arg;
    const char *name = job->sr->uuid.text;
    job->reached = true;
    if (made_make(dir, name, job->plan) < 0)
        return fault_errno(f, errno == EEXIST ? FAULT_SRExists : FAULT_NFSCreate,
                           "make directory %s in %.300s of %.200s", name, job->source.path, job->source.server);
    return POINT(sr_create_made) < 0 ? fault_errno(f, FAULT_NFSCreate, "make directory %s", name) : 0;
}

static int nfs_create(struct sr *sr, const struct plan *plan, struct fault *f)
{
    bool reached = false;
    int r = need_serverpath(&sr->config, sr->scratch, f);
    if (r == 0)
        r = visit_for(sr, plan, make_directory, &reached, f);
    sr->untouched = !reached;
    return r;
}

/* After an sr_delete also one that was made for this SR by other software: its name says whose it was, and only an
   empty one goes. */
static int remove_directory(void *arg, int dir, struct fault *f)
{
    const struct job *job = arg;
    const char *name = job->sr->uuid.text;
    bool deleted = strcmp(job->plan->method, "sr_delete") == 0;
    struct uuid marked;
    AUTO_FD int own = made_open(dir, name);
    if (own >= 0 && job->sr->type->layout->recognise(&(struct place){.dir = own}, &marked))
        return fault_set(f, FAULT_NFSDelete, "%.300s/%s of %.200s still is marked as an SR", job->source.path, name,
                         job->source.server);
    if (made_remove(dir, name, job->plan) < 0 || (deleted && unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno != ENOENT))
        return fault_errno(f, FAULT_NFSDelete, "remove directory %.300s/%s of %.200s", job->source.path, name,
                           job->source.server);
    return fsync(dir) < 0 ? fault_errno(f, FAULT_NFSDelete, "sync %.300s", job->source.path) : 0;
}

static int nfs_destroy(struct sr *sr, const struct plan *plan, struct fault *f)
{
    if (!value_or(&sr->config, "serverpath", NULL))
        return 0; /* create refused it */
    bool ignored;
    return visit_for(sr, plan, remove_directory, &ignored, f);
}

/* ------------------------------------------------------------------ connect, disconnect */

static int mount_directory(struct sr *sr, const struct nfs_source *source, const char *path, struct arena *a,
                           struct fault *f)
{
    if (nfs_reach(source->server, f) < 0 || mounts_make_point(sr->settings->mount_base, path, FAULT_NFSAttached, f) < 0)
        return -1;
    if (POINT(mount_point_made) < 0)
        return fault_errno(f, FAULT_NFSMount, "mount %s", path);
    if (nfs_mount(source, path, a, f) < 0)
        return -1;
    return POINT(mount_done) < 0 ? fault_errno(f, FAULT_NFSMount, "mount %s", path) : 0;
}

static int nfs_disconnect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct nfs_source source = directory_of(sr, a);
    return mount_leave(sr, nfs_source_text(&source, a), FAULT_NFSUnMount, f);
}

static int nfs_connect(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(JOB_ARENA);
    const struct nfs_source source = directory_of(sr, a);
    struct fault ignored;
    bool there;
    if (sr->place.path)
        return 0;
    if (need_serverpath(&sr->config, sr->scratch, f) < 0)
        return -1;
    if (mount_is_there(sr, nfs_source_text(&source, a), FAULT_NFSAttached, a, &there, f) < 0)
        return -1;
    if ((there || mount_directory(sr, &source, mount_path(sr, a), a, f) == 0) && mount_take(sr, f) == 0)
        return 0;
    if (!there)
        nfs_disconnect(sr, &ignored);
    return -1;
}

/* ------------------------------------------------------------------ probe */

static int look_below(void *arg, int dir, struct fault *f)
{
    const struct job *job = arg;
    if (probe_below(job->layout, dir, job->source.path, job->arena, job->found) < 0)
        return fault_errno(f, FAULT_SRUnavailable, "list %.300s of %.200s", job->source.path, job->source.server);
    return 0;
}

static int nfs_probe(const struct layout *layout, const struct pairs *config, const struct secrets *secrets,
                     const struct backend_settings *settings, struct arena *a, struct found_list *out, struct fault *f)
{
    (void) secrets;
    struct job job = {.arena = a, .layout = layout, .found = out};
    return need_serverpath(config, a, f) < 0 ? -1 : visit_server(&job, look_below, config, -1, settings, f);
}

/* ------------------------------------------------------------------ find */

/* "SERVER:PATH/<sr>", an address of version 6 in brackets; false when it is not of that form. */
static bool take_source(const struct mount_trace *m, struct arena *a, const char **server, const char **path)
{
    const char *source = m->mounted.source, *colon = strstr(source, ":/"), *last = strrchr(source, '/');
    if (!colon || !last || strcmp(last + 1, m->sr.text) != 0)
        return false;
    bool bracket = source[0] == '[' && colon[-1] == ']';
    *server = arena_copy(a, source + bracket, (size_t) (colon - source) - 2U * bracket);
    *path = last == colon + 1 ? "/" : arena_copy(a, colon + 1, (size_t) (last - colon) - 1);
    return true;
}

static int nfs_find(const struct layout *layout, const struct backend_settings *settings, struct arena *a,
                    struct trace_list *out, struct fault *f)
{
    struct mount_trace *mounts;
    size_t count;
    (void) layout;
    if (mount_list(settings, a, &mounts, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const struct mount_trace *m = &mounts[i];
        const char *server, *path;
        if (strncmp(m->mounted.type, "nfs", 3) != 0 || !take_source(m, a, &server, &path))
            continue;
        const struct pair config[] = {{"server", server},
                                      {"serverpath", path},
                                      {"nfsversion", mounts_option(&m->mounted, "vers", a)},
                                      {"nfs_mode", mounts_option(&m->mounted, "soft", a) ? "soft" : NULL}};
        trace_add(a, out, &m->sr, config, COUNT_OF(config));
    }
    return 0;
}

const struct transport transport_mount_nfs = {
    .name = "mount_nfs",
    .remote = true,
    .shared = true,
    .create = nfs_create,
    .destroy = nfs_destroy,
    .connect = nfs_connect,
    .disconnect = nfs_disconnect,
    .find = nfs_find,
    .probe = nfs_probe,
};
