"""Logs made for tests: a ground station's (.tlog) and an autopilot's own (.BIN)."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from pymavlink.dialects.v10 import ardupilotmega as old
from pymavlink.dialects.v20 import ardupilotmega as mav

from rov.imports.dataflash import CODES

UTC = 1_700_000_000.0
STANDARD: dict[str, tuple[str, str]] = {
    "PARM": ("QNf", "TimeUS,Name,Value"),
    "ATT": ("QccccCCCCB", "TimeUS,DesRoll,Roll,DesPitch,Pitch,DesYaw,Yaw,ErrRP,ErrYaw,AEKF"),
    "BAT": ("QBfffffcfB", "TimeUS,Inst,Volt,VoltR,Curr,CurrTot,EnrgTot,Temp,Res,RemPct"),
    "BARO": ("QBffcfIffB", "TimeUS,I,Alt,Press,Temp,CRt,SMS,Offset,GndTemp,Health"),
    "CTUN": ("Qffffffefffhh", "TimeUS,ThI,ABst,ThO,ThH,DAlt,Alt,BAlt,DSAlt,SAlt,TAlt,DCRt,CRt"),
    "MODE": ("QMBB", "TimeUS,Mode,ModeNum,Rsn"),
    "ARM": ("QBIBB", "TimeUS,ArmState,ArmChecks,Forced,Method"),
    "MSG": ("QZ", "TimeUS,Message"),
    "ERR": ("QBB", "TimeUS,Subsys,ECode"),
    "RFND": ("QBCBB", "TimeUS,Instance,Dist,Stat,Orient"),
    "RCIN": ("QHHHHHHHH", "TimeUS,C1,C2,C3,C4,C5,C6,C7,C8"),
    "RCOU": ("QHHHHHHHH", "TimeUS,C1,C2,C3,C4,C5,C6,C7,C8"),
    "GPS": ("QBBIH", "TimeUS,I,Status,GMS,GWk"),
}
"""As ArduPilot 4.1 and later write them: letters and columns."""


class TlogFile:
    """Writes a .tlog: 8 bytes of the ground station's clock in µs, then the frame."""

    def __init__(self, utc: float = UTC) -> None:
        self.links: dict[tuple[int, int, bool], Any] = {}
        self.data = bytearray()
        self.utc = utc

    def add(self, t: float, message: Any, system: int = 1, component: int = 1, *, first: bool = False) -> None:
        """A message that arrives `t` s after the log began; `first`: as MAVLink 1."""
        dialect: Any = old if first else mav
        link = self.links.setdefault((system, component, first), dialect.MAVLink(None, system, component))
        raw = message.pack(link, force_mavlink1=True) if first else message.pack(link)
        link.seq = (link.seq + 1) % 256
        self.data += struct.pack(">Q", max(int((self.utc + t) * 1e6), 0)) + raw

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data)
        return path


def attitude(boot: float, yaw: float = 0.3) -> Any:
    return mav.MAVLink_attitude_message(round(boot * 1000), 0, 0, yaw, 0, 0, 0)


def heartbeat(armed: bool = False, mode: int = 19, kind: int = 12) -> Any:
    return mav.MAVLink_heartbeat_message(kind, 3, 81 | 128 * armed, mode, 4, 3)


class BinFile:
    """Writes a .BIN, which describes its own records."""

    def __init__(self, **others: tuple[str, str]) -> None:
        self.data = bytearray()
        self.numbers: dict[str, int] = {}
        self.formats = STANDARD | others
        self._describe(128, "FMT", "BBnNZ", "Type,Length,Name,Format,Columns")
        for number, (name, (letters, columns)) in enumerate(self.formats.items(), 10):
            self.numbers[name] = number
            self._describe(number, name, letters, columns)

    def _describe(self, number: int, name: str, letters: str, columns: str) -> None:
        length = 3 + struct.calcsize("<" + "".join(CODES[each] for each in letters))
        fields = (number, length, name.encode(), letters.encode(), columns.encode())
        self.data += b"\xa3\x95\x80" + struct.pack("<BB4s16s64s", *fields)

    def add(self, t: float, name: str, *values: Any) -> None:
        """A record, `t` s after boot; numbers as they stand in the file, short ones filled up with zeros."""
        letters = self.formats[name][0]
        filled = (round(t * 1e6), *values, *[0] * (len(letters) - 1 - len(values)))
        packed = struct.pack("<" + "".join(CODES[each] for each in letters), *filled)
        self.data += bytes((0xA3, 0x95, self.numbers[name])) + packed

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data)
        return path
