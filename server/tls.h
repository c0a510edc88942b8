/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The server's side of mutual TLS: what it shows, whom it believes, and what every session is told before its
   handshake. The HTTP library by itself asks for client certificates but accepts any, or none.

   struct tls is one reading of the files. It never changes; a reload makes another, with a ticket key of its own, and
   sessions keep the one they began with. So a session that is resumed was judged by the same reading: a newer one's key
   does not open its ticket. Whoever answers requests asks tls_session_refused with the newest reading each time. */
#ifndef SMAPI_SERVER_TLS_H
#define SMAPI_SERVER_TLS_H

#include "server/base/fault.h"
#include "server/base/identity.h"
#include "server/pem.h"
#include <gnutls/gnutls.h>

struct tls;

struct tls_files {
    const char *certificate, *key, *client_ca; /* PEM */
    const char *crl;                           /* PEM; "" for none */
};

/* References may be taken and given back on any thread; the last one frees. NULL is fine. */
struct tls *tls_take(struct tls *t);
void tls_release(struct tls *t);

/* Reads the files (pem.h says what the key's must be like). -1 with fault InvalidArg, whose detail is a sentence naming
   the file. */
int tls_load(const struct tls_files *files, struct tls **out, struct fault *f);
/* The same certificate, key and CAs with the revocation list read again. */
int tls_load_crl(const struct tls *t, const char *crl, struct tls **out, struct fault *f);
/* Of the revocation list as it was read; all zero without one. */
struct pem_mark tls_crl_mark(const struct tls *t);
/* Until when the server's own certificate is valid, seconds since 1970. */
int64_t tls_expires(const struct tls *t);

/* GnuTLS's words for the versions and ciphers we speak: TLS 1.2 and 1.3, forward secrecy. */
const char *tls_priorities(void);

/* What a session tells whoever owns it, on the thread that drives it. */
struct tls_events {
    void (*shaken)(void *arg, bool resumed); /* the handshake is as good as done; it may still fail */
    void (*bytes)(void *arg);                /* bytes came, after that */
};

/* One client's session. Part of what its owner keeps for the connection; all calls on the thread that drives it. */
struct tls_session {
    struct tls *tls;          /* with which it began; a reference */
    uint64_t judged;          /* number of the reading that believed it; 0: none yet */
    gnutls_session_t session; /* keeps what the client showed */
    int fd;
    bool shaken;
    const struct tls_events *events;
    void *arg;
    int64_t from, until; /* when all of it is valid, seconds since 1970 */
};

/* The one place where a session is set up, before its handshake: our certificate, tickets, and that the client must
   show a certificate that tls_trust_judge believes; otherwise the handshake fails. s is zeroed; it must outlive g, and
   stay where it is. */
void tls_session_open(struct tls_session *s, struct tls *t, gnutls_session_t g, int fd, const struct tls_events *events,
                      void *arg);
/* After g is gone, of which nothing is used. */
void tls_session_close(struct tls_session *s);

/* Once the handshake is done: why the client's certificate is not believed by the reading now, or since its time is
   over ("it …"); NULL when it is. Verifies it again only when it was judged by another reading; now NULL asks for its
   time alone. */
const char *tls_session_refused(struct tls_session *s, const struct tls *now);

/* Who stands at the other end of a session whose handshake is done. */
void tls_session_identity(const struct tls_session *s, struct identity *out);

#endif
