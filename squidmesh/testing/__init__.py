"""What hosts and adapter authors test with: contracts, fakes and virtual time."""

import sys
from pkgutil import iter_modules
from types import ModuleType

_DEMANDING = ("contract_", "machine")


def _explain_assertions(pytest: ModuleType) -> None:
    """Let pytest show what an assertion of a contract compared, as it does in test modules.

    It has to know before they are imported, which is why this is done here.
    """
    names = (module.name for module in iter_modules(__path__))
    pytest.register_assert_rewrite(
        *(f"{__name__}.{name}" for name in names if name.startswith(_DEMANDING))
    )


# Who does not run under pytest has no use for it, and need not have it installed.
if "pytest" in sys.modules:
    _explain_assertions(sys.modules["pytest"])
