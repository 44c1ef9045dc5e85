"""Receives into 1024 bytes. The rest of a longer echo is lost."""

from right import udp_client


def receive(client):
    return client.recv(1024)


udp_client.receive = receive
udp_client.main()
