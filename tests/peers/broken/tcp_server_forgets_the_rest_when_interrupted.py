"""Takes a write that is interrupted while it waits for a whole one. Python makes such a call again: so this
shows what happens in other languages."""

import select
import signal
import socket

from right import tcp_server

interrupted, wakeup = socket.socketpair()


def send(connection, data):
    while data:
        try:
            data = data[connection.send(data, socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            if interrupted in select.select([interrupted], [connection], [])[0]:
                break  # The rest of the data is lost.


tcp_server.send = send
wakeup.setblocking(False)
signal.set_wakeup_fd(wakeup.fileno())
signal.signal(signal.SIGCONT, lambda *_: None)
tcp_server.main()
