/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/metrics.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

/* Methods that are, times faults they can end with: far fewer. What does not fit is counted in no row. */
enum { ROWS = 4096 };

struct row {
    const char *method; /* NULL: free */
    enum fault_code code;
    uint64_t count;
    int64_t ns;
};

struct metrics {
    pthread_mutex_t mutex;
    struct row rows[ROWS]; /* a hash table by method and code; rows are never taken out */
};

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->mutex);
    free(m);
}

struct metrics *metrics_new(void)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    pthread_mutex_init(&m->mutex, NULL);
    return m;
}

static struct row *row_of(struct metrics *m, const char *method, enum fault_code code)
{
    uintptr_t hash = ((uintptr_t) method >> 3) * 31 + (unsigned) code;
    for (size_t i = 0; i < ROWS; i++) {
        struct row *r = &m->rows[(hash + i) % ROWS];
        if (!r->method) {
            r->method = method;
            r->code = code;
        }
        if (r->method == method && r->code == code)
            return r;
    }
    return NULL;
}

void metrics_count(struct metrics *m, const char *method, enum fault_code code, int64_t ns)
{
    pthread_mutex_lock(&m->mutex);
    struct row *r = row_of(m, method ? method : "unknown", code);
    if (r) {
        r->count++;
        r->ns += ns;
    }
    pthread_mutex_unlock(&m->mutex);
}

void metrics_head(struct text *out, const char *name, const char *kind, const char *sentence)
{
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, sentence, name, kind);
}

void metrics_value(struct text *out, const char *name, const char *labels, uint64_t value)
{
    text_printf(out, labels[0] ? "%s{%s} %" PRIu64 "\n" : "%s%s %" PRIu64 "\n", name, labels, value);
}

void metrics_one(struct text *out, const char *name, const char *kind, const char *sentence, uint64_t value)
{
    metrics_head(out, name, kind, sentence);
    metrics_value(out, name, "", value);
}

static void print_row(const struct row *r, struct text *out)
{
    const char *fault = r->code == FAULT_NONE ? "none" : fault_row(r->code)->name;
    text_printf(out, "smapid_calls_total{method=\"%s\",fault=\"%s\"} %" PRIu64 "\n", r->method, fault, r->count);
}

static void print_seconds(const struct row *r, struct text *out)
{
    const char *fault = r->code == FAULT_NONE ? "none" : fault_row(r->code)->name;
    text_printf(out, "smapid_call_seconds_total{method=\"%s\",fault=\"%s\"} %.6f\n", r->method, fault,
                (double) r->ns / 1e9);
}

void metrics_print(struct metrics *m, struct text *out)
{
    pthread_mutex_lock(&m->mutex);
    metrics_head(out, "smapid_calls_total", "counter", "Calls that ended, by method and fault.");
    for (size_t i = 0; i < ROWS; i++)
        if (m->rows[i].method)
            print_row(&m->rows[i], out);
    metrics_head(out, "smapid_call_seconds_total", "counter", "Seconds from a call's last byte to its end.");
    for (size_t i = 0; i < ROWS; i++)
        if (m->rows[i].method)
            print_seconds(&m->rows[i], out);
    pthread_mutex_unlock(&m->mutex);
}
