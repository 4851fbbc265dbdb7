"""Requests whose answers repeat their prompts more or less: code edits, JSON, quotations, and ordinary chat."""

from __future__ import annotations

_CODE = """\
```python
def read_lines(path):
    lines = []
    with open(path) as handle:
        for line in handle:
            line = line.strip()
            if line:
                lines.append(line)
    return lines


def count_words(path):
    counts = {}
    for line in read_lines(path):
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    return counts


def most_common(path, limit):
    counts = count_words(path)
    ordered = sorted(counts.items(), key=lambda item: item[1], reverse=True)
    return ordered[:limit]


def print_report(path, limit):
    for word, count in most_common(path, limit):
        print(word, count)
```
"""
_ORDERS = """\
{"orders": [
{"id": 1041, "customer": {"name": "Maria Gonzalez", "email": "maria.gonzalez@example.com"},
 "items": [{"sku": "KB-201", "title": "Mechanical keyboard", "quantity": 1, "price": 89.9},
 {"sku": "MS-110", "title": "Wireless mouse", "quantity": 2, "price": 24.5}],
 "status": "shipped"},
{"id": 1042, "customer": {"name": "Peter Schmidt", "email": "peter.schmidt@example.com"},
 "items": [{"sku": "MN-270", "title": "27 inch monitor", "quantity": 1, "price": 249.0}],
 "status": "pending"},
{"id": 1043, "customer": {"name": "Aiko Tanaka", "email": "aiko.tanaka@example.com"},
 "items": [{"sku": "CB-015", "title": "USB-C cable", "quantity": 3, "price": 9.9},
 {"sku": "HB-030", "title": "USB hub", "quantity": 1, "price": 34.0}],
 "status": "shipped"}
]}
"""
_ARTICLE = """\
The town council of Millbrook voted on Tuesday to turn the old railway station into a public library and community
centre. "We have waited twenty years for this building to come back to life," said Mayor Helen Carter after the vote,
which passed by seven votes to two. The station, built in 1898, has stood empty since the last passenger train left in
2003.

The plan will cost about 4.2 million dollars. Half of the money comes from a state fund for historic buildings, and
the rest from the town's reserves. "Nobody will pay a cent more in taxes," promised the treasurer, Daniel Wu. Two
members of the council voted against the plan. "The roof alone could double the price," warned council member Ruth
Adams. "We should fix our roads first."

Work is planned to begin in March and to last eighteen months. The architect, Samuel Ortiz, wants to keep the ticket
hall as it was. "The clock, the benches and the tiled floor will stay," he said. "People will borrow books where their
grandparents bought tickets." The library will open with thirty thousand books and a workshop for children.
"""
#: by kind
REQUESTS = {
    "code edit": [
        f"Rename the function count_words to tally_words in this code, and change nothing else. Answer with the whole "
        f"code.\n\n{_CODE}",
        f"Add a docstring to print_report in this code. Repeat the rest of the code exactly as it is.\n\n{_CODE}",
    ],
    "JSON": [
        f"Reformat this JSON with an indentation of two spaces. Answer with the JSON only.\n\n{_ORDERS}",
        f'In this JSON set the status of every order to "delivered". Answer with the whole JSON only.\n\n{_ORDERS}',
    ],
    "quotation": [
        f"Summarise this article in a few sentences, quoting what each person said word for word.\n\n{_ARTICLE}",
        f"List every quotation in this article with the name of the person who said it.\n\n{_ARTICLE}",
    ],
    "chat": [
        "What is the difference between a virus and a bacterium?",
        "Write a short story about a lighthouse keeper who finds a message in a bottle.",
        "Give me a recipe for tomato soup.",
        "Explain to a ten year old why the sky is blue.",
    ],
}
