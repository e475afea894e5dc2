"""How processes talk, over ZeroMQ: the newest state inside, bounded mail to who keeps it, and the public side.

Every payload, inside and outside, is one msgpack object: `[SCHEMA_VERSION, {field: value, …}]`.

    state   one ipc endpoint per state topic that has one publisher; PUB to SUB, CONFLATE: the newest wins
    mail    everything a process says, in order, [topic, payload], PUSH to each sink (the recorder, the public side, and
            of some of it the supervisor); at most MAIL messages wait; what finds no room is dropped and counted where
            it was said
    public  one endpoint for SUB sockets, [topic, payload]; one for DEALER and REQ sockets with commands, each answered
            with a Reply. Strangers reach these two, so each is a process of its own (`publicd`, `commandd`): one under
            attack does not make the other deaf, and neither can harm the pilot

Sending never blocks, whoever listens or does not. What arrives malformed is counted and dropped. Sockets belong to the
thread that made them, and do not survive a fork.
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
