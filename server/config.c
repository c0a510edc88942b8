/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/config.h"

#include <errno.h>
#include <ini.h>
#include <string.h>

enum when { WHEN_START, WHEN_LIVE };
enum kind { KIND_path, KIND_text, KIND_number, KIND_uuid, KIND_level };

struct row {
    const char *section, *key;
    enum kind kind;
    enum when when;
    size_t at; /* of its field in struct settings */
    const char *standard;
    unsigned least, most;
    const char *sentence;
};

static const struct row rows[] = {
/* clang-format off */
#define CONFIG(section, key, kind, when, standard, least, most, sentence)                                              \
    {#section, #key, KIND_##kind, WHEN_##when, offsetof(struct settings, section##_##key),                             \
     standard, least, most, sentence},
/* clang-format on */
#include "server/config.def"
#undef CONFIG
};

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static void *field(struct settings *s, const struct row *r)
{
    return (char *) s + r->at;
}

static const void *field_of(const struct settings *s, const struct row *r)
{
    return (const char *) s + r->at;
}

static int set_text(const struct row *r, char *text, const char *value, struct fault *f)
{
    size_t length = strlen(value);
    if (length >= SETTING_MAX)
        return fault_set(f, FAULT_InvalidArg, "%s.%s is longer than %d characters", r->section, r->key,
                         SETTING_MAX - 1);
    memcpy(text, value, length + 1);
    return 0;
}

static int set_path(const struct row *r, char *path, const char *value, struct fault *f)
{
    if (value[0] && value[0] != '/')
        return fault_set(f, FAULT_InvalidArg, "%s.%s: \"%s\" is not an absolute path", r->section, r->key, value);
    return set_text(r, path, value, f);
}

static int set_number(const struct row *r, unsigned *number, const char *value, struct fault *f)
{
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || value[digits])
        return fault_set(f, FAULT_InvalidArg, "%s.%s: \"%s\" is not a number", r->section, r->key, value);
    errno = 0;
    unsigned long long n = strtoull(value, NULL, 10);
    if (errno || n < r->least || n > r->most)
        return fault_set(f, FAULT_InvalidArg, "%s.%s: %s is not within %u to %u", r->section, r->key, value, r->least,
                         r->most);
    *number = (unsigned) n;
    return 0;
}

static int set_uuid(const struct row *r, struct uuid *uuid, const char *value, struct fault *f)
{
    struct uuid read = UUID_NONE;
    if (value[0] && !uuid_parse_text(value, &read))
        return fault_set(f, FAULT_InvalidArg, "%s.%s: \"%s\" is not a uuid", r->section, r->key, value);
    *uuid = read;
    return 0;
}

static int set_level(const struct row *r, enum log_level *level, const char *value, struct fault *f)
{
    for (size_t i = 0; i < COUNT_OF(level_names); i++)
        if (strcmp(level_names[i], value) == 0) {
            *level = (enum log_level) i;
            return 0;
        }
    return fault_set(f, FAULT_InvalidArg, "%s.%s: \"%s\" is none of error, warning, info, debug", r->section, r->key,
                     value);
}

static int set_row(struct settings *s, const struct row *r, const char *value, struct fault *f)
{
    switch (r->kind) {
    case KIND_path:
        return set_path(r, field(s, r), value, f);
    case KIND_text:
        return set_text(r, field(s, r), value, f);
    case KIND_number:
        return set_number(r, field(s, r), value, f);
    case KIND_uuid:
        return set_uuid(r, field(s, r), value, f);
    case KIND_level:
        return set_level(r, field(s, r), value, f);
    }
    return -1;
}

void settings_default(struct settings *s)
{
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct fault f;
        if (set_row(s, &rows[i], rows[i].standard, &f) < 0)
            abort(); /* a default of config.def against its own row */
    }
}

static bool section_known(const char *section, size_t length)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strlen(rows[i].section) == length && strncmp(rows[i].section, section, length) == 0)
            return true;
    return false;
}

/* The row of section.key, both given with their lengths, or NULL with the fault set. */
static const struct row *row_find(const char *section, size_t section_length, const char *key, size_t key_length,
                                  struct fault *f)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (strlen(rows[i].section) == section_length && strlen(rows[i].key) == key_length &&
            strncmp(rows[i].section, section, section_length) == 0 && strncmp(rows[i].key, key, key_length) == 0)
            return &rows[i];
    if (section_length == 0)
        fault_set(f, FAULT_InvalidArg, "\"%.*s\" stands in no section", (int) key_length, key);
    else if (!section_known(section, section_length))
        fault_set(f, FAULT_InvalidArg, "there is no section \"%.*s\"", (int) section_length, section);
    else
        fault_set(f, FAULT_InvalidArg, "section %.*s has no key \"%.*s\"", (int) section_length, section,
                  (int) key_length, key);
    return NULL;
}

int settings_assign(struct settings *s, const char *assignment, struct fault *f)
{
    const char *dot = strchr(assignment, '.'), *equals = strchr(assignment, '=');
    if (!dot || !equals || dot > equals)
        return fault_set(f, FAULT_InvalidArg, "\"%s\" is not of the form section.key=value", assignment);
    const struct row *r = row_find(assignment, (size_t) (dot - assignment), dot + 1, (size_t) (equals - dot - 1), f);
    return r ? set_row(s, r, equals + 1, f) : -1;
}

/* A file while it is read. */
struct reading {
    FILE *file;
    struct settings *settings;
    unsigned line;
    bool seen[COUNT_OF(rows)];
    bool failed; /* fault is set: the first mistake ends the reading */
    struct fault *fault;
};

/* libinih's source of lines: counts them, refuses one it would cut in two, and ends at the first mistake. */
static char *next_line(char *line, int size, void *arg)
{
    struct reading *r = arg;
    if (r->failed || !fgets(line, size, r->file))
        return NULL;
    r->line++;
    size_t length = strlen(line);
    if (length + 1 < (size_t) size || line[length - 1] == '\n')
        return line;
    r->failed = true;
    fault_set(r->fault, FAULT_InvalidArg, "the line is longer than %d characters", size - 2);
    return NULL;
}

/* libinih's handler: 1 to go on, 0 for a mistake. */
static int take_key(void *arg, const char *section, const char *key, const char *value)
{
    struct reading *r = arg;
    const struct row *row = row_find(section, strlen(section), key, strlen(key), r->fault);
    if (row && r->seen[row - rows]) {
        fault_set(r->fault, FAULT_InvalidArg, "%s.%s was given before (an indented line continues the one above it)",
                  section, key);
        row = NULL;
    }
    if (row)
        r->seen[row - rows] = true;
    r->failed = !row || set_row(r->settings, row, value, r->fault) < 0;
    return !r->failed;
}

int settings_read(struct settings *s, const char *file, struct fault *f)
{
    AUTO_FILE FILE *in = fopen(file, "re");
    if (!in)
        return fault_errno(f, FAULT_InvalidArg, "open %s", file);
    struct reading r = {.file = in, .settings = s, .fault = f};
    int broken = ini_parse_stream(next_line, &r, take_key, &r);
    if (r.failed)
        return fault_prefix(f, "%s:%u", file, r.line);
    if (broken)
        return fault_set(f, FAULT_InvalidArg, "%s:%d: neither \"[section]\" nor \"key = value\"", file, broken);
    return ferror(in) ? fault_errno(f, FAULT_InvalidArg, "read %s", file) : 0;
}

/* What lets a server conclude that a host is dead which does not renew. */
static int check_lease(const struct settings *s, struct fault *f)
{
    if (s->lease_renew >= s->lease_warn || s->lease_warn > s->lease_stop || s->lease_stop >= s->lease_ttl)
        return fault_set(f, FAULT_InvalidArg,
                         "lease.renew < lease.warn <= lease.stop < lease.ttl must hold, not "
                         "%u, %u, %u, %u",
                         s->lease_renew, s->lease_warn, s->lease_stop, s->lease_ttl);
    if (s->lease_dead < s->lease_ttl + s->lease_watchdog + 1)
        return fault_set(f, FAULT_InvalidArg, "lease.dead is %u, less than lease.ttl + lease.watchdog + 1, which is %u",
                         s->lease_dead, s->lease_ttl + s->lease_watchdog + 1);
    return 0;
}

int settings_check(const struct settings *s, struct fault *f)
{
    if (!s->server_state[0] || !s->server_mount_base[0])
        return fault_set(f, FAULT_InvalidArg, "server.state and server.mount_base must not be empty");
    if (!s->server_listen[0] && !s->server_socket[0])
        return fault_set(f, FAULT_InvalidArg, "server.listen and server.socket are both empty: nobody could call");
    if (s->server_listen[0] && (!s->tls_certificate[0] || !s->tls_key[0] || !s->tls_client_ca[0]))
        return fault_set(f, FAULT_InvalidArg, "server.listen needs tls.certificate, tls.key and tls.client_ca");
    return check_lease(s, f);
}

static size_t field_size(const struct row *r)
{
    switch (r->kind) {
    case KIND_path:
    case KIND_text:
        return SETTING_MAX;
    case KIND_number:
        return sizeof(unsigned);
    case KIND_uuid:
        return sizeof(struct uuid);
    case KIND_level:
        return sizeof(enum log_level);
    }
    return 0;
}

static bool field_equal(const struct row *r, const struct settings *a, const struct settings *b)
{
    bool texts = r->kind == KIND_path || r->kind == KIND_text;
    const void *left = field_of(a, r), *right = field_of(b, r);
    return texts ? strcmp(left, right) == 0 : memcmp(left, right, field_size(r)) == 0;
}

void settings_renew(struct settings *s, const struct settings *fresh, struct text *left)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct row *r = &rows[i];
        if (field_equal(r, s, fresh))
            continue;
        if (r->when == WHEN_LIVE)
            memcpy(field(s, r), field_of(fresh, r), field_size(r));
        else
            text_printf(left, "%s%s.%s", left->length ? " " : "", r->section, r->key);
    }
}

static void print_value(const struct row *r, const void *value, struct text *out)
{
    switch (r->kind) {
    case KIND_path:
    case KIND_text:
        text_add(out, value);
        break;
    case KIND_number:
        text_printf(out, "%u", *(const unsigned *) value);
        break;
    case KIND_uuid:
        text_add(out, ((const struct uuid *) value)->text);
        break;
    case KIND_level:
        text_add(out, level_names[*(const enum log_level *) value]);
        break;
    }
}

void settings_print(const struct settings *s, struct text *out)
{
    const char *section = "";
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const struct row *r = &rows[i];
        if (strcmp(section, r->section) != 0)
            text_printf(out, "%s[%s]\n", i ? "\n" : "", r->section);
        section = r->section;
        text_printf(out, "# %s", r->sentence);
        if (r->kind == KIND_number)
            text_printf(out, " (%u to %u)", r->least, r->most);
        if (r->when == WHEN_START)
            text_add(out, " (at the start)");
        text_printf(out, "\n%s =", r->key);
        size_t before = out->length;
        text_add(out, " ");
        print_value(r, field_of(s, r), out);
        if (out->length == before + 1)
            out->data[out->length = before] = '\0';
        text_add(out, "\n");
    }
}
