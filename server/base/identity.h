/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who calls, as the transport proved it: a certificate's URI SAN, or the peer credentials of the UNIX socket.
   Never anything from the body. */
#ifndef SMAPI_BASE_IDENTITY_H
#define SMAPI_BASE_IDENTITY_H

#include "server/base/uuid.h"

enum role { ROLE_NONE, ROLE_READER, ROLE_HOST, ROLE_OPERATOR, ROLE_ADMIN };

/* What a method asks of a role; a set. */
enum verb { VERB_READ = 1, VERB_DATA = 2, VERB_MANAGE = 4, VERB_BREAK = 8, VERB_ADMIN = 16 };

#define HOLDER_TEXT 64
#define FINGERPRINT 32 /* bytes of a SHA-256 */

struct identity {
    enum role role;
    struct uuid host;         /* of ROLE_HOST, and of the local host behind the UNIX socket; none otherwise */
    char name[HOLDER_TEXT];   /* for log lines and faults: "host:<uuid>", "admin:<common name>", "local" */
    char holder[HOLDER_TEXT]; /* under which attachments and leases are held: the host's uuid, or name without one */
    /* SHA-256 of the certificate and of its public key (SubjectPublicKeyInfo); zeros behind the UNIX socket. */
    unsigned char certificate[FINGERPRINT], key[FINGERPRINT];
};

#endif
