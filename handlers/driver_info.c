/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What xapi and people ask about a driver before there is an SR. The bridge answers the first of these by itself, from
   the same rows. */
#include "handlers/state.h"

static int need_type(const struct call *c, const struct sr_type **out, struct fault *f)
{
    *out = c->keys.type ? sr_type_find(c->keys.type) : NULL;
    if (*out)
        return 0;
    return fault_set(f, FAULT_SRUnknownType, "%s at /RPC2 needs the SR's type as member type of device_config",
                     c->method->name);
}

static struct value *configuration(struct arena *a, const struct sr_type *type)
{
    struct value *list = value_array(a);
    for (size_t i = 0; i < type->key_count; i++) {
        struct value *key = value_struct(a);
        value_put(a, key, "key", value_string(a, type->keys[i].key));
        value_put(a, key, "description", value_string(a, type->keys[i].text));
        value_append(a, list, key);
    }
    return list;
}

static int sr_get_driver_info_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct sr_type *type;
    struct arena *a = c->arena;
    (void) d;
    if (need_type(c, &type, f) < 0)
        return -1;
    struct value *info = value_struct(a), *caps = value_array(a);
    for (size_t i = 0; i < type->capability_count; i++)
        value_append(a, caps, value_string(a, type->capabilities[i]));
    value_put(a, info, "name", value_string(a, type->title));
    value_put(a, info, "description", value_string(a, type->text));
    value_put(a, info, "vendor", value_string(a, DRIVER_VENDOR));
    value_put(a, info, "copyright", value_string(a, DRIVER_COPYRIGHT));
    value_put(a, info, "driver_version", value_string(a, SMAPI_VERSION));
    value_put(a, info, "required_api_version", value_string(a, DRIVER_API_VERSION));
    value_put(a, info, "fencing", value_string(a, fencing_name(type->fencing)));
    value_put(a, info, "capabilities", caps);
    value_put(a, info, "configuration", configuration(a, type));
    c->result = info;
    return 0;
}

const struct phases sr_get_driver_info_phases = {.act = sr_get_driver_info_act};

static int sr_get_driver_config_act(struct dispatch *d, struct call *c, struct fault *f)
{
    const struct sr_type *type;
    AUTO_TEXT struct text xml = TEXT_OF(64 << 10);
    (void) d;
    if (need_type(c, &type, f) < 0)
        return -1;
    text_printf(&xml, "<?xml version=\"1.0\" ?>\n<driver>\n\t<name>%s</name>\n\t<description>", type->title);
    text_add_xml(&xml, type->text);
    text_printf(&xml,
                "</description>\n\t<vendor>" DRIVER_VENDOR "</vendor>\n\t<version>%s</version>\n\t<capabilities>\n",
                SMAPI_VERSION);
    for (size_t i = 0; i < type->capability_count; i++)
        text_printf(&xml, "\t\t<capability>%s</capability>\n", type->capabilities[i]);
    text_add(&xml, "\t</capabilities>\n\t<configuration>\n");
    for (size_t i = 0; i < type->key_count; i++) {
        text_printf(&xml, "\t\t<option>\n\t\t\t<key>%s</key>\n\t\t\t<description>", type->keys[i].key);
        text_add_xml(&xml, type->keys[i].text);
        text_add(&xml, "</description>\n\t\t</option>\n");
    }
    text_add(&xml, "\t</configuration>\n</driver>\n");
    c->result = value_string(c->arena, xml.data);
    return 0;
}

const struct phases sr_get_driver_config_phases = {.act = sr_get_driver_config_act};
