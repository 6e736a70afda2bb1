"""A Modbus device that is not ours: pymodbus, 3.0 or later, with known registers.

Prints its port, serves until its standard input is closed. An argument is the port to take, or `serial` for units 1
and 2 on a serial line: then it prints the name of our end of the line, which is a pair of pseudo-terminals.
Unit 2 has 20 more than unit 1 in its holding register 0, and nothing else.

holding registers  0: 213  1: 0  2,3: 21.3 as IEEE 754  4,5: 0x01020304  6,7: "wxyz"  8..11: 0
                   12: -15  13..19: 0
input registers    0: 700  1: 1500
coils              0: on   1: off  2: on  3: on  4..7: off
discrete inputs    0: off  1: on
"""

import asyncio
import logging
import os
import sys
import threading
import tty

from pymodbus.datastore import ModbusSequentialDataBlock, ModbusServerContext

try:
    from pymodbus.server import ModbusTcpServer
except ImportError:
    from pymodbus.server.async_io import ModbusTcpServer
try:
    from pymodbus.datastore import ModbusDeviceContext as Unit
    UNITS = "devices"
except ImportError:
    from pymodbus.datastore import ModbusSlaveContext as Unit
    UNITS = "slaves"


def registers():
    holding = [213, 0, 0x41AA, 0x6666, 0x0102, 0x0304, 0x7778, 0x797A, 0, 0, 0, 0, 65536 - 15, 0, 0, 0, 0, 0, 0, 0]
    # A block starts at 1 for the address 0 on the wire.
    return Unit(
        co=ModbusSequentialDataBlock(1, [True, False, True, True, False, False, False, False]),
        di=ModbusSequentialDataBlock(1, [False, True]),
        hr=ModbusSequentialDataBlock(1, holding),
        ir=ModbusSequentialDataBlock(1, [700, 1500]),
    )


def pump(source, sink):
    try:
        while data := os.read(source, 1024):
            while data:
                data = data[os.write(sink, data):]
    except OSError:
        pass


def line():
    """The names of two ends of a line."""
    (left, left_end), (right, right_end) = os.openpty(), os.openpty()
    for fd in left, left_end, right, right_end:
        tty.setraw(fd)
    for source, sink in (left, right), (right, left):
        threading.Thread(target=pump, args=(source, sink), daemon=True).start()
    return os.ttyname(left_end), os.ttyname(right_end)


async def serial():
    try:
        from pymodbus.server import ModbusSerialServer
    except ImportError:
        from pymodbus.server.async_io import ModbusSerialServer
    try:
        from pymodbus.framer import FramerType
        framer = FramerType.RTU
    except ImportError:
        from pymodbus.transaction import ModbusRtuFramer as framer
    other = Unit(hr=ModbusSequentialDataBlock(1, [233]))
    context = ModbusServerContext(single=False, **{UNITS: {1: registers(), 2: other}})
    ours, theirs = line()
    server = ModbusSerialServer(context, framer=framer, port=theirs, baudrate=19200,
                                **{f"ignore_missing_{UNITS}": True})
    if hasattr(server, "start"):
        await server.start()
    serving = asyncio.ensure_future(server.serve_forever())
    await asyncio.sleep(0.1)
    if serving.done():
        serving.result()
    print(ours, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def main(port):
    context = ModbusServerContext(single=True, **{UNITS: registers()})
    server = ModbusTcpServer(context, address=("127.0.0.1", port))
    serving = asyncio.ensure_future(server.serve_forever())
    sockets = None
    while not sockets:
        if serving.done():
            serving.result()
        await asyncio.sleep(0.01)
        listener = getattr(server, "server", None) or getattr(server, "transport", None)
        sockets = getattr(listener, "sockets", None)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.shutdown()


logging.disable(logging.WARNING)
what = sys.argv[1] if len(sys.argv) > 1 else "0"
asyncio.run(serial() if what == "serial" else main(int(what)))
