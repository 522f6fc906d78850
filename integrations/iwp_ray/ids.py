"""What tells rows apart: integers or text, which can be written down and compared with those of another run."""

import pyarrow as pa

__all__ = ["check_id_type"]


def check_id_type(owner: str, kind: object) -> None:
    """Check the type of a column of ids.

    Parameters
    ----------
    owner : str
        Whose ids they are, for the message.
    kind : object
        A `pyarrow.DataType`, or whatever Ray Data has in place of one.

    Raises
    ------
    ValueError
        If they are neither integers nor text.

    Examples
    --------
    >>> check_id_type("the file", pa.int64())
    """
    known = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)
    if not isinstance(kind, pa.DataType) or not any(check(kind) for check in known):
        msg = f"{owner} holds ids of type {kind}, expected integers or text"
        raise ValueError(msg)
