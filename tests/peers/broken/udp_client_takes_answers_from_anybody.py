"""Does not connect its socket, and does not look at the sender. It passes over what it has printed just now,
but takes anything else for the echo."""

import socket
import sys

from right import udp_client

SERVER = (sys.argv[1], int(sys.argv[2]))
printed = None


class Unconnected(socket.socket):
    def connect(self, server):
        self.bind(("127.0.0.1", 0))

    def send(self, message):
        return self.sendto(message, SERVER)


def is_echo(answer, message):
    global printed
    is_new = answer != printed
    printed = answer
    return is_new


udp_client.socket.socket = Unconnected
udp_client.is_echo = is_echo
udp_client.main()
