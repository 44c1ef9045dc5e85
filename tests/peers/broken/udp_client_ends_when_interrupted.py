"""Takes an interrupted call (EINTR) for an error. Python makes such a call again, unless a handler of the
signal raises (as exit does): so this shows what happens in other languages."""

import signal
import sys

from right import udp_client


def interrupt(*_):
    sys.exit("interrupted system call")


signal.signal(signal.SIGCONT, interrupt)
udp_client.main()
