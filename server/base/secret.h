/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text nobody may see: passwords, session references. It is a struct so that it cannot be handed to anything that
   prints; what is printed, stored or compared in its place is SECRET_SHOWN. */
#ifndef SMAPI_BASE_SECRET_H
#define SMAPI_BASE_SECRET_H

#include <stddef.h>

#define SECRET_SHOWN "***"

struct secret {
    const char *hidden; /* NULL when it was not given */
};

/* "***"; "" for one that is empty or was not given. */
static inline const char *secret_show(struct secret s)
{
    return s.hidden && s.hidden[0] ? SECRET_SHOWN : "";
}

/* The text itself, for the one who logs in with it, and nobody else; NULL when it was not given. */
static inline const char *secret_reveal(struct secret s)
{
    return s.hidden;
}

struct secret_pair {
    const char *key;
    struct secret value;
};

/* The secret members of a device_config. */
struct secrets {
    struct secret_pair *items;
    size_t count;
};

#endif
