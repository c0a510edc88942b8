/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/types.h"

#include "backends/kinds.h"
#include "backends/layouts/layout.h"
#include "backends/transports/transport.h"
#include <assert.h>
#include <string.h>

#define REQUIRED true
#define OPTIONAL false

/* clang-format off */
#define CAP(name) #name,
#define KEY(key, kind, need, missing, bad, text) {#key, #kind, need, FAULT_##missing, FAULT_##bad, text},
#define PROGRAM(need, path, package, asking) {need, path, package, asking},
#define TYPE(name, layout, transport, fencing, content, title, text) \
    static const char *const caps_##name[] = {CAPS_##name(CAP) NULL}; \
    static const struct config_key keys_##name[] = {CONFIG_##name(KEY){.key = NULL}}; \
    static const struct program programs_##name[] = {PROGRAMS_##name(PROGRAM){.path = NULL}};
#include "backends/types.def"
#undef TYPE

static const struct sr_type types[] = {
#define TYPE(name, layout, transport, fencing, content, title, text) \
    {#name, &layout_##layout, &transport_##transport, FENCING_##fencing, content, title, text, \
     caps_##name, COUNT_OF(caps_##name) - 1, keys_##name, COUNT_OF(keys_##name) - 1, \
     programs_##name, COUNT_OF(programs_##name) - 1},
#include "backends/types.def"
#undef TYPE
};
/* clang-format on */

const char *fencing_name(enum fencing fencing)
{
    static const char *const names[] = FENCING_WORDS;
    return names[fencing];
}

const struct sr_type *sr_types(size_t *count)
{
    *count = COUNT_OF(types);
    return types;
}

const struct sr_type *sr_type_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (strcmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

static const char *bad_value(const struct config_key *key, const char *value)
{
    const struct config_kind *kind = config_kind_find(key->kind);
    assert(kind && "a row of types.def has a kind that is not in the table of kinds.c");
    return kind->bad(value);
}

static const struct config_key *key_find(const struct sr_type *type, const char *name)
{
    for (size_t i = 0; i < type->key_count; i++)
        if (strcmp(type->keys[i].key, name) == 0)
            return &type->keys[i];
    return NULL;
}

int sr_type_ready(const struct sr_type *type, struct fault *f)
{
    for (size_t i = 0; i < type->program_count; i++) {
        const struct program *p = &type->programs[i];
        if (p->required && access(p->path, X_OK) < 0)
            return fault_set(f, FAULT_InvalidDev,
                             "type %s needs %s, of package %s, which is not installed on this host", type->name,
                             p->path, p->package);
    }
    return 0;
}

bool config_takes(const char *name, const char *value)
{
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        const struct config_key *key = key_find(&types[i], name);
        if (key && !bad_value(key, value))
            return true;
    }
    return false;
}

static bool ends_in(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcasecmp(text + length - end_length, end) == 0;
}

bool config_key_is_secret(const struct sr_type *type, const char *name)
{
    const struct config_key *key = type ? key_find(type, name) : NULL;
    return (key && strcmp(key->kind, "secret") == 0) || ends_in(name, "password") || ends_in(name, "_secret");
}

/* What no key takes, whatever else would be wrong with it: an option, or words for a shell. */
static bool hostile(const char *value)
{
    return value[0] == '-' || strpbrk(value, "\n\r\t`$;&|<>\"'\\(){}!%") || config_kind_find("text")->bad(value);
}

static int refuse_key(const struct sr_type *type, const char *name, struct fault *f)
{
    if (ends_in(name, "_secret"))
        return fault_set(
            f, FAULT_InvalidArg,
            "device_config %.64s names a secret that xapi keeps, and this server does not ask xapi: the value "
            "itself is needed, as %.*s",
            name, (int) (strlen(name) < 64 ? strlen(name) - strlen("_secret") : 57), name);
    AUTO_TEXT struct text known = TEXT_OF(FAULT_DETAIL);
    for (size_t i = 0; i < type->key_count; i++)
        text_printf(&known, "%s%s", i ? ", " : "", type->keys[i].key);
    return fault_set(f, FAULT_InvalidArg, "device_config of type %s has no key %.64s; it has %s", type->name, name,
                     known.length ? known.data : "none");
}

int backend_config_check(const struct sr_type *type, const struct pairs *config, struct fault *f)
{
    for (size_t i = 0; i < config->count; i++) {
        const struct pair *p = &config->items[i];
        const struct config_key *key = key_find(type, p->key);
        if (!key && strcmp(p->key, "SRmaster") != 0)
            return refuse_key(type, p->key, f);
        const char *wrong = key && p->value[0] ? bad_value(key, p->value) : NULL;
        if (wrong)
            return fault_set(f, hostile(p->value) && key->bad != FAULT_InvalidArg ? FAULT_BadCharacter : key->bad,
                             "device_config %s is \"%.200s\": %s", key->key, p->value, wrong);
    }
    for (size_t i = 0; i < type->key_count; i++) {
        const struct config_key *key = &type->keys[i];
        const char *value = pairs_get(config, key->key);
        if (key->required && (!value || !value[0]))
            return fault_set(f, key->missing, "device_config of type %s needs %s: %s", type->name, key->key, key->text);
    }
    return 0;
}
