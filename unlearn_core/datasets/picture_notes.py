"""Warnings about image files by which a class can be recognised without a look at the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from unlearn_core.datasets.picture import Traits
from unlearn_core.datasets.pictures import Pictures
from unlearn_core.datasets.reading import EXAMPLES, Note, Words, note

FAR = 20  # times as frequent
MOST = 0.5


def file_warnings(pictures: Pictures, classes: Sequence[str], held_out: Sequence[bool]) -> tuple[Note, ...]:
    """Warnings on what sets the files of a class, or of the held-out part, apart from the others.

    Args:
        pictures: What was found out about the files.
        classes: The class of each file.
        held_out: Whether each file lies in a folder of held-out images.
    """
    properties: dict[str, Sequence[Hashable]] = {
        "format": [trait.format for trait in pictures.traits],
        "mode": [_mode(trait) for trait in pictures.traits],
        "size in pixels": [f"{trait.size[0]}x{trait.size[1]}" for trait in pictures.traits],
        "range of values": [f"{bits} bits" for bits in pictures.depths],
    }
    if not all(trait.is_deep for trait in pictures.traits):
        del properties["range of values"]  # the mode says it
    parts = ["the held-out part" if part else "the training part" for part in held_out]
    found = [*_mixed_depths(pictures, classes)]
    for groups, one, many in ((classes, "class", "classes"), (parts, "part", "parts")):
        for name, values in properties.items():
            apart = told_apart(values, groups)
            if apart:
                rest = f"that can be told by the {name} of the files alone"
                found.append(
                    note(
                        Words(f"{one} {rest}", f"{many} {rest}"),
                        [f"{group}: {shown}" for group, shown in apart.items()],
                    )
                )
    return tuple(found)


def _mode(traits: Traits) -> str:
    plain = traits.bits == 8 or not (traits.is_deep_colour or traits.bits < 8)
    return traits.mode if plain else f"{traits.mode} of {traits.bits} bits"


def told_apart(values: Sequence[Hashable], groups: Sequence[str]) -> dict[str, str]:
    """Groups that a property gives away, with these values.

    A value gives a group away if it is far more frequent there than in the others; a value that a single file has says
    nothing. A group is given away if most of its files have such values.
    """
    pairs, totals, members = Counter(zip(values, groups, strict=True)), Counter(values), Counter(groups)
    values_of: dict[str, list[Hashable]] = {}
    for (value, group), count in pairs.items():
        share = count / members[group]
        elsewhere = (totals[value] - count) / max(len(groups) - members[group], 1)
        if count > 1 and len(members) > 1 and share >= FAR * elsewhere:
            values_of.setdefault(group, []).append(value)
    found = {}
    for group, own in values_of.items():
        count = sum(pairs[value, group] for value in own)
        if count >= MOST * members[group]:
            found[group] = f"{', '.join(map(str, own[:EXAMPLES]))} in {count:,} of {members[group]:,} files"
    return found


def _mixed_depths(pictures: Pictures, classes: Sequence[str]) -> Sequence[Note]:
    deep = [trait.is_deep for trait in pictures.traits]
    if all(deep) or not any(deep):
        return []
    totals = Counter(classes)
    counts = Counter(name for name, is_deep in zip(classes, deep, strict=True) if is_deep)
    most = sorted(totals, key=lambda name: counts[name] / totals[name], reverse=True)
    examples = tuple(f"{name}: {counts[name]:,} of {totals[name]:,}" for name in most[:EXAMPLES])
    words = Words("image of more than 8 bits among others of 8", "images of more than 8 bits among others of 8")
    return [Note(text=words.of(sum(deep)), count=sum(deep), examples=examples)]
