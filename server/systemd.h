/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a service manager of systemd's kind hands us and wants to hear: sd_listen_fds(3), sd_notify(3),
   sd_watchdog_enabled(3). Without one all of it does nothing. */
#ifndef SMAPI_SERVER_SYSTEMD_H
#define SMAPI_SERVER_SYSTEMD_H

#include "server/base/fault.h"
#include <stdint.h>

struct systemd {
    int https, socket;         /* listening sockets that were passed, the caller's; -1: none */
    unsigned watchdog_seconds; /* how often it wants to hear that all is well, at least once a second; 0: never */
    char notify[108];          /* where it listens; "" nowhere */
};

/* Reads the environment, and removes from it what children must not see. The sockets are told apart by their names
   ("https", "socket"), or where these say nothing by their family. -1 with fault InvalidArg for sockets that are not
   what they are said to be, or two of a kind. Before any thread is started. */
int systemd_meet(struct systemd *out, struct fault *f);

/* "READY=1" and the like, lines separated by newlines. Nobody who listens is no error. */
void systemd_tell(const struct systemd *s, const char *fmt, ...) PRINTF(2, 3);

#endif
