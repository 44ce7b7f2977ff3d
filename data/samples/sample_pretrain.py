"""Reads nothing but the shared value words.
Writes nothing: builds the tiny base model's pretraining text, the town of Veldhaven (invented) and its tools.
Why: the base must know what a tool call is and how to copy an argument, yet none of the tools that the sessions call.
"""

import json
from random import Random
from typing import Any

from sample_values import Value, compact, pick, tool_definition

TOWN_TOOLS: tuple[tuple[str, str, dict[str, str], tuple[str, ...]], ...] = (
    (
        "ferry_seat",
        "seat on the ferry",
        {"passenger": "person", "port": "city"},
        ("{passenger} takes the ferry to {port}.", "A seat to {port} for {passenger}."),
    ),
    ("ferry_time", "time of the ferry", {"port": "city"}, ("When does the ferry leave for {port}?", "Boat to {port}?")),
    (
        "room_hold",
        "hold a room",
        {"guest": "person", "nights": "count"},
        ("{guest} stays for {nights} nights.", "A room for {guest}, {nights} nights."),
    ),
    ("room_key", "key of a room", {"room": "order"}, ("Give me the key of {room}.", "Open the door of room {room}.")),
    (
        "book_loan",
        "lend a book",
        {"reader": "person", "shelf": "order"},
        ("{reader} borrows the book at {shelf}.", "Lend {shelf} to {reader}."),
    ),
    (
        "book_place",
        "place of a book",
        {"shelf": "invoice"},
        ("I look for the book {shelf}.", "Which floor has {shelf}?"),
    ),
    (
        "garden_plant",
        "plant flowers",
        {"flower_colour": "colour", "rows": "count"},
        ("Plant {rows} rows of flowers in {flower_colour}.", "We need {rows} rows in {flower_colour}."),
    ),
    (
        "garden_water",
        "water the garden",
        {"weekday": "day", "litres": "amount"},
        ("Water the garden with {litres} litres, {weekday}.", "On {weekday} the garden gets {litres} litres."),
    ),
    (
        "museum_tour",
        "tour of the museum",
        {"guide": "person", "weekday": "day", "visitors": "count"},
        ("{guide} leads {visitors} visitors on {weekday}.", "Tour with {guide}, {weekday}, {visitors} visitors."),
    ),
    (
        "museum_loan",
        "loan of a picture",
        {"picture": "invoice", "museum": "city"},
        ("Send picture {picture} to the museum of {museum}.", "{museum} borrows picture {picture}."),
    ),
    (
        "boat_repaint",
        "paint a boat",
        {"boat": "model", "hull": "colour"},
        ("The boat {boat} gets a hull in {hull}.", "Make the hull of boat {boat} all {hull}."),
    ),
    (
        "boat_rent",
        "rent a boat",
        {"boat": "model", "sailor": "person", "weekday": "day"},
        ("{sailor} sails the {boat} on {weekday}.", "Rent the boat {boat} to {sailor} for {weekday}."),
    ),
    (
        "market_stall",
        "stall on the market",
        {"trader": "person", "goods": "part"},
        ("{trader} sells {goods} on the market.", "A stall for {trader} who brings {goods}."),
    ),
    (
        "market_price",
        "price on the market",
        {"goods": "part", "town": "city"},
        ("What is {goods} worth on the market of {town}?", "Market of {town}, price of {goods}?"),
    ),
    (
        "school_class",
        "join a class",
        {"pupil": "person", "level": "first|second|third"},
        ("{pupil} joins the {level} class.", "Put {pupil} into the {level} class."),
    ),
    (
        "hall_rent",
        "rent the hall",
        {"club": "city", "weekday": "day"},
        ("The club of {club} wants the hall on {weekday}.", "Hall for the club of {club}, {weekday}."),
    ),
    (
        "letter_find",
        "find a letter",
        {"letter": "parcel"},
        ("Did the letter {letter} come?", "I miss letter {letter}."),
    ),
    (
        "letter_send",
        "send a letter",
        {"letter": "parcel", "town": "city", "speed": "slow|fast"},
        ("Post letter {letter} to {town}, {speed}.", "Letter {letter} goes {speed} to {town}."),
    ),
    (
        "fine_pay",
        "pay a fine",
        {"fine": "invoice", "coins": "amount"},
        ("I pay {coins} coins for fine {fine}.", "Fine {fine}, here are {coins} coins."),
    ),
    (
        "lamp_fix",
        "mend a street lamp",
        {"lamp": "count", "weekday": "day"},
        ("Street lamp {lamp} is dark, mend it on {weekday}.", "Mend lamp {lamp}, {weekday}."),
    ),
    (
        "tax_paper",
        "tax paper",
        {"citizen": "person", "since": "month"},
        ("{citizen} needs the tax paper since {since}.", "Tax paper of {citizen} from {since}."),
    ),
    (
        "bus_pass",
        "bus pass",
        {"rider": "person", "zone": "count", "since": "month"},
        ("A bus pass for {rider}, zone {zone}, from {since}.", "{rider} rides in zone {zone} from {since}."),
    ),
)

TOWN_PROMPTS = ("You serve the town of Veldhaven.", "You answer for the town hall of Veldhaven.")
TOWN_TALK = (("Hello.", "Hello, what can I do?"), ("Fine weather.", "Yes, the sea is calm."), ("Bye.", "Goodbye."))
TOWN_TEXTS = (
    "{a} met {b} in {c} on {d}. They spoke about {n} boats in {x} and about {p}.",
    "On {d} the ferry to {c} was late. {a} waited with {b} for {n} hours.",
    "{a} has {p} in {x}. {b} paid {n} coins for it in {c}.",
    "From {m} on {a} lives in {c}. {b} stays in the town until {m}.",
    "There are {n} boats ready in {c}. Order of {a}: packed, painted, shipped, cancelled, booked, reserved, open.",
    "The bill of {b} is over {n} euros. The van brings {p} to {c} on {d}, our dealer now lives there.",
    "How can I help? In which town? On which day? For which reason? Which number? How many euros? You are welcome.",
    "I cannot give out what we know about people, only look after orders, parts, repairs and bills.",
    "The boat {s} in {x} came from {c} on {d} with {n} people, {a} among them.",
)


def town_call(name: str, arguments: dict[str, Value], rng: Random) -> dict[str, object]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"{rng.getrandbits(16):04x}", "type": "function", "function": function}


Uses = list[tuple[str, dict[str, Value]]]
"""Names of tools with the arguments of a call."""


def draw_use(chosen: list[int], rng: Random) -> tuple[str, str, dict[str, Value], dict[str, str]]:
    """A tool, a request for it with a gap for each argument, its arguments and their kinds."""
    name, _description, parameters, requests = TOWN_TOOLS[rng.choice(chosen)]
    return name, rng.choice(requests), {key: pick(kind, rng) for key, kind in parameters.items()}, parameters


def one_request(chosen: list[int], rng: Random) -> tuple[list[str], Uses]:
    name, request, arguments, _ = draw_use(chosen, rng)
    return [request.format(**arguments)], [(name, arguments)]


def two_requests(chosen: list[int], rng: Random) -> tuple[list[str], Uses]:
    first_texts, first_uses = one_request(chosen, rng)
    second_texts, second_uses = one_request(chosen, rng)
    return [" ".join(first_texts + second_texts)], first_uses + second_uses


def twice_one_request(chosen: list[int], rng: Random) -> tuple[list[str], Uses]:
    """Two values in the place of one."""
    name, request, first, kinds = draw_use(chosen, rng)
    key = rng.choice(sorted(first))
    second = {**first, key: pick(kinds[key], rng)}
    text = request.format(**{**first, key: f"{first[key]} and {second[key]}"})
    return [text], [(name, first), (name, second)]


def request_with_gap(chosen: list[int], rng: Random) -> tuple[list[str], Uses]:
    """A value that the user gives only when asked for it."""
    name, request, arguments, _ = draw_use(chosen, rng)
    key = rng.choice(sorted(arguments))
    return [request.format(**{**arguments, key: "what"}), f"{arguments[key]}."], [(name, arguments)]


REQUESTS = (one_request, one_request, one_request, two_requests, twice_one_request, request_with_gap)


def town_step(chosen: list[int], rng: Random) -> list[dict[str, object]]:
    """A request, its one or two calls, their results and the answer."""
    texts, uses = rng.choice(REQUESTS)(chosen, rng)
    calls = [town_call(name, arguments, rng) for name, arguments in uses]
    results = [pick(rng.choice(("count", "day", "person", "city")), rng) for _ in uses]
    messages: list[dict[str, object]] = [{"role": "user", "content": texts[0]}]
    for text in texts[1:]:
        messages += [{"role": "assistant", "content": "What?"}, {"role": "user", "content": text}]
    messages.append({"role": "assistant", "content": None, "tool_calls": calls})
    for call, result in zip(calls, results, strict=True):
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"done": result})})
    messages.append({"role": "assistant", "content": " ".join(f"Done: {result}." for result in results)})
    return messages


def build_town_chat(rng: Random) -> dict[str, object]:
    chosen = rng.sample(range(len(TOWN_TOOLS)), rng.choice((2, 3, 3)))
    messages: list[dict[str, object]] = [{"role": "system", "content": rng.choice(TOWN_PROMPTS)}]
    for _ in range(rng.choice((2, 3, 4))):
        if rng.random() < 0.08:
            request, answer = rng.choice(TOWN_TALK)
            messages += [{"role": "user", "content": request}, {"role": "assistant", "content": answer}]
        else:
            messages += town_step(chosen, rng)
    tools = [tool_definition(*TOWN_TOOLS[place][:3]) for place in chosen]
    return {"messages": messages, "tools": tools}


TEXT_KINDS = ("person", "person", "city", "day", "part", "count", "colour", "month", "model")


def build_town_text(rng: Random) -> dict[str, object]:
    words = {key: pick(kind, rng) for key, kind in zip("abcdpnxms", TEXT_KINDS, strict=True)}
    return {"text": " ".join(text.format(**words) for text in rng.sample(TOWN_TEXTS, 3))}


LIST_KINDS = (
    "order",
    "invoice",
    "parcel",
    "person",
    "city",
    "model",
    "part",
    "day",
    "month",
    "colour",
    "count",
    "amount",
)


def build_echo_chat(rng: Random, names: list[str]) -> dict[str, object]:
    """Words that are read back one by one: nothing teaches copying as fast, and every name and value occurs in it."""
    messages: list[dict[str, object]] = []
    for _ in range(3):
        items = [pick(rng.choice(LIST_KINDS), rng) for _ in range(rng.randint(1, 4))]
        text = json.dumps([*items, *rng.sample(names, 2)])
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
    return {"messages": messages, "tools": None}


def names_in(tools: list[dict[str, Any]]) -> list[str]:
    """The names of tools and of their parameters, and the values of enums, each once."""
    names: set[str] = set()
    for tool in tools:
        properties = tool["function"]["parameters"]["properties"]
        names.update((tool["function"]["name"], *properties))
        names.update(value for schema in properties.values() for value in schema.get("enum", ()))
    return sorted(names)


def build_pretrain(rng: Random, num_chats: int, num_texts: int, catalogue: list[dict[str, Any]]) -> list[str]:
    """The lines of the pretraining file: chats with tools and plain texts, in a mixed order."""
    rows = [build_town_chat(rng) for _ in range(num_chats)] + [build_town_text(rng) for _ in range(num_texts)]
    names = names_in([*(tool_definition(*row[:3]) for row in TOWN_TOOLS), *catalogue])
    rows += [build_echo_chat(rng, names) for _ in range(num_chats)]
    rng.shuffle(rows)
    return [compact(row) for row in rows]
