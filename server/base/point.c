/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/base/point.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct point_row point_rows[POINT_COUNT] = {
#define POINT_ROW(name, text) {#name, text},
#include "server/base/point.def"
#undef POINT_ROW
};

enum action { ACTION_NONE, ACTION_KILL, ACTION_EIO, ACTION_ENOSPC, ACTION_SLEEP, ACTION_TELL };

static const char *const action_names[] = {"", "kill", "eio", "enospc", "sleep", "tell"};

#define EVERY_POINT POINT_COUNT

static int armed_point = -1;
static enum action armed_action = ACTION_NONE;
static atomic_int passages_left;

static const char *arming_file;                            /* NULL unless points are armed while the process runs */
static pthread_mutex_t arming = PTHREAD_MUTEX_INITIALIZER; /* then guards what is armed */

static int point_index(const char *name)
{
    for (int i = 0; i < POINT_COUNT; i++)
        if (strcmp(point_rows[i].name, name) == 0)
            return i;
    return strcmp(name, "*") == 0 ? EVERY_POINT : -1;
}

static enum action action_index(const char *name)
{
    for (enum action i = ACTION_KILL; i <= ACTION_TELL; i++)
        if (strcmp(action_names[i], name) == 0)
            return i;
    return ACTION_NONE;
}

static int arm(const char *spec)
{
    char name[64] = "", action[16] = "";
    int count = 1;
    if (sscanf(spec, "%63[a-z0-9_*]:%15[a-z]:%d", name, action, &count) < 2 || count < 1)
        return -1;
    armed_point = point_index(name);
    armed_action = action_index(action);
    atomic_store(&passages_left, count);
    return armed_point < 0 || armed_action == ACTION_NONE ? -1 : 0;
}

int point_arm_from_environment(void)
{
    const char *spec = getenv("SMAPI_POINT");
    if (!spec)
        return 0;
    if (spec[0] != '@')
        return arm(spec);
    arming_file = spec + 1;
    return arming_file[0] == '/' ? 0 : -1;
}

static int point_act(void)
{
    switch (armed_action) {
    case ACTION_KILL:
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    case ACTION_EIO:
        errno = EIO;
        return -1;
    case ACTION_ENOSPC:
        errno = ENOSPC;
        return -1;
    case ACTION_SLEEP:
        sleep(1);
        return 0;
    case ACTION_TELL:
    case ACTION_NONE:
        break;
    }
    return 0;
}

static bool is_hit(enum point p)
{
    if ((int) p != armed_point && armed_point != EVERY_POINT)
        return false;
    return armed_action == ACTION_TELL || atomic_fetch_sub(&passages_left, 1) == 1;
}

/* What the file asks for, once. */
static void arm_from_file(void)
{
    char spec[128] = "";
    FILE *file = fopen(arming_file, "re");
    if (!file)
        return;
    if (!fgets(spec, sizeof spec, file) || arm(spec) < 0)
        armed_action = ACTION_NONE;
    fclose(file);
    unlink(arming_file);
}

static bool is_hit_by_file(enum point p)
{
    pthread_mutex_lock(&arming);
    arm_from_file();
    bool hit = is_hit(p);
    pthread_mutex_unlock(&arming);
    if (hit)
        fprintf(stderr, "point %s\n", point_rows[p].name);
    return hit;
}

int point_pass(enum point p)
{
    if (arming_file)
        return is_hit_by_file(p) ? point_act() : 0;
    return is_hit(p) ? point_act() : 0;
}
