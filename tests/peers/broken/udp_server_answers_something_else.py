"""Answers, but not with what it was sent."""

from right import udp_server


def answer(server, data, peer):
    server.sendto(b"thank you for " + data, peer)


udp_server.answer = answer
udp_server.main()
