/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the tests of server/wire share: bodies built from pieces, and files of the fuzz corpus. */
#ifndef SMAPI_TESTS_WIRE_CHECK_H
#define SMAPI_TESTS_WIRE_CHECK_H

#include "server/base/text.h"
#include "server/wire/read.h"
#include "tests/unit/check.h"
#include <string.h>

#define CORPUS       "tests/fuzz/corpus/gate/"
#define CALL_HEAD    "<methodCall><methodName>m</methodName><params>"
#define CALL_TAIL    "</params></methodCall>"
#define CALL(params) CALL_HEAD params CALL_TAIL
#define ONE(value)   CALL("<param>" value "</param>")
/* What one call may take of its arena: arena_new aborts the test past it. */
#define CALL_MEMORY (1U << 20)

static inline void add_times(struct text *t, size_t n, const char *piece)
{
    for (size_t i = 0; i < n; i++)
        text_add(t, piece);
}

static inline struct text corpus_file(const char *name)
{
    char path[128];
    char bytes[WIRE_BODY_MAX];
    snprintf(path, sizeof path, "%s%s", CORPUS, name);
    AUTO_FILE FILE *file = fopen(path, "r");
    assert_non_null(file);
    struct text t = TEXT_OF(WIRE_BODY_MAX);
    text_add_bytes(&t, bytes, fread(bytes, 1, sizeof bytes, file));
    assert_true(t.length > 0);
    return t;
}

#endif
