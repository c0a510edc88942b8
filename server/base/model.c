/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/model.h"

#include <string.h>

const char *pairs_get(const struct pairs *p, const char *key)
{
    for (size_t i = 0; i < p->count; i++)
        if (strcmp(p->items[i].key, key) == 0)
            return p->items[i].value;
    return NULL;
}

struct pairs pairs_copy(struct arena *a, const struct pairs *p)
{
    struct pairs copy = {ARENA_ARRAY(a, struct pair, p->count), p->count};
    for (size_t i = 0; i < p->count; i++)
        copy.items[i] = (struct pair){arena_text(a, p->items[i].key), arena_text(a, p->items[i].value)};
    return copy;
}

void pairs_set(struct arena *a, struct pairs *p, const char *key, const char *value)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->items[i].key, key) == 0) {
            p->items[i].value = arena_text(a, value);
            return;
        }
    }
    struct pair *items = ARENA_ARRAY(a, struct pair, p->count + 1);
    if (p->count)
        memcpy(items, p->items, p->count * sizeof *items);
    items[p->count] = (struct pair){arena_text(a, key), arena_text(a, value)};
    *p = (struct pairs){items, p->count + 1};
}

struct vdi vdi_blank(void)
{
    return (struct vdi){.location = "",
                        .state = VDI_LIVE,
                        .format = "",
                        .label = "",
                        .description = "",
                        .type = "user",
                        .managed = true,
                        .snapshot_time = "",
                        .snapshot_of = "",
                        .metadata_of_pool = "",
                        .damage = ""};
}

size_t vdi_text_bytes(const struct vdi *vdi)
{
    const char *const texts[] = {vdi->location,      vdi->label,       vdi->description,      vdi->type,
                                 vdi->snapshot_time, vdi->snapshot_of, vdi->metadata_of_pool, vdi->damage};
    size_t sum = 0;
    for (size_t i = 0; i < COUNT_OF(texts); i++)
        sum += texts[i] ? strlen(texts[i]) : 0;
    for (size_t i = 0; i < vdi->sm_config.count; i++)
        sum += strlen(vdi->sm_config.items[i].key) + strlen(vdi->sm_config.items[i].value);
    return sum;
}

struct vdi *vdi_list_add(struct arena *a, struct vdi_list *l)
{
    l->items = arena_grown(a, l->items, l->count, &l->room, sizeof *l->items);
    l->items[l->count] = vdi_blank();
    return &l->items[l->count++];
}
