"""What hypothesis may draw in tests of the rules."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from squidmesh.domain.values import Json

scalars: Final[SearchStrategy[Json]] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(10**400), max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)

json_values: Final[SearchStrategy[Json]] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
