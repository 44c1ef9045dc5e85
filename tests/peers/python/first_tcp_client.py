"""The shortest TCP client: tcp-client/examples/first.rs in Python. Its argument is a port."""

import socket
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
stream = socket.create_connection(("127.0.0.1", port))
stream.sendall(b"hello\n")
line = stream.makefile().readline()  # The line may arrive in pieces.
print(line, end="")
