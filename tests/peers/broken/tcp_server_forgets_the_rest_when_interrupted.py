"""Takes an interrupted write for a whole one. Python makes such a call again: so this shows what happens in
other languages to a write with a time limit."""

import signal
import socket
import threading

from right import tcp_server

interrupted = threading.Event()


def send(connection, data):
    connection.settimeout(0.01)
    while data:
        try:
            data = data[connection.send(data) :]
        except socket.timeout:
            if interrupted.is_set():
                break  # The rest of the data is lost.
    connection.settimeout(None)


tcp_server.send = send
signal.signal(signal.SIGCONT, lambda *_: interrupted.set())
tcp_server.main()
