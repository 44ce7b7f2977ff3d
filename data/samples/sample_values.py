"""Reads nothing.
Writes nothing: gives the value words (people, cities, ids, days, numbers) that sessions and pretraining text share.
Why: a tiny model copies an argument only if it has met its words before; requests and tools may be new, values not.
"""

import json
from collections.abc import Callable
from random import Random


def listed(text: str) -> list[str]:
    """The words of a table's line."""
    return text.split()


PEOPLE = listed(
    "Ada Bruno Carla Dario Edda Fabio Greta Hugo Ines Jonas Klara Leo Mara Nils Olga Pavel Rosa Sven Tilda Ugo "
    "Vera Wim Yara Zeno Alma Boris Celia Dora Emil Frida"
)
CITIES = listed(
    "Lyon Turin Porto Ghent Bergen Malmo Krakow Basel Seville Utrecht Dublin Vienna Tampere Leipzig Nantes Bilbao "
    "Tartu Graz Cork Aarhus Bologna Riga Split Brno"
)
MODELS = listed("Heron Kestrel Wren Plover Osprey Linnet Siskin Curlew Dipper Merlin")
PARTS = listed(
    "Lumen Grippo Torsion Velox Nabla Cresto Pivot Stella Fulcra Ridge Quill Bruma Optima Sella Tempo Zephyr"
)
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday")
MONTHS = listed("January March April May June July August October")
COLOURS = listed("Coral Moss Slate Amber Cobalt Ivory Plum Teal")

Value = str | int
Pick = Callable[[Random], Value]


def numbered(letter: str) -> Pick:
    """An id such as R-41."""
    return lambda rng: f"{letter}-{rng.randint(10, 99)}"


def words(pool: list[str]) -> Pick:
    return lambda rng: rng.choice(pool)


PICKS: dict[str, Pick] = {
    "order": numbered("R"),
    "invoice": numbered("V"),
    "parcel": numbered("P"),
    "person": words(PEOPLE),
    "city": words(CITIES),
    "model": words(MODELS),
    "part": words(PARTS),
    "day": words(DAYS),
    "month": words(MONTHS),
    "colour": words(COLOURS),
    "date": lambda rng: f"{rng.choice(MONTHS)} {rng.randint(1, 28)}",
    "count": lambda rng: rng.randint(2, 40),
    "amount": lambda rng: rng.randint(20, 99),
}
"""How a value of each kind is drawn."""

INTEGER_KINDS = frozenset({"count", "amount"})


def pick(kind: str, rng: Random) -> Value:
    """A value of `kind`; a kind with bars in it, such as late|lost, is an enum."""
    if "|" in kind:
        return rng.choice(kind.split("|"))
    return PICKS[kind](rng)


def schema_of(kind: str) -> dict[str, object]:
    """The JSON Schema of one parameter of `kind`."""
    if "|" in kind:
        return {"type": "string", "enum": kind.split("|")}
    return {"type": "integer" if kind in INTEGER_KINDS else "string"}


def tool_definition(name: str, description: str, parameters: dict[str, str]) -> dict[str, object]:
    """A tool in OpenAI's form; `parameters` maps each parameter to the kind of its values, all are required."""
    properties = {parameter: schema_of(kind) for parameter, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def compact(record: object) -> str:
    """`record` as one line of JSON without spaces between tokens: the samples are committed, so their size counts."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
