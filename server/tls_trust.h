/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whom the server believes: the CAs of its clients, and what they have revoked. Never changes once it is made; not used
   by two threads at once. */
#ifndef SMAPI_SERVER_TLS_TRUST_H
#define SMAPI_SERVER_TLS_TRUST_H

#include "server/pem.h"
#include <gnutls/gnutls.h>

/* Certificates a client may show, its own included, and their bytes together. */
enum { TLS_CHAIN_MAX = 4, TLS_CHAIN_BYTES = 16384 };

struct tls_trust;

void tls_trust_free(struct tls_trust *t); /* NULL is fine */

/* The names are for sentences. crl NULL: nothing is revoked. Every list in it must be signed by one of the CAs; one
   whose time has passed still counts, with a warning in the log: not to know the newest is no reason to believe all, or
   nobody. -1 with fault InvalidArg. */
int tls_trust_new(const struct pem *ca, const char *ca_name, const struct pem *crl, const char *crl_name,
                  struct tls_trust **out, struct fault *f);

struct tls_verdict {
    const char *why; /* NULL: believed. Else "it …", for a sentence about the certificate */
    gnutls_alert_description_t alert;
    int64_t from, until; /* believed: not before and not after these, seconds since 1970 */
};

/* A chain as the client sent it, its own certificate first: signed by a CA of ours, in its time, meant for clients, of
   112 bits of strength or more, at most TLS_CHAIN_MAX long, no part of it revoked. */
struct tls_verdict tls_trust_judge(const struct tls_trust *t, const gnutls_datum_t *chain, unsigned count);
/* Only when all of a chain is valid, for one that was judged before. -1 when it cannot be read. */
int tls_trust_times(const gnutls_datum_t *chain, unsigned count, int64_t *from, int64_t *until);

#endif
