/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/revoke.h"

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/point.h"
#include <string.h>

#define NS_PER_S INT64_C(1000000000)

static const struct evidence {
    const char *name, *class;
    bool dead, overrides;
} evidences[] = {
#define EVIDENCE(name, class, dead, overrides, sentence) {#name, class, dead, overrides},
#include "handlers/evidence.def"
#undef EVIDENCE
};

enum evidence_kind evidence_find(const char *name)
{
    size_t i = 0;
    while (i < COUNT_OF(evidences) && strcmp(evidences[i].name, name) != 0)
        i++;
    return (enum evidence_kind) i;
}

bool evidence_of_death(const char *why)
{
    for (size_t i = 0; i < COUNT_OF(evidences); i++) {
        size_t length = strlen(evidences[i].name);
        if (strncmp(why, evidences[i].name, length) == 0 && why[length] == ' ')
            return evidences[i].dead;
    }
    return false;
}

struct vdi disk_named(const struct uuid *uuid)
{
    struct vdi vdi = vdi_blank();
    vdi.uuid = *uuid;
    vdi.location = uuid->text;
    return vdi;
}

/* ------------------------------------------------------------------ evidence */

static bool can_fence(const struct revocation *r)
{
    return backend_fences(r->sr);
}

static int refuse(const struct revocation *r, struct fault *f, const char *what)
{
    return fault_set(f, FAULT_LockErr, "the lease of host %s on VDI %s (epoch %llu) stays: %s", r->host, r->vdi.text,
                     (unsigned long long) r->epoch, what);
}

static int refuse_for(const struct revocation *r, struct fault *f, const char *what, int64_t ns)
{
    const char *words =
        arena_printf(r->arena, "%s; ask again in %lld s", what, (long long) ((ns + NS_PER_S - 1) / NS_PER_S));
    return refuse(r, f, words);
}

/* The session the lease was taken in is the host's, and has renewed in time since this server started: it lives. */
static int check_silent(const struct revocation *r, const struct host *h, int64_t now, struct fault *f)
{
    bool own = h && (!uuid_is(&r->lease->boot) || uuid_equal(&h->boot, &r->lease->boot));
    if (own && h->heard && h->state != HOST_UNREGISTERED && now < h->expires)
        return refuse_for(r, f, "the host has renewed, so it lives", h->expires - now);
    return 0;
}

static int check_watchdog(const struct revocation *r, const struct host *h, const struct grace *grace, int64_t now,
                          struct fault *f)
{
    const struct lease_terms *terms = &r->d->settings.terms;
    if (!h || !uuid_is(&r->lease->boot) || !uuid_equal(&h->boot, &r->lease->boot) || !h->watchdog)
        return refuse(r, f, "it was taken in no session with a watchdog");
    int64_t left = h->expires + (terms->dead - terms->ttl) - now;
    if (grace->left > left)
        left = grace->left;
    return left > 0 ? refuse_for(r, f, "the watchdog may not have fired yet", left) : 0;
}

static int check_reboot(const struct revocation *r, const struct host *h, int64_t now, struct fault *f)
{
    if (!h || h->state != HOST_LIVE || !uuid_is(&r->lease->boot) || uuid_equal(&h->boot, &r->lease->boot))
        return refuse(r, f, "the host has not registered another boot than it was taken in");
    if (!can_fence(r) && now < h->old_expires)
        return refuse_for(r, f, "the boot before may still be alive", h->old_expires - now);
    return 0;
}

static int check_evidence(const struct revocation *r, const struct host *h, const struct grace *grace, int64_t now,
                          struct fault *f)
{
    switch (r->evidence) {
    case EVIDENCE_fenced:
        return can_fence(r) ? 0 : refuse(r, f, "its type of repository cannot fence");
    case EVIDENCE_reboot:
        return check_reboot(r, h, now, f);
    case EVIDENCE_watchdog:
        return check_silent(r, h, now, f) < 0 ? -1 : check_watchdog(r, h, grace, now, f);
    case EVIDENCE_ha:
    case EVIDENCE_operator:
        return check_silent(r, h, now, f);
    case EVIDENCE_COUNT:
        break;
    }
    return refuse(r, f, "there is no such evidence");
}

static int read_others(struct txn *t, struct revocation *r, struct fault *f)
{
    struct lease *leases;
    struct attachment *hosts;
    size_t lease_count, host_count;
    if (store_lease_list(t, &r->sr->uuid, &r->vdi, r->arena, &leases, &lease_count, f) < 0 ||
        store_attachment_list(t, &r->sr->uuid, &r->vdi, NULL, r->arena, &hosts, &host_count, f) < 0)
        return -1;
    r->last_lease = lease_count == 1;
    r->last_attachment = host_count == 1 && strcmp(hosts[0].holder, r->host) == 0;
    return 0;
}

/* Where the data path can be fenced the rows say so before it is touched. */
static int judge(struct txn *t, void *arg, struct fault *f)
{
    struct revocation *r = arg;
    struct host *h = NULL;
    struct grace grace;
    int64_t now = clock_boot_ns();
    r->gone = false;
    if (store_lease_find(t, &r->sr->uuid, &r->vdi, r->epoch, r->arena, &r->lease, f) < 0 ||
        store_host_find(t, r->host, r->arena, &h, f) < 0 || store_grace_read(t, now, &grace, f) < 0)
        return -1;
    if (!r->lease && store_lease_was_broken(t, &r->sr->uuid, &r->vdi, r->host, r->epoch, &r->gone, f) < 0)
        return -1;
    if (r->gone)
        return 0;
    if (!r->lease || strcmp(r->lease->holder, r->host) != 0)
        return fault_set(f, FAULT_LockErr, "host %s has no lease of epoch %llu on VDI %s", r->host,
                         (unsigned long long) r->epoch, r->vdi.text);
    if (r->lease->state != LEASE_REVOKING && check_evidence(r, h, &grace, now, f) < 0)
        return -1;
    if (read_others(t, r, f) < 0)
        return -1;
    return can_fence(r) ? store_lease_set(t, r->epoch, LEASE_REVOKING, r->who, r->why, f) : 0;
}

/* ------------------------------------------------------------------ the data path */

static int close_path(const struct revocation *r, struct fault *f)
{
    const struct vdi vdi = disk_named(&r->vdi);
    if (POINT(lease_revoking) < 0)
        return fault_errno(f, FAULT_EIO, "fence epoch %llu of VDI %s", (unsigned long long) r->epoch, r->vdi.text);
    if (can_fence(r))
        return backend_vdi_fence(r->sr, &vdi, r->host, r->epoch, f);
    return r->last_lease ? backend_vdi_deactivate(r->sr, &vdi, f) : 0;
}

static int quarantine(struct txn *t, void *arg, struct fault *f)
{
    const struct revocation *r = arg;
    return store_lease_set(t, r->epoch, LEASE_QUARANTINED, r->who, r->why, f);
}

int revoke_close(struct revocation *r, struct fault *f)
{
    const struct evidence *e = &evidences[r->evidence];
    struct store *store = r->d->settings.store;
    struct fault open = {0}, unkept;
    r->why = arena_printf(r->arena, "%s (%s): %.200s", e->name, e->class, r->reason);
    if ((can_fence(r) ? store_write : store_read)(store, judge, r, f) < 0)
        return -1;
    if (r->gone || close_path(r, &open) == 0)
        return 0;
    r->why = arena_printf(r->arena, "%s; not shown to be closed: %.200s", r->why, open.detail);
    if (e->overrides)
        return 0;
    if (store_write(store, quarantine, r, &unkept) < 0)
        fault_prefix(&open, "%s; and", unkept.detail);
    log_line(LOG_WARNING, "VDI %s: the lease of epoch %llu is in quarantine: %s", r->vdi.text,
             (unsigned long long) r->epoch, open.detail);
    return fault_set(
        f, open.code == FAULT_SRNoSpace ? FAULT_SRNoSpace : FAULT_VDIUnavailable,
        "the data path of VDI %s cannot be shown to be closed to epoch %llu, which stays in quarantine: %s",
        r->vdi.text, (unsigned long long) r->epoch, open.detail);
}

int revoke_record(struct txn *t, const struct revocation *r, struct fault *f)
{
    if (r->gone)
        return 0;
    if (store_lease_break(t, r->epoch, r->who, r->why, f) < 0)
        return -1;
    return evidences[r->evidence].dead ? store_detach(t, &r->sr->uuid, &r->vdi, r->host, f) : 0;
}

/* ------------------------------------------------------------------ what is left of an earlier boot */

/* A disk to be looked at once its turn has come. */
struct stale_job {
    struct dispatch *d;
    struct stale_disk disk;
    char host[HOLDER_TEXT];

    struct arena *arena;
    struct host *session;
    struct lease *lease;           /* of another boot than the session's, NULL for none */
    struct attachment *attachment; /* the same */
    bool last;                     /* nobody else has it attached */
};

static bool is_stale(const struct uuid *boot, const struct host *session)
{
    return uuid_is(boot) && !uuid_equal(boot, &session->boot);
}

static int read_stale(struct txn *t, void *arg, struct fault *f)
{
    struct stale_job *j = arg;
    struct lease *leases;
    struct attachment *hosts;
    size_t lease_count, host_count;
    j->lease = NULL;
    j->attachment = NULL;
    if (store_host_find(t, j->host, j->arena, &j->session, f) < 0 ||
        store_lease_list(t, &j->disk.sr, &j->disk.vdi, j->arena, &leases, &lease_count, f) < 0 ||
        store_attachment_list(t, &j->disk.sr, &j->disk.vdi, NULL, j->arena, &hosts, &host_count, f) < 0)
        return -1;
    for (size_t i = 0; i < lease_count && j->session; i++)
        if (strcmp(leases[i].holder, j->host) == 0 && is_stale(&leases[i].boot, j->session))
            j->lease = &leases[i];
    for (size_t i = 0; i < host_count && j->session; i++)
        if (strcmp(hosts[i].holder, j->host) == 0 && is_stale(&hosts[i].boot, j->session))
            j->attachment = &hosts[i];
    j->last = host_count == 1;
    return 0;
}

static int record_revoked(struct txn *t, void *arg, struct fault *f)
{
    return revoke_record(t, arg, f);
}

static int revoke_of_boot(struct stale_job *j, struct sr *sr, struct fault *f)
{
    struct revocation r = {.d = j->d,
                           .sr = sr,
                           .vdi = j->disk.vdi,
                           .host = j->host,
                           .epoch = j->lease->epoch,
                           .evidence = EVIDENCE_reboot,
                           .who = j->host,
                           .reason = arena_printf(j->arena, "boot %s is over, boot %s has registered",
                                                  j->lease->boot.text, j->session->boot.text),
                           .arena = j->arena};
    if (revoke_close(&r, f) < 0)
        return -1;
    return store_write(j->d->settings.store, record_revoked, &r, f);
}

static int drop_attachment(struct txn *t, void *arg, struct fault *f)
{
    const struct stale_job *j = arg;
    return store_detach(t, &j->disk.sr, &j->disk.vdi, j->host, f);
}

static int settle_stale(struct stale_job *j, struct fault *f)
{
    struct store *store = j->d->settings.store;
    struct sr *sr = registry_find(j->d->registry, &j->disk.sr);
    const struct vdi vdi = disk_named(&j->disk.vdi);
    if (!sr)
        return 0;
    if (registry_serves(j->d->registry, &j->disk.sr, false, f) < 0 || store_read(store, read_stale, j, f) < 0)
        return -1;
    if (j->lease && revoke_of_boot(j, sr, f) < 0)
        return -1;
    if (!j->attachment)
        return 0;
    if (j->last && backend_vdi_detach(sr, &vdi, f) < 0)
        return -1;
    return store_write(store, drop_attachment, j, f);
}

static void run_stale(void *arg)
{
    AUTO_FREE struct stale_job *j = arg;
    AUTO_ARENA struct arena *a = arena_new(64 << 20);
    struct fault f = {0};
    j->arena = a;
    int r = settle_stale(j, &f);
    enum log_level level = r == 0 ? LOG_INFO : f.code == FAULT_LockErr ? LOG_DEBUG : LOG_WARNING;
    log_line(level, "host %s: what an earlier boot left on VDI %s %s%s", j->host, j->disk.vdi.text,
             r < 0 ? "stays: " : "is gone", r < 0 ? f.detail : "");
}

void revoke_stale(struct dispatch *d, const struct call *c)
{
    struct fault f;
    for (size_t i = 0; i < c->work->stale_count; i++) {
        struct stale_job *j = calloc(1, sizeof *j);
        if (!j)
            abort();
        j->d = d;
        j->disk = c->work->stale[i];
        snprintf(j->host, sizeof j->host, "%s", c->work->host->name);
        const struct turn turn = {.lock = LOCK_VDI, .sr = j->disk.sr, .vdi = j->disk.vdi, .lease = true};
        if (d->settings.submit(d->settings.submit_arg, &turn, run_stale, j, &f) < 0) {
            free(j);
            return;
        }
    }
}
