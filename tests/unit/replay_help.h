/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Recorded conversations with outside programs, tests/replay/<tool>/<name>.txt: what a driver must run, in this order,
   and what came back. A line that begins with
     "# "  is a remark;
     "> "  is a command: its words, one space between them; a word that is empty or has spaces stands in '';
     "= "  is a line of what the command must be given to read;
     "< "  is the status it ends with, or "killed" (its time was up), or "missing" (it is not installed);
     "! "  is a line it prints on standard error.
   Every other line is printed on standard output, without the backslash when it begins with one. */
#ifndef SMAPI_TESTS_REPLAY_HELP_H
#define SMAPI_TESTS_REPLAY_HELP_H

/* From now on every cmd_run takes the next command of the recording; another one fails the test. name is
   "<tool>/<name>", without the ending. */
void replay_start(const char *name);
/* Fails the test when commands of the recording have not been run. */
void replay_end(void);

#endif
