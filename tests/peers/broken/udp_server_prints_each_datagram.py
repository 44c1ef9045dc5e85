"""Prints each datagram. When nobody reads its output any more, print raises, and the server ends."""

import sys

from right import udp_server

answer_quietly = udp_server.answer
is_read = True


def answer(server, data, peer):
    answer_quietly(server, data, peer)
    if is_read:
        print(peer, len(data), flush=True)


try:
    print("listening", flush=True)
except OSError:
    is_read = False
    sys.stdout = None
udp_server.answer = answer
udp_server.main()
