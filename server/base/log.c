/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

enum { LINE = 1024 };

static atomic_int threshold = LOG_INFO;

void log_set_level(enum log_level level)
{
    atomic_store(&threshold, (int) level);
}

static const char *prefix(enum log_level level)
{
    static const char *const names[] = {"<3>", "<4>", "<6>", "<7>"};
    return getenv("JOURNAL_STREAM") ? names[level] : "";
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if ((int) level > atomic_load(&threshold))
        return;
    char line[LINE];
    size_t start = (size_t) snprintf(line, sizeof line, "%s", prefix(level));
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line + start, sizeof line - start - 1, fmt, args);
    va_end(args);
    size_t end = n < 0 ? start : start + (size_t) n;
    if (end > sizeof line - 2)
        end = sizeof line - 2;
    for (size_t i = start; i < end; i++)
        if ((unsigned char) line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[end] = '\n';
    ssize_t done = write(STDERR_FILENO, line, end + 1);
    (void) done; /* nowhere left to say that logging failed */
}
