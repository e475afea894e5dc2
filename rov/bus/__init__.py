"""How processes communicate, over ZeroMQ: the newest state inside, bounded mail to the sinks, and the public endpoints.

Every payload, inside and outside, is one msgpack object: `[SCHEMA_VERSION, {field: value, …}]`.

    state   one ipc endpoint per state topic that has one publisher; PUB to SUB, CONFLATE: the newest wins
    mail    all messages of a process, in order, [topic, payload], PUSH to each sink (the recorder, the public side, and
            some topics to the supervisor); at most MAIL messages wait; without room, the publisher drops and counts
    public  one endpoint for SUB sockets, [topic, payload]; one for DEALER and REQ sockets with commands, each answered
            with a Reply. Strangers reach these two, so each has its own process (`publicd`, `commandd`): an attack on
            one does not block the other, and neither can harm the pilot

Sending never blocks, with or without readers. Malformed messages are counted and dropped. Sockets belong to the thread
that made them, and do not survive a fork.
"""

from rov.bus.command_gateway import INSIDE, CommandGateway
from rov.bus.commands import COMMANDS_PER_UPDATE, CommandClient, CommandServer, Request
from rov.bus.inside import Publisher, Subscriber, inbox
from rov.bus.operators import LATE_S, SESSIONS, SETTLE_S, OperatorRegistry
from rov.bus.payload import COMMAND_BYTES, TEXT_MAX, Malformed, decode, decode_command, encode
from rov.bus.public import PublicPublisher, listen
from rov.bus.public_server import prove
from rov.bus.reader import MAIL, Entry, Reader
from rov.bus.sockets import ipc, is_local, reached

__all__ = [
    "COMMANDS_PER_UPDATE",
    "COMMAND_BYTES",
    "LATE_S",
    "MAIL",
    "SESSIONS",
    "SETTLE_S",
    "TEXT_MAX",
    "CommandClient",
    "CommandServer",
    "INSIDE",
    "CommandGateway",
    "Entry",
    "Malformed",
    "OperatorRegistry",
    "Publisher",
    "PublicPublisher",
    "Reader",
    "Request",
    "Subscriber",
    "decode",
    "decode_command",
    "encode",
    "inbox",
    "ipc",
    "is_local",
    "listen",
    "prove",
    "reached",
]
