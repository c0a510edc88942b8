/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry of SR types, read from types.def. */
#ifndef SMAPI_BACKENDS_TYPES_H
#define SMAPI_BACKENDS_TYPES_H

#include "backends/driver.h"

/* What sr_get_driver_info says of every type; the bridge and the daemon must say the same. */
#define DRIVER_VENDOR      "smapid"
#define DRIVER_COPYRIGHT   "(C) the smapid authors, LGPL-2.1-or-later"
#define DRIVER_API_VERSION "1.1"

struct config_key {
    const char *key, *kind;
    bool required;
    enum fault_code missing, bad;
    const char *text;
};

/* An outside program that a type runs. */
struct program {
    bool required; /* by all SRs of the type */
    const char *path, *package;
    const char *asking; /* the argument with which it says its version */
};

struct sr_type {
    const char *name;
    const struct layout *layout;
    const struct transport *transport;
    enum fencing fencing;
    const char *content; /* phy, vhd, … */
    const char *title, *text;
    const char *const *capabilities;
    size_t capability_count;
    const struct config_key *keys;
    size_t key_count;
    const struct program *programs;
    size_t program_count;
};

/* Words for enum fencing, for readers that link no driver. */
#define FENCING_WORDS                                                                                                  \
    {                                                                                                                  \
        "none", "advisory", "sr", "host", "vdi"                                                                        \
    }
const char *fencing_name(enum fencing fencing);

const struct sr_type *sr_types(size_t *count);
/* NULL when there is none; SRUnknownType is the caller's to say. */
const struct sr_type *sr_type_find(const char *name);

/* Whether the value of this key of a device_config must never be seen: a key of kind secret, and by name, for every
   type (NULL too), what ends in "password" or "_secret", in whatever case. */
bool config_key_is_secret(const struct sr_type *type, const char *key);

/* InvalidDev naming the first program, and its package, that SRs of the type cannot do without and that is not
   installed on this host. */
int sr_type_ready(const struct sr_type *type, struct fault *f);

/* Asks the program for its version: the first word of the answer that is numbers with dots between them. "" when it
   gives none, or does not answer within seconds; NULL when it is not installed. */
const char *program_version(const struct program *program, struct arena *a);
/* The same from what a program printed. */
const char *version_in(const char *text, struct arena *a);

/* Some type has this key and takes this value for it. */
bool config_takes(const char *key, const char *value);

/* Checks a device_config against the type's keys: each required one there, each value of its kind, no unknown key
   (InvalidArg; SRmaster, which xapi puts into every call, is known everywhere). When partial is set, as for a probe,
   nothing but what is there is checked, and keys marked REQUIRED are still required. */
int backend_config_check(const struct sr_type *type, const struct pairs *config, struct fault *f);

#endif
