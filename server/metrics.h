/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counters of calls, and numbers as Prometheus reads them (text format 0.0.4). */
#ifndef SMAPI_SERVER_METRICS_H
#define SMAPI_SERVER_METRICS_H

#include "server/base/fault.h"
#include "server/base/text.h"
#include <stdint.h>

/* Room for a whole page of metrics. */
#define METRICS_MAX (1U << 20)

struct metrics;

void metrics_free(struct metrics *m); /* NULL is fine */
struct metrics *metrics_new(void) DEALLOC(metrics_free);

/* A call ended so, after so long. method: a text that lives as long as the process, or NULL for a call whose method is
   not known. Any thread. */
void metrics_count(struct metrics *m, const char *method, enum fault_code code, int64_t ns);

/* smapid_calls_total by method and fault, smapid_call_seconds_total by both. */
void metrics_print(struct metrics *m, struct text *out);

/* The two lines that come before a metric's values; kind is "counter" or "gauge". */
void metrics_head(struct text *out, const char *name, const char *kind, const char *sentence);
/* One value; labels as key="value",… or "". */
void metrics_value(struct text *out, const char *name, const char *labels, uint64_t value);
/* A metric with one value without labels. */
void metrics_one(struct text *out, const char *name, const char *kind, const char *sentence, uint64_t value);

#endif
