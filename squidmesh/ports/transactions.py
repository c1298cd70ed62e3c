"""Ways into a transaction that holds more than the store's own writes: the host's, or a step's."""

from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, Self, TypeVar

import attrs

_Store = TypeVar("_Store")


@attrs.frozen
class Opened(Generic[_Store]):
    """A transaction that was begun for a step.

    *connection* is what the step's body writes with; *store* is the store inside the transaction.
    """

    connection: Any
    store: _Store


class Transactions(Protocol):
    """A store that can be part of somebody else's transaction, or says that it cannot."""

    @property
    @abstractmethod
    def is_transactional(self) -> bool:
        """Whether there are transactions to join at all."""

    @property
    @abstractmethod
    def excludes_others(self) -> bool:
        """Whether a step's transaction keeps everybody else's commits, claims and beats waiting.

        Then a body must end within a part of its lease, or it would lose its own claim by it.
        """

    @abstractmethod
    async def joined(self, connection: object) -> Self:
        """Return this store as it is inside the transaction of the host's open *connection*.

        1. What is committed through it happens when the host commits, and never if it rolls back.
        2. What is read through it includes what was committed through it.
        3. Where the host has not begun a transaction one is begun, and left open for the host.
        4. What is refused, or fails, is taken back alone: the host's own writes stay, and it can
           go on.
        5. A connection of another technology, or a store without transactions, is an
           InvalidOptionError, and nothing is written.
        """

    @abstractmethod
    def transaction(self, *, in_thread: bool) -> AbstractAsyncContextManager[Opened[Self]]:
        """Begin a transaction for a step, with a connection for use *in_thread* or by coroutines.

        1. It is committed at the end of the block, and rolled back if an exception leaves it.
        2. What is still done with the connection behind the block has no effect.
        3. It takes nothing that commits and claims of the store itself need, unless it
           `excludes_others`.
        """
