/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The marker, which says whose the SR is. A claim that follows another is first linked to a name that is made of the
   operation that wrote the old one: link(2) never replaces, so of several servers only one can follow a claim, also
   over NFS, and from then on its claim counts. Only then does it become the marker. The name stays as long as the SR:
   who has read the old marker and comes late still meets it. */
#include "backends/layouts/file.h"
#include "server/base/clock.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { FOLLOWERS_MAX = 64 };

/* ------------------------------------------------------------------ reading */

static void follower_name(char out[TEMPORARY_NAME], const struct marker *m)
{
    temporary_name(out, &m->op, TEMPORARY_TAKE, &m->sr);
}

/* The claim that is bound to this one, if there is one. */
static bool read_follower(int dir, const struct marker *m, struct marker *out)
{
    char name[TEMPORARY_NAME];
    struct marker next;
    follower_name(name, m);
    if (marker_read_file(dir, name, &next) != MARKER_SOUND || !uuid_equal(&next.from, &m->op) ||
        !uuid_equal(&next.sr, &m->sr))
        return false;
    *out = next;
    return true;
}

enum marker_found marker_read(int dir, struct marker *out)
{
    struct marker m;
    enum marker_found found = marker_read_file(dir, MARKER_NAME, &m);
    if (found != MARKER_SOUND)
        return found;
    for (int i = 0; i < FOLLOWERS_MAX && read_follower(dir, &m, &m); i++)
        ;
    *out = m;
    return MARKER_SOUND;
}

int marker_check(const struct sr *sr, const struct marker *m, struct fault *f)
{
    const struct owner owner = {m->server, m->op, m->since};
    if (!uuid_equal(&m->sr, &sr->uuid))
        return fault_set(f, FAULT_SRUnavailable, "the marker in %s is that of SR %s, not of %s", sr->place.path,
                         m->sr.text, sr->uuid.text);
    return sr_check_owner(sr, &owner, f);
}

/* ------------------------------------------------------------------ writing */

/* Written and synced under the name that this operation writes markers by. -1 with errno. */
static int write_temp(int dir, const struct marker *m, char temp[TEMPORARY_NAME])
{
    char now[CLOCK_TEXT];
    temporary_name(temp, &m->op, TEMPORARY_MARK, &m->sr);
    clock_text(m->since, now);
    AUTO_TEXT struct text t = TEXT_OF(1024);
    text_printf(&t, "{\"format\": %d, \"sr\": \"%s\", \"server\": \"%s\", \"op\": \"%s\", ", MARKER_FORMAT, m->sr.text,
                m->server.text, m->op.text);
    if (uuid_is(&m->from))
        text_printf(&t, "\"from\": \"%s\", ", m->from.text);
    text_printf(&t, "\"made\": %s, \"since\": %lld, \"time\": \"%s\"}\n", m->made ? "true" : "false",
                (long long) m->since, now);
    if (file_remove(dir, temp) < 0)
        return -1;
    AUTO_FD int fd = io_open_beneath(dir, temp, O_WRONLY | O_CREAT | O_EXCL, 0600);
    return fd < 0 || io_write(fd, t.data, t.length) < 0 ? -1 : fsync(fd);
}

int marker_make(int dir, const struct marker *m)
{
    char temp[TEMPORARY_NAME];
    if (write_temp(dir, m, temp) == 0 && image_publish(dir, temp, MARKER_NAME) == 0)
        return fsync(dir);
    int saved = errno;
    file_remove(dir, temp);
    errno = saved;
    return -1;
}

static bool same_file(int dir, const char *a, const char *b)
{
    struct stat x, y;
    return fstatat(dir, a, &x, AT_SYMLINK_NOFOLLOW) == 0 && fstatat(dir, b, &y, AT_SYMLINK_NOFOLLOW) == 0 &&
           x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

/* A repeated request over NFS may be refused although it was done: what stands decides. -1 with errno. */
static int link_once(int dir, const char *from, const char *to)
{
    if (linkat(dir, from, dir, to, 0) == 0)
        return 0;
    int saved = errno;
    bool linked = same_file(dir, from, to);
    errno = saved;
    return linked ? 0 : -1;
}

/* From the name bound to the old claim to the marker, not synced. May be repeated. -1 with errno. */
static int publish(int dir, const char *follower, const struct uuid *op, const struct uuid *sr)
{
    char temp[TEMPORARY_NAME];
    temporary_name(temp, op, TEMPORARY_MARK, sr);
    if (file_remove(dir, temp) < 0 || link_once(dir, follower, temp) < 0 || renameat(dir, temp, dir, MARKER_NAME) < 0 ||
        file_remove(dir, temp) < 0)
        return -1;
    return fsync(dir);
}

/* ------------------------------------------------------------------ taking over */

int file_sr_owner(struct sr *sr, struct owner *out, struct fault *f)
{
    struct marker m;
    switch (marker_read(sr->place.dir, &m)) {
    case MARKER_SOUND:
        break;
    case MARKER_BAD:
        return fault_set(f, FAULT_SRUnavailable, "the marker %s/%s cannot be read", sr->place.path, MARKER_NAME);
    case MARKER_NONE:
        *out = (struct owner){.server = UUID_NONE};
        return 0;
    }
    if (!uuid_equal(&m.sr, &sr->uuid))
        return marker_check(sr, &m, f);
    *out = (struct owner){m.server, m.op, m.since};
    return 0;
}

static int lost(struct sr *sr, const struct owner *from, struct fault *f)
{
    struct marker m;
    if (marker_read(sr->place.dir, &m) == MARKER_SOUND && marker_check(sr, &m, f) < 0)
        return -1;
    return fault_set(f, FAULT_SRUnavailable, "the claim of server %s on SR %s was not there any more",
                     from->server.text, sr->uuid.text);
}

static int give_up(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    char temp[TEMPORARY_NAME];
    temporary_name(temp, &plan->op, TEMPORARY_MARK, &sr->uuid);
    if (file_remove(sr->place.dir, temp) < 0)
        return fault_errno(f, FAULT_SRLog, "remove %s/%s", sr->place.path, temp);
    return lost(sr, from, f);
}

/* Binds the new claim to the old one: from here on it counts. */
static int bind(struct sr *sr, const struct marker *new, const char *follower, const struct owner *from,
                struct fault *f)
{
    char temp[TEMPORARY_NAME];
    int dir = sr->place.dir;
    if (write_temp(dir, new, temp) < 0 || POINT(claim_written) < 0)
        return fault_errno(f, FAULT_SRLog, "write a claim on SR %s", sr->uuid.text);
    if (link_once(dir, temp, follower) < 0)
        return errno == EEXIST ? lost(sr, from, f)
                               : fault_errno(f, FAULT_SRLog, "bind a claim to that of SR %s", sr->uuid.text);
    if (file_sync(sr, dir, sr->place.path, f) < 0)
        return -1;
    if (POINT(claim_linked) < 0)
        return fault_errno(f, FAULT_SRLog, "bind a claim to that of SR %s", sr->uuid.text);
    return 0;
}

int file_sr_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f)
{
    struct marker old;
    char follower[TEMPORARY_NAME];
    int dir = sr->place.dir;
    if (marker_read(dir, &old) != MARKER_SOUND)
        return fault_set(f, FAULT_SRUnavailable, "%s has no sound marker of SR %s", sr->place.path, sr->uuid.text);
    struct marker new = {sr->uuid, sr->settings->server, plan->op, old.op, old.made, clock_wall_s()};
    bool bound = uuid_equal(&old.op, &plan->op);
    if (bound)
        new = old;
    else if (!uuid_equal(&old.op, &from->op))
        return give_up(sr, plan, from, f);
    temporary_name(follower, &new.from, TEMPORARY_TAKE, &sr->uuid);
    if (!bound && bind(sr, &new, follower, from, f) < 0)
        return -1;
    if (publish(dir, follower, &plan->op, &sr->uuid) < 0)
        return fault_errno(f, FAULT_SRLog, "publish the claim on SR %s", sr->uuid.text);
    if (file_sync(sr, dir, sr->place.path, f) < 0)
        return -1;
    return POINT(claim_published) < 0 ? fault_errno(f, FAULT_SRLog, "publish the claim on SR %s", sr->uuid.text) : 0;
}
