"""What every adapter must do: classes of tests to inherit, one for each port.

A contract is a plain class whose fixtures raise until a subclass provides them, so that a
forgotten one turns every test red instead of silently skipping it. Each numbered obligation in
the docstrings of `squidmesh.ports` has at least one test here, marked with `promises`. In your own
test suite::

    from squidmesh.testing.contracts import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, clock: VirtualClock) -> AsyncIterator[MyStore]:
            ...

pytest with the plugin of anyio runs them. `squidmesh.testing.machine.store_machine` is the second
half of the contract for stores: hypothesis compares yours with the one in memory.
"""

from squidmesh.testing.contract_attempts import AttemptStoreContract
from squidmesh.testing.contract_base import (
    Hold,
    Promise,
    Storage,
    StorageContract,
    promises,
    promises_of,
)
from squidmesh.testing.contract_batches import BatchContract
from squidmesh.testing.contract_claim import ClaimContract
from squidmesh.testing.contract_claimed import ClaimedContract
from squidmesh.testing.contract_clock import (
    ClockContract,
    IdsContract,
    RandomContract,
)
from squidmesh.testing.contract_commit import CommitContract
from squidmesh.testing.contract_executor import (
    Delivery,
    Engine,
    ExecutorContract,
)
from squidmesh.testing.contract_guards import GuardContract
from squidmesh.testing.contract_heartbeats import HeartbeatContract
from squidmesh.testing.contract_hints import HintsContract
from squidmesh.testing.contract_journal import Damage, JournalContract
from squidmesh.testing.contract_presence import PresenceContract, SchemaContract
from squidmesh.testing.contract_runs import RunStoreContract
from squidmesh.testing.contract_state import StateContract
from squidmesh.testing.contract_tool import ToolContract, ToolRequests
from squidmesh.testing.contract_transactions import Host, NoHost, TransactionsContract

__all__ = [
    "AttemptStoreContract",
    "ClockContract",
    "Damage",
    "Delivery",
    "Engine",
    "ExecutorContract",
    "HintsContract",
    "Hold",
    "Host",
    "IdsContract",
    "JournalContract",
    "NoHost",
    "PresenceContract",
    "Promise",
    "RandomContract",
    "RunStoreContract",
    "SchemaContract",
    "Storage",
    "StorageContract",
    "StoreContract",
    "ToolContract",
    "ToolRequests",
    "TransactionsContract",
    "promises",
    "promises_of",
]


class StoreContract(
    CommitContract,
    BatchContract,
    GuardContract,
    ClaimContract,
    ClaimedContract,
    StateContract,
    HeartbeatContract,
):
    """The promises a `Store` makes, and the `Heartbeats` that it hands out."""
