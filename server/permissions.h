/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The permissions file: a section an identity, by the name log lines give it, or a whole role.

     [operator:olga]
     key = 3f:9a:…              certificates whose public key (SubjectPublicKeyInfo) has this SHA-256 are this identity,
                                whatever they say of themselves, and no others; blanks between several
     certificate = …            the same by the SHA-256 of the whole certificate
     any = read                 on every SR without a line of its own
     6f6a2a9e-… = read data     on this SR, whether it exists or not

     [role host]                for hosts without a section of their own
     any = all

   Verbs: read, data, manage, break, admin; all, what the role may at most; none. The role of [admin:x], [operator:x],
   [reader:x] and [host:<uuid>] is its first word. What no line grants is denied. Lines that start with # or ; are
   comments. Nothing here restricts the local host's UNIX socket. */
#ifndef SMAPI_SERVER_PERMISSIONS_H
#define SMAPI_SERVER_PERMISSIONS_H

#include "handlers/permissions.h"
#include "server/base/fault.h"

/* The file as a table of the caller's (permission_table_free). It must be a plain file that belongs to us or root and
   that nobody else may write. -1 with fault InvalidArg whose detail is a sentence naming file and line. */
int permissions_read(const char *file, struct permission_table **out, struct fault *f);

/* Reads the file ("": none) and has its table count from the next call on, on open connections too. On failure what
   counted before still counts. */
int permissions_load(struct permissions *p, const char *file, struct fault *f);

#endif
