"""Receives into 1024 bytes. The rest of a longer datagram is lost."""

from right import udp_server


def receive(server):
    return server.recvfrom(1024)


udp_server.receive = receive
udp_server.main()
