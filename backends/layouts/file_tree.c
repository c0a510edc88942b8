/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/layouts/file_tree.h"

#include "backends/layouts/file_cache.h"
#include <fcntl.h>
#include <string.h>

/* ------------------------------------------------------------------ all images */

enum visit { VISIT_NEW, VISIT_ON_PATH, VISIT_DONE };

struct node {
    enum visit visit;
    size_t depth; /* images from here to the root */
};

/* From image to parent until something is known; then back. */
struct walk {
    const struct scan_cache *c;
    struct arena *a;
    struct standing *standing;
    struct node *nodes;
    size_t *path, length;
};

/* The parent's place, or NULL when there is none to look at. */
static const struct scanned *parent_of(const struct walk *w, const struct scanned *s)
{
    return s->damage || !s->info.differencing ? NULL : scan_cache_find(w->c, &s->info.parent);
}

static const char *bond_wrong(const struct walk *w, const struct scanned *s, const struct scanned *parent)
{
    if (!uuid_is(&s->info.parent))
        return "the name of its parent holds no uuid";
    if (!parent)
        return arena_printf(w->a, "its parent %s is missing", s->info.parent.text);
    size_t at = (size_t) (parent - w->c->items);
    const struct image_format *format = image_parent_format(s->format, &s->info);
    if (parent->format != format)
        return arena_printf(w->a, "its parent %s is no %s image", parent->uuid.text, format->name);
    if (w->standing[at].damage)
        return arena_printf(w->a, "its parent %s is damaged", parent->uuid.text);
    const char *wrong = image_parent_wrong(&s->info, &parent->info);
    if (wrong)
        return arena_printf(w->a, "its parent %s %s", parent->uuid.text, wrong);
    if (w->nodes[at].depth >= IMAGE_CHAIN_LIMIT)
        return arena_printf(w->a, "there are more than %d images in its chain", IMAGE_CHAIN_LIMIT);
    return NULL;
}

static void settle_node(struct walk *w, size_t at)
{
    const struct scanned *s = &w->c->items[at], *parent = parent_of(w, s);
    w->nodes[at] = (struct node){.visit = VISIT_DONE, .depth = 1};
    w->standing[at].damage = s->damage;
    if (s->damage || !s->info.differencing)
        return;
    w->standing[at].damage = bond_wrong(w, s, parent);
    if (w->standing[at].damage)
        return;
    w->nodes[at].depth = w->nodes[parent - w->c->items].depth + 1;
    w->standing[parent - w->c->items].children++;
}

/* All that stands on the path from there on. */
static void settle_loop(struct walk *w, size_t at)
{
    size_t member;
    do {
        member = w->path[--w->length];
        w->nodes[member].visit = VISIT_DONE;
        w->standing[member].damage = "its chain of parents comes back to itself";
    } while (member != at);
}

static void walk_from(struct walk *w, size_t at)
{
    w->length = 0;
    while (w->nodes[at].visit == VISIT_NEW) {
        const struct scanned *parent = parent_of(w, &w->c->items[at]);
        w->nodes[at].visit = VISIT_ON_PATH;
        w->path[w->length++] = at;
        if (parent)
            at = (size_t) (parent - w->c->items);
    }
    if (w->nodes[at].visit == VISIT_ON_PATH && parent_of(w, &w->c->items[at]))
        settle_loop(w, at);
    while (w->length > 0)
        settle_node(w, w->path[--w->length]);
}

const struct standing *tree_resolve(const struct scan_cache *c, struct arena *a)
{
    struct walk w = {.c = c,
                     .a = a,
                     .standing = ARENA_ARRAY(a, struct standing, c->count),
                     .nodes = ARENA_ARRAY(a, struct node, c->count),
                     .path = ARENA_ARRAY(a, size_t, c->count)};
    for (size_t i = 0; i < c->count; i++)
        walk_from(&w, i);
    return w.standing;
}

/* ------------------------------------------------------------------ one image */

static bool is_in_lineage(const struct lineage *l, const struct uuid *vdi)
{
    for (size_t i = 0; i < l->count; i++)
        if (uuid_equal(&l->uuids[i], vdi))
            return true;
    return false;
}

/* What the parent of that child says of itself. */
static int read_parent(int dir, const struct image_format *format, const struct image_info *child,
                       struct image_info *out, struct fault *f)
{
    struct image_file file;
    if (image_open_in(dir, &child->parent, format->name, O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (format->info(fd, out, f) < 0)
        return fault_prefix(f, "disk %s", child->parent.text);
    const char *wrong = image_parent_wrong(child, out);
    return wrong ? fault_set(f, FAULT_VDILoad, "disk %s %s", child->parent.text, wrong) : 0;
}

int tree_lineage(int dir, const struct uuid *vdi, const struct image_format *format, const struct image_info *info,
                 struct lineage *out, struct fault *f)
{
    struct image_info child = *info;
    struct lineage *l = out;
    l->count = 0;
    while (child.differencing) {
        struct image_info parent;
        if (!uuid_is(&child.parent))
            return fault_set(f, FAULT_VDILoad, "disk %s: the name of a parent in its chain holds no uuid", vdi->text);
        if (uuid_equal(&child.parent, vdi) || is_in_lineage(l, &child.parent))
            return fault_set(f, FAULT_VDILoad, "disk %s: its chain of parents comes back to %s", vdi->text,
                             child.parent.text);
        if (l->count + 2 > IMAGE_CHAIN_LIMIT)
            return fault_set(f, FAULT_SnapshotChainTooLong, "disk %s has more than %d images in its chain", vdi->text,
                             IMAGE_CHAIN_LIMIT);
        format = image_parent_format(format, &child);
        if (read_parent(dir, format, &child, &parent, f) < 0)
            return fault_prefix(f, "disk %s, parent %zu in its chain", vdi->text, l->count + 1);
        l->uuids[l->count++] = child.parent;
        child = parent;
    }
    return 0;
}

static struct offspring count_offspring(const struct scan_cache *c, const struct uuid *vdi)
{
    struct offspring o = {.count = 0};
    for (size_t i = 0; i < c->count; i++) {
        const struct scanned *s = &c->items[i];
        if (uuid_equal(&s->uuid, vdi))
            continue;
        if (s->damage)
            o.unknown = o.unknown || (s->plain && s->format->chains);
        else if (s->info.differencing && uuid_equal(&s->info.parent, vdi))
            o.count++;
    }
    return o;
}

int tree_offspring(struct sr *sr, const struct uuid *vdi, struct offspring *out, struct fault *f)
{
    struct file_sr *state = sr->state;
    AUTO_ARENA struct arena *a = arena_new(256U << 20);
    pthread_mutex_lock(&state->mutex);
    int r = scan_cache_refresh(sr, a, &state->cache, f);
    if (r == 0)
        *out = count_offspring(state->cache, vdi);
    pthread_mutex_unlock(&state->mutex);
    return r;
}

int tree_open_parent(void *context, const struct uuid *vdi, int *fd, struct fault *f)
{
    struct image_file file;
    const int *dir = context;
    if (!uuid_is(vdi))
        return fault_set(f, FAULT_VDILoad, "the name of a parent holds no uuid");
    if (image_open_in(*dir, vdi, "", O_RDONLY, &file, f) < 0)
        return -1;
    *fd = file.fd;
    return 0;
}

int file_image_read(int dir, const struct uuid *vdi, int out_fd, struct fault *f)
{
    struct image_file file;
    if (image_open_in(dir, vdi, "", O_RDONLY, &file, f) < 0)
        return -1;
    AUTO_FD int fd = file.fd;
    if (file.format->extract(fd, tree_open_parent, &dir, out_fd, f) < 0)
        return fault_prefix(f, "disk %s", vdi->text);
    return 0;
}

int file_vdi_read(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f)
{
    return file_image_read(sr->place.dir, &vdi->uuid, out_fd, f);
}
