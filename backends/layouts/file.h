/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Inside of the file layout: a flat directory that holds
     <vdi><suffix>               images, one per disk
     <vdi>.smapi                 sidecar: labels and what else an image cannot hold
     sr.smapi                    marker: whose SR this is
     <op8>-<kind>-<uuid>.smapi   what an operation has not finished (temporary.h)
   and is left alone in everything else. All access is by the place's descriptor. */
#ifndef SMAPI_BACKENDS_FILE_H
#define SMAPI_BACKENDS_FILE_H

#include "backends/images/image.h"
#include "backends/layouts/layout.h"
#include "backends/temporary.h"
#include <pthread.h>
#include <sys/stat.h>

#define MARKER_NAME "sr" OWN_SUFFIX
#define FILE_NAME   64 /* room for <uuid><suffix> */

/* ---- file_claim.c: whose the SR is */

struct marker {
    struct uuid sr, server; /* which SR, whose */
    struct uuid op;         /* that wrote it */
    struct uuid from;       /* that wrote the one it follows; none for the first */
    bool made;              /* the directory was made for it */
    int64_t since;          /* wall clock; 0 when it does not tell */
};
enum marker_found { MARKER_NONE, MARKER_SOUND, MARKER_BAD };
/* The claim that counts: the marker, or the one that follows it and was not published before a crash. */
enum marker_found marker_read(int dir, struct marker *out);
/* The first claim on a place that has none: EEXIST when there is one by now. Durable on return; -1 with errno. */
int marker_make(int dir, const struct marker *m);
/* SRUnavailable for another SR's, or, as SRInUse where no other host can reach the place, another server's. */
int marker_check(const struct sr *sr, const struct marker *m, struct fault *f);
int file_sr_owner(struct sr *sr, struct owner *out, struct fault *f);
int file_sr_take(struct sr *sr, const struct plan *plan, const struct owner *from, struct fault *f);

/* ---- file_sidecar.c: the JSON of our own files */

#define MARKER_FORMAT 1 /* of the JSON */
/* What one file says, whatever follows it. */
enum marker_found marker_read_file(int dir, const char *name, struct marker *out);

/* Which operation last wrote a sidecar, and the image that was there then. */
struct claim {
    struct uuid op;
    uint64_t inode;
};
/* Replaces the sidecar of vdi by its labels, type, flags and sm_config. The bytes are synced, the name is not.
   -1 with the fault; EIO poisons the SR. */
int sidecar_write(struct sr *sr, const struct vdi *vdi, const struct claim *claim, struct fault *f);
/* Reads into out what the sidecar of out->uuid holds; leaves alone what it lacks. False when there is no sound one. */
bool sidecar_read(int dir, struct arena *a, struct vdi *out, struct claim *claim);
void sidecar_name(char out[FILE_NAME], const struct uuid *vdi);

/* ---- file_image.c: one image in the directory */

void image_name(char out[FILE_NAME], const struct uuid *vdi, const struct image_format *format);

struct image_file {
    const struct image_format *format;
    char name[FILE_NAME];
    int fd;
    struct stat st;
};
static inline void own_image(const struct image_file *file)
{
    own_fd(&file->fd);
}
#define AUTO_IMAGE __attribute__((cleanup(own_image))) /* begin with .fd = -1 */

/* Before its name is taken from it, by a rename over it or an unlink: a client of NFS gives what is open then another
   name (.nfs…), so that an image which has a second one had two until it was closed, or for ever when the power went.
 */
static inline void image_close(struct image_file *file)
{
    own_fd(&file->fd);
    file->fd = -1;
}

/* Opens the disk's one image, of that format or ("") of any. VDIUnavailable when there is none, more than one, or it is
   no plain file with one name. Close fd. */
int image_open(struct sr *sr, const struct uuid *vdi, const char *format, int flags, struct image_file *out,
               struct fault *f);
int image_open_in(int dir, const struct uuid *vdi, const char *format, int flags, struct image_file *out,
                  struct fault *f);
/* Identity of what stands under the disk's name: 1, or 0 when there is nothing; -1 with errno. */
int image_stand(int dir, const struct uuid *vdi, char name[FILE_NAME], struct stat *out);
/* What is wrong with an entry as an image, or NULL. */
const char *image_wrong(const struct stat *st);
/* Gives temp its name unless something has it (EEXIST); says so by what stands, as NFS may answer a repeated request
   with an error although it was done. -1 with errno. Syncs nothing. */
int image_publish(int dir, const char *temp, const char *name);
/* The disk as it stands: known is where its labels are taken from (NULL: the sidecar). */
void image_describe(int dir, const struct uuid *uuid, const struct image_format *format, const struct image_info *info,
                    const struct vdi *known, struct arena *a, struct vdi *out);
/* The same of what stands now, and with hidden set of one that is hidden although it cannot say so itself. */
int image_describe_now(struct sr *sr, const struct uuid *uuid, const struct vdi *known, bool hidden, struct arena *a,
                       struct vdi *out, struct fault *f);
/* VDIExists when something stands under the disk's name, SRNoSpace when no block is free. */
int image_check_free(struct sr *sr, const struct uuid *vdi, struct fault *f);
/* The format asked for, or the default. VDIType when there is none of that name. */
int image_format_wanted(const char *name, const struct image_format **out, struct fault *f);

/* fsync; a failure poisons the SR. */
int file_sync(struct sr *sr, int fd, const char *what, struct fault *f);
/* Removes a name of ours; success when it is not there. -1 with errno. */
int file_remove(int dir, const char *name);

/* ---- file_scan.c */

struct scan_cache; /* what images said of themselves when they were last read (file_cache.h) */
void scan_cache_free(struct scan_cache *c);
int file_sr_scan(struct sr *sr, const struct vdi_list *known, struct arena *a, struct vdi_list *out,
                 struct sr_totals *totals, struct fault *f);
int file_sr_totals(struct sr *sr, struct sr_totals *out, struct fault *f);

/* ---- file_sr.c */

/* sr->state. marker is written by attach and read by all. */
struct file_sr {
    struct stat marker;
    pthread_mutex_t mutex; /* guards cache */
    struct scan_cache *cache;
};

/* What a name in the directory is. */
enum file_entry { ENTRY_NOTHING, ENTRY_IMAGE, ENTRY_MARKER, ENTRY_SIDECAR, ENTRY_TEMPORARY, ENTRY_FOREIGN };
enum file_entry file_entry_of(const char *name);

bool file_recognise(const struct place *place, struct uuid *out);
int file_sr_create(struct sr *sr, const struct plan *plan, struct fault *f);
int file_sr_delete(struct sr *sr, const struct plan *plan, struct fault *f);
int file_sr_attach(struct sr *sr, struct fault *f);
void file_sr_detach(struct sr *sr);
int file_sr_look(struct sr *sr, struct fault *f);
int file_sr_check(struct sr *sr, struct fault *f);
/* sr_delete from wherever it stopped; *empty false, and nothing done, when the SR still holds something. */
int file_sr_clear(struct sr *sr, const struct plan *plan, bool *empty, struct fault *f);
/* Undoes an sr_create that this plan's operation did. */
int file_sr_undo(struct sr *sr, const struct plan *plan, struct fault *f);

/* Removes the operation's temporaries, but for the journal of a grow and the note that the directory was made. No sync.
   -1 with errno. */
int file_sweep_operation(int dir, const struct plan *plan);

/* ---- file_vdi.c */

int file_vdi_create(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, struct vdi *out,
                    struct fault *f);
int file_vdi_introduce(struct sr *sr, const struct plan *plan, const char *location, struct arena *a, struct vdi *out,
                       struct fault *f);
int file_vdi_update(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                    struct fault *f);
int file_vdi_resize(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                    struct fault *f);
int file_vdi_attach(struct sr *sr, const struct vdi *vdi, bool writable, struct arena *a, const char **path,
                    struct fault *f);
int file_vdi_detach(struct sr *sr, const struct vdi *vdi, struct fault *f);
int file_vdi_activate(struct sr *sr, const struct vdi *vdi, uint64_t epoch, bool writable, struct fault *f);
int file_vdi_deactivate(struct sr *sr, const struct vdi *vdi, struct fault *f);
/* The file a location names, and whether it must be renamed to become that disk. InvalidArg for a name that is none. */
struct introduced {
    const struct image_format *format;
    char name[FILE_NAME]; /* it is to have */
    const char *source;   /* it has */
    bool rename;
};
int file_introduced(struct sr *sr, const struct uuid *vdi, const char *location, struct arena *a,
                    struct introduced *out, struct fault *f);

/* ---- file_judge.c */

int file_sr_judge(struct sr *sr, struct findings *out, struct fault *f);
int file_vdi_verify(struct sr *sr, const struct vdi *vdi, struct fault *f);

/* ---- file_tree.c */

int file_vdi_read(struct sr *sr, const struct vdi *vdi, int out_fd, struct fault *f);
int file_image_read(int dir, const struct uuid *vdi, int out_fd, struct fault *f);

/* ---- file_delete.c */

int file_vdi_locate(struct sr *sr, const struct vdi *vdi, struct arena *a, struct plan *plan, struct fault *f);
int file_vdi_delete(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a,
                    struct deletion *out, struct fault *f);

/* ---- file_fork.c */

int file_vdi_fork(struct sr *sr, const struct plan *plan, const struct vdi *wanted, const struct vdi *vdi,
                  struct arena *a, struct vdi *made, struct vdi *base, struct fault *f);
/* All that is left to do once the disk is a child of the base, from wherever it stopped. */
int file_fork_finish(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a,
                     struct vdi *made, struct vdi *base, struct fault *f);

/* ---- file_relink.c */

int file_vdi_reset(struct sr *sr, const struct plan *plan, const struct vdi *vdi, struct arena *a, struct vdi *out,
                   struct fault *f);
int file_vdi_compose(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                     struct arena *a, struct vdi *out, struct vdi *base, struct fault *f);
/* The second half, once the child has its parent, from wherever it stopped. vdi, parent: their rows, or NULL. */
int file_compose_finish(struct sr *sr, const struct plan *plan, const struct vdi *vdi, const struct vdi *parent,
                        struct arena *a, struct vdi *out, struct vdi *base, struct fault *f);
/* Says that others are made from it: hidden and, when it cannot be written by mistake either, read-only. Synced; done
   before is success. */
int file_hide(struct sr *sr, const struct uuid *vdi, struct fault *f);

/* ---- file_settle.c */

int file_settle(struct sr *sr, const struct plan *plan, const struct vdi *wanted, struct arena *a, enum settled *how,
                struct vdi *vdi, struct vdi *base, struct deletion *deleted, struct fault *f);

#endif
