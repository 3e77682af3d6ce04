"""Work in several processes, whose results come back one by one."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, TypeVar

from clipsyn.errors import Interrupted
from clipsyn.methods.numerics.blocks import working_alone

_LOG = logging.getLogger("clipsyn")
_J = TypeVar("_J")
_R = TypeVar("_R")


class _Message(NamedTuple):
    """From a worker: a result, an error, a line of its log, or, with none, that a job is done."""

    result: Any = None
    error: BaseException | None = None
    said: str = ""


def in_workers(
    make: Callable[[], Callable[[_J], Iterator[_R]]], jobs: Iterable[_J], workers: int
) -> Iterator[tuple[_J, _R]]:
    """What ``make()(job)`` yields, as it comes, with the job that it is of.

    make: called once in each process. Jobs are taken when a process is free. Each process has one
    thread, since together they fill the cores. All of them end when this generator does, or when
    this process is killed. Raises what a job raises, and Interrupted where a process was killed.
    """
    context = get_context("spawn")
    left = iter(jobs)
    busy: dict[Connection, _J] = {}
    processes = {}
    try:
        for _, job in zip(range(workers), left, strict=False):
            ours, theirs = context.Pipe()
            processes[ours] = context.Process(target=_serve, args=(theirs, make), daemon=True)
            processes[ours].start()
            theirs.close()
            ours.send(job)
            busy[ours] = job
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                message = _received(connection)
                if message.error:
                    raise message.error
                if message.said:
                    _LOG.info(message.said)
                    continue
                if message.result is not None:
                    yield busy[connection], message.result
                    continue
                del busy[connection]
                for job in left:
                    connection.send(job)
                    busy[connection] = job
                    break
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.join()


def _received(connection: Connection) -> _Message:
    try:
        message: _Message = connection.recv()
    except (EOFError, ConnectionError):
        raise Interrupted(
            "a worker was killed, perhaps because memory ran out: what it had fitted is kept, and "
            "the same command goes on from there; fewer workers=… need less memory"
        ) from None
    return message


def _serve(connection: Connection, make: Callable[[], Callable[[Any], Iterator[Any]]]) -> None:
    """Work until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who started this ends it
    _LOG.addHandler(_Sent(connection))
    _LOG.setLevel(logging.INFO)
    with one_thread(), suppress(EOFError, ConnectionError):
        work = make()
        while True:
            job = connection.recv()
            try:
                for result in work(job):
                    connection.send(_Message(result))
                connection.send(_Message())
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 (it is raised where it was asked for)
                error.add_note(traceback.format_exc())
                connection.send(_Message(error=error))


class _Sent(logging.Handler):
    """What is said in a worker is said by the process that started it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        self._connection.send(_Message(said=record.getMessage()))


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything that is computed here has one thread."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), working_alone():
        yield
