/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka with what it needs before it. */
#ifndef SMAPI_TESTS_CHECK_H
#define SMAPI_TESTS_CHECK_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
