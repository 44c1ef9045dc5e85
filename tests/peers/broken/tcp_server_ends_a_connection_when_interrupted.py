"""Takes an interrupted read (EINTR) for an error. Python makes such a call again: so this shows what happens in other
languages."""

import select
import signal
import socket

from right import tcp_server

interrupted, wakeup = socket.socketpair()


def forget_interrupts():
    try:
        interrupted.recv(100)
    except BlockingIOError:
        pass  # There was none.


def echo(connection):
    while True:
        forget_interrupts()
        if interrupted in select.select([interrupted, connection], [], [])[0]:
            break  # The client has sent no end.
        if not (data := connection.recv(65_536)):
            break
        tcp_server.send(connection, data)


tcp_server.echo = echo
interrupted.setblocking(False)
wakeup.setblocking(False)
signal.set_wakeup_fd(wakeup.fileno())
signal.signal(signal.SIGCONT, lambda *_: None)
tcp_server.main()
