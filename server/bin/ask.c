/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/bin/ask.h"

#include "server/base/clock.h"
#include "server/bin/bridge_post.h"
#include "server/wire/read.h"
#include <string.h>

enum { KEYS_MAX = 32 };

int ask_daemon(const struct settings *s, struct arena *a, const struct text *body, struct value **out, bool *asked,
               struct fault *f)
{
    struct bridge_conf conf = {.deadline_seconds = ASK_SECONDS};
    AUTO_FREE char *reply = NULL;
    size_t length;
    *asked = false;
    if (strlen(s->server_socket) >= sizeof conf.socket)
        return fault_set(f, FAULT_InvalidArg, "server.socket is too long a path for a socket");
    memcpy(conf.socket, s->server_socket, strlen(s->server_socket) + 1);
    const struct bridge_request request = {&conf, NULL, body->data, body->length,
                                           clock_boot_ns() + ASK_SECONDS * INT64_C(1000000000)};
    if (bridge_post(&request, &reply, &length, f) < 0)
        return -1;
    *asked = true;
    return wire_read_reply(a, reply, length, out, f);
}

/* The next piece of a word, with those behind it that begin no key. */
static char *next_piece(char **rest)
{
    char *piece = strsep(rest, ",");
    while (piece && *rest && !memchr(*rest, '=', strcspn(*rest, ","))) {
        (*rest)[-1] = ',';
        strsep(rest, ",");
    }
    return piece;
}

int sr_word_parse(struct arena *a, const char *text, struct sr_word *out, struct fault *f)
{
    struct sr_word w = {.uuid = UUID_NONE, .config = {ARENA_ARRAY(a, struct pair, KEYS_MAX), 0}};
    char *rest = arena_text(a, text), *piece;
    w.type = strsep(&rest, ",");
    while ((piece = next_piece(&rest)) != NULL) {
        char *value = strchr(piece, '=');
        if (!value || w.config.count == KEYS_MAX)
            return fault_set(f, FAULT_InvalidArg, "--sr wants TYPE,uuid=UUID,KEY=VALUE,..., not %.200s", text);
        *value++ = '\0';
        if (strcmp(piece, "uuid") == 0)
            uuid_parse_text(value, &w.uuid);
        else
            w.config.items[w.config.count++] = (struct pair){piece, value};
    }
    *out = w;
    return 0;
}
