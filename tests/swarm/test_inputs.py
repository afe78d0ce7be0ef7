"""What a session is fed: ids and hidden states that the model cannot take never reach a server."""

import pytest
import torch

from swarm.inputs import Inputs


def embed(ids: list[int], position: int) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.float32)[:, None].expand(-1, 4)


@pytest.fixture
def inputs() -> Inputs:
    return Inputs(embed, num_ids=10, hidden_size=4)


@pytest.mark.parametrize("ids", [[3, 10], [-1], [2**40]])
def test_an_id_outside_of_the_vocabulary_is_refused_and_nothing_is_added(
    inputs: Inputs, ids: list[int]
) -> None:
    with pytest.raises(ValueError, match="no token ids"):
        inputs.append_ids(ids)
    assert len(inputs) == 0


@pytest.mark.parametrize(
    "hidden", [torch.zeros(2, 5), torch.zeros(4), torch.zeros(1, 2, 4), torch.zeros(2, 4, dtype=torch.long)]
)
def test_hidden_states_of_another_shape_or_kind_are_refused_and_nothing_is_added(
    inputs: Inputs, hidden: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="hidden states must be floats"):
        inputs.append_hidden(hidden)
    assert len(inputs) == 0


def test_ids_and_hidden_states_are_read_back_by_position(inputs: Inputs) -> None:
    inputs.append_ids([1, 2])
    inputs.append_hidden(torch.full((1, 4), 9.0))
    assert inputs.read(1, 3)[:, 0].tolist() == [2.0, 9.0]
    assert inputs.fork(2).ids == [1, 2]


def test_what_is_made_later_is_what_was_there_when_it_was_asked_for(inputs: Inputs) -> None:
    inputs.append_ids([1, 2, 3])
    inputs.append_hidden(torch.full((1, 4), 9.0))
    ids, mixed = inputs.later(0, 2), inputs.later(2, 4)
    inputs.truncate(0)
    inputs.append_ids([7, 7, 7, 7])
    assert ids()[:, 0].tolist() == [1.0, 2.0]
    assert mixed()[:, 0].tolist() == [3.0, 9.0]
