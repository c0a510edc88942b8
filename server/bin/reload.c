/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/log.h"
#include "server/bin/daemon.h"

enum { NAMES_MAX = 1024 };

/* What a reload has read, before any of it is in force. */
struct fresh {
    struct settings settings;
    struct tls *tls;
    struct permission_table *table;
};

static void fresh_release(struct fresh *n)
{
    permission_table_free(n->table);
    tls_release(n->tls);
}
#define AUTO_FRESH __attribute__((cleanup(fresh_release)))

/* ---- settings ---- */

static int read_settings(struct daemon *d, struct fresh *n, struct fault *f)
{
    return settings_gather(d->source, &n->settings, f);
}

static void use_settings(struct daemon *d, struct fresh *n)
{
    AUTO_TEXT struct text left = TEXT_OF(NAMES_MAX);
    settings_renew(&d->settings, &n->settings, &left);
    log_set_level(d->settings.log_level);
    workers_limit(d->workers, d->settings.limits_sr_workers, d->settings.limits_sr_queue);
    if (left.length > 0)
        log_line(LOG_WARNING, "reload: changed, but taken only at the next start: %s", left.data);
}

/* ---- certificates ---- */

static int read_tls(struct daemon *d, struct fresh *n, struct fault *f)
{
    return daemon_load_tls(d, &n->settings, &n->tls, f);
}

static void set_tls(struct daemon *d, struct tls *t)
{
    tls_release(d->tls);
    d->tls = tls_take(t);
    if (t)
        d->crl_tried = tls_crl_mark(t);
}

static void use_tls(struct daemon *d, struct fresh *n)
{
    const struct https_limits limits = daemon_limits(&d->settings);
    if (n->tls)
        set_tls(d, n->tls);
    https_renew(d->https, n->tls, &limits);
}

/* ---- permissions ---- */

static int read_permissions(struct daemon *d, struct fresh *n, struct fault *f)
{
    (void) d;
    return n->settings.server_permissions[0] ? permissions_read(n->settings.server_permissions, &n->table, f) : 0;
}

static void use_permissions(struct daemon *d, struct fresh *n)
{
    permissions_replace(d->permissions, TAKE(n->table));
}

/* ---- all of it ---- */

/* In this order everything is read, settings first; then in this order all of it is put in force, connections last, as
   they ask who is who again. */
static const struct {
    int (*read)(struct daemon *d, struct fresh *n, struct fault *f);
    void (*use)(struct daemon *d, struct fresh *n);
} steps[] = {
    {read_settings, use_settings},
    {read_permissions, use_permissions},
    {read_tls, use_tls},
};

int smapid_reload(struct daemon *d)
{
    AUTO_FRESH struct fresh n = {.tls = NULL, .table = NULL};
    struct fault f;
    for (size_t i = 0; i < COUNT_OF(steps); i++)
        if (steps[i].read(d, &n, &f) < 0) {
            log_line(LOG_ERROR, "reload: everything stays as it was: %s", f.detail);
            return -1;
        }
    for (size_t i = 0; i < COUNT_OF(steps); i++)
        steps[i].use(d, &n);
    log_line(LOG_INFO, "reload: settings, permissions and certificates were read again");
    return 0;
}

void smapid_reload_crl(struct daemon *d)
{
    struct tls *t = NULL;
    struct fault f;
    if (!d->tls || !d->settings.tls_crl[0])
        return;
    struct pem_mark now = pem_mark_of(d->settings.tls_crl);
    if (pem_mark_equal(&now, &d->crl_tried))
        return;
    d->crl_tried = now;
    if (tls_load_crl(d->tls, d->settings.tls_crl, &t, &f) < 0) {
        log_line(LOG_ERROR, "tls: what was revoked before stays in force: %s", f.detail);
        return;
    }
    const struct https_limits limits = daemon_limits(&d->settings);
    set_tls(d, t);
    https_renew(d->https, t, &limits);
    tls_release(t);
    log_line(LOG_INFO, "tls: %s was read again", d->settings.tls_crl);
}
