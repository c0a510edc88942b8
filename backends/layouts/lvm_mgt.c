/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The volume MGT, as the older manager lays it out: text in sectors, each filled up with spaces.
     0       XSSM:<bytes in use, these four included>:1:2
     1       <?xml version="1.0" ?><uuid>…</uuid><allocation>…</allocation>
     2, 3    name and description of the SR
     4 …     two for each disk: labels, then everything else; a record says itself that it is deleted
   A sector is whole at any moment. The labels of a new record are durable before the sector that says whose they are,
   and a record behind the last before the first sector counts it. It holds only what is in the store too: where it has
   no room, and where there is no such volume, disks do without. */
#include "backends/layouts/lvm.h"
#include "server/base/text.h"
#include "server/base/units.h"
#include <errno.h>
#include <string.h>

#define MAGIC        "XSSM:"
#define FIRST        (4U * SECTOR_SIZE)
#define RECORD       (2U * SECTOR_SIZE)
#define LENGTH       (4U * MIB)
#define LENGTH_MOST  (16U * LENGTH) /* that is used: whoever made the group may claim anything */
#define LABELS_ROOM  445U           /* bytes of both, with entities; else each gets half */
#define LABEL_ROOM   222U
#define TEXT_CEILING 65536U
#define MEMORY       (256U << 20)

/* ------------------------------------------------------------------ text */

/* A text with entities, no longer than that, cut between characters. */
static void add_label(struct text *t, const char *label, size_t room)
{
    AUTO_TEXT struct text one = TEXT_OF(TEXT_CEILING);
    size_t kept = 0;
    for (size_t n = 1; label[n - 1] && kept + 1 == n; n++) {
        AUTO_TEXT struct text part = TEXT_OF(TEXT_CEILING);
        AUTO_FREE char *head = strndup(label, n);
        text_add_xml(&part, head ? head : "");
        if (part.length <= room)
            kept = n;
    }
    while (kept > 0 && ((unsigned char) label[kept] & 0xc0) == 0x80)
        kept--;
    AUTO_FREE char *cut = strndup(label, kept);
    text_add_xml(&one, cut ? cut : "");
    text_add(t, one.data ? one.data : "");
}

static size_t length_in_xml(const char *label)
{
    AUTO_TEXT struct text t = TEXT_OF(TEXT_CEILING);
    text_add_xml(&t, label);
    return t.length;
}

static void put_sector(unsigned char out[SECTOR_SIZE], const struct text *t)
{
    memset(out, ' ', SECTOR_SIZE);
    if (t->length)
        memcpy(out, t->data, t->length < SECTOR_SIZE ? t->length : SECTOR_SIZE);
}

static void labels_out(const struct vdi *vdi, unsigned char out[SECTOR_SIZE])
{
    AUTO_TEXT struct text t = TEXT_OF(TEXT_CEILING);
    bool whole = length_in_xml(vdi->label) + length_in_xml(vdi->description) <= LABELS_ROOM;
    text_add(&t, "<vdi><name_label>");
    add_label(&t, vdi->label, whole ? LABELS_ROOM : LABEL_ROOM);
    text_add(&t, "</name_label><name_description>");
    add_label(&t, vdi->description, whole ? LABELS_ROOM : LABEL_ROOM);
    text_add(&t, "</name_description>");
    put_sector(out, &t);
}

static void add_field(struct text *t, const char *name, const char *value)
{
    text_printf(t, "<%s>", name);
    text_add_xml(t, value);
    text_printf(t, "</%s>", name);
}

static const char *bit(bool value)
{
    return value ? "1" : "0";
}

/* all: with the texts others give, which need not fit. */
static void rest_text(struct text *t, const struct vdi *vdi, bool all)
{
    add_field(t, "uuid", vdi->uuid.text);
    add_field(t, "is_a_snapshot", bit(vdi->is_a_snapshot));
    add_field(t, "snapshot_of", all ? vdi->snapshot_of : "");
    add_field(t, "snapshot_time", all ? vdi->snapshot_time : "");
    add_field(t, "type", all ? vdi->type : "user");
    add_field(t, "vdi_type", strcmp(vdi->format, image_raw.name) == 0 ? "aio" : "vhd");
    add_field(t, "read_only", bit(vdi->read_only));
    add_field(t, "managed", bit(vdi->managed));
    add_field(t, "metadata_of_pool", all ? vdi->metadata_of_pool : "");
    add_field(t, "deleted", "0");
    text_add(t, "</vdi>");
}

static void rest_out(const struct vdi *vdi, unsigned char out[SECTOR_SIZE])
{
    AUTO_TEXT struct text t = TEXT_OF(TEXT_CEILING), shorter = TEXT_OF(TEXT_CEILING);
    rest_text(&t, vdi, true);
    rest_text(&shorter, vdi, false);
    put_sector(out, t.length <= SECTOR_SIZE ? &t : &shorter);
}

/* The text between <name> and </name>, entities read; NULL when there is none. */
static const char *field(const unsigned char *from, size_t length, const char *name, struct arena *a)
{
    static const struct {
        const char *entity;
        char means;
    } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}, {"&apos;", '\''}};
    const char *text = arena_copy(a, (const char *) from, length), *open = arena_printf(a, "<%s>", name);
    const char *begin = strstr(text, open), *end = strstr(text, arena_printf(a, "</%s>", name));
    if (!begin || !end || end < begin)
        return NULL;
    begin += strlen(open);
    char *out = arena_alloc(a, (size_t) (end - begin) + 1);
    size_t n = 0;
    while (begin < end) {
        size_t i = 0;
        while (i < COUNT_OF(entities) && strncmp(begin, entities[i].entity, strlen(entities[i].entity)) != 0)
            i++;
        out[n++] = i < COUNT_OF(entities) ? entities[i].means : *begin;
        begin += i < COUNT_OF(entities) ? strlen(entities[i].entity) : 1;
    }
    return out;
}

/* The record holds this field with this value. */
static bool holds(const unsigned char *record, const char *name, const char *value)
{
    char text[128];
    snprintf(text, sizeof text, "<%s>%s</%s>", name, value, name);
    return memmem(record, RECORD, text, strlen(text)) != NULL;
}

/* ------------------------------------------------------------------ the volume */

struct mgt {
    const struct uuid *uuid; /* of the SR */
    struct sr *sr;           /* NULL for one that is only looked at */
    struct volume volume;
    struct arena *arena;
    unsigned char *data; /* all that is in use */
    uint64_t length;
};

static void header_out(uint64_t length, unsigned char out[SECTOR_SIZE])
{
    AUTO_TEXT struct text t = TEXT_OF(SECTOR_SIZE);
    text_printf(&t, MAGIC "%-10llu:1:2", (unsigned long long) length);
    put_sector(out, &t);
}

static int write_failed(const struct mgt *m, struct fault *f)
{
    return fault_errno(f, FAULT_LVMWrite, "write the metadata volume of SR %s", m->uuid->text);
}

/* What was there is another SR's, or nobody's. The header comes last. */
static int make_new(struct mgt *m, struct fault *f)
{
    unsigned char raw[FIRST];
    AUTO_TEXT struct text t = TEXT_OF(SECTOR_SIZE);
    text_printf(&t, "<?xml version=\"1.0\" ?><uuid>%s</uuid><allocation>%s</allocation>", m->uuid->text,
                lvm_is_thin(m->sr) ? "thin" : "thick");
    const struct text label = {.data = (char[]){"<name_label></name_label>"}, .length = 25};
    const struct text description = {.data = (char[]){"<name_description></name_description>"}, .length = 37};
    header_out(FIRST, raw);
    put_sector(raw + SECTOR_SIZE, &t);
    put_sector(raw + 2 * (size_t) SECTOR_SIZE, &label);
    put_sector(raw + 3 * (size_t) SECTOR_SIZE, &description);
    if (volume_write(&m->volume, raw + SECTOR_SIZE, sizeof raw - SECTOR_SIZE, SECTOR_SIZE) < 0)
        return write_failed(m, f);
    if (lvm_sync(m->sr, &m->volume, f) < 0)
        return -1;
    if (volume_write(&m->volume, raw, SECTOR_SIZE, 0) < 0)
        return write_failed(m, f);
    m->length = FIRST;
    return lvm_sync(m->sr, &m->volume, f);
}

static uint64_t room_of(const struct mgt *m)
{
    return m->volume.lv->size < LENGTH_MOST ? m->volume.lv->size : LENGTH_MOST;
}

/* How much the header says is in use; 0 when it is none of this SR. */
static uint64_t length_of(const struct mgt *m, const unsigned char raw[FIRST])
{
    const char *uuid = field(raw + SECTOR_SIZE, SECTOR_SIZE, "uuid", m->arena);
    if (memcmp(raw, MAGIC, strlen(MAGIC)) != 0 || !uuid || strcmp(uuid, m->uuid->text) != 0)
        return 0;
    uint64_t length = strtoull(arena_copy(m->arena, (const char *) raw + strlen(MAGIC), 10), NULL, 10);
    return length >= FIRST && length <= room_of(m) && (length - FIRST) % RECORD == 0 ? length : 0;
}

/* What is in use. length 0 when it is none of this SR. */
static int load(struct mgt *m, struct fault *f)
{
    unsigned char raw[FIRST];
    bool read = volume_read(&m->volume, raw, sizeof raw, 0) == 0;
    m->length = read ? length_of(m, raw) : 0;
    if (m->length) {
        m->data = arena_alloc(m->arena, m->length);
        read = volume_read(&m->volume, m->data, m->length, 0) == 0;
    }
    return read ? 0 : fault_errno(f, FAULT_EIO, "read the metadata volume of SR %s", m->uuid->text);
}

/* *there false when the group has none. */
static int open_mgt(struct sr *sr, struct arena *a, bool writable, struct mgt *out, bool *there, struct fault *f)
{
    struct lvm_vg *vg;
    *out = (struct mgt){.uuid = &sr->uuid, .sr = sr, .arena = a};
    *there = false;
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    const struct lvm_lv *lv = lvm_find(vg, LVM_MGT);
    if (!lv || lv->size < FIRST)
        return 0;
    *there = true;
    if (volume_open(vg, lv, writable, &out->volume, f) < 0 || load(out, f) < 0)
        return -1;
    return out->length == 0 && writable ? make_new(out, f) : 0;
}

static void close_mgt(const struct mgt *m)
{
    volume_close(&m->volume);
}
#define AUTO_MGT __attribute__((cleanup(close_mgt)))

/* Where the disk's record is; a deleted one when uuid is NULL; the length when there is none. */
static uint64_t find_record(const struct mgt *m, const struct uuid *uuid)
{
    for (uint64_t at = FIRST; m->data && at < m->length; at += RECORD) {
        bool deleted = holds(m->data + at, "deleted", "1");
        if (uuid ? !deleted && holds(m->data + at, "uuid", uuid->text) : deleted)
            return at;
    }
    return m->length;
}

/* ------------------------------------------------------------------ records */

static int write_record(const struct mgt *m, const struct vdi *vdi, uint64_t at, struct fault *f)
{
    unsigned char raw[RECORD], header[SECTOR_SIZE];
    labels_out(vdi, raw);
    rest_out(vdi, raw + SECTOR_SIZE);
    if (at < m->length && memcmp(m->data + at, raw, RECORD) == 0)
        return 0;
    if (volume_write(&m->volume, raw, SECTOR_SIZE, at) < 0)
        return write_failed(m, f);
    if (lvm_sync(m->sr, &m->volume, f) < 0)
        return -1;
    if (volume_write(&m->volume, raw + SECTOR_SIZE, SECTOR_SIZE, at + SECTOR_SIZE) < 0)
        return write_failed(m, f);
    if (lvm_sync(m->sr, &m->volume, f) < 0)
        return -1;
    if (at < m->length)
        return 0;
    header_out(at + RECORD, header);
    return volume_write(&m->volume, header, sizeof header, 0) < 0 ? write_failed(m, f) : lvm_sync(m->sr, &m->volume, f);
}

static int put(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    bool there;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    AUTO_MGT struct mgt m = {0};
    if (open_mgt(sr, a, true, &m, &there, f) < 0)
        return -1;
    if (!there)
        return 0;
    uint64_t at = find_record(&m, &vdi->uuid);
    if (at == m.length)
        at = find_record(&m, NULL);
    return at + RECORD > room_of(&m) ? 0 : write_record(&m, vdi, at, f);
}

static int drop(struct sr *sr, const struct uuid *uuid, struct fault *f)
{
    static const char zero[] = "<deleted>0</deleted>";
    bool there;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    AUTO_MGT struct mgt m = {0};
    if (open_mgt(sr, a, true, &m, &there, f) < 0)
        return -1;
    uint64_t at = there ? find_record(&m, uuid) : m.length;
    if (at == m.length)
        return 0;
    unsigned char *rest = m.data + at + SECTOR_SIZE, *flag = memmem(rest, SECTOR_SIZE, zero, strlen(zero));
    if (!flag)
        return 0;
    flag[strlen("<deleted>")] = '1';
    return volume_write(&m.volume, rest, SECTOR_SIZE, at + SECTOR_SIZE) < 0 ? write_failed(&m, f)
                                                                            : lvm_sync(sr, &m.volume, f);
}

int lvm_mgt_put(struct sr *sr, const struct vdi *vdi, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    pthread_mutex_lock(&state->records);
    int r = put(sr, vdi, f);
    pthread_mutex_unlock(&state->records);
    return r;
}

int lvm_mgt_drop(struct sr *sr, const struct uuid *uuid, struct fault *f)
{
    struct lvm_sr *state = sr->state;
    pthread_mutex_lock(&state->records);
    int r = drop(sr, uuid, f);
    pthread_mutex_unlock(&state->records);
    return r;
}

static void read_record(const unsigned char *record, struct arena *a, struct vdi *out)
{
    const struct {
        const char *name, **to;
    } texts[] = {{"name_label", &out->label},
                 {"name_description", &out->description},
                 {"snapshot_of", &out->snapshot_of},
                 {"snapshot_time", &out->snapshot_time},
                 {"type", &out->type},
                 {"metadata_of_pool", &out->metadata_of_pool}};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        const char *value = field(record, RECORD, texts[i].name, a);
        if (value)
            *texts[i].to = value;
    }
    out->is_a_snapshot = holds(record, "is_a_snapshot", "1");
    out->read_only = holds(record, "read_only", "1");
    out->managed = holds(record, "managed", "1");
}

bool lvm_mgt_read(struct sr *sr, const struct uuid *uuid, struct arena *a, struct vdi *out)
{
    struct lvm_sr *state = sr->state;
    struct fault ignored;
    bool there = false;
    AUTO_ARENA struct arena *own = arena_new(MEMORY);
    AUTO_MGT struct mgt m = {0};
    pthread_mutex_lock(&state->records);
    int r = open_mgt(sr, own, false, &m, &there, &ignored);
    pthread_mutex_unlock(&state->records);
    uint64_t at = r == 0 && there && m.data ? find_record(&m, uuid) : m.length;
    if (at >= m.length)
        return false;
    read_record(m.data + at, a, out);
    return true;
}

int lvm_mgt_describe(const struct lvm_vg *vg, const struct uuid *sr, struct arena *a, struct found_sr *out)
{
    struct fault ignored;
    AUTO_ARENA struct arena *own = arena_new(MEMORY);
    AUTO_MGT struct mgt m = {.uuid = sr, .arena = own};
    const struct lvm_lv *lv = lvm_find(vg, LVM_MGT);
    if (!lv || lv->size < FIRST || volume_open(vg, lv, false, &m.volume, &ignored) < 0 || load(&m, &ignored) < 0 ||
        m.length == 0)
        return -1;
    const char *label = field(m.data + 2 * (size_t) SECTOR_SIZE, SECTOR_SIZE, "name_label", a);
    const char *description = field(m.data + 3 * (size_t) SECTOR_SIZE, SECTOR_SIZE, "name_description", a);
    out->label = label ? label : "";
    out->description = description ? description : "";
    for (uint64_t at = FIRST; at < m.length; at += RECORD)
        out->pool_metadata |= holds(m.data + at, "type", "metadata") && !holds(m.data + at, "deleted", "1");
    return 0;
}

/* ------------------------------------------------------------------ making it */

int lvm_mgt_make(struct sr *sr, struct fault *f)
{
    struct lvm_vg *vg;
    struct lvm_scope scope = lvm_sr_scope(sr);
    const struct lvm_new wanted = {.name = LVM_MGT, .size = LENGTH};
    bool there;
    AUTO_ARENA struct arena *a = arena_new(MEMORY);
    AUTO_MGT struct mgt m = {0};
    if (lvm_group(sr, a, &vg, f) < 0)
        return -1;
    if (!lvm_find(vg, LVM_MGT) && vg->free >= LENGTH && lvm_lv_create(&scope, vg->name, &wanted, f) < 0)
        return -1;
    return open_mgt(sr, a, true, &m, &there, f);
}
