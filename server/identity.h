/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From what the transport proved to struct identity. A certificate says who it is in exactly one URI of its subject
   alternative names:
     urn:smapid:role:admin, urn:smapid:role:operator, urn:smapid:role:reader   together with its common name
     urn:smapid:host:<uuid>                                                    a Xen host
   The permissions file may say otherwise by the fingerprints, which are read too (handlers/permissions.h).
   Anything else (none, two, another urn:smapid:, a common name that cannot be printed) is ROLE_NONE: it gets as far as
   dispatch, which refuses it by name. */
#ifndef SMAPI_SERVER_IDENTITY_H
#define SMAPI_SERVER_IDENTITY_H

#include "server/base/identity.h"
#include <stddef.h>
#include <sys/socket.h>

/* A certificate whose chain was verified, DER. */
void identity_of_certificate(const void *der, size_t length, struct identity *out);

/* The process behind a UNIX socket: root, and the daemon's own user, are this host's admin; all others ROLE_NONE. */
void identity_of_peer(const struct ucred *peer, const struct uuid *local_host, struct identity *out);

#endif
