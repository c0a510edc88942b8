/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Characters as XML 1.0 allows them, in UTF-8. */
#ifndef SMAPI_WIRE_UTF8_H
#define SMAPI_WIRE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at s, which has left bytes (at least 1): 1 to 4, or 0 when it is not well-formed UTF-8 (cut
   off, overlong, a surrogate, past U+10FFFF) or not a character of XML (C0 but \t \n \r, U+FFFE, U+FFFF). */
size_t utf8_length(const unsigned char *s, size_t left);

/* Whether the number is that of a character of XML. */
bool utf8_is_character(uint32_t c);

/* Bytes that a character takes in UTF-8. */
size_t utf8_size(uint32_t c);

#endif
