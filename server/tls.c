/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/tls.h"

#include "server/base/io.h"
#include "server/identity.h"
#include <errno.h>
#include <fcntl.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/stat.h>

enum { PEM_MAX = 1 << 20 };

struct tls {
    gnutls_certificate_credentials_t credentials;
};

void tls_free(struct tls *t)
{
    if (!t)
        return;
    gnutls_certificate_free_credentials(t->credentials);
    free(t);
}

static void own_tls(struct tls **t)
{
    tls_free(*t);
}
#define AUTO_TLS __attribute__((cleanup(own_tls)))

/* A file's bytes, malloc'd; wiped by pem_free, as one of them is the key. */
struct pem {
    unsigned char *data;
    unsigned size;
};

static void pem_free(struct pem *p)
{
    if (p->data)
        explicit_bzero(p->data, p->size);
    free(p->data);
}
#define AUTO_PEM __attribute__((cleanup(pem_free)))

static int check_secret(const char *path, const struct stat *st, struct fault *f)
{
    mode_t mode = st->st_mode & 07777;
    if (mode != 0600 && mode != 0400)
        return fault_set(f, FAULT_InvalidArg, "%s has mode %04o: a key must have 0600 or 0400", path, (unsigned) mode);
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return fault_set(f, FAULT_InvalidArg, "%s belongs to uid %u: a key must belong to the daemon's user or root",
                         path, (unsigned) st->st_uid);
    return 0;
}

static int read_pem(const char *path, bool secret, struct pem *out, struct fault *f)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return fault_errno(f, FAULT_InvalidArg, "open %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > PEM_MAX)
        return fault_set(f, FAULT_InvalidArg, "%s is no file of 1 byte to 1 MiB", path);
    if (secret && check_secret(path, &st, f) < 0)
        return -1;
    AUTO_PEM struct pem p = {malloc((size_t) st.st_size), (unsigned) st.st_size};
    if (!p.data)
        abort();
    if (io_read_at(fd, p.data, p.size, 0) < 0)
        return fault_errno(f, FAULT_InvalidArg, "read %s", path);
    *out = p;
    p.data = NULL;
    return 0;
}

static int set_pair(struct tls *t, const struct tls_files *files, struct fault *f)
{
    AUTO_PEM struct pem certificate = {0}, key = {0};
    if (read_pem(files->certificate, false, &certificate, f) < 0 || read_pem(files->key, true, &key, f) < 0)
        return -1;
    gnutls_datum_t c = {certificate.data, certificate.size}, k = {key.data, key.size};
    int r = gnutls_certificate_set_x509_key_mem2(t->credentials, &c, &k, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (r < 0)
        return fault_set(f, FAULT_InvalidArg, "%s and %s are no certificate with its key: %s", files->certificate,
                         files->key, gnutls_strerror(r));
    return 0;
}

static int set_trust(struct tls *t, const struct tls_files *files, struct fault *f)
{
    AUTO_PEM struct pem ca = {0};
    if (read_pem(files->client_ca, false, &ca, f) < 0)
        return -1;
    gnutls_datum_t c = {ca.data, ca.size};
    int r = gnutls_certificate_set_x509_trust_mem(t->credentials, &c, GNUTLS_X509_FMT_PEM);
    if (r <= 0)
        return fault_set(f, FAULT_InvalidArg, "%s holds no CA certificate: %s", files->client_ca,
                         r < 0 ? gnutls_strerror(r) : "it is empty");
    return 0;
}

int tls_load(const struct tls_files *files, struct tls **out, struct fault *f)
{
    AUTO_TLS struct tls *t = calloc(1, sizeof *t);
    if (!t || gnutls_certificate_allocate_credentials(&t->credentials) < 0)
        abort();
    if (set_pair(t, files, f) < 0 || set_trust(t, files, f) < 0)
        return -1;
    *out = TAKE(t);
    return 0;
}

const char *tls_priorities(void)
{
    return "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-DHE-RSA:%SERVER_PRECEDENCE";
}

void tls_session_setup(const struct tls *t, gnutls_session_t session)
{
    /* The session keeps pointers to both for its life. */
    static unsigned char purpose_text[] = GNUTLS_KP_TLS_WWW_CLIENT;
    static gnutls_typed_vdata_st purpose = {GNUTLS_DT_KEY_PURPOSE_OID, purpose_text, 0};
    /* Without credentials of ours a session has no certificate to show and fails: nothing to check here. */
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, t->credentials);
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
    gnutls_session_set_verify_cert2(session, &purpose, 1, 0);
}

void tls_session_identity(gnutls_session_t session, struct identity *out)
{
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
    if (chain && count > 0)
        identity_of_certificate(chain[0].data, chain[0].size, out);
    else
        *out = (struct identity){.role = ROLE_NONE, .name = "no certificate"};
}
