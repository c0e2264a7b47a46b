"""Ranks: the processes of one training, and what they send each other. No message is a pickle."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

from recsys_embed.distributed.started import BESIDE, THREADS, by_torchrun
from recsys_embed.errors import ProcessLost, SettingError

# Rows that are sent at once, in bytes.
_CHUNK_BYTES = 64_000_000
# Workers wait while rank 0 reads data, ranks and saves; a rank that dies is noticed by its connections.
_TIMEOUT = datetime.timedelta(days=30)


@dataclass
class Ranks:
    """The processes of one training. Rank 0 leads: it has the data, says what is next, measures, writes and tracks.

    rank: this one; size: how many; local: this one's number, and how many are on its machine. device: what holds its
    part of the tables. workers: processes that rank 0 has started. in_step: whether all ranks are where rank 0 knows.
    """

    rank: int
    size: int
    local: tuple[int, int]
    device: torch.device
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    in_step: bool = True

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def lost(self, error: RuntimeError) -> bool:
        """Return whether an error says that another process has ended."""
        ended = any(worker.poll() is not None for worker in self.workers)
        return ended or isinstance(error, dist.DistBackendError) or "onnection" in str(error)

    def say(self, **message: Any) -> None:
        """Send all ranks a message, which they `hear`; called by rank 0."""
        data = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
        with _telling_of_lost_ranks():
            dist.broadcast(torch.tensor([len(data)]), 0)
            dist.broadcast(data, 0)

    def hear(self) -> dict[str, Any]:
        """Return the next message of rank 0."""
        size = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(size, 0)
        data = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(data, 0)
        message: dict[str, Any] = json.loads(bytes(data.tolist()))
        return message

    def agree(self, value: int = 0) -> int:
        """Return rank 0's number, on all ranks."""
        number = torch.tensor([value])
        dist.broadcast(number, 0)
        return int(number)

    def from_leader(self, value: Tensor | None, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return rank 0's array, on all ranks, on CPU."""
        value = torch.empty(tuple(shape), dtype=dtype) if value is None else value.detach().cpu().contiguous()
        dist.broadcast(value, 0)
        return value

    def total(self, value: Tensor) -> Tensor:
        """Return the sum of an array over all ranks."""
        summed = value.to("cpu", copy=True)
        dist.all_reduce(summed)
        return summed

    def scatter(self, whole: Tensor | None, ranges: Sequence[tuple[int, int]], out: Tensor) -> None:
        """Fill each rank's `out` with its range of the rows that rank 0 has."""
        for rank, (start, end) in enumerate(ranges):
            if rank == 0 == self.rank:
                assert whole is not None
                out.copy_(whole[start:end])
            elif self.leads:
                assert whole is not None
                for part in _chunks(whole[start:end]):
                    dist.send(part.contiguous(), rank)
            elif rank == self.rank:
                for part in _chunks(out):
                    received = torch.empty(part.shape, dtype=part.dtype)
                    dist.recv(received, 0)
                    part.copy_(received)

    def gather(self, part: Tensor, ranges: Sequence[tuple[int, int]], out: Tensor | None) -> None:
        """Fill rank 0's `out` with the rows of all ranks; the inverse of `scatter`."""
        for rank, (start, end) in enumerate(ranges):
            if rank == 0 == self.rank:
                assert out is not None
                out[start:end] = part.cpu()
            elif self.leads:
                assert out is not None
                for target in _chunks(out[start:end]):
                    received = torch.empty(target.shape, dtype=target.dtype)
                    dist.recv(received, rank)
                    target.copy_(received)
            elif rank == self.rank:
                for own in _chunks(part):
                    dist.send(own.cpu().contiguous(), 0)


def _chunks(rows: Tensor) -> Sequence[Tensor]:
    """Return rows in parts that are sent at once; no rows are no part."""
    row_bytes = rows[:1].numel() * rows.element_size()
    return rows.split(max(1, _CHUNK_BYTES // max(1, row_bytes))) if len(rows) else ()


_joined: Ranks | None = None


def current() -> Ranks:
    """Return the ranks that this process is one of; without any, it becomes the only one."""
    return _join(0, 1, (0, 1), HashStore()) if _joined is None else _joined


@contextlib.contextmanager
def joined(nproc: int | None) -> Iterator[Ranks]:
    """Join the ranks that torchrun has started, or start `nproc` - 1 more beside this process.

    Yields once all are there. Raises SettingError for a number of processes where torchrun has given one.
    """
    ranks = join_torchrun(nproc) if by_torchrun() else start(nproc or 1, ["recsys_embed.distributed.worker"])
    try:
        yield ranks
        if ranks.leads and ranks.in_step:
            ranks.say(op="end")
    finally:
        leave(ranks)


def join_torchrun(nproc: int | None = None) -> Ranks:
    """Join the ranks that torchrun has started. Raises SettingError for another number of them."""
    if nproc is not None:
        raise SettingError("--nproc is for a command without torchrun, which has its own --nproc-per-node")
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, size, local, locals_ = (int(os.environ.get(name, d)) for name, d in zip(names, "0101", strict=True))
    return _join(rank, size, (local, locals_), _store_of_torchrun(size))


def start(nproc: int, command: Sequence[str]) -> Ranks:
    """Start the other processes, and join them.

    command: a module and its arguments, which joins `beside` this process. Raises ProcessLost if one ends before it
    has joined.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = str(max(1, (os.cpu_count() or 1) // nproc))
    workers = []
    for rank in range(1, nproc):
        place = {BESIDE: f"{rank} {nproc} {store.port}", **dict.fromkeys(THREADS, threads)}
        arguments = [sys.executable, "-m", *command]
        workers.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, env={**os.environ, **place}))
    while not all(store.check([_here(rank)]) for rank in range(1, nproc)):
        if any(worker.poll() is not None for worker in workers):
            for worker in workers:
                worker.kill()
            raise ProcessLost("a process that was to take part ended before it did")
        time.sleep(0.02)
    ranks = _join(0, nproc, (0, nproc), store)
    ranks.workers = workers
    return ranks


def join_beside() -> Ranks:
    """Join the process that has started this one, and end with it."""
    rank, size, port = map(int, os.environ[BESIDE].split())
    threading.Thread(target=_end_with_starter, daemon=True).start()
    return _join(rank, size, (rank, size), TCPStore("127.0.0.1", port, is_master=False))


def _end_with_starter() -> None:
    while os.read(0, 1):  # nothing is ever written: it ends when the other end of the pipe is gone
        pass
    os._exit(1)


def _here(rank: int) -> str:
    return f"rank {rank} is here"


def _store_of_torchrun(size: int) -> Store | None:
    """Return where ranks find each other after a restart too, or None: as torch finds it.

    torchrun keeps its store over restarts, and with it the addresses of ranks that were killed (torch 2.13).
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, False)
    return PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _join(rank: int, size: int, local: tuple[int, int], store: Store | None) -> Ranks:
    global _joined
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local[0] % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    where: dict[str, Any] = {} if store is None else {"store": store, "rank": rank, "world_size": size}
    if store is not None:
        store.set(_here(rank), "")
    dist.init_process_group(backend, timeout=_TIMEOUT, **where)
    _joined = Ranks(rank, size, local, device)
    return _joined


def leave(ranks: Ranks) -> None:
    """Take leave of the others; those that this process has started end first."""
    global _joined
    _joined = None
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()
    for worker in ranks.workers:
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def defer_to_leader() -> None:
    """Leave it to rank 0 what Ctrl-C and SIGTERM do: it saves a checkpoint with the help of all ranks, and ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _telling_of_lost_ranks() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise lost(error) from None


def lost(error: RuntimeError) -> ProcessLost:
    """Return what to raise where a message could not be sent or received."""
    return ProcessLost(
        f"another process of this training ended ({str(error).splitlines()[0][:120]}): with --checkpoint-every, "
        "--resume goes on from the last checkpoint"
    )
