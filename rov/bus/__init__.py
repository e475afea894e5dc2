"""How processes communicate, over ZeroMQ: the newest state inside, bounded mail to the sinks, and the public endpoints.

Every payload, inside and outside, is one msgpack object: `[SCHEMA_VERSION, {field: value, …}]`.

    state   one ipc endpoint per state topic that has one publisher; PUB to SUB, CONFLATE: the newest wins. One that is
            sent in the moment in which the reader takes its predecessor may be lost (libzmq gives up there), so what is
            said once is no state: the next message must make up for it
    mail    all messages of a process, in order, [topic, payload], PUSH to each sink (the recorder, the public side, and
            some topics to the supervisor); at most MAIL messages wait; without room, the publisher drops and counts
    public  one endpoint for SUB sockets, [topic, payload]; one for DEALER and REQ sockets with commands, each answered
            with a Reply. Strangers reach these two, so each has its own process (`publicd`, `commandd`): an attack on
            one does not block the other, and neither can harm the pilot

    client  `Client` and `AsyncClient`: an operator and listener of the public endpoints. Like their servers
            (`command_gateway` and `public`, which need Linux) they are imported from their own modules

Sending never blocks, with or without readers. Malformed messages are counted and dropped. Sockets belong to the thread
that made them, and do not survive a fork.
"""

from rov.bus.commands import COMMANDS_PER_UPDATE, INSIDE, CommandClient, CommandServer, Request
from rov.bus.endpoints import Endpoints, is_local, reached
from rov.bus.inside import Publisher, Subscriber, inbox
from rov.bus.operators import LATE_S, SESSIONS, SETTLE_S, OperatorRegistry
from rov.bus.payload import COMMAND_BYTES, TEXT_MAX, Malformed, decode, decode_command, encode
from rov.bus.reader import MAIL, Entry, Reader, listen
from rov.bus.sockets import ipc

__all__ = [
    "COMMANDS_PER_UPDATE",
    "COMMAND_BYTES",
    "CommandClient",
    "CommandServer",
    "Endpoints",
    "Entry",
    "INSIDE",
    "LATE_S",
    "MAIL",
    "Malformed",
    "OperatorRegistry",
    "Publisher",
    "Reader",
    "Request",
    "SESSIONS",
    "SETTLE_S",
    "Subscriber",
    "TEXT_MAX",
    "decode",
    "decode_command",
    "encode",
    "inbox",
    "ipc",
    "is_local",
    "listen",
    "reached",
]
