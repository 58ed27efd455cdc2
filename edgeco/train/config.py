"""How a network is trained, as one typed record: read from TOML, set by flags, and drawn from a search space.

A TOML file has the fields of a recipe, and a table ``search`` of what may vary::

    steps = 2000
    peak = 3e-3

    [search]
    peak = { low = 1e-3, high = 1e-2, log = true }
    batch = [16, 32, 64]
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

import msgspec
import numpy as np
from msgspec import Meta

from edgeco.errors import SpecError
from edgeco.train.loop import Options, Precision
from edgeco.train.schedule import Schedule


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every training script can be told; a script with more to tell extends it."""

    steps: Annotated[int, Meta(ge=1, description="optimiser steps")] = 1000
    batch: Annotated[int, Meta(ge=1, description="clips of a step")] = 32
    seed: Annotated[int, Meta(ge=0, description="of the split, the first weights and all clips")] = 1
    peak: Annotated[float, Meta(gt=0, description="greatest learning rate")] = 3e-3
    warmup: Annotated[float, Meta(ge=0, le=1, description="share of the steps in which the rate rises")] = 0.1
    weight_decay: Annotated[float, Meta(ge=0, description="of AdamW")] = 0.01
    average: Annotated[float, Meta(ge=0, lt=1, description="decay of the weights' moving average; 0: none")] = 0.0
    validate_every: Annotated[int, Meta(ge=1, description="steps from validation to validation")] = 100
    patience: Annotated[int | None, Meta(description="validations without a better one that end it")] = None
    precision: Annotated[Precision, Meta(description="of the forward pass")] = "auto"
    threads: Annotated[int, Meta(ge=1, description="processor threads for the network")] = 1

    def schedule(self) -> Schedule:
        """The learning rates."""
        return Schedule(self.steps, self.peak, self.warmup)

    def options(self, **more: Any) -> Options:
        """The loop's options, and ``more`` of them."""
        own = ("seed", "weight_decay", "average", "validate_every", "patience", "precision")
        return Options(**{name: getattr(self, name) for name in own}, **more)


R = TypeVar("R", bound=Recipe)


@dataclass(frozen=True)
class Flag:
    """A field as a flag of a command: its name, what its text becomes, its default, the values it may have, a text."""

    name: str
    kind: Callable[[str], Any]
    default: Any
    choices: tuple[str, ...] | None
    text: str


def flags_of(recipe: Recipe) -> list[Flag]:
    """A flag for every field of a recipe, its value there being the default."""
    return [_flag(field, getattr(recipe, field.name)) for field in msgspec.structs.fields(type(recipe))]


def add_flags(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """Let a script's parser take a recipe's fields, and ``--config``; `recipe_from` reads what was given."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML with any of these fields, and what to search")
    for flag in flags_of(recipe):
        text = f"{flag.text} [{flag.default}]"
        parser.add_argument(
            "--" + flag.name.replace("_", "-"), type=flag.kind, choices=flag.choices, default=None, help=text
        )


def recipe_from(given: argparse.Namespace, recipe: R) -> tuple[R, Space[R]]:
    """A recipe changed by ``--config`` and then by flags, and its search space.

    Raises:
        SpecError: the file or a value is not usable.
    """
    fields, search = read_config(given.config) if given.config else ({}, {})
    flags = {name: getattr(given, name) for name in recipe.__struct_fields__}
    fields |= {name: value for name, value in flags.items() if value is not None}
    made = make_recipe(type(recipe), {**msgspec.to_builtins(recipe), **fields})
    return made, Space(made, search)


def read_config(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a TOML file and its table ``search``.

    Raises:
        SpecError: the file is missing or no TOML.
    """
    try:
        found: dict[str, Any] = msgspec.toml.decode(Path(path).read_bytes())
    except OSError as error:
        raise SpecError(f"The configuration {path} cannot be read ({error.strerror}); check the path.") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise SpecError(f"The configuration {path} is not valid TOML: {error}.") from error
    search = found.pop("search", {})
    if not isinstance(search, dict):
        raise SpecError(f"The configuration {path}: search must be a table of fields.")
    return found, search


def make_recipe(recipe: type[R], fields: Mapping[str, Any]) -> R:
    """A checked recipe from plain fields. Raises SpecError where one is unknown or has a wrong value."""
    try:
        return msgspec.convert(dict(fields), recipe)
    except msgspec.ValidationError as error:
        raise SpecError(f"The recipe is not usable: {str(error).replace('`$.', '`')}.") from error


@dataclass(frozen=True)
class Space(Generic[R]):
    """Recipes like one, but for the fields that may vary.

    Args:
        recipe: where all other fields come from.
        search: by field a list of values, or ``{low, high}`` with ``log`` for numbers that vary by factors.

    Raises:
        SpecError: a field is unknown, or its range is none.
    """

    recipe: R
    search: dict[str, Any]

    def draw(self, seed: int, number: int) -> list[R]:
        """So many recipes; the same seed draws the same, whatever their number."""
        return [self._one(np.random.default_rng((seed, i))) for i in range(number)]

    def _one(self, rng: np.random.Generator) -> R:
        fields = msgspec.to_builtins(self.recipe)
        for name, choice in sorted(self.search.items()):
            if name not in fields:
                raise SpecError(f"search has the unknown field {name!r}; known are {', '.join(fields)}.")
            fields[name] = _drawn(name, choice, rng, whole=isinstance(fields[name], int))
        return make_recipe(type(self.recipe), fields)


def _drawn(name: str, choice: Any, rng: np.random.Generator, *, whole: bool) -> Any:
    if isinstance(choice, list) and choice:
        return choice[int(rng.integers(len(choice)))]
    bounds = choice if isinstance(choice, dict) else {}
    low, high = (float(v) if isinstance(v := bounds.get(b), (int, float)) else math.nan for b in ("low", "high"))
    log = bounds.get("log", False)
    if not math.isfinite(high - low) or set(bounds) - {"low", "high", "log"} or not low < high or (log and low <= 0):
        raise SpecError(f"search.{name}: give a list of values, or {{low = …, high = …, log = true}} with low < high.")
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
    return round(value) if whole else value


def _flag(field: msgspec.structs.FieldInfo, default: Any) -> Flag:
    kind, meta = field.type, None
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
        meta = next((note for note in notes if isinstance(note, Meta)), None)
    choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else None
    plain = next((part for part in get_args(kind) if part in (int, float)), kind) if choices is None else str
    return Flag(field.name, plain, default, choices, (meta.description if meta else None) or field.name)
