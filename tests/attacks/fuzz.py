"""A fuzz of the reader of bundles: ``python tests/attacks/fuzz.py --mutations 100000`` (or ``make fuzz``).

Mutation number n of a seed is always the same, so that one that went wrong can be made again: ``--first n
--mutations 1``. Five kinds take turns: bytes of the file; bytes of the archive's own headers; bytes of a member, its
hash made right again, for what parses members is reached only behind the hashes; values of the manifest; and members
taken from other places. Good is what ends with a bundle whose every part can be read, or with BundleError in one
printable sentence.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from forging import members_of, pack
from toy_bundle import Toy, write_toy

from edgeco.bundle import open_bundle
from edgeco.errors import BundleError

NUMBERS = (0, 1, 2, 3, 7, 9, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
VALUES = (None, True, -1, 1.5, 1e300, "", "a", "w", "frame", "ring", "carry", "../x", "\ud800", [], {}, [[]], *NUMBERS)
SIGNATURES = (b"PK\1\2", b"PK\3\4", b"PK\5\6")


class Tally(NamedTuple):
    """Outcomes by kind of mutation, and the longest that one opening took, in seconds of the processor."""

    opened: Counter[str]
    refused: Counter[str]
    sentences: set[str]
    slowest: float


def scramble(rng: random.Random, data: bytes) -> bytes:
    """One to four places set, inserted, deleted, repeated or moved."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(changed) + 1), rng.randint(1, 64)
        match rng.randrange(5):
            case 0:
                changed[place : place + 4] = rng.randbytes(rng.randint(1, 4))
            case 1:
                changed[place:place] = rng.randbytes(rng.randint(1, 16))
            case 2:
                changed[place : place + length] = changed[place : place + length] * rng.choice((0, 2))
            case 3:
                size = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % 2 ** (8 * size)
                changed[place : place + size] = number.to_bytes(size, rng.choice(("little", "big")))
            case _:
                other = rng.randrange(len(changed) + 1)
                changed[place : place + length] = changed[other : other + length]
    return bytes(changed)


def file_bytes(rng: random.Random, toy: Toy, good: bytes) -> bytes:
    return scramble(rng, good)


def archive_headers(rng: random.Random, toy: Toy, good: bytes) -> bytes:
    changed = bytearray(good)
    for _ in range(rng.randint(1, 3)):
        signature = rng.choice(SIGNATURES)
        places = [at for at in range(len(good) - 22) if good.startswith(signature, at)] or [len(good) - 22]
        size = rng.choice((1, 2, 4))
        place = rng.choice(places) + rng.randrange(46)
        changed[place : place + size] = (rng.choice(NUMBERS) % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(changed)


def member_bytes(rng: random.Random, toy: Toy, good: bytes) -> bytes:
    files = members_of(toy)
    name = rng.choice(sorted(toy.members))
    files[name] = scramble(rng, files[name])
    return _hashed(files)


def manifest_values(rng: random.Random, toy: Toy, good: bytes) -> bytes:
    files = members_of(toy)
    manifest = json.loads(files["manifest.json"])
    for _ in range(rng.randint(1, 3)):
        target: Any = manifest
        while target:
            key = rng.choice(sorted(target) if isinstance(target, dict) else range(len(target)))
            if isinstance(target[key], (dict, list)) and target[key] and rng.randrange(5):
                target = target[key]
                continue
            match rng.randrange(4):
                case 0 if isinstance(target, dict):
                    target[rng.choice(("x", "name", "shape", "reads"))] = target.pop(key)
                case 1 if isinstance(target, list):
                    target.append(copy.deepcopy(target[key]))
                case _:
                    target[key] = copy.deepcopy(rng.choice(VALUES))
            break
    return pack(files | {"manifest.json": json.dumps(manifest).encode()})


def moved_members(rng: random.Random, toy: Toy, good: bytes) -> bytes:
    files = members_of(toy)
    names = sorted(toy.members)
    one, other = rng.choice(names), rng.choice([*names, "manifest.json"])
    match rng.randrange(3):
        case 0:
            files[one] = files[other]
        case 1:
            cut = rng.randrange(len(files[one]) + 1)
            files[one] = files[one][:cut] + files[other][rng.randrange(len(files[other])) :]
        case _:
            files[one] = rng.randbytes(rng.randrange(200))
    return _hashed(files)


def _hashed(files: dict[str, bytes]) -> bytes:
    manifest = json.loads(files["manifest.json"])
    manifest["members"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
        if name != "manifest.json"
    }
    return pack(files | {"manifest.json": json.dumps(manifest).encode()})


KINDS: tuple[Callable[[random.Random, Toy, bytes], bytes], ...] = (
    file_bytes,
    archive_headers,
    member_bytes,
    manifest_values,
    moved_members,
)


def read_all(path: Path) -> str | None:
    """Open a bundle and read everything in it; the refusal's sentence, or None. Anything else passes through."""
    try:
        bundle = open_bundle(path)
        bundle.golden()
        bundle.report()
        for variant in bundle.manifest.variants:
            bundle.phases(variant)
    except BundleError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def fuzz(folder: Path, mutations: int, first: int = 0, seed: int = 0, every: int = 0) -> Tally:
    """Read mutants of the toy bundle.

    Args:
        folder: where the mutants are written, one file after another under one name.
        mutations: how many.
        first: number of the first.
        every: print a line after as many; 0 never.

    Raises:
        AssertionError: a mutant was answered in any other way than a bundle or one sentence; names its number.
    """
    toy = write_toy(folder / "toy.edgeco")
    good, path = toy.data, folder / "mutant.edgeco"
    opened, refused, sentences, slowest = Counter[str](), Counter[str](), set[str](), 0.0
    for number in range(first, first + mutations):
        kind = KINDS[number % len(KINDS)]
        path.write_bytes(kind(random.Random(f"{seed}/{number}"), toy, good))
        before = time.process_time()
        try:
            sentence = read_all(path)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {seed} ({kind.__name__}): {error!r}") from error
        slowest = max(slowest, time.process_time() - before)
        if sentence is None:
            opened[kind.__name__] += 1
        else:
            refused[kind.__name__] += 1
            assert sentence.isprintable() and len(sentence) < 400, f"mutation {number} of seed {seed}: {sentence!r}"
            sentences.add("".join(c for c in sentence if not c.isdigit()))
        if every and (number + 1 - first) % every == 0:
            done = f"{number + 1 - first} mutations, {opened.total()} opened"
            print(f"{done}, slowest {1000 * slowest:.1f} ms", flush=True)
    return Tally(opened, refused, sentences, slowest)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the reader of bundles.")
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz(Path(folder), given.mutations, given.first, given.seed, every=10_000)
    for kind in KINDS:
        name = kind.__name__
        print(f"{name:16} {tally.opened[name]:7} opened {tally.refused[name]:7} refused")
    seconds = time.perf_counter() - start
    print(f"no crash; {len(tally.sentences)} sentences, slowest {1000 * tally.slowest:.1f} ms, {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
