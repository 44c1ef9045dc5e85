// An echo server as in the documentation of Go's package net, with a goroutine for each connection.
// It is only for comparison. Its argument is tcp, udp, or unix followed by a path. Go sets
// TCP_NODELAY by itself. With the argument tcp-buffer it copies through a buffer, as programs that
// do more than copy usually do.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	switch os.Args[1] {
	case "udp":
		datagrams()
	case "unix":
		streams("unix", os.Args[2], spliced)
	case "tcp-buffer":
		streams("tcp", "127.0.0.1:0", buffered)
	default:
		streams("tcp", "127.0.0.1:0", spliced)
	}
}

func streams(network, addr string, echo func(net.Conn)) {
	listener, err := net.Listen(network, addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func(c net.Conn) {
			echo(c)
			c.Close()
		}(conn)
	}
}

// Between two sockets Go copies through a pipe in the kernel (splice), which needs two more
// descriptors.
func spliced(c net.Conn) {
	io.Copy(c, c)
}

func buffered(c net.Conn) {
	buffer := make([]byte, 4096)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		if _, err := c.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func datagrams() {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", conn.LocalAddr())
	buffer := make([]byte, 65536)
	for {
		n, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			log.Fatal(err)
		}
		conn.WriteTo(buffer[:n], peer)
	}
}
