/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one door to outside programs. A child gets argv as it is (never a shell), a fixed environment (LC_ALL=C, PATH,
   HOME=/), cwd /, no descriptor but its standard three (and hold), a process group of its own, and SIGKILL to that
   group when its time is up. What it was and what came of it is logged at debug only; secrets reach a child by input
   alone.
 */
#ifndef SMAPI_BASE_CMD_H
#define SMAPI_BASE_CMD_H

#include "server/base/arena.h"
#include "server/base/fault.h"
#include <stdbool.h>
#include <stdint.h>

struct cmd {
    const char *const *argv; /* NULL ends it; argv[0] is an absolute path */
    const char *input; /* what it reads on its standard input, at most CMD_INPUT bytes; NULL for nothing (/dev/null).
                          It goes into a pipe, whole and before the child starts: no copy is made anywhere else */
    unsigned seconds;  /* how long it may take; 0 stands for 60 */
    int hold;          /* a descriptor of an empty file that the child keeps open as long as it lives, over the death of
                          this process too (struct sr); -1 for none. It is the child's standard input, the only one that
                          all programs keep (lvm2 closes those above the standard three); of a child that has input it
                          is descriptor 3. 0 is never one here */
};

struct cmd_result {
    int status;            /* what it exited with; 128 + n when signal n ended it */
    bool timed_out;        /* it was killed: whatever it was to do is neither done nor not done */
    bool cut;              /* it printed more than is kept: CMD_OUTPUT and CMD_ERRORS bytes */
    const char *out, *err; /* what it printed, each with a zero byte behind it */
    size_t out_length, err_length;
    int64_t took_ns;
};

#define CMD_INPUT  (64U << 10)
#define CMD_OUTPUT (16U << 20)
#define CMD_ERRORS (64U << 10)

/* Runs it to its end: that of the program, not of what it may have left in the background. 0 however it exited: the
   tool's own file judges that. -1 with the fault when it could not be started (InvalidDev naming the program when it is
   not installed) or its output could not be read. Any thread. A child that even SIGKILL does not end, because the
   kernel waits for a device, is left behind five seconds later and collected when it does end. */
int cmd_run(const struct cmd *cmd, struct arena *a, struct cmd_result *out, struct fault *f);

/* "/sbin/lvs exited with 5: <first line of stderr>" in text of the arena; for the sentences of faults. */
const char *cmd_failure(const struct cmd *cmd, const struct cmd_result *result, struct arena *a);

/* For tests: every cmd_run of the process goes to this function until it is NULL again. */
typedef int cmd_runner(const struct cmd *cmd, struct arena *a, struct cmd_result *out, struct fault *f);
void cmd_replace_runner(cmd_runner *runner);

#endif
