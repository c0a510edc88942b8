/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/permissions.h"

#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX = 1 << 20, LINE = 4096, TABLE_MAX = 64 << 20, QUOTED = 40 };

/* A file while it is read. */
struct reading {
    struct permission_table *table;
    struct permission_row *row; /* of the section the line stands in; NULL before the first */
    struct fault *fault;
};

/* ---- sections ---- */

static bool read_role(const char *text, size_t length, enum role *out)
{
    for (enum role role = ROLE_READER; role < ROLE_COUNT; role++)
        if (strlen(role_name(role)) == length && strncmp(role_name(role), text, length) == 0) {
            *out = role;
            return true;
        }
    return false;
}

/* "role <role>", "<role>:<name>", "host:<uuid>". */
static bool read_identity(const char *text, struct identity *out)
{
    struct identity who = {0};
    const char *colon = strchr(text, ':');
    if (strncmp(text, "role ", 5) == 0) {
        const char *name = text + 5 + strspn(text + 5, " ");
        if (!read_role(name, strlen(name), &who.role))
            return false;
        *out = who;
        return true;
    }
    if (!colon || !colon[1] || strlen(text) >= HOLDER_TEXT || !read_role(text, (size_t) (colon - text), &who.role))
        return false;
    if (who.role == ROLE_HOST && !uuid_parse_text(colon + 1, &who.host))
        return false;
    const char *name = who.role == ROLE_HOST ? who.host.text : colon + 1;
    snprintf(who.name, sizeof who.name, "%s:%s", role_name(who.role), name);
    memcpy(who.holder, who.name, sizeof who.holder);
    if (who.role == ROLE_HOST)
        snprintf(who.holder, sizeof who.holder, "%s", name);
    *out = who;
    return true;
}

static int open_section(struct reading *r, const char *name)
{
    struct identity who;
    if (!read_identity(name, &who))
        return fault_set(r->fault, FAULT_InvalidArg,
                         "[%.80s] is neither \"role <role>\", \"<role>:<name>\" nor \"host:<uuid>\"", name);
    for (const struct permission_row *row = r->table->rows; row; row = row->next)
        if (row->who.role == who.role && strcmp(row->who.name, who.name) == 0)
            return fault_set(r->fault, FAULT_InvalidArg, "[%s] was there before", name);
    r->row = ARENA_NEW(r->table->arena, struct permission_row);
    *r->row = (struct permission_row){.next = r->table->rows, .who = who};
    r->table->rows = r->row;
    return 0;
}

/* ---- keys ---- */

/* The next word of a list, words being parted by blanks and commas; false at its end. */
static bool next_word(const char **at, const char **word, size_t *length)
{
    static const char gaps[] = " \t,";
    *word = *at + strspn(*at, gaps);
    *length = strcspn(*word, gaps);
    *at = *word + *length;
    return *length > 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char) tolower((unsigned char) c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 64 hexadecimal digits, colons between bytes or not, as openssl x509 -fingerprint -sha256 and sha256sum print them. */
static bool read_digest(const char *text, size_t length, unsigned char out[FINGERPRINT])
{
    const char *end = text + length;
    unsigned any = 0; /* zeros stand for no certificate */
    for (size_t i = 0; i < FINGERPRINT; i++) {
        text += i > 0 && text < end && *text == ':';
        int high = end - text >= 2 ? hex_digit(text[0]) : -1, low = end - text >= 2 ? hex_digit(text[1]) : -1;
        if (high < 0 || low < 0)
            return false;
        out[i] = (unsigned char) (high * 16 + low);
        any |= out[i];
        text += 2;
    }
    return any && text == end;
}

static bool is_taken(const struct permission_table *t, const struct pin *pin)
{
    for (const struct permission_row *row = t->rows; row; row = row->next)
        for (const struct pin *other = row->pins; other; other = other->next)
            if (other->of_key == pin->of_key && memcmp(other->digest, pin->digest, FINGERPRINT) == 0)
                return true;
    return false;
}

static int add_pins(struct reading *r, bool of_key, const char *list)
{
    const char *word;
    size_t length;
    if (!r->row->who.name[0])
        return fault_set(r->fault, FAULT_InvalidArg, "certificates belong to one identity, not to a role");
    while (next_word(&list, &word, &length)) {
        struct pin *pin = ARENA_NEW(r->table->arena, struct pin);
        *pin = (struct pin){.next = r->row->pins, .of_key = of_key};
        if (!read_digest(word, length, pin->digest))
            return fault_set(r->fault, FAULT_InvalidArg, "\"%.*s\" is not the SHA-256 of a %s, 64 hexadecimal digits",
                             QUOTED, word, of_key ? "public key" : "certificate");
        if (is_taken(r->table, pin))
            return fault_set(r->fault, FAULT_InvalidArg, "the SHA-256 %.*s stands here twice", QUOTED, word);
        r->row->pins = pin;
    }
    return r->row->pins ? 0 : fault_set(r->fault, FAULT_InvalidArg, "a SHA-256 is missing");
}

static bool read_verb(const char *word, size_t length, unsigned of_role, unsigned *out)
{
    for (unsigned verb = VERB_READ; verb <= VERB_ADMIN; verb <<= 1) {
        const char *name = verb_name((enum verb) verb);
        if (strlen(name) == length && strncmp(name, word, length) == 0) {
            *out = verb;
            return true;
        }
    }
    *out = length == 3 && strncmp(word, "all", 3) == 0 ? of_role : 0;
    return *out || (length == 4 && strncmp(word, "none", 4) == 0);
}

static int read_verbs(const struct reading *r, const char *list, unsigned *out)
{
    enum role role = r->row->who.role;
    const char *word;
    size_t length, words = 0;
    unsigned verbs = 0, verb;
    for (; next_word(&list, &word, &length); words++) {
        if (!read_verb(word, length, role_verbs(role), &verb))
            return fault_set(r->fault, FAULT_InvalidArg,
                             "\"%.*s\" is none of read, data, manage, break, admin, all, none",
                             length > QUOTED ? QUOTED : (int) length, word);
        if (verb & ~role_verbs(role))
            return fault_set(r->fault, FAULT_InvalidArg, "the role %s never has %s", role_name(role),
                             verb_name((enum verb) verb));
        verbs |= verb;
    }
    if (words == 0)
        return fault_set(r->fault, FAULT_InvalidArg, "a verb is missing; none grants nothing");
    *out = verbs;
    return 0;
}

static int add_grant(struct reading *r, const struct uuid *sr, const char *list)
{
    unsigned verbs;
    for (const struct grant *g = r->row->grants; g; g = g->next)
        if (uuid_equal(&g->sr, sr))
            return fault_set(r->fault, FAULT_InvalidArg, "%s was given before in this section",
                             uuid_is(sr) ? sr->text : "any");
    if (read_verbs(r, list, &verbs) < 0)
        return -1;
    struct grant *g = ARENA_NEW(r->table->arena, struct grant);
    *g = (struct grant){.next = r->row->grants, .sr = *sr, .verbs = verbs};
    r->row->grants = g;
    return 0;
}

static int take_key(struct reading *r, const char *key, const char *value)
{
    struct uuid sr = UUID_NONE;
    if (!r->row)
        return fault_set(r->fault, FAULT_InvalidArg, "\"%.80s\" stands in no section", key);
    if (strcmp(key, "key") == 0 || strcmp(key, "certificate") == 0)
        return add_pins(r, key[0] == 'k', value);
    if (strcmp(key, "any") != 0 && !uuid_parse_text(key, &sr))
        return fault_set(r->fault, FAULT_InvalidArg, "\"%.80s\" is none of key, certificate, any and the uuid of an SR",
                         key);
    return add_grant(r, &sr, value);
}

/* ---- lines ---- */

/* Without blanks at both ends; changes the text. */
static char *trim(char *text)
{
    text += strspn(text, " \t\r\n");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r\n", text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

static int take_line(struct reading *r, char *line)
{
    char *text = trim(line), *equals = strchr(text, '=');
    size_t length = strlen(text);
    if (length == 0 || text[0] == '#' || text[0] == ';')
        return 0;
    if (text[0] == '[') {
        if (text[length - 1] != ']')
            return fault_set(r->fault, FAULT_InvalidArg, "a section's name ends with ]");
        text[length - 1] = '\0';
        return open_section(r, trim(text + 1));
    }
    if (!equals)
        return fault_set(r->fault, FAULT_InvalidArg, "neither \"[section]\" nor \"key = value\"");
    *equals = '\0';
    return take_key(r, trim(text), trim(equals + 1));
}

static int read_lines(FILE *in, const char *file, struct reading *r)
{
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    ssize_t length;
    for (unsigned number = 1; (length = getline(&line, &size, in)) >= 0; number++) {
        bool fits = length <= LINE && !memchr(line, '\0', (size_t) length);
        int failed = fits ? take_line(r, line)
                          : fault_set(r->fault, FAULT_InvalidArg, "the line holds a NUL or more than %d bytes", LINE);
        if (failed)
            return fault_prefix(r->fault, "%s:%u", file, number);
    }
    return ferror(in) ? fault_errno(r->fault, FAULT_InvalidArg, "read %s", file) : 0;
}

/* What others could write would be theirs to grant. */
static int check_file(int fd, const char *file, struct fault *f)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_InvalidArg, "look at %s", file);
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
        return fault_set(f, FAULT_InvalidArg, "%s is not a plain file of at most %d bytes", file, FILE_MAX);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return fault_set(f, FAULT_InvalidArg, "%s belongs to another user", file);
    if (st.st_mode & (S_IWGRP | S_IWOTH))
        return fault_set(f, FAULT_InvalidArg, "%s may be written by others: its mode must be 0644 or less", file);
    return 0;
}

static int read_file(const char *file, struct permission_table *table, struct fault *f)
{
    struct reading r = {.table = table, .fault = f};
    AUTO_FD int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fault_errno(f, FAULT_InvalidArg, "open %s", file);
    if (check_file(fd, file, f) < 0)
        return -1;
    AUTO_FILE FILE *in = fdopen(fd, "r");
    if (!in)
        return fault_errno(f, FAULT_InvalidArg, "open %s", file);
    fd = -1;
    return read_lines(in, file, &r);
}

int permissions_read(const char *file, struct permission_table **out, struct fault *f)
{
    struct arena *arena = arena_new(TABLE_MAX);
    struct permission_table *table = ARENA_NEW(arena, struct permission_table);
    *table = (struct permission_table){.arena = arena};
    if (read_file(file, table, f) < 0) {
        permission_table_free(table);
        return -1;
    }
    *out = table;
    return 0;
}

int permissions_load(struct permissions *p, const char *file, struct fault *f)
{
    struct permission_table *table = NULL;
    if (file[0] && permissions_read(file, &table, f) < 0)
        return -1;
    permissions_replace(p, table);
    return 0;
}
