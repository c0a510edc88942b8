/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/bridge_conf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define CONF_PATH     "/etc/smapid/bridge.conf"
#define CONF_MAX      4096U
#define DEADLINE_MOST 86400U

static const struct bridge_conf defaults = {.socket = "/run/smapid/smapid.sock", .deadline_seconds = 900};

/* The text without blanks at both ends; shortens it in place. */
static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r", text[length - 1]))
        length--;
    text[length] = '\0';
    return text;
}

static bool set_socket(struct bridge_conf *c, const char *value)
{
    size_t length = strlen(value);
    if (value[0] != '/' || length >= sizeof c->socket)
        return false;
    memcpy(c->socket, value, length + 1);
    return true;
}

static bool set_deadline(struct bridge_conf *c, const char *value)
{
    uint32_t seconds = 0;
    size_t digits = strspn(value, "0123456789");
    if (digits == 0 || digits > 5 || value[digits] != '\0')
        return false;
    for (; *value; value++)
        seconds = seconds * 10 + (uint32_t) (*value - '0');
    if (seconds < 1 || seconds > DEADLINE_MOST)
        return false;
    c->deadline_seconds = seconds;
    return true;
}

static bool set_exit_status(struct bridge_conf *c, const char *value)
{
    c->exit_fault = strcmp(value, "fault") == 0;
    return c->exit_fault || strcmp(value, "zero") == 0;
}

static const struct {
    const char *key;
    bool (*set)(struct bridge_conf *c, const char *value);
    const char *form;
} keys[] = {
    {"socket", set_socket, "an absolute path of at most 107 bytes"},
    {"deadline_seconds", set_deadline, "a number from 1 to 86400"},
    {"exit_status", set_exit_status, "zero or fault"},
};

static int read_line(char *line, const char *path, unsigned number, struct bridge_conf *c, struct fault *f)
{
    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return 0;
    char *equals = strchr(line, '=');
    if (!equals)
        return fault_set(f, FAULT_SRUnavailable, "%s line %u is not key = value", path, number);
    *equals = '\0';
    const char *key = trim(line), *value = trim(equals + 1);
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        if (strcmp(key, keys[i].key) != 0)
            continue;
        if (keys[i].set(c, value))
            return 0;
        return fault_set(f, FAULT_SRUnavailable, "%s line %u: %s must be %s", path, number, key, keys[i].form);
    }
    return fault_set(f, FAULT_SRUnavailable, "%s line %u: unknown key %.40s", path, number, key);
}

/* The file's bytes and a NUL; -1 with errno. */
static int read_file(const char *path, char out[CONF_MAX + 1])
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return -1;
    size_t length = 0;
    while (length <= CONF_MAX) {
        ssize_t n = read(fd, out + length, CONF_MAX + 1 - length);
        if (n < 0)
            return -1;
        if (n == 0) {
            out[length] = '\0';
            return 0;
        }
        length += (size_t) n;
    }
    errno = EFBIG;
    return -1;
}

int bridge_conf_read(struct bridge_conf *out, struct fault *f)
{
    *out = defaults;
    char data[CONF_MAX + 1];
    const char *named = getenv("SMAPI_BRIDGE_CONF"), *path = named ? named : CONF_PATH;
    if (read_file(path, data) < 0)
        return !named && errno == ENOENT ? 0 : fault_errno(f, FAULT_SRUnavailable, "read %s", path);
    struct bridge_conf c = defaults;
    unsigned number = 1;
    for (char *line = data; line; number++) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (read_line(line, path, number, &c, f) < 0)
            return -1;
        line = next;
    }
    *out = c;
    return 0;
}
