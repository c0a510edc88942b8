/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/uuid.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

static bool is_dash_place(size_t at)
{
    return at == 8 || at == 13 || at == 18 || at == 23;
}

/* The lower-case hexadecimal digit of c, or 0. */
static char hex_lower(char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))
        return c;
    if (c >= 'A' && c <= 'F')
        return (char) (c - 'A' + 'a');
    return 0;
}

bool uuid_parse(const char *text, size_t length, struct uuid *out)
{
    if (length != UUID_TEXT)
        return false;
    struct uuid u = UUID_NONE;
    for (size_t i = 0; i < UUID_TEXT; i++) {
        u.text[i] = is_dash_place(i) ? (char) (text[i] == '-' ? '-' : 0) : hex_lower(text[i]);
        if (!u.text[i])
            return false;
    }
    *out = u;
    return true;
}

bool uuid_parse_text(const char *text, struct uuid *out)
{
    return text && uuid_parse(text, strlen(text), out);
}

struct uuid uuid_random(void)
{
    unsigned char r[16];
    ssize_t got = getrandom(r, sizeof r, 0);
    assert(got == (ssize_t) sizeof r); /* never short for 16 bytes once the kernel is seeded */
    (void) got;
    r[6] = (unsigned char) ((r[6] & 0x0f) | 0x40);
    r[8] = (unsigned char) ((r[8] & 0x3f) | 0x80);
    struct uuid u;
    snprintf(u.text, sizeof u.text, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1],
             r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
    return u;
}

bool uuid_is(const struct uuid *u)
{
    return u->text[0] != '\0';
}

bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
    return strcmp(a->text, b->text) == 0;
}

void uuid_short(const struct uuid *u, char out[9])
{
    memcpy(out, u->text, 8);
    out[8] = '\0';
}
