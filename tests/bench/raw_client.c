/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The floor of a bridge: the least a program can do that takes a call from argv[1] to a UNIX socket and prints what
   comes back. Called by the path of the socket, as argv[0]. Static, libc only. */
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char reply[65536];
    ssize_t got;
    if (argc != 2 || strlen(argv[0]) >= sizeof address.sun_path)
        return 2;
    memcpy(address.sun_path, argv[0], strlen(argv[0]));
    uint32_t length = (uint32_t) strlen(argv[1]);
    struct iovec parts[] = {{&length, sizeof length}, {argv[1], length}};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
        return 1;
    if (writev(fd, parts, 2) != (ssize_t) (sizeof length + length))
        return 1;
    while ((got = read(fd, reply, sizeof reply)) > 0)
        if (write(STDOUT_FILENO, reply, (size_t) got) != got)
            return 1;
    return got < 0;
}
