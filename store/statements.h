/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The statements of statements.def as rows, for preparing them, for tests of their plans and for smapid --describe. */
#ifndef SMAPI_STORE_STATEMENTS_H
#define SMAPI_STORE_STATEMENTS_H

#include <stddef.h>

enum statement {
#define STATEMENT(name, plan, sql) STATEMENT_##name,
#include "store/statements.def"
#undef STATEMENT
    STATEMENT_COUNT
};

struct statement_row {
    const char *name;
    const char *plan; /* "SEARCH", "SORT", "SCAN" or "NONE", see statements.def */
    const char *sql;
};

/* All rows, in the order of statements.def; constant. */
const struct statement_row *statement_rows(size_t *count);

#endif
