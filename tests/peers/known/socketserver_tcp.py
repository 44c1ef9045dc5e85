# The TCP server in Python's documentation of socketserver, where it answers in upper case and without the spaces
# around the words. Here it sends back what came, and the class of the server and the address are arguments. All else
# is as it stands there: https://docs.python.org/3.11/library/socketserver.html#socketserver-tcpserver-example (Zero-
# Clause BSD license). judge --known asks it for our promises, with TCPServer and with ThreadingTCPServer.
import socketserver
import sys

class MyTCPHandler(socketserver.BaseRequestHandler):
    """
    The request handler class for our server.

    It is instantiated once per connection to the server, and must
    override the handle() method to implement communication to the
    client.
    """

    def handle(self):
        # self.request is the TCP socket connected to the client
        self.data = self.request.recv(1024)
        print("{} wrote:".format(self.client_address[0]))
        print(self.data)
        # just send back the same data
        self.request.sendall(self.data)

if __name__ == "__main__":
    HOST, PORT = sys.argv[2], int(sys.argv[3])

    # Create the server, binding to HOST on port PORT
    with getattr(socketserver, sys.argv[1])((HOST, PORT), MyTCPHandler) as server:
        # Activate the server; this will keep running until you
        # interrupt the program with Ctrl-C
        server.serve_forever()
