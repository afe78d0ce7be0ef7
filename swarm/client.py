"""The Python API: join a swarm, load a model's two ends, open sessions, stream text.

async with join(["/ip4/203.0.113.7/tcp/31337/p2p/12D3Koo..."]) as swarm:
    model = await swarm.load("./my-model")
    async with model.session() as session:
        async for piece in model.stream(session, "What is Murmur?"):
            print(piece, end="")
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from swarm.chat import Message, turn_ids
from swarm.checkpoint import Checkpoint, open_checkpoint
from swarm.checkpoint.rope_lengths import short_positions
from swarm.dht import Dht, open_dht
from swarm.epochs import SaveTicket
from swarm.farewell import close_kept
from swarm.generate import Generation
from swarm.identity import Identity
from swarm.inference import InferenceSession, Lengths, open_session
from swarm.inputs import Inputs
from swarm.model_ends import ModelEnds, load_ends
from swarm.network import Network, open_network
from swarm.sampling_params import SamplingParams
from swarm.text import Tokenizer, load_tokenizer
from swarm.transport import Transport, open_transport


@dataclass(frozen=True)
class SwarmModel:
    """A model whose blocks run in the swarm and whose two ends run here."""

    checkpoint: Checkpoint
    ends: ModelEnds
    tokenizer: Tokenizer
    network: Network

    def session(
        self,
        *,
        ticket: bytes | None = None,
        ids: Sequence[int] = (),
        save_ticket: SaveTicket | None = None,
    ) -> AbstractAsyncContextManager[InferenceSession]:
        """Open a session; with `ticket` and the `ids` so far, re-attach to an earlier process's."""
        inputs = Inputs(self.ends.embed, num_ids=self.ends.num_ids, hidden_size=self.ends.hidden_size)
        inputs.append_ids(ids)
        return open_session(
            self.network,
            inputs,
            ticket=ticket,
            save_ticket=save_ticket,
            lengths=Lengths(self.checkpoint.max_positions, short_positions(self.checkpoint.config)),
        )

    async def close_kept(self, ticket: bytes) -> None:
        """Have the servers free a session that they keep for whoever has this ticket. Nobody may hold it now.

        Raises LocalProtocolError if this is no ticket.
        """
        await close_kept(self.network, ticket)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Turn the last block's outputs `[tokens, hidden]` into logits `[tokens, vocabulary]`, fp32."""
        return self.ends.logits(hidden)

    def stream(
        self,
        session: InferenceSession,
        prompt: str | Sequence[Message],
        params: SamplingParams | None = None,
    ) -> Generation:
        """Answer a conversation (or one user message); iterate over the result for pieces of text."""
        messages: Sequence[Message] = (
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        )
        return self.generate(session, self.tokenizer.encode_chat(messages), params)

    def answer(
        self,
        session: InferenceSession,
        messages: Sequence[Message],
        previous: Generation | None,
        params: SamplingParams | None = None,
    ) -> Generation:
        """Answer the last of `messages`, going on from `previous`: only what is new is sent."""
        told = [] if previous is None else [*previous.prompt_ids, *previous.ids]
        return self.generate(session, turn_ids(self.tokenizer, messages, told), params)

    def generate(
        self, session: InferenceSession, ids: Sequence[int], params: SamplingParams | None = None
    ) -> Generation:
        """Go on from token ids; what the session already holds of them is not sent again."""
        chosen = params or SamplingParams()
        return Generation(session, self.ends, self.tokenizer, ids, chosen)


class Murmur:
    """A joined swarm. See `join`."""

    def __init__(self, transport: Transport, dht: Dht, stack: AsyncExitStack) -> None:
        self.transport = transport
        self.dht = dht
        self._stack = stack

    async def load(
        self,
        model: str,
        *,
        dtype: str = "auto",
        chat_template: str | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> SwarmModel:
        """Read the two ends and the tokenizer of `model` (a directory or a Hub id) and find its servers.

        Raises ConfigError with a sentence if the files are not what they should be.
        """
        checkpoint = await asyncio.to_thread(open_checkpoint, model, progress=progress)
        ends = await asyncio.to_thread(load_ends, checkpoint, dtype=dtype, progress=progress)
        await asyncio.to_thread(ends.describe)  # measured once, and not in the loop
        tokenizer = await asyncio.to_thread(load_tokenizer, checkpoint, chat_template=chat_template)
        fingerprint = await asyncio.to_thread(checkpoint.find_fingerprint, progress)
        network = await self._stack.enter_async_context(
            open_network(self.transport, self.dht, fingerprint, checkpoint.num_blocks)
        )
        return SwarmModel(checkpoint, ends, tokenizer, network)


@asynccontextmanager
async def join(
    initial_peers: Sequence[str], *, identity: Identity | Path | str | None = None
) -> AsyncIterator[Murmur]:
    """Join a swarm as a client. With `identity`, a key file, sessions can be re-attached after a restart.

    Raises ConfigError with a sentence if nobody answers.
    """
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(
            open_transport(identity, initial_peers=initial_peers, client_only=True)
        )
        dht = await stack.enter_async_context(open_dht(transport, initial_peers))
        yield Murmur(transport, dht, stack)
