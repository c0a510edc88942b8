/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Starts programs in turns, as xapi does: posix_spawn, its output read, waited for.
   bench_spawn ROUNDS [LABEL PROGRAM ARGV0 CALLS]...
   CALLS is a file of methodCalls with a NUL behind each; round i sends number i modulo their count. Prints a line a
   label: LABEL, median wall and CPU time in microseconds. An answer that is a fault, or empty, ends it. */
#include "server/base/clock.h"
#include "server/base/own.h"
#include "tests/bench/median.h"
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { SUBJECTS_MAX = 8, CALLS_MAX = 1 << 20, ANSWER_MAX = 1 << 20 };

struct subject {
    const char *label, *program;
    char *name;
    char *calls;
    size_t length, at;
    double *wall, *cpu;
};

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(EXIT_FAILURE);
}

static void load_calls(struct subject *s, const char *path)
{
    AUTO_FILE FILE *f = fopen(path, "r");
    s->calls = malloc(CALLS_MAX);
    need(f && s->calls, path);
    s->length = fread(s->calls, 1, CALLS_MAX, f);
    need(s->length > 0 && s->calls[s->length - 1] == '\0', "calls end with a NUL");
}

static char *next_call(struct subject *s)
{
    char *call = s->calls + s->at;
    s->at += strlen(call) + 1;
    if (s->at >= s->length)
        s->at = 0;
    return call;
}

static void check_answer(const struct subject *s, int fd)
{
    static char answer[ANSWER_MAX];
    size_t have = 0;
    ssize_t n;
    while (have < sizeof answer - 1 && (n = read(fd, answer + have, sizeof answer - 1 - have)) > 0)
        have += (size_t) n;
    answer[have] = '\0';
    if (have > 0 && !strstr(answer, "<fault>"))
        return;
    fprintf(stderr, "%s: %s\n", s->label, answer);
    exit(EXIT_FAILURE);
}

static double microseconds(const struct timeval *t)
{
    return (double) t->tv_sec * 1e6 + (double) t->tv_usec;
}

static void run_once(struct subject *s, size_t round)
{
    char *argv[] = {s->name, next_call(s), NULL};
    int ends[2], status;
    pid_t child;
    struct rusage used;
    posix_spawn_file_actions_t actions;
    need(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    int64_t began = clock_boot_ns();
    need(posix_spawn(&child, s->program, &actions, NULL, argv, environ) == 0, s->program);
    close(ends[1]);
    check_answer(s, ends[0]);
    need(wait4(child, &status, 0, &used) == child && status == 0, s->label);
    s->wall[round] = (double) (clock_boot_ns() - began) / 1e3;
    s->cpu[round] = microseconds(&used.ru_utime) + microseconds(&used.ru_stime);
    close(ends[0]);
    posix_spawn_file_actions_destroy(&actions);
}

int main(int argc, char **argv)
{
    static struct subject subjects[SUBJECTS_MAX];
    size_t rounds = argc > 1 ? (size_t) atoi(argv[1]) : 0, count = argc > 2 ? (size_t) (argc - 2) / 4 : 0;
    if (rounds == 0 || count == 0 || count > SUBJECTS_MAX)
        return 2;
    for (size_t i = 0; i < count; i++) {
        char **spec = argv + 2 + i * 4;
        subjects[i] = (struct subject){.label = spec[0], .program = spec[1], .name = spec[2]};
        subjects[i].wall = calloc(rounds, sizeof(double));
        subjects[i].cpu = calloc(rounds, sizeof(double));
        need(subjects[i].wall && subjects[i].cpu, "memory");
        load_calls(&subjects[i], spec[3]);
    }
    for (size_t round = 0; round < rounds; round++)
        for (size_t i = 0; i < count; i++)
            run_once(&subjects[i], round);
    for (size_t i = 0; i < count; i++)
        printf("%s %.1f %.1f\n", subjects[i].label, median(subjects[i].wall, rounds), median(subjects[i].cpu, rounds));
    return EXIT_SUCCESS;
}
