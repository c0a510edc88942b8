/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether a directory on another machine still answers. A file system whose server is gone keeps whoever touches it,
   maybe for ever, so nobody touches one before its pulse was felt: a thread of its own asks the server, now and then
   and whenever somebody wants to know, and alone is kept. */
#ifndef SMAPI_BACKENDS_PULSE_H
#define SMAPI_BACKENDS_PULSE_H

#include "server/base/fault.h"

/* How long an answer may take before the server counts as gone. */
#define PULSE_SECONDS 5

struct pulse;

/* Watches the directory, of which it keeps a descriptor of its own. NULL when no thread can be had. */
struct pulse *pulse_start(int dir) NODISCARD;
/* Ends the watch. Its descriptor is closed on return, unless the thread is kept by the server: then it is when the
   server answers, or never. NULL is fine. */
void pulse_stop(struct pulse *p);

/* Asks the server: 0 when it answers within PULSE_SECONDS. SRUnavailable otherwise, at once when it has not answered
   for longer already, saying for how long. Any thread. */
int pulse_feel(struct pulse *p, const char *what, struct fault *f);
/* The same from what is known: never waits. */
int pulse_known(struct pulse *p, const char *what, struct fault *f);

/* A descriptor of the directory at path, for somebody who does not know whether its server answers; -1 with errno,
   ETIMEDOUT when it does not. */
int pulse_open_directory(const char *path);

#endif
