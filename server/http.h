/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What of HTTP we accept, decided from a request's head alone, before a byte of its body is read. Knows no library. */
#ifndef SMAPI_SERVER_HTTP_H
#define SMAPI_SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>

/* The header lines that matter. Zero it, then http_header for each line in turn. Texts are the library's. */
struct http_head {
    bool malformed; /* a name that is no token or begins like one that frames, a control character in a value */
    unsigned lengths, encodings, hosts, types, op_ids, traces; /* how often each was there */
    const char *length, *type, *op_id, *trace;                 /* the last of each */
};

void http_header(struct http_head *h, const char *name, size_t name_length, const char *value, size_t value_length);

enum http_route { HTTP_REFUSED, HTTP_CALL, HTTP_HEALTHZ, HTTP_READYZ, HTTP_VERSIONS, HTTP_METRICS };

#define HTTP_TYPE_MAX 16

struct http_verdict {
    enum http_route route;
    char type[HTTP_TYPE_MAX + 1]; /* HTTP_CALL: of /sm/<type>; "" for /RPC2 */
    /* HTTP_REFUSED: what to answer; then the connection is closed, as its bytes cannot be trusted to be told apart. */
    unsigned status;
    const char *sentence; /* ends with a newline */
    const char *allow;    /* of the header Allow, or NULL */
};

/* 400: framing that two readers could read differently (any Transfer-Encoding, more than one Content-Length or Host, a
   length that is not plain digits, malformed header lines, a GET with a body); then 404, 405, 415, 411, 413 for more
   than body_max bytes. */
void http_judge(const char *method, const char *path, const char *version, const struct http_head *h, size_t body_max,
                struct http_verdict *out);

/* Whether text is a traceparent of W3C Trace Context, version 00. */
bool http_trace_well_formed(const char *text);

#endif
