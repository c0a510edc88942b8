/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/file.h"
#include "server/base/clock.h"
#include "server/base/io.h"
#include "server/base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>

enum { RECORD_MAX = 64 * 1024, RECORD_FORMAT = MARKER_FORMAT };

static void own_json(json_t **j)
{
    json_decref(*j);
}
#define AUTO_JSON __attribute__((cleanup(own_json)))

/* A JSON object of a format we know, from a small file; NULL when there is no such file (errno ENOENT) or no such
   object. */
static json_t *record_read(int dir, const char *name)
{
    AUTO_FREE char *bytes = NULL;
    size_t length;
    if (io_read_file(dir, name, RECORD_MAX, &bytes, &length) < 0)
        return NULL;
    errno = EINVAL;
    json_t *record = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL);
    if (record && json_integer_value(json_object_get(record, "format")) == RECORD_FORMAT)
        return record;
    json_decref(record);
    errno = EINVAL;
    return NULL;
}

static bool record_uuid(const json_t *record, const char *key, struct uuid *out)
{
    return uuid_parse_text(json_string_value(json_object_get(record, key)), out);
}

/* ------------------------------------------------------------------ marker */

enum marker_found marker_read_file(int dir, const char *name, struct marker *out)
{
    struct marker m = {.from = UUID_NONE};
    AUTO_JSON json_t *record = record_read(dir, name);
    if (!record)
        return errno == ENOENT ? MARKER_NONE : MARKER_BAD;
    if (!record_uuid(record, "sr", &m.sr) || !record_uuid(record, "server", &m.server) ||
        !record_uuid(record, "op", &m.op))
        return MARKER_BAD;
    record_uuid(record, "from", &m.from);
    m.made = json_is_true(json_object_get(record, "made"));
    m.since = json_integer_value(json_object_get(record, "since"));
    *out = m;
    return MARKER_SOUND;
}

/* ------------------------------------------------------------------ sidecar */

/* The fields of a disk that a sidecar holds, each under its own name. */
/* clang-format off */
#define TEXTS(T) T(label) T(description) T(type) T(snapshot_time) T(snapshot_of) T(metadata_of_pool)
#define FLAGS(F) F(read_only) F(shareable) F(managed) F(is_a_snapshot)
/* clang-format on */

void sidecar_name(char out[FILE_NAME], const struct uuid *vdi)
{
    snprintf(out, FILE_NAME, "%s" OWN_SUFFIX, vdi->text);
}

static void sidecar_text(struct text *t, const struct vdi *vdi, const struct claim *claim)
{
    text_printf(t, "{\"format\": %d, \"uuid\": \"%s\", \"op\": \"%s\", \"inode\": %llu", RECORD_FORMAT, vdi->uuid.text,
                claim->op.text, (unsigned long long) claim->inode);
#define TEXT_FIELD(field)                                                                                              \
    text_add(t, ", \"" #field "\": ");                                                                                 \
    text_add_json(t, vdi->field);
#define FLAG_FIELD(field) text_printf(t, ", \"" #field "\": %s", vdi->field ? "true" : "false");
    TEXTS(TEXT_FIELD)
    FLAGS(FLAG_FIELD)
#undef TEXT_FIELD
#undef FLAG_FIELD
    text_add(t, ", \"sm_config\": {");
    for (size_t i = 0; i < vdi->sm_config.count; i++) {
        text_add(t, i ? ", " : "");
        text_add_json(t, vdi->sm_config.items[i].key);
        text_add(t, ": ");
        text_add_json(t, vdi->sm_config.items[i].value);
    }
    text_add(t, "}}\n");
}

/* The bytes are synced before the name is theirs. -1 with errno. */
static int replace(int dir, const char *name, const char *temp, const struct text *t)
{
    AUTO_FD int fd = io_open_beneath(dir, temp, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || io_write(fd, t->data, t->length) < 0 || fsync(fd) < 0)
        return -1;
    return renameat(dir, temp, dir, name);
}

int sidecar_write(struct sr *sr, const struct vdi *vdi, const struct claim *claim, struct fault *f)
{
    char name[FILE_NAME], temp[TEMPORARY_NAME];
    sidecar_name(name, &vdi->uuid);
    temporary_name(temp, &claim->op, TEMPORARY_LABELS, &vdi->uuid);
    AUTO_TEXT struct text t = TEXT_OF(RECORD_MAX);
    sidecar_text(&t, vdi, claim);
    if (t.full)
        return fault_set(f, FAULT_InvalidArg, "labels and sm_config of disk %s are more than %d bytes", vdi->uuid.text,
                         RECORD_MAX);
    if (replace(sr->place.dir, name, temp, &t) == 0)
        return 0;
    return errno == EIO ? sr_poison(sr, f, "write %s", name) : fault_errno(f, FAULT_EIO, "write %s", name);
}

/* A copy in which what XML cannot carry is '?': a sidecar is input like any other. */
static const char *clean_text(struct arena *a, const char *text)
{
    char *copy = arena_text(a, text);
    for (unsigned char *c = (unsigned char *) copy; *c; c++) {
        if (*c < 0x20 && *c != '\t' && *c != '\n')
            *c = '?';
        if (c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe)
            memset(c, '?', 3);
    }
    return copy;
}

static void read_text(const json_t *record, const char *key, struct arena *a, const char **out)
{
    const char *text = json_string_value(json_object_get(record, key));
    if (text)
        *out = clean_text(a, text);
}

static void read_flag(const json_t *record, const char *key, bool *out)
{
    const json_t *flag = json_object_get(record, key);
    if (json_is_boolean(flag))
        *out = json_is_true(flag);
}

static void read_config(json_t *config, struct arena *a, struct pairs *out)
{
    struct pairs read = {ARENA_ARRAY(a, struct pair, json_object_size(config)), 0};
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value) if (json_is_string(value)) read.items[read.count++] =
        (struct pair){clean_text(a, key), clean_text(a, json_string_value(value))};
    *out = read;
}

static void read_fields(json_t *record, struct arena *a, struct vdi *out)
{
#define TEXT_FIELD(field) read_text(record, #field, a, &out->field);
#define FLAG_FIELD(field) read_flag(record, #field, &out->field);
    TEXTS(TEXT_FIELD)
    FLAGS(FLAG_FIELD)
#undef TEXT_FIELD
#undef FLAG_FIELD
    read_config(json_object_get(record, "sm_config"), a, &out->sm_config);
}

bool sidecar_read(int dir, struct arena *a, struct vdi *out, struct claim *claim)
{
    char name[FILE_NAME];
    struct uuid of = UUID_NONE;
    sidecar_name(name, &out->uuid);
    AUTO_JSON json_t *record = record_read(dir, name);
    if (!record || !record_uuid(record, "uuid", &of) || !uuid_equal(&of, &out->uuid)) {
        if (record || errno != ENOENT)
            log_line(LOG_DEBUG, "sidecar %s is not usable; the disk is served without labels", name);
        return false;
    }
    struct claim read = {.inode = (uint64_t) json_integer_value(json_object_get(record, "inode"))};
    record_uuid(record, "op", &read.op);
    struct vdi fields = *out;
    read_fields(record, a, &fields);
    if (vdi_text_bytes(&fields) > VDI_TEXT_MAX) {
        log_line(LOG_DEBUG, "sidecar %s has more text than a disk may; the disk is served without labels", name);
        return false;
    }
    *out = fields;
    *claim = read;
    return true;
}
