/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text that grows up to a ceiling given when it is made. For replies, XML documents, JSON and log lines. */
#ifndef SMAPI_BASE_TEXT_H
#define SMAPI_BASE_TEXT_H

#include "server/base/own.h"
#include <stdbool.h>
#include <stddef.h>

/* Zero it with TEXT_OF(ceiling). data is NUL-terminated once something was added; owner calls text_free. */
struct text {
    char *data;
    size_t length, size, ceiling;
    bool full; /* something did not fit and was left out */
};

#define TEXT_OF(limit) ((struct text){.ceiling = (limit)})

void text_free(struct text *t);
#define AUTO_TEXT __attribute__((cleanup(text_free)))

void text_add(struct text *t, const char *s);
void text_add_bytes(struct text *t, const char *s, size_t length);
void text_printf(struct text *t, const char *fmt, ...) PRINTF(2, 3);
/* With & < > " ' written as entities; control characters XML 1.0 cannot hold become '?'. */
void text_add_xml(struct text *t, const char *s);
/* As a JSON string with its quotes. */
void text_add_json(struct text *t, const char *s);

/* Hands over the malloc'd bytes (never NULL); t is empty again. */
char *text_take(struct text *t);

#endif
