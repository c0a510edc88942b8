/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/tls_trust.h"

#include "server/base/clock.h"
#include "server/base/log.h"
#include <gnutls/x509.h>

struct tls_trust {
    gnutls_x509_trust_list_t list;
    gnutls_x509_crt_t *cas;
    gnutls_x509_crl_t *crls;
    unsigned ca_count, crl_count;
};

void tls_trust_free(struct tls_trust *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < t->crl_count; i++)
        gnutls_x509_crl_deinit(t->crls[i]);
    for (unsigned i = 0; i < t->ca_count; i++)
        gnutls_x509_crt_deinit(t->cas[i]);
    gnutls_free(t->crls);
    gnutls_free(t->cas);
    if (t->list)
        gnutls_x509_trust_list_deinit(t->list, 1);
    free(t);
}

static void own_trust(struct tls_trust **t)
{
    tls_trust_free(*t);
}
#define AUTO_TRUST __attribute__((cleanup(own_trust)))

static gnutls_datum_t datum_of(const struct pem *p)
{
    return (gnutls_datum_t){p->data, p->size};
}

static int load_cas(struct tls_trust *t, const struct pem *ca, const char *name, struct fault *f)
{
    gnutls_datum_t data = datum_of(ca);
    int r = gnutls_x509_crt_list_import2(&t->cas, &t->ca_count, &data, GNUTLS_X509_FMT_PEM, 0);
    if (r >= 0)
        r = gnutls_x509_trust_list_init(&t->list, 0);
    if (r >= 0)
        r = gnutls_x509_trust_list_add_trust_mem(t->list, &data, NULL, GNUTLS_X509_FMT_PEM, 0, 0);
    if (r <= 0)
        return fault_set(f, FAULT_InvalidArg, "%s holds no CA certificate: %s", name,
                         r < 0 ? gnutls_strerror(r) : "it is empty");
    return 0;
}

static void warn_if_old(gnutls_x509_crl_t crl, const char *name)
{
    int64_t next = gnutls_x509_crl_get_next_update(crl);
    char when[CLOCK_TEXT];
    if (next < 0 || next > clock_wall_s())
        return;
    clock_text(next, when);
    log_line(LOG_WARNING, "tls: %s was to be renewed by %s; what it revokes stays revoked", name, when);
}

static int check_crl(const struct tls_trust *t, gnutls_x509_crl_t crl, const char *name, struct fault *f)
{
    const unsigned times = GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED | GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE;
    unsigned status = 0;
    int r = gnutls_x509_crl_verify(crl, t->cas, t->ca_count, 0, &status);
    status &= ~times;
    if (status == GNUTLS_CERT_INVALID) /* which comes with any of them */
        status = 0;
    if (r < 0 || status)
        return fault_set(f, FAULT_InvalidArg, "%s holds a list that no CA of tls.client_ca signed", name);
    warn_if_old(crl, name);
    return 0;
}

static int load_crls(struct tls_trust *t, const struct pem *crl, const char *name, struct fault *f)
{
    gnutls_datum_t data = datum_of(crl);
    int r = gnutls_x509_crl_list_import2(&t->crls, &t->crl_count, &data, GNUTLS_X509_FMT_PEM, 0);
    if (r < 0)
        return fault_set(f, FAULT_InvalidArg, "%s holds no revocation list: %s", name, gnutls_strerror(r));
    for (unsigned i = 0; i < t->crl_count; i++)
        if (check_crl(t, t->crls[i], name, f) < 0)
            return -1;
    return 0;
}

int tls_trust_new(const struct pem *ca, const char *ca_name, const struct pem *crl, const char *crl_name,
                  struct tls_trust **out, struct fault *f)
{
    AUTO_TRUST struct tls_trust *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    if (load_cas(t, ca, ca_name, f) < 0 || (crl && load_crls(t, crl, crl_name, f) < 0))
        return -1;
    *out = TAKE(t);
    return 0;
}

/* ---- judging ---- */

struct certificates {
    gnutls_x509_crt_t items[TLS_CHAIN_MAX];
    unsigned count;
};

static void certificates_free(struct certificates *c)
{
    for (unsigned i = 0; i < c->count; i++)
        gnutls_x509_crt_deinit(c->items[i]);
}
#define AUTO_CERTIFICATES __attribute__((cleanup(certificates_free)))

static bool import(const gnutls_datum_t *chain, unsigned count, struct certificates *out)
{
    for (unsigned i = 0; i < count; i++) {
        if (gnutls_x509_crt_init(&out->items[i]) < 0)
            return false;
        out->count = i + 1;
        if (gnutls_x509_crt_import(out->items[i], &chain[i], GNUTLS_X509_FMT_DER) < 0)
            return false;
    }
    return true;
}

static struct tls_verdict refusal(unsigned status)
{
    static const struct {
        unsigned bit;
        const char *why;
        gnutls_alert_description_t alert;
    } reasons[] = {
        {GNUTLS_CERT_REVOKED, "it was revoked", GNUTLS_A_CERTIFICATE_REVOKED},
        {GNUTLS_CERT_EXPIRED, "it has expired", GNUTLS_A_CERTIFICATE_EXPIRED},
        {GNUTLS_CERT_NOT_ACTIVATED, "it is not valid yet", GNUTLS_A_CERTIFICATE_EXPIRED},
        {GNUTLS_CERT_SIGNER_NOT_FOUND, "no CA of ours signed it", GNUTLS_A_UNKNOWN_CA},
        {GNUTLS_CERT_INSECURE_ALGORITHM, "its key or signature is too weak", GNUTLS_A_INSUFFICIENT_SECURITY},
        {GNUTLS_CERT_PURPOSE_MISMATCH, "it is not meant for clients", GNUTLS_A_UNSUPPORTED_CERTIFICATE},
    };
    for (size_t i = 0; i < COUNT_OF(reasons); i++)
        if (status & reasons[i].bit)
            return (struct tls_verdict){.why = reasons[i].why, .alert = reasons[i].alert};
    return (struct tls_verdict){.why = "it cannot be verified", .alert = GNUTLS_A_BAD_CERTIFICATE};
}

static unsigned verify(const struct tls_trust *t, struct certificates *c)
{
    static unsigned char purpose_text[] = GNUTLS_KP_TLS_WWW_CLIENT;
    gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID, purpose_text, 0};
    unsigned status = 0;
    if (gnutls_x509_trust_list_verify_crt2(t->list, c->items, c->count, &purpose, 1,
                                           GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM), &status, NULL) < 0)
        return GNUTLS_CERT_INVALID;
    return status;
}

static bool revoked(const struct tls_trust *t, const struct certificates *c)
{
    for (unsigned i = 0; i < c->count; i++)
        if (gnutls_x509_crt_check_revocation(c->items[i], t->crls, t->crl_count) != 0)
            return true;
    return false;
}

static struct tls_verdict acceptance(const struct certificates *c)
{
    struct tls_verdict v = {.until = INT64_MAX};
    for (unsigned i = 0; i < c->count; i++) {
        int64_t from = gnutls_x509_crt_get_activation_time(c->items[i]);
        int64_t until = gnutls_x509_crt_get_expiration_time(c->items[i]);
        v.from = from > v.from ? from : v.from;
        v.until = until < v.until ? until : v.until;
    }
    return v;
}

struct tls_verdict tls_trust_judge(const struct tls_trust *t, const gnutls_datum_t *chain, unsigned count)
{
    AUTO_CERTIFICATES struct certificates c = {.count = 0};
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += chain[i].size;
    if (count > TLS_CHAIN_MAX || bytes > TLS_CHAIN_BYTES)
        return (struct tls_verdict){.why = "its chain is too long", .alert = GNUTLS_A_BAD_CERTIFICATE};
    if (count == 0 || !import(chain, count, &c))
        return refusal(GNUTLS_CERT_INVALID);
    if (revoked(t, &c))
        return refusal(GNUTLS_CERT_REVOKED);
    struct tls_verdict accepted = acceptance(&c);
    unsigned status = verify(t, &c);
    return status ? refusal(status) : accepted;
}

int tls_trust_times(const gnutls_datum_t *chain, unsigned count, int64_t *from, int64_t *until)
{
    AUTO_CERTIFICATES struct certificates c = {.count = 0};
    if (count == 0 || count > TLS_CHAIN_MAX || !import(chain, count, &c))
        return -1;
    struct tls_verdict v = acceptance(&c);
    *from = v.from;
    *until = v.until;
    return 0;
}
