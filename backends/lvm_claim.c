/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/lvm_claim.h"

#include "server/base/clock.h"
#include "server/base/io.h"
#include "server/base/point.h"
#include <fcntl.h>
#include <string.h>

#define TAG_OWNER "smapi_owner="
#define TAG_CLAIM "smapi_claim="

struct owner lvm_claim_of(const struct lvm_vg *vg, struct arena *a)
{
    struct owner out = {.server = UUID_NONE};
    const char *server = lvm_tag_value(vg->tags, TAG_OWNER, a), *claim = lvm_tag_value(vg->tags, TAG_CLAIM, a);
    if (!server || !uuid_parse_text(server, &out.server))
        return out;
    if (claim && strlen(claim) > UUID_TEXT && claim[UUID_TEXT] == ':' && uuid_parse(claim, UUID_TEXT, &out.op))
        out.since = strtoll(claim + UUID_TEXT + 1, NULL, 10);
    return out;
}

const char *const *lvm_claim_tags(const struct sr *sr, const struct uuid *op, const char *more, struct arena *a)
{
    const char **tags = ARENA_ARRAY(a, const char *, 4);
    tags[0] = arena_printf(a, TAG_OWNER "%s", sr->settings->server.text);
    tags[1] = arena_printf(a, TAG_CLAIM "%s:%lld", op->text, (long long) clock_wall_s());
    tags[2] = more;
    tags[3] = NULL;
    return tags;
}

/* Those of all claims that the group bears: two servers that adopted it at once have left two. */
static const char *const *claims_of(const struct lvm_vg *vg, struct arena *a)
{
    size_t count = 0;
    const char **tags = ARENA_ARRAY(a, const char *, strlen(vg->tags) / 2 + 2);
    for (char *rest = arena_text(a, vg->tags), *tag; (tag = strsep(&rest, ",")) != NULL;)
        if (strncmp(tag, TAG_OWNER, strlen(TAG_OWNER)) == 0 || strncmp(tag, TAG_CLAIM, strlen(TAG_CLAIM)) == 0)
            tags[count++] = tag;
    tags[count] = NULL;
    return tags;
}

/* What tells this claim from all others. */
static const char *claim_tag(const struct owner *o, struct arena *a)
{
    return uuid_is(&o->op) ? arena_printf(a, TAG_CLAIM "%s:%lld", o->op.text, (long long) o->since)
                           : arena_printf(a, TAG_OWNER "%s", o->server.text);
}

int lvm_claim_move(const struct sr *sr, const struct lvm_scope *scope, const struct lvm_vg *vg, const struct uuid *op,
                   struct arena *a, struct fault *f)
{
    const struct owner now = lvm_claim_of(vg, a);
    const struct lvm_retag tags = {
        .add = lvm_claim_tags(sr, op, NULL, a), .drop = claims_of(vg, a), .only_with = claim_tag(&now, a)};
    if (POINT(claim_written) < 0)
        return fault_errno(f, FAULT_SRLog, "claim SR %s", sr->uuid.text);
    return lvm_vg_retag(scope, vg->name, &tags, f);
}

int lvm_claim_check(const struct sr *sr, const struct owner *now, const struct uuid *op, struct fault *f)
{
    if (uuid_equal(&now->op, op) && uuid_equal(&now->server, &sr->settings->server))
        return 0;
    if (sr_check_owner(sr, now, f) < 0)
        return -1;
    return fault_set(f, FAULT_SRUnavailable, "another claim of this server on SR %s was quicker", sr->uuid.text);
}

/* ------------------------------------------------------------------ what goes with an SR */

enum { BLOCK = 4096, NOTE = 512 };

static void note_of(const struct sr *sr, unsigned char out[NOTE])
{
    memset(out, 0, NOTE);
    snprintf((char *) out, NOTE, "smapi: this device goes with SR %s\n", sr->uuid.text);
}

/* Past the page cache, as LVM reads and writes what is behind the sector. */
static int replace_sector(const char *device, const unsigned char now[NOTE], struct fault *f)
{
    AUTO_FREE unsigned char *block = io_buffer(BLOCK);
    AUTO_FD int fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (fd < 0 || io_read_at(fd, block, BLOCK, 0) < 0)
        return fault_errno(f, FAULT_LVMWrite, "read the start of %s", device);
    memcpy(block, now, NOTE);
    if (io_write_at(fd, block, BLOCK, 0) < 0 || fsync(fd) < 0)
        return fault_errno(f, FAULT_LVMWrite, "write the start of %s", device);
    return 0;
}

int lvm_doom(const struct sr *sr, const char *device, struct fault *f)
{
    unsigned char note[NOTE];
    note_of(sr, note);
    return replace_sector(device, note, f);
}

bool lvm_is_doomed(const struct sr *sr, const char *device)
{
    unsigned char note[NOTE];
    AUTO_FREE unsigned char *block = io_buffer(BLOCK);
    AUTO_FD int fd = open(device, O_RDONLY | O_DIRECT | O_CLOEXEC);
    note_of(sr, note);
    return fd >= 0 && io_read_at(fd, block, BLOCK, 0) == 0 && memcmp(block, note, NOTE) == 0;
}

int lvm_undoom(const struct sr *sr, const char *device, struct fault *f)
{
    static const unsigned char zeros[NOTE];
    return lvm_is_doomed(sr, device) ? replace_sector(device, zeros, f) : 0;
}
