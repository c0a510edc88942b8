/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/bridge_info.h"

#include "backends/types.h"
#include <string.h>

struct key {
    const char *name, *text;
};

/* The part of a row of types.def that a bridge without drivers can have. */
struct info {
    const char *type, *title, *text;
    enum fencing fencing;
    const char *const *capabilities; /* NULL after the last */
    const struct key *keys;          /* a NULL name after the last */
};

#define C(capability)                          #capability,
#define K(key, kind, need, missing, bad, text) {#key, text},
#define TYPE(name, layout, transport, fencing, content, title, text)                                                   \
    static const char *const name##_capabilities[] = {CAPS_##name(C) NULL};                                            \
    static const struct key name##_keys[] = {CONFIG_##name(K){NULL, NULL}};
#include "backends/types.def"
#undef TYPE
#undef C
#undef K

static const struct info infos[] = {
#define TYPE(name, layout, transport, fencing, content, title, text)                                                   \
    {#name, title, text, FENCING_##fencing, name##_capabilities, name##_keys},
#include "backends/types.def"
#undef TYPE
};

static const char *const fencing_words[] = FENCING_WORDS;

static void add_member(struct text *t, const char *name, const char *text)
{
    text_printf(t, "<member><name>%s</name><value><string>", name);
    text_add_xml(t, text);
    text_add(t, "</string></value></member>\n");
}

static void add_capabilities(struct text *t, const char *const *capabilities)
{
    text_add(t, "<member><name>capabilities</name><value><array><data>\n");
    for (; *capabilities; capabilities++)
        text_printf(t, "<value><string>%s</string></value>\n", *capabilities);
    text_add(t, "</data></array></value></member>\n");
}

static void add_configuration(struct text *t, const struct key *keys)
{
    text_add(t, "<member><name>configuration</name><value><array><data>\n");
    for (; keys->name; keys++) {
        text_add(t, "<value><struct>\n");
        add_member(t, "key", keys->name);
        add_member(t, "description", keys->text);
        text_add(t, "</struct></value>\n");
    }
    text_add(t, "</data></array></value></member>\n");
}

int bridge_info(const char *type, struct text *out, struct fault *f)
{
    const struct info *info = NULL;
    for (size_t i = 0; i < COUNT_OF(infos) && !info; i++)
        if (strcmp(type, infos[i].type) == 0)
            info = &infos[i];
    if (!info)
        return fault_set(f, FAULT_SRUnknownType, "this bridge knows no type %s", type);
    text_add(out, "<?xml version=\"1.0\"?>\n<methodResponse>\n<params>\n<param>\n<value><struct>\n");
    add_member(out, "name", info->title);
    add_member(out, "description", info->text);
    add_member(out, "vendor", DRIVER_VENDOR);
    add_member(out, "copyright", DRIVER_COPYRIGHT);
    add_member(out, "driver_version", SMAPI_VERSION);
    add_member(out, "required_api_version", DRIVER_API_VERSION);
    add_member(out, "fencing", fencing_words[info->fencing]);
    add_capabilities(out, info->capabilities);
    add_configuration(out, info->keys);
    text_add(out, "</struct></value>\n</param>\n</params>\n</methodResponse>\n");
    return 0;
}
