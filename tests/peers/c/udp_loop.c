/* The simplest UDP echo server that C allows. It is only for comparison with `udp-server`: any
 * error of any peer ends it. Its argument is a port, if it has one. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static char buffer[65527];

int main(int argc, char **argv) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in peer;
    addr.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    socklen_t len = sizeof addr;
    if (bind(fd, (struct sockaddr *)&addr, len) ||
        getsockname(fd, (struct sockaddr *)&addr, &len))
        return 1;
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    for (;;) {
        len = sizeof peer;
        ssize_t size = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &len);
        if (size < 0 || sendto(fd, buffer, size, 0, (struct sockaddr *)&peer, len) != size)
            return 1;
    }
}
