/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The XML documents that tell what there is to choose from. Their form is that which xapi's clients parse. */
#include "backends/transports/iscsi.h"
#include "server/base/text.h"
#include <inttypes.h>

enum { ENTRY_MAX = 4096 };

static const char declaration[] = "<?xml version=\"1.0\" ?>\n";

static void add_element(struct text *t, const char *name, const char *value)
{
    text_printf(t, "\t\t<%s>", name);
    text_add_xml(t, value);
    text_printf(t, "</%s>\n", name);
}

/* Adds an entry unless the whole would then not fit. */
static void add_entry(struct text *t, struct text *entry)
{
    if (!entry->full && t->length + entry->length + ENTRY_MAX < t->ceiling)
        text_add(t, entry->data);
    text_free(entry);
}

static void target_entry(struct text *entry, size_t index, const char *address, unsigned port, const char *target)
{
    text_printf(entry, "\t<TGT>\n\t\t<Index>%zu</Index>\n", index);
    add_element(entry, "IPAddress", address);
    if (port != ISCSI_PORT)
        text_printf(entry, "\t\t<Port>%u</Port>\n", port);
    add_element(entry, "TargetIQN", target);
    text_add(entry, "\t</TGT>\n");
}

/* The last entry stands for all of them. */
const char *iscsi_target_list(const struct iscsi_offer *offers, size_t count, const struct portal *asked,
                              struct arena *a)
{
    AUTO_TEXT struct text t = TEXT_OF(FAULT_DOCUMENT);
    struct text all = TEXT_OF(ENTRY_MAX);
    char all_of[ADDRESS_TEXT];
    text_printf(&t, "%s<iscsi-target-iqns>\n", declaration);
    for (size_t i = 0; i < count; i++) {
        struct text entry = TEXT_OF(ENTRY_MAX);
        char address[ADDRESS_TEXT];
        portal_address(&offers[i].portal, address);
        target_entry(&entry, i, address, offers[i].portal.port, offers[i].target);
        add_entry(&t, &entry);
    }
    portal_address(asked, all_of);
    target_entry(&all, count, all_of, asked->port, ISCSI_ALL);
    text_add(&t, all.data);
    text_free(&all);
    text_add(&t, "</iscsi-target-iqns>\n");
    return arena_text(a, t.data);
}

const char *iscsi_lun_list(const struct scsi_disk *disks, size_t count, struct arena *a)
{
    AUTO_TEXT struct text t = TEXT_OF(FAULT_DOCUMENT);
    text_printf(&t, "%s<iscsi-target>\n", declaration);
    for (size_t i = 0; i < count; i++) {
        struct text entry = TEXT_OF(ENTRY_MAX);
        text_add(&entry, "\t<LUN>\n");
        add_element(&entry, "vendor", disks[i].vendor);
        add_element(&entry, "serial", disks[i].serial);
        text_printf(&entry, "\t\t<LUNid>%" PRIu64 "</LUNid>\n\t\t<size>%" PRIu64 "</size>\n", disks[i].lun,
                    disks[i].size);
        add_element(&entry, "SCSIid", disks[i].id);
        text_add(&entry, "\t</LUN>\n");
        add_entry(&t, &entry);
    }
    text_add(&t, "</iscsi-target>\n");
    return arena_text(a, t.data);
}
