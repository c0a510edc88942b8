/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Targets that have gone. The kernel keeps what is asked of a disk whose session is lost, and whoever asked waits in
   it, beyond any deadline: for a quarter of a minute while an attach looks, for two minutes once disks may be in use.
   So the session is asked first, and given up before its place is left. */
#include "backends/tools/multipath.h"
#include "backends/transports/iscsi.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include <string.h>

enum { CONNECT_SECONDS = 2 };
#define RETURN_NS (5 * INT64_C(1000000000))  /* a target that is started anew, a wire that is plugged in again */
#define NOTICE_NS (15 * INT64_C(1000000000)) /* until the kernel's own question to a silent target has told it */

/* Sessions of one interface as they are. */
struct watch {
    struct arena *arena;
    const char *iface;
    struct iscsi_session *sessions;
    size_t count;
};

typedef bool condition(const struct watch *w);

/* Looks until the condition holds, or for that long. */
static int watch_until(struct watch *w, condition *holds, int64_t ns, struct fault *f)
{
    int64_t until = clock_boot_ns() + ns;
    for (;;) {
        if (iscsi_sessions(w->iface, w->arena, &w->sessions, &w->count, f) < 0)
            return -1;
        if (holds(w) || clock_boot_ns() >= until)
            return 0;
        scsi_events_wait(-1, until);
    }
}

static bool one_is_in(const struct watch *w)
{
    bool in = w->count == 0; /* none that could come back */
    for (size_t i = 0; i < w->count; i++)
        in = in || w->sessions[i].logged_in;
    return in;
}

static bool all_are_in(const struct watch *w)
{
    bool in = true;
    for (size_t i = 0; i < w->count; i++)
        in = in && w->sessions[i].logged_in;
    return in;
}

/* Of no session it is doubtful whether its target is there. */
static bool all_are_told(const struct watch *w)
{
    struct fault ignored;
    for (size_t i = 0; i < w->count; i++)
        if (w->sessions[i].logged_in && portal_answers(&w->sessions[i].portal, CONNECT_SECONDS, &ignored) < 0)
            return false;
    return true;
}

int iscsi_answers(const struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct watch w = {.arena = a, .iface = iscsi_iface(&sr->uuid, a)};
    if (watch_until(&w, one_is_in, RETURN_NS, f) < 0)
        return -1;
    if (w.count == 0)
        return fault_set(f, FAULT_SRUnavailable, "SR %s has no session with its target any more", sr->uuid.text);
    return one_is_in(&w)
               ? 0
               : fault_set(f, FAULT_SRUnavailable, "target %.200s of SR %s does not answer: session %u with it is lost",
                           w.sessions[0].target, sr->uuid.text, w.sessions[0].sid);
}

/* A map may be told to keep for good what finds no path. */
static void fail_maps(const struct sr *sr, const struct watch *w)
{
    size_t count;
    const char **links = iscsi_links(&sr->uuid, w->arena, &count);
    for (size_t i = 0; i < count; i++) {
        const char *map = iscsi_linked_map(links[i], w->arena);
        if (map[0] && iscsi_alone(map, w->sessions, w->count, w->arena))
            multipath_fail(map, sr->hold);
    }
}

int iscsi_give_up(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct watch w = {.arena = a, .iface = iscsi_iface(&sr->uuid, a)};
    if (watch_until(&w, all_are_told, NOTICE_NS, f) < 0 || watch_until(&w, all_are_in, RETURN_NS, f) < 0)
        return -1;
    if (w.count == 0 || !one_is_in(&w))
        fail_maps(sr, &w);
    for (size_t i = 0; i < w.count; i++) {
        const struct iscsi_session *s = &w.sessions[i];
        if (s->logged_in)
            continue;
        log_line(LOG_WARNING, "SR %s: target %s does not answer; session %u with it is given up", sr->uuid.text,
                 s->target, s->sid);
        if (iscsiadm_remember(w.iface, f) < 0 || iscsiadm_logout(s->sid, sr->hold, f) < 0)
            return -1;
    }
    return 0;
}

/* With several sessions one answers for the other: there nobody need wait long for a path. */
int iscsi_attached(struct sr *sr, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct iscsi_session *s;
    size_t count;
    if (iscsi_sessions(iscsi_iface(&sr->uuid, a), a, &s, &count, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        bool spare = false;
        for (size_t j = 0; j < count; j++)
            spare = spare || (j != i && strcmp(s[i].target, s[j].target) == 0);
        if (!spare && iscsi_session_wait(s[i].sid, ISCSI_PATIENT, f) < 0)
            return fault_prefix(f, "attach SR %s", sr->uuid.text);
    }
    return 0;
}
