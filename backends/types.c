/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/types.h"

#include "backends/layouts/layout.h"
#include "backends/scsi/address.h"
#include "backends/scsi/name.h"
#include "backends/transports/transport.h"
#include <assert.h>
#include <limits.h>
#include <string.h>

enum { TEXT_BYTES = 255 };

#define REQUIRED true
#define OPTIONAL false

/* clang-format off */
#define CAP(name) #name,
#define KEY(key, kind, need, missing, bad, text) {#key, #kind, need, FAULT_##missing, FAULT_##bad, text},
#define TYPE(name, layout, transport, fencing, content, title, text) \
    static const char *const caps_##name[] = {CAPS_##name(CAP) NULL}; \
    static const struct config_key keys_##name[] = {CONFIG_##name(KEY){.key = NULL}};
#include "backends/types.def"
#undef TYPE

static const struct sr_type types[] = {
#define TYPE(name, layout, transport, fencing, content, title, text) \
    {#name, &layout_##layout, &transport_##transport, FENCING_##fencing, content, title, text, \
     caps_##name, COUNT_OF(caps_##name) - 1, keys_##name, COUNT_OF(keys_##name) - 1},
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

static const char *bad_component(const char *at, size_t length)
{
    if (length == 0)
        return "an empty component";
    if (length > NAME_MAX)
        return "a component of more than 255 bytes";
    if (length == 1 && at[0] == '.')
        return "a component \".\"";
    if (length == 2 && memcmp(at, "..", 2) == 0)
        return "a component \"..\"";
    for (size_t i = 0; i < length; i++)
        if ((unsigned char) at[i] < 0x20 || at[i] == 0x7f)
            return "a control character";
    return NULL;
}

/* What is wrong with a path, or NULL. */
static const char *bad_path(const char *path)
{
    if (path[0] != '/')
        return "no \"/\" at its start";
    if (strlen(path) >= PATH_MAX)
        return "more than 4095 bytes";
    for (const char *at = path + 1; path[1] && at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL) {
        const char *wrong = bad_component(at, strcspn(at, "/"));
        if (wrong)
            return wrong;
    }
    return NULL;
}

static const char *bad_flag(const char *text)
{
    return strcmp(text, "true") == 0 || strcmp(text, "false") == 0 ? NULL : "neither true nor false";
}

/* A secret may be any text. */
static const char *bad_secret(const char *text)
{
    (void) text;
    return NULL;
}

static const char *bad_text(const char *text)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char) *c < 0x20 || *c == 0x7f)
            return "a control character";
    return strlen(text) > TEXT_BYTES ? "more than 255 bytes" : NULL;
}

static const char *bad_portals(const char *text)
{
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char host[ADDRESS_NAME + 1];
        unsigned port = ISCSI_PORT;
        struct portal literal;
        size_t length = strcspn(at, ",");
        if (!portal_split(at, length, host, &port))
            return "not a list of hosts, each with or without a port";
        if (!portal_parse(host, port, &literal) && !portal_is_name(host))
            return "neither an address nor a host name";
    }
    return NULL;
}

static const char *bad_port(const char *text)
{
    char *end;
    unsigned long n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    return n >= 1 && n <= 65535 && strlen(text) <= 5 && *end == '\0' ? NULL : "no number from 1 to 65535";
}

/* Words of these characters with commas between them. */
static const char *bad_words(const char *text, const char *characters, size_t most)
{
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t length = strcspn(at, ",");
        if (length == 0 || length > most || strspn(at, characters) < length || at[0] == '-' || at[0] == '.')
            return "not a list of words such as this key takes";
    }
    return NULL;
}

static const char *bad_luns(const char *text)
{
    return bad_words(text, "0123456789", 5);
}

static const char *bad_scsi_ids(const char *text)
{
    return bad_words(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._:-", 128);
}

static const char *bad_number(const char *text)
{
    return strlen(text) <= 5 && strspn(text, "0123456789") == strlen(text) ? NULL : "no number";
}

static bool is_device_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("/._:+-", c);
}

/* One path below /dev, of letters that mean nothing to any program. */
static const char *bad_device(const char *path, size_t length)
{
    static const char below[] = "/dev/";
    char one[PATH_MAX];
    if (length >= sizeof one)
        return "a path of more than 4095 bytes";
    memcpy(one, path, length);
    one[length] = '\0';
    if (strncmp(one, below, strlen(below)) != 0)
        return "a path that does not begin with /dev/";
    for (const char *c = one; *c; c++)
        if (!is_device_character(*c))
            return "a character that is in no device's name";
    return bad_path(one);
}

static const char *bad_devices(const char *text)
{
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        const char *wrong = bad_device(at, length);
        at += length;
        if (wrong || !*at)
            return wrong;
    }
}

static const char *bad_allocation(const char *text)
{
    return strcmp(text, "thick") == 0 || strcmp(text, "thin") == 0 ? NULL : "neither thick nor thin";
}

/* The kinds of device_config values: each says what is wrong with a text, or NULL. */
static const struct config_kind {
    const char *name;
    const char *(*bad)(const char *text);
} kinds[] = {
    {"path", bad_path},     {"flag", bad_flag},         {"secret", bad_secret},   {"text", bad_text},
    {"number", bad_number}, {"portals", bad_portals},   {"port", bad_port},       {"iqn", iscsi_name_bad},
    {"luns", bad_luns},     {"scsi_ids", bad_scsi_ids}, {"devices", bad_devices}, {"allocation", bad_allocation},
};

static const char *bad_value(const struct config_key *key, const char *value)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (strcmp(kinds[i].name, key->kind) == 0)
            return kinds[i].bad(value);
    assert(false && "a row of types.def has a kind that is not in this table");
    return "of no known kind";
}

static const struct config_key *key_find(const struct sr_type *type, const char *name)
{
    for (size_t i = 0; i < type->key_count; i++)
        if (strcmp(type->keys[i].key, name) == 0)
            return &type->keys[i];
    return NULL;
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
    return value[0] == '-' || strpbrk(value, "\n\r\t`$;&|<>\"'\\(){}!%") || bad_text(value);
}

static int refuse_key(const struct sr_type *type, const char *name, struct fault *f)
{
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
