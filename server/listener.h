/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listening sockets. */
#ifndef SMAPI_SERVER_LISTENER_H
#define SMAPI_SERVER_LISTENER_H

#include "server/base/fault.h"
#include <sys/types.h>

/* address: an IPv4 or IPv6 address in digits. port 0 lets the kernel choose. The caller closes *fd. -1 with fault EIO,
   or InvalidArg for the address. */
int listener_tcp(const char *address, unsigned port, int *fd, struct fault *f);
/* Sockets accepted from this one send at once: a handshake's small pieces do not wait for each other. */
void listener_no_delay(int fd);
/* Of an IPv4 or IPv6 socket; 0 for any other. */
unsigned listener_port(int fd);

/* A UNIX socket and the file that names it. */
struct listener_name {
    const char *path; /* the caller's */
    dev_t device;
    ino_t inode;
};

/* A UNIX socket of mode 0600 at path. What a dead process left there is replaced in one step. -1 with fault EIO, also
   when somebody answers there or something else than a socket stands there; InvalidArg for a path that is too long.
   The caller closes *fd and takes the name away. Not while other threads make files: it sets the umask for a moment. */
int listener_unix(const char *path, int *fd, struct listener_name *name, struct fault *f);
/* Nothing is removed when another file stands there by now. */
void listener_unix_remove(const struct listener_name *name);

#endif
