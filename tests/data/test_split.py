import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routekit.data.split import stratified_split, take_per_class


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_a_stratified_split_is_disjoint_complete_and_keeps_shares(labels, fraction, seed):
    labels = torch.tensor(labels)
    rest, taken = stratified_split(labels, fraction, seed)
    assert torch.cat([rest, taken]).sort().values.tolist() == list(range(len(labels)))
    for label in labels.unique():
        size, count = int((labels == label).sum()), int((labels[taken] == label).sum())
        assert abs(count - size * fraction) <= 1
        assert count < size
        assert count >= 1 or size == 1


def test_the_seed_determines_the_split():
    labels = torch.arange(1000) % 10
    first, again, other = (stratified_split(labels, 0.4, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == 400


def test_counts_are_taken_exactly():
    labels = torch.tensor([2, 0, 2, 1, 0, 2])
    rest, taken = take_per_class(labels, torch.tensor([1, 0, 2]), torch.Generator().manual_seed(0))
    assert labels[taken].sort().values.tolist() == [0, 2, 2]
    assert labels[rest].sort().values.tolist() == [0, 1, 2]
