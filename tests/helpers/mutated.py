"""Damage to files, as disks, networks and editors do it."""

import random


def mutated(content, seed):
    """The bytes with one to three things changed at random: never what they were."""
    rng = random.Random(seed)
    new = bytearray(content)
    while bytes(new) == content:
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(new) + 1)
            end = min(len(new), at + rng.choice((1, 2, 16, 200)))
            kind = rng.randrange(6)
            if kind == 0 and at < len(new):
                new[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del new[at:]
            elif kind == 2:
                del new[at:end]
            elif kind == 3:
                new[at:at] = new[at:end]
            elif kind == 4:
                new[at:at] = rng.choice((b'"', b",", b"\n", b"\0", b"\xff", b"../", b"nan", b"-1"))
            else:
                new[at:end] = bytes(end - at)
    return bytes(new)
