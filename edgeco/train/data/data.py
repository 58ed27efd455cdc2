"""A set of labelled recordings: immutable, and every verb gives another."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args, overload

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import DataError
from edgeco.train.data import split
from edgeco.train.data.case import Case, Held, Prepared

By = Literal["case", "group", "blocks"]

Progress = Callable[[int, int], None]
"""Called with the number of cases read and how many there are."""


@dataclass(frozen=True, eq=False)
class Data:
    """Cases and the names of their classes.

    Attributes:
        cases: in the order of the folder or file.
        labels: class names, to which the cases' labels are places; empty where no case has a label.

    Raises:
        DataError: there is no case, two have one name, or a label has no class.
    """

    cases: tuple[Case, ...]
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.cases:
            raise DataError("There is no case in these data.")
        twice = [name for name, number in Counter(case.name for case in self.cases).items() if number > 1]
        if twice:
            raise DataError(f"{twice[0]!r} is the name of several cases; names tell them apart.")
        for case in self.cases:
            if case.label is not None and not 0 <= case.label < len(self.labels):
                raise DataError(f"{case.name}: its label {case.label} is not one of {len(self.labels)} classes.")

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @overload
    def __getitem__(self, place: int) -> Case: ...
    @overload
    def __getitem__(self, place: slice) -> Data: ...
    def __getitem__(self, place: int | slice) -> Case | Data:
        """A case by its place, or a run of them as data."""
        return self._of(self.cases[place]) if isinstance(place, slice) else self.cases[place]

    @property
    def counts(self) -> dict[str, int]:
        """Cases of every class."""
        number = Counter(case.label for case in self.cases)
        return {label: number[place] for place, label in enumerate(self.labels)}

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 (hex) of all that the frames and labels are: the same for the same contents anywhere."""
        told = hashlib.sha256(json.dumps(self.labels).encode())
        for case in self.cases:
            told.update(json.dumps((case.name, case.label, case.group, case.fps)).encode() + case.content.digest())
        return told.hexdigest()

    # ------------------------------------------------------------------------------------------------ choosing

    def filter(self, keep: Callable[[Case], bool]) -> Data:
        """Those cases that ``keep`` says yes to. Raises DataError if there is none."""
        kept = tuple(case for case in self.cases if keep(case))
        if not kept:
            raise DataError(f"None of the {len(self)} cases is kept by this filter.")
        return self._of(kept)

    def subset(self, count: int, seed: int = 0) -> Data:
        """So many cases drawn at random, of every class in proportion, in their order.

        Raises:
            DataError: there are not so many.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"A subset of {count} cases cannot be drawn from {len(self)}.")
        return self._at(split.subset(self._classes, count, seed))

    def split(
        self, fractions: Sequence[float] = (0.8, 0.2), *, by: By = "case", seed: int = 0, blocks: int = 10, gap: int = 0
    ) -> tuple[Data, ...]:
        """Parts that share no case, of every class in proportion.

        Args:
            fractions: of each part; what they leave of the whole is in no part.
            by: ``case``: every case by itself. ``group``: cases of one group stay together. ``blocks``: runs of a
                class's cases in their order stay together, and groups too: for rows that were cut from long
                recordings, where neighbours are almost the same.
            seed: of the drawing.
            blocks: runs that each class is cut into.
            gap: cases left out between two runs that go to different parts, where cases overlap their neighbours.

        Raises:
            DataError: the fractions are none, or a part remains empty.
        """
        split.check_fractions(fractions)
        if by not in get_args(By):
            raise DataError(f"split by {by!r}: give {', '.join(get_args(By)[:-1])} or {get_args(By)[-1]}.")
        if blocks < 1 or gap < 0:
            raise DataError(f"A class cannot be cut into {blocks} blocks with gaps of {gap} cases.")
        members = [case.group for case in self.cases]
        if by == "case":
            parts = split.cases(self._classes, fractions, seed)
        elif by == "group":
            parts = split.groups(self._classes, members, fractions, seed)
        else:
            parts = split.blocks(self._classes, members, fractions, seed, blocks, gap)
        if not all(parts):
            raise DataError(
                f"{len(self)} cases in {len(set(members))} groups are too few to split into {tuple(fractions)} "
                f"by {by}; give more, or fewer parts."
            )
        return tuple(self._at(part) for part in parts)

    # ----------------------------------------------------------------------------------------------- preparing

    def prepared(self, preprocessing: Preprocessing | None, fps: float | None = None) -> Data:
        """The same cases with frames as a network takes them.

        Args:
            preprocessing: of pictures, by the runtime's own implementation; None leaves arrays as they are. Mean and
                deviation are applied where a clip is made (`clip_of`), as the graph holds them in a bundle.
            fps: rate the network is held to, by the runtime's pacer; None takes every frame.
        """
        return self._of(
            replace(case, content=Prepared(case.content, preprocessing, fps), fps=fps or case.fps)
            for case in self.cases
        )

    def held(self, progress: Progress | None = None) -> Data:
        """The same cases with all frames in memory, read once.

        Raises:
            DataError: a case's frames are of several shapes.
            SourceError: a recording cannot be read to its end.
        """
        made = []
        for number, case in enumerate(self.cases):
            made.append(replace(case, content=Held(case.array(), case.fps)))
            if progress:
                progress(number + 1, len(self))
        return self._of(made)

    def grouped(self, group: Callable[[Case], str] | Sequence[str]) -> Data:
        """The same cases in other groups: a name per case, or what gives a case its group's name.

        Raises:
            DataError: the names are not as many as the cases.
        """
        names = [group(case) for case in self.cases] if callable(group) else list(group)
        if len(names) != len(self):
            raise DataError(f"{len(names)} groups were given for {len(self)} cases.")
        return self._of(replace(case, group=name) for case, name in zip(self.cases, names, strict=True))

    def labelled(self, labels: Sequence[str]) -> Data:
        """The same cases with labels as places in another list, such as a network's classes, which may be more.

        Raises:
            DataError: a class of these data is not in the list.
        """
        unknown = [label for label, number in self.counts.items() if number and label not in labels]
        if unknown:
            raise DataError(
                f"The data have the class {unknown[0]!r}, which is not one of {', '.join(labels)}; "
                "name the classes alike, or leave it out."
            )
        places = [list(labels).index(label) if label in labels else None for label in self.labels]
        moved = (replace(c, label=None if c.label is None else places[c.label]) for c in self.cases)
        return Data(tuple(moved), tuple(labels))

    def frame_shape(self) -> tuple[int, ...]:
        """The shape that every frame has, told from the first of each case.

        Raises:
            DataError: frames differ in shape.
        """
        shapes: dict[str, tuple[int, ...]] = {c.name: next(c.frames()).image.shape for c in self.cases}
        first = self.cases[0].name
        other = next((name for name in shapes if shapes[name] != shapes[first]), None)
        if other is not None:
            raise DataError(
                f"The frames of {first} have the shape {shapes[first]}, those of {other} {shapes[other]}; "
                "a network takes one shape."
            )
        return shapes[first]

    @property
    def _classes(self) -> list[int | None]:
        return [case.label for case in self.cases]

    def _at(self, places: Sequence[int]) -> Data:
        return self._of(self.cases[place] for place in places)

    def _of(self, cases: Iterator[Case] | Sequence[Case]) -> Data:
        return Data(tuple(cases), self.labels)
