/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/identity.h"

#include "server/base/own.h"
#include <gnutls/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { URI_MAX = 128, NAMES_MAX = 64 };

static const char urn[] = "urn:smapid:";

static const struct {
    const char *name;
    enum role role;
} roles[] = {{"admin", ROLE_ADMIN}, {"operator", ROLE_OPERATOR}, {"reader", ROLE_READER}};

/* What a certificate says of itself, and how it can be known again. */
struct claims {
    char uri[URI_MAX]; /* the one of ours */
    unsigned uris;     /* how many of ours there are */
    char common_name[HOLDER_TEXT];
    unsigned char certificate[FINGERPRINT], key[FINGERPRINT];
};

static void read_uris(gnutls_x509_crt_t certificate, struct claims *c)
{
    for (unsigned i = 0; i < NAMES_MAX; i++) {
        char uri[URI_MAX] = "";
        size_t size = sizeof uri;
        unsigned type = 0;
        int r = gnutls_x509_crt_get_subject_alt_name2(certificate, i, uri, &size, &type, NULL);
        if (r == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
            return;
        if (r < 0 || type != GNUTLS_SAN_URI || strncmp(uri, urn, sizeof urn - 1) != 0)
            continue;
        c->uris++;
        if (size < sizeof uri && strlen(uri) == size) /* no NUL within */
            memcpy(c->uri, uri, size + 1);
    }
    c->uris = NAMES_MAX; /* more names than anyone needs: believe none */
}

static void read_common_name(gnutls_x509_crt_t certificate, struct claims *c)
{
    char name[HOLDER_TEXT] = "";
    size_t size = sizeof name;
    if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &size) < 0)
        return;
    bool printable = size < sizeof name && strlen(name) == size;
    for (size_t i = 0; i < size && printable; i++)
        printable = (unsigned char) name[i] >= 0x20 && name[i] != 0x7f;
    if (printable)
        memcpy(c->common_name, name, size + 1);
}

/* Zeros, which fit no pin, when they cannot be had. */
static void read_fingerprints(gnutls_x509_crt_t certificate, struct claims *c)
{
    size_t size = FINGERPRINT;
    if (gnutls_x509_crt_get_fingerprint(certificate, GNUTLS_DIG_SHA256, c->certificate, &size) < 0)
        memset(c->certificate, 0, FINGERPRINT);
    size = FINGERPRINT;
    if (gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, c->key, &size) < 0)
        memset(c->key, 0, FINGERPRINT);
}

static int read_claims(const void *der, size_t length, struct claims *out)
{
    gnutls_x509_crt_t certificate;
    gnutls_datum_t data = {.size = (unsigned) length};
    memcpy(&data.data, &der, sizeof der); /* the library's type has no const; it only reads */
    if (gnutls_x509_crt_init(&certificate) < 0)
        return -1;
    int r = gnutls_x509_crt_import(certificate, &data, GNUTLS_X509_FMT_DER);
    if (r == 0) {
        read_uris(certificate, out);
        read_common_name(certificate, out);
        read_fingerprints(certificate, out);
    }
    gnutls_x509_crt_deinit(certificate);
    return r == 0 ? 0 : -1;
}

static bool claim_host(const char *claim, struct identity *out)
{
    if (strncmp(claim, "host:", 5) != 0 || !uuid_parse_text(claim + 5, &out->host))
        return false;
    out->role = ROLE_HOST;
    snprintf(out->name, sizeof out->name, "host:%s", out->host.text);
    snprintf(out->holder, sizeof out->holder, "%s", out->host.text);
    return true;
}

/* A person is role and common name together; one that does not fit would be another's, so it is nobody. */
static bool claim_role(const char *claim, const char *common_name, struct identity *out)
{
    if (strncmp(claim, "role:", 5) != 0 || !common_name[0])
        return false;
    for (size_t i = 0; i < COUNT_OF(roles); i++) {
        if (strcmp(claim + 5, roles[i].name) != 0)
            continue;
        int n = snprintf(out->name, sizeof out->name, "%s:%s", roles[i].name, common_name);
        if (n < 0 || (size_t) n >= sizeof out->name)
            return false;
        memcpy(out->holder, out->name, sizeof out->holder);
        out->role = roles[i].role;
        return true;
    }
    return false;
}

static void nobody(const char *kind, const char *name, struct identity *out)
{
    *out = (struct identity){.role = ROLE_NONE};
    snprintf(out->name, sizeof out->name, "%s:%.*s", kind, HOLDER_TEXT - 16, name);
    memcpy(out->holder, out->name, sizeof out->holder);
}

void identity_of_certificate(const void *der, size_t length, struct identity *out)
{
    struct claims c = {0};
    struct identity who = {.role = ROLE_NONE};
    bool known = false;
    if (read_claims(der, length, &c) == 0 && c.uris == 1 && c.uri[0]) {
        const char *claim = c.uri + sizeof urn - 1;
        known = claim_host(claim, &who) || claim_role(claim, c.common_name, &who);
    }
    if (known)
        *out = who;
    else
        nobody("certificate", c.common_name, out);
    memcpy(out->certificate, c.certificate, FINGERPRINT);
    memcpy(out->key, c.key, FINGERPRINT);
}

void identity_of_peer(const struct ucred *peer, const struct uuid *local_host, struct identity *out)
{
    if (peer->uid != 0 && peer->uid != geteuid()) {
        char uid[16];
        snprintf(uid, sizeof uid, "%u", (unsigned) peer->uid);
        nobody("uid", uid, out);
        return;
    }
    *out = (struct identity){.role = ROLE_ADMIN, .host = *local_host, .name = "local"};
    snprintf(out->holder, sizeof out->holder, "%s", local_host->text);
}
