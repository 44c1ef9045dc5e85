/* A UDP echo server, one call to receive and one to send: what the same costs in C, and no model. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    static char buffer[65536];
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    int server = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(server, (struct sockaddr *)&addr, size) ||
        getsockname(server, (struct sockaddr *)&addr, &size)) {
        perror("cannot bind to 127.0.0.1");
        return 1;
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    for (;;) {
        struct sockaddr_in peer;
        socklen_t peer_size = sizeof peer;
        ssize_t len = recvfrom(server, buffer, sizeof buffer, 0, (struct sockaddr *)&peer, &peer_size);
        if (len < 0 || sendto(server, buffer, len, 0, (struct sockaddr *)&peer, peer_size) != len)
            return 1;
    }
}
