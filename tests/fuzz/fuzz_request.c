/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libFuzzer: a whole request. The first byte says who asks, the lines up to an empty one are the head, the rest is the
   body. What is prepared for a turn is refused as by a full queue; what takes none is done. */
#include "server/base/log.h"
#include "server/permissions.h"
#include "server/request.h"
#include "server/wire/read.h"
#include "server/wire/write.h"
#include <assert.h>
#include <string.h>

#define GRANTED "11111111-2222-3333-4444-555555555555"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct permissions *permit(struct fault *f)
{
    char path[] = "/dev/shm/fuzz-permissions-XXXXXX";
    static const char text[] = "[operator:fuzz]\n" GRANTED " = all\n[role host]\nany = all\n[role admin]\nany = all\n";
    int fd = mkstemp(path);
    struct permissions *p = permissions_new();
    assert(fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t) sizeof text - 1);
    close(fd);
    assert(permissions_load(p, path, f) == 0);
    unlink(path);
    return p;
}

static struct dispatch *make_dispatch(void)
{
    struct fault f;
    bool in_use;
    struct dispatch_settings settings = {.backend = {.mount_base = "/nonexistent"},
                                         .permissions = permit(&f),
                                         .multicall_max = 8,
                                         .write_result = wire_write_result,
                                         .write_fault = wire_write_fault,
                                         .write_multicall = wire_write_multicall};
    static char state[] = "/dev/shm/fuzz-state-XXXXXX";
    struct dispatch *d;
    log_set_level(LOG_ERROR);
    assert(mkdtemp(state));
    assert(store_open(state, &settings.store, &in_use, &f) == 0);
    assert(dispatch_new(&settings, &d, &f) == 0);
    return d;
}

/* One line of the head, its end cut off. */
static char *next_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');
    *at = end ? end + 1 : line + strlen(line);
    if (end)
        *end = '\0';
    return line;
}

/* False when the input has no head. */
static bool read_head(char *text, struct http_verdict *verdict, struct http_head *head)
{
    char *at = text, *method = next_line(&at), *path = strchr(method, ' '),
         *version = path ? strchr(path + 1, ' ') : NULL;
    if (!version)
        return false;
    *path++ = *version++ = '\0';
    while (*at) {
        char *name = next_line(&at), *value = strchr(name, ':');
        if (value)
            *value++ = '\0';
        http_header(head, name, strlen(name), value, value ? strlen(value) : 0);
    }
    http_judge(method, path, version, head, WIRE_BODY_MAX, verdict);
    return true;
}

static void serve(struct dispatch *d, struct request *r)
{
    struct call *call = request_call(r);
    bool done = request_prepare(r, d);
    assert(!done || call->reply);
    if (!done && call->turn.lock == LOCK_NONE)
        dispatch_run(d, call);
    while (!call->reply) {
        fault_set(&call->fault, FAULT_Busy, "fuzzed");
        dispatch_refuse(d, call);
    }
    assert(call->reply_length > 0 && memcmp(call->reply, "<?xml", 5) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dispatch *d;
    struct http_head head = {0};
    struct http_verdict verdict = {0};
    const uint8_t *end = size > 1 ? memmem(data, size, "\n\n", 2) : NULL;
    if (!d)
        d = make_dispatch();
    if (!end || end == data)
        return 0;
    struct identity who = {.role = (enum role)(data[0] % ROLE_COUNT), .name = "operator:fuzz", .holder = "fuzz"};
    AUTO_FREE char *text = strndup((const char *) data + 1, (size_t) (end - data - 1));
    assert(text);
    if (!read_head(text, &verdict, &head) || verdict.route != HTTP_CALL)
        return 0;
    struct request *r = request_new(1, &who, verdict.type, &head);
    const char *body = (const char *) end + 2;
    if (request_take(r, body, size - (size_t) (body - (const char *) data)))
        serve(d, r);
    request_free(r);
    return 0;
}
