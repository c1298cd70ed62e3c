"""What a role needs on the tables: one that works, and one that only reads."""

from importlib import resources

from squidmesh.adapters.postgres.options import Options, quoted_name
from squidmesh.errors import InvalidOptionError


def grants_sql(options: Options, role: str, *, read_only: bool = False) -> str:
    """Return the statements for whoever owns the tables.

    Raises:
        InvalidOptionError: That is no name of a role.
    """
    if not role or not role.isprintable():
        raise InvalidOptionError("role", "A role has a name of printable characters.")
    name = "grants_to_read.sql" if read_only else "grants.sql"
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    schema = quoted_name(options.checked().schema)
    # Neither name may be taken for a place in the text, whatever it looks like.
    cut = [part.split("{role}") for part in text.split("{schema}")]
    return schema.join(quoted_name(role).join(parts) for parts in cut)
