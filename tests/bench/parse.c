/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CPU time of reading one call, ours (gate and values) and xmlrpc-c's, in interleaved rounds. Figures to read, no
   verdict. bench_parse [file], from the source root. */
#include "server/wire/read.h"
#include <time.h>
#include <xmlrpc-c/base.h>

enum { ROUNDS = 21, CALLS = 4000 };

struct body {
    const char *text;
    size_t length;
};

static void gate_once(const struct body *b, struct arena *a)
{
    (void) a;
    struct fault f;
    if (wire_gate(b->text, b->length, &f) < 0)
        abort();
}

static void read_once(const struct body *b, struct arena *a)
{
    struct wire_call call;
    struct fault f;
    if (wire_read_call(a, b->text, b->length, &call, &f) < 0)
        abort();
    arena_reset(a);
}

static void xmlrpc_once(const struct body *b, struct arena *a)
{
    (void) a;
    xmlrpc_env env;
    const char *method;
    xmlrpc_value *params;
    xmlrpc_env_init(&env);
    xmlrpc_parse_call(&env, b->text, b->length, &method, &params);
    if (env.fault_occurred)
        abort();
    free((void *) (uintptr_t) method); /* malloc'd by the library */
    xmlrpc_DECREF(params);
    xmlrpc_env_clean(&env);
}

static const struct subject {
    const char *name;
    void (*once)(const struct body *b, struct arena *a);
} subjects[] = {{"gate", gate_once}, {"gate and values", read_once}, {"xmlrpc_parse_call", xmlrpc_once}};

static double round_ns(const struct subject *s, const struct body *b, struct arena *a)
{
    struct timespec from, to;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
    for (int i = 0; i < CALLS; i++)
        s->once(b, a);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
    double spent = (double) (to.tv_sec - from.tv_sec) * 1e9 + (double) (to.tv_nsec - from.tv_nsec);
    return spent / CALLS;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
    const char *file = argc > 1 ? argv[1] : "tests/fuzz/corpus/gate/vdi_create.xml";
    AUTO_FILE FILE *input = fopen(file, "r");
    static char text[WIRE_BODY_MAX];
    struct body body = {text, input ? fread(text, 1, sizeof text, input) : 0};
    if (body.length == 0) {
        perror(file);
        return EXIT_FAILURE;
    }
    AUTO_ARENA struct arena *arena = arena_new(1U << 20);
    double ns[COUNT_OF(subjects)][ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        for (size_t s = 0; s < COUNT_OF(subjects); s++)
            ns[s][round] = round_ns(&subjects[s], &body, arena);
    for (size_t s = 0; s < COUNT_OF(subjects); s++)
        qsort(ns[s], ROUNDS, sizeof ns[s][0], by_value);
    for (size_t s = 0; s < COUNT_OF(subjects); s++)
        printf("%-18s %8.0f ns a call of %zu bytes, %.3f of xmlrpc_parse_call\n", subjects[s].name, ns[s][ROUNDS / 2],
               body.length, ns[s][ROUNDS / 2] / ns[COUNT_OF(subjects) - 1][ROUNDS / 2]);
    return EXIT_SUCCESS;
}
