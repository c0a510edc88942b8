/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is wanted, sessions to it, and the disks in them. */
#include "backends/scsi/command.h"
#include "backends/tools/multipath.h"
#include "backends/transports/iscsi.h"
#include "server/base/clock.h"
#include "server/base/point.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

enum { ANSWER_SECONDS = 5 };
#define APPEAR_NS (15 * INT64_C(1000000000))

/* ------------------------------------------------------------------ device_config */

static const char *given(const struct pairs *config, const char *key)
{
    const char *value = pairs_get(config, key);
    return value && value[0] ? value : NULL;
}

static struct secret secret_of(const struct secrets *secrets, const char *key)
{
    for (size_t i = 0; secrets && i < secrets->count; i++)
        if (strcmp(secrets->items[i].key, key) == 0)
            return secrets->items[i].value;
    return (struct secret){NULL};
}

/* Words between commas; at most room of them. */
static size_t words_of(const char *list, struct arena *a, const char **out, size_t room)
{
    size_t n = 0;
    while (list && *list && n < room) {
        size_t length = strcspn(list, ",");
        if (length)
            out[n++] = arena_copy(a, list, length);
        list += length + (list[length] == ',');
    }
    return n;
}

static int read_portals(const char *list, unsigned default_port, struct iscsi_want *w, struct fault *f)
{
    const char *words[ISCSI_PORTALS_MAX];
    size_t count = words_of(list, w->arena, words, ISCSI_PORTALS_MAX);
    for (size_t i = 0; i < count; i++) {
        char host[ADDRESS_NAME + 1];
        unsigned port = default_port;
        if (!portal_split(words[i], strlen(words[i]), host, &port))
            return fault_set(f, FAULT_BadCharacter, "target %.200s is no host or host:port", words[i]);
        if (portal_resolve(host, port, &w->portals[w->portal_count], f) < 0)
            return -1;
        w->portal_count++;
    }
    return 0;
}

/* localIQN, or the host's own name, which is then not written down but left to open-iscsi. */
static int read_initiator(const struct pairs *config, struct iscsi_want *w, struct fault *f)
{
    const char *host = iscsiadm_host_name(w->arena), *local = given(config, "localIQN");
    if (!host && !local)
        return fault_set(f, FAULT_ConfigISCSIIQNMissing,
                         "there is no localIQN in device_config and no name in the host's initiatorname.iscsi");
    w->who.name = local && host && strcmp(local, host) == 0 ? NULL : local;
    return 0;
}

int iscsi_read(const struct pairs *config, const struct secrets *secrets, const char *iface, struct arena *a,
               struct iscsi_want *out, struct fault *f)
{
    const char *port = given(config, "port"), *record = given(config, "usediscoverynumber");
    *out = (struct iscsi_want){.arena = a,
                               .target = given(config, "targetIQN"),
                               .record = record ? strtoul(record, NULL, 10) + 1 : 0,
                               .who = {.iface = iface, .hold = -1, .user = given(config, "chapuser")}};
    out->who.password = secret_of(secrets, "chappassword");
    out->who.user_in = given(config, "incoming_chapuser");
    out->who.password_in = secret_of(secrets, "incoming_chappassword");
    out->lun_count = words_of(given(config, "LUNid"), a, out->luns, ISCSI_LUNS_MAX);
    out->id_count = words_of(given(config, "SCSIid"), a, out->ids, ISCSI_LUNS_MAX);
    if (read_initiator(config, out, f) < 0)
        return -1;
    return read_portals(given(config, "target"), port ? (unsigned) strtoul(port, NULL, 10) : ISCSI_PORT, out, f);
}

/* ------------------------------------------------------------------ sessions */

static bool wants_all(const struct iscsi_want *w)
{
    return strcmp(w->target, ISCSI_ALL) == 0;
}

static bool is_wanted(const struct iscsi_want *w, const char *target)
{
    return w->target && (wants_all(w) || strcmp(target, w->target) == 0);
}

static size_t logged_in(const struct iscsi_session *s, size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += s[i].logged_in;
    return n;
}

/* Sessions of ours that are there already. One that has lost its target is waited for as long as a disk is. */
static int find_sessions(const struct iscsi_want *w, bool *found, struct fault *f)
{
    struct iscsi_session *s;
    size_t count = 0;
    int64_t until = clock_boot_ns() + APPEAR_NS;
    do {
        if (iscsi_sessions(w->who.iface, w->arena, &s, &count, f) < 0)
            return -1;
        if (logged_in(s, count) || count == 0)
            break;
        scsi_events_wait(-1, until);
    } while (clock_boot_ns() < until);
    for (size_t i = 0; i < count; i++)
        if (!is_wanted(w, s[i].target))
            return fault_set(f, FAULT_ISCSIIQN, "session %u of interface %s is with target %.200s, not %.200s",
                             s[i].sid, w->who.iface, s[i].target, w->target ? w->target : "(none)");
    if (count && !logged_in(s, count))
        return fault_set(f, FAULT_ISCSITarget, "session %u with target %.200s is there, but the target does not answer",
                         s[0].sid, w->target);
    *found = count > 0;
    return 0;
}

/* The offers of the first portal that answers. */
static int discover(const struct iscsi_want *w, struct iscsi_offer **offers, size_t *count, struct fault *f)
{
    for (size_t i = 0; i < w->portal_count; i++)
        if (portal_answers(&w->portals[i], ANSWER_SECONDS, f) == 0 &&
            iscsiadm_discover(&w->who, &w->portals[i], w->arena, offers, count, f) == 0)
            return 0;
    return w->portal_count ? -1 : fault_set(f, FAULT_ConfigTargetMissing, "device_config target names no host");
}

static bool asked_for(const struct iscsi_want *w, const struct portal *p)
{
    for (size_t i = 0; i < w->portal_count; i++)
        if (portal_equal(&w->portals[i], p))
            return true;
    return false;
}

/* The offers to log in to: of the target, those at portals that were asked for before the others. */
static size_t choose(const struct iscsi_want *w, const struct iscsi_offer *offers, size_t count,
                     struct iscsi_offer *out)
{
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < count; i++)
            if (is_wanted(w, offers[i].target) && asked_for(w, &offers[i].portal) == (pass == 0) &&
                (w->record == 0 || w->record == i + 1))
                out[n++] = offers[i];
    return n;
}

static int refuse_target(const struct iscsi_want *w, const struct iscsi_offer *offers, size_t count, struct fault *f)
{
    if (w->target)
        fault_set(f, FAULT_ConfigTargetIQNMissing, "target %.200s is not among the %zu offered to this initiator",
                  w->target, count);
    else
        fault_set(f, FAULT_ConfigTargetIQNMissing, "device_config has no targetIQN; %zu targets are offered", count);
    fault_document(f, iscsi_target_list(offers, count, &w->portals[0], w->arena));
    return -1;
}

static int sessions_came(const struct iscsi_want *w, struct fault *f)
{
    struct fault why = *f;
    struct iscsi_session *s;
    size_t there = 0;
    if (iscsi_sessions(w->who.iface, w->arena, &s, &there, f) < 0)
        return -1;
    if (there)
        return 0;
    *f = why;
    return f->code ? -1 : fault_set(f, FAULT_ISCSILogin, "no session with target %.200s came to be", w->target);
}

static bool offered_before(const struct iscsi_offer *offers, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (strcmp(offers[i].target, offers[at].target) == 0)
            return true;
    return false;
}

/* Every target by the first portal of its that is offered, by all of them for disks of several paths. One that does
   not let us in keeps nobody from the others. */
static int log_in_to_all(const struct iscsi_want *w, const struct iscsi_offer *chosen, size_t count, struct fault *f)
{
    if (iscsiadm_begin(&w->who, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if ((w->who.multipath || !offered_before(chosen, i)) &&
            portal_answers(&chosen[i].portal, ANSWER_SECONDS, f) == 0 && iscsiadm_add(&w->who, &chosen[i], f) < 0)
            return -1;
    if (POINT(iscsi_record_written) < 0)
        return fault_errno(f, FAULT_ISCSILogin, "log in to all targets");
    iscsiadm_login(&w->who, f);
    if (POINT(iscsi_logged_in) < 0)
        return fault_errno(f, FAULT_ISCSILogin, "log in to all targets");
    return sessions_came(w, f);
}

/* One portal after the other until one lets us in; all of them for a disk of several paths. */
static int log_in(const struct iscsi_want *w, const struct iscsi_offer *chosen, size_t count, struct fault *f)
{
    for (size_t i = 0; i < count; i++) {
        if (portal_answers(&chosen[i].portal, ANSWER_SECONDS, f) < 0)
            continue;
        if (iscsiadm_begin(&w->who, f) < 0 || iscsiadm_add(&w->who, &chosen[i], f) < 0)
            return -1;
        if (POINT(iscsi_record_written) < 0)
            return fault_errno(f, FAULT_ISCSILogin, "log in to target %.200s", w->target);
        int failed = iscsiadm_login(&w->who, f);
        if (POINT(iscsi_logged_in) < 0)
            return fault_errno(f, FAULT_ISCSILogin, "log in to target %.200s", w->target);
        if (failed == 0 && !w->who.multipath)
            break;
        if (failed && !w->who.multipath && iscsiadm_end(w->who.iface, f) < 0)
            return -1;
    }
    return sessions_came(w, f);
}

static int begin(struct iscsi_want *w, struct fault *f)
{
    struct iscsi_offer *offers = NULL;
    size_t count = 0;
    w->keyless = w->who.user && !secret_reveal(w->who.password);
    if (w->keyless)
        return fault_set(
            f, FAULT_SRUnavailable,
            "there is no session with target %.200s, and its password is not kept: sr_attach must bring it",
            w->target ? w->target : "(none)");
    if (iscsiadm_begin(&w->who, f) < 0)
        return -1;
    if (POINT(iscsi_interface_made) < 0)
        return fault_errno(f, FAULT_ISCSIInitiator, "make interface %s", w->who.iface);
    if (discover(w, &offers, &count, f) < 0)
        return -1;
    struct iscsi_offer *chosen = ARENA_ARRAY(w->arena, struct iscsi_offer, count + 1);
    size_t n = w->target ? choose(w, offers, count, chosen) : 0;
    if (n == 0)
        return refuse_target(w, offers, count, f);
    w->who.multipath = w->paths && n > 1 && multipath_runs();
    return wants_all(w) ? log_in_to_all(w, chosen, n, f) : log_in(w, chosen, n, f);
}

int iscsi_connect(struct iscsi_want *w, struct fault *f)
{
    bool found = false;
    struct fault ignored;
    if (find_sessions(w, &found, f) < 0)
        return -1;
    if (found)
        return 0;
    struct fault why = {0};
    if (begin(w, &why) == 0) {
        w->fresh = true;
        return 0;
    }
    iscsi_end(w->who.iface, w->who.hold, &ignored);
    *f = why;
    return -1;
}

/* ------------------------------------------------------------------ ending them */

/* What is to end. */
struct ending {
    struct arena *arena;
    const struct iscsi_session *sessions;
    size_t count;
    int hold;
};

bool iscsi_alone(const char *map, const struct iscsi_session *sessions, size_t count, struct arena *a)
{
    const char **paths;
    struct scsi_disk d;
    size_t all = multipath_paths(map, a, &paths), ours = 0;
    for (size_t i = 0; i < all; i++)
        for (size_t s = 0; s < count && scsi_disk_at(arena_printf(a, "/dev/%s", paths[i]), a, &d); s++)
            ours += d.host == sessions[s].host;
    return ours == all;
}

static bool is_ours(const struct ending *e, const char *map)
{
    return iscsi_alone(map, e->sessions, e->count, e->arena);
}

/* A probe's session may be one path more of an attached SR's map. Who holds that has others. */
static bool is_guest(const struct ending *e, const struct iscsi_session *s, const char *map)
{
    return strncmp(s->iface, ISCSI_PROBE, strlen(ISCSI_PROBE)) == 0 && !is_ours(e, map);
}

/* Something stands on the disk, or on a map over it: a file system, a volume, a mapping. */
static bool is_held(const struct ending *e, const struct iscsi_session *s, const struct scsi_disk *d)
{
    const char *map = multipath_over(d->name, e->arena), *top = map[0] ? map : d->name;
    if (map[0] && is_guest(e, s, map))
        return false;
    int fd = open(arena_printf(e->arena, "/dev/%s", top), O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EBUSY;
}

static int refuse_if_held(const struct ending *e, const struct iscsi_session *s, const struct scsi_disk *d,
                          struct fault *f)
{
    if (!is_held(e, s, d))
        return 0;
    return fault_set(f, FAULT_SRInUse, "something stands on %s, LUN %" PRIu64 " of target %.200s", d->name, d->lun,
                     s->target);
}

/* A path that multipathd does not let go of goes with its session. */
static int leave_map(const struct ending *e, const struct iscsi_session *s, const struct scsi_disk *d, struct fault *f)
{
    struct fault ignored;
    const char *map = multipath_over(d->name, e->arena);
    if (!map[0])
        return 0;
    if (!is_ours(e, map)) {
        multipath_drop_path(d->name, e->hold, &ignored);
        return 0;
    }
    if (multipath_remove(map, d->id, e->hold, f) < 0)
        return -1;
    return POINT(multipath_unmapped) < 0 ? fault_errno(f, FAULT_ISCSIDetach, "end session %u", s->sid) : 0;
}

typedef int visitor(const struct ending *e, const struct iscsi_session *s, const struct scsi_disk *d, struct fault *f);

static int each_disk(const struct ending *e, visitor *visit, struct fault *f)
{
    struct scsi_disk *disks;
    size_t count;
    for (size_t i = 0; i < e->count; i++) {
        if (scsi_disks(e->sessions[i].host, e->arena, &disks, &count, f) < 0)
            return -1;
        for (size_t j = 0; j < count; j++)
            if (disks[j].name[0] && visit(e, &e->sessions[i], &disks[j], f) < 0)
                return -1;
    }
    return 0;
}

/* One before it, or one after it that is logged in where it is not, takes its place. */
static bool is_spare(const struct iscsi_session *s, size_t count, size_t at)
{
    for (size_t i = 0; i < count; i++)
        if (i != at && strcmp(s[i].target, s[at].target) == 0 &&
            (s[i].logged_in == s[at].logged_in ? i < at : s[i].logged_in))
            return true;
    return false;
}

int iscsi_keep_one(const struct iscsi_want *w, struct fault *f)
{
    struct iscsi_session *s;
    size_t count;
    if (iscsi_sessions(w->who.iface, w->arena, &s, &count, f) < 0)
        return -1;
    const struct ending e = {.arena = w->arena, .sessions = s, .count = count, .hold = w->who.hold};
    if (each_disk(&e, leave_map, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (is_spare(s, count, i) && iscsiadm_logout(s[i].sid, w->who.hold, f) < 0)
            return -1;
    return 0;
}

int iscsi_end(const char *iface, int hold, struct fault *f)
{
    AUTO_ARENA struct arena *a = arena_new(32 << 20);
    struct iscsi_session *s;
    size_t count = 0;
    if (iscsi_sessions(iface, a, &s, &count, f) < 0)
        return -1;
    const struct ending e = {.arena = a, .sessions = s, .count = count, .hold = hold};
    if (count && iscsiadm_remember(iface, f) < 0)
        return -1;
    if (each_disk(&e, refuse_if_held, f) < 0 || each_disk(&e, leave_map, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (iscsiadm_logout(s[i].sid, hold, f) < 0)
            return -1;
    if (count && (iscsi_sessions(iface, a, &s, &count, f) < 0 || count))
        return count ? fault_set(f, FAULT_ISCSIDetach, "session %u with target %.200s does not end", s[0].sid,
                                 s[0].target)
                     : -1;
    return iscsiadm_end(iface, f);
}

/* ------------------------------------------------------------------ disks */

static bool in_list(const char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

static bool selected(const struct iscsi_want *w, const struct scsi_disk *d)
{
    char lun[24];
    snprintf(lun, sizeof lun, "%" PRIu64, d->lun);
    if (w->lun_count && !in_list(w->luns, w->lun_count, lun))
        return false;
    return w->id_count == 0 || in_list(w->ids, w->id_count, d->id);
}

/* All disks of all sessions; of those of a LUN that has several, of the ones whose portal answers. ready: each has its
   device node. */
static int list_disks(const struct iscsi_want *w, struct scsi_disk **out, size_t *count, bool *ready, struct fault *f)
{
    struct iscsi_session *s;
    size_t sessions, n = 0;
    if (iscsi_sessions(w->who.iface, w->arena, &s, &sessions, f) < 0)
        return -1;
    struct scsi_disk **lists = ARENA_ARRAY(w->arena, struct scsi_disk *, sessions + 1);
    size_t *counts = ARENA_ARRAY(w->arena, size_t, sessions + 1), all = 0;
    for (size_t i = 0; i < sessions; i++) {
        if (w->paths && !s[i].logged_in)
            continue;
        if (scsi_disks(s[i].host, w->arena, &lists[i], &counts[i], f) < 0)
            return -1;
        all += counts[i];
    }
    struct scsi_disk *disks = ARENA_ARRAY(w->arena, struct scsi_disk, all + 1);
    *ready = true;
    for (size_t i = 0; i < sessions; i++)
        for (size_t j = 0; j < counts[i]; j++) {
            disks[n] = lists[i][j];
            *ready = *ready && scsi_disk_ready(&disks[n]);
            n++;
        }
    *out = disks;
    *count = n;
    return 0;
}

static int scan(const struct iscsi_want *w, bool all, struct fault *f)
{
    struct iscsi_session *s;
    size_t sessions;
    if (iscsi_sessions(w->who.iface, w->arena, &s, &sessions, f) < 0)
        return -1;
    for (size_t i = 0; i < sessions; i++) {
        if (!s[i].logged_in)
            continue;
        if (all || w->lun_count == 0) {
            if (scsi_scan(s[i].host, "-", f) < 0)
                return -1;
            continue;
        }
        for (size_t j = 0; j < w->lun_count; j++)
            if (scsi_scan(s[i].host, w->luns[j], f) < 0)
                return -1;
    }
    return 0;
}

static int wait_for_disks(const struct iscsi_want *w, int events, struct scsi_disk **out, size_t *count,
                          struct fault *f)
{
    bool ready = false;
    int64_t until = clock_boot_ns() + APPEAR_NS;
    for (;;) {
        if (list_disks(w, out, count, &ready, f) < 0)
            return -1;
        if (ready)
            return 0;
        if (clock_boot_ns() >= until)
            return fault_set(f, FAULT_ISCSIDevice, "the disks of target %.200s have no device nodes after 15 s",
                             w->target);
        scsi_events_wait(events, until);
    }
}

/* A LUN or identity that was asked for and is not there; everything there is then shown. */
static int refuse_selection(const struct iscsi_want *w, const char *what, const char *word, enum fault_code code,
                            int events, struct fault *f)
{
    struct scsi_disk *disks;
    size_t count;
    if (scan(w, true, f) < 0 || wait_for_disks(w, events, &disks, &count, f) < 0)
        return -1;
    if (word)
        fault_set(f, code, "target %.200s shows no LUN with %s %.100s", w->target, what, word);
    else
        fault_set(f, code, "device_config has neither LUNid nor SCSIid; target %.200s shows %zu LUNs", w->target,
                  count);
    fault_document(f, iscsi_lun_list(disks, count, w->arena));
    return -1;
}

static int check_selection(const struct iscsi_want *w, const struct scsi_disk *disks, size_t count, int events,
                           struct fault *f)
{
    if (!w->lun_count && !w->id_count && w->lun_missing)
        return refuse_selection(w, "", NULL, w->lun_missing, events, f);
    for (size_t i = 0; i < w->lun_count; i++) {
        const struct scsi_disk *found = NULL;
        for (size_t j = 0; j < count && !found; j++)
            if (disks[j].lun == strtoull(w->luns[i], NULL, 10))
                found = &disks[j];
        if (!found)
            return refuse_selection(w, "LUNid", w->luns[i], FAULT_ConfigLUNMissing, events, f);
        if (!found->id[0])
            return fault_set(f, FAULT_ConfigLUNSerialMissing, "LUN %s of target %.200s tells no identity", w->luns[i],
                             w->target);
    }
    for (size_t i = 0; i < w->id_count; i++) {
        bool found = false;
        for (size_t j = 0; j < count && !found; j++)
            found = strcmp(disks[j].id, w->ids[i]) == 0;
        if (!found)
            return refuse_selection(w, "SCSIid", w->ids[i], FAULT_ConfigSCSIid, events, f);
    }
    return 0;
}

int iscsi_refresh(const struct iscsi_want *w, struct fault *f)
{
    struct scsi_disk *disks;
    size_t count;
    bool ready;
    struct fault why = {0};
    if (list_disks(w, &disks, &count, &ready, f) < 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const char *id = "";
        enum scsi_answer answer = disks[i].name[0] ? scsi_identify(disks[i].name, w->arena, &id, &why) : SCSI_GONE;
        if (answer != SCSI_GOOD && answer != SCSI_GONE)
            return fault_set(f, FAULT_SRScan, "LUN %" PRIu64 " of target %.200s does not answer: %.300s", disks[i].lun,
                             w->target, why.detail);
        bool same = answer == SCSI_GOOD && strcmp(id, disks[i].id) == 0;
        if (same ? scsi_rescan(disks[i].name, f) < 0 : scsi_forget(&disks[i], f) < 0)
            return -1;
    }
    return 0;
}

/* A target that went while it was looked at has shown less than it has. */
static int check_there(const struct iscsi_want *w, struct fault *f)
{
    struct iscsi_session *s;
    size_t count;
    if (iscsi_sessions(w->who.iface, w->arena, &s, &count, f) < 0)
        return -1;
    return logged_in(s, count)
               ? 0
               : fault_set(f, FAULT_ISCSITarget, "target %.200s went while it was asked for its LUNs", w->target);
}

int iscsi_disks(const struct iscsi_want *w, struct scsi_disk **out, size_t *count, struct fault *f)
{
    struct scsi_disk *disks;
    size_t all, n = 0;
    AUTO_FD int events = scsi_events_open();
    if (scan(w, false, f) < 0)
        return -1;
    if (POINT(iscsi_scanned) < 0)
        return fault_errno(f, FAULT_ISCSIDevice, "scan target %.200s", w->target);
    int appeared = wait_for_disks(w, events, &disks, &all, f);
    if (check_there(w, f) < 0 || appeared < 0 || check_selection(w, disks, all, events, f) < 0)
        return -1;
    for (size_t i = 0; i < all; i++) {
        if (selected(w, &disks[i]) && disks[i].id[0])
            disks[n++] = disks[i];
        else if ((w->lun_count || w->id_count) && scsi_forget(&disks[i], f) < 0)
            return -1;
    }
    if (all && n == 0)
        return fault_set(f, FAULT_ConfigLUNSerialMissing, "no LUN of target %.200s tells an identity", w->target);
    *out = disks;
    *count = n;
    return 0;
}
