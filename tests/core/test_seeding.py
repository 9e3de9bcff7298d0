"""Random streams: pure functions of seed and label, independent of each other and of torch's global state."""

import hashlib
import itertools

import pytest
import torch

from unlearn_core.seeding import Streams, derive, generator, global_seed


def test_a_derived_seed_is_a_hash_of_its_labels():
    """The same on every machine and in every version, or stored artifacts would lose their meaning."""
    digest = hashlib.sha256(b"7|train|3").digest()
    assert derive(7, "train", 3) == int.from_bytes(digest[:8], "big") // 2
    assert derive(7, "train", 3) == derive(7, "train", "3")
    assert 0 <= derive(0) < 2**63


def test_different_labels_give_different_streams():
    labels = [(s, *rest) for s in range(5) for rest in ((), ("a",), ("b",), ("a", 0), ("a", 1), ("a", "b"))]
    assert len({derive(*label) for label in labels}) == len(labels)


def test_streams_are_uncorrelated():
    draws = torch.stack([torch.randn(10_000, generator=generator(0, "noise", i)) for i in range(8)])
    correlations = torch.corrcoef(draws) - torch.eye(8)
    assert correlations.abs().max() < 5 / 100


def test_a_stream_does_not_depend_on_what_was_drawn_before():
    streams = Streams(5, torch.device("cpu"))
    first = torch.randn(3, generator=streams("a"))
    torch.randn(100, generator=streams("b"))
    torch.manual_seed(1)
    assert torch.equal(torch.randn(3, generator=streams("a")), first)
    assert torch.equal(torch.randn(3, generator=Streams(5, torch.device("cpu"))("a")), first)


def test_streams_of_different_seeds_differ():
    drawn = [torch.randn(3, generator=Streams(seed, torch.device("cpu"))("a")) for seed in range(4)]
    assert len({tuple(values.tolist()) for values in drawn}) == 4


def test_global_seed_is_put_back():
    before = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with global_seed(seed):
            draws.append(torch.randn(3))
    with pytest.raises(ZeroDivisionError), global_seed(3):
        torch.randn(1) / (1 // 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws[1:], 2))
