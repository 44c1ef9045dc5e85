/* The simplest UDP echo server with recvmmsg and sendmmsg that C allows. It is only for comparison
 * with the example `batch`: any error of any peer ends it. With the argument `segment`, it sends
 * datagrams of the same length to the same peer as one piece (UDP_SEGMENT). With `gro` it also takes
 * them as one piece (UDP_GRO), if they come as one. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#define BATCH 32
#define MAX_PAYLOAD 65527

static char buffers[BATCH][MAX_PAYLOAD];
static struct sockaddr_in peers[BATCH];
static struct iovec slices[BATCH];
static struct mmsghdr received[BATCH], answers[BATCH];
static _Alignas(struct cmsghdr) char controls[BATCH][CMSG_SPACE(sizeof(uint16_t))];
static _Alignas(struct cmsghdr) char cuts[BATCH][CMSG_SPACE(sizeof(int))];

/* How long each datagram of a piece is, the last of which may be shorter. */
static int cut_of(int i) {
    struct cmsghdr *cut = CMSG_FIRSTHDR(&received[i].msg_hdr);
    return cut ? *(int *)CMSG_DATA(cut) : (int)received[i].msg_len;
}

static int alike(int a, int b) {
    return cut_of(a) == (int)received[a].msg_len && cut_of(b) == (int)received[b].msg_len &&
           received[a].msg_len == received[b].msg_len && !memcmp(&peers[a], &peers[b], sizeof peers[a]);
}

/* Prepares the answer to the datagrams from `begin` to before `end`, which are alike. */
static void write_answer(struct msghdr *answer, int begin, int end, char *control) {
    *answer = (struct msghdr){.msg_name = &peers[begin], .msg_namelen = sizeof peers[begin],
                              .msg_iov = &slices[begin], .msg_iovlen = end - begin};
    if (end - begin == 1 && cut_of(begin) == (int)received[begin].msg_len) return;
    answer->msg_control = control;
    answer->msg_controllen = sizeof controls[0];
    struct cmsghdr *cut = CMSG_FIRSTHDR(answer);
    cut->cmsg_level = SOL_UDP;
    cut->cmsg_type = UDP_SEGMENT;
    cut->cmsg_len = CMSG_LEN(sizeof(uint16_t));
    *(uint16_t *)CMSG_DATA(cut) = cut_of(begin);
}

int main(int argc, char **argv) {
    int gro = argc > 1 && !strcmp(argv[1], "gro");
    int segment = gro || (argc > 1 && !strcmp(argv[1], "segment"));
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    if (bind(fd, (struct sockaddr *)&addr, len) ||
        getsockname(fd, (struct sockaddr *)&addr, &len) ||
        (gro && setsockopt(fd, SOL_UDP, UDP_GRO, &gro, sizeof gro)))
        return 1;
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    for (int i = 0; i < BATCH; i++) {
        slices[i].iov_base = buffers[i];
        received[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_namelen = sizeof peers[i],
                                              .msg_iov = &slices[i], .msg_iovlen = 1};
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            slices[i].iov_len = MAX_PAYLOAD;
            received[i].msg_hdr.msg_control = cuts[i];
            received[i].msg_hdr.msg_controllen = gro ? sizeof cuts[i] : 0;
        }
        int count = recvmmsg(fd, received, BATCH, MSG_WAITFORONE, NULL), sent = 0;
        for (int i = 0; i < count; i++) slices[i].iov_len = received[i].msg_len;
        for (int begin = 0, end; begin < count; begin = end, sent++) {
            for (end = begin + 1; segment && end < count && alike(begin, end);) end++;
            write_answer(&answers[sent].msg_hdr, begin, end, controls[sent]);
        }
        if (count < 0 || sendmmsg(fd, answers, sent, 0) != sent) return 1;
    }
}
