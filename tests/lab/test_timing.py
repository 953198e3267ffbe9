"""PTP between machines of their own: a board's client measures, and what WalT tells of it."""

from __future__ import annotations

import json

from twisted.trial.unittest import TestCase

from tests.lab.installed import installed, why_not
from tests.lab.test_install import booted
from tests.lab.test_networks import DENIED
from tests.patience import patient

AHEAD = 5.0  # seconds that the clock of the board is set ahead, less what date(1) does not tell
CLOSE = 0.5  # seconds by which emulated machines are taken for punctual
CONTEXT, RUN = "/root/timed", "/root/run"
# A client as an image brings it. What the master of the platform needs otherwise is set by the
# server: how requests are sent, and how often.
CONFIG = """\
ptpengine:interface=eth0
ptpengine:preset=slaveonly
ptpengine:domain=42
ptpengine:ip_mode=multicast
ptpengine:log_delayreq_interval=0
clock:no_adjust=Y
clock:step_startup_force=Y
global:ignore_lock=Y
global:use_syslog=N
global:log_file=/run/ptpd.log
global:log_status=Y
global:status_file=/run/ptpd.status
global:status_update_interval=1
"""
DOCKERFILE = """\
FROM base
COPY libraries /usr/lib/x86_64-linux-gnu
COPY ptpd /usr/sbin/ptpd
COPY ptpd.conf /etc/ptpd.conf
"""
EXPERIMENT = """\
name: timing
licence: CC0-1.0
roles:
  follower: {model: "pc-*", image: timed}
variables:
  ADJUST: ["yes", "no"]
measure:
  - follower: {script: follow.sh}
    save: state
    timeout: 20m
results:
  offset: {file: follower/state, pattern: "Offset from Master +: +(-?[0-9.]+) s"}
limits: {boot: 20m}
"""
# Each time the clock is set wrong. First PTP puts it right, then it only tells by how much.
FOLLOW = f"""\
#!/bin/sh
status=/run/ptpd.status
killall ptpd 2> /dev/null
while pidof ptpd > /dev/null; do sleep 1; done
rm -f $status
date -s "@$(($(date +%s) + {AHEAD:.0f}))" > /dev/null
if [ "$ADJUST" = yes ]; then
    keep=N; least=-{CLOSE}; most={CLOSE}
else
    keep=Y; least={AHEAD - 1 - CLOSE}; most={AHEAD + CLOSE}
fi
sed "s/^clock:no_adjust=.*/clock:no_adjust=$keep/" /etc/ptpd.conf > /run/ptpd.conf
/usr/sbin/ptpd -c /run/ptpd.conf
until awk -v least=$least -v most=$most '
    /^Port state/ {{ slave = /PTP_SLAVE/ }}
    /^Offset from Master/ {{ sub(/.*: */, ""); offset = $1 }}
    /^Mean Path Delay/ {{ sub(/.*: */, ""); delay = $1 }}
    END {{ exit !(slave && delay > 0 && offset > least && offset < most) }}
' $status 2> /dev/null; do sleep 1; done
cp $status state
"""


class PtpTests(TestCase):
    skip = why_not()
    timeout = patient(1500)

    async def test_offsets(self) -> None:
        """PTP puts a clock right, and tells by how much it is wrong, as the run finds by itself."""
        from twisted.internet import reactor

        box = await installed(reactor)
        self.addCleanup(box.close)
        await box.start()
        await box.until_active()
        board = box.board()
        board.boot()
        node = await booted(box, board.mac)
        await box.put(f"{CONTEXT}/ptpd.conf", CONFIG.encode())
        await box.put(f"{CONTEXT}/Dockerfile", DOCKERFILE.encode())
        await box.run(
            f"cd {CONTEXT} && cp /usr/sbin/ptpd . && mkdir libraries &&"
            " cp -L $(ldd ptpd | grep -o '/lib/[^ ]*') libraries"
        )
        await box.ok("image", "clone", "walt:waltplatform/pc-x86-64-default", "base")
        await box.ok("image", "build", "--from-dir", CONTEXT, "timed", timeout=patient(200))
        await box.put("/root/timing.yaml", EXPERIMENT.encode())
        await box.put("/root/follow.sh", FOLLOW.encode(), "755")
        await box.ok("experiment", "run", "--to", RUN, "/root/timing.yaml", timeout=patient(900))
        shown = json.loads(await box.ok("experiment", "show", "--json", RUN))
        (right,), (wrong,) = (point["results"]["offset"] for point in shown["points"])
        self.assertLess(abs(right), CLOSE)
        clocks = json.loads(await box.run(f"cat {RUN}/clocks.json"))
        told = clocks["ptp"][node]
        self.assertEqual((told["client"], told["state"]), ("ptpd", "slave"))
        self.assertLess(abs(told["offset"] - wrong), CLOSE)
        self.assertGreater(told["delay"], 0.0)
        # The run asks the node for its time by itself, and finds the same.
        _, offset, error = clocks["nodes"][node][-1]
        self.assertLess(abs(offset - told["offset"]), CLOSE + error, clocks)
        bridge = json.loads(await box.run("ip -json link show dev walt-net"))[0]["address"]
        self.assertTrue(told["master"].startswith(bridge[:8].replace(":", "")), (told, bridge))
        config = await box.ok("node", "run", node, "--", "cat", "/etc/ptpd.conf")
        self.assertIn("ptpengine:ip_mode=hybrid\n", config)
        self.assertIn("ptpengine:log_delayreq_interval=3\n", config)
        self.assertEqual(await box.run(DENIED), "")
