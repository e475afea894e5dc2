"""CurveZMQ (rfc.zeromq.org/spec/26), the server's side: handshake and frame encryption of a `zmtp.ZmtpConnection` with
keys. NaCl does the cryptography."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from nacl.bindings import (
    crypto_box_afternm,
    crypto_box_beforenm,
    crypto_box_keypair,
    crypto_box_open_afternm,
)
from nacl.exceptions import CryptoError

from rov.bus.zmtp import COMMAND, MORE, ProtocolError, frame

HELLO, WELCOME, INITIATE, READY, MESSAGE = b"\x05HELLO", b"\x07WELCOME", b"\x08INITIATE", b"\x05READY", b"\x07MESSAGE"
KEY, NONCE, COOKIE, VOUCH, MAC = 32, 8, 96, 96, 16
INNER_COMMAND = 2
"""The command bit inside a box; it differs from the one outside."""


class CurveMechanism:
    """Handshake and boxes of one connection. Names that end in `_` are transient keys, the others long-term keys."""

    name = b"CURVE"
    overhead = len(MESSAGE) + NONCE + MAC + 1

    def __init__(self, secret: bytes, public: bytes, clients: Mapping[bytes, str], metadata: bytes):
        """The server's raw keys; `clients`: names of accepted clients by raw public key; `metadata` is ours."""
        self.secret, self.public, self.clients, self.ours = secret, public, clients, metadata
        self.metadata, self.ready, self.who = b"", False, ""
        self.cookie = b""
        self.client_ = self.box = b""
        self.nonce = self.peer_nonce = 0
        """The last nonces, ours and the peer's: each only grows, so that no message is accepted twice."""

    def shake(self, command: bytes) -> bytes:
        try:
            return self._initiated(command) if self.cookie else self._welcome(command)
        except (CryptoError, ValueError, TypeError):
            raise ProtocolError("not the keys") from None

    def _welcome(self, hello: bytes) -> bytes:
        if not hello.startswith(HELLO + b"\x01\x00") or len(hello) != 200:
            raise ProtocolError("no HELLO")
        self.client_, nonce, box = hello[80:112], hello[112:120], hello[120:]
        lasting = crypto_box_beforenm(self.client_, self.secret)
        crypto_box_open_afternm(box, b"CurveZMQHELLO---" + nonce, lasting)
        self.peer_nonce = int.from_bytes(nonce, "big")
        public_, self.secret_ = crypto_box_keypair()
        # The cookie would let a server keep no state between a client's first two commands; we keep the state.
        self.cookie, long_nonce = secrets.token_bytes(COOKIE), secrets.token_bytes(16)
        return WELCOME + long_nonce + crypto_box_afternm(public_ + self.cookie, b"WELCOME-" + long_nonce, lasting)

    def _initiated(self, initiate: bytes) -> bytes:
        at = len(INITIATE) + COOKIE
        if not initiate.startswith(INITIATE) or initiate[len(INITIATE) : at] != self.cookie:
            raise ProtocolError("no INITIATE")
        nonce, box = initiate[at : at + NONCE], initiate[at + NONCE :]
        self.box = crypto_box_beforenm(self.client_, self.secret_)
        plain = crypto_box_open_afternm(box, b"CurveZMQINITIATE" + self._fresh(nonce), self.box)
        client, vouch_nonce, vouch = plain[:KEY], plain[KEY : KEY + 16], plain[KEY + 16 : KEY + VOUCH]
        if client not in self.clients:
            raise ProtocolError("a key that is not known")
        vouched = crypto_box_open_afternm(vouch, b"VOUCH---" + vouch_nonce, crypto_box_beforenm(client, self.secret_))
        if vouched != self.client_ + self.public:
            raise ProtocolError("another's key")
        self.metadata, self.ready, self.who = plain[KEY + VOUCH :], True, self.clients[client]
        nonce = self._next()
        return READY + nonce + crypto_box_afternm(self.ours, b"CurveZMQREADY---" + nonce, self.box)

    def open(self, flags: int, body: bytes) -> tuple[int, bytes]:
        if not body.startswith(MESSAGE):
            raise ProtocolError("not boxed")
        at = len(MESSAGE) + NONCE
        nonce = self._fresh(body[len(MESSAGE) : at])
        try:
            inner = crypto_box_open_afternm(body[at:], b"CurveZMQMESSAGEC" + nonce, self.box)
        except (CryptoError, ValueError, TypeError):
            raise ProtocolError("a box of other keys") from None
        if not inner:
            raise ProtocolError("an empty box")
        return (inner[0] & MORE) | (COMMAND if inner[0] & INNER_COMMAND else 0), inner[1:]

    def seal(self, flags: int, body: bytes) -> bytes:
        inner = bytes([(flags & MORE) | (INNER_COMMAND if flags & COMMAND else 0)]) + body
        nonce = self._next()
        return frame(0, MESSAGE + nonce + crypto_box_afternm(inner, b"CurveZMQMESSAGES" + nonce, self.box))

    def _next(self) -> bytes:
        self.nonce += 1
        return self.nonce.to_bytes(NONCE, "big")

    def _fresh(self, nonce: bytes) -> bytes:
        number = int.from_bytes(nonce, "big")
        if number <= self.peer_nonce:
            raise ProtocolError("a nonce that was used")
        self.peer_nonce = number
        return nonce
