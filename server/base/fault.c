/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/fault.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

/* Here the functions themselves are meant. */
#undef fault_set
#undef fault_errno
#undef fault_prefix

static const struct fault_row rows[] = {
#define FAULT_ROW(name, code, text, when) {FAULT_##name, #name, text, when},
#include "server/base/fault.def"
#undef FAULT_ROW
};

const struct fault_row *fault_rows(size_t *count)
{
    *count = COUNT_OF(rows);
    return rows;
}

const struct fault_row *fault_row(enum fault_code code)
{
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        if (rows[i].code == code)
            return &rows[i];
    assert(false && "a fault code outside fault.def");
    return &rows[0];
}

int fault_set(struct fault *f, enum fault_code code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->detail, sizeof f->detail, fmt, args);
    va_end(args);
    f->code = code;
    f->document = NULL;
    return -1;
}

int fault_errno(struct fault *f, enum fault_code code, const char *fmt, ...)
{
    int saved = errno;
    char what[FAULT_DETAIL], why[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (saved == ENOSPC || saved == EDQUOT)
        code = FAULT_SRNoSpace;
    errno = saved;
    return fault_set(f, code, "%s: %s", what, saved ? strerror_r(saved, why, sizeof why) : "shorter than it must be");
}

int fault_prefix(struct fault *f, const char *fmt, ...)
{
    char what[FAULT_DETAIL], old[FAULT_DETAIL];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    const char *document = f->document;
    memcpy(old, f->detail, sizeof old);
    fault_set(f, f->code, "%s: %s", what, old);
    f->document = document;
    return -1;
}

void fault_document(struct fault *f, const char *document)
{
    f->document = document && strlen(document) <= FAULT_DOCUMENT ? document : NULL;
}

/* Length of the well-formed UTF-8 character at s that XML 1.0 allows, or 0. */
static size_t xml_char_length(const unsigned char *s)
{
    if (s[0] < 0x80)
        return s[0] >= 0x20 || s[0] == '\t' || s[0] == '\n' ? 1 : 0;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        return (s[1] & 0xc0) == 0x80 ? 2 : 0;
    if (s[0] >= 0xe0 && s[0] <= 0xef) {
        if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80)
            return 0;
        unsigned c = ((s[0] & 15U) << 12) | ((s[1] & 63U) << 6) | (s[2] & 63U);
        return c >= 0x800 && (c < 0xd800 || c > 0xdfff) && c < 0xfffe ? 3 : 0;
    }
    if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        if ((s[1] & 0xc0) != 0x80 || (s[2] & 0xc0) != 0x80 || (s[3] & 0xc0) != 0x80)
            return 0;
        unsigned c = ((s[0] & 7U) << 18) | ((s[1] & 63U) << 12) | ((s[2] & 63U) << 6) | (s[3] & 63U);
        return c >= 0x10000 && c <= 0x10ffff ? 4 : 0;
    }
    return 0;
}

static void make_xml_line(char *text)
{
    for (unsigned char *s = (unsigned char *) text; *s;) {
        size_t n = xml_char_length(s);
        if (*s == '\n' || *s == '\r') {
            *s = ' ';
            n = 1;
        }
        if (n == 0) {
            *s = '?';
            n = 1;
        }
        s += n;
    }
}

void fault_string(const struct fault *f, char *out, size_t size)
{
    const char *text = fault_row(f->code)->text;
    if (f->detail[0])
        snprintf(out, size, "%s [opterr=%s]", text, f->detail);
    else
        snprintf(out, size, "%s", text);
    make_xml_line(out);
}
