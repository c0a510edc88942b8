/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/schema.h"

#include "server/base/own.h"
#include <assert.h>

/* clang-format off */
#define SCHEMA(number)                                                   \
    __asm__(".section .rodata\n"                                         \
            ".globl schema_" #number "\n"                                \
            "schema_" #number ":\n"                                      \
            ".incbin \"" SMAPI_SCHEMA_DIRECTORY "/" #number ".sql\"\n"   \
            ".byte 0\n"                                                  \
            ".previous\n");                                              \
    extern const char schema_##number[];

SCHEMA(0001)
SCHEMA(0002)
SCHEMA(0003)
/* clang-format on */

static const char *const texts[] = {schema_0001, schema_0002, schema_0003};

size_t schema_newest(void)
{
    return COUNT_OF(texts);
}

const char *schema_text(size_t number)
{
    assert(number >= 1 && number <= COUNT_OF(texts));
    return texts[number - 1];
}
