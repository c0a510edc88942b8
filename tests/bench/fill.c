/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts rows of disks into the store of a daemon that is not running. bench_fill STATE_DIRECTORY SR COUNT
   The uuid of disk n is cccccccc-0000-4000-8000-<n in 12 digits>. */
#include "server/base/own.h"
#include "store/store.h"
#include "store/vdi.h"
#include <string.h>

enum { BATCH = 10000 };

struct batch {
    struct uuid sr;
    unsigned from, until;
};

static int put(struct txn *t, void *arg, struct fault *f)
{
    const struct batch *b = arg;
    for (unsigned n = b->from; n < b->until; n++) {
        char text[UUID_TEXT + 1], label[32];
        struct vdi v = vdi_blank();
        snprintf(text, sizeof text, "cccccccc-0000-4000-8000-%012u", n);
        snprintf(label, sizeof label, "disk %u", n);
        uuid_parse_text(text, &v.uuid);
        v.location = text;
        v.label = label;
        v.state = VDI_LIVE;
        v.type = "user";
        v.size = UINT64_C(1) << 30;
        if (store_vdi_put(t, &b->sr, &v, f) < 0)
            return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct batch b = {0};
    struct fault f = {0};
    struct store *s;
    bool in_use;
    if (argc != 4 || !uuid_parse_text(argv[2], &b.sr))
        return 2;
    unsigned count = (unsigned) atoi(argv[3]);
    int r = store_open(argv[1], &s, &in_use, &f);
    for (; r == 0 && b.from < count; b.from = b.until) {
        b.until = count - b.from < BATCH ? count : b.from + BATCH;
        r = store_write(s, put, &b, &f);
    }
    if (r < 0) {
        fprintf(stderr, "%s\n", f.detail);
        return EXIT_FAILURE;
    }
    store_close(s);
    return EXIT_SUCCESS;
}
