"""Takes an interrupted accept (EINTR) for an error. Python makes such a call again, unless a handler of the
signal raises (as exit does): so this shows what happens in other languages. Clients that have a
thread are served on."""

import signal
import sys
import threading

from right import tcp_server


def hand_over(connection):
    threading.Thread(target=tcp_server.serve, args=[connection]).start()


def interrupt(*_):
    sys.exit("interrupted system call")


tcp_server.hand_over = hand_over
signal.signal(signal.SIGCONT, interrupt)
tcp_server.main()
