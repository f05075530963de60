"""What two texts have in common that differ in capitals, accents and vowel marks alone."""

import unicodedata


def normal(text: str) -> str:
    """Without case, accents (`é`), Hebrew points and Arabic vowel marks; `text` itself if nothing else is in it.

    Marks are left out by their canonical combining class: 10 to 36 (Hebrew and Arabic) and from 200 on (accents).
    Signs that are letters of their own (Indic and Thai vowels, Japanese voicing) are of other classes and stay.
    """
    decomposed = unicodedata.normalize("NFD", text.casefold())
    kept = "".join(c for c in decomposed if not (10 <= (mark := unicodedata.combining(c)) <= 36 or mark >= 200))
    return unicodedata.normalize("NFC", kept) or text
