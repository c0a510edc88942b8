/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handlers/method.h"

#include "handlers/phases.h"
#include <string.h>

#define REQUIRED true
#define OPTIONAL false
#define PARAM_ROW(m, kind, need, place, name, text)                                                                    \
    {#name, PARAM_##kind, need, PLACE_##place, offsetof(struct m##_args, name), text},
#define METHOD(m, wire, lock, cap, effect, verb, result, text)                                                         \
    static const struct param m##_params[] = {PARAMS_##m(PARAM_ROW, m){.name = NULL}};
#include "handlers/methods.def"
#undef METHOD

static const struct method rows[] = {
#define METHOD(m, wire, lock, cap, effect, verb, result, text)                                                         \
    {wire,                                                                                                             \
     LOCK_##lock,                                                                                                      \
     CAP_##cap,                                                                                                        \
     EFFECT_##effect,                                                                                                  \
     VERB_##verb,                                                                                                      \
     RESULT_##result,                                                                                                  \
     text,                                                                                                             \
     m##_params,                                                                                                       \
     sizeof(struct m##_args),                                                                                          \
     &m##_phases},
#include "handlers/methods.def"
#undef METHOD
};

static const struct key_row keys[] = {
#define KEY(name, kind) {#name, PARAM_##kind},
#include "handlers/keys.def"
#undef KEY
};

const struct method *method_rows(size_t *count)
{
    *count = COUNT_OF(rows);
    return rows;
}

const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

const struct key_row *key_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

const char *param_kind_name(enum param_kind kind)
{
    static const char *const names[] = {"uuid", "text", "size", "flag", "map", "count", "array", "secret"};
    return names[kind];
}

const char *place_name(enum place_kind place)
{
    static const char *const names[] = {"key", "arg", "plain"};
    return names[place];
}

const char *lock_name(enum lock_class lock)
{
    static const char *const names[] = {"none", "rows", "shared", "vdi", "serial", "whole"};
    return names[lock];
}

const char *effect_name(enum effect effect)
{
    static const char *const names[] = {"reads", "store", "sync", "medium"};
    return names[effect];
}

const char *result_name(enum result_kind result)
{
    static const char *const names[] = {"nil", "string", "vdi_info", "attach", "struct", "array"};
    return names[result];
}

const char *capability_name(enum capability cap)
{
    static const char *const names[] = {
        [CAP_NONE] = "",
        [CAP_sr_create] = "sr_create",
        [CAP_sr_delete] = "sr_delete",
        [CAP_sr_attach] = "sr_attach",
        [CAP_sr_probe] = "sr_probe",
        [CAP_sr_scan] = "sr_scan",
        [CAP_vdi_create] = "vdi_create",
        [CAP_vdi_delete] = "vdi_delete",
        [CAP_vdi_introduce] = "vdi_introduce",
        [CAP_vdi_resize] = "vdi_resize",
        [CAP_vdi_snapshot] = "vdi_snapshot",
        [CAP_vdi_clone] = "vdi_clone",
        [CAP_vdi_attach] = "vdi_attach",
        [CAP_vdi_activate] = "vdi_activate",
        [CAP_vdi_fence] = "vdi_fence",
        [CAP_vdi_reset] = "vdi_reset",
        [CAP_vdi_compose] = "vdi_compose",
        [CAP_sr_take] = "sr_take",
        [CAP_vdi_generate_config] = "vdi_generate_config",
        [CAP_vdi_read] = "vdi_read",
        [CAP_disk_write] = "disk_write",
        [CAP_disk_log] = "disk_log",
    };
    return names[cap];
}
