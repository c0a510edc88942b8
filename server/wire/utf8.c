/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/wire/utf8.h"

bool utf8_is_character(uint32_t c)
{
    if (c < 0x20)
        return c == '\t' || c == '\n' || c == '\r';
    if (c >= 0xd800 && c <= 0xdfff)
        return false;
    return c <= 0x10ffff && c != 0xfffe && c != 0xffff;
}

size_t utf8_size(uint32_t c)
{
    if (c < 0x80)
        return 1;
    if (c < 0x800)
        return 2;
    return c < 0x10000 ? 3 : 4;
}

/* Bytes that the first byte of a character announces; 0 for one that can begin none. */
static size_t announced(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

size_t utf8_length(const unsigned char *s, size_t left)
{
    size_t size = announced(s[0]);
    if (size == 0 || size > left)
        return 0;
    uint32_t c = size == 1 ? s[0] : s[0] & (0x7fU >> size);
    for (size_t i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = (c << 6) | (s[i] & 0x3fU);
    }
    return utf8_is_character(c) && utf8_size(c) == size ? size : 0;
}
