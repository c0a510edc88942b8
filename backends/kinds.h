/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kinds of device_config values (types.def). */
#ifndef SMAPI_BACKENDS_KINDS_H
#define SMAPI_BACKENDS_KINDS_H

struct config_kind {
    const char *name;
    const char *(*bad)(const char *text); /* what is wrong with a text that is not empty, or NULL; never keeps it */
};

/* NULL when there is none of that name. */
const struct config_kind *config_kind_find(const char *name);

#endif
