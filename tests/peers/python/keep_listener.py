"""Opens a listener and becomes another program, which has the listener as descriptor 9.

    python3 tests/peers/python/keep_listener.py 7007 bash
"""

import os, socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.fileno(), 9)
os.execvp(sys.argv[2], sys.argv[2:])
