/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of what an operation has on a medium before it is whole, or after it is given up:
   <op8>-<kind>-<uuid>.smapi, where op8 are the first eight digits of the operation. They say to any server, also one
   that lost its database, what they are. */
#ifndef SMAPI_BACKENDS_TEMPORARY_H
#define SMAPI_BACKENDS_TEMPORARY_H

#include "server/base/uuid.h"

#define OWN_SUFFIX     ".smapi"
#define TEMPORARY_NAME 64

enum temporary_kind {
    TEMPORARY_NEW,    /* an image or a directory not yet published */
    TEMPORARY_DEL,    /* an image or a directory that is doomed */
    TEMPORARY_LABELS, /* a sidecar being written */
    TEMPORARY_MARK,   /* a marker being written */
    TEMPORARY_MADE,   /* empty file: the directory it is in was made by this server */
    TEMPORARY_GROW,   /* what an image's format needs to undo an interrupted grow */
    TEMPORARY_LINK,   /* a link in the mount base, not yet in place */
    TEMPORARY_TAKE,   /* the marker that follows the one this operation wrote */
    TEMPORARY_KINDS
};

struct temporary {
    char op8[9];
    enum temporary_kind kind;
    struct uuid uuid;
};

void temporary_name(char out[TEMPORARY_NAME], const struct uuid *op, enum temporary_kind kind, const struct uuid *uuid);
/* False, and *out untouched, for any other name. */
bool temporary_parse(const char *name, struct temporary *out);

#endif
