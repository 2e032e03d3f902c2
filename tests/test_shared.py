"""Mailboxes: newest wins, nobody waits, nothing torn is ever read."""

import pickle
import subprocess
import sys

import numpy as np

from vla.control.shared import SLOTS, Mailbox, chunk_fields

WRITER = """
import pickle, sys
box = pickle.load(sys.stdin.buffer)
for number in range(1, 20001):
    box.draft["actions"][:], box.draft["time"] = number, number
    box.publish()
box.close()
"""


def test_the_newest_message_wins_and_is_whole_while_another_process_writes() -> None:
    box = Mailbox(chunk_fields(64, 10))
    with subprocess.Popen([sys.executable, "-c", WRITER], stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(pickle.dumps(box))
        writer.stdin.close()
        seen = []
        while writer.poll() is None or box.number < 20000:
            if box.read():
                seen.append(float(box.seen["time"]))
                assert (box.seen["actions"] == seen[-1]).all() and box.number == seen[-1]
    assert seen == sorted(set(seen)) and seen[-1] == 20000
    assert not box.read() and writer.returncode == 0
    box.close()


def test_a_message_that_is_overwritten_while_it_is_read_is_found_out() -> None:
    box = Mailbox([("x", "f8", 8)])
    box.draft["x"] = 1.0
    box.publish()
    assert box.read() and box.torn == 0
    box.draft["x"] = 2.0
    box.publish()
    place = int(box._latest[0]) % SLOTS
    whole = box._slots[place].copy()
    box._slots[place, -8:] = 0  # as if the writer were in the middle of it
    assert not box.read() and box.torn > 0 and (box.seen["x"] == 1.0).all()
    box._slots[place] = whole
    assert box.read() and (box.seen["x"] == 2.0).all()
    box.close()


def test_a_writer_that_dies_in_the_middle_leaves_the_message_before() -> None:
    box = Mailbox([("x", "f8")])
    reader = pickle.loads(pickle.dumps(box))
    for value in (1.0, 2.0):
        box.draft["x"] = value
        box.publish()
    box._slots[(int(box._latest[0]) + 1) % SLOTS] = np.uint8(255)
    assert reader.read() and reader.seen["x"] == 2.0 and reader.number == 2
    reader.close()
    box.close()
