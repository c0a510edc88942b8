/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/replay_help.h"

#include "server/base/cmd.h"
#include "server/base/text.h"
#include "tests/unit/check.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LIMIT (1U << 20)

static struct {
    FILE *file;
    char name[256];
    char *line; /* the one that is next; NULL at the end */
    size_t room;
    unsigned number;
} recording;

static void next_line(void)
{
    ssize_t got = getline(&recording.line, &recording.room, recording.file);
    if (got < 0) {
        free(TAKE(recording.line));
        recording.room = 0;
        return;
    }
    recording.number++;
    recording.line[strcspn(recording.line, "\n")] = '\0';
    if (strncmp(recording.line, "# ", 2) == 0)
        next_line();
}

/* What follows the mark, when the next line has it. */
static const char *marked(const char *mark)
{
    return recording.line && strncmp(recording.line, mark, 2) == 0 ? recording.line + 2 : NULL;
}

static void lines_to(struct text *t, const char *mark)
{
    for (; marked(mark); next_line())
        text_printf(t, "%s\n", marked(mark));
}

static void printed_to(struct text *t)
{
    for (; recording.line && !marked("> "); next_line())
        text_printf(t, "%s\n", recording.line + (recording.line[0] == '\\'));
}

static void words_to(struct text *t, const char *const *argv)
{
    for (size_t i = 0; argv[i]; i++) {
        const char *quote = argv[i][0] == '\0' || strchr(argv[i], ' ') ? "'" : "";
        text_printf(t, "%s%s%s%s", i ? " " : "", quote, argv[i], quote);
    }
}

static void expect_command(const struct cmd *cmd)
{
    AUTO_TEXT struct text said = TEXT_OF(LIMIT), want_input = TEXT_OF(LIMIT);
    words_to(&said, cmd->argv);
    if (!marked("> "))
        fail_msg("%s has no more commands, but this was run: %s", recording.name, said.data);
    if (strcmp(marked("> "), said.data) != 0)
        fail_msg("%s:%u: want %s\n but this was run: %s", recording.name, recording.number, marked("> "), said.data);
    next_line();
    lines_to(&want_input, "= ");
    const char *input = cmd->input ? cmd->input : "";
    if (strcmp(input, want_input.data ? want_input.data : "") != 0)
        fail_msg("%s:%u: %s was given other input: %s", recording.name, recording.number, said.data, input);
}

static int replay(const struct cmd *cmd, struct arena *a, struct cmd_result *out, struct fault *f)
{
    expect_command(cmd);
    if (!marked("< "))
        fail_msg("%s:%u: no status of the command", recording.name, recording.number);
    struct cmd_result r = {.took_ns = 1000000};
    r.timed_out = strcmp(marked("< "), "killed") == 0;
    bool missing = strcmp(marked("< "), "missing") == 0;
    r.status = r.timed_out ? 128 + SIGKILL : atoi(marked("< "));
    next_line();
    if (missing)
        return fault_set(f, FAULT_InvalidDev, "%s is not installed on this host", cmd->argv[0]);
    AUTO_TEXT struct text printed = TEXT_OF(CMD_OUTPUT), errors = TEXT_OF(CMD_ERRORS);
    lines_to(&errors, "! ");
    printed_to(&printed);
    r.err = arena_text(a, errors.data ? errors.data : "");
    r.out = arena_text(a, printed.data ? printed.data : "");
    r.out_length = printed.length;
    r.err_length = errors.length;
    *out = r;
    return 0;
}

void replay_start(const char *name)
{
    snprintf(recording.name, sizeof recording.name, "tests/replay/%s.txt", name);
    recording.file = fopen(recording.name, "re");
    if (!recording.file)
        fail_msg("no recording %s", recording.name);
    recording.number = 0;
    next_line();
    cmd_replace_runner(replay);
}

void replay_end(void)
{
    cmd_replace_runner(NULL);
    const char *left = marked("> ");
    char text[512] = "";
    if (left)
        snprintf(text, sizeof text, "%s", left);
    free(TAKE(recording.line));
    recording.room = 0;
    fclose(TAKE(recording.file));
    if (left)
        fail_msg("%s: never run: %s", recording.name, text);
}
