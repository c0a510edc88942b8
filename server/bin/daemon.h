/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's life: reads its settings, wires the parts together, renews what may change, takes all down again. */
#ifndef SMAPI_SERVER_BIN_DAEMON_H
#define SMAPI_SERVER_BIN_DAEMON_H

#include "handlers/dispatch.h"
#include "server/base/arena.h"
#include "server/config.h"
#include "server/https.h"
#include "server/metrics.h"
#include "server/permissions.h"
#include "server/systemd.h"
#include "server/tls.h"
#include "server/workers.h"
#include "store/store.h"

#define CONFIG_FILE "/etc/smapid/smapid.conf"

/* Exit statuses, of sysexits(3). */
enum { EXIT_USAGE = 64, EXIT_LOST = 65, EXIT_SYSTEM = 71, EXIT_IN_USE = 75, EXIT_SETTINGS = 78 };

/* Where settings come from, at the start and at each reload. */
struct settings_source {
    const char *config; /* NULL: CONFIG_FILE, if it is there */
    const char **sets;  /* of --set, in order; count of them */
    size_t count;
};

/* Defaults, file, command line, checked. -1 with fault InvalidArg. */
int settings_gather(const struct settings_source *source, struct settings *out, struct fault *f);

/* Everything that lives as long as the daemon, in the order in which it is made. */
struct daemon {
    const struct settings_source *source;
    struct settings settings; /* in force */
    struct systemd systemd;
    struct tls *tls;           /* in force; NULL without HTTPS */
    struct pem_mark crl_tried; /* what of tls.crl was read last, or could not be used */
    struct permissions *permissions;
    struct uuid host;
    struct store *store;
    struct workers *workers;
    struct metrics *metrics;
    struct dispatch *dispatch;
    struct arena *arena; /* what recoveries need */
    const char *holds;   /* directory of the locks that children inherit */
    struct https *https;
    char versions[256];
};

/* Whether these settings want a HTTPS listener. */
bool daemon_has_https(const struct daemon *d, const struct settings *s);
/* How long leases last. */
struct lease_terms settings_terms(const struct settings *s);
/* As https.h wants them. */
struct https_limits daemon_limits(const struct settings *s);
/* The files of tls.*. Nothing, and 0, without HTTPS. -1 with fault InvalidArg. */
int daemon_load_tls(const struct daemon *d, const struct settings *s, struct tls **out, struct fault *f);

/* Both return the process's exit status. check says on stderr what is wrong. serve returns when it was told to end. */
int daemon_check(const struct settings *s);
int daemon_serve(const struct settings_source *source, const struct settings *s);

/* Everything that can change while the daemon runs, read again: all of it, or, when one file cannot be used, nothing.
   One log line says which. 0, or -1 when all stays as it was. On the main thread. */
int smapid_reload(struct daemon *d);
/* Reads tls.crl alone, if the file changed since it was tried last. On the main thread. */
void smapid_reload_crl(struct daemon *d);

#endif
