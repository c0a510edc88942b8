/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "backends/visit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { STACK = 512 * 1024 };

struct visiting {
    const struct visit *v;
    const char *path;
    struct fault *f;
    int result;
};

/* From here on what is mounted is seen by this thread and the children it starts. */
static int leave_namespace(const char *path, struct fault *f)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return fault_errno(f, FAULT_EIO, "get a mount namespace to look at something from");
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return fault_errno(f, FAULT_EIO, "make %s", path);
    return 0;
}

static int visit_here(const struct visiting *x)
{
    if (leave_namespace(x->path, x->f) < 0 || x->v->mount(x->v->arg, x->path, x->f) < 0)
        return -1;
    AUTO_FD int dir = open(x->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return fault_errno(x->f, FAULT_EIO, "open %s", x->path);
    return x->v->work(x->v->arg, dir, x->f);
}

static void *visit_main(void *arg)
{
    struct visiting *x = arg;
    x->result = visit_here(x);
    return NULL;
}

/* The mount base itself is the mount point: it is there, and what it hides it hides from this thread alone. */
int visit(const struct visit *v, const struct backend_settings *settings, struct fault *f)
{
    struct visiting x = {v, settings->mount_base, f, -1};
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    int error = pthread_create(&thread, &attributes, visit_main, &x);
    pthread_attr_destroy(&attributes);
    if (error) {
        errno = error;
        return fault_errno(f, FAULT_EIO, "start a thread");
    }
    pthread_join(thread, NULL);
    return x.result;
}
