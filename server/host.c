/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server/host.h"

#include "server/base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* INSTALLATION_UUID='…' of an inventory: one NAME='value' a line. */
static bool find_in_inventory(FILE *in, struct uuid *out)
{
    static const char key[] = "INSTALLATION_UUID='";
    char line[256];
    while (fgets(line, sizeof line, in))
        if (strncmp(line, key, sizeof key - 1) == 0) {
            const char *value = line + sizeof key - 1;
            return uuid_parse(value, strcspn(value, "'"), out);
        }
    return false;
}

static int make(int dir, const char *state, struct uuid *out, struct fault *f)
{
    struct uuid fresh = uuid_random();
    char text[UUID_TEXT + 2];
    snprintf(text, sizeof text, "%s\n", fresh.text);
    if (io_replace_file(dir, "host", "host.new", text, strlen(text), 0600) < 0)
        return fault_errno(f, FAULT_EIO, "write %s/host", state);
    *out = fresh;
    return 0;
}

static int keep(const char *state, struct uuid *out, struct fault *f)
{
    AUTO_FREE char *text = NULL;
    size_t length = 0;
    AUTO_FD int dir = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fault_errno(f, FAULT_EIO, "open %s", state);
    if (io_read_file(dir, "host", 256, &text, &length) < 0)
        return errno == ENOENT ? make(dir, state, out, f) : fault_errno(f, FAULT_EIO, "read %s/host", state);
    if (!uuid_parse(text, strcspn(text, "\n"), out))
        return fault_set(f, FAULT_InvalidArg, "%s/host holds no uuid", state);
    return 0;
}

int host_uuid(const struct uuid *configured, const char *inventory, const char *state, struct uuid *out,
              struct fault *f)
{
    if (uuid_is(configured)) {
        *out = *configured;
        return 0;
    }
    AUTO_FILE FILE *in = fopen(inventory, "re");
    if (!in)
        return errno == ENOENT ? keep(state, out, f) : fault_errno(f, FAULT_EIO, "open %s", inventory);
    if (!find_in_inventory(in, out))
        return fault_set(f, FAULT_InvalidArg, "%s has no INSTALLATION_UUID", inventory);
    return 0;
}
