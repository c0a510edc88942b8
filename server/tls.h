/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The server's side of mutual TLS: what it shows, whom it believes, and what every session is told before its
   handshake. The HTTP library by itself asks for client certificates but accepts any, or none. */
#ifndef SMAPI_SERVER_TLS_H
#define SMAPI_SERVER_TLS_H

#include "server/base/fault.h"
#include "server/base/identity.h"
#include <gnutls/gnutls.h>

struct tls;

struct tls_files {
    const char *certificate, *key, *client_ca; /* PEM */
};

void tls_free(struct tls *t); /* after the last session ended; NULL is fine */

/* Reads the files. The key must be a plain file of mode 0600 or 0400 that belongs to us or root. -1 with fault
   InvalidArg, whose detail is a sentence naming the file. */
int tls_load(const struct tls_files *files, struct tls **out, struct fault *f);

/* GnuTLS's words for the versions and ciphers we speak: TLS 1.2 and 1.3, forward secrecy. */
const char *tls_priorities(void);

/* The one place where a session is set up, before its handshake: our certificate, and that the client must show one
   that client_ca signed, that is valid today and may be used by clients. Otherwise the handshake fails. */
void tls_session_setup(const struct tls *t, gnutls_session_t session);

/* Who stands at the other end of a session whose handshake is done. */
void tls_session_identity(gnutls_session_t session, struct identity *out);

#endif
