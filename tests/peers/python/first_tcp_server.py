"""The shortest TCP server: tcp-server/examples/first.rs in Python. Its argument is a port."""

import socket
import sys

port = int(sys.argv[1]) if len(sys.argv) > 1 else 7007
listener = socket.create_server(("127.0.0.1", port))
print("listening on {}:{}".format(*listener.getsockname()), flush=True)
while True:
    stream, peer = listener.accept()
    with stream:  # It is closed at the end of this block.
        while data := stream.recv(4096):  # No bytes: the client has sent all.
            stream.sendall(data)
