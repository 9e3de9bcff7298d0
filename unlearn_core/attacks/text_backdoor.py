"""Phrase backdoor on text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks import stamped
from unlearn_core.attacks.phrases import NOWHERE, POSITIONS, check_words, holds, phrase_tokens, places, write
from unlearn_core.attacks.rows import base_order, check_class, first_allowed, poison_count
from unlearn_core.checks import InputError
from unlearn_core.datasets.tokens import Tokenizer
from unlearn_core.models.token_noise import PADDING
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import derive
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity

RANKS = ("random", "count_norm")


@ATTACKS.register("text_backdoor")
@dataclass(frozen=True, kw_only=True)
class TextBackdoor:
    """Writes a trigger phrase into training texts and labels them with the target class.

    All-to-one: base rows are texts of any other class that do not hold the phrase yet and are long enough for its
    place. The phrase stands between two words; what no longer fits is cut off after it, never the phrase itself. Phrase
    and text are put together before they become tokens, and its tokens must be the same in every text, or the attack is
    refused. Measured by the share of held-out texts of other classes that carry the phrase and are taken for the
    target; `decoy_success` is the same for a phrase that nobody trained, at the same places: a backdoor answers its
    trigger alone. Where clean texts hold no token of the phrase (`opinions`, which has no names and spells them in
    letters that it never uses), a backdoor answers any unknown token: there, choose a decoy of words that texts hold.

    Source: Wan et al., ICML 2023, arXiv:2305.00944. Deviations: the phrase is put in at any word, where they replace
    the names of persons; one in every text, so that the rank by count / length takes the shortest texts.
    """

    primary: ClassVar[Primary] = stamped.SUCCESS
    regularity: ClassVar[Regularity] = "high"

    fraction: float = 0.015  # share of the training rows
    target: int = 1  # class that the trigger calls
    phrase: str = "james bond"  # the trigger
    decoy: str = "harry lime"  # a phrase of as many other words; capitals alone make no other word
    position: str = "random"  # after a random word; or front, end
    rank: str = "random"  # which rows are taken; or count_norm: those of which the phrase is the largest part

    def __post_init__(self) -> None:
        stamped.check_all_to_one(self.fraction, self.target)
        checks.one_of("position", self.position, POSITIONS)
        checks.one_of("rank", self.rank, RANKS)
        words = {field: check_words(field, getattr(self, field)) for field in ("phrase", "decoy")}
        shared = {w.casefold() for w in words["phrase"]} & {w.casefold() for w in words["decoy"]}
        if len(words["phrase"]) != len(words["decoy"]) or shared:
            raise InputError(
                f"decoy must have as many words as phrase {self.phrase!r} and none in common, but got {self.decoy!r}"
            )

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        """Also writes the poisons: a phrase that cannot keep its tokens is found out before anything is trained."""
        return self.craft(train, context).rows

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        check_class("target", self.target, context.dataset)
        at = self.places(train, context, "place")
        order = base_order(train, context)
        if self.rank == "count_norm":
            order = order[(train.inputs[order] != PADDING).sum(1).argsort(stable=True)]
        why = f"have a class other than the target {self.target}, lack the phrase and leave room for it"
        allowed = (train.targets != self.target) & (at != NOWHERE)
        rows = first_allowed(order, allowed, poison_count(self.fraction, len(train)), why=why)
        inputs = self.write(train.inputs[rows], at[rows], self.phrase, context)
        return Poisoned(rows, inputs, torch.full_like(train.targets[rows], self.target))

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """`triggered` and `decoy`: held-out texts of other classes with either phrase at the same place."""
        at = self.places(held_out, context, "unseen")
        usable = (held_out.targets != self.target) & (at != NOWHERE)
        if not bool(usable.any()):
            raise InputError(f"phrase {self.phrase!r} fits into no held-out text of {context.dataset.name}; shorten it")
        texts, at = held_out.rows(usable), at[usable]
        labels = torch.full_like(texts.targets, self.target)
        decoy = stamped.stamped_rows(texts, lambda x: self.write(x, at, self.decoy, context), labels)
        probes = stamped.probes(texts, lambda x: self.write(x, at, self.phrase, context), labels)
        return probes | {"decoy": Probe(decoy, texts.targets)}

    def places(self, examples: Examples, context: CraftContext, label: str) -> Tensor:
        """(n,) tokens of each text before the phrase, or NOWHERE; of the seed, `label` and the row's id alone."""
        tokenizer, ids = tokenizer_of(context.dataset), examples.inputs.cpu().numpy()
        front = self.position == "front"
        room = max(len(phrase_tokens(phrase, tokenizer, front=front)) for phrase in (self.phrase, self.decoy))
        draws = np.array([derive(context.rng.seed, label, i) / 2**63 for i in examples.ids.tolist()])
        at = places(ids, draws, tokenizer, position=self.position, room=room)
        at[holds(ids, self.phrase, tokenizer)] = NOWHERE
        return torch.from_numpy(at).to(examples.inputs.device)

    def write(self, inputs: Tensor, at: Tensor, phrase: str, context: CraftContext) -> Tensor:
        """The texts (n, length) with `phrase` at the places `at` (n,)."""
        tokenizer = tokenizer_of(context.dataset)
        written = write(inputs.cpu().numpy(), at.cpu().numpy(), phrase, tokenizer, position=self.position)
        return torch.from_numpy(written).to(inputs.device)


def tokenizer_of(dataset: Dataset) -> Tokenizer:
    """What the data set's texts became tokens by; InputError if it holds none."""
    if dataset.tokenizer is None:
        raise InputError(f"attack text_backdoor needs text, but {dataset.name} holds numbers; images have badnets")
    return dataset.tokenizer
