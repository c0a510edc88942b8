/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/driver.h"

#include "backends/pulse.h"
#include "backends/types.h"
#include "server/base/clock.h"
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

enum { REASON = 512 };

int sr_poison(struct sr *sr, struct fault *f, const char *fmt, ...)
{
    int saved = errno;
    char what[REASON], why[96];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    enum fault_code code = saved == ENOSPC || saved == EDQUOT ? FAULT_SRNoSpace : FAULT_EIO;
    fault_set(f, code, "%s: %s", what, strerror_r(saved, why, sizeof why));
    AUTO_FREE char *reason = strdup(f->detail);
    char *none = NULL;
    if (reason && atomic_compare_exchange_strong(&sr->poison, &none, reason))
        reason = NULL;
    return -1;
}

int sr_check_owner(const struct sr *sr, const struct owner *owner, struct fault *f)
{
    char text[CLOCK_TEXT];
    const char *since = "a time that it does not tell";
    if (uuid_equal(&owner->server, &sr->settings->server))
        return 0;
    if (owner->since)
        clock_text(owner->since, text), since = text;
    return fault_set(f, sr->type->transport->shared ? FAULT_SRUnavailable : FAULT_SRInUse,
                     "SR %s belongs to server %s, since %s; this is %s. When that one is gone for good, smapid "
                     "--take-over takes the SR over",
                     sr->uuid.text, owner->server.text, since, sr->settings->server.text);
}

/* Guards the pulse of every SR: it is asked after by threads that do not have the SR's turn. Held briefly. */
static pthread_mutex_t pulses = PTHREAD_MUTEX_INITIALIZER;

static void set_pulse(struct sr *sr, struct pulse *p)
{
    pthread_mutex_lock(&pulses);
    struct pulse *old = sr->pulse;
    sr->pulse = p;
    pthread_mutex_unlock(&pulses);
    pulse_stop(old);
}

int sr_watch(struct sr *sr, int dir, struct fault *f)
{
    struct pulse *p = dir < 0 ? NULL : pulse_start(dir);
    if (dir >= 0 && !p)
        return fault_errno(f, FAULT_SRUnavailable, "watch the server of SR %s", sr->uuid.text);
    set_pulse(sr, p);
    return 0;
}

static const char *server_text(const struct sr *sr, char out[96])
{
    snprintf(out, 96, "the server of SR %s", sr->uuid.text);
    return out;
}

int sr_answers(const struct sr *sr, struct fault *f)
{
    char text[96];
    if (sr->pulse)
        return pulse_feel(sr->pulse, server_text(sr, text), f);
    return sr->type->transport->answers ? sr->type->transport->answers(sr, f) : 0;
}

int sr_known_silent(struct sr *sr, struct fault *f)
{
    char text[96];
    pthread_mutex_lock(&pulses);
    int r = sr->pulse ? pulse_known(sr->pulse, server_text(sr, text), f) : 0;
    pthread_mutex_unlock(&pulses);
    return r;
}

void place_add_device(struct place *place, const char *path)
{
    char **more = realloc(place->devices, (place->device_count + 1) * sizeof *more);
    char *copy = strdup(path);
    if (!more || !copy)
        abort();
    more[place->device_count++] = copy;
    place->devices = more;
}

void place_free_devices(struct place *place)
{
    for (size_t i = 0; i < place->device_count; i++)
        free(place->devices[i]);
    free(place->devices);
    place->devices = NULL;
    place->device_count = 0;
}

void found_add(struct arena *a, struct found_list *l, struct found_sr item)
{
    l->items = arena_grown(a, l->items, l->count, &l->room, sizeof *l->items);
    l->items[l->count++] = item;
}

void trace_add(struct arena *a, struct trace_list *l, const struct uuid *uuid, const struct pair *pairs, size_t count)
{
    struct sr_trace t = {.uuid = *uuid, .config = {ARENA_ARRAY(a, struct pair, count), 0}};
    for (size_t i = 0; i < count; i++)
        if (pairs[i].value)
            t.config.items[t.config.count++] = pairs[i];
    l->items = arena_grown(a, l->items, l->count, &l->room, sizeof *l->items);
    l->items[l->count++] = t;
}
