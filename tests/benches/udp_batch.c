/* The plainest UDP echo server with recvmmsg and sendmmsg that C allows: what the example `batch` is
 * measured by, and no model. Any error of any peer ends it. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

#define BATCH 32
#define MAX_PAYLOAD 65527

static char buffers[BATCH][MAX_PAYLOAD];
static struct sockaddr_in peers[BATCH];
static struct iovec slices[BATCH];
static struct mmsghdr messages[BATCH];

int main(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    if (bind(fd, (struct sockaddr *)&addr, len) || getsockname(fd, (struct sockaddr *)&addr, &len)) return 1;
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    for (int i = 0; i < BATCH; i++) {
        messages[i].msg_hdr.msg_name = &peers[i];
        messages[i].msg_hdr.msg_namelen = sizeof peers[i];
        messages[i].msg_hdr.msg_iov = &slices[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        slices[i].iov_base = buffers[i];
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) slices[i].iov_len = MAX_PAYLOAD;
        int count = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        for (int i = 0; i < count; i++) slices[i].iov_len = messages[i].msg_len;
        if (count < 0 || sendmmsg(fd, messages, count, 0) != count) return 1;
    }
}
