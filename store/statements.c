/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/statements.h"

#include "server/base/own.h"

static const struct statement_row rows[] = {
#define STATEMENT(name, plan, sql) {#name, #plan, sql},
#include "store/statements.def"
#undef STATEMENT
};
_Static_assert(COUNT_OF(rows) == STATEMENT_COUNT, "one row a statement");

const struct statement_row *statement_rows(size_t *count)
{
    *count = COUNT_OF(rows);
    return rows;
}
