/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the commands of smapid for people share: a call to the running daemon over its UNIX socket, and an SR as a word
   of the command line. */
#ifndef SMAPI_SERVER_BIN_ASK_H
#define SMAPI_SERVER_BIN_ASK_H

#include "server/base/model.h"
#include "server/base/text.h"
#include "server/config.h"
#include "server/wire/value.h"

enum { ASK_SECONDS = 3600 };

/* Posts a methodCall to the daemon whose settings these are. -1 with the fault it answered, and *asked set; with
   SRUnavailable, and *asked not set, when none listens; otherwise as bridge_post. */
int ask_daemon(const struct settings *s, struct arena *a, const struct text *body, struct value **out, bool *asked,
               struct fault *f);

/* "TYPE,uuid=UUID,KEY=VALUE,...": what has no "=" belongs to the value before it. uuid: none when it is not said.
   InvalidArg. */
struct sr_word {
    const char *type;
    struct uuid uuid;
    struct pairs config;
};
int sr_word_parse(struct arena *a, const char *text, struct sr_word *out, struct fault *f);

#endif
