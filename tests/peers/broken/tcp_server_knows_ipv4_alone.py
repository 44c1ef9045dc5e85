"""Makes a socket of IPv4 for any address."""

import socket
import sys

from right import tcp_server

with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((sys.argv[2], int(sys.argv[1])))
    listener.listen()
    while True:
        tcp_server.hand_over(tcp_server.accept(listener))
