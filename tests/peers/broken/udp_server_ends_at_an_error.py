"""Ends at an error of a send. A forged sender, such as a broadcast address, is enough."""

from right import udp_server


def answer(server, data, peer):
    server.sendto(data, peer)


udp_server.answer = answer
udp_server.main()
