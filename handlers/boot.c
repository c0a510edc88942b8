/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls around a guest's start: epochs, and the stored document by which a host attaches a disk before xapi runs. */
#include "handlers/state.h"
#include <string.h>

static int read_named(struct txn *t, void *arg, struct fault *f)
{
    struct call *c = arg;
    return need_visible_vdi(t, c, &c->work->vdi, f);
}

/* vdi_epoch_begin, vdi_epoch_end */

static int vdi_epoch_begin_check(struct txn *t, struct call *c, struct fault *f)
{
    const char *on_boot = ARGS(c, vdi_epoch_begin)->vdi_on_boot;
    if (on_boot && strcmp(on_boot, "reset") != 0 && strcmp(on_boot, "persist") != 0)
        return fault_set(f, FAULT_BadRequest, "vdi_on_boot must be \"reset\" or \"persist\", not \"%.40s\"", on_boot);
    if (need_visible_vdi(t, c, &c->work->vdi, f) < 0)
        return -1;
    if (!on_boot || strcmp(on_boot, "persist") == 0) {
        c->result = result_nil(c);
        return 0;
    }
    if (!backend_offers(c->sr->type, CAP_vdi_reset))
        return backend_refuse(c->sr->type, CAP_vdi_reset, f);
    c->plan.vdi = c->work->vdi->uuid;
    c->plan.format = c->work->vdi->format;
    c->work->wanted = *c->work->vdi;
    return refuse_if_leased(t, c, c->work->vdi, f);
}

static int vdi_epoch_begin_act(struct dispatch *d, struct call *c, struct fault *f)
{
    (void) d;
    return backend_vdi_reset(c->sr, &c->plan, c->work->vdi, c->arena, &c->work->done, f);
}

static int vdi_epoch_begin_record(struct txn *t, struct call *c, struct fault *f)
{
    c->result = result_nil(c);
    return store_vdi_put(t, &c->plan.sr, &c->work->done, f);
}

const struct phases vdi_epoch_begin_phases = {
    .check = vdi_epoch_begin_check, .act = vdi_epoch_begin_act, .record = vdi_epoch_begin_record};

static int vdi_epoch_end_act(struct dispatch *d, struct call *c, struct fault *f)
{
    if (store_read(d->settings.store, read_named, c, f) < 0)
        return -1;
    c->result = result_nil(c);
    return 0;
}

const struct phases vdi_epoch_end_phases = {.act = vdi_epoch_end_act};

/* vdi_generate_config */

static void add_member(struct text *xml, const char *name, const char *value)
{
    text_printf(xml, "<member><name>%s</name><value>", name);
    text_add_xml(xml, value);
    text_add(xml, "</value></member>");
}

/* The document a host stores and later hands to the plugin as it is: no session, no references of a xapi that may not
   run by then. */
static void config_document(struct text *xml, const struct call *c)
{
    const struct pairs *config = &c->sr->config;
    text_add(xml, "<?xml version=\"1.0\"?><methodCall><methodName>vdi_attach_from_config</methodName><params><param>"
                  "<value><struct><member><name>device_config</name><value><struct>");
    for (size_t i = 0; i < config->count; i++)
        add_member(xml, config->items[i].key, config->items[i].value);
    text_add(xml, "</struct></value></member>");
    add_member(xml, "sr_uuid", c->keys.sr.text);
    add_member(xml, "vdi_uuid", c->work->vdi->uuid.text);
    add_member(xml, "command", "vdi_attach_from_config");
    text_add(xml, "</struct></value></param></params></methodCall>");
}

static int vdi_generate_config_act(struct dispatch *d, struct call *c, struct fault *f)
{
    AUTO_TEXT struct text xml = TEXT_OF(128 << 10);
    if (store_read(d->settings.store, read_named, c, f) < 0)
        return -1;
    config_document(&xml, c);
    c->result = value_string(c->arena, xml.data);
    return 0;
}

const struct phases vdi_generate_config_phases = {.act = vdi_generate_config_act};
