"""A small SMTP server: takes mail without a question, or offers STARTTLS with a certificate that nobody signed, and AUTH."""
import contextlib
import email
import socket
import ssl
import subprocess
import threading


def self_signed(folder):
    """A TLS context with a certificate of its own making."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class Relay:
    def __init__(self, context=None):
        self.context, self.mails, self.said = context, [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def texts(self):
        """Of each mail: subject and text."""
        return [message["Subject"] + "\n" + message.get_payload(decode=True).decode(errors="replace") for message in self.mails]

    def logins(self):
        return [line for line in self.said if line.upper().startswith("AUTH")]

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self.listener.accept()
                taken.settimeout(30)
                threading.Thread(target=self._converse, args=(taken,), daemon=True).start()

    def _converse(self, taken):
        with contextlib.suppress(OSError, ssl.SSLError), contextlib.closing(taken):
            reader = taken.makefile("rb")
            taken.sendall(b"220 localhost ESMTP\r\n")
            while line := reader.readline().decode(errors="replace").strip():
                self.said.append(line)
                word = line.split()[0].upper()
                if word == "EHLO":
                    offer = b"250-STARTTLS\r\n" if self.context and not isinstance(taken, ssl.SSLSocket) else b""
                    taken.sendall(b"250-localhost\r\n" + offer + b"250 AUTH PLAIN LOGIN\r\n")
                elif word == "STARTTLS":
                    taken.sendall(b"220 go ahead\r\n")
                    taken = self.context.wrap_socket(taken, server_side=True)
                    reader = taken.makefile("rb")
                elif word == "DATA":
                    taken.sendall(b"354 go on\r\n")
                    rows = list(iter(reader.readline, b".\r\n"))
                    self.mails.append(email.message_from_bytes(b"".join(rows)))
                    taken.sendall(b"250 taken\r\n")
                elif word == "QUIT":
                    taken.sendall(b"221 bye\r\n")
                    return
                else:
                    taken.sendall(b"235 yes\r\n" if word == "AUTH" else b"250 yes\r\n")
