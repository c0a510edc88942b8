/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/tls.h"

#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/identity.h"
#include "server/tls_trust.h"
#include <errno.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

enum { WARN_DAYS = 21 };

/* The server's own certificate and key, and the names of the CAs it tells clients; shared by readings that differ only
   in what is revoked. */
struct pair {
    atomic_uint references;
    gnutls_certificate_credentials_t credentials;
    int64_t expires;
};

struct tls {
    atomic_uint references;
    uint64_t number; /* counts readings of this process, from 1 */
    struct pair *pair;
    struct pem ca; /* to be read again beside a newer revocation list */
    struct tls_trust *trust;
    struct pem_mark crl;
    gnutls_datum_t ticket_key;
};

static void pair_release(struct pair *p)
{
    if (!p || atomic_fetch_sub(&p->references, 1) > 1)
        return;
    gnutls_certificate_free_credentials(p->credentials);
    free(p);
}

struct tls *tls_take(struct tls *t)
{
    if (t)
        atomic_fetch_add(&t->references, 1);
    return t;
}

void tls_release(struct tls *t)
{
    if (!t || atomic_fetch_sub(&t->references, 1) > 1)
        return;
    if (t->ticket_key.data) {
        explicit_bzero(t->ticket_key.data, t->ticket_key.size);
        gnutls_free(t->ticket_key.data);
    }
    tls_trust_free(t->trust);
    pem_free(&t->ca);
    pair_release(t->pair);
    free(t);
}

static void own_tls(struct tls **t)
{
    tls_release(*t);
}
#define AUTO_TLS __attribute__((cleanup(own_tls)))

/* ---- reading ---- */

/* The server's certificate and key, to be looked at before they are used. */
struct look {
    gnutls_x509_crt_t certificate;
    gnutls_x509_privkey_t key;
};

static void look_end(struct look *l)
{
    gnutls_x509_crt_deinit(l->certificate);
    gnutls_x509_privkey_deinit(l->key);
}
#define AUTO_LOOK __attribute__((cleanup(look_end)))

/* 0, or GnuTLS's error. */
static int look_at(const gnutls_datum_t *certificate, const gnutls_datum_t *key, struct look *out)
{
    if (gnutls_x509_crt_init(&out->certificate) < 0 || gnutls_x509_privkey_init(&out->key) < 0)
        abort();
    int r = gnutls_x509_crt_import(out->certificate, certificate, GNUTLS_X509_FMT_PEM);
    return r < 0 ? r : gnutls_x509_privkey_import2(out->key, key, GNUTLS_X509_FMT_PEM, NULL, 0);
}

/* Asked here, because GnuTLS loses memory over a pair that does not match. */
static int match(const struct look *l)
{
    unsigned char ids[2][64];
    size_t sizes[2] = {sizeof ids[0], sizeof ids[1]};
    if (gnutls_x509_crt_get_key_id(l->certificate, GNUTLS_KEYID_USE_SHA256, ids[0], &sizes[0]) < 0 ||
        gnutls_x509_privkey_get_key_id(l->key, GNUTLS_KEYID_USE_SHA256, ids[1], &sizes[1]) < 0 ||
        sizes[0] != sizes[1] || memcmp(ids[0], ids[1], sizes[0]) != 0)
        return GNUTLS_E_CERTIFICATE_KEY_MISMATCH;
    return 0;
}

/* When it ends; a word in the log while there is time left to renew it. */
static int64_t expiry_of(const struct look *l, const char *name)
{
    char when[CLOCK_TEXT];
    int64_t end = gnutls_x509_crt_get_expiration_time(l->certificate);
    clock_text(end, when);
    if (end < clock_wall_s() + (int64_t) WARN_DAYS * 86400)
        log_line(LOG_WARNING, "tls: %s is valid until %s", name, when);
    return end;
}

static int set_pair(struct pair *p, const struct tls_files *files, struct fault *f)
{
    AUTO_PEM struct pem certificate = {0}, key = {0};
    if (pem_read(files->certificate, false, &certificate, NULL, f) < 0 || pem_read(files->key, true, &key, NULL, f) < 0)
        return -1;
    gnutls_datum_t c = {certificate.data, certificate.size}, k = {key.data, key.size};
    AUTO_LOOK struct look l = {0};
    int r = look_at(&c, &k, &l);
    if (r == 0)
        r = match(&l);
    if (r == 0)
        r = gnutls_certificate_set_x509_key_mem2(p->credentials, &c, &k, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (r < 0)
        return fault_set(f, FAULT_InvalidArg, "%s and %s are no certificate with its key: %s", files->certificate,
                         files->key, gnutls_strerror(r));
    p->expires = expiry_of(&l, files->certificate);
    return 0;
}

/* Clients are told these names, to choose a certificate by; who is believed, tls_trust.c says. */
static void name_cas(struct pair *p, const struct pem *ca)
{
    gnutls_datum_t c = {ca->data, ca->size};
    gnutls_certificate_set_x509_trust_mem(p->credentials, &c, GNUTLS_X509_FMT_PEM);
}

/* What every reading has of its own. ca is taken over. */
static struct tls *tls_new(struct pair *pair, struct pem *ca)
{
    static atomic_uint_fast64_t readings;
    struct tls *t = calloc(1, sizeof *t);
    if (!t || gnutls_session_ticket_key_generate(&t->ticket_key) < 0)
        abort();
    atomic_store(&t->references, 1);
    t->number = atomic_fetch_add(&readings, 1) + 1;
    t->pair = pair;
    t->ca = *ca;
    *ca = (struct pem){0};
    return t;
}

static int read_trust(struct tls *t, const char *ca_name, const char *crl_name, struct fault *f)
{
    AUTO_PEM struct pem crl = {0};
    if (crl_name[0] && pem_read(crl_name, false, &crl, &t->crl, f) < 0)
        return -1;
    return tls_trust_new(&t->ca, ca_name, crl_name[0] ? &crl : NULL, crl_name, &t->trust, f);
}

int tls_load(const struct tls_files *files, struct tls **out, struct fault *f)
{
    AUTO_PEM struct pem ca = {0};
    if (pem_read(files->client_ca, false, &ca, NULL, f) < 0)
        return -1;
    struct pair *pair = calloc(1, sizeof *pair);
    if (!pair || gnutls_certificate_allocate_credentials(&pair->credentials) < 0)
        abort();
    atomic_store(&pair->references, 1);
    AUTO_TLS struct tls *t = tls_new(pair, &ca);
    if (set_pair(pair, files, f) < 0 || read_trust(t, files->client_ca, files->crl, f) < 0)
        return -1;
    name_cas(pair, &t->ca);
    *out = TAKE(t);
    return 0;
}

static struct pem pem_copy(const struct pem *p)
{
    struct pem copy = {malloc(p->size), p->size};
    if (!copy.data)
        abort();
    memcpy(copy.data, p->data, p->size);
    return copy;
}

int tls_load_crl(const struct tls *old, const char *crl, struct tls **out, struct fault *f)
{
    AUTO_PEM struct pem ca = pem_copy(&old->ca);
    atomic_fetch_add(&old->pair->references, 1);
    AUTO_TLS struct tls *t = tls_new(old->pair, &ca);
    if (read_trust(t, "tls.client_ca", crl, f) < 0)
        return -1;
    *out = TAKE(t);
    return 0;
}

struct pem_mark tls_crl_mark(const struct tls *t)
{
    return t->crl;
}

int64_t tls_expires(const struct tls *t)
{
    return t->pair->expires;
}

const char *tls_priorities(void)
{
    return "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-DHE-RSA:-AES-256-CBC:-AES-128-CBC:%SERVER_PRECEDENCE";
}

/* ---- sessions ---- */

/* GnuTLS keeps this pointer for a session cache, which we have not. Its other one is the HTTP library's. */
static struct tls_session *session_of(gnutls_session_t g)
{
    return gnutls_db_get_ptr(g);
}

/* What the client showed, in this handshake or, when its session is resumed, in the first: the ticket holds it. */
static const gnutls_datum_t *chain_of(const struct tls_session *s, unsigned *count)
{
    *count = 0;
    return gnutls_certificate_get_peers(s->session, count);
}

static struct tls_verdict judge(struct tls_session *s, const struct tls *by)
{
    unsigned count;
    const gnutls_datum_t *chain = chain_of(s, &count);
    struct tls_verdict v = tls_trust_judge(by->trust, chain, chain ? count : 0);
    if (!v.why) {
        s->judged = by->number;
        s->from = v.from;
        s->until = v.until;
    }
    return v;
}

/* GnuTLS asks whether to go on with a full handshake, once the client has shown its certificate. */
static int on_verify(gnutls_session_t g)
{
    struct tls_session *s = session_of(g);
    struct tls_verdict v = judge(s, s->tls);
    if (!v.why)
        return 0;
    struct identity who = {.name = "a client"};
    tls_session_identity(s, &who);
    log_line(LOG_INFO, "tls: %s refused: %s", who.name, v.why);
    gnutls_alert_send(g, GNUTLS_AL_FATAL, v.alert);
    return -1;
}

/* The client's Finished came. A resumed session brings the certificate in its ticket; what was judged when the ticket
   was made is judged by the same reading still. One whose ticket does not give it has no chain, and is refused later.
 */
static int on_finished(gnutls_session_t g, unsigned type, unsigned when, unsigned incoming, const gnutls_datum_t *m)
{
    (void) type;
    (void) when;
    (void) m;
    struct tls_session *s = session_of(g);
    if (!incoming || s->shaken)
        return 0;
    bool resumed = gnutls_session_is_resumed(g) != 0;
    unsigned count;
    const gnutls_datum_t *chain = chain_of(s, &count);
    if (resumed && chain && tls_trust_times(chain, count, &s->from, &s->until) == 0)
        s->judged = s->tls->number;
    s->shaken = true;
    s->events->shaken(s->arg, resumed);
    return 0;
}

static ssize_t on_pull(gnutls_transport_ptr_t pointer, void *data, size_t size)
{
    struct tls_session *s = pointer;
    ssize_t n = recv(s->fd, data, size, 0);
    if (n > 0 && s->shaken) {
        int saved = errno;
        s->events->bytes(s->arg);
        errno = saved;
    }
    return n;
}

void tls_session_open(struct tls_session *s, struct tls *t, gnutls_session_t g, int fd, const struct tls_events *events,
                      void *arg)
{
    *s = (struct tls_session){.tls = tls_take(t), .session = g, .fd = fd, .events = events, .arg = arg};
    /* Without credentials of ours a session has no certificate to show and fails: nothing to check here. */
    gnutls_credentials_set(g, GNUTLS_CRD_CERTIFICATE, t->pair->credentials);
    gnutls_certificate_server_set_request(g, GNUTLS_CERT_REQUIRE);
    gnutls_db_set_ptr(g, s);
    gnutls_session_set_verify_function(g, on_verify);
    gnutls_handshake_set_hook_function(g, GNUTLS_HANDSHAKE_FINISHED, GNUTLS_HOOK_POST, on_finished);
    gnutls_transport_set_ptr2(g, s, (gnutls_transport_ptr_t) (intptr_t) fd); /* NOLINT(performance-no-int-to-ptr) */
    gnutls_transport_set_pull_function(g, on_pull);
    gnutls_session_ticket_enable_server(g, &t->ticket_key);
}

void tls_session_close(struct tls_session *s)
{
    tls_release(s->tls);
    s->tls = NULL;
}

const char *tls_session_refused(struct tls_session *s, const struct tls *now)
{
    int64_t today = clock_wall_s();
    if (now && s->judged != now->number) {
        struct tls_verdict v = judge(s, now);
        if (v.why)
            return v.why;
    }
    if (s->judged == 0)
        return "it is not known any more";
    if (today > s->until)
        return "it has expired";
    return today < s->from ? "it is not valid yet" : NULL;
}

void tls_session_identity(const struct tls_session *s, struct identity *out)
{
    unsigned count;
    const gnutls_datum_t *chain = chain_of(s, &count);
    if (chain && count > 0)
        identity_of_certificate(chain[0].data, chain[0].size, out);
    else
        *out = (struct identity){.role = ROLE_NONE, .name = "no certificate"};
}
