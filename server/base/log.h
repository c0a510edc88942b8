/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lines on stderr, one write each, with the priority prefix journald reads (sd-daemon(3)) when it listens. */
#ifndef SMAPI_BASE_LOG_H
#define SMAPI_BASE_LOG_H

#include "server/base/own.h"

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* Lines above this level are not written. LOG_INFO until set. Any thread. */
void log_set_level(enum log_level level);

/* One line, cut at 1 KiB; control characters in it become '?', so that no input can forge a second line. */
void log_line(enum log_level level, const char *fmt, ...) PRINTF(2, 3);

#endif
