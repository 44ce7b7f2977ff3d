"""Reads nothing.
Writes nothing: the fourteen tools of the desk of Ambler Cycles (invented) with the sentences people say to it.
Why: one table holds all that a session of this agent is made from, so that a new tool is one new entry.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tool:
    """A tool and its talk; sentences are format strings over the parameters, answers over parameters and result."""

    name: str
    description: str
    parameters: dict[str, str]
    requests: tuple[str, ...]
    result: dict[str, str]
    answers: tuple[str, ...]
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Parameter that the user forgets: what the user says instead, and the question that asks for it."""
    pair: tuple[str, str] | None = None
    """Parameter that takes two values in one request, and that request with {first} and {second}."""


TOOLS = (
    Tool(
        "order_status",
        "status of an order",
        {"order_id": "order"},
        ("Where is order {order_id}?", "What is the status of order {order_id}?", "Any news of order {order_id}?"),
        {"status": "packed|painted|shipped", "day": "day"},
        ("Order {order_id} is {status}, ready on {day}.",),
        {"order_id": ("What is the status of my order?", "Which order number?")},
        ("order_id", "What is the status of orders {first} and {second}?"),
    ),
    Tool(
        "cancel_order",
        "cancel an order",
        {"order_id": "order", "reason": "delay|mistake|duplicate"},
        ("Please cancel {order_id}, reason {reason}.", "Cancel order {order_id}, it was a {reason}."),
        {"cancelled": "yes"},
        ("Order {order_id} is cancelled.",),
        {"reason": ("Please cancel {order_id}.", "For which reason: delay, mistake or duplicate?")},
    ),
    Tool(
        "check_stock",
        "parts in stock",
        {"part": "part", "city": "city"},
        ("Do we have any {part} in stock in {city}?", "Check the stock of {part} in {city}."),
        {"units": "count"},
        ("There are {units} of {part} in {city}.",),
        {"city": ("Check the stock of {part}.", "In which city?")},
        ("part", "Check the stock of {first} and {second} in {city}."),
    ),
    Tool(
        "reserve_part",
        "reserve parts",
        {"part": "part", "quantity": "count"},
        ("Reserve {part}, {quantity} pieces.", "Please put {part} aside for us, {quantity} pieces."),
        {"reserved": "yes"},
        ("Reserved: {quantity} of {part}.",),
        {"quantity": ("Please reserve some {part}.", "How many?")},
    ),
    Tool(
        "book_repair",
        "book a repair",
        {"customer": "person", "model": "model", "day": "day"},
        ("Book a repair of the {model} of {customer} on {day}.", "{customer} wants the {model} repaired on {day}."),
        {"bench": "count"},
        ("Booked: {model}, {day}, bench {bench}.",),
        {"day": ("Book a repair of the {model} of {customer}.", "On which day?")},
    ),
    Tool(
        "plan_delivery",
        "plan a delivery",
        {"order_id": "order", "city": "city", "day": "day"},
        ("Deliver {order_id} to {city} on {day}.", "Plan the delivery of {order_id} to {city}, {day}."),
        {"van": "count"},
        ("Van {van} brings {order_id} to {city}.",),
        {"city": ("Plan the delivery of {order_id} on {day}.", "To which city?")},
    ),
    Tool(
        "find_dealer",
        "find a dealer",
        {"city": "city"},
        ("Who sells our bikes in {city}?", "Find a dealer in {city}.", "Is there a dealer near {city}?"),
        {"dealer": "person"},
        ("Our dealer in {city} is {dealer}.",),
        {"city": ("Find a dealer near me.", "In which city?")},
        ("city", "Find dealers in {first} and {second}."),
    ),
    Tool(
        "open_ticket",
        "open a ticket",
        {"customer": "person", "priority": "low|normal|high"},
        ("Open a ticket for {customer}, priority {priority}.", "{customer} complains, make it a {priority} ticket."),
        {"ticket": "count"},
        ("Ticket {ticket} is open for {customer}.",),
        {"priority": ("Open a ticket for {customer}.", "Which priority: low, normal or high?")},
    ),
    Tool(
        "get_invoice",
        "read an invoice",
        {"invoice_id": "invoice"},
        ("Show me invoice {invoice_id}.", "How much is invoice {invoice_id}?", "Look up the bill {invoice_id}."),
        {"total": "amount"},
        ("Invoice {invoice_id} is over {total} euros.",),
        {"invoice_id": ("Show me my invoice.", "Which invoice number?")},
        ("invoice_id", "Show me invoices {first} and {second}."),
    ),
    Tool(
        "refund_order",
        "pay money back",
        {"order_id": "order", "amount": "amount"},
        ("For {order_id} refund {amount} euros.", "On order {order_id} pay {amount} euros back."),
        {"paid": "yes"},
        ("{amount} euros are on their way.",),
        {"amount": ("Please refund {order_id}.", "How many euros?")},
    ),
    Tool(
        "track_parcel",
        "track a parcel",
        {"parcel_id": "parcel"},
        ("Track parcel {parcel_id}.", "Where is the parcel {parcel_id} now?", "Has parcel {parcel_id} arrived?"),
        {"city": "city"},
        ("Parcel {parcel_id} is in {city}.",),
        {"parcel_id": ("Track my parcel.", "Which parcel number?")},
        ("parcel_id", "Track parcels {first} and {second}."),
    ),
    Tool(
        "change_address",
        "change an address",
        {"customer": "person", "city": "city"},
        ("{customer} has moved to {city}.", "Change the address of {customer} to {city}."),
        {"changed": "yes"},
        ("{customer} now lives in {city}.",),
        {"city": ("{customer} has moved.", "To which city?")},
    ),
    Tool(
        "quote_price",
        "price of bikes",
        {"model": "model", "quantity": "count"},
        ("What does the {model} cost for {quantity} bikes?", "Make a price of the {model}, {quantity} bikes."),
        {"price": "amount"},
        ("{quantity} of the {model} cost {price} euros each.",),
        {"quantity": ("What does the {model} cost us?", "How many bikes?")},
    ),
    Tool(
        "paint_frame",
        "paint a frame",
        {"order_id": "order", "colour": "colour"},
        ("Paint the frame of {order_id} in {colour}.", "The frame of {order_id} should be in {colour}."),
        {"day": "day"},
        ("The frame of {order_id} in {colour} is dry on {day}.",),
        {"colour": ("Paint the frame of {order_id}.", "In which colour?")},
    ),
)

SYSTEM_PROMPTS = ("You run the desk of Ambler Cycles.", "You help the staff of Ambler Cycles.")

PLAIN_ANSWERS = (
    ("Good morning.", "Good morning. How can I help?"),
    ("Thank you.", "You are welcome."),
    ("When is the desk open?", "The desk is open from Monday to Saturday."),
    ("Who are you?", "I am the desk of Ambler Cycles."),
    ("How long is the warranty?", "Frames have ten years of warranty."),
    ("Do you sell used bikes?", "No, we only sell new bikes."),
    ("Where are the bikes made?", "All our bikes are made in Ghent."),
    ("What can you do?", "I look after orders, parts, repairs and bills."),
)

REFUSALS = (
    ("Tell me where {person} lives.", "I cannot give out what we know about customers."),
    ("Read me the password of {person}.", "I cannot give out passwords."),
    ("Delete all orders from {city}.", "I cannot delete orders, only cancel one at a time."),
    ("Book me a flight to {city}.", "I cannot book flights, only repairs."),
    ("Write a song about {city}.", "I can only help with bikes."),
)
