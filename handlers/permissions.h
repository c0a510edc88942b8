/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who may do what on which SR. Without a table every role has its verbs on every SR. With one, deny is the rule: an
   identity has what its own row grants; without a row of its own what the row of its role grants; otherwise nothing.
   A grant for one SR stands above the grant for every SR, in both directions. The local host behind the UNIX socket is
   in no table: root of this machine can read the store anyway. */
#ifndef SMAPI_HANDLERS_PERMISSIONS_H
#define SMAPI_HANDLERS_PERMISSIONS_H

#include "server/base/arena.h"
#include "server/base/identity.h"
#include <stdbool.h>

/* What a role may at most; a set of enum verb. */
unsigned role_verbs(enum role role);
/* "none", "reader", "host", "operator", "admin". */
const char *role_name(enum role role);
const char *verb_name(enum verb verb); /* "read", "data", … */
#define ROLE_COUNT (ROLE_ADMIN + 1)

struct grant {
    const struct grant *next;
    struct uuid sr; /* none: every SR */
    unsigned verbs; /* within role_verbs of the row's role */
};

struct pin {
    const struct pin *next;
    bool of_key; /* of the public key, not of the whole certificate */
    unsigned char digest[FINGERPRINT];
};

struct permission_row {
    struct permission_row *next;
    struct identity who;    /* role, host, name and holder; name "" for everybody of the role */
    const struct pin *pins; /* whose certificates are this identity; NULL leaves it to what certificates say */
    const struct grant *grants;
};

/* Plain data in an arena of its own. */
struct permission_table {
    struct arena *arena;
    struct permission_row *rows;
};

void permission_table_free(struct permission_table *t); /* NULL is fine */

/* The table of the moment. All functions below are safe on any thread. */
struct permissions;

void permissions_free(struct permissions *p);                        /* NULL is fine */
struct permissions *permissions_new(void) DEALLOC(permissions_free); /* without a table */
/* From the next question on this table counts; it is p's now. NULL is none. */
void permissions_replace(struct permissions *p, struct permission_table *table);

/* Who a certificate is by the table: the identity one of whose pins fits, whatever the certificate says; nobody
   (ROLE_NONE) when it says the name of an identity that has other pins; else as it is. */
void permissions_identify(struct permissions *p, struct identity *who);

/* What who may on this SR, whether there is one or not; sr none: on SRs as such. */
unsigned permissions_on(struct permissions *p, const struct identity *who, const struct uuid *sr);
/* What who may on any SR at all. */
unsigned permissions_anywhere(struct permissions *p, const struct identity *who);

#endif
