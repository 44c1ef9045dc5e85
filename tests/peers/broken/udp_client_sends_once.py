"""Sends each datagram once, and gives up if it is lost."""

from right import udp_client

udp_client.ATTEMPTS = 1
udp_client.main()
