/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/kinds.h"

#include "backends/scsi/address.h"
#include "backends/scsi/name.h"
#include "server/base/own.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

enum { HOST_MAX = 253, HOST_LABEL_MAX = 63, LIST_MAX = 16, TEXT_BYTES = 255 };

static const char *bad_component(const char *at, size_t length)
{
    if (length == 0)
        return "an empty component";
    if (length > NAME_MAX)
        return "a component of more than 255 bytes";
    if (length == 1 && at[0] == '.')
        return "a component \".\"";
    if (length == 2 && memcmp(at, "..", 2) == 0)
        return "a component \"..\"";
    for (size_t i = 0; i < length; i++)
        if ((unsigned char) at[i] < 0x20 || at[i] == 0x7f)
            return "a control character";
    return NULL;
}

/* What is wrong with a path, or NULL. */
static const char *bad_path(const char *path)
{
    if (path[0] != '/')
        return "no \"/\" at its start";
    if (strlen(path) >= PATH_MAX)
        return "more than 4095 bytes";
    for (const char *at = path + 1; path[1] && at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL) {
        const char *wrong = bad_component(at, strcspn(at, "/"));
        if (wrong)
            return wrong;
    }
    return NULL;
}

/* Whether all of text is letters, digits and what else allows. */
static bool all_of(const char *text, size_t length, const char *others)
{
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char) text[i]) && !strchr(others, text[i]))
            return false;
    return true;
}

/* ---- names of hosts */

static bool is_address(const char *text)
{
    struct in6_addr at;
    return inet_pton(AF_INET, text, &at) == 1 || inet_pton(AF_INET6, text, &at) == 1;
}

static bool is_host_label(const char *label, size_t length)
{
    return length > 0 && length <= HOST_LABEL_MAX && all_of(label, length, "-") && label[0] != '-' &&
           label[length - 1] != '-';
}

/* An address, or a name as RFC 1123 has it. */
static const char *bad_host(const char *text)
{
    static const char *const wrong = "neither an address nor a host name";
    if (is_address(text))
        return NULL;
    if (strlen(text) > HOST_MAX)
        return wrong;
    for (const char *at = text; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL)
        if (!is_host_label(at, strcspn(at, ".")) && !(at > text && !at[0])) /* one dot may end it */
            return wrong;
    return NULL;
}

/* ---- what stands on the command line of a mount */

/* A path that cannot be taken for anything else among mount options and in lists of mounts. */
static const char *bad_export(const char *path)
{
    const char *wrong = bad_path(path);
    if (wrong || strcmp(path, "/") == 0)
        return wrong;
    for (const char *c = path; *c; c++)
        if ((unsigned char) *c > 0x7e || strchr(" ,\\\"'", *c))
            return "a blank, comma, quote, backslash, or a character outside ASCII";
    return NULL;
}

/* What mount(8) understands as orders instead of options, and what would lift our own. */
static bool is_refused_option(const char *option, size_t length)
{
    static const char *const refused[] = {"remount", "bind",  "rbind", "move",     "suid",     "dev",         "exec",
                                          "user",    "users", "owner", "username", "password", "credentials", "fake"};
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        if (strlen(refused[i]) == length && memcmp(refused[i], option, length) == 0)
            return true;
    return false;
}

static const char *bad_options(const char *text)
{
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t length = strcspn(at, ","), name = strcspn(at, ",=");
        if (name == 0 || !islower((unsigned char) at[0]))
            return "no option, or one that does not begin with a small letter";
        if (!all_of(at, name, "_-.") || !all_of(at, length, "_-.=:/+@"))
            return "a character that is none of a mount option";
        if (is_refused_option(at, name))
            return "an option that may not be given";
    }
    return NULL;
}

/* ---- texts */

static const char *bad_text(const char *text)
{
    for (const char *c = text; *c; c++)
        if ((unsigned char) *c < 0x20 || *c == 0x7f)
            return "a control character";
    return strlen(text) > TEXT_BYTES ? "more than 255 bytes" : NULL;
}

static const char *bad_source(const char *text)
{
    if (text[0] == '-')
        return "\"-\" at its start";
    if (strlen(text) >= PATH_MAX)
        return "more than 4095 bytes";
    for (const char *c = text; *c; c++)
        if ((unsigned char) *c < 0x20 || *c == 0x7f)
            return "a control character";
    return NULL;
}

static const char *bad_subpath(const char *path)
{
    char whole[PATH_MAX + 1];
    int length = snprintf(whole, sizeof whole, "/%s", path + (path[0] == '/'));
    return length >= PATH_MAX ? "more than 4094 bytes" : bad_path(whole);
}

/* ---- what iSCSI takes */

static const char *bad_portals(const char *text)
{
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char host[ADDRESS_NAME + 1];
        unsigned port = ISCSI_PORT;
        struct portal literal;
        size_t length = strcspn(at, ",");
        if (!portal_split(at, length, host, &port))
            return "not a list of hosts, each with or without a port";
        if (!portal_parse(host, port, &literal) && !portal_is_name(host))
            return "neither an address nor a host name";
    }
    return NULL;
}

static const char *bad_target(const char *text)
{
    return strcmp(text, "*") == 0 ? NULL : iscsi_name_bad(text);
}

static const char *bad_port(const char *text)
{
    char *end;
    unsigned long n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    return n >= 1 && n <= 65535 && strlen(text) <= 5 && *end == '\0' ? NULL : "no number from 1 to 65535";
}

/* Words of these characters with commas between them. */
static const char *bad_words(const char *text, const char *characters, size_t most)
{
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t length = strcspn(at, ",");
        if (length == 0 || length > most || strspn(at, characters) < length || at[0] == '-' || at[0] == '.')
            return "not a list of words such as this key takes";
    }
    return NULL;
}

static const char *bad_luns(const char *text)
{
    return bad_words(text, "0123456789", 5);
}

static const char *bad_scsi_ids(const char *text)
{
    return bad_words(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._:-", 128);
}

static const char *bad_number(const char *text)
{
    return strlen(text) <= 5 && strspn(text, "0123456789") == strlen(text) ? NULL : "no number";
}

/* ---- devices */

static const char *bad_device(const char *path, size_t length)
{
    if (length <= 5 || length >= PATH_MAX || memcmp(path, "/dev/", 5) != 0)
        return "a path that is not in /dev";
    for (const char *at = path; at < path + length;) {
        size_t part = strcspn(++at, "/,");
        if (part == 0 || (part == 1 && at[0] == '.') || (part == 2 && memcmp(at, "..", 2) == 0) || part > NAME_MAX)
            return "a path with an empty, too long, \".\" or \"..\" component";
        if (!all_of(at, part, "._:+@=-"))
            return "a character that is none of a device's name";
        at += part;
    }
    return NULL;
}

/* One, or several with commas between them, none of them twice. */
static const char *bad_devices(const char *text)
{
    size_t count = 0;
    for (const char *at = text; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t length = strcspn(at, ",");
        const char *wrong = ++count > LIST_MAX ? "more than 16 devices" : bad_device(at, length);
        if (wrong)
            return wrong;
        for (const char *other = text; other < at; other += strcspn(other, ",") + 1)
            if (strcspn(other, ",") == length && memcmp(other, at, length) == 0)
                return "a device that is named twice";
    }
    return NULL;
}

/* ---- words */

static bool is_word(const char *text, const char *const *words)
{
    while (*words && strcmp(*words, text) != 0)
        words++;
    return *words != NULL;
}

#define WORDS(name, wrong, ...)                                                                                        \
    static const char *bad_##name(const char *text)                                                                    \
    {                                                                                                                  \
        static const char *const words[] = {__VA_ARGS__, NULL};                                                        \
        return is_word(text, words) ? NULL : (wrong);                                                                  \
    }

WORDS(nfs_version, "no version of NFS: 3, 4, 4.0, 4.1, 4.2", "3", "4", "4.0", "4.1", "4.2")
WORDS(allocation, "neither thick nor thin", "thick", "thin")
WORDS(nfs_mode, "neither hard nor soft", "hard", "soft")
WORDS(smb_version, "neither 1.0 nor 3.0", "1.0", "3.0")
WORDS(iso_type, "neither nfs_iso nor cifs", "nfs_iso", "cifs")
WORDS(flag, "neither true nor false", "true", "false")

/* A secret may be any text. */
static const char *bad_secret(const char *text)
{
    (void) text;
    return NULL;
}

/* clang-format off */
#define KIND(name) {#name, bad_##name}
static const struct config_kind kinds[] = {
    KIND(allocation), KIND(devices), KIND(export), KIND(flag), KIND(host), KIND(iso_type), KIND(luns), KIND(nfs_mode), KIND(nfs_version),
    KIND(number), KIND(options), KIND(path), KIND(port), KIND(portals), KIND(scsi_ids), KIND(secret), KIND(smb_version),
    KIND(source), KIND(subpath), KIND(target), KIND(text), {"iqn", iscsi_name_bad},
};
/* clang-format on */

const struct config_kind *config_kind_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}
