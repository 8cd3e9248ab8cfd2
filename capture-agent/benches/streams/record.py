"""Keeps what clients and a server say to each other, as the recorded streams beside this file.

    python3 record.py LISTEN SERVER FOLDER

listens on one port of this machine, passes on to the server at another, and writes FOLDER/1.calls for the first connection, and so
on. Each call: a byte that says who spoke (0 the client, 1 the server), the length in two bytes (the lower first), the bytes.
"""

import os
import selectors
import socket
import sys


def main(listen, server, folder):
    listener = socket.create_server(("127.0.0.1", listen))
    number = 0
    while True:
        client, _ = listener.accept()
        number += 1
        with open(os.path.join(folder, f"{number}.calls"), "wb") as file:
            converse(client, socket.create_connection(("127.0.0.1", server)), file)


def converse(client, server, file):
    selector = selectors.DefaultSelector()
    selector.register(client, selectors.EVENT_READ, (0, server))
    selector.register(server, selectors.EVENT_READ, (1, client))
    while True:
        for key, _ in selector.select():
            speaker, other = key.data
            # As much as the server receives, or sends, with one system call.
            data = key.fileobj.recv(8192)
            if not data:
                client.close()
                server.close()
                return
            other.sendall(data)
            file.write(bytes([speaker]) + len(data).to_bytes(2, "little") + data)


main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
