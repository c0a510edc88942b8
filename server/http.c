/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/http.h"

#include <string.h>
#include <strings.h>

/* ---- the head ---- */

static bool is_token(const char *text, size_t length)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || !strchr(marks, c)))
            return false;
    }
    return length > 0;
}

static bool is_field_text(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (((unsigned char) text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f)
            return false;
    return true;
}

static void note(unsigned *count, const char **last, const char *value)
{
    (*count)++;
    if (last)
        *last = value;
}

/* Names that only begin like one that frames the request: what the library makes of a folded line is a name with the
   rest of the value behind it. */
static bool is_mangled(const char *name, size_t length)
{
    static const char *const framing[] = {"Content-Length", "Transfer-Encoding", "Host"};
    for (size_t i = 0; i < sizeof framing / sizeof framing[0]; i++) {
        size_t n = strlen(framing[i]);
        if (length > n && strncasecmp(name, framing[i], n) == 0)
            return true;
    }
    return false;
}

void http_header(struct http_head *h, const char *name, size_t name_length, const char *value, size_t value_length)
{
    if (!is_token(name, name_length) || is_mangled(name, name_length) || !value ||
        !is_field_text(value, value_length)) {
        h->malformed = true;
        return;
    }
    if (strcasecmp(name, "Content-Length") == 0)
        note(&h->lengths, &h->length, value);
    else if (strcasecmp(name, "Transfer-Encoding") == 0)
        note(&h->encodings, NULL, value);
    else if (strcasecmp(name, "Host") == 0)
        note(&h->hosts, NULL, value);
    else if (strcasecmp(name, "Content-Type") == 0)
        note(&h->types, &h->type, value);
    else if (strcasecmp(name, "X-SMAPI-Op-Id") == 0)
        note(&h->op_ids, &h->op_id, value);
    else if (strcasecmp(name, "traceparent") == 0)
        note(&h->traces, &h->trace, value);
}

bool http_trace_well_formed(const char *text)
{
    static const char form[] = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (size_t i = 0; i < sizeof form - 1; i++)
        if (form[i] == 'x' ? !strchr("0123456789abcdef", text[i]) : text[i] != form[i])
            return false;
    return strncmp(text + 3, "00000000000000000000000000000000", 32) != 0 &&
           strncmp(text + 36, "0000000000000000", 16) != 0;
}

/* ---- the verdict ---- */

static void refuse(struct http_verdict *v, unsigned status, const char *sentence)
{
    *v = (struct http_verdict){.route = HTTP_REFUSED, .status = status, .sentence = sentence};
}

/* The value of a Content-Length of plain digits; past 2^53 it is only "too much". False for any other text. */
static bool read_length(const char *text, unsigned long long *out)
{
    unsigned long long n = 0;
    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        if (n < (1ULL << 53))
            n = n * 10 + (unsigned long long) (*text - '0');
    }
    *out = n;
    return true;
}

/* Why the bytes of this request cannot be told apart from the next one's with certainty, or NULL. */
static const char *framing_fault(const char *version, const struct http_head *h, unsigned long long *length)
{
    *length = 0;
    if (h->malformed)
        return "A header line is malformed.\n";
    if (h->encodings > 0)
        return "Transfer-Encoding is not accepted: send a Content-Length.\n";
    if (h->lengths > 1)
        return "More than one Content-Length.\n";
    if (h->lengths == 1 && !read_length(h->length, length))
        return "Content-Length is no plain number.\n";
    if (h->hosts > 1 || (h->hosts == 0 && strcmp(version, "HTTP/1.0") != 0))
        return "There must be one Host.\n";
    if (h->types > 1)
        return "More than one Content-Type.\n";
    return NULL;
}

static bool read_type(const char *text, char out[HTTP_TYPE_MAX + 1])
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789");
    if (length == 0 || length > HTTP_TYPE_MAX || text[length])
        return false;
    memcpy(out, text, length + 1);
    return true;
}

static void find_route(const char *path, struct http_verdict *v)
{
    static const struct {
        const char *path;
        enum http_route route;
    } plain[] = {{"/RPC2", HTTP_CALL},     {"/healthz", HTTP_HEALTHZ},   {"/HEALTHCHECK", HTTP_HEALTHZ},
                 {"/readyz", HTTP_READYZ}, {"/versions", HTTP_VERSIONS}, {"/metrics", HTTP_METRICS}};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(path, plain[i].path) == 0)
            v->route = plain[i].route;
    if (strncmp(path, "/sm/", 4) == 0 && read_type(path + 4, v->type))
        v->route = HTTP_CALL;
}

static bool is_xml(const char *type)
{
    static const char *const names[] = {"text/xml", "application/xml"};
    for (size_t i = 0; type && i < 2; i++) {
        size_t length = strlen(names[i]);
        if (strncasecmp(type, names[i], length) != 0)
            continue;
        const char *rest = type + length + strspn(type + length, " \t");
        if (*rest == '\0' || *rest == ';')
            return true;
    }
    return false;
}

static void judge_call(const struct http_head *h, unsigned long long length, size_t body_max, struct http_verdict *v)
{
    if (!is_xml(h->type))
        refuse(v, 415, "Calls are XML-RPC: Content-Type must be text/xml.\n");
    else if (h->lengths == 0)
        refuse(v, 411, "A Content-Length is needed.\n");
    else if (length > body_max)
        refuse(v, 413, "The body is longer than limits.body_bytes allows.\n");
}

void http_judge(const char *method, const char *path, const char *version, const struct http_head *h, size_t body_max,
                struct http_verdict *out)
{
    struct http_verdict v = {.route = HTTP_REFUSED};
    unsigned long long length;
    const char *fault = framing_fault(version, h, &length);
    find_route(path, &v);
    const char *verb = v.route == HTTP_CALL ? "POST" : "GET";
    if (fault) {
        refuse(&v, 400, fault);
    } else if (v.route == HTTP_REFUSED) {
        refuse(&v, 404, "There is nothing here. Calls go to /RPC2 or /sm/<type>.\n");
    } else if (strcmp(method, verb) != 0) {
        refuse(&v, 405, "This verb is not offered here.\n");
        v.allow = verb;
    } else if (v.route == HTTP_CALL) {
        judge_call(h, length, body_max, &v);
    } else if (length > 0) {
        refuse(&v, 400, "A GET carries no body.\n");
    }
    *out = v;
}
