"""Takes an interrupted call (EINTR) for an error. Python makes such a call again, unless a handler of the
signal raises: so this shows what happens in other languages."""

import signal

from right import udp_server


def interrupt(*_):
    raise InterruptedError("Interrupted system call")


signal.signal(signal.SIGCONT, interrupt)
udp_server.main()
