/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/scsi/name.h"

#include <string.h>

enum { NAME_BYTES = 223 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex(const char *s, size_t length)
{
    return strlen(s) == length && strspn(s, "0123456789abcdefABCDEF") == length;
}

/* "2026-11.org.example" and what follows. */
static const char *bad_iqn(const char *s)
{
    for (int i = 0; i < 8; i++)
        if (i == 4 ? s[i] != '-' : i == 7 ? s[i] != '.' : !is_digit(s[i]))
            return "no year and month behind \"iqn.\"";
    if (strncmp(s + 5, "01", 2) < 0 || strncmp(s + 5, "12", 2) > 0)
        return "no month behind \"iqn.\" and the year";
    return is_letter(s[8]) || is_digit(s[8]) ? NULL : "no domain behind the month";
}

const char *iscsi_name_bad(const char *name)
{
    if (strlen(name) > NAME_BYTES)
        return "more than 223 bytes";
    for (const char *c = name; *c; c++)
        if (!is_letter(*c) && !is_digit(*c) && *c != '.' && *c != '-' && *c != ':')
            return "a character that is no letter, digit, \".\", \"-\" or \":\"";
    if (strncmp(name, "iqn.", 4) == 0)
        return bad_iqn(name + 4);
    if (strncmp(name, "eui.", 4) == 0)
        return is_hex(name + 4, 16) ? NULL : "not 16 hexadecimal digits behind \"eui.\"";
    if (strncmp(name, "naa.", 4) == 0)
        return is_hex(name + 4, 16) || is_hex(name + 4, 32) ? NULL : "not 16 or 32 hexadecimal digits behind \"naa.\"";
    return "none of \"iqn.\", \"eui.\" and \"naa.\" at its start";
}
