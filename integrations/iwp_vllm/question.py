"""The text around each image of a prompt, which a rule may choose by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Around", "behind", "texts_around"]


@dataclass(frozen=True, kw_only=True)
class Around:
    """Token ids of the text before and after one image; other images and videos of the prompt are left out.

    Attributes
    ----------
    before, after : tuple of int
        All text of the prompt.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


def texts_around(
    ids: Sequence[int], placeholders: Mapping[str, int], counts: Mapping[str, int], *, what: str = "the prompt"
) -> dict[str, list[Around]]:
    """Find the text around each image and video.

    Parameters
    ----------
    ids : sequence of int
        Token ids, in which one placeholder stands for each image or video.
    placeholders : mapping of str to int
        Id of the placeholder of each modality.
    counts : mapping of str to int
        Images and videos of the request.
    what : str
        What the ids are, for the message.

    Returns
    -------
    dict of str to list of Around
        For each modality one for each item, in order.

    Raises
    ------
    ValueError
        If there are more or fewer placeholders than items.

    Examples
    --------
    >>> texts_around([5, 9, 6, 9, 7], {"image": 9}, {"image": 2})["image"][1]
    Around(before=(5, 6), after=(7,))
    """
    known = set(placeholders.values())
    found: dict[str, list[Around]] = {}
    for modality, placeholder in placeholders.items():
        places = [place for place, token in enumerate(ids) if token == placeholder]
        if len(places) != counts.get(modality, 0):
            msg = (
                f"{what} holds {len(places)} placeholders of a {modality}, expected {counts.get(modality, 0)}: one for"
                " each that the request brings, since tokens are chosen by the text around it"
            )
            raise ValueError(msg)
        found[modality] = [
            Around(
                before=tuple(token for token in ids[:place] if token not in known),
                after=tuple(token for token in ids[place + 1 :] if token not in known),
            )
            for place in places
        ]
    return found


def behind(around: Around, closing: int | None) -> tuple[int, ...]:
    """Return the token that closes the image, if one stands right behind it; another question follows that.

    Parameters
    ----------
    around : Around
    closing : int or None
        Its id; None where images are not closed.

    Examples
    --------
    >>> behind(Around(after=(6, 7, 8)), 6), behind(Around(after=(7, 8)), 6)
    ((6,), ())
    """
    return around.after[:1] if closing is not None and around.after[:1] == (closing,) else ()
