"""Receives into 65507 bytes, the most that a datagram carries over IPv4. Over IPv6 it is 20 more."""

from right import udp_server


def receive(server):
    return server.recvfrom(65_507)


udp_server.receive = receive
udp_server.main()
