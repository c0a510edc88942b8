/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading what pvs --segments prints: a row for each stretch of each device, free ones too. */
#include "backends/tools/lvm.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct lv_build {
    struct lvm_lv lv;
    size_t room;
};

struct vg_build {
    struct lvm_vg vg;
    struct lv_build *lvs;
    size_t pv_room, lv_room;
    size_t last; /* the volume the row before was of */
};

struct build {
    struct arena *arena;
    struct vg_build *vgs;
    struct lvm_pv *orphans;
    size_t vg_count, vg_room, orphan_count, orphan_room;
};

/* ------------------------------------------------------------------ fields */

static const char *text(const json_t *row, const char *key)
{
    const char *value = json_string_value(json_object_get(row, key));
    return value ? value : "";
}

/* False when it is no number. */
static bool number(const json_t *row, const char *key, uint64_t *out)
{
    const char *value = text(row, key);
    char *end;
    errno = 0;
    unsigned long long n = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end || errno)
        return false;
    *out = n;
    return true;
}

static const char *kept(const struct build *b, const json_t *row, const char *key)
{
    return arena_text(b->arena, text(row, key));
}

/* ------------------------------------------------------------------ rows */

static bool read_pv(const struct build *b, const json_t *row, struct lvm_pv *out)
{
    struct lvm_pv pv = {.name = kept(b, row, "pv_name"), .uuid = kept(b, row, "pv_uuid")};
    pv.missing = text(row, "pv_missing")[0] || pv.name[0] != '/';
    *out = pv;
    return number(row, "pe_start", &out->pe_start) && (number(row, "dev_size", &out->size) || pv.missing);
}

static size_t find_pv(const struct lvm_pv *pvs, size_t count, const char *uuid)
{
    size_t i = 0;
    while (i < count && strcmp(pvs[i].uuid, uuid) != 0)
        i++;
    return i;
}

/* The group's place in the list, added when it is new. False when a field is missing. */
static bool take_vg(struct build *b, const json_t *row, size_t *out)
{
    const char *uuid = text(row, "vg_uuid");
    for (size_t i = b->vg_count; i-- > 0;)
        if (strcmp(b->vgs[i].vg.uuid, uuid) == 0) {
            *out = i;
            return true;
        }
    struct lvm_vg vg = {
        .name = kept(b, row, "vg_name"), .uuid = kept(b, row, "vg_uuid"), .tags = kept(b, row, "vg_tags")};
    if (!number(row, "vg_size", &vg.size) || !number(row, "vg_free", &vg.free) ||
        !number(row, "vg_extent_size", &vg.extent_size) || vg.extent_size == 0)
        return false;
    b->vgs = arena_grown(b->arena, b->vgs, b->vg_count, &b->vg_room, sizeof *b->vgs);
    b->vgs[b->vg_count] = (struct vg_build){.vg = vg};
    *out = b->vg_count++;
    return true;
}

static bool take_pv(struct build *b, struct vg_build *g, const json_t *row, size_t *out)
{
    struct lvm_pv pv;
    size_t at = find_pv(g->vg.pvs, g->vg.pv_count, text(row, "pv_uuid"));
    *out = at;
    if (at < g->vg.pv_count)
        return true;
    if (!read_pv(b, row, &pv))
        return false;
    g->vg.pvs = arena_grown(b->arena, g->vg.pvs, g->vg.pv_count, &g->pv_room, sizeof pv);
    g->vg.pvs[g->vg.pv_count++] = pv;
    return true;
}

static bool take_lv(struct build *b, struct vg_build *g, const json_t *row, size_t *out)
{
    const char *uuid = text(row, "lv_uuid");
    for (size_t i = g->vg.lv_count; i-- > 0;)
        if (strcmp(g->lvs[i].lv.uuid, uuid) == 0) {
            *out = i;
            return true;
        }
    struct lvm_lv lv = {.name = kept(b, row, "lv_name"),
                        .uuid = kept(b, row, "lv_uuid"),
                        .tags = kept(b, row, "lv_tags"),
                        .linear = true};
    const char *attributes = text(row, "lv_attr");
    lv.read_only = strlen(attributes) > 1 && (attributes[1] == 'r' || attributes[1] == 'R');
    if (!number(row, "lv_size", &lv.size))
        return false;
    g->lvs = arena_grown(b->arena, g->lvs, g->vg.lv_count, &g->lv_room, sizeof *g->lvs);
    g->lvs[g->vg.lv_count] = (struct lv_build){.lv = lv};
    *out = g->vg.lv_count++;
    return true;
}

static bool take_segment(struct build *b, struct lv_build *l, const json_t *row, size_t pv)
{
    struct lvm_segment s = {.pv = pv};
    uint64_t stripes;
    if (!number(row, "pvseg_start", &s.pv_start) || !number(row, "pvseg_size", &s.count) ||
        !number(row, "seg_start_pe", &s.lv_start) || !number(row, "stripes", &stripes))
        return false;
    l->lv.linear = l->lv.linear && stripes == 1 && strcmp(text(row, "segtype"), "linear") == 0;
    l->lv.segments = arena_grown(b->arena, l->lv.segments, l->lv.segment_count, &l->room, sizeof s);
    l->lv.segments[l->lv.segment_count++] = s;
    return true;
}

static bool take_row(struct build *b, const json_t *row)
{
    size_t vg, pv, lv;
    if (!text(row, "vg_name")[0]) {
        b->orphans = arena_grown(b->arena, b->orphans, b->orphan_count, &b->orphan_room, sizeof *b->orphans);
        return read_pv(b, row, &b->orphans[b->orphan_count++]);
    }
    if (!take_vg(b, row, &vg) || !take_pv(b, &b->vgs[vg], row, &pv))
        return false;
    if (!text(row, "lv_name")[0])
        return true;
    return take_lv(b, &b->vgs[vg], row, &lv) && take_segment(b, &b->vgs[vg].lvs[lv], row, pv);
}

/* ------------------------------------------------------------------ the whole */

static int by_start(const void *a, const void *b)
{
    const struct lvm_segment *x = a, *y = b;
    return x->lv_start < y->lv_start ? -1 : x->lv_start > y->lv_start;
}

/* Segments in order; a volume with a gap is not one to be read by its segments. */
static void finish_lv(struct lvm_lv *lv, uint64_t extent_size)
{
    uint64_t next = 0;
    if (lv->segment_count)
        qsort(lv->segments, lv->segment_count, sizeof *lv->segments, by_start);
    for (size_t i = 0; i < lv->segment_count; i++) {
        lv->linear = lv->linear && lv->segments[i].lv_start == next;
        next += lv->segments[i].count;
    }
    lv->linear = lv->linear && next * extent_size == lv->size;
}

static void finish(struct build *b, struct lvm_report *out)
{
    *out = (struct lvm_report){.vgs = ARENA_ARRAY(b->arena, struct lvm_vg, b->vg_count + 1),
                               .vg_count = b->vg_count,
                               .orphans = b->orphans,
                               .orphan_count = b->orphan_count};
    for (size_t i = 0; i < b->vg_count; i++) {
        struct lvm_vg *vg = &out->vgs[i];
        *vg = b->vgs[i].vg;
        vg->lvs = ARENA_ARRAY(b->arena, struct lvm_lv, vg->lv_count + 1);
        for (size_t l = 0; l < vg->lv_count; l++) {
            vg->lvs[l] = b->vgs[i].lvs[l].lv;
            finish_lv(&vg->lvs[l], vg->extent_size);
        }
    }
}

/* The rows, wherever in "report" they are. */
static const json_t *rows_of(const json_t *document)
{
    return json_object_get(json_array_get(json_object_get(document, "report"), 0), "pvseg");
}

static int parse_rows(const json_t *rows, struct arena *a, struct lvm_report *out, struct fault *f)
{
    struct build b = {.arena = a};
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (!take_row(&b, json_array_get(rows, i)))
            return fault_set(f, FAULT_PVSfailed, "pvs: row %zu of its report lacks a field or holds no number", i + 1);
    finish(&b, out);
    return 0;
}

int lvm_report_parse(const char *json, size_t length, struct arena *a, struct lvm_report *out, struct fault *f)
{
    json_error_t error;
    json_t *document = json_loadb(json, length, 0, &error);
    const json_t *rows = rows_of(document);
    int r = json_is_array(rows) ? parse_rows(rows, a, out, f)
                                : fault_set(f, FAULT_PVSfailed, "pvs: its report cannot be read: %s",
                                            document ? "it has no list pvseg" : error.text);
    json_decref(document);
    return r;
}

const struct lvm_lv *lvm_find(const struct lvm_vg *vg, const char *name)
{
    for (size_t i = 0; i < vg->lv_count; i++)
        if (strcmp(vg->lvs[i].name, name) == 0)
            return &vg->lvs[i];
    return NULL;
}

/* The tag that begins with prefix; its length. */
static const char *tag_at(const char *tags, const char *prefix, size_t *length)
{
    for (const char *at = tags; *at; at += strspn(at, ",")) {
        *length = strcspn(at, ",");
        if (strncmp(at, prefix, strlen(prefix)) == 0 && *length >= strlen(prefix))
            return at;
        at += *length;
    }
    return NULL;
}

bool lvm_has_tag(const char *tags, const char *tag)
{
    for (const char *at = tags; at && *at;) {
        size_t length;
        at = tag_at(at, tag, &length);
        if (at && length == strlen(tag))
            return true;
        at = at ? at + length : NULL;
        at = at ? at + strspn(at, ",") : NULL;
    }
    return false;
}

const char *lvm_tag_value(const char *tags, const char *prefix, struct arena *a)
{
    size_t length, skip = strlen(prefix);
    const char *at = tag_at(tags, prefix, &length);
    return at ? arena_copy(a, at + skip, length - skip) : NULL;
}
