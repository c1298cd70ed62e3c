"""What workers say that they can run, as text: for each definition the steps that they lack."""

from collections.abc import Collection, Iterable, Mapping

from squidmesh.codec import decode, encode


def definitions_to_text(definitions: Mapping[str, Collection[str]]) -> str:
    """Write what a worker can run: fingerprints, each with the steps that it has no body for."""
    return encode({mark: [*sorted(steps)] for mark, steps in definitions.items()})


def able(workers: Iterable[tuple[str, str]], fingerprint: str) -> dict[str, frozenset[str]]:
    """Of *workers*, each with what it wrote, those that know the definition, and what they lack."""
    found: dict[str, frozenset[str]] = {}
    for owner, text in workers:
        told = decode(text)
        lacking = told.get(fingerprint) if isinstance(told, dict) else None
        if isinstance(lacking, list):
            found[owner] = frozenset(map(str, lacking))
    return found
