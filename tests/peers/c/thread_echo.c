/* A TCP echo server with a thread for each connection. It is only for comparison with `tcp-server`:
 * it has no limits, and an error of accept ends it. Its argument is a port, if it has one. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void *echo(void *argument)
{
    int stream = (int)(intptr_t)argument;
    char *buffer = malloc(48 * 1024);
    ssize_t len;
    while (buffer && (len = read(stream, buffer, 48 * 1024)) > 0) {
        ssize_t written = 0, part;
        while (written < len && (part = write(stream, buffer + written, len - written)) > 0)
            written += part;
        if (written < len)
            break;
    }
    free(buffer);
    close(stream);
    return NULL;
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGPIPE, SIG_IGN);
    addr.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
    if (bind(listener, (struct sockaddr *)&addr, size) || listen(listener, 4096) ||
        getsockname(listener, (struct sockaddr *)&addr, &size)) {
        perror("cannot listen on 127.0.0.1");
        return 1;
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    for (;;) {
        pthread_t thread;
        int stream = accept(listener, NULL, NULL);
        if (stream < 0)
            return 1;
        setsockopt(stream, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (pthread_create(&thread, NULL, echo, (void *)(intptr_t)stream))
            return 1;
        pthread_detach(thread);
    }
}
