"""Where runs are computed: the backend that spreads them, the device that each one gets.

Runs are spread by joblib, and its backend is the user's: ``joblib.parallel_config`` around
:func:`pcsnn.experiments.machinery.runner.run` decides, or the command's ``--backend``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import platform
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from joblib import cpu_count, parallel_config
from joblib.parallel import BACKENDS, ParallelBackendBase, get_active_backend

from pcsnn.data.files import user_cache
from pcsnn.experiments.machinery.base import ExperimentError
from pcsnn.experiments.machinery.work import all_work

if TYPE_CHECKING:
    from distributed import Client

LOCAL = ("loky", "multiprocessing", "threading", "sequential")
_PATIENCE = 5.0  # seconds in which a scheduler has to answer


@contextmanager
def backend(name: str | None = None, scheduler: str | None = None) -> Iterator[None]:
    """Runs within are spread by this backend; without a name, by whatever is configured.

    Args:
        name: ``"dask"``, or one of joblib's own.
        scheduler: the address of dask's.

    Raises:
        ExperimentError: for another name, an address without dask or dask without an address,
            and for an address that does not answer.
    """
    if (name == "dask") != (scheduler is not None):
        raise ExperimentError(
            "backend must be 'dask' where there is a scheduler, and dask needs its address"
        )
    if name is None:
        yield
    elif scheduler is not None:
        with _cluster(scheduler):
            yield
    elif name in LOCAL:
        with parallel_config(backend=name):
            yield
    else:
        names = ", ".join(("dask", *LOCAL))
        raise ExperimentError(f"backend must be one of {names}, not {name!r}")


@contextmanager
def _cluster(scheduler: str) -> Iterator[None]:
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise ExperimentError(
            "backend 'dask' needs dask.distributed: pip install pcsnn[cluster]"
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said here
    kept = f"what is finished is kept in {all_work()}, and the same command continues"
    try:
        _knock(scheduler)
        client = Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:  # the latter: no address
        raise ExperimentError(f"scheduler {scheduler!r} does not answer; {kept}") from error
    with client:
        _await_worker(client, f"scheduler {scheduler!r} has no workers; {kept}")
        try:
            with parallel_config(backend=_backend_of(client)):
                yield
        except CancelledError as error:
            raise ExperimentError(f"scheduler {scheduler!r} was lost; {kept}") from error
        except KilledWorker as error:
            raise ExperimentError(f"workers of {scheduler!r} died of one run; {kept}") from error


def _knock(scheduler: str) -> None:
    """Whether there is somebody, before a client is made.

    A client that could not start closes itself whenever it is collected, and takes a lock for it:
    if that is while another one starts, which holds the lock, both wait for ever.
    """
    from distributed.comm import connect

    async def come_and_go() -> None:
        comm = await connect(scheduler, timeout=_PATIENCE)
        await comm.close()

    # In a thread, for there may be a loop in this one: a notebook's.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, come_and_go()).result()


def _backend_of(client: Client) -> ParallelBackendBase:
    """joblib's, but for one thing: where one run is done at a time, joblib does it here."""
    from joblib._dask import DaskDistributedBackend

    class Cluster(DaskDistributedBackend):
        def configure(self, *arguments: Any, **more: Any) -> int:
            return max(2, super().configure(*arguments, **more))

    return Cluster(client=client)


def _await_worker(client: Client, otherwise: str) -> None:
    """Where there is no worker yet, one may be started by giving it something to do."""
    if client.ncores():
        return
    try:
        client.submit(int).result(timeout=_PATIENCE)
    except TimeoutError as error:
        raise ExperimentError(otherwise) from error


def is_local() -> bool:
    """Whether runs stay on this machine."""
    active, _ = get_active_backend()
    return type(active) in {BACKENDS[name] for name in LOCAL}


def returned_as() -> str:
    """How joblib hands results back: one by one, or where its backend (Ray's) cannot, at the end.

    Workers write down what they have finished in either case.
    """
    one_by_one = get_active_backend()[0].supports_return_generator
    return "generator_unordered" if one_by_one else "list"


def jobs_for(device: str, jobs: int | None) -> int | None:
    """How many runs at a time joblib is asked for; none to leave it to the backend.

    What the caller asks for, else what ``parallel_config`` says, else, on this machine, as many
    as it has processors; of runs on GPUs as many as it has GPUs.

    Raises:
        ExperimentError: for less than one.
    """
    if jobs is not None and jobs < 1:
        raise ExperimentError(f"jobs must be at least 1, not {jobs}")
    if jobs is not None or get_active_backend()[1] is not None or not is_local():
        return jobs
    return cpu_count() if torch.device(device).type == "cpu" else max(1, gpus(device))


def resolve_device(device: str) -> str:
    """The name of a device that is there, and computes.

    Raises:
        ExperimentError: when it is not, or does not.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ExperimentError(
            f"device {device!r} is not on this machine, or computes no numbers"
        ) from error
    return device


def gpus(device: str) -> int:
    """Of how many GPUs a run may have one; none where the device names one, or is none."""
    return torch.cuda.device_count() if device == "cuda" else 0


@contextmanager
def own_device(device: str) -> Iterator[str]:
    """The device for one run: of several GPUs one that no other run has, if there is one.

    Each GPU has as many places as it takes, the first on each before the second on any. A place
    is a lock of the operating system, which goes with the process that held it.
    """
    if gpus(device) < 2:
        yield device
        return
    folder = user_cache() / "gpus" / platform.node()
    folder.mkdir(parents=True, exist_ok=True)
    places = ((place, k) for place in itertools.count() for k in range(gpus(device)))
    for place, k in places:
        lock = FileLock(folder / f"{k}-{place}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield f"{device}:{k}"
        finally:
            lock.release()
        return
