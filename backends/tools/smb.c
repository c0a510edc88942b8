/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/tools/smb.h"

#include "server/base/cmd.h"
#include <string.h>

enum { MOUNT_SECONDS = 45, INPUT_MAX = 4096 };

static const char *mount_options(const struct smb_source *s, struct arena *a)
{
    return arena_printf(a, "%s,vers=%s,cache=none,nosuid,nodev,noexec%s%s",
                        s->user[0] ? "credentials=/dev/stdin" : "guest", s->version, s->options[0] ? "," : "",
                        s->options);
}

/* What mount.cifs says, and what that means; the numbers are errnos. */
static const struct reason {
    const char *said;
    enum fault_code code;
} reasons[] = {
    {"could not resolve address", FAULT_DNSError},
    {"mount error(13)", FAULT_ISOSharenameFailure},
    {"mount error(2)", FAULT_ISOSharenameFailure},
    {"mount error(6)", FAULT_ISOSharenameFailure},
};

static enum fault_code reason_of(const struct cmd_result *r)
{
    for (size_t i = 0; i < COUNT_OF(reasons) && !r->timed_out; i++)
        if (strstr(r->err, reasons[i].said))
            return reasons[i].code;
    return FAULT_ISOMountFailure;
}

static const char *password_of(const struct smb_source *s)
{
    const char *password = secret_reveal(s->password);
    return password ? password : "";
}

/* What mount.cifs reads, of at most INPUT_MAX bytes; wiped by the caller. */
static int credentials(const struct smb_source *s, char out[INPUT_MAX], struct fault *f)
{
    const char *back = strchr(s->user, '\\'), *password = password_of(s);
    if (strpbrk(s->user, "\r\n") || strpbrk(password, "\r\n"))
        return fault_set(f, FAULT_BadCharacter, "a line end in username or cifspassword");
    int length = back ? snprintf(out, INPUT_MAX, "domain=%.*s\nusername=%s\npassword=%s\n", (int) (back - s->user),
                                 s->user, back + 1, password)
                      : snprintf(out, INPUT_MAX, "username=%s\npassword=%s\n", s->user, password);
    return length < INPUT_MAX ? 0 : fault_set(f, FAULT_BadCharacter, "username or cifspassword is too long");
}

static int run_mount(const struct cmd *cmd, const struct smb_source *s, struct arena *a, struct fault *f)
{
    struct cmd_result r;
    if (cmd_run(cmd, a, &r, f) < 0)
        return -1;
    if (r.status == 0)
        return 0;
    return fault_set(f, reason_of(&r), "mount %.200s: %.400s", s->share, cmd_failure(cmd, &r, a));
}

int smb_mount(const struct smb_source *s, const char *path, struct arena *a, struct fault *f)
{
    char input[INPUT_MAX];
    const char *const argv[] = {"/sbin/mount.cifs", s->share, path, "-o", mount_options(s, a), NULL};
    const struct cmd cmd = {
        .argv = argv, .input = s->user[0] ? input : NULL, .seconds = MOUNT_SECONDS, .hold = s->hold};
    int r = credentials(s, input, f);
    if (r == 0)
        r = run_mount(&cmd, s, a, f);
    explicit_bzero(input, sizeof input);
    return r;
}
