/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* smapid --take-over: says which server owns an SR, and makes this one its owner when that one is gone for good. */
#ifndef SMAPI_SERVER_BIN_TAKE_OVER_H
#define SMAPI_SERVER_BIN_TAKE_OVER_H

#include "server/config.h"

struct take_over_order {
    const char *sr;     /* its uuid */
    const char *word;   /* of --sr: its type and device_config; NULL for one that this server knows */
    const char *owner;  /* the server that is gone; NULL: only says which it is */
    const char *reason; /* for the audit trail */
};

/* Asks the running daemon, or, when none runs, does it itself. Says on stdout whose the SR was and what was done, on
   stderr why not. Returns the exit status: 0 when it is this server's, TAKE_OVER_NOT when it is another's. */
enum { TAKE_OVER_NOT = 1 };
int take_over_run(const struct settings *s, const struct take_over_order *o);

#endif
